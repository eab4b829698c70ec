//! The instrument for a share of calls: those that failed, broke off, declined.

use serde::{Deserialize, Serialize};

use crate::domain::{Better, Timestamp};

use super::{
    bet::Wealth,
    chances::Chances,
    float,
    gate::{Shown, Stream, Streams, Terms},
    interval::{Differences, Interval},
    noise::Reach,
    odds::{HarmPlan, Hit, Odds, SafePlan},
    weather::{Count, Weather},
};

/// Least rate the stakes reckon with.
const RATE_MIN: f64 = 1e-4;
/// Calls and hits the primary's rate begins with, before any is seen.
const CALLS_PRIOR: f64 = 500.0;
const HITS_PRIOR: f64 = 1.0;
/// Calls without a difference that the candidate's excess begins with.
const EXCESS_PRIOR: f64 = 20.0;
/// Shares are shown in percentage points.
const POINTS: f64 = 100.0;

/// Bets on whose calls are hits more often; a hit is what should not be.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Rate {
    pub(super) wealth: Wealth,
    terms: Terms,
    chances: Chances,
    /// How much more often the candidate may have a hit, 0 to 1; none where no gate is set.
    margin: Option<f64>,
    /// How much more often the primary's second calls have one, where the margin counts from
    /// there on.
    pub(super) noise: Option<Reach>,
    /// The primary's calls and hits in this attempt.
    pub(super) past: Count,
    pub(super) weather: Weather,
    plans: Option<Streams<(HarmPlan, SafePlan)>>,
    /// Since the last plan: the primary's, and calls of the candidate.
    fresh: (Count, u64),
    /// In this stage.
    primary: Count,
    candidate: Count,
    differences: Differences,
}

impl Rate {
    pub(super) fn new(terms: Terms) -> Self {
        Self {
            wealth: terms.wealth(),
            terms,
            chances: Chances::PAIRS,
            margin: None,
            noise: None,
            past: Count::default(),
            weather: Weather::default(),
            plans: None,
            fresh: Default::default(),
            primary: Count::default(),
            candidate: Count::default(),
            differences: Differences::default(),
        }
    }

    /// Begins a stage: the proof of safety and the counters start fresh.
    pub(super) fn enter(&mut self, at: Timestamp, margin: Option<f64>, chances: Chances) {
        self.wealth.renew_safe();
        self.weather.restart(at);
        (self.primary, self.candidate, self.fresh) = Default::default();
        self.differences = Differences::default();
        (self.margin, self.chances) = (margin, chances);
        self.plan(at);
    }

    /// Takes a request: whether each side that was seen had a hit.
    pub(super) fn observe(
        &mut self,
        stream: Stream,
        primary: Option<bool>,
        candidate: Option<bool>,
    ) {
        if let (Some(plans), Some(hit)) = (&self.plans, Hit::of(primary, candidate)) {
            let (harm, safe) = plans.of(stream);
            self.wealth.win(harm.gains(hit), safe.gains(hit));
        }
        for count in [&mut self.primary, &mut self.fresh.0] {
            count.see(primary);
        }
        // An outage is no rate to reckon with afterwards.
        if self.wealth.is_staked() {
            self.past.see(primary);
        }
        self.candidate.see(candidate);
        self.fresh.1 += u64::from(candidate.is_some());
        let hit = |side: Option<bool>| f64::from(u8::from(side == Some(true)));
        match stream {
            Stream::Drawn => {
                let difference = self.chances.difference(hit(primary), hit(candidate));
                self.differences.add(difference);
            }
            Stream::Paired => {
                let difference = (hit(candidate) - hit(primary)) / self.chances.spread();
                self.differences.add(difference);
            }
            // It may be far larger, so that the interval would have to be wider for all.
            Stream::Uncopied => {}
        }
    }

    /// Takes note of a candidate call that was made and whose end is not known: it may have
    /// been a hit, so it speaks against safety as one.
    pub(super) fn lose(&mut self) {
        if let Some(plans) = &self.plans {
            let (_, safe) = plans.of(self.chances.stream());
            self.wealth.lose_safe(safe.gains(Hit::CandidateOnly));
        }
    }

