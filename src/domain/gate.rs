//! Gates: the limits a candidate must keep to, and what is known about them.

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
}

impl Metric {
    /// Every metric.
    pub const ALL: [Self; 3] = [Self::ErrorRate, Self::LatencyP99, Self::JudgeScore];

    /// The name in config, metrics, records and the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ErrorRate => "error_rate",
            Self::LatencyP99 => "latency_p99",
            Self::JudgeScore => "judge_score",
        }
    }

    /// The metric of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|it| it.as_str() == name)
    }

    /// The unit of differences and bounds, for display.
    pub fn unit(self) -> &'static str {
        match self {
            Self::ErrorRate => "pp",
            Self::LatencyP99 => "ms",
            Self::JudgeScore => "score",
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

/// What is known about one gate now, in the unit of its metric.
#[derive(Clone, Debug, PartialEq)]
pub struct GateEvidence {
    /// The gate's metric.
    pub metric: Metric,
    /// What it comes to.
    pub verdict: Verdict,
    /// Why it is invalid; empty otherwise.
    pub problem: String,
    /// Observations used in this stage.
    pub samples: u64,
    /// About how many more are needed for a verdict; 0 when decided, none when unknown.
    pub samples_needed: Option<u64>,
    /// The primary's value.
    pub primary: f64,
    /// The candidate's value.
    pub candidate: f64,
    /// Candidate minus primary.
    pub difference: f64,
    /// Lower end of the anytime-valid interval of the difference.
    pub lower: f64,
    /// Upper end.
    pub upper: f64,
    /// The difference that is allowed.
    pub bound: f64,
    /// How far the proof of harm has come, 0 to 1.
    pub harm: f64,
    /// How far the proof of safety has come, 0 to 1.
    pub safe: f64,
}

/// What is known about a candidate in its stage now.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Evidence {
    /// One for each gate of the stage, in the plan's order.
    pub gates: Vec<GateEvidence>,
    /// Pairs that count, made in this stage.
    pub pairs: u64,
    /// Why none of it can be trusted, if so: coverage lost, cap reached.
    pub problem: Option<String>,
}

impl Evidence {
    /// The evidence of one gate.
    pub fn of(&self, metric: Metric) -> Option<&GateEvidence> {
        self.gates.iter().find(|it| it.metric == metric)
    }

    /// The first gate that is broken.
    pub fn breach(&self) -> Option<&GateEvidence> {
        self.gates.iter().find(|it| it.verdict == Verdict::Breach)
    }
}
