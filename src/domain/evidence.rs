//! Evidence: what is known about gates, and about all of them.

use std::time::Duration;

use super::{Metric, Verdict};

/// What is known about one gate now, in the unit of its metric.
#[derive(Clone, Debug, PartialEq)]
pub struct GateEvidence {
    /// The gate's metric.
    pub metric: Metric,
    /// The watched slice that it is about; empty for all traffic.
    pub watched: String,
    /// What it comes to.
    pub verdict: Verdict,
    /// From which part of its margin on a regression goes back, in percent; 100 is strict.
    pub alarm_from_percent: u32,
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
    /// Candidate minus primary; for a ratio the candidate in percent of the primary.
    pub difference: f64,
    /// Lower end of the anytime-valid interval of the difference.
    pub lower: f64,
    /// Upper end.
    pub upper: f64,
    /// The 95% interval of the difference for who looks once, at a number of samples settled
    /// before; none for a quantile, and where samples have weights.
    pub fixed: Option<[f64; 2]>,
    /// The difference that is allowed.
    pub bound: f64,
    /// How far the proof of harm has come, 0 to 1.
    pub harm: f64,
    /// How far the proof of safety has come, 0 to 1.
    pub safe: f64,
    /// What the primary shows against itself in the same metric; none while that is not known.
    pub noise: Option<Noise>,
    /// What a gate on amounts rests on; none for others.
    pub basis: Option<Basis>,
    /// What is known of each tier of a gate that has any.
    pub tiers: Vec<TierEvidence>,
}

/// What is known of one way to be ready.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TierEvidence {
    /// What the candidate's answers are worth: at least so much.
    pub quality: Found,
    /// What they cost: at most so much.
    pub cost: Found,
}

/// What is known of a part of the primary's, in percent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Found {
    /// The candidate's part.
    pub value: f64,
    /// Lower end of its anytime-valid interval.
    pub lower: f64,
    /// Upper end.
    pub upper: f64,
    /// What it must reach, or may.
    pub bound: f64,
    /// What it comes to.
    pub verdict: Verdict,
}

impl TierEvidence {
    /// The numbers in one line.
    pub fn figures(&self) -> String {
        let said = |what: &str, it: Found, most: &str| {
            let Found { value, lower, upper, bound, verdict } = it;
            let verdict = verdict.as_str();
            format!("{what} {value:.1}% [{lower:.1}, {upper:.1}], {most} {bound:.0}%: {verdict}")
        };
        let quality = said("quality", self.quality, "at least");
        format!("{quality}; {}", said("cost", self.cost, "at most"))
    }
}

/// What a gate on amounts rests on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Basis {
    /// How much of the amounts of both sides was estimated, as providers told no tokens, in percent.
    pub estimated_percent: f64,
    /// Mean input tokens of the same requests as the primary and as the candidate count them; none
    /// until both told them.
    pub input_tokens: Option<(f64, f64)>,
}

impl Basis {
    /// The numbers in one line; empty where there is nothing to say.
    pub fn figures(&self) -> String {
        let mut said = Vec::new();
        if 0.0 < self.estimated_percent {
            said.push(format!("{:.0}% of it estimated", self.estimated_percent));
        }
        if let Some((primary, candidate)) = self.input_tokens {
            let ratio = 100.0 * candidate / primary.max(f64::MIN_POSITIVE);
            said.push(format!(
                "{candidate:.0} input tokens where the primary counts {primary:.0} ({ratio:.0}%)"
            ));
        }
        said.join(", ")
    }
}

/// A difference of the primary from itself, in the unit of a metric: what would be shown if the
/// primary were its own candidate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Noise {
    /// Requests of this stage that it was asked twice.
    pub samples: u64,
    /// Its second call minus that which the caller saw; for a ratio the second in percent.
    pub difference: f64,
    /// Lower end of the anytime-valid interval of the difference.
    pub lower: f64,
    /// Upper end.
    pub upper: f64,
}

impl Noise {
    /// The numbers in one line: difference, interval, samples.
    pub fn figures(&self, unit: &str) -> String {
        let Self { samples, difference, lower, upper } = self;
        format!("noise {difference:+.3} {unit} in [{lower:+.3}, {upper:+.3}], {samples} samples")
    }
}

impl GateEvidence {
    /// The name of its gate, with the watched slice where it is about one.
    pub fn name(&self) -> String {
        match self.watched.as_str() {
            "" => self.metric.as_str().to_owned(),
            slice => format!("{} in slice `{slice}`", self.metric.as_str()),
        }
    }

    /// The numbers of a broken gate in one line: difference, interval, bound, samples, and from
    /// where on it goes back.
    pub fn figures(&self) -> String {
        let unit = self.metric.unit();
        if !self.tiers.is_empty() {
            let tiers: Vec<String> = self.tiers.iter().map(TierEvidence::figures).collect();
            return format!("{}, n={}; {}", tiers.join(", or "), self.samples, self.mode());
        }
        format!(
            "{:+.3} {unit}, interval [{:+.3}, {:+.3}], bound {:+.3} {unit}, n={}; {}",
            self.difference,
            self.lower,
            self.upper,
            self.bound,
            self.samples,
            self.mode()
        )
    }

