//! The day's copies, against their cap.

use std::sync::{Arc, Mutex};

use super::{Purse, lock};
use crate::domain::Timestamp;

/// The day's copies of one rollout, against their cap.
#[derive(Debug)]
pub struct Copies {
    per_day_max: u64,
    /// Day (since the epoch) and copies made on it.
    made: Mutex<(u64, u64)>,
    purse: Arc<Purse>,
}

impl Copies {
    /// A cap, with the copies already made on a day.
    pub fn new(per_day_max: u64, made: (u64, u64)) -> Self {
        Self { per_day_max, made: Mutex::new(made), purse: Arc::default() }
    }

    /// The same, paid for from a purse.
    #[must_use]
    pub fn paid_from(mut self, purse: Arc<Purse>) -> Self {
        self.purse = purse;
        self
    }

    /// The same copies and purse under another cap.
    #[must_use]
    pub fn capped(&self, per_day_max: u64) -> Self {
        Self::new(per_day_max, self.made()).paid_from(Arc::clone(&self.purse))
    }

    /// What pays for them.
    pub fn purse(&self) -> &Arc<Purse> {
        &self.purse
    }

    /// Counts one more copy, if the day has room for it.
    pub fn take(&self, now: Timestamp) -> bool {
        let mut made = lock(&self.made);
        if made.0 != now.day() {
            *made = (now.day(), 0);
        }
        let room = made.1 < self.per_day_max;
        made.1 += u64::from(room);
        room
    }

    /// Whether the day has no room for another one.
    pub fn is_full(&self, now: Timestamp) -> bool {
        let (day, made) = self.made();
        self.per_day_max <= if day == now.day() { made } else { 0 }
    }

    /// Day and copies made on it.
    pub fn made(&self) -> (u64, u64) {
        *lock(&self.made)
    }
}
