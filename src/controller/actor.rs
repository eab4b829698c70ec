//! The controller's loop: one owner of every rollout, one message or tick at a time.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{Arc, OnceLock},
    time::Duration,
};

use tokio::{
    sync::{broadcast, mpsc, watch},
    task::{JoinHandle, yield_now},
    time::{MissedTickBehavior, interval, timeout},
};

use crate::clock::Clock;
use crate::domain::{Event, Name, Record, Requests, Seen, State, Timestamp};
use crate::store::{History, Journal, Pairs, RecorderHandle};
use crate::tasks::{BoxError, Stop, caught};
use crate::telemetry::Metrics;
use crate::traffic::{Barometer, Board, Copies, Fitness, Outbox};

use super::{
    book::Book,
    explain::explain,
    golden::Goldens,
    handle::{
        Ask, Change, Decision, Evaluation, Handle, Rejected, Reply, Requester, Step, View, Views,
    },
    managed::Managed,
    rebuild,
    setup::{Budgets, Judged, Setup, Takeover, Wanted},
    steps::Pending,
};

/// How often the evidence is weighed.
const TICK: Duration = Duration::from_millis(100);
/// Questions waiting for the controller, and steps waiting for their turn to be written.
pub(super) const ASKS_LEN_MAX: usize = 256;
/// Changes kept for watchers that are slow.
const CHANGES_LEN_MAX: usize = 1_024;
/// Observations taken in one go.
const SEEN_BATCH_MAX: usize = 512;
/// Records kept in memory.
const RECORDS_LEN_MAX: usize = 10_000;

/// How often the day's copies are kept, in milliseconds: what a crash may forget of them.
const KEEP_COPIES_MS: u64 = 1_000;
/// How long keeping may take when the program ends.
const KEEP_WAIT: Duration = Duration::from_secs(1);
/// A wall clock that has moved against ours by so much is worth a word, in milliseconds.
const WALL_MOVED_MS: u64 = 60_000;

/// Moves rollouts.
#[derive(Debug)]
pub struct Controller {
    pub(super) managed: BTreeMap<Name, Managed>,
    pub(super) providers: BTreeMap<Name, Vec<String>>,
    pub(super) identities: BTreeMap<Name, u64>,
    pub(super) pairs: Option<Pairs>,
    /// Who stopped everything, while it is stopped.
    pub(super) stopped: Option<Arc<Record>>,
    /// Idempotency keys of stops.
    pub(super) stops: Arc<Requests>,
    /// The flags in force, each by the record that set it.
    pub(super) flags: BTreeMap<Name, Arc<Record>>,
    pub(super) primary: Name,
    pub(super) judge: Judged,
    pub(super) strict_judge: Option<String>,
    pub(super) fitness: Arc<Fitness>,
    pub(super) priced: BTreeSet<Name>,
    pub(super) budgets: Budgets,
    pub(super) goldens: Goldens,
    pub(super) board: Arc<Board>,
    pub(super) clock: Clock,
    pub(super) book: Book,
    /// The step forward that is being written.
    pub(super) pending: Option<Pending>,
    /// Steps forward that wait until it is.
    pub(super) waiting: VecDeque<Step>,
    /// Rollbacks and stops that took effect, whose answers wait for the disk.
    pub(super) owed: Vec<(Vec<Name>, Reply<Vec<View>>)>,
    pub(super) records: Arc<Vec<Arc<Record>>>,
    /// What the configuration asks for, until there is a journal.
    wanted: Vec<Wanted>,
    /// The rollouts it asks for.
    pub(super) configured: BTreeSet<Name>,
    /// Rollouts that were deleted, until nothing is kept of them.
    pub(super) gone: Vec<Name>,
    takeover: mpsc::Receiver<Takeover>,
    asks: mpsc::Receiver<Ask>,
    pub(super) seen: mpsc::Receiver<Seen>,
    pub(super) outbox: Outbox,
    pub(super) barometer: Arc<Barometer>,
    pub(super) recorder: Arc<OnceLock<RecorderHandle>>,
    views: watch::Sender<Arc<Views>>,
    changes: broadcast::Sender<Change>,
    pub(super) metrics: Arc<Metrics>,
    copies_kept: Timestamp,
    pub(super) looked_ahead: Timestamp,
    /// The keeping under way.
    keeping: Option<JoinHandle<()>>,
    wall_ahead_ms: i64,
    standing: Standing,
}

/// Whether it is known where every rollout stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// Not yet, or there is no journal: no traffic moves.
    Unknown,
    Known,
}

