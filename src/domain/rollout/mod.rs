//! The rollout state machine.
//!
//! ```text
//!           Start        gates proven, Advance, Approve, Jump: other stage
//!  Pending -------> Running ------------------------------------------> Succeeded --> Baked
//!                    |  ^ \ gates proven, approval asked      Complete      | guard     |
//!        Pause, idle |  |  AwaitingApproval                                 |           |
//!                    v  | Resume                                            v           v
//!                   Paused        breach, tripwire, Rollback, stop ------> RolledBack
//! ```
//!
//! Two functions and no more. [`Rollout::decide`] says what should happen and
//! changes nothing; [`Rollout::apply`] makes it so and cannot fail. The store
//! keeps the events, so a rollout after a restart is its events applied again.
//!
//! What goes back wins over everything: while a gate is broken no command is obeyed but
//! those that go back, and the next tick goes back.

mod obey;
mod regret;
mod revise;
mod saved;
mod visits;

pub use saved::Saved;
pub use visits::Visit;

use super::{
    Approval, Cause, Command, Event, Evidence, GateEvidence, Name, OnIdle, Plan, Refusal, Role,
    Share, Stage, Thaw, Timestamp, Verdict, Window, freeze,
};

/// One candidate's way from the first copy to all traffic, or back.
#[derive(Clone, Debug)]
pub struct Rollout {
    name: Name,
    plan: Plan,
    plan_revision: u64,
    state: State,
    attempt: u32,
    stage: usize,
    entered: Timestamp,
    /// Of the attempt, oldest first.
    visits: Vec<Visit>,
    /// Since when the stage's timer stands still.
    held: Option<Timestamp>,
    overdue: bool,
    revision: u64,
    cause: Option<Cause>,
}

/// Where a rollout stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Not started: no copies, no shares.
    Pending,
    /// Moving through its stages.
    Running,
    /// Held at its stage by a person. Gates still guard it.
    Paused,
    /// Proven at its stage; a person has to agree before it moves.
    AwaitingApproval,
    /// Through all stages: the last one's shares hold, and its gates guard it.
    Succeeded,
    /// Succeeded, and guarded for long enough: the candidate serves, nothing is copied.
    Baked,
    /// The primary answers everything.
    RolledBack,
}

/// What the machine reacts to.
#[derive(Clone, Debug)]
pub enum Input<'a> {
    /// Somebody spoke.
    Command(&'a Command),
    /// Time passed, numbers came in.
    Tick,
    /// The candidate simply died: the tripwire in the data path went off.
    Tripped,
    /// No pair came for as long as the plan allows.
    Idle,
    /// Another rollout takes its place.
    Superseded,
    /// Everything on the node is stopped.
    Stopped,
}

impl State {
    /// Every state.
    pub const ALL: [Self; 7] = [
        Self::Pending,
        Self::Running,
        Self::Paused,
        Self::AwaitingApproval,
        Self::Succeeded,
        Self::Baked,
        Self::RolledBack,
    ];

    /// The state of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|it| it.as_str() == name)
    }

    /// The name in metrics, records and messages.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::AwaitingApproval => "awaiting_approval",
            Self::Succeeded => "succeeded",
            Self::Baked => "baked",
            Self::RolledBack => "rolled_back",
        }
    }
}

impl Rollout {
    /// A rollout that has not started.
    pub fn new(name: Name, plan: Plan) -> Self {
        Self {
            name,
            plan,
            plan_revision: 1,
            state: State::Pending,
            attempt: 0,
            stage: 0,
            entered: Timestamp::default(),
            visits: Vec::new(),
            held: None,
            overdue: false,
            revision: 1,
            cause: None,
        }
    }

    /// Its name.
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// Its plan.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Revision of the plan, from 1.
    pub fn plan_revision(&self) -> u64 {
        self.plan_revision
    }

    /// Where it stands.
    pub fn state(&self) -> State {
        self.state
    }

    /// Position of the current stage, also of the one it ended in.
    pub fn stage_index(&self) -> usize {
        self.stage
    }

    /// Attempts so far; 0 before the first start.
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// When the current stage began, shifted by pauses.
    pub fn entered(&self) -> Timestamp {
        self.entered
    }

    /// Whether the stage lasts longer than its plan thinks right.
    pub fn is_overdue(&self) -> bool {
        self.overdue
    }

    /// Goes up by one with every change.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Why the last step was taken; none before the first start.
    pub fn cause(&self) -> Option<Cause> {
        self.cause
    }

    /// The stage that shapes traffic now; none where the primary answers everything.
    pub fn stage(&self) -> Option<&Stage> {
        match self.state {
            State::Running
            | State::Paused
            | State::AwaitingApproval
            | State::Succeeded
            | State::Baked => self.plan.stages.get(self.stage),
            State::Pending | State::RolledBack => None,
        }
    }

    /// The stage whose gates still guard; none where nothing is copied any more.
    pub fn guarded(&self) -> Option<&Stage> {
        self.stage().filter(|_| self.state != State::Baked)
    }

    /// Share of traffic for which the other side is asked too.
    pub fn mirror(&self) -> Share {
        self.guarded().map_or(Share::NONE, |it| it.mirror)
    }

