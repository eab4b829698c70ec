//! Builds and runs everything: makes the channels, starts the tasks, in the order of the promises.
//!
//! The data port answers first, as a plain pass-through; the store, the journal and the
//! controller come up behind it, and whatever of them cannot come up is named by `/readyz`.

mod known;

use std::{
    future::Future,
    io,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, OnceLock, atomic::AtomicBool},
    time::Duration,
};

use tokio::{
    net::TcpListener,
    sync::mpsc,
    task::{JoinError, spawn_blocking},
    time::sleep,
};

use crate::api::{self, Past, PlanDefaults};
use crate::clock::Clock;
use crate::config::{self, Autostart, Config};
use crate::controller::{Controller, Judged, Setup, Start, Takeover, Wanted};
use crate::domain::{Lane, Margin, Metric, Name, Risk, Seen, Share};
use crate::judge::{Judge, Outlets};
use crate::listeners;
use crate::memory::Memory;
use crate::operations::{self, Operations};
use crate::proxy::{self, Headers, Proxy, Settings, ToJudge};
use crate::store::{
    self, History, Journal, JournalError, Pairs, PairsError, Recorder, RecorderHandle,
    RecorderThread,
};
use crate::tasks::{BoxError, Ended, Pool, Stop, Tasks, describe};
use crate::telemetry::Metrics;
use crate::traffic::{Barometer, Board, Job, Outbox, Trail};
use crate::upstream::{self, Upstream};

/// Free space on the disk below which no more pairs are stored, in bytes.
const FREE_BYTES_MIN: u64 = 256 << 20;
/// Copies that wait to become pairs; each belongs to a request that is being answered, and those
/// are limited by `limits.connections_max`.
const COPIES_LEN_MAX: usize = 1 << 16;
/// How often a second process looks whether the first one has let go of the store.
const STANDBY_PAUSE: Duration = Duration::from_secs(1);
/// How often it looks for the pairs, once it has the journal.
const STORE_TRIES: u32 = 10;
/// How often the pairs are looked for at the start, where somebody may wait.
const STORE_TRIES_ONCE: u32 = 1;

/// Where the program can be reached.
#[derive(Clone, Debug)]
pub struct Addresses {
    /// The data port.
    pub data: SocketAddr,
    /// The gRPC port, as `--server` takes it.
    pub control: String,
    /// The operations port.
    pub operations: SocketAddr,
}

/// The program, started.
#[derive(Debug)]
pub struct App {
    /// Where it can be reached.
    pub addresses: Addresses,
    tasks: Tasks,
    recorder: Option<RecorderThread>,
    grace: Duration,
}

/// Why the program could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A port cannot be listened on.
    #[error("cannot listen on {address}; is another program there? Change `{key}`")]
    Listen {
        /// The key of the configuration.
        key: &'static str,
        /// The address.
        address: String,
        /// What the system says.
        #[source]
        error: io::Error,
    },
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

/// What it takes to open the stored pairs, and who waits for them.
struct Stored {
    dir: PathBuf,
    limits: store::Limits,
    clock: Clock,
    recorder: Arc<OnceLock<RecorderHandle>>,
    operations: Arc<Operations>,
}

/// Why there is no journal.
enum NoJournal {
    /// Another process has it, and may let go of it.
    Elsewhere(String),
    /// It cannot be used.
    Unusable(String),
}

