//! Noise: what the primary shows against itself, read off the instruments of the gates.
//!
//! Each gate has a second instrument, which gets the primary's call that a caller saw as the
//! primary's, and its second call as the candidate's. So a difference and its noise are read alike.
//! Nothing is decided by it, but that a margin may count from there on.

use serde::{Deserialize, Serialize};

use crate::domain::{Kind, Metric, Noise, Share, Timestamp};

use super::{
    Observation,
    chances::Chances,
    gate::Stream,
    instrument::Instrument,
    interval::Interval,
    ledger::{Ledger, Measured},
};

/// How far the noise of a metric reaches, as a margin is counted: none is below 0.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Reach {
    /// It is proven to reach this far: what is safe may count from here on.
    pub(super) proven: f64,
    /// What it seems to be, for stakes that win.
    pub(super) likely: f64,
    /// It may reach this far: what is harm has to begin behind.
    pub(super) possible: f64,
}

impl Reach {
    /// There is none to count from.
    pub(super) const NONE: Self = Self { proven: 0.0, likely: 0.0, possible: 0.0 };
    /// Nothing is known.
    pub(super) const UNKNOWN: Self = Self { proven: 0.0, likely: 0.0, possible: f64::INFINITY };

    pub(super) fn of(difference: f64, Interval { lower, upper }: Interval) -> Self {
        let [proven, likely, possible] = [lower, difference, upper].map(|it| it.max(0.0));
        Self { proven, likely, possible }
    }
}

impl Ledger {
    /// Takes both calls of a request that the primary was asked twice.
    pub(super) fn observe_noise(&mut self, at: Timestamp, seen: &Observation) {
        let at = self.pass(at);
        let sides = (seen.primary, seen.candidate);
        if ![sides.0, sides.1].iter().all(|it| it.is_some_and(|it| it.outcome.counts())) {
            return;
        }
        if self.state.noise.is_empty() {
            self.state.noise = self.silence(at);
        }
        let place = self.place(&seen.watched);
        let all = self.measured.iter().zip(&mut self.state.noise);
        for (measured, instrument) in all.filter(|(measured, _)| measured.takes(place)) {
            instrument.observe(measured.metric, Stream::Paired, sides);
        }
    }

    /// Instruments that have heard nothing yet, one for each that measures the candidate.
    fn silence(&self, at: Timestamp) -> Vec<Instrument> {
        let made = self.measured.iter().map(|measured| {
            let mut instrument = Instrument::new(measured.metric, self.terms);
            // Only amounts need terms to be taken at all.
            let ratio = measured.metric.kind() == Kind::Ratio;
            let gate = self.gates().iter().find(|it| ratio && it.metric() == measured.metric);
            instrument.enter(at, gate.map(|it| it.margin), Chances::PAIRS);
            instrument
        });
        made.collect()
    }

    /// What is known of the noise in the watched slice of this place, or over all traffic.
    pub(super) fn noise(&self, metric: Metric, watched: Option<usize>) -> Option<Noise> {
        let wanted = Measured { metric, watched };
        let mut all = self.measured.iter().zip(&self.state.noise);
        let shown = all.find(|(it, _)| **it == wanted)?.1.shown(metric);
        (0 < shown.samples).then_some(Noise {
            samples: shown.samples,
            difference: shown.difference,
            lower: shown.lower,
            upper: shown.upper,
        })
    }