    /// Plans the next bets from the past alone.
    pub(super) fn plan(&mut self, at: Timestamp) {
        let (primary, candidate_calls) = std::mem::take(&mut self.fresh);
        self.weather.see(at, primary, candidate_calls);
        let Some(margin) = self.margin else {
            self.plans = None;
            return;
        };
        let base = self.rate();
        self.plans = Some(Streams::new(self.chances, |weight| {
            let inflation = self.weather.inflation(base, weight);
            let odds = |margin| Odds { base, margin, weight, inflation };
            match self.noise {
                None => {
                    let harm = HarmPlan::new(odds(margin), self.terms.alarm);
                    (harm, SafePlan::errors(base, margin, weight))
                }
                // Harm is what no noise can be, safety what margin and noise are known to allow.
                Some(Reach { likely, possible, .. }) => {
                    let most = (margin + possible).min(1.0);
                    let likely = likely.max(self.excess());
                    let safe = SafePlan::beyond(base, (likely, self.allowed(margin)), weight);
                    (HarmPlan::strict(odds(most), most), safe)
                }
            }
        }));
    }

    /// A margin from where the noise is proven to reach.
    fn allowed(&self, margin: f64) -> f64 {
        (margin + self.noise.map_or(0.0, |it| it.proven)).min(1.0)
    }

    /// How much more often the candidate has a hit in pairs, 0 to 1, as far as that is known.
    pub(super) fn reach(&self) -> Reach {
        Reach::of(self.candidate.share() - self.primary.share(), self.differences.interval())
    }

    /// How much more often the candidate had a hit in this stage, 0 to 1; less while that is one of
    /// few calls.
    fn excess(&self) -> f64 {
        let calls = float(self.candidate.calls);
        (self.candidate.share() - self.primary.share()) * calls / (calls + EXCESS_PRIOR)
    }

    /// The primary's rate, from the past alone.
    fn rate(&self) -> f64 {
        let Count { calls, hits } = self.past;
        ((float(hits) + HITS_PRIOR) / (float(calls) + CALLS_PRIOR)).max(RATE_MIN)
    }