impl Controller {
    /// A controller that stands where the journal left off, with nothing published yet.
    pub async fn new(setup: Setup) -> (Self, Handle) {
        let (sender, asks) = mpsc::channel(ASKS_LEN_MAX);
        let (views, receiver) = watch::channel(Arc::default());
        let changes = broadcast::Sender::new(CHANGES_LEN_MAX);
        let board = Arc::clone(&setup.board);
        let (goldens, lost) = (setup.goldens.clone(), Arc::default());
        let handle = {
            let (asks, views, changes) = (sender, receiver, changes.clone());
            Handle { asks, views, changes, board, goldens, lost }
        };
        let mut controller = Self {
            managed: BTreeMap::new(),
            providers: setup.providers,
            identities: setup.identities,
            pairs: setup.pairs,
            stopped: None,
            stops: Arc::default(),
            flags: BTreeMap::new(),
            primary: setup.primary,
            judge: setup.judge,
            strict_judge: setup.strict_judge,
            fitness: setup.fitness,
            priced: setup.priced,
            budgets: setup.budgets,
            goldens: setup.goldens,
            board: setup.board,
            clock: setup.clock,
            book: Book::new(Err("the journal is not open yet".to_owned())),
            pending: None,
            waiting: VecDeque::new(),
            owed: Vec::new(),
            records: Arc::default(),
            configured: setup.wanted.iter().map(|it| it.name.clone()).collect(),
            gone: Vec::new(),
            wanted: setup.wanted,
            takeover: setup.takeover,
            asks,
            seen: setup.seen,
            outbox: setup.outbox,
            barometer: setup.barometer,
            recorder: setup.recorder,
            views,
            changes,
            metrics: setup.metrics,
            copies_kept: Timestamp::default(),
            looked_ahead: Timestamp::default(),
            keeping: None,
            wall_ahead_ms: 0,
            standing: Standing::Unknown,
        };
        match setup.journal {
            Ok(journal) => controller.stand(journal).await,
            Err(why) => controller.book = Book::new(Err(why)),
        }
        (controller, handle)
    }

    /// Stands where the journal left off; where a defect keeps it from there, nothing is known of
    /// any rollout, and none is controlled.
    async fn stand(&mut self, journal: (Journal, History)) {
        if caught("replay", self.begin(journal)).await.is_some() {
            return;
        }
        let why = "what the journal tells cannot be replayed, for a defect: see the log";
        self.book = Book::new(Err(why.to_owned()));
        (self.pending, self.stopped, self.stops) = (None, None, Arc::default());
        self.waiting.clear();
        self.managed.clear();
        self.flags.clear();
        self.records = Arc::default();
    }

    /// Stands where the journal left off, and does what the configuration asks for.
    async fn begin(&mut self, (journal, history): (Journal, History)) {
        self.book = Book::new(Ok(journal));
        let History { past, records, stopped, stops, flags, .. } = history;
        self.records = Arc::new(records.into_iter().map(Arc::new).collect());
        (self.stopped, self.stops) = (stopped.map(Arc::new), Arc::new(stops));
        self.flags = flags.into_iter().map(|(name, it)| (name, Arc::new(it))).collect();
        let now = self.clock.now();
        for (name, past) in past {
            let copies = self.copies(&name);
            self.managed.insert(name, Managed::restored(past, &copies, now));
        }
        for record in Arc::clone(&self.records).iter() {
            self.replay(record);
        }
        self.flag_all();
        rebuild::climate(self.pairs.clone(), &self.barometer).await;
        rebuild::judge(self.pairs.clone(), &self.fitness).await;
        let others = rebuild::evidence(self).await;
        // While nobody listened nobody was silent.
        let now = self.clock.now();
        self.managed.values_mut().for_each(|it| it.heard = now);
        let names: Vec<Name> = self.managed.keys().cloned().collect();
        for name in &names {
            self.find_broken(name);
        }
        self.renew(others).await;
        let wanted = std::mem::take(&mut self.wanted);
        self.goldens.read().await;
        self.want(wanted).await;
        self.standing = Standing::Known;
    }

    /// Takes over from the process that had the store.
    async fn take_over(&mut self, store: Takeover) {
        tracing::info!("the store is free: taking over");
        self.pairs = store.pairs;
        self.stand(store.journal).await;
        self.publish();
        self.show();
    }

