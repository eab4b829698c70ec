//! The tripwire: sees within a handful of calls that a candidate is simply dead.

use crate::domain::Timestamp;

use super::{float, whole};

/// How many failures a success makes good.
const RELIEF: u64 = 3;
/// Fewest failures that trip it.
const LIMIT_MIN: f64 = 5.0;
/// Seconds of candidate traffic that may fail at once: a connection lost, not a death.
const GRACE_S: f64 = 0.5;
/// −ln of the chance of a false alarm at any one call if failures come at the primary's
/// rate: 1e-11, so 1e-4 for ten million calls.
const CERTAINTY: f64 = 25.0;
/// Above this rate the primary is failing itself, and the wire is silent.
const PRIMARY_ILL: f64 = 0.1;
/// Calls over which the primary counts as ill.
const ILL_CALLS: f64 = 20.0;
/// Calls over which its usual error rate is taken.
const RATE_CALLS: f64 = 1_000.0;
/// Its usual error rate before any call is seen, and the range it is believed in.
const RATE_PRIOR: f64 = 0.002;
const RATE_MIN: f64 = 1e-4;
const RATE_MAX: f64 = 0.5;
/// Seconds over which the candidate's calls a second are taken.
const TRAFFIC_S: f64 = 10.0;

/// A counter beside the traffic: up on a failure of the candidate, down three on a success.
///
/// Makes no use of pairs beyond one rule: a request that fails on both sides does not count.
#[derive(Clone, Debug)]
pub struct Tripwire {
    level: u64,
    /// The primary's share of failures, lately and usually.
    ill: f64,
    rate: f64,
    /// The candidate's calls a second, and when that was reckoned.
    traffic: f64,
    at: Timestamp,
}

impl Default for Tripwire {
    fn default() -> Self {
        Self::new()
    }
}

impl Tripwire {
    /// A wire that has seen nothing.
    pub fn new() -> Self {
        Self { level: 0, ill: 0.0, rate: RATE_PRIOR, traffic: 0.0, at: Timestamp(0) }
    }

    /// Takes one request, and for each side that was asked whether it answered well.
    /// True when the candidate is dead.
    pub fn see(&mut self, now: Timestamp, primary: Option<bool>, candidate: Option<bool>) -> bool {
        let tripped = self.step(primary, candidate, self.limit());
        if let Some(well) = primary {
            self.rate += (f64::from(u8::from(!well)) - self.rate) / RATE_CALLS;
        }
        if candidate.is_some() {
            let seconds = float(now.millis_since(self.at)) / 1_000.0;
            self.traffic = self.traffic * (-seconds / TRAFFIC_S).exp() + TRAFFIC_S.recip();
            self.at = self.at.max(now);
        }
        tripped
    }

    fn step(&mut self, primary: Option<bool>, candidate: Option<bool>, limit: u64) -> bool {
        if let Some(well) = primary {
            self.ill += (f64::from(u8::from(!well)) - self.ill) / ILL_CALLS;
        }
        match (candidate, primary) {
            (None, _) => return false,
            (Some(true), _) => {
                self.level = self.level.saturating_sub(RELIEF);
                return false;
            }
            (Some(false), Some(false)) => {}
            (Some(false), Some(true) | None) => self.level += 1,
        }
        limit <= self.level && self.ill <= PRIMARY_ILL
    }

    /// The level at which it trips.
    fn limit(&self) -> u64 {
        let chance = self.rate.clamp(RATE_MIN, RATE_MAX).recip().ln();
        let limit = LIMIT_MIN.max(GRACE_S * self.traffic).max(CERTAINTY / chance);
        whole(limit.ceil())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis::tests::{Random, assert_near, list, number, vectors};

    #[test]
    fn steps_are_those_of_the_reference() {
        let Some(vectors) = vectors() else { return };
        let case = &vectors["tripwire"];
        let mut wire = Tripwire::new();
        (wire.traffic, wire.rate) = (number(&case["rate"]), number(&case["p"]));
        let limit = wire.limit();
        assert_eq!(case["k"].as_u64(), Some(limit));
        let steps = list(&case["primary_candidate_ok"]).iter().zip(list(&case["out"]));
        for (seen, expected) in steps {
            let tripped = wire.step(seen[0].as_bool(), seen[1].as_bool(), limit);
            assert_eq!(Some(tripped), expected[0].as_bool());
            assert_eq!(Some(wire.level), expected[1].as_u64());
            assert_near(wire.ill, &expected[2]);
        }
    }

    /// E14 INV10
    #[test]
    fn a_dead_candidate_is_seen_within_eight_calls() {
        let mut wire = Tripwire::new();
        let mut random = Random(1);
        for step in 0..5_000 {
            let (primary, candidate) = (!random.happens(0.01), !random.happens(0.01));
            assert!(!wire.see(Timestamp(step * 100), Some(primary), Some(candidate)));
        }
        let calls = (0..20).position(|_| wire.see(Timestamp(500_000), Some(true), Some(false)));
        assert!(calls.unwrap() < 8, "{calls:?}");
    }

    /// E17
    #[test]
    fn failures_on_both_sides_do_not_trip_it() {
        let mut wire = Tripwire::new();
        let common = |it: u64| wire.see(Timestamp(it * 100), Some(false), Some(false));
        assert!(!(0..1_000).any(common));
    }

    #[test]
    fn a_primary_that_is_ill_itself_keeps_it_silent() {
        let mut wire = Tripwire::new();
        for step in 0..200 {
            wire.see(Timestamp(step), Some(step % 2 == 0), None);
        }
        assert!(!(0..50).any(|it| wire.see(Timestamp(200 + it), None, Some(false))));
    }

    /// ln 20 is 3, of which nine make the certainty of 25.
    #[test]
    fn a_primary_that_usually_fails_one_call_in_twenty_makes_it_patient() {
        let mut wire = Tripwire::new();
        for call in 0..10_000 {
            wire.see(Timestamp(call), Some(call % 20 != 0), None);
        }
        assert_eq!(wire.limit(), 9);
        for call in 0..10_000 {
            wire.see(Timestamp(call), Some(true), None);
        }
        assert_eq!(wire.limit(), 5);
    }

    #[test]
    fn heavy_traffic_may_lose_half_a_second_of_calls() {
        let mut wire = Tripwire::new();
        for ms in 0..60_000 {
            wire.see(Timestamp(ms), Some(true), Some(true));
        }
        let dead = (0..1_000).position(|ms| wire.see(Timestamp(60_000 + ms), None, Some(false)));
        let dead = dead.unwrap();
        assert!((450..600).contains(&dead), "{dead}");
    }
}
