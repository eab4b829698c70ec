//! Builds and runs everything: makes the channels, starts the tasks, in the order of the promises.
//!
//! The data port answers first, as a plain pass-through; the store, the journal and the
//! controller come up behind it, and whatever of them cannot come up is named by `/readyz`.

mod known;
mod opening;
mod stored;
mod surveyed;

use std::{
    future::Future,
    pin::{Pin, pin},
    sync::{Arc, OnceLock, atomic::AtomicBool},
    time::Duration,
};

use tokio::{
    sync::mpsc,
    task::spawn_blocking,
    time::{Instant, sleep, timeout},
};

use crate::api::{self, PlanDefaults};
use crate::clock::Clock;
use crate::config::{self, Autostart, Config};
use crate::controller::{Budgets, Goldens, Judged, Setup, Start, Takeover, Wanted};
use crate::domain::{Lane, Margin, Metric, Name, Risk, Seen, Share, hash};
use crate::judge::{Judge, Outlets};
use crate::listeners::{
    self, Addresses, ListenError, Listener, Listeners, Offer, Passed, Successor,
};
use crate::memory::Memory;
use crate::operations::{self, Operations};
use crate::proxy::{self, Headers, Proxy, Settings, ToJudge};
use crate::store::{History, Journal, RecorderHandle, Replays};
use crate::tasks::{BoxError, Ended, Losses, Pool, Tasks, caught};
use crate::telemetry::Metrics;
use crate::traffic::{Barometer, Board, Fitness, Job, Outbox, Pot, Surveyor, Trail};
use crate::upstream::{self, Upstream};

pub use known::redactor;

use opening::Opening;
use stored::{NoJournal, STORE_TRIES, STORE_TRIES_ONCE, finish};

/// Copies that wait to become pairs; each belongs to a request that is being answered, and those
/// are limited by `limits.connections_max`.
const COPIES_LEN_MAX: usize = 1 << 16;
/// How long it is waited for the store's folder, in which successors look for this process.
const FOLDER_WAIT: Duration = Duration::from_secs(1);

/// The program, started.
#[derive(Debug)]
pub struct App {
    /// Where it can be reached.
    pub addresses: Addresses,
    tasks: Tasks,
    opening: Opening,
    /// Until the API has it.
    control: Option<Listener>,
    connections: Pool,
    taken: mpsc::Receiver<Successor>,
    drain_delay: Duration,
    grace: Duration,
}

/// Why the program could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// There is no listening socket.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// A provider or the judge cannot be called as configured.
    #[error("a configured address or key cannot be used")]
    Unusable(#[source] BoxError),
}

/// Channels and shared parts, made in one place.
#[derive(Debug)]
struct Parts {
    board: Arc<Board>,
    metrics: Arc<Metrics>,
    clock: Clock,
    outbox: Outbox,
    barometer: Arc<Barometer>,
    surveyor: Arc<Surveyor>,
    trail: Arc<Trail>,
    recorder: Arc<OnceLock<RecorderHandle>>,
    operations: Arc<Operations>,
    memory: Memory,
    fitness: Arc<Fitness>,
}

