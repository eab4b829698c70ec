//! Flaws that the reference is known to have, with an error gate of half a point on pairs: each
//! test sees them where they are. Costs and lost copies have theirs in `simulate`, conversations
//! in the ledger's.

use super::*;
use crate::analysis::{
    gate::Terms,
    odds::{Alarm, HarmPlan, Hit, Odds},
    tests::Random,
};

const DEFAULT: Alarm = Alarm::From { part: 0.7 };
const BASE: f64 = 0.002;

/// The bets of one attempt.
struct Attempt {
    random: Random,
    plan: HarmPlan,
    wealth: Wealth,
    /// That it is worse at all was proven: what the reference is content with.
    worse: bool,
}

impl Attempt {
    fn new(alarm: Alarm, seed: u64) -> Self {
        let limits = Limits { harm: 300.0_f64.ln(), safe: 20.0_f64.ln() };
        let mut wealth = Terms { limits, alarm, trust: 0.0 }.wealth();
        wealth.fund(0.2);
        wealth.keep(0.5);
        let odds = Odds { base: BASE, margin: 0.005, weight: 1.0, inflation: 1.0 };
        let plan = HarmPlan::new(odds, alarm);
        Self { random: Random(seed), plan, wealth, worse: false }
    }

    /// Pairs until it goes back, with a candidate that fails so much more often.
    fn run(&mut self, regression: f64, pairs_max: u32) -> Option<u32> {
        (1..=pairs_max).find(|_| {
            let primary = self.random.happens(BASE);
            let candidate = self.random.happens(BASE + regression);
            if let Some(hit) = Hit::of(Some(primary), Some(candidate)) {
                self.wealth.win(self.plan.gains(hit), [0.0; 2]);
            }
            self.worse |= self.wealth.limits.harm <= self.wealth.harmed();
            self.wealth.is_breached()
        })
    }
}

/// How many of so many attempts went back, and for how many the reference's proof was there.
fn sent_back(alarm: Alarm, regression: f64, seeds: u64) -> (u32, u32) {
    (0..seeds).fold((0, 0), |(back, worse), seed| {
        let mut attempt = Attempt::new(alarm, seed);
        let went = attempt.run(regression, 10_000).is_some();
        (back + u32::from(went), worse + u32::from(attempt.worse))
    })
}

#[test]
fn a_regression_well_below_the_alarm_stays() {
    let (back, worse) = sent_back(DEFAULT, 0.003, 200);
    assert!(back <= 8, "{back} of 200");
    assert!(20 <= worse, "{worse} of 200: there is nothing to tell apart");
}

#[test]
fn the_strict_mode_keeps_what_is_within_the_margin_and_no_more() {
    let (back, _) = sent_back(Alarm::AtMargin, 0.0045, 100);
    assert_eq!(back, 0, "of 100");
    let (default, worse) = sent_back(DEFAULT, 0.0045, 100);
    assert!(10 <= default && 20 <= worse, "{default} and {worse}: there is nothing to tell apart");
    let (beyond, _) = sent_back(Alarm::AtMargin, 0.015, 20);
    assert_eq!(beyond, 20);
}

#[test]
fn a_fault_after_216_000_good_calls_is_found_within_twice_the_calls_of_a_fresh_one() {
    let found = |good| {
        let mut pairs: Vec<u32> = (0..9)
            .map(|seed| {
                let mut attempt = Attempt::new(DEFAULT, seed);
                assert_eq!(attempt.run(0.0, good), None);
                attempt.run(0.05, 10_000).unwrap()
            })
            .collect();
        pairs.sort_unstable();
        pairs[4]
    };
    let (fresh, late) = (found(0), found(216_000));
    assert!(late <= 2 * fresh, "{late} after a good time, {fresh} without");
}
