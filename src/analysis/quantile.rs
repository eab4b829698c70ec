//! The instrument for the 99th percentile of a time.

use serde::{Deserialize, Serialize};

use crate::domain::Timestamp;

use super::{
    QUANTILE, Timed,
    bet::Wealth,
    chances::Chances,
    float,
    gate::{Shown, Stream, Streams, Terms},
    histogram::Histogram,
    interval::p99_difference,
    noise::Reach,
    odds::{Alarm, HarmPlan, Hit, Odds, SafePlan},
    weather::{Count, Weather},
    whole,
};

/// Times of the primary that must be known in an attempt before anything is bet.
const WARM_UP: u64 = 500;
/// How often half of the primary's past is forgotten.
const HALVE_MS: u64 = 3_600_000;
/// Chance of a call above the primary's own 99th percentile.
const BEYOND: f64 = 0.01;
/// Share of calls above the primary's percentile, after a shift by the margin, from which
/// on harm is judged above the limit.
const SHIFTED_MAX: f64 = 0.04;

/// How much higher the candidate's 99th percentile may be; the larger one counts.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Margin {
    pub(super) ms: f64,
    /// Part of the primary's own: 0.1 is 10 %.
    pub(super) part: f64,
}

impl Margin {
    fn at(self, p99: f64) -> f64 {
        self.ms.max(self.part * p99)
    }
}

/// Bets on who is slow more often: the primary above its own running 99th percentile, or
/// the candidate above that, for safety plus the margin. Any threshold from the past is fair.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Quantile {
    pub(super) wealth: Wealth,
    terms: Terms,
    chances: Chances,
    margin: Option<Margin>,
    /// How much higher the primary's is for its second calls, in milliseconds, where the margin
    /// counts from there on.
    pub(super) noise: Option<Reach>,
    /// The primary's times in this attempt, old hours aged, and how many there were.
    history: Histogram,
    seen: u64,
    halved_at_ms: u64,
    pub(super) weather: Weather,
    plan: Option<Plan>,
    /// Since the last plan: the primary's, and calls of the candidate.
    fresh: (Count, u64),
    /// In this stage.
    bets: u64,
    primary: Histogram,
    candidate: Histogram,
}

/// What is bet until the next plan, and at which times.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Plan {
    /// The primary's percentile.
    p99_ms: f64,
    /// Above this the candidate's calls speak for harm.
    alarm_ms: f64,
    /// Above this they speak against safety: the percentile plus the margin.
    limit_ms: f64,
    /// The primary's share of calls above the limit.
    beyond: f64,
    bets: Streams<(HarmPlan, SafePlan)>,
}

impl Quantile {
    pub(super) fn new(terms: Terms) -> Self {
        Self {
            wealth: terms.wealth(),
            terms,
            chances: Chances::PAIRS,
            margin: None,
            noise: None,
            history: Histogram::default(),
            seen: 0,
            halved_at_ms: 0,
            weather: Weather::default(),
            plan: None,
            fresh: Default::default(),
            bets: 0,
            primary: Histogram::default(),
            candidate: Histogram::default(),
        }
    }

    /// Begins a stage: the proof of safety and the counters start fresh.
    pub(super) fn enter(&mut self, at: Timestamp, margin: Option<Margin>, chances: Chances) {
        self.wealth.renew_safe();
        self.weather.restart(at);
        (self.fresh, self.bets) = Default::default();
        (self.primary, self.candidate) = (Histogram::default(), Histogram::default());
        (self.margin, self.chances) = (margin, chances);
        self.plan(at);
    }

    /// Begins with what is known of the primary; says whether that is enough to bet by.
    pub(super) fn know(&mut self, past: &Histogram) -> bool {
        self.history = past.clone();
        self.seen = whole(past.total());
        WARM_UP <= self.seen
    }