    /// What is known, turned round for a rate that should be high.
    pub(super) fn shown(&self, better: Better) -> Shown {
        let scale = POINTS * self.chances.spread();
        let points = |it: Interval| Interval {
            lower: (it.lower * scale).max(-POINTS),
            upper: (it.upper * scale).min(POINTS),
        };
        let Interval { lower, upper } = points(self.differences.interval());
        let fixed = points(self.differences.fixed());
        let growth = self.plans.as_ref().map_or(0.0, |plans| {
            let rate = self.rate();
            let noise = self.noise.map_or(0.0, |it| it.likely.max(self.excess()));
            plans.of(self.chances.stream()).1.growth(rate, rate + noise)
        });
        let bound = self.margin.map_or(0.0, |it| self.allowed(it)) * POINTS;
        let samples = self.candidate.calls;
        let [primary, candidate] = [self.primary, self.candidate].map(|it| it.share() * POINTS);
        let shown = Shown {
            samples,
            samples_needed: self.wealth.samples_needed(samples, growth),
            primary,
            candidate,
            difference: candidate - primary,
            lower,
            upper,
            fixed: Some(fixed),
            bound,
            problem: None,
        };
        match better {
            Better::Lower => shown,
            Better::Higher => Shown {
                primary: POINTS - primary,
                candidate: POINTS - candidate,
                difference: primary - candidate,
                lower: -upper,
                upper: -lower,
                fixed: Some(Interval { lower: -fixed.upper, upper: -fixed.lower }),
                bound: -bound,
                ..shown
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis::{
        ledger::tests::reference_terms,
        tests::{Random, assert_near, list, number, sample, vectors},
    };

    #[test]
    fn wealth_is_that_of_the_reference() {
        let Some(vectors) = vectors() else { return };
        for case in list(&vectors["error_gate"]) {
            let mut gate = Rate::new(reference_terms());
            let chances =
                Chances { primary: 1.0, candidate: number(&case["W"]).recip(), ..Chances::PAIRS };
            gate.enter(Timestamp(0), Some(0.005), chances);
            gate.wealth.fund(0.4);
            let ticks = list(&case["ticks"]).iter().zip(list(&case["ln_e"]));
            for (second, (tick, expected)) in (1..).zip(ticks) {
                gate.wealth.fund(0.4 / 5.0 / 3_600.0);
                for pair in list(tick) {
                    let failed = |it| sample(it).map(|it| it.outcome.failed());
                    gate.observe(Stream::Drawn, failed(&pair[0]), failed(&pair[1]));
                }
                gate.plan(Timestamp(second * 1_000));
                assert_near(gate.wealth.ln_e()[0], &expected[0]);
                assert_near(gate.wealth.ln_e()[1], &expected[1]);
            }
        }
    }

    #[test]
    fn known_weather_makes_the_bets_on_harm_careful() {
        let gain = |variance_permille| {
            let mut gate = Rate::new(reference_terms());
            gate.enter(Timestamp(0), Some(0.005), Chances::PAIRS);
            gate.weather.tell(variance_permille);
            gate.wealth.fund(0.4);
            for second in 1..=10 {
                (0..100).for_each(|_| gate.observe(Stream::Paired, Some(false), Some(false)));
                gate.plan(Timestamp(second * 1_000));
            }
            let before = gate.wealth.ln_e()[0];
            gate.observe(Stream::Paired, Some(false), Some(true));
            gate.wealth.ln_e()[0] - before
        };
        assert!(0.0 < gain(2_000) && 2.0 * gain(2_000) < gain(0), "{} {}", gain(0), gain(2_000));
    }

    #[test]
    fn a_rate_is_never_reckoned_with_as_none() {
        let mut gate = Rate::new(reference_terms());
        assert!((gate.rate() - 0.002).abs() < 1e-12);
        gate.past = Count { calls: 500, hits: 9 };
        assert!((gate.rate() - 0.01).abs() < 1e-12);
        gate.past = Count { calls: 99_500, hits: 0 };
        assert!((gate.rate() - RATE_MIN).abs() < 1e-12);
    }

    #[test]
    fn the_interval_of_drawn_requests_is_in_points_and_holds_the_difference() {
        let mut random = Random(8);
        let mut gate = Rate::new(reference_terms());
        let chances = Chances { primary: 1.0, candidate: 0.25, ..Chances::PAIRS };
        gate.enter(Timestamp(0), Some(0.005), chances);
        let nothing = gate.shown(Better::Lower);
        assert!((nothing.lower + 100.0).abs() < 1e-9 && (nothing.upper - 100.0).abs() < 1e-9);
        for _ in 0..20_000 {
            let candidate = random.happens(chances.candidate).then(|| random.happens(0.3));
            gate.observe(Stream::Drawn, Some(random.happens(0.1)), candidate);
        }
        let Shown { lower, upper, bound, .. } = gate.shown(Better::Lower);
        assert!(lower < 20.0 && 20.0 < upper && upper - lower < 10.0, "{lower} {upper}");
        assert!((bound - 0.5).abs() < 1e-9);
    }

    #[test]
    fn a_rate_that_should_be_high_is_shown_as_it_is_read() {
        let mut gate = Rate::new(reference_terms());
        gate.enter(Timestamp(0), Some(0.005), Chances::PAIRS);
        for step in 0..1_000 {
            gate.observe(Stream::Paired, Some(false), Some(step % 10 == 0));
        }
        let shown = gate.shown(Better::Higher);
        assert!((shown.primary - 100.0).abs() < 1e-9 && (shown.candidate - 90.0).abs() < 1e-9);
        assert!((shown.difference + 10.0).abs() < 1e-9 && (shown.bound + 0.5).abs() < 1e-9);
        assert!(shown.lower < -10.0 && -10.0 < shown.upper && shown.upper < 0.0, "{shown:?}");
    }
}
