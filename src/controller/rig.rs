//! A controller on a simulated disk, for tests of what comes between a write and its end.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tempfile::TempDir;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, timeout},
};

use crate::clock::Clock;
use crate::controller::{
    Budgets, Controller, Evaluation, Goldens, Handle, Judged, Rejected, Requester, Setup, View,
};
use crate::domain::{
    Command, Event, Margin, Metric, Name, Outcome, Pair, Plan, Record, Risk, Rollout, Saved, Seen,
    Share, Slice, Times, Timestamp, Undecided, Window, default_ladder,
};
use crate::store::{History, Journal, Pairs, samples, sim::Sim};
use crate::tasks::{Tasks, spawn};
use crate::telemetry::Metrics;
use crate::traffic::{Barometer, Board, Outbox};

pub(crate) const SOON: Duration = Duration::from_mins(2);
/// Observations that wait for the controller.
const SEEN_LEN_MAX: usize = 1_024;

/// A controller on a simulated disk.
pub(crate) struct Rig {
    pub(crate) sim: Sim,
    pub(crate) handle: Handle,
    pub(crate) board: Arc<Board>,
    pub(crate) outbox: Outbox,
    pub(crate) tasks: Option<Tasks>,
}

/// A disk that hangs must not keep a failed test from ending.
impl Drop for Rig {
    fn drop(&mut self) {
        self.sim.go_on();
    }
}

pub(crate) fn name(text: &str) -> Name {
    text.parse().unwrap()
}

pub(crate) fn plan(feature: &str) -> Plan {
    Plan {
        primary: name("gpt"),
        candidate: name("cheap"),
        slice: Slice { features: vec![feature.to_owned()], ..Slice::default() },
        watched: None,
        compared: crate::domain::Compared::default(),
        stages: default_ladder(&[Margin::default_of(Metric::ErrorRate)], &[], &[]),
        copies_per_day_max: 1_000,
        judge_share: Share::NONE,
        review: Share::ALL,
        noise: Share::NONE,
        risk: Risk::default(),
        times: Times::default(),
    }
}

pub(crate) fn by(key: &str) -> Requester {
    let actor = "test".to_owned();
    Requester { actor, request_id: key.to_owned(), ..Requester::default() }
}

pub(crate) fn advance() -> Command {
    Command::Advance { from_stage: String::new(), undecided: Undecided::Skip }
}

pub(crate) async fn until(what: &str, holds: impl Fn() -> bool) {
    let ends = Instant::now() + SOON;
    while !holds() {
        assert!(Instant::now() < ends, "never came true: {what}");
        sleep(Duration::from_millis(2)).await;
    }
}

/// Tells of requests that both sides have just answered, the candidate like this, as the data path
/// does: to the controller, and to the store what the controller was told.
pub(crate) fn tell(
    outbox: &Outbox,
    pairs: &Pairs,
    window: &Window,
    candidates: &[Outcome],
    now: Timestamp,
) {
    static SERIAL: AtomicU64 = AtomicU64::new(0);
    let batch = candidates.iter().filter_map(|outcome| {
        let serial = SERIAL.fetch_add(1, Relaxed);
        let mut pair: Pair = samples::pair(window.rollout.as_str(), now.0, serial);
        (pair.window, pair.watched, pair.lot) = (window.clone(), String::new(), None);
        pair.candidate.outcome = *outcome;
        pair.order = Some(outbox.offer(Seen::Pair(Box::new(pair.clone())))?);
        Some((pair, samples::bodies("")))
    });
    pairs.put_batch(&batch.collect::<Vec<_>>()).unwrap();
}

/// What a controller is made of that has two providers and wants nothing.
pub(crate) fn setup(journal: Result<(Journal, History), String>) -> Setup {
    setup_at(Clock::start(), journal)
}

