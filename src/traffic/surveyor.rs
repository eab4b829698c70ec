//! The surveyor: looks at a share of what is asked, whether or not a rollout governs it.

use std::sync::Mutex;

use super::lock;
use crate::analysis::{Census, Surveyed, UsageDay, decode_day, encode_day};
use crate::clock::Clock;
use crate::domain::{PairId, Share, Timestamp};

/// What is counted, for whoever shows it.
pub mod usage {
    pub use crate::analysis::{
        Hindrance, PromptSize, Proposal, Surveyed, UsageCount, UsageDay, UsageKind, add_day,
        decode_day,
    };

    /// The name under which a day since 1970 (UTC) is kept.
    pub fn key(day: u64) -> String {
        format!("usage/{day}")
    }
}

/// Takes the census of requests, for `crossfade audit`.
#[derive(Debug)]
pub struct Surveyor {
    share: Share,
    clock: Clock,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    census: Census,
    /// Whether something was counted since it was kept last.
    changed: bool,
}

impl Surveyor {
    /// One that looks at this share, and has seen nothing.
    pub fn new(share: Share, clock: Clock) -> Self {
        Self { share, clock, state: Mutex::default() }
    }

    /// The share it looks at.
    pub fn share(&self) -> Share {
        self.share
    }

    /// The time.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Whether it looks at a request. Ids end in chance, so nothing else is drawn by this.
    pub fn draws(&self, id: PairId) -> bool {
        !self.share.is_none() && id.0 % 10_000 < self.share.basis_points().into()
    }

    /// Counts a request that was answered.
    pub fn see(&self, asked: &Surveyed<'_>) {
        let stands_for_millis = 10_000_000 / u64::from(self.share.basis_points().max(1));
        let (now, mut state) = (self.clock.now(), lock(&self.state));
        state.census.see(now, asked, stands_for_millis);
        state.changed = true;
    }

    /// The last day on which something was counted, since 1970 (UTC), and what.
    pub fn counted(&self) -> (u64, UsageDay) {
        let state = lock(&self.state);
        let (day, counts) = state.census.today();
        (day, counts.clone())
    }

    /// The day and all that was counted on it, to be kept, if that has changed.
    pub fn changed(&self) -> Option<(u64, Vec<u8>)> {
        let mut state = lock(&self.state);
        let (day, counts) = state.census.today();
        let kept = state.changed.then(|| (day, encode_day(counts)));
        state.changed = false;
        kept
    }

    /// Goes on from what was kept of a day before a restart; says whether it could.
    pub fn resume(&self, day: u64, kept: &[u8]) -> bool {
        let Some(kept) = decode_day(kept) else { return false };
        lock(&self.state).census.resume(day, kept);
        true
    }
}
