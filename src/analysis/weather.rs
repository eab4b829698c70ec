//! Weather: how much more a provider's bad minutes vary than independent calls would.

use serde::{Deserialize, Serialize};

use crate::domain::Timestamp;

use super::float;

/// Length of a block; shorter ones miss most of a slow spell.
const BLOCK_MS: u64 = 30 * 60 * 1_000;
/// Differences between blocks that must be known before anything is said: half a day.
const DIFFERENCES_MIN: f64 = 24.0;

/// The primary's hits counted in blocks of half an hour.
///
/// Providers have slow spells of their own, which make calls dependent and every test that
/// counts calls too eager. How much is read off the primary: the variance between blocks
/// beyond that of independent hits. Half squared *successive* differences are used, so that
/// the slow drift of a day cancels out.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Weather {
    since_ms: u64,
    hits: f64,
    calls: f64,
    hits_before: Option<f64>,
    calls_before: f64,
    blocks: f64,
    sum: f64,
    differences: f64,
    squares: f64,
}

impl Weather {
    /// Begins a block that is not compared with the one before, as traffic changes.
    pub(super) fn restart(&mut self, at: Timestamp) {
        self.since_ms = at.0;
        (self.hits, self.calls, self.hits_before) = (0.0, 0.0, None);
    }

    /// Counts what came since it was told last.
    pub(super) fn see(&mut self, now: Timestamp, primary_hits: u64, candidate_calls: u64) {
        let blocks = now.0.saturating_sub(self.since_ms) / BLOCK_MS;
        if 0 < blocks {
            self.since_ms += blocks * BLOCK_MS;
            self.close();
        }
        self.hits += float(primary_hits);
        self.calls += float(candidate_calls);
    }

    /// Ends the block; one without calls is passed over.
    fn close(&mut self) {
        if 0.0 < self.calls {
            if let Some(before) = self.hits_before {
                self.differences += 1.0;
                self.squares += 0.5 * (self.hits - before).powi(2);
            }
            self.blocks += 1.0;
            self.sum += self.hits;
            self.calls_before = self.calls;
            self.hits_before = Some(self.hits);
            (self.hits, self.calls) = (0.0, 0.0);
        }
    }

    /// How much more the sum of differences over a block varies than independent calls
    /// would: 1 when calm or not yet known. `base` is the primary's rate of hits.
    pub(super) fn inflation(&self, base: f64, weight: f64) -> f64 {
        let calls = self.calls.max(self.calls_before);
        1.0 + 2.0 * self.variance() * calls * base * weight / (weight + 1.0)
    }

    /// The variance between blocks beyond that of independent hits, relative to the mean.
    fn variance(&self) -> f64 {
        if self.differences < DIFFERENCES_MIN || self.sum <= 0.0 {
            return 0.0;
        }
        let mean = self.sum / self.blocks;
        ((self.squares / self.differences - mean) / (mean * mean)).max(0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(blocks: &[u64]) -> f64 {
        let mut weather = Weather::default();
        for (index, hits) in (0..).zip(blocks) {
            weather.see(Timestamp(index * BLOCK_MS), *hits, 1_000);
        }
        weather.inflation(0.01, 1.0)
    }

    #[test]
    fn spells_inflate_and_even_or_short_histories_do_not() {
        let spells: Vec<u64> = (0..40).map(|it| if it % 8 == 0 { 60 } else { 5 }).collect();
        assert!(5.0 < after(&spells));
        assert!(after(&[10; 40]) < 1.0 + 1e-12);
        assert!(after(&spells[..20]) < 1.0 + 1e-12);
        assert!(after(&[0; 40]) < 1.0 + 1e-12);
    }
}
