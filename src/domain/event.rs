//! What is asked of a rollout, what happened to it, and why something was refused.

use super::{Metric, Plan, State, Verdict};

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