    /// The evidence that counts now; none where there is no traffic.
    pub fn window(&self) -> Option<Window> {
        self.stage()?;
        let stage = u32::try_from(self.stage).unwrap_or(u32::MAX);
        Some(Window { rollout: self.name.clone(), attempt: self.attempt, stage })
    }

    /// Milliseconds spent in the stage, without pauses and waiting for approval.
    pub fn dwelt_ms(&self, now: Timestamp) -> u64 {
        self.held.unwrap_or(now).millis_since(self.entered)
    }

    /// Whether it runs and nothing was heard of it since `heard` for longer than its plan allows.
    pub fn is_idle(&self, now: Timestamp, heard: Timestamp) -> bool {
        let silence_ms = now.millis_since(heard);
        self.state == State::Running && self.plan.times.idle_ms_max <= silence_ms
    }

    /// What should happen on this input, if anything.
    ///
    /// # Errors
    /// Refuses a command that does not fit, and says what would. Time, evidence, the
    /// tripwire and a rollback are never refused.
    pub fn decide(
        &self,
        now: Timestamp,
        input: &Input<'_>,
        evidence: &Evidence,
    ) -> Result<Option<Event>, Refusal> {
        match input {
            Input::Command(command) => self.obey(now, command, evidence),
            Input::Tick => Ok(self.weigh(now, evidence)),
            Input::Tripped => Ok(self.fall(Cause::Tripwire)),
            Input::Superseded => Ok(self.fall(Cause::Superseded)),
            Input::Stopped => Ok(self.fall(Cause::Stopped)),
            Input::Idle => Ok(self.breach(evidence).or_else(|| self.silence())),
        }
    }

    /// Makes an event so.
    pub fn apply(&mut self, at: Timestamp, event: &Event) {
        self.revision += 1;
        match event {
            Event::Created(plan) => self.plan = (**plan).clone(),
            Event::Revised(plan) => {
                let after = plan.stages.get(self.stage);
                let both = self.stage().zip(after);
                let is_other = both.is_some_and(|(it, after)| it.is_seen_otherwise(after));
                self.take(plan);
                if is_other {
                    self.visit(at, false);
                }
                self.ask_again(at);
            }
            Event::Loosened(plan) => {
                self.take(plan);
                self.ask_again(at);
                self.begin(at);
                self.held = self.held.map(|_| at);
            }
            Event::StageEntered { attempt, stage, .. } => {
                if *attempt != self.attempt {
                    self.visits.clear();
                }
                (self.state, self.attempt, self.stage) = (State::Running, *attempt, *stage);
                self.begin(at);
                self.held = None;
            }
            Event::ApprovalRequested => {
                (self.state, self.held) = (State::AwaitingApproval, Some(at));
            }
            Event::Paused(_) => {
                self.state = State::Paused;
                self.held.get_or_insert(at);
            }
            Event::Resumed => self.go_on(at),
            Event::Overdue => self.overdue = true,
            Event::Succeeded(_) => {
                self.state = State::Succeeded;
                self.stage = self.plan.stages.len().saturating_sub(1);
                self.begin(at);
                self.held = None;
            }
            Event::Baked => self.state = State::Baked,
            Event::RolledBack(_) => (self.state, self.held) = (State::RolledBack, None),
            Event::Deleted
            | Event::Stopped
            | Event::Lifted
            | Event::Flagged(_)
            | Event::Unflagged(_) => {}
        }
        if event.is_step() {
            self.cause = Some(event.cause());
        }
    }

    fn take(&mut self, plan: &Plan) {
        self.plan = plan.clone();
        self.plan_revision += 1;
    }

    /// Begins to count afresh: time, evidence and the alarm.
    fn begin(&mut self, at: Timestamp) {
        (self.entered, self.overdue) = (at, false);
        self.visit(at, true);
    }

    fn go_on(&mut self, at: Timestamp) {
        let held_ms = self.held.take().map_or(0, |from| at.millis_since(from));
        self.entered = Timestamp(self.entered.0 + held_ms);
        self.state = State::Running;
    }

    /// An approval is asked for under the plan that holds, and so again under another one.
    fn ask_again(&mut self, at: Timestamp) {
        if self.state == State::AwaitingApproval {
            self.go_on(at);
        }
    }

    /// The first thing that keeps the current stage from being left, if any.
    ///
    /// Breached gates first, then distrust, then a primary that fails itself, then
    /// doubt, then a judge that stands alone, then what was not heard yet, then numbers, then time, then a freeze.
    pub fn obstacle(&self, now: Timestamp, evidence: &Evidence) -> Option<Refusal> {
        let stage = self.guarded()?;
        let name = || stage.name.clone();
        if let Some(refusal) = self.distrust(evidence) {
            return Some(refusal);
        }
        if let Some(problem) = &evidence.outage {
            return Some(Refusal::Outage { stage: name(), problem: problem.clone() });
        }
        if let Some(refusal) = self.gate_obstacle(evidence, Verdict::Undecided) {
            return Some(refusal);
        }
        if stage.is_judged_alone(evidence) {
            return Some(Refusal::JudgedAlone { stage: name() });
        }
        if let Some(problem) = &evidence.unsettled {
            return Some(Refusal::Unsettled { stage: name(), problem: problem.clone() });
        }
        if evidence.pairs < stage.samples_min {
            let (have, need) = (evidence.pairs, stage.samples_min);
            return Some(Refusal::Samples { stage: name(), have, need });
        }
        let left_ms = stage.duration_ms_min.saturating_sub(self.dwelt_ms(now));
        if 0 < left_ms {
            return Some(Refusal::TooEarly { stage: name(), left_ms });
        }
        self.thaw(now).map(|thaw| Refusal::Frozen { stage: name(), thaw })
    }

