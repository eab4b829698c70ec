//! The one clock: wall time at the start, monotonic time from there on.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::time;

use crate::domain::Timestamp;

/// Tells the time. A wall clock that jumps moves no timer of ours. Cheap to copy.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    started: time::Instant,
    started_at: Timestamp,
}

impl Clock {
    /// Reads the wall clock, the only time that something is timed by it.
    pub fn start() -> Self {
        Self::at(wall())
    }

    /// One that begins at this time, whatever the wall clock says.
    pub(crate) fn at(started_at: Timestamp) -> Self {
        Self { started: time::Instant::now(), started_at }
    }

    /// How far the wall clock has run away from ours since the start, in milliseconds.
    pub fn wall_ahead_ms(&self) -> i64 {
        let signed = |it: u64| i64::try_from(it).unwrap_or(i64::MAX);
        signed(wall().0) - signed(self.now().0)
    }

    /// The time now.
    pub fn now(&self) -> Timestamp {
        Timestamp(self.started_at.0 + millis(self.started.elapsed()))
    }
}

#[expect(clippy::disallowed_methods, reason = "the one home of the clock")]
fn wall() -> Timestamp {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    Timestamp(millis(since_epoch))
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