    /// Lets margins that count from the noise on begin where it reaches, as far as that is known.
    ///
    /// Noise that is not proven makes nothing safe, and noise that may be makes nothing harm. What
    /// is known comes from the past alone, so every bet stays fair or worse for a candidate that
    /// differs from the primary as the primary does from itself, and by the margin besides, unless
    /// the interval misses: in a stage with a chance of 2.5 % on either side.
    pub(super) fn widen(&mut self) {
        let serve = self.stage().map_or(Share::ALL, |it| it.serve);
        let beyond = |metric: Metric| {
            let margins = self.gates().iter().map(|it| it.margin.served(serve));
            margins.filter(|it| it.is_beyond_noise()).any(|it| it.metric() == metric)
        };
        let beyond: Vec<bool> = self.measured.iter().map(|it| beyond(it.metric)).collect();
        let both = self.state.instruments.iter_mut().zip(&self.state.noise);
        for ((instrument, noise), _) in both.zip(beyond).filter(|(_, beyond)| *beyond) {
            instrument.widen(noise);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis::{
        Sample,
        ledger::tests::plan,
        tests::{Random, call},
    };
    use crate::domain::{Margin, Mark, Outcome, Plan, Verdict, Watched};

    fn twice(served: Sample, again: Sample, watched: &str) -> Observation {
        let (primary, candidate) = (Some(served), Some(again));
        Observation { lot: None, primary, candidate, watched: watched.to_owned() }
    }

    fn entered(plan: &Plan, stage: usize) -> Ledger {
        let mut ledger = Ledger::new(plan);
        ledger.enter(stage, Timestamp(0), Chances::of(&plan.stages[stage]));
        ledger
    }

    /// The gates of the default ladder, and these margins in place of theirs.
    fn with_margin(metric: Metric, text: &str) -> Plan {
        let mut plan = plan(&[metric]);
        for gate in plan.stages.iter_mut().flat_map(|it| &mut it.gates) {
            gate.margin = Margin::parse(metric, text).unwrap();
        }
        plan
    }

    /// M16
    #[test]
    fn the_primary_is_shown_against_itself_beside_each_difference() {
        let mut plan = plan(&Metric::ALL);
        plan.watched = Some(Watched { by: Mark::Task, values: vec!["tools".to_owned()] });
        let mut ledger = entered(&plan, 0);
        assert!(ledger.evidence().gates.iter().all(|it| it.noise.is_none()));
        let answered = |ms| Sample {
            output_tokens: Some(40),
            usd: Some(0.25),
            answer_chars: Some(160),
            ..call(Outcome::Ok, ms)
        };
        for step in 0..400_u64 {
            let watched = if step % 4 == 0 { "tools" } else { "" };
            let failed = call(Outcome::ProviderError, 900.0);
            let again = if step % 8 == 0 { failed } else { answered(900.0) };
            ledger.observe_noise(Timestamp(step), &twice(answered(800.0), again, watched));
            // Throttled calls say nothing, here as elsewhere.
            let throttled = twice(answered(800.0), call(Outcome::Throttled, 1.0), watched);
            ledger.observe_noise(Timestamp(step), &throttled);
        }
        let evidence = ledger.evidence();
        assert_eq!((evidence.pairs, evidence.breach()), (0, None));
        let shown = |metric: Metric, slice: &str| {
            let gate =
                |it: &&crate::domain::GateEvidence| it.metric == metric && it.watched == slice;
            evidence.gates.iter().find(gate).unwrap().noise
        };
        let errors = shown(Metric::ErrorRate, "").unwrap();
        assert_eq!((errors.samples, errors.difference.to_string()), (400, "12.5".to_owned()));
        assert!(0.0 < errors.lower && errors.upper < 30.0, "{errors:?}");
        let tools = shown(Metric::ErrorRate, "tools").unwrap();
        assert_eq!((tools.samples, tools.difference.to_string()), (100, "50".to_owned()));
        let slower = shown(Metric::LatencyP99, "").unwrap();
        assert!((90.0..110.0).contains(&slower.difference), "{slower:?}");
        let cost = shown(Metric::Cost, "").unwrap();
        assert_eq!((cost.samples, cost.difference.to_string()), (350, "100".to_owned()));
        assert_eq!(shown(Metric::JudgeScore, ""), None);
        let mut again = Ledger::new(&plan);
        assert!(again.decode(Timestamp(u64::MAX), &ledger.encode()));
        assert_eq!(again.evidence(), evidence);
        ledger.enter(1, Timestamp(500), Chances::of(&plan.stages[1]));
        assert!(ledger.evidence().gates.iter().all(|it| it.noise.is_none()));
    }

    /// A ledger after requests of which the primary failed 1 %, its second calls `more`.
    fn noisy(ledger: &mut Ledger, seed: u64, more: f64, requests: u64) {
        let mut random = Random(seed);
        for step in 0..requests {
            let noise = twice(random.call(0.01, 1.0), random.call(0.01 + more, 1.3), "");
            ledger.observe_noise(Timestamp(step * 100), &noise);
        }
    }

    /// M16
    #[test]
    fn a_margin_beyond_noise_counts_from_there_on_where_nothing_is_served() {
        let bound = |stage: usize, (metric, text): (Metric, &str)| {
            let mut ledger = entered(&with_margin(metric, text), stage);
            for step in 0..600_u64 {
                let pair = twice(call(Outcome::Ok, 1_000.0), call(Outcome::Ok, 1_000.0), "");
                ledger.observe(Timestamp(step), &pair);
            }
            noisy(&mut ledger, 7, 0.05, 4_000);
            let gate = ledger.evidence().gates.remove(0);
            (gate.bound, gate.noise.unwrap())
        };
        let (errors, noise) = bound(0, (Metric::ErrorRate, "+0.5pp beyond noise"));
        assert!(1.5 < errors && errors < 0.5 + noise.lower + 0.1, "{errors} {noise:?}");
        let (valid, _) = bound(0, (Metric::TruncatedRate, "+0.5pp beyond noise"));
        assert!((valid - 0.5).abs() < 1e-9, "what is not proven adds nothing: {valid}");
        let (latency, noise) = bound(0, (Metric::LatencyP99, "+200ms beyond noise"));
        assert!(250.0 < latency && latency < 201.0 + noise.lower, "{latency} {noise:?}");
        for (stage, text) in [(0, "+0.5pp"), (1, "+0.5pp beyond noise")] {
            let (plain, _) = bound(stage, (Metric::ErrorRate, text));
            assert!((plain - 0.5).abs() < 1e-9, "stage {stage}, {text}: {plain}");
        }
    }

    /// Plays candidates that fail so much more often than the primary, whose second calls fail
    /// 3 points more often. How many of twelve were proven safe, and how many harmful.
    fn play(worse: f64, text: &str) -> (u32, u32) {
        let plan = with_margin(Metric::ErrorRate, text);
        let (mut safe, mut harmful) = (0, 0);
        for seed in 1..13 {
            let (mut ledger, mut random) = (entered(&plan, 0), Random(seed));
            for step in 0..9_000_u64 {
                let at = Timestamp(step * 100);
                let noise = twice(random.call(0.02, 1.0), random.call(0.05, 1.0), "");
                ledger.observe_noise(at, &noise);
                let pair = twice(random.call(0.02, 1.0), random.call(0.02 + worse, 1.0), "");
                ledger.observe(at, &pair);
                let verdict = ledger.verdict_of(Metric::ErrorRate);
                safe += u32::from(verdict == Verdict::Pass);
                harmful += u32::from(verdict == Verdict::Breach);
                if verdict != Verdict::Undecided {
                    break;
                }
            }
        }
        (safe, harmful)
    }

    /// M16
    #[test]
    fn beyond_noise_a_candidate_like_the_primary_passes_and_one_that_is_worse_does_not() {
        let beyond = "+3pp beyond noise";
        let (safe, harmful) = play(0.03, beyond);
        assert!(7 <= safe && harmful <= 1, "like the primary itself: {safe} {harmful}");
        let (safe, harmful) = play(0.06, beyond);
        assert!(safe <= 2 && harmful <= 1, "worse by the margin: {safe} {harmful}");
        let (safe, harmful) = play(0.15, beyond);
        assert!(safe == 0 && 11 <= harmful, "worse by far: {safe} {harmful}");
        let (safe, _) = play(0.03, "+3pp");
        assert!(safe <= 2, "like the primary itself, without a word of noise: {safe}");
    }

    impl Ledger {
        /// The verdict of the only gate, without its numbers.
        fn verdict_of(&self, metric: Metric) -> Verdict {
            if self.is_broken() {
                Verdict::Breach
            } else if self.unproven().any(|it| it == metric) {
                Verdict::Undecided
            } else {
                Verdict::Pass
            }
        }
    }
}
