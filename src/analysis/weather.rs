//! Weather: how much more a provider's bad minutes vary than independent calls would.

use serde::{Deserialize, Serialize};

use crate::domain::Timestamp;

use super::{float, whole};

/// Length of a block; shorter ones miss most of a slow spell.
const BLOCK_MS: u64 = 30 * 60 * 1_000;
/// Differences between blocks that must be known before anything is said: half a day.
const DIFFERENCES_MIN: u64 = 24;
/// Half of the past is forgotten when there are so many: two weeks.
const DIFFERENCES_MAX: u64 = 14 * 48;
/// Time over which a rate of calls is read off at least.
const RATE_MS_MIN: u64 = 1_000;
/// Thousandths in one.
const THOUSAND: f64 = 1_000.0;

/// Calls, and how many of them were hits.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(super) struct Count {
    pub(super) calls: u64,
    pub(super) hits: u64,
}

impl Count {
    /// Counts a call, if it was seen: whether it was a hit.
    pub(super) fn see(&mut self, hit: Option<bool>) {
        self.calls += u64::from(hit.is_some());
        self.hits += u64::from(hit == Some(true));
    }

    /// The share of hits, 0 to 1.
    pub(super) fn share(self) -> f64 {
        float(self.hits) / float(self.calls.max(1))
    }

    fn add(&mut self, other: Self) {
        self.calls += other.calls;
        self.hits += other.hits;
    }
}

/// A provider's hits counted in blocks of half an hour, and how unevenly they fall.
///
/// Providers have slow spells of their own, which make calls dependent and every test that
/// counts calls too eager. How much is read off the primary: the variance of the rate between
/// blocks beyond that of independent hits. Half squared *successive* differences are used, so
/// that the slow drift of a day cancels out; each counts by its calls, so that more traffic is
/// no weather.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Blocks {
    since_ms: u64,
    now: Count,
    before: Option<Count>,
    differences: u64,
    /// Sums over the differences: of their weights, of what is beyond chance, and of all calls.
    weights: f64,
    excess: f64,
    calls: f64,
    hits: f64,
}

impl Blocks {
    /// Begins a block that is not compared with the one before, as other calls are seen.
    pub(super) fn restart(&mut self, at: Timestamp) {
        (self.since_ms, self.now, self.before) = (at.0, Count::default(), None);
    }

    /// Goes on by a clock that may have gone back: what begins later than now begins now.
    pub(super) fn until(&mut self, now: Timestamp) {
        self.since_ms = self.since_ms.min(now.0);
    }

    /// Counts calls. True when a block ended before them.
    pub(super) fn see(&mut self, at: Timestamp, count: Count) -> bool {
        if self.now.calls == 0 && self.before.is_none() {
            self.since_ms = self.since_ms.max(at.0);
        }
        let ended = at.0.saturating_sub(self.since_ms) / BLOCK_MS;
        if 0 < ended {
            self.since_ms += ended * BLOCK_MS;
            self.close();
        }
        self.now.add(count);
        0 < ended
    }

    /// Ends the block; one without calls is passed over.
    fn close(&mut self) {
        let now = std::mem::take(&mut self.now);
        if now.calls == 0 {
            return;
        }
        if let Some(before) = self.before.replace(now) {
            if DIFFERENCES_MAX <= self.differences {
                self.differences /= 2;
                for sum in [&mut self.weights, &mut self.excess, &mut self.calls, &mut self.hits] {
                    *sum *= 0.5;
                }
            }
            let calls = [now, before].map(|it| float(it.calls));
            let weight = calls[0] * calls[1] / (calls[0] + calls[1]);
            let mut both = now;
            both.add(before);
            self.differences += 1;
            self.weights += weight;
            let apart = now.share() - before.share();
            self.excess += 0.5 * (weight * apart * apart - both.share());
            (self.calls, self.hits) = (self.calls + calls[0], self.hits + float(now.hits));
        }
    }

    /// What was counted in this block and the one before.
    pub(super) fn late(&self) -> Count {
        let mut late = self.before.unwrap_or_default();
        late.add(self.now);
        late
    }

    /// The variance of the rate between blocks beyond that of independent hits, relative to
    /// its square; 0 when calm or not yet known.
    pub(super) fn variance(&self) -> f64 {
        if self.differences < DIFFERENCES_MIN || self.hits <= 0.0 {
            return 0.0;
        }
        let rate = self.hits / self.calls;
        (self.excess / self.weights / (rate * rate)).max(0.0)
    }

    /// The same in thousandths.
    pub(super) fn variance_permille(&self) -> u32 {
        u32::try_from(whole((self.variance() * THOUSAND).round())).unwrap_or(u32::MAX)
    }
}

/// The weather that a metric is bet in: what was known before, and what is seen.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Weather {
    told: f64,
    blocks: Blocks,
    since_ms: u64,
    now_ms: u64,
    candidate_calls: u64,
}

impl Weather {
    /// Begins a stage: other shares of the calls are seen in it.
    pub(super) fn restart(&mut self, at: Timestamp) {
        self.blocks.restart(at);
        (self.since_ms, self.now_ms, self.candidate_calls) = (at.0, at.0, 0);
    }