impl App {
    /// Starts what serves callers, on sockets that were passed where there are. The data port
    /// answers when this returns, and the process that served before, if any, leaves.
    ///
    /// # Errors
    /// When a port is taken or an address unusable.
    pub async fn start(mut config: Config, mut passed: Passed) -> Result<Self, StartError> {
        let (descriptors, copies) = (listeners::raise(), config.limits.mirror_concurrency_max);
        config.limits.connections_max =
            listeners::connections(config.limits.connections_max, copies, descriptors);
        let limits = config.limits;
        let listeners = Listeners::open(&config, &mut passed)?;
        let mut offer = Offer::new(&config.store, &listeners)
            .map_err(|error| StartError::Unusable(error.into()))?;
        let Listeners { data, control, operations, addresses } = listeners;
        let connect = Duration::from_millis(limits.upstream_connect_timeout_ms);
        let upstream = Upstream::new(&config.providers, connect)
            .map_err(|error| StartError::Unusable(error.into()))?;

        let (seen, seen_here) = mpsc::channel(limits.observation_queue_len_max);
        let pool = Pool::new(limits.mirror_concurrency_max);
        let under_way = Pool::new(COPIES_LEN_MAX);
        let connections = Pool::new(limits.connections_max);
        let streams = Pool::new(listeners::streams(limits.connections_max, copies, descriptors));
        let mut tasks = Tasks::default();
        let parts = Parts::new(&config, seen, (&upstream, &under_way), tasks.losses());
        let (surveyor, store) = (Arc::clone(&parts.surveyor), Arc::clone(&parts.operations.pairs));
        tasks.start_beside_last("survey", |stop| surveyed::keep(surveyor, store, stop));
        check_health(&mut tasks, &config, (upstream.clone(), &parts));
        let to_judge = start_judge(&mut tasks, &config, &parts)?;
        let pools = [connections.clone(), streams, pool, under_way];
        let proxy = Arc::new(proxy(&config, &parts, (upstream, pools, to_judge)));
        tasks.start("proxy", move |stop| proxy::serve(proxy, data, stop));
        let shown = Arc::clone(&parts.operations);
        let life = tasks.stop();
        tasks.start_last("operations", |stop| operations::serve(shown, operations, life, stop));
        let predecessor = passed.predecessor();
        let tries = if predecessor.is_there() { STORE_TRIES } else { STORE_TRIES_ONCE };
        let predecessor = predecessor.relieve().await;
        listeners::ready();
        tasks.start_beside_last("watchdog", listeners::watchdog);

        // What is wrong with it is said by who opens the store.
        let dir = config.store.clone();
        let folder = spawn_blocking(move || Journal::make_folder(&dir));
        let _ = timeout(FOLDER_WAIT, folder).await;
        offer.open();
        let (taken_here, taken) = mpsc::channel(1);
        tasks.start_beside("handover", |stop| offer.run(taken_here, stop));
        let drain_delay = Duration::from_millis(limits.drain_delay_ms);
        let grace = Duration::from_millis(limits.grace_ms);
        let opening = Opening { config, parts, predecessor, tries, seen: seen_here };
        let control = Some(control);
        Ok(Self { addresses, tasks, opening, control, connections, taken, drain_delay, grace })
    }

    /// Opens the store and starts who needs it, and runs until `signal`, or until another process
    /// serves on the same sockets; then lets work under way end. Neither waits for a store that
    /// takes long to open.
    ///
    /// # Errors
    /// When a part ended by itself, or did not end in time.
    pub async fn run(self, signal: impl Future<Output = ()>) -> Result<(), Ended> {
        let Self { mut tasks, opening, mut control, connections, mut taken, .. } = self;
        let (mut signal, phases, mut recorder) = (pin!(signal), tasks.phases(), None);
        let losses = tasks.losses();
        let opened = caught("opening", opening.open(&mut tasks, (&mut control, &mut recorder)));
        let early = tokio::select! {
            opened = opened => {
                if opened.is_none() {
                    losses.add("opening", "panicked");
                }
                None
            }
            asked = asked(signal.as_mut(), &mut taken) => Some(asked),
        };
        // The proxy uses the grace time up to its end, and then needs a moment.
        let grace = self.grace.max(api::DRAIN) + Duration::from_secs(2);
        let (mut successor, mut ends) = (None, Instant::now());
        let ending = async {
            let asked = match early {
                Some(early) => early,
                None => asked(signal, &mut taken).await,
            };
            if let Some(taken) = asked {
                tracing::info!("another process serves on the same sockets; this one ends");
                successor = Some(taken);
                phases.leave();
                let _ = timeout(proxy::LINGER + self.grace, connections.emptied()).await;
            } else {
                listeners::leaving();
                phases.drain();
                tokio::select! {
                    () = sleep(self.drain_delay) => {}
                    // Whoever takes over meanwhile has the sockets, and their files.
                    Some(taken) = taken.recv() => {
                        successor = Some(taken);
                        phases.leave();
                    }
                }
            }
            ends = Instant::now();
        };
        let ended = tasks.run(ending, grace).await;
        finish(recorder, self.grace.saturating_sub(ends.elapsed())).await;
        if let Some(control) = control.filter(|_| successor.is_some()) {
            control.leave();
        }
        // It may have the store now.
        drop(successor);
        ended
    }
}

/// Waits until the end is asked for, or another process serves on the same sockets: that one.
async fn asked(
    signal: Pin<&mut impl Future<Output = ()>>,
    taken: &mut mpsc::Receiver<Successor>,
) -> Option<Successor> {
    tokio::select! {
        () = signal => None,
        Some(successor) = taken.recv() => Some(successor),
    }
}

