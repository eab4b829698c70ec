//! What is counted, in words.

/// Which part of the program dropped or failed something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// The recorder's queue was full: the pair counts as evidence but is not kept.
    RecorderFull,
    /// The controller's queue was full: the request is missing from the evidence.
    ControllerFull,
    /// The judge's queue was full: the pair stays without a score.
    JudgeFull,
    /// The judge gave no usable answer.
    JudgeFailed,
    /// There was no money left to score it: the pair stays without a score.
    Budget,
    /// The store refused a write.
    StoreFailed,
    /// The caller left before the end.
    CallerGone,
    /// An answer came in a coding that is not known: its request is missing from the evidence.
    Coding,
    /// A copy was cut off while it came, or where the answer that the caller got took as long.
    Late,
    /// There was no memory left for the rest of an answer: its request is missing from the evidence.
    Memory,
}

impl Loss {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::RecorderFull => "recorder_full",
            Self::ControllerFull => "controller_full",
            Self::JudgeFull => "judge_full",
            Self::JudgeFailed => "judge_failed",
            Self::Budget => "budget",
            Self::StoreFailed => "store_failed",
            Self::CallerGone => "caller_gone",
            Self::Coding => "coding",
            Self::Late => "late",
            Self::Memory => "memory",
        }
    }
}

/// What there was no place for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// A caller's connection: it is closed.
    Connection,
    /// A request beside others of its connection: it is answered 503.
    Request,
}

impl Refusal {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Connection => "connections",
            Self::Request => "requests",
        }
    }
}

/// Who does not get the texts of a pair, for want of clearance for its data classes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Withheld {
    /// The judge: the pair stays without a score.
    Judge,
    /// The store: the pair is kept without its texts.
    Store,
}

impl Withheld {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Judge => "judge",
            Self::Store => "store",
        }
    }
}

/// What money is spent on besides what callers get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spending {
    /// Copies.
    Mirror,
    /// Scores.
    Judge,
}

/// In which role a provider was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Its answer went to the caller.
    Serve,
    /// Its answer was only compared.
    Mirror,
}

impl Role {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Serve => "serve",
            Self::Mirror => "mirror",
        }
    }
}
