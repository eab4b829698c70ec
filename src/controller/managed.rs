//! One rollout in the controller's care: its machine, its bets, its counters.

use std::sync::Arc;

use crate::analysis::{Answers, Ledger};
use crate::domain::{
    Answer, Cause, Command, Event, Evidence, Flags, Foresight, GateEvidence, Input, Lane, Metric,
    Name, Note, Order, Plan, Record, Requests, Rollout, Savings, Share, Slice, Stage, State,
    Timestamp, Told, Undecided, Verdict, Weather, Window,
};
use crate::store::Past;
use crate::traffic::{Copies, Live};

use super::{handle::View, judging::Judging};

/// One rollout and all that belongs to it.
#[derive(Debug)]
pub(super) struct Managed {
    pub(super) rollout: Rollout,
    pub(super) ledger: Ledger,
    pub(super) live: Arc<Live>,
    pub(super) evidence: Evidence,
    /// The flags it has to do with.
    pub(super) flags: Flags,
    /// Whose answers its evidence is of, where that is not what its providers are now: until its
    /// stage begins anew.
    pub(super) outdated: Option<u64>,
    /// Why its traffic cannot move whatever its state: a provider that is not configured.
    pub(super) broken: Option<String>,
    /// Who judges its answers, if anybody can.
    pub(super) judging: Judging,
    /// Idempotency keys already used, with what they did.
    pub(super) requests: Requests,
    /// The note that the bets of a stage or of the guard began, until it is kept: after what had
    /// been told of it by then.
    pub(super) begun: Option<Note>,
    /// As which models its sides answer.
    pub(super) answers: Answers,
    /// The plan the configuration asked for last, if it ever did.
    pub(super) wanted: Option<Plan>,
    /// What its plan is expected to take, as it was looked at last.
    pub(super) foresight: Arc<Foresight>,
    /// What its requests cost so far.
    pub(super) savings: Savings,
    /// Copies due and missing in the stage's first moments, which are left out.
    pub(super) early: (u64, u64),
    /// The last thing that was told of it.
    pub(super) told: Order,
    /// When its bets were last kept; never since the last step.
    pub(super) checkpointed: Timestamp,
    /// When something was last heard of it: a pair, a step, or the start of this process.
    pub(super) heard: Timestamp,
    /// Whether nothing of the visit was heard since this process began.
    unheard: bool,
    created: Timestamp,
    updated: Timestamp,
    actor: String,
    comment: String,
}

impl Managed {
    /// A rollout as its first record made it.
    pub(super) fn new(name: Name, plan: Plan, at: Timestamp, copies: &Copies) -> Self {
        let copies = Arc::new(copies.capped(plan.copies_per_day_max));
        Self {
            ledger: Ledger::new(&plan),
            live: Arc::new(Live::new(copies)),
            rollout: Rollout::new(name, plan),
            evidence: Evidence::default(),
            flags: Flags::default(),
            broken: None,
            outdated: None,
            judging: Judging::default(),
            requests: Requests::default(),
            begun: None,
            answers: Answers::default(),
            wanted: None,
            foresight: Arc::default(),
            savings: Savings::default(),
            early: (0, 0),
            told: Order::FIRST,
            checkpointed: Timestamp::default(),
            heard: at,
            unheard: false,
            created: at,
            updated: at,
            actor: String::new(),
            comment: String::new(),
        }
    }

    /// A rollout as the journal remembers it, with no evidence yet.
    pub(super) fn restored(past: Past, copies: &Copies, now: Timestamp) -> Self {
        let Past { rollout, created, updated, actor, comment, requests, wanted } = past;
        let rollout = Rollout::restore(rollout.save().until(now));
        let copies = Arc::new(copies.capped(rollout.plan().copies_per_day_max));
        let live = Arc::new(Live::new(copies));
        if rollout.stage().is_none() {
            live.close();
        }
        Self {
            ledger: Ledger::new(rollout.plan()),
            live,
            evidence: Evidence::default(),
            flags: Flags::default(),
            broken: None,
            outdated: None,
            judging: Judging::default(),
            requests,
            answers: Answers::default(),
            wanted,
            foresight: Arc::default(),
            savings: Savings::default(),
            early: (0, 0),
            told: Order::FIRST,
            checkpointed: Timestamp::default(),
            heard: now,
            unheard: false,
            begun: None,
            created: created.min(now),
            updated: updated.min(now),
            actor,
            comment,
            rollout,
        }
    }

    /// Goes on after a start of the process, in a stage that is known to have lasted so long:
    /// what passed meanwhile, by whatever clock, counts for nothing.
    pub(super) fn wake(&mut self, now: Timestamp, dwelt_ms: u64) {
        self.unheard = self.rollout.guarded().is_some();
        self.rollout = Rollout::restore(self.rollout.save().dwelt(now, dwelt_ms));
    }

