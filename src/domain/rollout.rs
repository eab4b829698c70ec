//! The rollout state machine.
//!
//! ```text
//!           Start            gates proven, Advance, Approve: next stage
//!  Pending -------> Running ---------------------------------------------> Succeeded
//!                    |  ^ \ gates proven, approval asked                       |
//!              Pause |  |  AwaitingApproval                                    | guard
//!                    v  | Resume                                               v
//!                   Paused           breach, tripwire, Rollback -----------> RolledBack
//! ```
//!
//! Two functions and no more. [`Rollout::decide`] says what should happen and
//! changes nothing; [`Rollout::apply`] makes it so and cannot fail. The store
//! keeps the events, so a rollout after a restart is its events applied again.

mod saved;

pub use saved::Saved;

use super::{
    Answer, Approval, Cause, Command, Event, Evidence, GateEvidence, Name, Plan, Refusal, Role,
    Stage, Timestamp, Undecided, Verdict, Window,
};

/// One candidate's way from the first copy to all traffic, or back.
#[derive(Clone, Debug)]
pub struct Rollout {
    name: Name,
    plan: Plan,
    state: State,
    attempt: u32,
    stage: usize,
    entered: Timestamp,
    paused: Option<Timestamp>,
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
}

impl State {
    /// Every state.
    pub const ALL: [Self; 6] = [
        Self::Pending,
        Self::Running,
        Self::Paused,
        Self::AwaitingApproval,
        Self::Succeeded,
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
            state: State::Pending,
            attempt: 0,
            stage: 0,
            entered: Timestamp::default(),
            paused: None,
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
            State::Running | State::Paused | State::AwaitingApproval | State::Succeeded => {
                self.plan.stages.get(self.stage)
            }
            State::Pending | State::RolledBack => None,
        }
    }

    /// The evidence that counts now; none where there is no traffic.
    pub fn window(&self) -> Option<Window> {
        self.stage()?;
        let stage = u32::try_from(self.stage).unwrap_or(u32::MAX);
        Some(Window { rollout: self.name.clone(), attempt: self.attempt, stage })
    }

    /// Milliseconds spent in the stage, without pauses.
    pub fn dwelt_ms(&self, now: Timestamp) -> u64 {
        self.paused.unwrap_or(now).millis_since(self.entered)
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
            Input::Tripped => Ok(self.stage().map(|_| Event::RolledBack(Cause::Tripwire))),
        }
    }

    /// Makes an event so.
    pub fn apply(&mut self, at: Timestamp, event: &Event) {
        self.revision += 1;
        match event {
            Event::Created(plan) | Event::Revised(plan) => self.plan = (**plan).clone(),
            Event::StageEntered { attempt, stage, cause } => {
                (self.state, self.attempt, self.stage) = (State::Running, *attempt, *stage);
                (self.entered, self.paused, self.cause) = (at, None, Some(*cause));
            }
            Event::ApprovalRequested => self.state = State::AwaitingApproval,
            Event::Paused => (self.state, self.paused) = (State::Paused, Some(at)),
            Event::Resumed => {
                let pause = self.paused.take().map_or(0, |from| at.millis_since(from));
                self.entered = Timestamp(self.entered.0 + pause);
                self.state = State::Running;
            }
            Event::Succeeded(cause) => {
                (self.state, self.entered, self.cause) = (State::Succeeded, at, Some(*cause));
            }
            Event::RolledBack(cause) => {
                (self.state, self.paused, self.cause) = (State::RolledBack, None, Some(*cause));
            }
        }
    }

    /// The first thing that keeps the current stage from being left, if any.
    ///
    /// Breached gates first, then distrust, then doubt, then numbers, then time.
    pub fn obstacle(&self, now: Timestamp, evidence: &Evidence) -> Option<Refusal> {
        let stage = self.stage()?;
        let name = || stage.name.clone();
        if let Some(refusal) = self.gate_obstacle(evidence, Verdict::Breach) {
            return Some(refusal);
        }
        if let Some(problem) = &evidence.problem {
            return Some(Refusal::Untrusted { stage: name(), problem: problem.clone() });
        }
        if let Some(refusal) = self.gate_obstacle(evidence, Verdict::Invalid) {
            return Some(refusal);
        }
        if let Some(refusal) = self.gate_obstacle(evidence, Verdict::Undecided) {
            return Some(refusal);
        }
        if evidence.pairs < stage.samples_min {
            let (have, need) = (evidence.pairs, stage.samples_min);
            return Some(Refusal::Samples { stage: name(), have, need });
        }
        let left_ms = stage.duration_ms_min.saturating_sub(self.dwelt_ms(now));
        (0 < left_ms).then(|| Refusal::TooEarly { stage: name(), left_ms })
    }

    /// The first gate with that verdict, where the verdict stands in the way.
    fn gate_obstacle(&self, evidence: &Evidence, verdict: Verdict) -> Option<Refusal> {
        let stage = self.stage()?;
        let stands = |role: Role| match verdict {
            Verdict::Undecided => role == Role::Prove,
            Verdict::Breach | Verdict::Invalid | Verdict::Pass => true,
        };
        stage.gates.iter().filter(|gate| stands(gate.role)).find_map(|gate| {
            let known = evidence.of(gate.metric());
            // A gate without evidence is undecided: silence is never a pass.
            if known.map_or(Verdict::Undecided, |it| it.verdict) != verdict {
                return None;
            }
            let detail = known.map_or_else(|| "no evidence yet".to_owned(), describe);
            let (stage, metric) = (stage.name.clone(), gate.metric());
            Some(Refusal::Gate { stage, metric, verdict, detail })
        })
    }

    fn obey(
        &self,
        now: Timestamp,
        command: &Command,
        evidence: &Evidence,
    ) -> Result<Option<Event>, Refusal> {
        match command {
            Command::Start => self.start().map(Some),
            Command::Advance { from_stage, undecided } => {
                self.advance(now, from_stage, *undecided, evidence).map(Some)
            }
            Command::Pause => match self.state {
                State::Running | State::AwaitingApproval => Ok(Some(Event::Paused)),
                State::Paused => Ok(None),
                State::Pending | State::Succeeded | State::RolledBack => {
                    Err(self.wrong("pause", "only a running rollout can be paused"))
                }
            },
            Command::Resume => match self.state {
                State::Paused => Ok(Some(Event::Resumed)),
                State::Running | State::AwaitingApproval => Ok(None),
                State::Pending | State::Succeeded | State::RolledBack => {
                    Err(self.wrong("resume", "only a paused rollout can be resumed"))
                }
            },
            Command::Approve { stage, answer } => {
                self.approve(now, stage, *answer, evidence).map(Some)
            }
            Command::Rollback => Ok(self.stage().map(|_| Event::RolledBack(Cause::Operator))),
            Command::Revise(plan) => match self.state {
                State::Pending | State::RolledBack => Ok(Some(Event::Revised(plan.clone()))),
                State::Running | State::Paused | State::AwaitingApproval | State::Succeeded => {
                    Err(self.wrong("take another plan", "roll it back first"))
                }
            },
        }
    }

    fn start(&self) -> Result<Event, Refusal> {
        match self.state {
            State::Pending | State::RolledBack => Ok(Event::StageEntered {
                attempt: self.attempt + 1,
                stage: 0,
                cause: Cause::Operator,
            }),
            State::Running | State::AwaitingApproval => {
                Err(self.wrong("start", "it has started already"))
            }
            State::Paused => Err(self.wrong("start", "resume it instead")),
            State::Succeeded => Err(self.wrong("start", "roll it back first to begin anew")),
        }
    }

    fn advance(
        &self,
        now: Timestamp,
        from_stage: &str,
        undecided: Undecided,
        evidence: &Evidence,
    ) -> Result<Event, Refusal> {
        let stage = match self.state {
            State::Running => self.current("advance")?,
            State::AwaitingApproval => {
                self.current_named(from_stage)?;
                return Err(Refusal::NeedsApproval {
                    stage: self.current("advance")?.name.clone(),
                });
            }
            State::Paused => return Err(self.wrong("advance", "resume it first")),
            State::Pending | State::RolledBack => {
                return Err(self.wrong("advance", "start it first"));
            }
            State::Succeeded => return Err(self.wrong("advance", "it is at its end")),
        };
        self.current_named(from_stage)?;
        let cause = match (self.obstacle(now, evidence), undecided) {
            (None, _) => Cause::Operator,
            (
                Some(
                    Refusal::Gate { verdict: Verdict::Undecided, .. }
                    | Refusal::Samples { .. }
                    | Refusal::TooEarly { .. },
                ),
                Undecided::Skip,
            ) => Cause::Override,
            (Some(refusal), Undecided::Hold | Undecided::Skip) => return Err(refusal),
        };
        match stage.approval {
            Approval::Needed => Ok(Event::ApprovalRequested),
            Approval::NotNeeded => Ok(self.next(cause)),
        }
    }

    fn approve(
        &self,
        now: Timestamp,
        asked: &str,
        answer: Answer,
        evidence: &Evidence,
    ) -> Result<Event, Refusal> {
        let stage = self.current("be approved")?;
        self.current_named(asked)?;
        if stage.approval == Approval::NotNeeded || self.state == State::Succeeded {
            return Err(self.wrong("be approved", "its stage asks for no approval"));
        }
        if answer == Answer::No {
            return Ok(Event::RolledBack(Cause::Declined));
        }
        match (self.state, self.obstacle(now, evidence)) {
            (State::Paused, _) => Err(self.wrong("be approved", "resume it first")),
            (_, Some(refusal)) => Err(refusal),
            (_, None) => Ok(self.next(Cause::Approved)),
        }
    }

    fn weigh(&self, now: Timestamp, evidence: &Evidence) -> Option<Event> {
        let stage = self.stage()?;
        if let Some(breach) = evidence.breach() {
            return Some(Event::RolledBack(Cause::Breach(breach.metric)));
        }
        if self.state != State::Running || self.obstacle(now, evidence).is_some() {
            return None;
        }
        match stage.approval {
            Approval::Needed => Some(Event::ApprovalRequested),
            Approval::NotNeeded => Some(self.next(Cause::GatesPassed)),
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

    fn current(&self, verb: &'static str) -> Result<&Stage, Refusal> {
        self.stage().ok_or_else(|| self.wrong(verb, "start it first"))
    }

    fn current_named(&self, asked: &str) -> Result<(), Refusal> {
        let current = self.stage().map_or("", |it| it.name.as_str());
        if asked.is_empty() || asked == current {
            return Ok(());
        }
        Err(Refusal::StageMismatch { asked: asked.to_owned(), current: current.to_owned() })
    }

    fn wrong(&self, verb: &'static str, instead: &'static str) -> Refusal {
        Refusal::WrongState { verb, state: self.state, instead }
    }
}

/// The numbers of a gate in one line.
fn describe(gate: &GateEvidence) -> String {
    if !gate.problem.is_empty() {
        return gate.problem.clone();
    }
    let more = match gate.samples_needed {
        Some(more) if 0 < more => format!(", about {more} more needed"),
        Some(_) | None => String::new(),
    };
    let unit = gate.metric.unit();
    format!(
        "difference {:+.3} {unit}, interval [{:+.3}, {:+.3}], bound {:+.3} {unit}, {} samples{more}",
        gate.difference, gate.lower, gate.upper, gate.bound, gate.samples
    )
}

#[cfg(test)]
#[path = "rollout_tests.rs"]
mod tests;
