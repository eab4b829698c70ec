//! The gate on the 99th percentile of latency.

use crate::domain::Timestamp;

use super::{
    QUANTILE, Sample,
    bet::Wealth,
    float,
    gate::{Shown, Terms},
    histogram::Histogram,
    interval::p99_difference,
    odds::{Alarm, HarmPlan, Hits, Odds, SafePlan},
    weather::Weather,
    whole,
};

/// Latencies of the primary that must be known in an attempt before anything is bet.
const WARM_UP: u64 = 500;
/// How often half of the primary's past is forgotten.
const HALVE_MS: u64 = 3_600_000;
/// Chance of a call above the primary's own 99th percentile.
const BEYOND: f64 = 0.01;
/// Share of calls above the primary's percentile, after a shift by the margin, from which
/// on harm is judged above the limit.
const SHIFTED_MAX: f64 = 0.04;

/// How much higher the candidate's 99th percentile may be; the larger one counts.
#[derive(Clone, Copy, Debug)]
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
#[derive(Clone, Debug)]
pub(super) struct Latency {
    pub(super) wealth: Wealth,
    terms: Terms,
    margin: Option<Margin>,
    /// The primary's latencies in this attempt, old hours aged, and how many there were.
    history: Histogram,
    seen: u64,
    halved_at: Timestamp,
    weather: Weather,
    plan: Option<Plan>,
    /// Since the last tick: what speaks for harm, and what speaks against safety.
    slow: Hits,
    too_slow: Hits,
    /// In this stage.
    bets: u64,
    primary: Histogram,
    candidate: Histogram,
}

/// What is bet until the next tick, and at which latencies.
#[derive(Clone, Copy, Debug)]
struct Plan {
    /// The primary's percentile.
    p99_ms: f64,
    /// Above this the candidate's calls speak for harm.
    alarm_ms: f64,
    /// Above this they speak against safety: the percentile plus the margin.
    limit_ms: f64,
    harm: HarmPlan,
    safe: SafePlan,
    growth: f64,
}

impl Latency {
    pub(super) fn new(terms: Terms) -> Self {
        Self {
            wealth: Wealth::new(terms.limits),
            terms,
            margin: None,
            history: Histogram::default(),
            seen: 0,
            halved_at: Timestamp(0),
            weather: Weather::default(),
            plan: None,
            slow: Hits::default(),
            too_slow: Hits::default(),
            bets: 0,
            primary: Histogram::default(),
            candidate: Histogram::default(),
        }
    }

    /// Begins a stage: the proof of safety and the counters start fresh.
    pub(super) fn enter(&mut self, at: Timestamp, margin: Option<Margin>) {
        self.wealth.renew_safe();
        self.weather.restart(at);
        (self.slow, self.too_slow, self.bets) = (Hits::default(), Hits::default(), 0);
        (self.primary, self.candidate) = (Histogram::default(), Histogram::default());
        self.margin = margin;
        self.plan = self.plan();
    }

    pub(super) fn observe(&mut self, primary: Option<Sample>, candidate: Option<Sample>) {
        let timed = |it: &Sample| it.latency_ms().is_some();
        let (primary, candidate) = (primary.filter(timed), candidate.filter(timed));
        if let Some(plan) = &self.plan {
            let exceeds = |ms_max| move |it: Sample| it.exceeds(ms_max);
            let primary = primary.map(exceeds(plan.p99_ms));
            self.slow.see(primary, candidate.map(exceeds(plan.alarm_ms)));
            self.too_slow.see(primary, candidate.map(exceeds(plan.limit_ms)));
        }
        if let Some(ms) = primary.and_then(Sample::latency_ms) {
            self.history.add(ms);
            self.primary.add(ms);
            self.seen += 1;
        }
        if let Some(ms) = candidate.and_then(Sample::latency_ms) {
            self.candidate.add(ms);
        }
    }

    /// Settles the bets on what came since the last tick, and plans the next ones.
    pub(super) fn tick(&mut self, now: Timestamp) {
        let (slow, too_slow) = (std::mem::take(&mut self.slow), std::mem::take(&mut self.too_slow));
        if let Some(plan) = &self.plan {
            self.weather.see(now, slow.primary(), slow.calls);
            self.bets += u64::from(slow.calls);
            self.wealth.win(plan.harm.gains(&slow), plan.safe.gains(&too_slow));
        }
        self.forget(now);
        self.plan = self.plan();
    }

