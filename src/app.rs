//! Builds and runs everything: makes the channels, starts the tasks, in the order of the promises.
//!
//! The data port answers first, as a plain pass-through; the store, the journal and the
//! controller come up behind it, and whatever of them cannot come up is named by `/readyz`.

mod known;
mod stored;

use std::{
    future::Future,
    sync::{Arc, OnceLock, atomic::AtomicBool},
    time::Duration,
};

use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, sleep, timeout},
};

use crate::api::{self, Past, PlanDefaults};
use crate::clock::Clock;
use crate::config::{self, Autostart, Config};
use crate::controller::{Controller, Judged, Setup, Start, Takeover, Wanted};
use crate::domain::{Lane, Margin, Metric, Name, Risk, Seen, Share};
use crate::judge::{Judge, Outlets};
use crate::listeners::{
    self, Addresses, Gone, ListenError, Listener, Listeners, Offer, Passed, Successor,
};
use crate::memory::Memory;
use crate::operations::{self, Operations};
use crate::proxy::{self, Headers, Proxy, Settings, ToJudge};
use crate::store::{History, Journal, RecorderHandle, RecorderThread};
use crate::tasks::{BoxError, Ended, Phases, Pool, Stop, Tasks};
use crate::telemetry::Metrics;
use crate::traffic::{Barometer, Board, Job, Outbox, Trail};
use crate::upstream::{self, Upstream};

use stored::{NoJournal, STORE_TRIES, STORE_TRIES_ONCE, finish, open_journal, stand_by};

/// Copies that wait to become pairs; each belongs to a request that is being answered, and those
/// are limited by `limits.connections_max`.
const COPIES_LEN_MAX: usize = 1 << 16;
/// How much longer than our own grace time a predecessor may take to end; then the API answers
/// without having the store.
const PREDECESSOR_WAIT: Duration = Duration::from_secs(15);

/// The program, started.
#[derive(Debug)]
pub struct App {
    /// Where it can be reached.
    pub addresses: Addresses,
    tasks: Tasks,
    phases: Phases,
    connections: Pool,
    taken: oneshot::Receiver<Successor>,
    recorder: Option<RecorderThread>,
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
struct Parts {
    board: Arc<Board>,
    metrics: Arc<Metrics>,
    clock: Clock,
    outbox: Outbox,
    barometer: Arc<Barometer>,
    trail: Arc<Trail>,
    recorder: Arc<OnceLock<RecorderHandle>>,
    operations: Arc<Operations>,
    memory: Memory,
}

impl App {
    /// Starts everything, on sockets that were passed where there are. The data port answers when
    /// this returns, and the process that served before, if any, leaves.
    ///
    /// # Errors
    /// When a port is taken or an address unusable. A store that cannot be used is no error:
    /// the primary is served, nothing is controlled, and `/readyz` says so.
    pub async fn start(mut config: Config, mut passed: Passed) -> Result<Self, StartError> {
        config.limits.connections_max = listeners::connections(
            config.limits.connections_max,
            config.limits.mirror_concurrency_max,
            listeners::raise(),
        );
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
        let parts = Parts::new(&config, seen, (&upstream, &under_way));
        let mut tasks = Tasks::default();
        check_health(&mut tasks, &config, (upstream.clone(), &parts));
        let to_judge = start_judge(&mut tasks, &config, &parts)?;
        let pools = [connections.clone(), pool, under_way];
        let proxy = Arc::new(proxy(&config, &parts, (upstream, pools, to_judge)));
        tasks.start("proxy", move |stop| proxy::serve(proxy, data, stop));
        let shown = Arc::clone(&parts.operations);
        let life = tasks.stop();
        tasks.start_last("operations", |stop| operations::serve(shown, operations, life, stop));
        let predecessor = passed.predecessor();
        let tries = if predecessor.is_there() { STORE_TRIES } else { STORE_TRIES_ONCE };
        let predecessor = predecessor.relieve().await;
        listeners::ready();
        tasks.start_last("watchdog", listeners::watchdog);

        let journal = open_journal(config.store.clone()).await;
        offer.open();
        let (taken_here, taken) = oneshot::channel();
        tasks.start("handover", |stop| offer.run(taken_here, stop));
        let (takeover, takeover_here) = mpsc::channel(1);
        let stored = parts.stored(&config, predecessor.clone());
        let recorder = if let Err(NoJournal::Elsewhere(_)) = &journal {
            // Its store is written to until the controller has ended.
            tasks.start_last("standby", |stop| stand_by(stored, takeover, stop));
            None
        } else {
            stored.open(tries).await
        };
        let setup = setup(&config, &parts, (journal, takeover_here), seen_here);
        let (controller, handle) = Controller::new(setup).await;
        drop(parts.operations.controller.set(handle.clone()));
        tasks.start_last("controller", |stop| controller.run(stop));
        let defaults = defaults(&config);
        let past = Past {
            pairs: Arc::clone(&parts.operations.pairs),
            trail: Arc::clone(&parts.trail),
            outbox: parts.outbox.clone(),
        };
        let grace = Duration::from_millis(limits.grace_ms);
        tasks.start("api", |stop| async move {
            let control = alone(control, predecessor, (grace, stop.clone())).await;
            let Some(control) = control else { return Ok(()) };
            api::serve(control, handle, past, defaults, stop).await
        });
        let drain_delay = Duration::from_millis(limits.drain_delay_ms);
        let phases = tasks.phases();
        Ok(Self { addresses, tasks, phases, connections, taken, recorder, drain_delay, grace })
    }