    /// Runs until told to stop.
    ///
    /// # Errors
    /// None of its own: what fails is refused, retried or shown.
    pub async fn run(mut self, mut stop: Stop) -> Result<(), BoxError> {
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut seen = Vec::with_capacity(SEEN_BATCH_MAX);
        self.publish();
        self.show();
        let board = Arc::clone(&self.board);
        loop {
            tokio::select! {
                biased;
                () = board.alarm() => self.tick(),
                written = self.book.written() => self.written(written),
                _ = ticks.tick() => {
                    // However much is asked, some of what was seen is weighed.
                    for _ in 0..SEEN_BATCH_MAX {
                        let Ok(seen) = self.seen.try_recv() else { break };
                        self.take(seen);
                    }
                    self.tick();
                }
                Some(ask) = self.asks.recv() => self.answer(ask),
                1.. = self.seen.recv_many(&mut seen, SEEN_BATCH_MAX) => {
                    seen.drain(..).for_each(|it| self.take(it));
                    // Others have their turn first, so that what they bring is taken together.
                    yield_now().await;
                }
                Some(store) = self.takeover.recv() => self.take_over(store).await,
                () = stop.wait() => break,
            }
        }
        self.settle().await;
        self.managed.values_mut().for_each(|it| it.checkpointed = Timestamp::default());
        if let Some(keeping) = rebuild::keep(&mut self, rebuild::Next::Never) {
            // A disk that hangs keeps nobody from ending; the last checkpoint but one is there.
            let _ = timeout(KEEP_WAIT, keeping).await;
        }
        Ok(())
    }

    /// A rollout's copies of today, and what pays for them, as they were last kept.
    fn copies(&self, rollout: &Name) -> Copies {
        rebuild::copies(self.pairs.as_ref(), rollout, &self.budgets, self.clock.now())
    }

    /// Makes a record so: an old one again, or one that is on disk now.
    pub(super) fn replay(&mut self, record: &Record) {
        let now = self.clock.now();
        // Where the wall clock went back since, time spent is nothing and never less.
        let record = &Record { at: record.at.min(now), ..record.clone() };
        if self.note_stop(record) || self.note_flag(record) {
            return;
        }
        match (&record.event, self.managed.get_mut(&record.rollout)) {
            (Event::Deleted, _) => drop(self.managed.remove(&record.rollout)),
            (_, Some(managed)) => managed.apply(record),
            (Event::Created(plan), None) => {
                let copies = self.copies(&record.rollout);
                let plan = (**plan).clone();
                let mut managed = Managed::new(record.rollout.clone(), plan, record.at, &copies);
                managed.apply(record);
                managed.flags = self.flag_set().of(&record.rollout);
                self.managed.insert(record.rollout.clone(), managed);
            }
            (_, None) => {
                let (rollout, seq) = (&record.rollout, record.seq);
                tracing::error!(%rollout, seq, "an event of an unknown rollout is ignored");
            }
        }
    }

    pub(super) fn evaluate(&mut self, name: &Name) -> Result<Evaluation, Rejected> {
        let now = self.clock.now();
        let managed = self.managed.get_mut(name).ok_or_else(|| Rejected::Unknown(name.clone()))?;
        managed.weigh(now);
        let event = managed.rollout.decide(now, &managed.input(now), &managed.evidence);
        let event = event.ok().flatten();
        let decision = match event {
            Some(Event::RolledBack(_)) => Decision::RollBack,
            Some(Event::StageEntered { .. } | Event::ApprovalRequested | Event::Succeeded(_)) => {
                Decision::Advance
            }
            Some(_) | None => Decision::Hold,
        };
        let view = self.view(name)?;
        let explanation = explain(&view, event.as_ref());
        Ok(Evaluation { view, decision, explanation })
    }

    fn tick(&mut self) {
        let now = self.clock.now();
        self.book.try_again();
        self.keep_forgotten();
        self.outbox.retell();
        self.tell_of_judge();
        let names: Vec<Name> = self.managed.keys().cloned().collect();
        for name in names {
            self.weigh(&name);
            self.follow_models(&name);
        }
        for managed in self.managed.values() {
            self.metrics.rollout(&managed.rollout, &managed.evidence, managed.shares());
        }
        let kept = self.keeping.as_ref().is_none_or(JoinHandle::is_finished);
        if kept && KEEP_COPIES_MS <= now.millis_since(self.copies_kept) {
            self.copies_kept = now;
            self.keeping = rebuild::keep(self, rebuild::Next::Soon);
            self.watch_wall();
        }
        self.look_ahead_at(now);
        self.catch_up();
    }

    /// What time, evidence or silence makes of a rollout now, if anything.
    pub(super) fn due(&mut self, name: &Name, now: Timestamp) -> Option<Event> {
        let managed = self.managed.get_mut(name)?;
        managed.weigh(now);
        let input = managed.input(now);
        managed.rollout.decide(now, &input, &managed.evidence).ok().flatten()
    }

