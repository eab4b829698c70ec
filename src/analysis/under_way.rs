//! Calls that are not over yet: what hangs is missing among the first outcomes of a stage.

use std::collections::BTreeSet;

use super::{QUANTILE, float, histogram::Histogram, whole};
use crate::domain::Timestamp;

/// A call is overdue when it takes so many times as long as calls do on average, and longer than
/// the slowest in a hundred of those that ended lately: long answers among short ones are no fault.
const TYPICAL_TIMES: f64 = 4.0;
/// One in how many may be.
const OVERDUE_ONE_IN: u64 = 50;
/// Calls that ended before half of them is forgotten.
const HEARD_MAX: f64 = 4_096.0;
/// They are compared with so many calls of late at least: one that hangs says little.
const CALLS_MIN: u64 = 100;

/// One call that has begun.
pub type Ticket = (Timestamp, u64);

/// The calls of a window that have begun and are not over: as many as requests are answered at a
/// time, which others limit.
///
/// Under steady traffic some are always under way, and the slower they are the more. What counts
/// is how many have taken much longer than those that have ended: outcomes that come late are
/// not like those that come at once.
#[derive(Clone, Debug, Default)]
pub struct UnderWay {
    begun: BTreeSet<Ticket>,
    /// The number of the last call that began.
    serial: u64,
    /// How long the calls took that were heard to their end lately, each and together.
    heard: Histogram,
    heard_ms: f64,
}

impl UnderWay {
    /// Takes note of a call that begins.
    pub fn begin(&mut self, now: Timestamp) -> Ticket {
        self.serial += 1;
        let ticket = (now, self.serial);
        self.begun.insert(ticket);
        ticket
    }

    /// It was heard to its end.
    pub fn hear(&mut self, ticket: Ticket, took_ms: u64) {
        self.begun.remove(&ticket);
        self.heard.add(float(took_ms));
        self.heard_ms += float(took_ms);
        if HEARD_MAX <= self.heard.total() {
            self.heard.halve();
            self.heard_ms *= 0.5;
        }
    }

    /// Nothing more will be heard of it.
    pub fn forget(&mut self, ticket: Ticket) {
        self.begun.remove(&ticket);
    }

    /// Why what is known is not all, if more than one in fifty is overdue of those that began
    /// since the oldest of these did: how long all went well before says nothing.
    pub fn problem(&self, now: Timestamp) -> Option<String> {
        let mean = self.heard_ms / self.heard.total().max(1.0);
        let usual = (TYPICAL_TIMES * mean).max(self.heard.quantile(QUANTILE));
        let old = Timestamp(now.0.saturating_sub(whole(usual)));
        let (_, oldest) = self.begun.range(..(old, 0)).next()?;
        let overdue = self.begun.range(..(old, 0)).count();
        let overdue = u64::try_from(overdue).unwrap_or(u64::MAX);
        let calls = (self.serial - oldest + 1).max(CALLS_MIN).min(self.serial);
        (calls < OVERDUE_ONE_IN.saturating_mul(overdue)).then(|| {
            format!(
                "{overdue} of the last {calls} calls are still under way, far longer than usual"
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;
    use crate::analysis::tests::Random;

    /// Ten calls a second that take so long, for so many seconds; what is said at the end.
    fn after(seconds: u64, mut took_ms: impl FnMut() -> u64) -> Option<String> {
        let (mut under_way, mut ends) = (UnderWay::default(), VecDeque::new());
        for now in (0..seconds * 1_000).step_by(100) {
            let took = took_ms();
            ends.push_back((now + took, under_way.begin(Timestamp(now)), took));
            ends.retain(|(end, ticket, took)| {
                if *end <= now {
                    under_way.hear(*ticket, *took);
                }
                now < *end
            });
        }
        under_way.problem(Timestamp(seconds * 1_000))
    }

    #[test]
    fn what_hangs_is_seen_while_it_does_and_slow_models_are_not_taken_for_it() {
        let mut random = Random(7);
        let hang = || if random.happens(0.3) { 120_000 } else { 800 };
        let told = after(20, hang).unwrap();
        assert!(told.ends_with(" calls are still under way, far longer than usual"), "{told}");
        let mut random = Random(8);
        assert_eq!(after(20, || 10_000), None, "half of them are under way, as it has to be");
        let mut slow = || whole(10_000.0 * (0.7 * random.normal()).exp());
        for seconds in [30, 60, 120, 600] {
            assert_eq!(after(seconds, &mut slow), None, "{seconds}");
        }
    }

    #[test]
    fn long_answers_among_short_ones_are_not_taken_for_it() {
        for (part, long, short) in [(0.02, 100_000, 1_000), (0.05, 60_000, 3_000)] {
            let mut random = Random(11);
            let mut took = || if random.happens(part) { long } else { short };
            let held = [900, 1_200, 1_500, 1_800].map(|seconds| after(seconds, &mut took));
            assert_eq!(held, [const { None }; 4], "{part}");
        }
        let mut random = Random(12);
        let mut broad = || whole(2_000.0 * (1.3 * random.normal()).exp());
        let held = (0..20).filter(|_| after(900, &mut broad).is_some()).count();
        assert!(held <= 1, "{held} of 20");
    }

    #[test]
    fn what_hangs_is_seen_also_after_a_long_good_time() {
        let mut calls = 0;
        let hangs_from = |from: u64| {
            move || {
                calls += 1;
                if from < calls { 1_000_000 } else { 800 }
            }
        };
        assert_eq!(after(20_000, hangs_from(u64::MAX)), None);
        let told = after(20_060, hangs_from(200_000)).unwrap();
        assert!(told.contains(" of the last 600 calls are still under way"), "{told}");
    }

    #[test]
    fn a_call_of_which_nothing_more_is_heard_holds_nothing_up() {
        let mut under_way = UnderWay::default();
        let ticket = under_way.begin(Timestamp(0));
        assert!(under_way.problem(Timestamp(1)).is_some());
        under_way.forget(ticket);
        assert_eq!(under_way.problem(Timestamp(1)), None);
        assert_eq!(UnderWay::default().problem(Timestamp(1)), None);
    }

    #[test]
    fn calls_that_begin_at_the_same_time_are_told_apart() {
        let mut under_way = UnderWay::default();
        let [first, _] = [(); 2].map(|()| under_way.begin(Timestamp(0)));
        under_way.hear(first, 0);
        let told = under_way.problem(Timestamp(10)).unwrap();
        assert!(told.starts_with("1 of the last 2 calls are still under way"), "{told}");
    }
}