    /// Forgets half of the past every hour, but never so much that too little is left.
    fn forget(&mut self, now: Timestamp) {
        if HALVE_MS <= now.millis_since(self.halved_at) {
            self.halved_at = now;
            if 2.0 * float(WARM_UP) <= self.history.total() {
                self.history.halve();
            }
        }
    }

    fn plan(&self) -> Option<Plan> {
        if self.seen < WARM_UP { None } else { self.prospect() }
    }

    /// What would be bet by what is known so far.
    ///
    /// Harm is a shift by more than the alarm, seen above the percentile itself. In the strict
    /// mode, and where the primary is so even that a shift by the margin lifts a good part of
    /// all calls above it, harm is judged above the limit instead: a few per cent of calls
    /// that hang are then as clear as a shift. The candidate may be above the limit as often
    /// as the primary above its percentile, so the null holds by itself.
    fn prospect(&self) -> Option<Plan> {
        let margin = self.margin?;
        let weight = self.terms.weight;
        let p99_ms = self.history.quantile(QUANTILE);
        let margin_ms = margin.at(p99_ms);
        let limit_ms = p99_ms + margin_ms;
        let shifted = self.history.above(p99_ms - margin_ms).clamp(1.01 * BEYOND, 0.5);
        let (alarm, alarm_ms, margin) = match self.terms.alarm {
            alarm @ Alarm::From { .. } if shifted < SHIFTED_MAX => {
                (alarm, p99_ms, shifted - BEYOND)
            }
            Alarm::From { .. } | Alarm::AtMargin => (Alarm::AtMargin, limit_ms, BEYOND),
        };
        let inflation = self.weather.inflation(BEYOND, weight);
        let odds = Odds { base: BEYOND, margin, allowed: 0.0, weight, inflation };
        let beyond = self.history.above(limit_ms).max(1e-5);
        let safe = SafePlan::latency(BEYOND, beyond, weight);
        let growth = safe.growth(BEYOND, beyond);
        Some(Plan { p99_ms, alarm_ms, limit_ms, harm: HarmPlan::new(odds, alarm), safe, growth })
    }

    pub(super) fn shown(&self) -> Shown {
        let interval = p99_difference(&self.primary, &self.candidate);
        let running = self.history.quantile(QUANTILE);
        let growth = self.prospect().map_or(0.0, |it| it.growth);
        let warm_up = WARM_UP.saturating_sub(self.seen);
        let samples_needed =
            self.wealth.samples_needed(self.bets, growth).map(|samples| samples + warm_up);
        Shown {
            samples: whole(self.candidate.total()),
            samples_needed,
            primary: self.primary.quantile(QUANTILE),
            candidate: self.candidate.quantile(QUANTILE),
            lower: interval.lower,
            upper: interval.upper,
            bound: self.margin.map_or(0.0, |margin| margin.at(running)),
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
            let mut gate = Latency::new(reference_terms(number(&case["W"])));
            gate.enter(Timestamp(0), MARGIN);
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

    #[test]
    fn a_timeout_is_slower_than_any_limit() {
        let mut gate = Latency::new(reference_terms(1.0));
        gate.enter(Timestamp(0), MARGIN);
        gate.wealth.fund(0.4);
        let fast = Some(Sample::Answered { ms: 100.0 });
        for step in 0..800 {
            let late = Some(Sample::TimedOut { ms: 50.0 });
            gate.observe(fast, if step % 4 == 0 { late } else { fast });
            gate.tick(Timestamp(step));
        }
        assert_eq!(gate.wealth.verdict(), Verdict::Breach);
    }

    #[test]
    fn slow_traffic_keeps_a_usable_past() {
        let mut gate = Latency::new(reference_terms(1.0));
        gate.enter(Timestamp(0), MARGIN);
        for hour in 0..100 {
            for _ in 0..10 {
                let call = Some(Sample::Answered { ms: 100.0 });
                gate.observe(call, call);
            }
            gate.tick(Timestamp(hour * HALVE_MS));
        }
        assert!(gate.plan.is_some());
        assert!(float(WARM_UP) <= gate.history.total());
    }
}