/// The same by this clock.
pub(crate) fn setup_at(clock: Clock, journal: Result<(Journal, History), String>) -> Setup {
    let (sender, seen) = mpsc::channel(SEEN_LEN_MAX);
    let cleared = ["gpt", "cheap"].map(|it| (name(it), Vec::new()));
    Setup {
        board: Arc::default(),
        outbox: Outbox::new(sender, clock),
        barometer: Arc::new(Barometer::new(name("gpt"), clock)),
        recorder: Arc::default(),
        identities: BTreeMap::new(),
        priced: BTreeSet::new(),
        budgets: Budgets::default(),
        goldens: Goldens::default(),
        clock,
        journal,
        takeover: mpsc::channel(1).1,
        pairs: None,
        providers: BTreeMap::from(cleared),
        primary: name("gpt"),
        judge: Judged::No,
        strict_judge: None,
        fitness: Arc::default(),
        wanted: Vec::new(),
        seen,
        metrics: Arc::new(Metrics::new()),
    }
}

/// What outlives a process: the journal's disk and the store of pairs.
pub(crate) struct Store {
    pub(crate) sim: Sim,
    pub(crate) pairs: Pairs,
    _dir: TempDir,
}

impl Store {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let pairs = Pairs::open(dir.path(), samples::LIMITS).unwrap();
        Self { sim: Sim::default(), pairs, _dir: dir }
    }

    /// What a process is made of that begins when its wall clock says this.
    pub(crate) fn setup(&self, at: Timestamp) -> Setup {
        let journal = self.sim.endless_journal().unwrap();
        Setup { pairs: Some(self.pairs.clone()), ..setup_at(Clock::at(at), Ok(journal)) }
    }

    /// A process that begins then.
    pub(crate) async fn open(&self, at: Timestamp) -> Rig {
        Rig::set_up(self.sim.clone(), self.setup(at)).await
    }

    /// Requests of rollout `a` that both sides have just answered, the candidate like this.
    pub(crate) async fn answer(&self, rig: &Rig, candidates: &[Outcome]) {
        let now = rig.look("a").await.view.now;
        let window = rig.view("a").rollout.window().unwrap();
        tell(&rig.outbox, &self.pairs, &window, candidates, now);
    }
}

impl Rig {
    pub(crate) async fn new(sim: Sim) -> Self {
        let journal = sim.endless_journal().unwrap();
        Self::on(sim, journal).await
    }

    pub(crate) async fn on(sim: Sim, journal: (Journal, History)) -> Self {
        Self::made(sim, Ok(journal)).await
    }

    /// With a journal, or the reason why there is none.
    pub(crate) async fn made(sim: Sim, journal: Result<(Journal, History), String>) -> Self {
        Self::set_up(sim, setup(journal)).await
    }

    pub(crate) async fn set_up(sim: Sim, setup: Setup) -> Self {
        let (board, outbox) = (Arc::clone(&setup.board), setup.outbox.clone());
        let (controller, handle) = Controller::new(setup).await;
        let mut tasks = Tasks::default();
        tasks.start("controller", |stop| controller.run(stop));
        Self { sim, handle, board, outbox, tasks: Some(tasks) }
    }

    /// With rollouts of these names, running in their second stage.
    pub(crate) async fn running(names: &[&str]) -> Self {
        let rig = Self::new(Sim::default()).await;
        for it in names {
            rig.handle.create(name(it), plan(it), by("")).await.unwrap();
            rig.run(it, Command::Start).await.unwrap();
            rig.run(it, advance()).await.unwrap();
            assert!(rig.moves(it));
        }
        rig
    }

    pub(crate) async fn run(&self, rollout: &str, command: Command) -> Result<View, Rejected> {
        timeout(SOON, self.handle.command(name(rollout), command, by(""))).await.unwrap()
    }

