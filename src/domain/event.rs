//! What is asked of a rollout, and what happened to it.

use super::{Flag, Metric, Name, Plan};

/// What a person or a pipeline asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Begin a new attempt at the first stage.
    Start,
    /// The same, and send back whichever rollouts govern its requests now.
    Supersede,
    /// Leave the named stage, which must be the current one.
    Advance {
        /// The stage to leave; empty means whichever is current.
        from_stage: String,
        /// Whether gates may be skipped that are not decided yet.
        undecided: Undecided,
    },
    /// Go to the named stage: back to gather its evidence afresh, or forward past others.
    Jump {
        /// The stage to go to.
        to_stage: String,
        /// Whether stages may be passed over whose gates are not proven.
        undecided: Undecided,
        /// Whether stages may be passed over that need an approval.
        consent: Consent,
    },
    /// End the ladder now: to the shares of its last stage, whatever is not decided yet.
    Complete {
        /// Whether stages may be passed over that need an approval.
        consent: Consent,
    },
    /// Hold.
    Pause,
    /// Go on.
    Resume,
    /// Agree (or not) that the named stage may be left.
    Approve {
        /// The stage; one that is no longer current is refused.
        stage: String,
        /// The attempt that is meant; another one is refused. Any where none is said.
        attempt: Option<u32>,
        /// The answer.
        answer: Answer,
    },
    /// Send everything back to the primary.
    Rollback,
    /// Replace the plan. While traffic moves: what is to come, and the running stage's terms.
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

/// Whether whoever asks agrees in the place of those whom a stage would ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consent {
    /// No: a stage that needs an approval is in the way.
    Withheld,
    /// Yes, and the log says who did it.
    Given,
}

/// A person's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Go on.
    Yes,
    /// Go back.
    No,
}

/// What happened. The store keeps these for ever, so variants are only added.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// It exists.
    Created(Box<Plan>),
    /// It has another plan.
    Revised(Box<Plan>),
    /// It has another plan that asks less of the running stage, which therefore began anew.
    Loosened(Box<Plan>),
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
    Paused(Cause),
    /// Going on.
    Resumed,
    /// The stage lasts longer than its plan thinks right. Moves nothing.
    Overdue,
    /// The ladder is at its end: the last stage's shares hold.
    Succeeded(Cause),
    /// The gates have guarded long enough after success.
    Baked,
    /// Everything went back to the primary.
    RolledBack(Cause),
    /// It exists no more. Its pairs stay until they are too old.
    Deleted,
    /// Nothing may start on this node. About every rollout.
    Stopped,
    /// Rollouts may start again. About every rollout.
    Lifted,
    /// A flag is in force. About the whole node.
    Flagged(Box<Flag>),
    /// The flag of that name is in force no more. About the whole node.
    Unflagged(Name),
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
    /// A person or pipeline sent it to an earlier stage.
    Jump,
    /// A person or pipeline asked less of the running stage.
    Loosened,
    /// Another rollout took its place.
    Superseded,
    /// Nothing was heard of it for too long.
    Idle,
    /// Everything on the node was stopped.
    Stopped,
    /// A time that the plan sets has passed.
    Time,
}

impl Event {
    /// Why it happened.
    pub fn cause(&self) -> Cause {
        match self {
            Self::Created(_) | Self::Revised(_) | Self::Resumed | Self::Deleted => Cause::Operator,
            Self::Loosened(_) => Cause::Loosened,
            Self::ApprovalRequested => Cause::GatesPassed,
            Self::StageEntered { cause, .. }
            | Self::Paused(cause)
            | Self::Succeeded(cause)
            | Self::RolledBack(cause) => *cause,
            Self::Overdue | Self::Baked => Cause::Time,
            Self::Stopped | Self::Lifted | Self::Flagged(_) | Self::Unflagged(_) => Cause::Operator,
        }
    }

    /// Whether it is a step of a rollout, and not only about its plan, its time or its end.
    pub fn is_step(&self) -> bool {
        !matches!(self, Self::Created(_) | Self::Revised(_) | Self::Overdue | Self::Deleted)
    }

    /// The attempt and the position of the stage that began, if one did.
    pub fn entered(&self) -> Option<(u32, usize)> {
        if let Self::StageEntered { attempt, stage, .. } = self {
            return Some((*attempt, *stage));
        }
        None
    }

    /// The flag it is about, if it is about one.
    pub fn flag(&self) -> Option<&Name> {
        match self {
            Self::Flagged(flag) => Some(&flag.name),
            Self::Unflagged(name) => Some(name),
            Self::Created(_)
            | Self::Revised(_)
            | Self::Loosened(_)
            | Self::StageEntered { .. }
            | Self::ApprovalRequested
            | Self::Paused(_)
            | Self::Resumed
            | Self::Overdue
            | Self::Succeeded(_)
            | Self::Baked
            | Self::RolledBack(_)
            | Self::Deleted
            | Self::Stopped
            | Self::Lifted => None,
        }
    }

    /// The plan it brings, if any.
    pub fn plan(&self) -> Option<&Plan> {
        if let Self::Created(plan) | Self::Revised(plan) | Self::Loosened(plan) = self {
            return Some(plan);
        }
        None
    }
}

impl Cause {
    /// Every cause but a broken gate.
    pub const PLAIN: [Self; 12] = [
        Self::Operator,
        Self::Override,
        Self::GatesPassed,
        Self::Approved,
        Self::Declined,
        Self::Tripwire,
        Self::Jump,
        Self::Loosened,
        Self::Superseded,
        Self::Idle,
        Self::Stopped,
        Self::Time,
    ];

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
            Self::Jump => "OPERATOR_JUMP",
            Self::Loosened => "PLAN_LOOSENED",
            Self::Superseded => "SUPERSEDED",
            Self::Idle => "IDLE",
            Self::Stopped => "STOPPED",
            Self::Time => "TIME_PASSED",
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
            | Self::Tripwire
            | Self::Jump
            | Self::Loosened
            | Self::Superseded
            | Self::Idle
            | Self::Stopped
            | Self::Time => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::plan::tests::plan;

    #[test]
    fn an_event_brings_the_plan_it_was_given_and_most_bring_none() {
        let given = || Box::new(plan());
        for event in [Event::Created(given()), Event::Revised(given()), Event::Loosened(given())] {
            assert_eq!(event.plan(), Some(&plan()));
        }
        assert_eq!(Event::Resumed.plan(), None);
    }

    #[test]
    fn only_an_entered_stage_says_which_one_began() {
        let entered = Event::StageEntered { attempt: 3, stage: 2, cause: Cause::Operator };
        assert_eq!(entered.entered(), Some((3, 2)));
        assert_eq!(Event::Resumed.entered(), None);
    }
}
