//! The primary's climate: its weather as all its calls show it, also while nothing is compared.

use serde::{Deserialize, Serialize};

use crate::domain::{Metric, Timestamp, Weather};

use super::{
    QUANTILE, Sample, Timed,
    histogram::Histogram,
    weather::{Blocks, Count},
};

/// Which form [`Climate::encode`] gives.
const FORMAT: u8 = 1;

/// How unevenly a provider's failures and slow calls fall over time.
///
/// It takes half a day to know anything, so it is read off all calls from the day the program
/// stands in front of the provider, and told to the bets of an attempt when they begin.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Climate {
    failed: Blocks,
    late: Slow,
    late_first_byte: Slow,
}

/// Calls above a provider's own 99th percentile of the past.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Slow {
    blocks: Blocks,
    past: Histogram,
    /// The percentile by the blocks before this one.
    limit_ms: Option<f64>,
}

impl Climate {
    /// Takes a call of the provider, when it has ended. True when a block of half an hour
    /// ended before it, and so something may have changed.
    pub fn see(&mut self, at: Timestamp, call: &Sample) -> bool {
        if !call.outcome.counts() {
            return false;
        }
        self.late.see(at, call.latency());
        self.late_first_byte.see(at, call.first_byte());
        self.failed.see(at, one(call.outcome.failed()))
    }

    /// What is known by now.
    pub fn weather(&self) -> Vec<Weather> {
        let known = [
            (Metric::ErrorRate, &self.failed),
            (Metric::LatencyP99, &self.late.blocks),
            (Metric::TtftP99, &self.late_first_byte.blocks),
        ];
        let weather = known.map(|(metric, blocks)| Weather {
            metric,
            variance_permille: blocks.variance_permille(),
        });
        weather.into_iter().filter(|it| 0 < it.variance_permille).collect()
    }

    /// The provider's calls and failures of late.
    pub(super) fn failed(&self) -> Count {
        self.failed.late()
    }

    /// How long its calls took, to the first byte or to the last.
    pub(super) fn past(&self, metric: Metric) -> &Histogram {
        if metric == Metric::TtftP99 { &self.late_first_byte.past } else { &self.late.past }
    }

    /// All of it, to be kept outside.
    pub fn encode(&self) -> Vec<u8> {
        // Only a length that cannot be known makes this fail, and there is none.
        postcard::to_allocvec(&(FORMAT, self)).unwrap_or_default()
    }

    /// What [`encode`](Self::encode) gave, by the clock as it is now, which may have gone back;
    /// none when it is damaged or of another format.
    pub fn decode(now: Timestamp, bytes: &[u8]) -> Option<Self> {
        let (format, mut climate) = postcard::from_bytes::<(u8, Self)>(bytes).ok()?;
        let Self { failed, late, late_first_byte } = &mut climate;
        for blocks in [failed, &mut late.blocks, &mut late_first_byte.blocks] {
            blocks.until(now);
        }
        (format == FORMAT).then_some(climate)
    }
}

impl Slow {
    fn see(&mut self, at: Timestamp, time: Option<Timed>) {
        let Some(time) = time else { return };
        let late = self.limit_ms.is_some_and(|limit| time.exceeds(limit));
        if self.blocks.see(at, one(late)) {
            if self.limit_ms.is_none() {
                // Nothing could be late in the first block.
                self.blocks.restart(at);
                self.blocks.see(at, one(false));
            }
            self.limit_ms = Some(self.past.quantile(QUANTILE));
            self.past.halve();
        }
        self.past.add(time.ms());
    }
}

fn one(hit: bool) -> Count {
    Count { calls: 1, hits: u64::from(hit) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis::tests::{Random, call};
    use crate::domain::Outcome;

    /// A day of a call a second, with slow spells of five minutes or without.
    fn day(spells: bool) -> Climate {
        let (mut climate, mut random) = (Climate::default(), Random(7));
        let mut slow = false;
        for second in 0..86_400 {
            if second % 300 == 0 {
                slow = spells && random.happens(0.1);
            }
            let seen = random.call(0.01, if slow { 5.0 } else { 1.0 });
            climate.see(Timestamp(second * 1_000), &seen);
        }
        climate
    }

    fn of(climate: &Climate, metric: Metric) -> u32 {
        let known = climate.weather().into_iter().find(|it| it.metric == metric);
        known.map_or(0, |it| it.variance_permille)
    }

    #[test]
    fn spells_show_in_the_times_alone_and_a_calm_day_shows_little() {
        let (calm, stormy) = (day(false), day(true));
        for metric in [Metric::LatencyP99, Metric::TtftP99] {
            assert!(300 < of(&stormy, metric), "{:?}", stormy.weather());
            assert!(of(&calm, metric) < 100, "{:?}", calm.weather());
        }
        assert!(of(&stormy, Metric::ErrorRate) < 100, "{:?}", stormy.weather());
    }

    #[test]
    fn what_is_kept_and_read_again_goes_on() {
        let climate = day(true);
        let kept = climate.encode();
        assert!(kept.len() < 16 << 10, "{} bytes", kept.len());
        let mut again = Climate::decode(Timestamp(86_399_000), &kept).unwrap();
        assert_eq!(again.weather(), climate.weather());
        assert!(again.see(Timestamp(86_400_000), &call(Outcome::Ok, 900.0)));
        let no = |bytes| Climate::decode(Timestamp(0), bytes).is_none();
        assert!(no(&kept[1..]) && no(&[]));
    }

    #[test]
    fn a_clock_that_went_back_ends_the_block_half_an_hour_from_now() {
        let kept = day(true).encode();
        let mut again = Climate::decode(Timestamp(60_000), &kept).unwrap();
        let ended =
            [30, 31].map(|minute| again.see(Timestamp(minute * 60_000), &call(Outcome::Ok, 900.0)));
        assert_eq!(ended, [false, true]);
    }

    #[test]
    fn calls_that_say_nothing_of_the_provider_are_left_out() {
        let mut climate = Climate::default();
        for minute in 0..10_000 {
            let outcome = if minute % 60 < 30 { Outcome::Throttled } else { Outcome::Ok };
            climate.see(Timestamp(minute * 60_000), &call(outcome, 900.0));
        }
        assert_eq!(climate.weather(), []);
    }
}
