//! Whether the primary is a measure now: what may be won against a provider that fails itself.

use serde::{Deserialize, Serialize};

use super::float;

/// The share of failures of a primary that is down, which its usual one is told apart from.
const DOWN: f64 = 0.2;
/// The least and the most its usual share is taken for.
const USUAL_MIN: f64 = 1e-4;
const USUAL_MAX: f64 = 0.1;
/// Calls and failures the usual share begins with, and calls at which half of it is forgotten.
const CALLS_PRIOR: f64 = 500.0;
const FAILED_PRIOR: f64 = 1.0;
const CALLS_MAX: u64 = 2_000;
/// Logarithm of the odds of "down" against "as usual" from which on it is down. As the usual share
/// is known only roughly, chance comes to 12 often enough to take a primary that fails in 5 % of
/// its calls for one that is down now and then, and what is given back then cost a quarter
/// more pairs; to 16 it hardly comes. Until then what is won is on credit anyway.
const CERTAIN: f64 = 16.0;
/// No more is held against it, so that it is a measure again some hundred good calls later.
const HELD_MAX: f64 = 24.0;

/// What the primary is worth as a measure.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Measure {
    /// It does as it usually does.
    #[default]
    Steady,
    /// It may have begun to fail: what is won meanwhile is on credit.
    Doubtful,
    /// It is down: nothing is staked on safety, and what was won on credit is given back.
    Down,
}

/// Follows the primary's failures, call by call (a CUSUM: Page 1954).
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Footing {
    /// What speaks for "down", as a logarithm; 0 when nothing does.
    odds: f64,
    measure: Measure,
    calls: u64,
    failed: u64,
}

impl Footing {
    /// Takes a call of the primary: whether it failed.
    pub(super) fn see(&mut self, failed: bool) {
        let usual = self.usual();
        let gain = if failed { DOWN / usual } else { (1.0 - DOWN) / (1.0 - usual) };
        self.odds = (self.odds + gain.ln()).clamp(0.0, HELD_MAX);
        self.measure = match self.measure {
            _ if self.odds <= 0.0 => Measure::Steady,
            Measure::Down => Measure::Down,
            Measure::Steady | Measure::Doubtful if CERTAIN <= self.odds => Measure::Down,
            Measure::Steady | Measure::Doubtful => Measure::Doubtful,
        };
        self.calls += 1;
        self.failed += u64::from(failed);
        if CALLS_MAX <= self.calls {
            (self.calls, self.failed) = (self.calls / 2, self.failed / 2);
        }
    }

    /// What it is worth after the calls so far.
    pub(super) fn measure(&self) -> Measure {
        self.measure
    }

    /// Why it is no measure now, if so.
    pub(super) fn outage(&self) -> Option<String> {
        let down = self.measure == Measure::Down;
        down.then(|| "the primary fails far more often now than it usually does".to_owned())
    }

    /// Its usual share of failures.
    fn usual(&self) -> f64 {
        let share = (float(self.failed) + FAILED_PRIOR) / (float(self.calls) + CALLS_PRIOR);
        share.clamp(USUAL_MIN, USUAL_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis::tests::Random;

    /// How many of so many calls that fail by chance it is down after.
    fn down(footing: &mut Footing, random: &mut Random, rate: f64, calls: u64) -> u64 {
        let mut down = 0;
        for _ in 0..calls {
            footing.see(random.happens(rate));
            down += u64::from(footing.measure() == Measure::Down);
        }
        down
    }

    #[test]
    fn an_outage_is_seen_within_some_failures_and_ends_with_it() {
        for (rate, failures_max) in [(0.0, 4), (0.002, 4), (0.01, 6), (0.05, 12)] {
            let (mut footing, mut random) = (Footing::default(), Random(3));
            down(&mut footing, &mut random, rate, 4_000);
            (0..200).for_each(|_| footing.see(false));
            assert_eq!(footing.measure(), Measure::Steady);
            for failure in 1..=failures_max {
                footing.see(true);
                let seen = footing.measure() == Measure::Down;
                assert!(failure < failures_max || seen, "at {rate}: {footing:?}");
            }
            down(&mut footing, &mut random, 1.0, 100);
            assert!(footing.outage().is_some(), "{footing:?}");
            down(&mut footing, &mut random, 0.0, 200);
            assert_eq!(footing.measure(), Measure::Steady, "{rate}: {footing:?}");
            assert_eq!(footing.outage(), None);
        }
    }

    #[test]
    fn each_call_counts_by_how_much_likelier_it_is_of_one_that_is_down() {
        // 200 of 2,000 fail as usual.
        let before = Footing { odds: 5.0, calls: 1_500, failed: 199, ..Footing::default() };
        for (failed, ratio) in [(true, 2.0_f64), (false, 8.0 / 9.0)] {
            let mut footing = before.clone();
            footing.see(failed);
            assert!((footing.odds - 5.0 - ratio.ln()).abs() < 1e-12, "{footing:?}");
        }
    }

    #[test]
    fn a_primary_as_usual_is_a_measure_whatever_its_usual_rate() {
        for rate in [0.0, 0.0001, 0.002, 0.02, 0.05, 0.08] {
            let (mut footing, mut random) = (Footing::default(), Random(4));
            let calls = 50_000;
            let lost = down(&mut footing, &mut random, rate, calls);
            assert!(lost * 100 < calls, "{lost} of {calls} at {rate}");
        }
    }

    #[test]
    fn a_new_usual_rate_that_is_borne_is_no_outage_for_ever() {
        let (mut footing, mut random) = (Footing::default(), Random(5));
        down(&mut footing, &mut random, 0.002, 3_000);
        down(&mut footing, &mut random, 0.07, 5_000);
        let lost = down(&mut footing, &mut random, 0.07, 20_000);
        assert!(lost < 2_000, "{lost}");
        assert!(down(&mut footing, &mut random, 0.5, 2_000) > 1_900);
    }
}