    /// Something of the visit was heard.
    pub(super) fn hear(&mut self, at: Timestamp) {
        self.heard = self.heard.max(at);
        self.unheard = false;
    }

    /// Makes a record so: the machine, and what hangs on it.
    pub(super) fn apply(&mut self, record: &Record) {
        let (attempt, stage) = (self.rollout.attempt(), self.rollout.stage_index());
        let (visit, live) = (self.rollout.since(), Arc::clone(&self.live));
        self.rollout.apply(record.at, &record.event);
        (self.updated, self.heard) = (record.at, self.heard.max(record.at));
        if record.moves(&self.rollout) {
            (self.actor, self.comment) = (record.actor.clone(), record.comment.clone());
        }
        self.note(record);
        if self.rollout.attempt() != attempt {
            self.ledger = Ledger::new(self.rollout.plan());
            self.judging.kin = None;
        }
        self.ledger.follow(&self.rollout, record.at, &record.event);
        match &record.event {
            Event::StageEntered { .. } | Event::Loosened(_) => {
                (self.evidence, self.outdated) = (Evidence::default(), None);
                self.answers.settle();
                self.begin(Told::Entered(Vec::new()), record.at);
                self.live = Arc::new(if self.rollout.attempt() == attempt {
                    self.live.next()
                } else {
                    Live::new(Arc::clone(self.live.copies()))
                });
            }
            Event::Succeeded(_) => {
                self.begin(Told::Guarded, record.at);
                // A ladder that was ended early counts its copies in another window.
                if self.rollout.stage_index() != stage {
                    self.live = Arc::new(self.live.next());
                }
            }
            Event::RolledBack(_) => {
                self.live.close();
                self.begun = None;
                // What proved it is shown after a restart too.
                if self.evidence.gates.is_empty() {
                    self.evidence.gates.clone_from(&record.evidence);
                }
            }
            // Other shares or gates: evidence begins anew, and what was told before says nothing.
            Event::Revised(_) if self.rollout.since() != visit => {
                self.begin(Told::Entered(Vec::new()), record.at);
                self.live = Arc::new(self.live.next());
            }
            Event::Created(_)
            | Event::Revised(_)
            | Event::ApprovalRequested
            | Event::Paused(_)
            | Event::Resumed
            | Event::Overdue
            | Event::Baked
            | Event::Deleted
            | Event::Stopped
            | Event::Lifted
            | Event::Flagged(_)
            | Event::Unflagged(_) => {}
        }
        self.cap(&record.event);
        self.unheard &= self.rollout.since() == visit;
        if !Arc::ptr_eq(&live, &self.live) {
            self.early = (0, 0);
        }
        self.checkpointed = Timestamp::default();
    }

    /// Takes the weather in which the bets of a stage have just begun.
    pub(super) fn tell_weather(&mut self, weather: &[Weather]) {
        if let Some(Note { told: Told::Entered(told), .. }) = &mut self.begun {
            *told = weather.to_vec();
            self.ledger.tell_weather(weather);
        }
    }

    /// Remembers what was asked, whether or not it took effect.
    fn note(&mut self, record: &Record) {
        self.requests.insert(&record.request_id, &record.event);
        if let Some(plan) = record.wanted() {
            self.wanted = Some(plan.clone());
        }
    }

    /// Another plan has another cap of copies.
    fn cap(&mut self, event: &Event) {
        if let Some(plan) = event.plan() {
            let copies = self.live.copies().capped(plan.copies_per_day_max);
            self.live = Arc::new(self.live.capped(Arc::new(copies)));
        }
    }