    /// Runs until `signal`, or until another process serves on the same sockets; then lets work
    /// under way end.
    ///
    /// # Errors
    /// When a part ended by itself, or did not end in time.
    pub async fn run(mut self, signal: impl Future<Output = ()>) -> Result<(), Ended> {
        // The proxy uses the grace time up to its end, and then needs a moment.
        let grace = self.grace.max(api::DRAIN) + Duration::from_secs(2);
        let (mut successor, mut ends) = (None, Instant::now());
        let ending = async {
            tokio::select! {
                () = signal => {
                    listeners::leaving();
                    self.phases.drain();
                    tokio::select! {
                        () = sleep(self.drain_delay) => {}
                        // Whoever takes over meanwhile has the sockets, and their files.
                        Ok(taken) = &mut self.taken => {
                            successor = Some(taken);
                            self.phases.leave();
                        }
                    }
                }
                Ok(taken) = &mut self.taken => {
                    tracing::info!("another process serves on the same sockets; this one ends");
                    successor = Some(taken);
                    self.phases.leave();
                    let streams = self.connections.emptied();
                    let _ = timeout(proxy::LINGER + self.grace, streams).await;
                }
            }
            ends = Instant::now();
        };
        let ended = self.tasks.run(ending, grace).await;
        finish(self.recorder, self.grace.saturating_sub(ends.elapsed())).await;
        // It may have the store now.
        drop(successor);
        ended
    }
}

/// Waits until nobody else answers on the control port; none when it is time to stop before.
async fn alone(
    control: Listener,
    mut predecessor: Gone,
    (grace, mut stop): (Duration, Stop),
) -> Option<Listener> {
    tokio::select! {
        () = stop.wait() => {
            if stop.has_left() {
                control.leave();
            }
            None
        }
        _ = timeout(grace + PREDECESSOR_WAIT, predecessor.wait()) => Some(control),
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
    tasks.start("health checks", |stop| upstream::watch(upstream, serves, shown, stop));
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
        redactor: known::redactor(config),
        metrics: Arc::clone(&parts.metrics),
        clock: parts.clock,
    };
    let cleared = judge.cleared.clone();
    let judge = Arc::new(Judge::new(judge, outlets).map_err(StartError::Unusable)?);
    tasks.start("judge", |stop| judge.run(jobs_here, stop));
    Ok(Some(ToJudge { jobs, cleared }))
}

fn proxy(
    config: &Config,
    parts: &Parts,
    (upstream, [connections, pool, under_way], judge): (Upstream, [Pool; 3], Option<ToJudge>),
) -> Proxy {
    let limits = config.limits;
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
        pool,
        memory: parts.memory.clone(),
        under_way,
        drains: AtomicBool::new(false),
        ends: AtomicBool::new(false),
        outbox: parts.outbox.clone(),
        barometer: Arc::clone(&parts.barometer),
        trail: Arc::clone(&parts.trail),
        recorder: Arc::clone(&parts.recorder),
        judge,
        store_cleared: config.store_cleared.clone(),
        redactor: known::redactor(config),
        metrics: Arc::clone(&parts.metrics),
        clock: parts.clock,
    }
}

impl Parts {
    fn new(
        config: &Config,
        seen: mpsc::Sender<Seen>,
        (upstream, copies): (&Upstream, &Pool),
    ) -> Self {
        let metrics = Arc::new(Metrics::new());
        let memory = Memory::new(config.limits.side_memory_bytes_max);
        let (clock, recorder) = (Clock::start(), Arc::default());
        Self {
            board: Arc::default(),
            clock,
            outbox: Outbox::new(seen, clock),
            barometer: Arc::new(Barometer::new(config.primary.clone(), clock)),
            trail: Arc::default(),
            recorder: Arc::clone(&recorder),
            operations: Arc::new(Operations {
                metrics: Arc::clone(&metrics),
                copies: Some(copies.clone()),
                upstream: Some(upstream.clone()),
                memory: Some(memory.clone()),
                recorder,
                ..Operations::default()
            }),
            metrics,
            memory,
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
        priced: priced.map(|it| it.name.clone()).collect(),
        primary: config.primary.clone(),
        judge: if config.judge.is_some() { Judged::Yes } else { Judged::No },
        wanted: config.rollouts.iter().map(wanted).collect(),
        seen,
        outbox: parts.outbox.clone(),
        barometer: Arc::clone(&parts.barometer),
        recorder: Arc::clone(&parts.recorder),
        metrics: Arc::clone(&parts.metrics),
    }
}

/// What a plan gets over the API where its author says nothing.
fn defaults(config: &Config) -> PlanDefaults {
    let judged = config.judge.as_ref().map(|it| it.share);
    let metrics = Metric::DEFAULTS.into_iter();
    let metrics = metrics.filter(|it| *it != Metric::JudgeScore || judged.is_some());
    PlanDefaults {
        margins: metrics.map(Margin::default_of).collect(),
        copies_per_day_max: config::COPIES_PER_DAY_DEFAULT,
        judge_share: judged.unwrap_or(Share::NONE),
        risk: Risk::default(),
    }
}