/// Watches over those that serve and have another behind them: candidates, and with a failover
/// all of its chain.
fn check_health(tasks: &mut Tasks, config: &Config, (upstream, parts): (Upstream, &Parts)) {
    let board = Arc::clone(&parts.board);
    let mut chain = config.failover.clone();
    if !chain.is_empty() {
        chain.push(config.primary.clone());
    }
    let serves = move |name: &Name| {
        let lanes = &board.load().snapshot.lanes;
        let served =
            |it: &Arc<Lane>| it.window.is_some() && !it.serve.is_none() && it.candidate == *name;
        chain.contains(name) || lanes.iter().any(served)
    };
    let shown = (Arc::clone(&parts.metrics), parts.clock);
    tasks.start_beside("health checks", |stop| upstream::watch(upstream, serves, shown, stop));
}

fn start_judge(
    tasks: &mut Tasks,
    config: &Config,
    parts: &Parts,
) -> Result<Option<ToJudge>, StartError> {
    let Some(judge) = &config.judge else { return Ok(None) };
    let (jobs, jobs_here) = mpsc::channel::<Job>(config.limits.judge_queue_len_max);
    let outlets = Outlets {
        outbox: parts.outbox.clone(),
        recorder: Arc::clone(&parts.recorder),
        redactor: redactor(config),
        fitness: Arc::clone(&parts.fitness),
        metrics: Arc::clone(&parts.metrics),
        clock: parts.clock,
    };
    let cleared = judge.cleared.clone();
    let judge = Arc::new(Judge::new(judge, outlets).map_err(StartError::Unusable)?);
    let tried = Arc::clone(&judge);
    tasks.start_beside("calibration", |stop| tried.calibrate(stop));
    tasks.start_beside("judge", |stop| judge.run(jobs_here, stop));
    Ok(Some(ToJudge { jobs, cleared }))
}

fn proxy(
    config: &Config,
    parts: &Parts,
    (upstream, pools, judge): (Upstream, [Pool; 4], Option<ToJudge>),
) -> Proxy {
    let limits = config.limits;
    let [connections, streams, pool, under_way] = pools;
    Proxy {
        board: Arc::clone(&parts.board),
        upstream,
        primary: config.primary.clone(),
        failover: config.failover.clone(),
        callers: known::callers(config),
        settings: Settings {
            body_bytes_max: limits.body_bytes_max,
            copy_bytes_max: limits.mirror_body_bytes_max,
            capture_bytes_max: limits.capture_bytes_max,
            copy_timeout: Duration::from_millis(limits.mirror_timeout_ms),
            first_byte_timeout: Duration::from_millis(limits.first_byte_timeout_ms),
            upstream_timeout: Duration::from_millis(limits.upstream_timeout_ms),
            tls: config.tls.clone(),
            header_timeout: Duration::from_millis(limits.header_read_timeout_ms),
            body_timeout: Duration::from_millis(limits.body_read_timeout_ms),
            write_timeout: Duration::from_millis(limits.write_timeout_ms),
            idle_timeout: Duration::from_millis(limits.idle_timeout_ms),
            grace: Duration::from_millis(limits.grace_ms),
            headers: match config.response_headers {
                config::Headers::Added => Headers::Added,
                config::Headers::Off => Headers::Off,
            },
        },
        connections,
        streams,
        pool,
        memory: parts.memory.clone(),
        under_way,
        drains: AtomicBool::new(false),
        ends: AtomicBool::new(false),
        outbox: parts.outbox.clone(),
        barometer: Arc::clone(&parts.barometer),
        surveyor: Arc::clone(&parts.surveyor),
        trail: Arc::clone(&parts.trail),
        recorder: Arc::clone(&parts.recorder),
        judge,
        checker: proxy::Checker::default(),
        store_cleared: config.store_cleared.clone(),
        redactor: redactor(config),
        metrics: Arc::clone(&parts.metrics),
        clock: parts.clock,
    }
}

