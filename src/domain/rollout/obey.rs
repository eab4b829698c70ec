//! What the machine makes of commands.

use crate::domain::{
    Answer, Approval, Cause, Command, Consent, Event, Evidence, Refusal, Rollout, Stage, State,
    Timestamp, Undecided, Verdict,
};

impl Rollout {
    pub(super) fn obey(
        &self,
        now: Timestamp,
        command: &Command,
        evidence: &Evidence,
    ) -> Result<Option<Event>, Refusal> {
        if let Some(breach) = self.gate_obstacle(evidence, Verdict::Breach)
            && !goes_back(command)
        {
            return Err(breach);
        }
        match command {
            Command::Start | Command::Supersede => self.start(now).map(Some),
            Command::Advance { from_stage, undecided } => {
                self.advance(now, from_stage, *undecided, evidence).map(Some)
            }
            Command::Jump { to_stage, undecided, consent } => {
                self.jump(to_stage, *undecided, *consent, evidence).map(Some)
            }
            Command::Complete { consent } => {
                self.moving("be completed")?;
                self.pass_over(self.plan.stages.len(), *consent, evidence)?;
                Ok(Some(Event::Succeeded(Cause::Override)))
            }
            Command::Pause => match self.state {
                State::Running | State::AwaitingApproval => {
                    Ok(Some(Event::Paused(Cause::Operator)))
                }
                State::Paused => Ok(None),
                State::Pending | State::Succeeded | State::Baked | State::RolledBack => {
                    Err(self.wrong("pause", "only a running rollout can be paused"))
                }
            },
            Command::Resume => match self.state {
                State::Paused => Ok(Some(Event::Resumed)),
                State::Running | State::AwaitingApproval => Ok(None),
                State::Pending | State::Succeeded | State::Baked | State::RolledBack => {
                    Err(self.wrong("resume", "only a paused rollout can be resumed"))
                }
            },
            Command::Approve { stage, attempt, answer } => {
                let asked = (stage.as_str(), *attempt);
                self.approve(now, asked, *answer, evidence).map(Some)
            }
            Command::Rollback => Ok(self.fall(Cause::Operator)),
            Command::Revise(plan) => self.revise(plan),
        }
    }