    /// When the freeze ends that holds now, if one does.
    pub fn thaw(&self, now: Timestamp) -> Option<Thaw> {
        freeze::thaw(&self.plan.times.freezes, now)
    }

    /// What nobody may pass over: a broken gate, or evidence that cannot be trusted.
    pub fn distrust(&self, evidence: &Evidence) -> Option<Refusal> {
        let stage = self.guarded()?;
        if let Some(refusal) = self.gate_obstacle(evidence, Verdict::Breach) {
            return Some(refusal);
        }
        if let Some(problem) = &evidence.problem {
            let (stage, problem) = (stage.name.clone(), problem.clone());
            return Some(Refusal::Untrusted { stage, problem });
        }
        self.gate_obstacle(evidence, Verdict::Invalid)
    }

    /// The first gate with that verdict, where the verdict stands in the way.
    fn gate_obstacle(&self, evidence: &Evidence, verdict: Verdict) -> Option<Refusal> {
        let stage = self.guarded()?;
        let stands = |role: Role| match verdict {
            Verdict::Undecided => role == Role::Prove,
            Verdict::Breach | Verdict::Invalid | Verdict::Pass => true,
        };
        stage.gates.iter().filter(|gate| stands(gate.role)).find_map(|gate| {
            let metric = gate.metric();
            let known = match verdict {
                // Safety is proven over all traffic: a small slice would take forever.
                Verdict::Undecided => evidence.of(metric),
                Verdict::Breach | Verdict::Invalid | Verdict::Pass => {
                    evidence.with(metric, verdict)
                }
            };
            // A gate without evidence is undecided: silence is never a pass.
            if known.map_or(Verdict::Undecided, |it| it.verdict) != verdict {
                return None;
            }
            let detail = known.map_or_else(|| "no evidence yet".to_owned(), GateEvidence::detail);
            let stage = stage.name.clone();
            Some(Refusal::Gate { stage, metric, verdict, detail })
        })
    }

    fn weigh(&self, now: Timestamp, evidence: &Evidence) -> Option<Event> {
        if let Some(fall) = self.breach(evidence) {
            return Some(fall);
        }
        match self.state {
            State::Running if self.obstacle(now, evidence).is_none() => {
                Some(self.onward(Cause::GatesPassed))
            }
            State::Running => self.alarm(now),
            State::Succeeded => self.baked(now, evidence),
            State::Pending
            | State::Paused
            | State::AwaitingApproval
            | State::Baked
            | State::RolledBack => None,
        }
    }

    fn breach(&self, evidence: &Evidence) -> Option<Event> {
        self.guarded()?;
        evidence.breach().map(|it| Event::RolledBack(Cause::Breach(it.metric)))
    }

    fn fall(&self, cause: Cause) -> Option<Event> {
        self.stage().map(|_| Event::RolledBack(cause))
    }

    fn silence(&self) -> Option<Event> {
        (self.state == State::Running).then(|| match self.plan.times.on_idle {
            OnIdle::Pause => Event::Paused(Cause::Idle),
            OnIdle::Rollback => Event::RolledBack(Cause::Idle),
        })
    }

    /// Says once that the stage lasts too long.
    fn alarm(&self, now: Timestamp) -> Option<Event> {
        let ms_max = self.stage()?.duration_ms_max?;
        (!self.overdue && ms_max <= self.dwelt_ms(now)).then_some(Event::Overdue)
    }

    /// The guard ends by time, but never while it cannot see, or sees nothing.
    fn baked(&self, now: Timestamp, evidence: &Evidence) -> Option<Event> {
        let over = self.plan.times.bake_ms? <= self.dwelt_ms(now);
        let settled = evidence.unsettled.is_none();
        let sees = 0 < evidence.pairs && settled && self.distrust(evidence).is_none();
        (over && sees).then_some(Event::Baked)
    }

    /// The next step from a stage that nothing keeps from being left.
    fn onward(&self, cause: Cause) -> Event {
        match self.stage().map_or(Approval::NotNeeded, |it| it.approval) {
            Approval::Needed => Event::ApprovalRequested,
            Approval::NotNeeded => self.next(cause),
        }
    }

    fn next(&self, cause: Cause) -> Event {
        let stage = self.stage + 1;
        if stage < self.plan.stages.len() {
            Event::StageEntered { attempt: self.attempt, stage, cause }
        } else {
            Event::Succeeded(cause)
        }
    }
}

#[cfg(test)]
mod jumps;
#[cfg(test)]
mod tests;