    /// Says when the wall clock was moved. Nothing here goes by it until the next start.
    fn watch_wall(&mut self) {
        let ahead_ms = self.clock.wall_ahead_ms();
        if WALL_MOVED_MS <= ahead_ms.abs_diff(self.wall_ahead_ms) {
            let moved_ms = ahead_ms - self.wall_ahead_ms;
            tracing::warn!(moved_ms, "the wall clock was moved; timers go on as before");
            self.wall_ahead_ms = ahead_ms;
        }
    }

    pub(super) fn record(
        &self,
        name: &Name,
        event: Event,
        by: &Requester,
        states: (State, State),
    ) -> Record {
        let managed = self.managed.get(name);
        let mut evidence = managed.map_or_else(Vec::new, |it| it.evidence.gates.clone());
        // What the journal does not keep is not told either.
        for gate in &mut evidence {
            (gate.fixed, gate.basis) = (None, None);
        }
        let before = managed.map_or(0, |it| it.rollout.plan_revision());
        let plan_revision = before + u64::from(event.plan().is_some());
        Record {
            seq: 0,
            at: self.clock.now(),
            rollout: name.clone(),
            actor: by.actor.clone(),
            comment: by.comment.clone(),
            request_id: by.request_id.clone(),
            event,
            from: states.0,
            to: states.1,
            plan_revision,
            evidence,
        }
    }

    /// Tells everybody who watches.
    pub(super) fn keep(&mut self, news: Vec<Record>) {
        if news.is_empty() {
            return;
        }
        let news: Vec<Arc<Record>> = news.into_iter().map(Arc::new).collect();
        let over = (self.records.len() + news.len()).saturating_sub(RECORDS_LEN_MAX);
        let records = self.records.iter().chain(&news).skip(over);
        self.records = Arc::new(records.map(Arc::clone).collect());
        self.show();
        for record in news {
            self.tell(record);
        }
    }

    fn tell(&self, record: Arc<Record>) {
        if record.event == Event::Lifted {
            tracing::warn!(actor = record.actor, "a lift of the stop is on disk");
        }
        if let Some(flag) = record.event.flag() {
            tracing::warn!(actor = record.actor, %flag, "a change of a flag is in force");
        }
        let Some(managed) = self.managed.get(&record.rollout) else { return };
        // A step that was overtaken while it was written never took effect.
        if managed.rollout.state() == record.to {
            self.metrics.transition(&managed.rollout, record.from);
        }
        let stage = managed.rollout.plan().stages.get(managed.rollout.stage_index());
        if record.event == Event::Overdue {
            tracing::warn!(rollout = %record.rollout, "the stage lasts longer than its duration_max");
        }
        tracing::info!(
            rollout = %record.rollout,
            from = record.from.as_str(),
            to = record.to.as_str(),
            stage = stage.map_or("", |it| it.name.as_str()),
            cause = managed.rollout.cause().map_or("", crate::domain::Cause::code),
            actor = record.actor,
            "rollout changed"
        );
        let view = self.picture(managed);
        // Nobody watching is fine.
        let _ = self.changes.send(Change { view, record });
    }

    pub(super) fn view(&self, name: &Name) -> Result<View, Rejected> {
        let managed = self.managed.get(name).ok_or_else(|| Rejected::Unknown(name.clone()))?;
        Ok(self.picture(managed))
    }

    pub(super) fn publish(&self) {
        // What is not yet found broken, or not yet as it is wanted, must not move traffic.
        if self.standing == Standing::Unknown {
            return;
        }
        let lane = |managed: &Managed| {
            let cleared = self.providers.get(&managed.rollout.plan().candidate);
            let lane = managed.lane(cleared.cloned().unwrap_or_default());
            (Arc::new(lane), Arc::clone(&managed.live))
        };
        self.board.publish(self.managed.values().map(lane).collect());
    }

    pub(super) fn show(&self) {
        let mut rollouts: Vec<View> = self.managed.values().map(|it| self.picture(it)).collect();
        rollouts.sort_by_key(|it| std::cmp::Reverse(it.created));
        let degraded = self.book.problem();
        self.metrics.degraded(degraded.as_deref());
        let records = Arc::clone(&self.records);
        let (stopped, stopped_at) = (self.stop_text(), self.stopped.as_ref().map(|it| it.at));
        let flags = self.flags.values().cloned().collect();
        let flags_durable = self.book.is_durable(&Name::every());
        self.views.send_replace(Arc::new(Views {
            rollouts,
            records,
            degraded,
            stopped,
            stopped_at,
            stops: Arc::clone(&self.stops),
            flags,
            flags_durable,
        }));
    }
}

#[cfg(test)]
#[path = "histories.rs"]
mod histories;
