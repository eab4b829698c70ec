//! Foresight: what a plan is expected to take before its gates are proven.

use super::{Metric, Refusal};

/// How many times as much traffic may come as was seen: a quiet hour says little about a busy one.
const BUSIER: u64 = 10;

/// What it is expected to take to prove one gate of a stage, if both sides are alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forecast {
    /// The stage.
    pub stage: String,
    /// The gate's metric.
    pub metric: Metric,
    /// Samples, as the evidence of the gate counts them; none when that is not known.
    pub samples: Option<u64>,
    /// Milliseconds until they have come, at the traffic seen; none when that is not known.
    pub ms: Option<u64>,
    /// Milliseconds after which the stage is overdue; none for never.
    pub ms_max: Option<u64>,
}

impl Forecast {
    /// Whether the stage is overdue before the gate is proven.
    pub fn is_too_slow(&self) -> bool {
        self.ms.zip(self.ms_max).is_some_and(|(ms, ms_max)| ms_max < ms)
    }

    /// Whether it would be so with ten times the traffic.
    fn is_hopeless(&self) -> bool {
        self.ms.zip(self.ms_max).is_some_and(|(ms, ms_max)| ms_max < ms / BUSIER)
    }
}

/// What a plan is expected to take.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Foresight {
    /// Requests a minute as they came lately, whatever they are about; none when too few did.
    ///
    /// A slice of the traffic gets less of them, so that times are the least that can be hoped
    /// for while no more comes.
    pub per_minute: Option<f64>,
    /// One for each gate that must be proven, in the plan's order.
    pub gates: Vec<Forecast>,
}

impl Foresight {
    /// The first gate that is not proven while its stage may last even if ten times as much
    /// comes as was seen, if any.
    pub fn refusal(&self) -> Option<Refusal> {
        self.gates.iter().filter(|it| it.is_hopeless()).find_map(|it| {
            let (stage, metric) = (it.stage.clone(), it.metric);
            Some(Refusal::TooSlow { stage, metric, ms: it.ms?, ms_max: it.ms_max? })
        })
    }
}
