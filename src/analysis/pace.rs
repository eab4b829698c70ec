//! How fast observations come now: the last hour says more than the first week.

use serde::{Deserialize, Serialize};

use crate::domain::Timestamp;

use super::float;

/// Time over which what came is forgotten, by a factor of e.
const MEMORY_MS: f64 = 3_600_000.0;
/// Shortest time that a pace is read off.
const ELAPSED_MS_MIN: u64 = 1_000;
const MINUTE_MS: f64 = 60_000.0;

/// Observations, old ones forgotten.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Pace {
    count: f64,
    at_ms: u64,
}

impl Pace {
    /// Takes note of an observation.
    pub fn count(&mut self, at: Timestamp) {
        self.count = self.left(at) + 1.0;
        self.at_ms = self.at_ms.max(at.0);
    }

    /// Observations a minute, where they are counted since then.
    pub fn per_minute(self, since: Timestamp, now: Timestamp) -> f64 {
        let elapsed_ms = float(now.millis_since(since).max(ELAPSED_MS_MIN));
        // What of that time is remembered.
        let remembered_ms = MEMORY_MS * -(-elapsed_ms / MEMORY_MS).exp_m1();
        self.left(now) * MINUTE_MS / remembered_ms
    }

    /// Goes on by a clock that was set back by so much.
    pub(super) fn set_back(&mut self, ms: u64) {
        self.at_ms = self.at_ms.saturating_sub(ms);
    }

    fn left(self, now: Timestamp) -> f64 {
        self.count * (-float(now.0.saturating_sub(self.at_ms)) / MEMORY_MS).exp()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pace_is_that_of_today_and_not_of_the_whole_stage() {
        let mut pace = Pace::default();
        let at = |minute: u64| Timestamp(minute * 60_000);
        let now = |pace: Pace, minute| format!("{:.0}", pace.per_minute(at(0), at(minute)));
        for minute in 0..10 {
            (0..30).for_each(|_| pace.count(at(minute)));
        }
        assert_eq!(now(pace, 10), "30");
        for minute in 10..3 * 1_440 {
            (0..120).for_each(|_| pace.count(at(minute)));
        }
        assert_eq!(now(pace, 3 * 1_440), "119");
        assert_eq!(now(pace, 4 * 1_440), "0", "a day of none: none come now");
    }
}