    /// Asks, and does not wait for the answer.
    pub(crate) fn ask(
        &self,
        rollout: &str,
        command: Command,
        by: Requester,
    ) -> mpsc::Receiver<Result<View, Rejected>> {
        let (answer, here) = mpsc::channel(1);
        let (handle, rollout) = (self.handle.clone(), name(rollout));
        spawn("ask", async move {
            drop(answer.send(handle.command(rollout, command, by).await).await);
        });
        here
    }

    /// Makes the disk hang in a step forward of this rollout.
    pub(crate) async fn hang_in(
        &self,
        rollout: &str,
        command: Command,
    ) -> mpsc::Receiver<Result<View, Rejected>> {
        let steps = self.sim.steps();
        self.sim.hang();
        let answer = self.ask(rollout, command, by("hung"));
        until("the disk hangs", || steps < self.sim.steps()).await;
        answer
    }

    /// Whether a rollout's traffic moves.
    pub(crate) fn moves(&self, rollout: &str) -> bool {
        let board = self.board.load();
        board.snapshot.lanes.iter().any(|it| it.rollout == name(rollout) && it.window.is_some())
    }

    /// The share that its candidate serves.
    pub(crate) fn serves(&self, rollout: &str) -> Share {
        let board = self.board.load();
        let mut lanes = board.snapshot.lanes.iter();
        lanes.find(|it| it.rollout == name(rollout)).map_or(Share::NONE, |it| it.serve)
    }

    /// What it would do now.
    pub(crate) async fn look(&self, rollout: &str) -> Evaluation {
        self.handle.evaluate(name(rollout)).await.unwrap()
    }

    pub(crate) fn view(&self, rollout: &str) -> View {
        self.handle.view(&name(rollout)).unwrap()
    }

    /// Kinds of the last events that were told.
    pub(crate) fn told(&self, count: usize) -> Vec<String> {
        let views = self.handle.views();
        let from = views.records.len() - count;
        views.records[from..].iter().map(|it| kind(it)).collect()
    }

    pub(crate) async fn until_durable(&self, rollout: &str) {
        until("it is durable", || self.view(rollout).durable).await;
    }

    /// Stops it, as a program that ends.
    pub(crate) async fn end(mut self) -> Sim {
        self.tasks.take().unwrap().run(async {}, SOON).await.unwrap();
        self.sim.clone()
    }

    /// Stops it, and checks that whoever reads the journal finds what was shown last.
    pub(crate) async fn agrees_with_its_journal(mut self) -> History {
        self.sim.go_on();
        self.sim.fail(None);
        until("all is well", || self.handle.views().degraded.is_none()).await;
        let rollouts = self.handle.views().rollouts.clone();
        for view in &rollouts {
            self.until_durable(view.rollout.name().as_str()).await;
        }
        let (shown, told) = (saved(&self.handle), Arc::clone(&self.handle.views().records));
        self.tasks.take().unwrap().run(async {}, SOON).await.unwrap();
        let (_, history) = self.sim.endless_journal().unwrap();
        let told: Vec<Record> = told.iter().map(|it| (**it).clone()).collect();
        assert_eq!(told, history.records, "told is what is in the journal, each once, in order");
        let again = Self::new(self.sim.clone()).await;
        until("it is shown", || saved(&again.handle).len() == shown.len()).await;
        assert_eq!(saved(&again.handle), shown);
        history
    }
}

/// All that a journal tells: how long a stage has lasted is told by the stored pairs.
pub(crate) fn saved(handle: &Handle) -> BTreeMap<Name, Saved> {
    let saved = |it: &Rollout| (it.name().clone(), it.save().dwelt(Timestamp(0), 0));
    handle.views().rollouts.iter().map(|it| saved(&it.rollout)).collect()
}

pub(crate) fn kind(record: &Record) -> String {
    let event = match &record.event {
        Event::StageEntered { stage, .. } => format!("stage {stage}"),
        Event::RolledBack(_) => "back".to_owned(),
        other => format!("{other:?}").split('(').next().unwrap().to_owned(),
    };
    format!("{} {event}", record.rollout)
}
