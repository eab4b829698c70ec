//! The one clock: wall time at the start, monotonic time from there on.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::domain::Timestamp;

/// Tells the time. A wall clock that jumps moves no timer of ours. Cheap to copy.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    started: Instant,
    started_at: Timestamp,
}

impl Clock {
    /// Reads the wall clock, for the only time.
    #[expect(clippy::disallowed_methods, reason = "the one home of the clock")]
    pub fn start() -> Self {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        Self { started: Instant::now(), started_at: Timestamp(millis(since_epoch)) }
    }

    /// The time now.
    pub fn now(&self) -> Timestamp {
        Timestamp(self.started_at.0 + millis(self.started.elapsed()))
    }
}

/// Whole milliseconds of a duration.
pub fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Milliseconds since `from`, as calls keep them (49 days at most).
pub fn elapsed_ms(from: Instant) -> u32 {
    u32::try_from(from.elapsed().as_millis()).unwrap_or(u32::MAX)
}

/// A point to measure from.
#[expect(clippy::disallowed_methods, reason = "the one home of the clock")]
pub fn instant() -> Instant {
    Instant::now()
}
