//! Why requests are not copied.

/// Why no copy of a request is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Skip {
    /// No rollout asks for copies of this traffic now.
    NoRollout,
    /// Its key is outside the share.
    Share,
    /// The path or method is not on the list of what may be copied.
    Endpoint,
    /// The body is not a JSON object.
    NotJson,
    /// The body is larger than the limit for copies.
    Size,
    /// The request reads or leaves state at the provider (`store`, `previous_response_id`, files).
    Stateful,
    /// The provider itself would run a tool.
    HostedTool,
    /// More than one answer is asked for (`n` above 1).
    Multiple,
    /// Audio is asked for.
    Modality,
    /// The caller's own retry, already copied once.
    Retry,
    /// The caller marked it idempotent: it must not run twice.
    Idempotent,
    /// It is a copy itself.
    Loop,
    /// The candidate is not cleared for the request's data.
    DataClass,
    /// The day's copies are used up.
    DailyCap,
    /// Too many copies are under way.
    Busy,
    /// A flag keeps it from being copied.
    Flag,
    /// Too much memory is held by copies and answers.
    Memory,
    /// The breaker of one of its providers is open.
    Breaker,
    /// One of its providers has asked to be left alone for a while.
    RetryAfter,
    /// Too many calls of the candidate had to be asked again of the primary.
    RetryBudget,
    /// A budget is spent, or set aside for copies under way.
    Budget,
    /// What it would cost is not known, and there is a budget.
    Unpriced,
}

impl Skip {
    /// Every reason, in a fixed order.
    pub const ALL: [Self; 22] = [
        Self::NoRollout,
        Self::Share,
        Self::Endpoint,
        Self::NotJson,
        Self::Size,
        Self::Stateful,
        Self::HostedTool,
        Self::Multiple,
        Self::Modality,
        Self::Retry,
        Self::Idempotent,
        Self::Loop,
        Self::DataClass,
        Self::DailyCap,
        Self::Busy,
        Self::Flag,
        Self::Memory,
        Self::Breaker,
        Self::RetryAfter,
        Self::RetryBudget,
        Self::Budget,
        Self::Unpriced,
    ];

    /// The name in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoRollout => "no_rollout",
            Self::Share => "share",
            Self::Endpoint => "endpoint",
            Self::NotJson => "not_json",
            Self::Size => "size",
            Self::Stateful => "stateful",
            Self::HostedTool => "hosted_tool",
            Self::Multiple => "multiple",
            Self::Modality => "modality",
            Self::Retry => "retry",
            Self::Idempotent => "idempotent",
            Self::Loop => "loop",
            Self::DataClass => "data_class",
            Self::DailyCap => "daily_cap",
            Self::Busy => "busy",
            Self::Flag => "flag",
            Self::Memory => "memory",
            Self::Breaker => "breaker",
            Self::RetryAfter => "retry_after",
            Self::RetryBudget => "retry_budget",
            Self::Budget => "budget",
            Self::Unpriced => "unpriced",
        }
    }
}