    /// Takes what was known of the primary before, in thousandths.
    pub(super) fn tell(&mut self, variance_permille: u32) {
        self.told = f64::from(variance_permille) / THOUSAND;
    }

    /// Counts what came since it was asked last.
    pub(super) fn see(&mut self, at: Timestamp, primary: Count, candidate_calls: u64) {
        self.blocks.see(at, primary);
        self.now_ms = self.now_ms.max(at.0);
        self.candidate_calls += candidate_calls;
    }

    /// Goes on by a clock that was set back by so much.
    pub(super) fn set_back(&mut self, ms: u64) {
        for at_ms in [&mut self.since_ms, &mut self.now_ms, &mut self.blocks.since_ms] {
            *at_ms = at_ms.saturating_sub(ms);
        }
    }

    /// How much more the sum of differences over a block varies than independent calls
    /// would: 1 when calm or not yet known. `base` is the primary's rate of hits.
    pub(super) fn inflation(&self, base: f64, weight: f64) -> f64 {
        let elapsed_ms = self.now_ms.saturating_sub(self.since_ms).max(RATE_MS_MIN);
        let calls = float(self.candidate_calls) * float(BLOCK_MS) / float(elapsed_ms);
        let variance = self.told.max(self.blocks.variance());
        1.0 + 2.0 * variance * calls * base * weight / (weight + 1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Blocks of so many calls and hits, one after the other.
    fn blocks(counts: impl IntoIterator<Item = (u64, u64)>) -> Blocks {
        let mut blocks = Blocks::default();
        for (index, (calls, hits)) in (0..).zip(counts) {
            blocks.see(Timestamp(index * BLOCK_MS), Count { calls, hits });
        }
        blocks
    }

    fn spells(len: usize) -> impl Iterator<Item = (u64, u64)> {
        (0..len).map(|it| (1_000, if it % 8 == 0 { 60 } else { 5 }))
    }

    #[test]
    fn spells_are_weather_and_even_short_or_empty_histories_are_not() {
        assert!(1.0 < blocks(spells(40)).variance());
        assert!(blocks(spells(20)).variance() <= 0.0);
        assert!(blocks([(1_000, 10); 40]).variance() <= 0.0);
        assert!(blocks([(1_000, 0); 40]).variance() <= 0.0);
    }

    #[test]
    fn more_traffic_is_no_weather() {
        let days = (0..100).map(|it| if it % 2 == 0 { (1_000, 10) } else { (9_000, 90) });
        assert!(blocks(days).variance() <= 0.0);
    }

    #[test]
    fn a_step_between_stages_is_no_weather() {
        let mut blocks = Blocks::default();
        for stage in 0..60 {
            let at = |block: u64| Timestamp((3 * stage + block) * BLOCK_MS);
            blocks.restart(at(0));
            let count = Count { calls: 1_000, hits: if stage % 2 == 0 { 5 } else { 60 } };
            (0..3).for_each(|block| assert_eq!(blocks.see(at(block), count), 0 < block));
        }
        assert!(DIFFERENCES_MIN <= blocks.differences && blocks.variance() <= 0.0, "{blocks:?}");
    }

    /// Blocks of 1,000 calls at 1 % and of 3,000 at 5 %, one after the other: half of the squared
    /// 0.04, less the 0.04 / 1,500 that chance makes, relative to the square of 0.04.
    #[test]
    fn the_variance_is_that_of_the_rate_beyond_chance() {
        let blocks =
            |len| blocks((0..len).map(|it| if it % 2 == 0 { (1_000, 10) } else { (3_000, 150) }));
        let expected = (0.5 * 0.04 * 0.04 - 0.04 / 1_500.0) / (0.04 * 0.04);
        assert!((blocks(28).variance() - expected).abs() < 1e-12);
        assert_eq!(blocks(28).variance_permille(), 483);
        assert_eq!([25, 26].map(|len| 0 < blocks(len).variance_permille()), [false, true]);
    }

    #[test]
    fn old_weather_is_forgotten_in_the_end() {
        let calm = std::iter::repeat_n((1_000, 10), 6_000);
        let now = blocks(spells(100).chain(calm)).variance();
        assert!(now < 0.02 * blocks(spells(100)).variance(), "{now}");
        assert!(1.0 < blocks(spells(680)).variance(), "what is left of two weeks is enough");
    }

    #[test]
    fn what_was_known_before_counts_from_the_first_call_on() {
        let mut weather = Weather::default();
        weather.restart(Timestamp(5_000));
        weather.see(Timestamp(15_000), Count { calls: 1_000, hits: 9 }, 50);
        assert!(weather.inflation(0.01, 20.0) < 1.0 + 1e-12);
        weather.tell(500);
        // 5 calls a second are 9,000 in a block, 90 of them hits.
        let expected = 1.0 + 2.0 * 0.5 * 90.0 * 20.0 / 21.0;
        assert!((weather.inflation(0.01, 20.0) - expected).abs() < 1e-9);
    }
}
