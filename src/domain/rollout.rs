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

use super::{Approval, Evidence, Metric, Name, Plan, Role, Stage, Timestamp, Verdict, Window};

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

/// What a person or a pipeline asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Begin a new attempt at the first stage.
    Start,
    /// Leave the named stage, which must be the current one.
    Advance {
        /// The stage to leave; empty means whichever is current.
        from_stage: String,
        /// Whether gates may be skipped that are not decided yet.
        undecided: Undecided,
    },
    /// Hold.
    Pause,
    /// Go on.
    Resume,
    /// Agree (or not) that the named stage may be left.
    Approve {
        /// The stage; one that is no longer current is refused.
        stage: String,
        /// The answer.
        answer: Answer,
    },
    /// Send everything back to the primary.
    Rollback,
    /// Replace the plan of a rollout that moves no traffic.
    Revise(Box<Plan>),
}

/// What to do with gates that are not decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Undecided {
    /// They hold the stage.
    Hold,
    /// They are skipped, and the log says who did it.
    Skip,
}

/// A person's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Go on.
    Yes,
    /// Go back.
    No,
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

/// What happened. The store keeps these for ever, so variants are only added.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// It exists.
    Created(Box<Plan>),
    /// It has another plan.
    Revised(Box<Plan>),
    /// A stage began.
    StageEntered {
        /// The attempt, from 1.
        attempt: u32,
        /// Position in the plan.
        stage: usize,
        /// Why it may.
        cause: Cause,
    },
    /// The gates are proven, a person is asked.
    ApprovalRequested,
    /// Held.
    Paused,
    /// Going on.
    Resumed,
    /// The last stage is proven.
    Succeeded(Cause),
    /// Everything went back to the primary.
    RolledBack(Cause),
}

/// Why the last step was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// A person or pipeline asked.
    Operator,
    /// A person or pipeline asked, skipping gates that were not decided.
    Override,
    /// Every gate was proven.
    GatesPassed,
    /// A person approved.
    Approved,
    /// A person did not approve.
    Declined,
    /// A gate was proven broken.
    Breach(Metric),
    /// The candidate simply died.
    Tripwire,
}

/// Why a command was refused. Says what would be possible instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The command does not fit the state.
    #[error("it is {} and cannot {verb}; {instead}", state.as_str())]
    WrongState {
        /// What was asked.
        verb: &'static str,
        /// Where the rollout stands.
        state: State,
        /// What is possible.
        instead: &'static str,
    },
    /// The named stage is not the current one.
    #[error("stage `{asked}` is not the current one; that is `{current}`")]
    StageMismatch {
        /// What was asked.
        asked: String,
        /// Where the rollout is.
        current: String,
    },
    /// A gate stands in the way.
    #[error("gate `{}` of stage `{stage}` is {}: {detail}", metric.as_str(), verdict.as_str())]
    Gate {
        /// The stage.
        stage: String,
        /// The gate.
        metric: Metric,
        /// What it says.
        verdict: Verdict,
        /// The numbers, or the problem.
        detail: String,
    },
    /// The evidence cannot be trusted.
    #[error("the evidence of stage `{stage}` cannot be trusted: {problem}")]
    Untrusted {
        /// The stage.
        stage: String,
        /// Why.
        problem: String,
    },
    /// Too few pairs yet.
    #[error("stage `{stage}` has {have} of at least {need} pairs")]
    Samples {
        /// The stage.
        stage: String,
        /// Pairs that count so far.
        have: u64,
        /// Pairs needed.
        need: u64,
    },
    /// Too early.
    #[error("stage `{stage}` has to last {} more", humantime::format_duration(std::time::Duration::from_secs(left_ms.div_ceil(1_000))))]
    TooEarly {
        /// The stage.
        stage: String,
        /// Milliseconds left.
        left_ms: u64,
    },
    /// A person has to agree first.
    #[error("stage `{stage}` needs an approval before it is left")]
    NeedsApproval {
        /// The stage.
        stage: String,
    },
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