    /// Takes a request: the time of each side that was seen.
    pub(super) fn observe(
        &mut self,
        stream: Stream,
        primary: Option<Timed>,
        candidate: Option<Timed>,
    ) {
        if let Some(plan) = &self.plan {
            let above = |side: Option<Timed>, ms: f64| side.map(|it| it.exceeds(ms));
            let (harm, safe) = plan.bets.of(stream);
            let slow = above(primary, plan.p99_ms);
            let harm = Hit::of(slow, above(candidate, plan.alarm_ms))
                .filter(|_| plan.alarm_ms.is_finite())
                .map(|hit| harm.gains(hit));
            let safe = Hit::of(slow, above(candidate, plan.limit_ms)).map(|hit| safe.gains(hit));
            self.wealth.win(harm.unwrap_or_default(), safe.unwrap_or_default());
            self.fresh.0.see(slow);
            self.fresh.1 += u64::from(candidate.is_some());
            self.bets += u64::from(candidate.is_some());
        }
        if let Some(timed) = primary {
            self.history.add(timed.ms());
            self.primary.add(timed.ms());
            self.seen += 1;
        }
        if let Some(timed) = candidate {
            self.candidate.add(timed.ms());
        }
    }

    /// Takes note of a candidate call that was made and whose end is not known: it may have
    /// been slower than any limit.
    pub(super) fn lose(&mut self) {
        if let Some(plan) = &self.plan {
            let (_, safe) = plan.bets.of(self.chances.stream());
            self.wealth.lose_safe(safe.gains(Hit::CandidateOnly));
        }
    }

    /// Plans the next bets from the past alone.
    pub(super) fn plan(&mut self, at: Timestamp) {
        let (primary, candidate_calls) = std::mem::take(&mut self.fresh);
        self.weather.see(at, primary, candidate_calls);
        self.forget(at);
        self.plan = if self.seen < WARM_UP { None } else { self.prospect() };
    }

    /// Forgets half of the past every hour, but never so much that too little is left.
    fn forget(&mut self, now: Timestamp) {
        if HALVE_MS <= now.0.saturating_sub(self.halved_at_ms) {
            self.halved_at_ms = now.0;
            if 2.0 * float(WARM_UP) <= self.history.total() {
                self.history.halve();
            }
        }
    }

    /// Goes on by a clock that was set back by so much.
    pub(super) fn set_back(&mut self, ms: u64) {
        self.halved_at_ms = self.halved_at_ms.saturating_sub(ms);
        self.weather.set_back(ms);
    }

    /// What would be bet by what is known so far.
    ///
    /// Harm is a shift by more than the alarm, seen above the percentile itself. In the strict
    /// mode, and where the primary is so even that a shift by the margin lifts a good part of
    /// all calls above it, harm is judged above the limit instead: a few per cent of calls
    /// that hang are then as clear as a shift. The candidate may be above the limit as often
    /// as the primary above its percentile, so the null holds by itself.
    fn prospect(&self) -> Option<Plan> {
        let p99_ms = self.history.quantile(QUANTILE);
        let margin_ms = self.allowed_ms(p99_ms)?;
        let limit_ms = p99_ms + margin_ms;
        let shifted = self.history.above(p99_ms - margin_ms).clamp(1.01 * BEYOND, 0.5);
        let (shift, alarm_ms) = match (self.terms.alarm, self.noise) {
            // Harm is what no noise can be.
            (_, Some(noise)) => (None, limit_ms - noise.proven + noise.possible),
            (alarm @ Alarm::From { .. }, None) if shifted < SHIFTED_MAX => (Some(alarm), p99_ms),
            (Alarm::From { .. } | Alarm::AtMargin, None) => (None, limit_ms),
        };
        let likely_ms = self.noise.map_or(0.0, |it| it.likely);
        let beyond = self.history.above(limit_ms - likely_ms).max(1e-5);
        let bets = Streams::new(self.chances, |weight| {
            let inflation = self.weather.inflation(BEYOND, weight);
            let odds = |margin| Odds { base: BEYOND, margin, weight, inflation };
            let harm = match shift {
                Some(alarm) => HarmPlan::new(odds(shifted - BEYOND), alarm),
                None => HarmPlan::strict(odds(BEYOND), 0.0),
            };
            (harm, SafePlan::latency(BEYOND, beyond, weight))
        });
        Some(Plan { p99_ms, alarm_ms, limit_ms, beyond, bets })
    }

    /// The margin at a percentile, from where the noise is proven to reach.
    fn allowed_ms(&self, p99_ms: f64) -> Option<f64> {
        self.margin.map(|it| it.at(p99_ms) + self.noise.map_or(0.0, |it| it.proven))
    }

