//! Gates: the limits a candidate must keep to.

use super::Margin;

/// What a gate looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Metric {
    /// Share of calls that failed through the provider's fault.
    ErrorRate,
    /// 99th percentile of the time to the last byte.
    LatencyP99,
    /// Mean score by the judge.
    JudgeScore,
    /// What the candidate's answers cost, as a part of what the primary's cost.
    Cost,
    /// 99th percentile of the time to the first byte of the body.
    TtftP99,
    /// Share of calls whose stream ended without its end mark.
    TruncatedRate,
    /// Share of calls in which the model declined to answer.
    RefusalRate,
    /// Share of answers that are JSON, among those that were asked to be.
    SchemaValidRate,
    /// Output tokens of the candidate, as a part of the primary's.
    OutputTokensRatio,
    /// Mean score by those whom the answers were for.
    Feedback,
}

/// How a metric is measured, and so which instrument proves it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A share of calls: each either is one or is not.
    Rate(Better),
    /// The 99th percentile of a time in milliseconds; lower is better.
    Quantile,
    /// The mean of paired scores, 0 to 1; higher is better.
    Score,
    /// The same of scores that callers give to the answers they got, of one side each.
    Opinion,
    /// A sum of paired amounts, compared as a part of the primary's; lower is better.
    Ratio,
}

/// Which way a rate should go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Better {
    /// What is counted is bad.
    Lower,
    /// What is counted is good.
    Higher,
}

impl Metric {
    /// Every metric.
    pub const ALL: [Self; 10] = [
        Self::ErrorRate,
        Self::LatencyP99,
        Self::JudgeScore,
        Self::Cost,
        Self::TtftP99,
        Self::TruncatedRate,
        Self::RefusalRate,
        Self::SchemaValidRate,
        Self::OutputTokensRatio,
        Self::Feedback,
    ];

    /// The metrics that gate unless a plan says otherwise.
    pub const DEFAULTS: [Self; 3] = [Self::ErrorRate, Self::LatencyP99, Self::JudgeScore];

    /// The name in config, metrics, records and the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ErrorRate => "error_rate",
            Self::LatencyP99 => "latency_p99",
            Self::JudgeScore => "judge_score",
            Self::Cost => "cost",
            Self::TtftP99 => "ttft_p99",
            Self::TruncatedRate => "truncated_rate",
            Self::RefusalRate => "refusal_rate",
            Self::SchemaValidRate => "schema_valid_rate",
            Self::OutputTokensRatio => "output_tokens_ratio",
            Self::Feedback => "feedback",
        }
    }

    /// The metric of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|it| it.as_str() == name)
    }

    /// How it is measured.
    pub fn kind(self) -> Kind {
        match self {
            Self::ErrorRate | Self::TruncatedRate | Self::RefusalRate => Kind::Rate(Better::Lower),
            Self::SchemaValidRate => Kind::Rate(Better::Higher),
            Self::LatencyP99 | Self::TtftP99 => Kind::Quantile,
            Self::JudgeScore => Kind::Score,
            Self::Feedback => Kind::Opinion,
            Self::Cost | Self::OutputTokensRatio => Kind::Ratio,
        }
    }

    /// The unit of differences and bounds, for display.
    pub fn unit(self) -> &'static str {
        match self.kind() {
            Kind::Rate(_) => "pp",
            Kind::Quantile => "ms",
            Kind::Score | Kind::Opinion => "score",
            Kind::Ratio => "%",
        }
    }
}

/// What a gate may do in a stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Must be proven before the stage is left, and rolls back when broken.
    Prove,
    /// Rolls back when broken, but need not be proven here.
    Guard,
}

/// One limit in one stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gate {
    /// How much worse the candidate may be; says the metric too.
    pub margin: Margin,
    /// What it may do here.
    pub role: Role,
}

impl Gate {
    /// What the gate looks at.
    pub fn metric(self) -> Metric {
        self.margin.metric()
    }
}

/// What the numbers say about one gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Proven within the margin.
    Pass,
    /// Not enough is known either way.
    Undecided,
    /// What is known cannot be trusted.
    Invalid,
    /// Proven worse.
    Breach,
}

impl Verdict {
    /// The name in metrics, records and the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Undecided => "undecided",
            Self::Invalid => "invalid",
            Self::Breach => "breach",
        }
    }

    /// The verdict of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Pass, Self::Undecided, Self::Invalid, Self::Breach]
            .into_iter()
            .find(|it| it.as_str() == name)
    }
}