    /// What the machine has to react to now: the worst first.
    pub(super) fn input(&self, now: Timestamp) -> Input<'static> {
        if self.live.is_tripped() {
            return Input::Tripped;
        }
        let silent = self.rollout.is_idle(now, self.heard) && !self.is_off(now);
        if silent { Input::Idle } else { Input::Tick }
    }

    /// Whether our own cap, a budget or a flag keeps copies from being made: then it is not the
    /// traffic that is silent.
    fn is_off(&self, now: Timestamp) -> bool {
        let full = self.live.is_capped(now) || self.live.unpaid(now).is_some();
        full || self.most().mirror.is_none()
    }

    /// Takes note of a step forward that is on disk, but that a step back has overtaken.
    ///
    /// What it would have begun never began; only what a replay of both would find is kept.
    pub(super) fn overtake(&mut self, before: Option<Rollout>, forward: &Record, back: &Record) {
        if let Some(mut rollout) = before {
            rollout.apply(forward.at, &forward.event);
            rollout.apply(back.at, &back.event);
            self.rollout = rollout;
        }
        self.note(forward);
        self.cap(&forward.event);
    }

    /// Whether evidence of that window counts now: of a stage whose gates nobody asks any more
    /// nothing does.
    pub(super) fn is_current(&self, window: &Window) -> bool {
        self.rollout.guarded().is_some() && self.rollout.window().as_ref() == Some(window)
    }

    /// Bets of a stage or of the guard begin: what is told from now on is theirs.
    fn begin(&mut self, told: Told, at: Timestamp) {
        let order = Order { seq: self.told.seq, at };
        self.begun = self.rollout.window().map(|window| Note { window, order, told });
    }

    /// Brings the evidence up to date. An ended rollout keeps its last one.
    pub(super) fn weigh(&mut self, now: Timestamp) {
        if self.rollout.guarded().is_none() {
            return;
        }
        if self.is_off(now) {
            self.heard = self.heard.max(now);
        }
        let mut evidence = self.ledger.evidence();
        // Also while nothing comes.
        evidence.per_minute = self.ledger.per_minute(now);
        let coverage = self.coverage_problem(now);
        let kept = || self.live.kept().problem();
        if let Some(problem) = coverage.or_else(kept).or_else(|| self.flagged()) {
            // What was never asked says nothing of either side, so proof of harm stands.
            let doubted = |gate: &&mut GateEvidence| gate.verdict != Verdict::Breach;
            for gate in evidence.gates.iter_mut().filter(doubted) {
                gate.verdict = Verdict::Invalid;
                gate.problem.clone_from(&problem);
            }
            evidence.problem = Some(problem);
        }
        if let Some(problem) = self.live.unpaid(now) {
            evidence.problem = Some(problem);
        } else if self.live.is_capped(now) {
            let cap = self.rollout.plan().copies_per_day_max;
            evidence.problem =
                Some(format!("the day's {cap} copies are used up; it goes on tomorrow (UTC)"));
        }
        self.judging.doubt(&mut evidence);
        evidence.unsettled = if self.unheard {
            Some("nothing of it was heard since the program started".to_owned())
        } else if self.outdated.is_some() {
            let so = "its evidence is of providers that were configured otherwise, and its stage";
            Some(format!("{so} could not begin anew: start the program again, or jump to it"))
        } else {
            self.answers.changed().map(str::to_owned).or_else(|| self.live.under_way(now))
        };
        if let Some(broken) = &self.broken {
            evidence.problem = Some(broken.clone());
        }
        self.evidence = evidence;
    }

    /// The stage that shapes traffic; none where a provider is not configured.
    fn moved(&self) -> Option<&Stage> {
        self.rollout.stage().filter(|_| self.broken.is_none())
    }

    /// What is served by the candidate and what is copied, now.
    pub(super) fn shares(&self) -> (Share, Share) {
        self.moved().map_or((Share::NONE, Share::NONE), |it| (it.serve, self.rollout.mirror()))
    }

    /// What the proxy has to obey.
    pub(super) fn lane(&self, cleared: Vec<String>) -> Lane {
        let (plan, stage) = (self.rollout.plan(), self.moved());
        let (serve, mirror) = self.shares();
        // Where nothing is compared any more, noise is no measure of anything.
        let noise = if mirror.is_none() { Share::NONE } else { plan.noise };
        Lane {
            rollout: self.rollout.name().clone(),
            window: stage.and(self.rollout.window()),
            primary: plan.primary.clone(),
            candidate: plan.candidate.clone(),
            slice: plan.slice.clone(),
            stage_slice: stage.map_or_else(Slice::default, |it| it.slice.clone()),
            watched: plan.watched.clone(),
            gated: Metric::ALL.into_iter().filter(|it| plan.gates(*it)).collect(),
            compared: plan.compared.clone(),
            serve,
            mirror,
            noise,
            cleared,
            judge: plan.judge_share,
            flags: self.flags.clone(),
        }
    }

    /// Whether an idempotency key was used before, and for the same thing.
    pub(super) fn replayed(&self, request_id: &str, command: &Command) -> Option<Replayed> {
        let event = self.requests.get(request_id)?;
        let left = |stage: usize| {
            let left = self.rollout.plan().stages.get(stage.checked_sub(1)?);
            left.map(|it| it.name.as_str())
        };
        let entered = event.entered().map(|(_, stage)| stage);
        let (cause, ladder) = (event.cause(), self.rollout.plan().stages.len());
        let same = match command {
            Command::Start | Command::Supersede => entered == Some(0) && cause == Cause::Operator,
            Command::Advance { from_stage, undecided } => {
                let named = |it: &str| from_stage.is_empty() || it == from_stage;
                // What was overridden was asked to be; without being asked nothing is.
                let skipped = cause == Cause::Override && *undecided == Undecided::Skip;
                let to = if matches!(event, Event::Succeeded(_)) { Some(ladder) } else { entered };
                let done = to.and_then(left).is_some_and(named);
                *event == Event::ApprovalRequested
                    || (done && (cause == Cause::Operator || skipped))
            }
            Command::Jump { to_stage, .. } => {
                let stage = entered.and_then(|it| self.rollout.plan().stages.get(it));
                stage.is_some_and(|it| it.name == *to_stage)
                    && matches!(cause, Cause::Jump | Cause::Override)
            }
            Command::Complete { .. } => *event == Event::Succeeded(Cause::Override),
            Command::Pause => *event == Event::Paused(Cause::Operator),
            Command::Resume => *event == Event::Resumed,
            Command::Approve { answer: Answer::No, .. } => cause == Cause::Declined,
            Command::Approve { stage, attempt, answer: Answer::Yes } => {
                let named = |it: &str| stage.is_empty() || it == stage;
                let of = event.entered().map(|(attempt, _)| attempt);
                let meant = attempt.is_none() || of.is_none() || of == *attempt;
                let ended = matches!(event, Event::Succeeded(_));
                let left = ended || entered.and_then(left).is_some_and(named);
                cause == Cause::Approved && meant && left
            }
            Command::Rollback => matches!(event, Event::RolledBack(_)),
            Command::Revise(plan) => {
                let created = matches!(event, Event::Created(_));
                !created && event.plan() == Some(plan.as_ref())
            }
        };
        Some(if same { Replayed::Same } else { Replayed::Other })
    }

    /// The rollout as people see it.
    pub(super) fn view(&self, now: Timestamp, durable: bool) -> View {
        View {
            rollout: self.rollout.clone(),
            evidence: self.evidence.clone(),
            created: self.created,
            updated: self.updated,
            actor: self.actor.clone(),
            comment: self.comment.clone(),
            message: self.message(now),
            durable,
            foresight: Arc::clone(&self.foresight),
            judge: self.judging.text(self.rollout.plan()),
            copies_today: self.copies_today(now),
            purse: Arc::clone(self.live.copies().purse()),
            savings: self.savings,
            now,
        }
    }

    fn copies_today(&self, now: Timestamp) -> u64 {
        let (day, made) = self.live.copies().made();
        if day == now.day() { made } else { 0 }
    }

    /// One sentence a person can act on.
    fn message(&self, now: Timestamp) -> String {
        let name = self.rollout.name();
        let stage = self.rollout.stage().map_or("", |it| it.name.as_str());
        let waits = || match self.rollout.obstacle(now, &self.evidence) {
            Some(obstacle) => obstacle.to_string(),
            None => "every gate is proven".to_owned(),
        };
        match self.rollout.state() {
            State::Pending => format!("not started; `crossfade start {name}` begins it"),
            State::Running if self.rollout.is_overdue() => {
                format!("overdue: the stage lasts longer than it should; waits: {}", waits())
            }
            State::Running => format!("waits: {}", waits()),
            State::Paused if self.rollout.cause() == Some(Cause::Idle) => {
                format!("held: no pair came for too long; `crossfade resume {name}` goes on")
            }
            State::Paused => format!("held by {}; `crossfade resume {name}` goes on", self.actor),
            State::AwaitingApproval if self.rollout.obstacle(now, &self.evidence).is_some() => {
                format!("was proven and waits for approval, but now: {}", waits())
            }
            State::AwaitingApproval => {
                let attempt = self.rollout.attempt();
                format!(
                    "proven; `crossfade approve {name} {stage} --attempt {attempt}` lets it go on"
                )
            }
            State::Succeeded => match self.rollout.distrust(&self.evidence) {
                Some(doubt) => format!("the candidate serves, guarded but in part: {doubt}"),
                None => "the candidate serves; the last stage's gates guard it".to_owned(),
            },
            State::Baked => "the candidate serves, and nothing is copied any more".to_owned(),
            State::RolledBack => self.epitaph(),
        }
    }

    fn epitaph(&self) -> String {
        let metric = self.rollout.cause().and_then(Cause::metric);
        let gate = metric.and_then(|it| self.evidence.with(it, Verdict::Breach));
        let Some(gate) = gate else {
            let why = self.rollout.cause().map_or("", Cause::code);
            return format!("the primary answers everything ({why} by {})", self.actor);
        };
        format!("{} {}", gate.name(), gate.figures())
    }
}

/// What an idempotency key that was used before means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Replayed {
    /// The same command again: answer the same.
    Same,
    /// Another command: refuse.
    Other,
}

#[cfg(test)]
#[path = "visit_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "told_tests.rs"]
mod told_tests;