impl App {
    /// Starts everything. The data port answers when this returns.
    ///
    /// # Errors
    /// When a port is taken or an address unusable. A store that cannot be used is no error:
    /// the primary is served, nothing is controlled, and `/readyz` says so.
    pub async fn start(mut config: Config) -> Result<Self, StartError> {
        config.limits.connections_max = listeners::connections(
            config.limits.connections_max,
            config.limits.mirror_concurrency_max,
            listeners::raise(),
        );
        let limits = config.limits;
        let data = listen("listen", config.listen).await?;
        let operations_port = listen("operations", config.operations).await?;
        let (control, control_address) = listeners::bind(&config.control).map_err(|error| {
            let address = format!("{:?}", config.control);
            StartError::Listen { key: "control", address, error }
        })?;
        let addresses = Addresses {
            data: address(&data, config.listen),
            control: control_address,
            operations: address(&operations_port, config.operations),
        };
        let connect = Duration::from_millis(limits.upstream_connect_timeout_ms);
        let upstream = Upstream::new(&config.providers, connect)
            .map_err(|error| StartError::Unusable(error.into()))?;

        let (seen, seen_here) = mpsc::channel(limits.observation_queue_len_max);
        let pool = Pool::new(limits.mirror_concurrency_max);
        let under_way = Pool::new(COPIES_LEN_MAX);
        let metrics = Arc::new(Metrics::new());
        let clock = Clock::start();
        let memory = Memory::new(limits.side_memory_bytes_max);
        let parts = Parts {
            board: Arc::default(),
            clock,
            outbox: Outbox::new(seen, clock),
            barometer: Arc::new(Barometer::new(config.primary.clone(), clock)),
            trail: Arc::default(),
            recorder: Arc::default(),
            operations: Arc::new(Operations {
                metrics: Arc::clone(&metrics),
                copies: Some(under_way.clone()),
                upstream: Some(upstream.clone()),
                memory: Some(memory.clone()),
                ..Operations::default()
            }),
            metrics,
            memory,
        };
        let mut tasks = Tasks::default();
        check_health(&mut tasks, &config, (upstream.clone(), &parts));
        let to_judge = start_judge(&mut tasks, &config, &parts)?;
        let proxy = Arc::new(proxy(&config, &parts, (upstream, (pool, under_way), to_judge)));
        tasks.start("proxy", move |stop| proxy::serve(proxy, data, stop));
        let shown = Arc::clone(&parts.operations);
        tasks.start("operations", |stop| operations::serve(shown, operations_port, stop));

        let journal = open_journal(config.store.clone()).await;
        let (takeover, takeover_here) = mpsc::channel(1);
        let stored = parts.stored(&config);
        let recorder = if let Err(NoJournal::Elsewhere(_)) = &journal {
            // Its store is written to until the controller has ended.
            tasks.start_last("standby", |stop| stand_by(stored, takeover, stop));
            None
        } else {
            stored.open(STORE_TRIES_ONCE).await
        };
        let setup = setup(&config, &parts, (journal, takeover_here), seen_here);
        let (controller, handle) = Controller::new(setup).await;
        drop(parts.operations.controller.set(handle.clone()));
        tasks.start_last("controller", |stop| controller.run(stop));
        let defaults = defaults(&config);
        let past =
            Past { pairs: Arc::clone(&parts.operations.pairs), trail: Arc::clone(&parts.trail) };
        tasks.start("api", |stop| api::serve(control, handle, past, defaults, stop));
        let grace = Duration::from_millis(limits.grace_ms);
        Ok(Self { addresses, tasks, recorder, grace })
    }

    /// Runs until `signal`, then lets work under way end.
    ///
    /// # Errors
    /// When a part ended by itself, or did not end in time.
    pub async fn run(self, signal: impl Future<Output = ()>) -> Result<(), Ended> {
        // The proxy uses the grace time up to its end, and then needs a moment.
        let grace = self.grace.max(api::DRAIN) + Duration::from_secs(2);
        let ended = self.tasks.run(signal, grace).await;
        if let Some(recorder) = self.recorder {
            drop(spawn_blocking(move || recorder.join()).await);
        }
        ended
    }
}

async fn listen(key: &'static str, address: SocketAddr) -> Result<TcpListener, StartError> {
    TcpListener::bind(address).await.map_err(|error| StartError::Listen {
        key,
        address: address.to_string(),
        error,
    })
}

fn address(listener: &TcpListener, asked: SocketAddr) -> SocketAddr {
    listener.local_addr().unwrap_or(asked)
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
    (upstream, (pool, under_way), judge): (Upstream, (Pool, Pool), Option<ToJudge>),
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
            connections_max: limits.connections_max,
            grace: Duration::from_millis(limits.grace_ms),
            headers: match config.response_headers {
                config::Headers::Added => Headers::Added,
                config::Headers::Off => Headers::Off,
            },
        },
        pool,
        memory: parts.memory.clone(),
        under_way,
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