    /// How many milliseconds the candidate's percentile is higher, as far as that is known.
    pub(super) fn reach(&self) -> Reach {
        let [primary, candidate] = [&self.primary, &self.candidate].map(|it| it.quantile(QUANTILE));
        Reach::of(candidate - primary, p99_difference(&self.primary, &self.candidate))
    }

    pub(super) fn shown(&self) -> Shown {
        let interval = p99_difference(&self.primary, &self.candidate);
        let running = self.history.quantile(QUANTILE);
        let growth = self
            .prospect()
            .map_or(0.0, |plan| plan.bets.of(self.chances.stream()).1.growth(BEYOND, plan.beyond));
        // The primary's calls warm it up; each candidate call comes with some of them.
        let warm_up = float(WARM_UP.saturating_sub(self.seen)) / self.chances.weight().max(1.0);
        let needed = self.wealth.samples_needed(self.bets, growth);
        let samples_needed = needed.map(|samples| samples + whole(warm_up.ceil()));
        let [primary, candidate] = [&self.primary, &self.candidate].map(|it| it.quantile(QUANTILE));
        Shown {
            samples: whole(self.candidate.total()),
            samples_needed,
            primary,
            candidate,
            difference: candidate - primary,
            lower: interval.lower,
            upper: interval.upper,
            fixed: None,
            bound: self.allowed_ms(running).unwrap_or_default(),
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
    use crate::domain::Verdict;

    const MARGIN: Option<Margin> = Some(Margin { ms: 200.0, part: 0.0 });

    #[test]
    fn wealth_is_that_of_the_reference() {
        let Some(vectors) = vectors() else { return };
        for case in list(&vectors["p99_gate"]) {
            let mut gate = Quantile::new(reference_terms());
            let chances =
                Chances { primary: 1.0, candidate: number(&case["W"]).recip(), ..Chances::PAIRS };
            gate.enter(Timestamp(0), MARGIN, chances);
            gate.wealth.fund(0.4);
            let ticks = list(&case["ticks"]).iter().zip(list(&case["ln_e"]));
            for (second, (tick, expected)) in (1..).zip(ticks) {
                gate.wealth.fund(0.4 / 5.0 / 3_600.0);
                for pair in list(tick) {
                    let time = |it| sample(it).and_then(|it| it.latency());
                    gate.observe(Stream::Drawn, time(&pair[0]), time(&pair[1]));
                }
                gate.plan(Timestamp(second * 1_000));
                assert_near(gate.wealth.ln_e()[0], &expected[0]);
                assert_near(gate.wealth.ln_e()[1], &expected[1]);
            }
        }
    }

    #[test]
    fn a_timeout_is_slower_than_any_limit() {
        let mut gate = Quantile::new(reference_terms());
        gate.enter(Timestamp(0), MARGIN, Chances::PAIRS);
        gate.wealth.fund(0.4);
        let fast = Some(Timed::Seen(100.0));
        for step in 0..800 {
            let late = Some(Timed::Censored(50.0));
            gate.observe(Stream::Paired, fast, if step % 4 == 0 { late } else { fast });
            gate.plan(Timestamp(step));
        }
        assert_eq!(gate.wealth.verdict(), Verdict::Breach);
    }

    #[test]
    fn a_lost_call_speaks_against_safety_like_one_above_the_limit() {
        let mut gate = Quantile::new(reference_terms());
        gate.enter(Timestamp(0), MARGIN, Chances::PAIRS);
        for step in 0..600 {
            let call = Some(Timed::Seen(100.0 + f64::from(step % 50)));
            gate.observe(Stream::Paired, call, call);
        }
        gate.plan(Timestamp(1_000));
        let mut late = gate.clone();
        gate.lose();
        late.observe(Stream::Paired, Some(Timed::Seen(100.0)), Some(Timed::Censored(1.0)));
        let safe = |it: &Quantile| format!("{:.9}", it.wealth.ln_e()[1]);
        assert!(gate.wealth.ln_e()[1] < 0.0 && safe(&gate) == safe(&late), "{}", safe(&gate));
    }

    #[test]
    fn known_weather_makes_the_bets_on_harm_careful() {
        let gain = |variance_permille| {
            let mut gate = Quantile::new(reference_terms());
            gate.enter(Timestamp(0), MARGIN, Chances::PAIRS);
            gate.weather.tell(variance_permille);
            let (call, late) = (Some(Timed::Seen(100.0)), Some(Timed::Censored(1.0)));
            gate.wealth.fund(0.4);
            for second in 1..=10 {
                (0..100).for_each(|_| gate.observe(Stream::Paired, call, call));
                gate.plan(Timestamp(second * 1_000));
            }
            let before = gate.wealth.ln_e()[0];
            gate.observe(Stream::Paired, call, late);
            gate.wealth.ln_e()[0] - before
        };
        assert!(0.0 < gain(2_000) && 2.0 * gain(2_000) < gain(0), "{} {}", gain(0), gain(2_000));
    }

    /// Each candidate call comes with as many of the primary's as it weighs.
    #[test]
    fn calls_that_are_needed_before_the_first_bet_are_needed_too() {
        for (candidate, fewer) in [(1.0, 100), (0.05, 5)] {
            let mut gate = Quantile::new(reference_terms());
            gate.enter(Timestamp(0), MARGIN, Chances { primary: 1.0, candidate, ..Chances::PAIRS });
            let mut needed = || {
                for _ in 0..100 {
                    gate.observe(Stream::Drawn, Some(Timed::Seen(100.0)), None);
                }
                gate.plan(Timestamp(0));
                gate.shown().samples_needed.unwrap()
            };
            let needed: Vec<u64> = (0..6).map(|_| needed()).collect();
            let after = |hundreds: u64| needed[5] + fewer * (5 - hundreds);
            assert_eq!(needed, [after(1), after(2), after(3), after(4), after(5), after(5)]);
        }
    }

    /// One call in a hundred of the primary is above its percentile, and none above the limit.
    #[test]
    fn what_was_bet_on_and_what_is_needed_come_to_about_what_was_needed_at_first() {
        let mut gate = Quantile::new(reference_terms());
        gate.enter(Timestamp(0), MARGIN, Chances::PAIRS);
        let mut needed_after = |pairs: u32| {
            for step in 0..pairs {
                let call = Some(Timed::Seen(100.0 + f64::from(51 * step % 1_000) / 10.0));
                gate.observe(Stream::Paired, call, call);
            }
            gate.plan(Timestamp(0));
            float(gate.shown().samples_needed.unwrap())
        };
        let (first, later) = (needed_after(1_000), needed_after(200));
        assert!(first < 200.0 + later && later < first, "{first} {later}");
    }

    #[test]
    fn percentiles_are_shown_with_their_difference_and_the_larger_margin() {
        let margin = Some(Margin { ms: 20.0, part: 0.1 });
        let mut gate = Quantile::new(reference_terms());
        gate.enter(Timestamp(0), margin, Chances::PAIRS);
        for step in 0..20_000 {
            let late = if step % 50 == 0 { 9.0 } else { 1.0 };
            let times = [100.0, 150.0].map(|ms| Some(Timed::Seen(late * ms)));
            gate.observe(Stream::Paired, times[0], times[1]);
        }
        let shown = gate.shown();
        assert_eq!(shown.samples, 20_000);
        for (value, expected) in [
            (shown.primary, 900.0),
            (shown.candidate, 1_350.0),
            (shown.difference, 450.0),
            (shown.bound, 90.0),
        ] {
            assert!((value - expected).abs() < 0.04 * expected, "{value}, not {expected}");
        }
        assert!(shown.lower < 450.0 && 400.0 < shown.lower, "{shown:?}");
        assert!(450.0 < shown.upper && shown.upper < 500.0, "{shown:?}");
    }

    #[test]
    fn slow_traffic_keeps_a_usable_past() {
        let mut gate = Quantile::new(reference_terms());
        gate.enter(Timestamp(0), MARGIN, Chances::PAIRS);
        for hour in 0..100 {
            for _ in 0..10 {
                let call = Some(Timed::Seen(100.0));
                gate.observe(Stream::Paired, call, call);
            }
            gate.plan(Timestamp(hour * HALVE_MS));
        }
        assert!(gate.plan.is_some());
        assert!(float(WARM_UP) <= gate.history.total());
    }
}
