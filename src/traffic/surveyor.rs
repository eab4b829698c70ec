//! The surveyor: looks at a share of what is asked, whether or not a rollout governs it.

use std::{collections::BTreeMap, sync::Mutex};

use super::lock;
use crate::analysis::{Census, Day, Surveyed, UsageDay, decode_day, encode_day};
use crate::clock::Clock;
use crate::domain::{PairId, Share, Timestamp};

/// What is counted, for whoever shows it.
pub mod usage {
    pub use crate::analysis::{
        Day, Hindrance, PromptSize, Proposal, Surveyed, UsageCount, UsageDay, UsageKind, add_day,
        decode_day,
    };
}

/// Takes the census of requests, for `crossfade audit`.
#[derive(Debug)]
pub struct Surveyor {
    share: Share,
    clock: Clock,
    census: Mutex<Census>,
}

impl Surveyor {
    /// One that looks at this share, and has seen nothing.
    pub fn new(share: Share, clock: Clock) -> Self {
        Self { share, clock, census: Mutex::default() }
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
        lock(&self.census).see(self.clock.now(), asked, stands_for_millis);
    }

    /// What is here of each day since 1970 (UTC): what is kept of others is in the store alone.
    pub fn counted(&self) -> BTreeMap<u64, Day> {
        lock(&self.census).days().clone()
    }

    /// The days that have news which are not kept, and whether all that was kept of them is here.
    pub fn unkept(&self) -> Vec<(u64, bool)> {
        let census = lock(&self.census);
        let unkept = census.days().iter().filter(|(_, it)| 0 < it.news);
        unkept.map(|(day, it)| (*day, it.is_whole)).collect()
    }

    /// All that was counted on a day, to be kept, and how many of it are news.
    pub fn to_keep(&self, day: u64) -> Option<(Vec<u8>, u64)> {
        let census = lock(&self.census);
        let day = census.days().get(&day)?;
        Some((encode_day(&day.counts), day.news))
    }

    /// Takes note that a day was kept, with so many news.
    pub fn kept(&self, day: u64, news: u64) {
        lock(&self.census).keep(day, news);
    }

    /// Goes on from what was kept of a day before; says whether it could, and begins anew if not.
    pub fn resume(&self, day: u64, kept: Option<&[u8]>) -> bool {
        let counts = kept.map_or_else(|| Some(UsageDay::new()), decode_day);
        let could = counts.is_some();
        lock(&self.census).resume(day, counts.unwrap_or_default());
        could
    }
}