/// Opens the journal; what is wrong is logged by who gives up on it.
async fn open_journal(dir: PathBuf) -> Result<(Journal, History), NoJournal> {
    match spawn_blocking(move || Journal::open(&dir)).await {
        Ok(Ok(journal)) => Ok(journal),
        Ok(Err(error @ JournalError::Locked { .. })) => Err(NoJournal::Elsewhere(format!(
            "{error}: this one serves the primary, controls nothing, and takes over when that ends"
        ))),
        Ok(Err(error)) => Err(NoJournal::Unusable(describe(&error))),
        Err(error) => Err(NoJournal::Unusable(error.to_string())),
    }
}

/// Tries again and again to get the store that another process has; then hands it on.
async fn stand_by(
    stored: Stored,
    takeover: mpsc::Sender<Takeover>,
    mut stop: Stop,
) -> Result<(), BoxError> {
    let journal = loop {
        tokio::select! {
            () = stop.wait() => return Ok(()),
            () = sleep(STANDBY_PAUSE) => {}
        }
        let why = match open_journal(stored.dir.clone()).await {
            Ok(journal) => break journal,
            Err(NoJournal::Elsewhere(_)) => None,
            Err(NoJournal::Unusable(why)) => Some(why),
        };
        if stored.operations.lacks_store(why.clone())
            && let Some(why) = why
        {
            tracing::error!(why, "the journal is free and cannot be taken over; it is tried again");
        }
    };
    stored.operations.lacks_store(None);
    let recorder = tokio::select! {
        () = stop.wait() => return Ok(()),
        recorder = stored.open(STORE_TRIES) => recorder,
    };
    let pairs = stored.operations.pairs.get().cloned();
    // The controller ends only with the program.
    drop(takeover.send(Takeover { journal, pairs }).await);
    stop.wait().await;
    // The recorder ends when nobody holds its handle any more.
    drop(stored);
    if let Some(recorder) = recorder {
        drop(spawn_blocking(move || recorder.join()).await);
    }
    Ok(())
}

impl Parts {
    fn stored(&self, config: &Config) -> Stored {
        let limits = config.limits;
        Stored {
            dir: config.store.clone(),
            limits: store::Limits {
                bytes_max: limits.store_bytes_max,
                age_ms_max: limits.store_age_ms_max,
                free_bytes_min: FREE_BYTES_MIN,
                queue_len_max: limits.recorder_queue_len_max,
            },
            clock: self.clock,
            recorder: Arc::clone(&self.recorder),
            operations: Arc::clone(&self.operations),
        }
    }
}

impl Stored {
    /// Opens the pairs and shows them to whoever waits for them.
    ///
    /// Where another process has them it is tried so often: one that ends lets go of the journal
    /// first, and stores its last pairs.
    async fn open(&self, tries: u32) -> Option<RecorderThread> {
        let mut opened = self.try_open().await;
        for _ in 1..tries {
            if !matches!(&opened, Ok(Err(PairsError::Locked(_)))) {
                break;
            }
            sleep(STANDBY_PAUSE).await;
            opened = self.try_open().await;
        }
        let error = match opened {
            Ok(Ok(pairs)) => return self.show(&pairs),
            Ok(Err(error)) => describe(&error),
            Err(error) => error.to_string(),
        };
        tracing::error!(error, "pairs cannot be stored: they count as evidence and are not kept");
        let problem = "the store of pairs is not usable; see the log".to_owned();
        self.operations.lacks_store(Some(problem));
        None
    }

    async fn try_open(&self) -> Result<Result<Pairs, PairsError>, JoinError> {
        let (dir, limits) = (self.dir.clone(), self.limits);
        spawn_blocking(move || Pairs::open(&dir, limits)).await
    }

    fn show(&self, pairs: &Pairs) -> Option<RecorderThread> {
        drop(self.operations.pairs.set(pairs.clone()));
        let clock = self.clock;
        let started = Recorder::start(pairs.clone(), move || clock.now());
        let started =
            started.inspect_err(|error| tracing::error!(%error, "the recorder cannot start"));
        let (handle, thread) = started.ok()?;
        drop(self.recorder.set(handle));
        Some(thread)
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
        journal: journal.map_err(|(NoJournal::Elsewhere(why) | NoJournal::Unusable(why))| {
            tracing::error!(
                why,
                "the journal cannot be used: the primary is served, nothing can be controlled"
            );
            why
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