impl Parts {
    fn new(
        config: &Config,
        seen: mpsc::Sender<Seen>,
        (upstream, copies): (&Upstream, &Pool),
        losses: Losses,
    ) -> Self {
        let metrics = Arc::new(Metrics::new());
        let memory = Memory::new(config.limits.side_memory_bytes_max);
        let (clock, recorder) = (Clock::start(), Arc::default());
        let calibration = config.judge.as_ref().and_then(|it| it.calibration.as_ref());
        let set = |it: &config::Calibration| hash("calibration", &format!("{:?}", it.rows));
        let fitness = calibration.map(set).map_or_else(Fitness::default, Fitness::untried);
        Self {
            board: Arc::default(),
            clock,
            outbox: Outbox::new(seen, clock),
            barometer: Arc::new(Barometer::new(config.primary.clone(), clock)),
            surveyor: Arc::new(Surveyor::new(config.audit, clock)),
            trail: Arc::default(),
            recorder: Arc::clone(&recorder),
            operations: Arc::new(Operations {
                metrics: Arc::clone(&metrics),
                copies: Some(copies.clone()),
                upstream: Some(upstream.clone()),
                memory: Some(memory.clone()),
                recorder,
                losses,
                ..Operations::default()
            }),
            metrics,
            memory,
            fitness: Arc::new(fitness),
        }
    }
}

fn setup(
    config: &Config,
    parts: &Parts,
    (journal, takeover): (Result<(Journal, History), NoJournal>, mpsc::Receiver<Takeover>),
    seen: mpsc::Receiver<Seen>,
) -> Setup {
    let wanted = |it: &config::RolloutConfig| Wanted {
        name: it.name.clone(),
        plan: it.plan.clone(),
        start: match it.autostart {
            Autostart::Yes => Start::Once,
            Autostart::No => Start::WhenAsked,
        },
    };
    let cleared = |it: &config::Provider| (it.name.clone(), it.cleared.clone());
    let priced = config.providers.iter().filter(|it| !it.prices.is_empty());
    Setup {
        board: Arc::clone(&parts.board),
        clock: parts.clock,
        journal: journal.map_err(|error| match error {
            NoJournal::Elsewhere(why) => {
                tracing::warn!(why, "another process has the journal");
                why
            }
            NoJournal::Unusable(why) => {
                let so = "the primary is served, nothing can be controlled";
                tracing::error!(why, "the journal cannot be used: {so}");
                why
            }
        }),
        takeover,
        pairs: parts.operations.pairs.get().cloned(),
        providers: config.providers.iter().map(cleared).collect(),
        identities: config.providers.iter().map(|it| (it.name.clone(), it.identity())).collect(),
        priced: priced.map(|it| it.name.clone()).collect(),
        budgets: Budgets {
            all: Arc::new(Pot::new(config.budget)),
            own: config.rollouts.iter().map(|it| (it.name.clone(), it.budget)).collect(),
        },
        goldens: goldens(config),
        primary: config.primary.clone(),
        judge: if config.judge.is_some() { Judged::Yes(config.kin()) } else { Judged::No },
        strict_judge: config.strict_judge(),
        fitness: Arc::clone(&parts.fitness),
        wanted: config.rollouts.iter().map(wanted).collect(),
        seen,
        outbox: parts.outbox.clone(),
        barometer: Arc::clone(&parts.barometer),
        recorder: Arc::clone(&parts.recorder),
        metrics: Arc::clone(&parts.metrics),
    }
}

/// What has to be known before rollouts begin.
fn goldens(config: &Config) -> Goldens {
    let required = config.rollouts.iter();
    let required = required.filter_map(|it| Some((it.name.clone(), it.golden.clone()?)));
    Goldens { required: required.collect(), replays: Arc::new(Replays::new(&config.store)) }
}

/// What a plan gets over the API where its author says nothing.
fn defaults(config: &Config) -> PlanDefaults {
    let judged = config.judge.as_ref().map(|it| it.share);
    let metrics = Metric::DEFAULTS.into_iter().chain(Metric::GROUND_DEFAULTS);
    let needs_judge =
        |it: &Metric| *it == Metric::JudgeScore || Metric::GROUND_DEFAULTS.contains(it);
    let metrics = metrics.filter(|it| judged.is_some() || !needs_judge(it));
    PlanDefaults {
        margins: metrics.map(Margin::default_of).collect(),
        copies_per_day_max: config::COPIES_PER_DAY_DEFAULT,
        judge_share: judged.unwrap_or(Share::NONE),
        review: config::review_default(),
        risk: Risk::default(),
    }
}

#[cfg(test)]
mod tests;