impl Cause {
    /// The stable code of the API.
    pub fn code(self) -> &'static str {
        match self {
            Self::Operator => "OPERATOR",
            Self::Override => "OPERATOR_OVERRIDE",
            Self::GatesPassed => "ALL_GATES_PASSED",
            Self::Approved => "APPROVED",
            Self::Declined => "APPROVAL_DECLINED",
            Self::Breach(_) => "GATE_BREACHED",
            Self::Tripwire => "TRIPWIRE",
        }
    }

    /// The gate that caused it, if one did.
    pub fn metric(self) -> Option<Metric> {
        match self {
            Self::Breach(metric) => Some(metric),
            Self::Operator
            | Self::Override
            | Self::GatesPassed
            | Self::Approved
            | Self::Declined
            | Self::Tripwire => None,
        }
    }
}

impl Refusal {
    /// The stable code of the API.
    pub fn code(&self) -> &'static str {
        match self {
            Self::WrongState { .. } => "WRONG_STATE",
            Self::StageMismatch { .. } => "STAGE_MISMATCH",
            Self::Gate { verdict: Verdict::Breach, .. } => "GATE_BREACHED",
            Self::Gate { verdict: Verdict::Invalid, .. } => "GATE_INVALID",
            Self::Gate { .. } => "GATE_UNDECIDED",
            Self::Untrusted { .. } => "EVIDENCE_UNTRUSTED",
            Self::Samples { .. } => "TOO_FEW_SAMPLES",
            Self::TooEarly { .. } => "TOO_EARLY",
            Self::NeedsApproval { .. } => "NEEDS_APPROVAL",
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
                return Err(Refusal::NeedsApproval { stage: self.current("advance")?.name.clone() });
            }
            State::Paused => return Err(self.wrong("advance", "resume it first")),
            State::Pending | State::RolledBack => return Err(self.wrong("advance", "start it first")),
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
fn describe(gate: &super::GateEvidence) -> String {
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
mod tests {
    use super::super::plan::tests::plan;
    use super::*;
    use crate::domain::GateEvidence;

    const DAY: u64 = 86_400_000;

    fn evidence(verdict: Verdict, pairs: u64) -> Evidence {
        let gate = |metric| GateEvidence {
            metric,
            verdict,
            problem: String::new(),
            samples: pairs,
            samples_needed: Some(10),
            primary: 0.0,
            candidate: 0.0,
            difference: 0.0,
            lower: 0.0,
            upper: 0.0,
            bound: 0.0,
            harm: 0.0,
            safe: 0.0,
        };
        Evidence { gates: Metric::ALL.map(gate).into(), pairs, problem: None }
    }

    fn rollout() -> Rollout {
        Rollout::new("chat".parse().unwrap(), plan())
    }

    fn feed(rollout: &mut Rollout, day: u64, input: &Input<'_>, evidence: &Evidence) -> String {
        let now = Timestamp(day * DAY);
        match rollout.decide(now, input, evidence) {
            Ok(Some(event)) => {
                rollout.apply(now, &event);
                format!("{:?} {}", rollout.state(), rollout.stage_index())
            }
            Ok(None) => "nothing".to_owned(),
            Err(refusal) => refusal.to_string(),
        }
    }

    #[test]
    fn a_good_candidate_walks_to_the_end_and_stays_guarded() {
        let mut it = rollout();
        let pass = evidence(Verdict::Pass, 1_000);
        assert_eq!(feed(&mut it, 0, &Input::Command(&Command::Start), &pass), "Running 0");
        assert_eq!(feed(&mut it, 6, &Input::Tick, &pass), "nothing");
        assert_eq!(feed(&mut it, 7, &Input::Tick, &pass), "Running 1");
        for (day, stage) in [(21, 2), (35, 3), (42, 4)] {
            assert_eq!(feed(&mut it, day, &Input::Tick, &pass), format!("Running {stage}"));
        }
        assert_eq!(feed(&mut it, 56, &Input::Tick, &pass), "Succeeded 4");
        assert_eq!(it.stage().unwrap().serve, super::super::Share::ALL);
        let breach = evidence(Verdict::Breach, 1);
        assert_eq!(feed(&mut it, 57, &Input::Tick, &breach), "RolledBack 4");
        assert_eq!(it.stage(), None);
    }

    #[test]
    fn doubt_distrust_and_few_pairs_move_nothing() {
        let mut it = rollout();
        feed(&mut it, 0, &Input::Command(&Command::Start), &Evidence::default());
        let mut distrust = evidence(Verdict::Pass, 1_000);
        distrust.problem = Some("coverage is 90%".to_owned());
        for doubt in [
            evidence(Verdict::Undecided, 9_000),
            evidence(Verdict::Invalid, 9_000),
            evidence(Verdict::Pass, 999),
            Evidence::default(),
            distrust,
        ] {
            assert_eq!(feed(&mut it, 30, &Input::Tick, &doubt), "nothing");
        }
    }

    #[test]
    fn a_pause_shifts_the_timer_and_gates_still_guard() {
        let mut it = rollout();
        let pass = evidence(Verdict::Pass, 1_000);
        feed(&mut it, 0, &Input::Command(&Command::Start), &pass);
        feed(&mut it, 3, &Input::Command(&Command::Pause), &pass);
        assert_eq!(feed(&mut it, 60, &Input::Tick, &pass), "nothing");
        assert_eq!(feed(&mut it, 60, &Input::Command(&Command::Resume), &pass), "Running 0");
        assert_eq!(feed(&mut it, 63, &Input::Tick, &pass), "nothing");
        assert_eq!(feed(&mut it, 64, &Input::Tick, &pass), "Running 1");
        feed(&mut it, 65, &Input::Command(&Command::Pause), &pass);
        let breach = evidence(Verdict::Breach, 1);
        assert_eq!(feed(&mut it, 66, &Input::Tick, &breach), "RolledBack 1");
    }

    #[test]
    fn a_rollback_is_never_refused_and_a_new_start_is_a_new_attempt() {
        let mut it = rollout();
        let none = Evidence::default();
        let rollback = Command::Rollback;
        assert_eq!(feed(&mut it, 0, &Input::Command(&rollback), &none), "nothing");
        feed(&mut it, 0, &Input::Command(&Command::Start), &none);
        assert_eq!(feed(&mut it, 0, &Input::Command(&rollback), &none), "RolledBack 0");
        assert_eq!(feed(&mut it, 0, &Input::Command(&rollback), &none), "nothing");
        assert_eq!(feed(&mut it, 0, &Input::Tick, &evidence(Verdict::Pass, 9_999)), "nothing");
        assert_eq!(feed(&mut it, 0, &Input::Command(&Command::Start), &none), "Running 0");
        assert_eq!(it.attempt(), 2);
        assert_eq!(feed(&mut it, 0, &Input::Tripped, &none), "RolledBack 0");
        assert_eq!(it.cause(), Some(Cause::Tripwire));
    }

    #[test]
    fn advance_names_the_stage_it_leaves_and_skips_only_doubt() {
        let mut it = rollout();
        let none = Evidence::default();
        feed(&mut it, 0, &Input::Command(&Command::Start), &none);
        let advance = |from: &str, undecided| Command::Advance { from_stage: from.into(), undecided };
        let held = advance("shadow", Undecided::Hold);
        assert!(feed(&mut it, 1, &Input::Command(&held), &none).contains("no evidence yet"));
        let skip = advance("shadow", Undecided::Skip);
        let breach = evidence(Verdict::Breach, 10);
        assert!(feed(&mut it, 1, &Input::Command(&skip), &breach).contains("is breach"));
        assert_eq!(feed(&mut it, 1, &Input::Command(&skip), &none), "Running 1");
        assert_eq!(it.cause(), Some(Cause::Override));
        let again = feed(&mut it, 1, &Input::Command(&skip), &none);
        assert_eq!(again, "stage `shadow` is not the current one; that is `read-only`");
    }

    #[test]
    fn an_approval_is_the_last_gate_and_bound_to_its_stage() {
        let mut it = rollout();
        it.plan.stages[0].approval = Approval::Needed;
        let (none, pass) = (Evidence::default(), evidence(Verdict::Pass, 1_000));
        feed(&mut it, 0, &Input::Command(&Command::Start), &none);
        let approve = |stage: &str, answer| Command::Approve { stage: stage.into(), answer };
        let early = feed(&mut it, 7, &Input::Command(&approve("shadow", Answer::Yes)), &none);
        assert!(early.contains("error_rate"), "{early}");
        assert_eq!(feed(&mut it, 7, &Input::Tick, &pass), "AwaitingApproval 0");
        let other = feed(&mut it, 7, &Input::Command(&approve("half", Answer::Yes)), &pass);
        assert!(other.contains("is not the current one"), "{other}");
        let yes = approve("shadow", Answer::Yes);
        assert_eq!(feed(&mut it, 7, &Input::Command(&yes), &pass), "Running 1");
        assert_eq!(it.cause(), Some(Cause::Approved));
    }
}
