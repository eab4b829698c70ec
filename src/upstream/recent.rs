//! Counts of the last seconds, without a lock and in a few hundred bytes.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::domain::Timestamp;

/// Seconds that are remembered.
pub(super) const SECONDS: u64 = 30;

/// One counter for each of the last seconds: the upper half says which second it is.
#[derive(Debug, Default)]
pub(super) struct Recent([AtomicU64; 30]);

impl Recent {
    /// Counts one more.
    pub(super) fn add(&self, now: Timestamp) {
        let second = second(now);
        let Some(slot) = self.slot(second) else { return };
        let _ = slot.fetch_update(Relaxed, Relaxed, |it| {
            Some(if it >> 32 == second { it + 1 } else { second << 32 | 1 })
        });
    }

    /// How many there were in the last seconds.
    pub(super) fn sum(&self, now: Timestamp) -> u64 {
        let last = second(now);
        let recent = |it: &u64| (it >> 32) <= last && last < (it >> 32) + SECONDS;
        let slots = self.0.iter().map(|it| it.load(Relaxed));
        slots.filter(recent).map(|it| it & u64::from(u32::MAX)).sum()
    }

    /// Forgets all.
    pub(super) fn clear(&self) {
        self.0.iter().for_each(|it| it.store(0, Relaxed));
    }

    fn slot(&self, second: u64) -> Option<&AtomicU64> {
        self.0.get(usize::try_from(second % SECONDS).ok()?)
    }
}

/// The second, as far as it fits a half.
fn second(now: Timestamp) -> u64 {
    (now.0 / 1_000) & u64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_sum_is_what_came_in_the_last_seconds(steps in prop::collection::vec(0_u64..9_000, 1..200)) {
            let (recent, mut now, mut all) = (Recent::default(), 1_700_000_000_000, Vec::new());
            for step in steps {
                now += step;
                recent.add(Timestamp(now));
                all.push(now / 1_000);
                let expected = all.iter().filter(|it| now / 1_000 < *it + SECONDS).count();
                prop_assert_eq!(recent.sum(Timestamp(now)), u64::try_from(expected).unwrap());
            }
        }
    }

    #[test]
    fn threads_lose_no_count() {
        let recent = Recent::default();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..10_000).for_each(|_| recent.add(Timestamp(5_000))));
            }
        });
        assert_eq!(recent.sum(Timestamp(5_000)), 40_000);
        recent.clear();
        assert_eq!(recent.sum(Timestamp(5_000)), 0);
    }
}
