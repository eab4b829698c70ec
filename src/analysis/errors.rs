//! The gate on error rates.

use crate::domain::Timestamp;

use super::{
    Sample,
    bet::Wealth,
    float,
    gate::{Shown, Terms},
    interval::Differences,
    odds::{Alarm, HarmPlan, Hits, Odds, SafePlan},
    weather::Weather,
};

/// Least error rate the stakes reckon with.
const RATE_MIN: f64 = 1e-4;
/// Calls and failures the primary's rate begins with, before any is seen.
const CALLS_PRIOR: f64 = 500.0;
const FAILURES_PRIOR: f64 = 1.0;
/// Shares are shown in percentage points.
const POINTS: f64 = 100.0;

/// Bets on who fails more.
#[derive(Clone, Debug)]
pub(super) struct Errors {
    pub(super) wealth: Wealth,
    terms: Terms,
    /// How much more often the candidate may fail, 0 to 1; none where the gate is not set.
    margin: Option<f64>,
    /// The primary's calls and failures in this attempt.
    calls: u64,
    failures: u64,
    weather: Weather,
    plan: Option<(HarmPlan, SafePlan)>,
    /// Since the last tick.
    hits: Hits,
    /// In this stage.
    pairs: u64,
    failed: (u64, u64),
    both_failed: u64,
}

impl Errors {
    pub(super) fn new(terms: Terms) -> Self {
        Self {
            wealth: Wealth::new(terms.limits),
            terms,
            margin: None,
            calls: 0,
            failures: 0,
            weather: Weather::default(),
            plan: None,
            hits: Hits::default(),
            pairs: 0,
            failed: (0, 0),
            both_failed: 0,
        }
    }

    /// Begins a stage: the proof of safety and the counters start fresh.
    pub(super) fn enter(&mut self, at: Timestamp, margin: Option<f64>) {
        self.wealth.renew_safe();
        self.weather.restart(at);
        (self.hits, self.pairs, self.failed, self.both_failed) = (Hits::default(), 0, (0, 0), 0);
        self.margin = margin;
        self.plan = self.plan();
    }

    pub(super) fn observe(&mut self, primary: Option<Sample>, candidate: Option<Sample>) {
        self.hits.see(primary.map(Sample::failed), candidate.map(Sample::failed));
        self.calls += u64::from(primary.is_some());
        self.failures += u64::from(primary.is_some_and(Sample::failed));
    }

    /// Settles the bets on what came since the last tick, and plans the next ones.
    pub(super) fn tick(&mut self, now: Timestamp) {
        let hits = std::mem::take(&mut self.hits);
        self.weather.see(now, hits.primary(), hits.calls);
        if let Some((harm, safe)) = &self.plan {
            self.wealth.win(harm.gains(&hits), safe.gains(&hits));
        }
        self.pairs += u64::from(hits.calls);
        self.failed.0 += u64::from(hits.primary_only + hits.both);
        self.failed.1 += u64::from(hits.candidate_only + hits.both);
        self.both_failed += u64::from(hits.both);
        self.plan = self.plan();
    }

    fn plan(&self) -> Option<(HarmPlan, SafePlan)> {
        let (margin, weight) = (self.margin?, self.terms.weight);
        let base = self.rate();
        let allowed = match self.terms.alarm {
            Alarm::From { .. } => 0.0,
            Alarm::AtMargin => margin,
        };
        let inflation = self.weather.inflation(base, weight);
        let odds = Odds { base, margin, allowed, weight, inflation };
        let safe = SafePlan::errors(base, margin, weight);
        Some((HarmPlan::new(odds, self.terms.alarm), safe))
    }

    /// The primary's error rate, from the past alone.
    fn rate(&self) -> f64 {
        let failures = float(self.failures) + FAILURES_PRIOR;
        (failures / (float(self.calls) + CALLS_PRIOR)).max(RATE_MIN)
    }

    pub(super) fn shown(&self) -> Shown {
        let (primary, candidate) = (float(self.failed.0), float(self.failed.1));
        let differences = Differences {
            count: self.pairs,
            sum: candidate - primary,
            squares: candidate + primary - 2.0 * float(self.both_failed),
        };
        let interval = differences.interval();
        let points = POINTS / float(self.pairs.max(1));
        let growth = self.plan.as_ref().map_or(0.0, |(_, safe)| {
            let rate = self.rate();
            safe.growth(rate, rate)
        });
        Shown {
            samples: self.pairs,
            samples_needed: self.wealth.samples_needed(self.pairs, growth),
            primary: primary * points,
            candidate: candidate * points,
            lower: interval.lower * POINTS,
            upper: interval.upper * POINTS,
            bound: self.margin.unwrap_or_default() * POINTS,
            problem: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis::{
        ledger::tests::reference_terms,
        tests::{assert_near, list, number, sample, vectors},
    };

    #[test]
    fn wealth_is_that_of_the_reference() {
        let Some(vectors) = vectors() else { return };
        for case in list(&vectors["error_gate"]) {
            let mut gate = Errors::new(reference_terms(number(&case["W"])));
            gate.enter(Timestamp(0), Some(0.005));
            gate.wealth.fund(0.4);
            let ticks = list(&case["ticks"]).iter().zip(list(&case["ln_e"]));
            for (second, (tick, expected)) in (1..).zip(ticks) {
                for pair in list(tick) {
                    gate.observe(sample(&pair[0]), sample(&pair[1]));
                }
                gate.wealth.fund(0.4 / 5.0 / 3_600.0);
                gate.tick(Timestamp(second * 1_000));
                assert_near(gate.wealth.ln_e()[0], &expected[0]);
                assert_near(gate.wealth.ln_e()[1], &expected[1]);
            }
        }
    }
}
