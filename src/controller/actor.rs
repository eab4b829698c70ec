//! The controller's loop: one owner of every rollout, one message or tick at a time.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use tokio::{
    sync::{broadcast, mpsc, watch},
    task::JoinHandle,
    time::{MissedTickBehavior, interval},
};

use crate::clock::Clock;
use crate::domain::{Command, Event, Input, Name, Plan, PlanFault, Record, State, Timestamp};
use crate::store::{History, Journal, Pairs};
use crate::tasks::{BoxError, Stop};
use crate::telemetry::Metrics;
use crate::traffic::{Board, Seen};

use super::{
    book::Book,
    handle::{
        Ask, Change, Decision, Evaluation, Handle, Rejected, Reply, Requester, Step, View, Views,
        Wish,
    },
    managed::{Managed, Replayed},
    rebuild,
    setup::{Judged, Setup, Start, Takeover, Wanted},
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
/// Rollouts at the same time.
const ROLLOUTS_LEN_MAX: usize = 256;

/// How often the day's copies are kept, in milliseconds: what a crash may forget of them.
const KEEP_COPIES_MS: u64 = 1_000;

/// Moves rollouts.
#[derive(Debug)]
pub struct Controller {
    pub(super) managed: BTreeMap<Name, Managed>,
    pub(super) providers: BTreeMap<Name, Vec<String>>,
    pub(super) pairs: Option<Pairs>,
    primary: Name,
    judge: Judged,
    pub(super) board: Arc<Board>,
    pub(super) clock: Clock,
    pub(super) book: Book,
    /// The step forward that is being written.
    pub(super) pending: Option<Pending>,
    /// Steps forward that wait until it is.
    pub(super) waiting: VecDeque<Step>,
    /// Rollbacks that took effect, whose answers wait for the disk.
    pub(super) owed: Vec<(Name, Reply<View>)>,
    records: Arc<Vec<Arc<Record>>>,
    /// What the configuration asks for, until there is a journal.
    wanted: Vec<Wanted>,
    takeover: mpsc::Receiver<Takeover>,
    asks: mpsc::Receiver<Ask>,
    seen: mpsc::Receiver<Seen>,
    views: watch::Sender<Arc<Views>>,
    changes: broadcast::Sender<Change>,
    metrics: Arc<Metrics>,
    copies_kept: Timestamp,
    /// The keeping under way.
    keeping: Option<JoinHandle<()>>,
}

impl Controller {
    /// A controller that stands where the journal left off, with nothing published yet.
    pub async fn new(setup: Setup) -> (Self, Handle) {
        let (sender, asks) = mpsc::channel(ASKS_LEN_MAX);
        let (views, receiver) = watch::channel(Arc::default());
        let changes = broadcast::Sender::new(CHANGES_LEN_MAX);
        let board = Arc::clone(&setup.board);
        let handle = Handle { asks: sender, views: receiver, changes: changes.clone(), board };
        let mut controller = Self {
            managed: BTreeMap::new(),
            providers: setup.providers,
            pairs: setup.pairs,
            primary: setup.primary,
            judge: setup.judge,
            board: setup.board,
            clock: setup.clock,
            book: Book::new(Err("the journal is not open yet".to_owned())),
            pending: None,
            waiting: VecDeque::new(),
            owed: Vec::new(),
            records: Arc::default(),
            wanted: setup.wanted,
            takeover: setup.takeover,
            asks,
            seen: setup.seen,
            views,
            changes,
            metrics: setup.metrics,
            copies_kept: Timestamp::default(),
            keeping: None,
        };
        match setup.journal {
            Ok(journal) => controller.begin(journal).await,
            Err(why) => controller.book = Book::new(Err(why)),
        }
        (controller, handle)
    }

    /// Stands where the journal left off, and does what the configuration asks for.
    async fn begin(&mut self, (journal, history): (Journal, History)) {
        self.book = Book::new(Ok(journal));
        let History { past, records, .. } = history;
        self.records = Arc::new(records.into_iter().map(Arc::new).collect());
        for (name, past) in past {
            let made = rebuild::copies(self.pairs.as_ref(), &name);
            self.managed.insert(name, Managed::restored(past, made));
        }
        for record in Arc::clone(&self.records).iter() {
            self.replay(record);
        }
        rebuild::evidence(self).await;
        let wanted = std::mem::take(&mut self.wanted);
        self.want(wanted).await;
        self.find_broken();
    }

    /// Takes over from the process that had the store.
    async fn take_over(&mut self, store: Takeover) {
        tracing::info!("the store is free: taking over");
        self.pairs = store.pairs;
        self.begin(store.journal).await;
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
                Some(ask) = self.asks.recv() => self.answer(ask),
                _ = ticks.tick() => self.tick(),
                1.. = self.seen.recv_many(&mut seen, SEEN_BATCH_MAX) => {
                    seen.drain(..).for_each(|it| self.take(&it));
                }
                Some(store) = self.takeover.recv() => self.take_over(store).await,
                () = stop.wait() => break,
            }
        }
        self.settle().await;
        Ok(())
    }

    /// Makes a record so: an old one again, or one that is on disk now.
    pub(super) fn replay(&mut self, record: &Record) {
        match (&record.event, self.managed.get_mut(&record.rollout)) {
            (_, Some(managed)) => managed.apply(record),
            (Event::Created(plan), None) => {
                let made = rebuild::copies(self.pairs.as_ref(), &record.rollout);
                let plan = (**plan).clone();
                let mut managed = Managed::new(record.rollout.clone(), plan, record.at, made);
                managed.apply(record);
                self.managed.insert(record.rollout.clone(), managed);
            }
            (_, None) => {
                let (rollout, seq) = (&record.rollout, record.seq);
                tracing::error!(%rollout, seq, "an event of an unknown rollout is ignored");
            }
        }
    }

    /// Creates, revises and starts what the configuration asks for.
    async fn want(&mut self, wanted: Vec<Wanted>) {
        let by = || Requester { actor: "config".to_owned(), ..Requester::default() };
        for Wanted { name, plan, start } in wanted {
            let known = self.managed.get(&name).map(|it| it.rollout.plan() == &plan);
            let done = match known {
                None => self.at_once(&name, Wish::Create(Box::new(plan)), by()).await,
                Some(true) => Ok(()),
                Some(false) => {
                    let revise = Command::Revise(Box::new(plan));
                    self.at_once(&name, Wish::Obey(revise), by()).await
                }
            };
            let fresh = self.managed.get(&name).is_some_and(|it| it.rollout.attempt() == 0);
            let done = match (done, start) {
                (Ok(()), Start::Once) if fresh => {
                    self.at_once(&name, Wish::Obey(Command::Start), by()).await
                }
                (done, Start::Once | Start::WhenAsked) => done,
            };
            if let Err(error) = done {
                tracing::error!(rollout = %name, %error, "the configuration of this rollout is not in force");
            }
        }
    }

    /// Marks rollouts whose providers the configuration does not have.
    fn find_broken(&mut self) {
        for managed in self.managed.values_mut() {
            let plan = managed.rollout.plan();
            let unknown = [&plan.primary, &plan.candidate]
                .into_iter()
                .find(|it| !self.providers.contains_key(*it));
            managed.broken = if plan.primary == self.primary {
                unknown.map(|it| format!("provider `{it}` is not configured"))
            } else {
                Some(format!(
                    "its primary is `{}`, but `{}` serves now",
                    plan.primary, self.primary
                ))
            };
        }
    }

    /// What creating a rollout comes to: none when it was done before.
    pub(super) fn create(
        &self,
        name: &Name,
        plan: &Plan,
        by: &Requester,
    ) -> Result<Option<Event>, Rejected> {
        if let Some(managed) = self.managed.get(name) {
            return match managed.requests.get(&by.request_id) {
                Some(Event::Created(created)) if **created == *plan => Ok(None),
                Some(_) => Err(Rejected::ReusedRequestId(by.request_id.clone())),
                None => Err(Rejected::Exists(name.clone())),
            };
        }
        let faults = self.plan_faults(plan);
        if !faults.is_empty() {
            return Err(Rejected::Plan(faults));
        }
        if ROLLOUTS_LEN_MAX <= self.managed.len() {
            let why = format!("there are {ROLLOUTS_LEN_MAX} rollouts already");
            return Err(Rejected::Unavailable(why));
        }
        Ok(Some(Event::Created(Box::new(plan.clone()))))
    }

    fn plan_faults(&self, plan: &Plan) -> Vec<PlanFault> {
        let mut faults = plan.faults();
        let mut fault = |field: &str, problem: String| {
            faults.push(PlanFault { field: field.to_owned(), problem });
        };
        if plan.primary != self.primary {
            fault("primary", format!("is `{}`, but `{}` serves here", plan.primary, self.primary));
        }
        if !self.providers.contains_key(&plan.candidate) {
            fault("candidate", format!("provider `{}` is not configured", plan.candidate));
        }
        let needs_judge = plan
            .stages
            .iter()
            .flat_map(|it| &it.gates)
            .any(|it| it.metric() == crate::domain::Metric::JudgeScore);
        if needs_judge && self.judge == Judged::No {
            fault("stages", "has a judge_score gate, but no [judge] is configured".to_owned());
        }
        faults
    }

    /// What a command comes to: none when it changes nothing.
    pub(super) fn obey(
        &mut self,
        name: &Name,
        command: &Command,
        by: &Requester,
    ) -> Result<Option<Event>, Rejected> {
        let now = self.clock.now();
        let Some(managed) = self.managed.get_mut(name) else {
            return Err(Rejected::Unknown(name.clone()));
        };
        // A rollback is done again rather than taken for an old one: it may be asked of a new attempt.
        match managed.replayed(&by.request_id, command) {
            Some(_) if *command == Command::Rollback => {}
            Some(Replayed::Same) => return Ok(None),
            Some(Replayed::Other) => {
                return Err(Rejected::ReusedRequestId(by.request_id.clone()));
            }
            None => {}
        }
        managed.weigh(now);
        let at = managed.rollout.revision();
        if let Some(seen) = by.revision.filter(|it| *it != at && *command != Command::Rollback) {
            return Err(Rejected::Stale { rollout: name.clone(), seen, now: at });
        }
        let event = managed.rollout.decide(now, &Input::Command(command), &managed.evidence);
        let event = event.map_err(|refusal| Rejected::Refused {
            rollout: name.clone(),
            refusal: Box::new(refusal),
        })?;
        if *command == Command::Start {
            self.find_overlap(name)?;
        }
        if let Command::Revise(plan) = command {
            let faults = self.plan_faults(plan);
            if !faults.is_empty() {
                return Err(Rejected::Plan(faults));
            }
        }
        Ok(event)
    }

    fn find_overlap(&self, name: &Name) -> Result<(), Rejected> {
        let Some(starting) = self.managed.get(name) else { return Ok(()) };
        let slice = &starting.rollout.plan().slice;
        let other = self.managed.values().find(|it| {
            it.rollout.name() != name
                && it.rollout.stage().is_some()
                && it.rollout.plan().slice.overlaps(slice)
        });
        let Some(other) = other else { return Ok(()) };
        let other = other.rollout.name().clone();
        Err(Rejected::Overlap { rollout: name.clone(), other })
    }

    pub(super) fn evaluate(&mut self, name: &Name) -> Result<Evaluation, Rejected> {
        let now = self.clock.now();
        let managed = self.managed.get_mut(name).ok_or_else(|| Rejected::Unknown(name.clone()))?;
        managed.weigh(now);
        let event = managed.rollout.decide(now, &Input::Tick, &managed.evidence);
        let decision = match event {
            Ok(Some(Event::RolledBack(_))) => Decision::RollBack,
            Ok(Some(_)) => Decision::Advance,
            Ok(None) | Err(_) => Decision::Hold,
        };
        let view = self.view(name)?;
        let explanation = match decision {
            Decision::RollBack => "a gate is proven broken: back to the primary".to_owned(),
            Decision::Advance => "every gate is proven: on to the next step".to_owned(),
            Decision::Hold => view.message.clone(),
        };
        Ok(Evaluation { view, decision, explanation })
    }

    fn take(&mut self, seen: &Seen) {
        let window = match seen {
            Seen::Pair(pair) => &pair.window,
            Seen::Score(score) => &score.window,
            Seen::ScoreLost(window) => window,
        };
        // Late news of an earlier stage is kept in the store and counts no more.
        let managed = self.managed.get_mut(&window.rollout);
        let Some(managed) = managed.filter(|it| it.is_current(window)) else { return };
        match seen {
            Seen::Pair(pair) => managed.observe(pair),
            Seen::Score(score) => managed.ledger.score(score.primary, score.candidate),
            Seen::ScoreLost(_) => managed.ledger.score_lost(),
        }
    }

    fn tick(&mut self) {
        let now = self.clock.now();
        self.book.try_again();
        self.keep_forgotten();
        let names: Vec<Name> = self.managed.keys().cloned().collect();
        for name in names {
            let Some(managed) = self.managed.get_mut(&name) else { continue };
            managed.weigh(now);
            let input = if managed.live.is_tripped() { Input::Tripped } else { Input::Tick };
            let event = managed.rollout.decide(now, &input, &managed.evidence).ok().flatten();
            let Some(event) = event else { continue };
            let by = Requester { actor: "controller".to_owned(), ..Requester::default() };
            self.carry_out(&name, event, &by, None);
        }
        for managed in self.managed.values() {
            self.metrics.rollout(&managed.rollout, &managed.evidence);
        }
        let kept = self.keeping.as_ref().is_none_or(JoinHandle::is_finished);
        if kept && KEEP_COPIES_MS <= now.millis_since(self.copies_kept) {
            self.copies_kept = now;
            self.keeping = rebuild::keep_counts(self.pairs.as_ref(), &self.managed);
        }
        self.catch_up();
    }

    pub(super) fn record(
        &self,
        name: &Name,
        event: Event,
        by: &Requester,
        states: (State, State),
    ) -> Record {
        let evidence = self.managed.get(name).map_or_else(Vec::new, |it| it.evidence.gates.clone());
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
            evidence,
        }
    }

    /// Tells everybody who watches.
    pub(super) fn keep(&mut self, record: Record) {
        let record = Arc::new(record);
        let mut records = (*self.records).clone();
        let over = (records.len() + 1).saturating_sub(RECORDS_LEN_MAX);
        records.drain(..over);
        records.push(Arc::clone(&record));
        self.records = Arc::new(records);
        self.show();
        let Some(managed) = self.managed.get(&record.rollout) else { return };
        // A step that was overtaken while it was written never took effect.
        if managed.rollout.state() == record.to {
            self.metrics.transition(&managed.rollout, record.from);
        }
        let stage = managed.rollout.plan().stages.get(managed.rollout.stage_index());
        tracing::info!(
            rollout = %record.rollout,
            from = record.from.as_str(),
            to = record.to.as_str(),
            stage = stage.map_or("", |it| it.name.as_str()),
            cause = managed.rollout.cause().map_or("", crate::domain::Cause::code),
            actor = record.actor,
            "rollout changed"
        );
        let view = managed.view(self.clock.now(), self.book.is_durable(&record.rollout));
        // Nobody watching is fine.
        let _ = self.changes.send(Change { view, record });
    }

    pub(super) fn view(&self, name: &Name) -> Result<View, Rejected> {
        let managed = self.managed.get(name).ok_or_else(|| Rejected::Unknown(name.clone()))?;
        Ok(managed.view(self.clock.now(), self.book.is_durable(name)))
    }

    pub(super) fn publish(&self) {
        let lane = |managed: &Managed| {
            let cleared = self.providers.get(&managed.rollout.plan().candidate);
            let lane = managed.lane(cleared.cloned().unwrap_or_default());
            (Arc::new(lane), Arc::clone(&managed.live))
        };
        self.board.publish(self.managed.values().map(lane).collect());
    }

    pub(super) fn show(&self) {
        let now: Timestamp = self.clock.now();
        let view = |it: &Managed| it.view(now, self.book.is_durable(it.rollout.name()));
        let mut rollouts: Vec<View> = self.managed.values().map(view).collect();
        rollouts.sort_by_key(|it| std::cmp::Reverse(it.created));
        let degraded = self.book.problem();
        self.metrics.degraded(degraded.as_deref());
        let records = Arc::clone(&self.records);
        self.views.send_replace(Arc::new(Views { rollouts, records, degraded }));
    }
}