    fn start(&self, now: Timestamp) -> Result<Event, Refusal> {
        match self.state {
            State::Pending | State::RolledBack => {}
            State::Running | State::AwaitingApproval => {
                return Err(self.wrong("start", "it has started already"));
            }
            State::Paused => return Err(self.wrong("start", "resume it instead")),
            State::Succeeded | State::Baked => {
                return Err(self.wrong("start", "roll it back first to begin anew"));
            }
        }
        // Copies may begin in a freeze; what callers get may not change.
        let first = self.plan.stages.first().filter(|it| !it.serve.is_none());
        if let Some((stage, thaw)) = first.zip(self.thaw(now)) {
            return Err(Refusal::Frozen { stage: stage.name.clone(), thaw });
        }
        Ok(Event::StageEntered { attempt: self.attempt + 1, stage: 0, cause: Cause::Operator })
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
            State::Succeeded | State::Baked => {
                return Err(self.wrong("advance", "it is at its end"));
            }
        };
        self.current_named(from_stage)?;
        match (self.obstacle(now, evidence), undecided) {
            (None, _) => Ok(self.onward(Cause::Operator)),
            (
                Some(
                    Refusal::Gate { verdict: Verdict::Undecided, .. }
                    | Refusal::Outage { .. }
                    | Refusal::JudgedAlone { .. }
                    | Refusal::Unsettled { .. }
                    | Refusal::Samples { .. }
                    | Refusal::TooEarly { .. }
                    | Refusal::Frozen { .. },
                ),
                Undecided::Skip,
            ) => match stage.approval {
                // An approval is the last gate: without the others there is nothing to approve.
                Approval::Needed => Err(Refusal::NeedsConsent { stage: stage.name.clone() }),
                Approval::NotNeeded => Ok(self.next(Cause::Override)),
            },
            (Some(refusal), Undecided::Hold | Undecided::Skip) => Err(refusal),
        }
    }

    fn jump(
        &self,
        to_stage: &str,
        undecided: Undecided,
        consent: Consent,
        evidence: &Evidence,
    ) -> Result<Event, Refusal> {
        self.moving("jump")?;
        let names = || self.plan.stages.iter().map(|it| it.name.clone());
        let Some(stage) = names().position(|it| it == to_stage) else {
            let (asked, known) = (to_stage.to_owned(), names().collect());
            return Err(Refusal::NoStage { asked, known });
        };
        let attempt = self.attempt;
        let target = self.plan.stages.get(stage);
        if stage <= self.stage && self.stage().zip(target).is_some_and(|(it, to)| to.is_below(it)) {
            return Ok(Event::StageEntered { attempt, stage, cause: Cause::Jump });
        }
        self.pass_over(stage, consent, evidence)?;
        match undecided {
            Undecided::Hold => {
                let stage = self.current("jump")?.name.clone();
                Err(Refusal::NeedsOverride { stage })
            }
            Undecided::Skip => Ok(Event::StageEntered { attempt, stage, cause: Cause::Override }),
        }
    }

    /// Whether everything from the current stage to before `end` may be passed over.
    fn pass_over(&self, end: usize, consent: Consent, evidence: &Evidence) -> Result<(), Refusal> {
        if let Some(refusal) = self.distrust(evidence) {
            return Err(refusal);
        }
        let passed = self.plan.stages.iter().take(end).skip(self.stage);
        let asks = passed.filter(|it| it.approval == Approval::Needed);
        match (asks.map(|it| it.name.clone()).next(), consent) {
            (Some(stage), Consent::Withheld) => Err(Refusal::NeedsConsent { stage }),
            (Some(_), Consent::Given) | (None, _) => Ok(()),
        }
    }

    /// An answer counts for the stage and, where that is named, the attempt it was given for, and a
    /// yes only once it is asked for: nothing that was said before lets an attempt go on.
    fn approve(
        &self,
        now: Timestamp,
        (stage, attempt): (&str, Option<u32>),
        answer: Answer,
        evidence: &Evidence,
    ) -> Result<Event, Refusal> {
        if let Some(asked) = attempt.filter(|it| *it != self.attempt) {
            return Err(Refusal::AttemptMismatch { asked, current: self.attempt });
        }
        let current = self.current("be approved")?;
        self.current_named(stage)?;
        let ended = matches!(self.state, State::Succeeded | State::Baked);
        if current.approval == Approval::NotNeeded || ended {
            return Err(self.wrong("be approved", "its stage asks for no approval"));
        }
        if answer == Answer::No {
            return Ok(Event::RolledBack(Cause::Declined));
        }
        match (self.state, self.obstacle(now, evidence)) {
            (State::Paused, _) => Err(self.wrong("be approved", "resume it first")),
            (_, Some(refusal)) => Err(refusal),
            (State::AwaitingApproval, None) => Ok(self.next(Cause::Approved)),
            (_, None) => Err(self.wrong("be approved", "it has not asked for it yet")),
        }
    }

    /// Refuses where there is no ladder to move on.
    fn moving(&self, verb: &'static str) -> Result<(), Refusal> {
        match self.state {
            State::Running | State::Paused | State::AwaitingApproval => Ok(()),
            State::Pending | State::RolledBack => Err(self.wrong(verb, "start it first")),
            State::Succeeded | State::Baked => Err(self.wrong(verb, "it is at its end")),
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

    pub(super) fn wrong(&self, verb: &'static str, instead: &'static str) -> Refusal {
        Refusal::WrongState { verb, state: self.state, instead }
    }
}

fn goes_back(command: &Command) -> bool {
    match command {
        Command::Rollback | Command::Approve { answer: Answer::No, .. } => true,
        Command::Start
        | Command::Supersede
        | Command::Advance { .. }
        | Command::Jump { .. }
        | Command::Complete { .. }
        | Command::Pause
        | Command::Resume
        | Command::Approve { answer: Answer::Yes, .. }
        | Command::Revise(_) => false,
    }
}