    /// From where on it goes back, in words.
    pub fn mode(&self) -> String {
        if self.alarm_from_percent < 100 {
            format!("goes back from {}% of the margin on", self.alarm_from_percent)
        } else {
            "goes back beyond the margin only".to_owned()
        }
    }

    /// The numbers of a gate that is not decided, and how many more samples it needs; else why it
    /// cannot be trusted.
    pub(super) fn detail(&self) -> String {
        let slice = match self.watched.as_str() {
            "" => String::new(),
            slice => format!("in slice `{slice}`: "),
        };
        if !self.problem.is_empty() {
            return format!("{slice}{}", self.problem);
        }
        let more = match self.samples_needed {
            Some(more) if 0 < more => format!(", about {more} more needed"),
            Some(_) | None => String::new(),
        };
        let unit = self.metric.unit();
        if !self.tiers.is_empty() {
            let tiers: Vec<String> = self.tiers.iter().map(TierEvidence::figures).collect();
            return format!("{slice}{}, {} samples{more}", tiers.join(", or "), self.samples);
        }
        format!(
            "{slice}difference {:+.3} {unit}, interval [{:+.3}, {:+.3}], bound {:+.3} {unit}, \
             {} samples{more}",
            self.difference, self.lower, self.upper, self.bound, self.samples
        )
    }
}

/// What is known about a candidate in its stage now.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Evidence {
    /// One for each gate of the stage, in the plan's order, over all traffic; then the same for
    /// each watched slice.
    pub gates: Vec<GateEvidence>,
    /// Pairs that count, made in this stage.
    pub pairs: u64,
    /// Requests that count though only one side was seen, made in this stage.
    pub solos: u64,
    /// Pairs and solos a minute, since the stage began.
    pub per_minute: f64,
    /// What does not count, and why.
    pub excluded: Vec<Excluded>,
    /// Why none of it can be trusted, if so: coverage lost, cap reached.
    pub problem: Option<String>,
    /// Why the primary is no measure for anybody, if so: it fails itself. A person may go on.
    pub outage: Option<String>,
    /// Why what was heard of the stage is not all or not of now, if so. A person may go on.
    pub unsettled: Option<String>,
}

/// Requests that were seen and do not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Excluded {
    /// Why: an outcome that says nothing about the provider, a copy that was lost, a turn of a
    /// conversation that counts already.
    pub reason: &'static str,
    /// How many.
    pub count: u64,
}

impl Evidence {
    /// The evidence of one gate, over all traffic.
    pub fn of(&self, metric: Metric) -> Option<&GateEvidence> {
        self.gates.iter().find(|it| it.metric == metric && it.watched.is_empty())
    }

    /// The evidence of one gate that comes to this: over all traffic, else in a watched slice.
    pub fn with(&self, metric: Metric, verdict: Verdict) -> Option<&GateEvidence> {
        self.gates.iter().find(|it| it.metric == metric && it.verdict == verdict)
    }

    /// Milliseconds until a gate has the samples it needs, if they come as they have come in this
    /// stage; none when that is not known, or none come.
    pub fn wait_ms(&self, gate: &GateEvidence) -> Option<u64> {
        let needed = u128::from(gate.samples_needed?);
        let observations = u128::from(self.pairs + self.solos);
        let seen = u128::from(gate.samples);
        // A minute's observations are this many thousandths.
        let thousandths = Duration::try_from_secs_f64(self.per_minute).ok()?.as_millis();
        let ms = (needed * observations * 60_000 * 1_000).checked_div(seen * thousandths)?;
        u64::try_from(ms).ok()
    }

    /// The first gate that is broken, over all traffic or in a watched slice.
    pub fn breach(&self) -> Option<&GateEvidence> {
        self.gates.iter().find(|it| it.verdict == Verdict::Breach)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gate(samples: u64, samples_needed: Option<u64>) -> GateEvidence {
        GateEvidence {
            metric: Metric::JudgeScore,
            watched: String::new(),
            verdict: Verdict::Undecided,
            alarm_from_percent: 100,
            problem: String::new(),
            samples,
            samples_needed,
            primary: 0.9,
            candidate: 0.9,
            difference: 0.0,
            lower: -1.0,
            upper: 1.0,
            bound: 0.1,
            harm: 0.0,
            safe: 0.0,
            noise: None,
            basis: None,
            tiers: Vec::new(),
            fixed: None,
        }
    }

    #[test]
    fn a_gate_says_how_many_more_samples_it_needs_if_any() {
        let mut gate = gate(5, Some(10));
        assert!(gate.detail().ends_with("5 samples, about 10 more needed"));
        gate.samples_needed = Some(0);
        assert!(gate.detail().ends_with("5 samples"));
    }

    #[test]
    fn the_wait_for_a_gate_is_that_of_its_samples_at_the_rate_they_come() {
        // Every second request has been a sample: five more are ten requests, two a minute.
        let evidence = Evidence { pairs: 30, solos: 10, per_minute: 2.0, ..Evidence::default() };
        assert_eq!(evidence.wait_ms(&gate(20, Some(5))), Some(300_000));
        assert_eq!(evidence.wait_ms(&gate(20, None)), None);
        assert_eq!(evidence.wait_ms(&gate(0, Some(5))), None);
        let standing = Evidence { per_minute: f64::NAN, ..evidence };
        assert_eq!(standing.wait_ms(&gate(20, Some(5))), None);
    }
}
