//! A histogram of latencies in logarithmic buckets of 1 %.

use std::iter;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use super::whole;

/// Buckets: the last one holds all from 2.2 hours on.
const BUCKETS: usize = 1_600;
/// ln 1.01: the width of a bucket on a logarithmic scale.
const WIDTH: f64 = 0.009_950_330_853_168_092;

/// How many calls took how long. About 6 kB.
///
/// Counts above the edge of a bucket are exact, which is what the anytime-valid bounds need.
/// Counts are `f32`: halves of old hours, and exact up to 16 million calls in one bucket.
#[derive(Clone, Debug)]
pub(super) struct Histogram {
    counts: Box<[f32; BUCKETS]>,
    total: f64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: Box::new([0.0; BUCKETS]), total: 0.0 }
    }
}

/// Buckets that hold something, by number, and the total.
#[derive(Serialize, Deserialize)]
struct Sparse(Vec<(u16, f32)>, f64);

impl Serialize for Histogram {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let held = (0..).zip(self.counts.iter()).filter(|(_, count)| 0.0 < **count);
        Sparse(held.map(|(bucket, count)| (bucket, *count)).collect(), self.total)
            .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Histogram {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Sparse(held, total) = Sparse::deserialize(deserializer)?;
        let mut histogram = Self { total, ..Self::default() };
        for (bucket, count) in held {
            let place = histogram.counts.get_mut(usize::from(bucket));
            *place.ok_or_else(|| D::Error::custom("there is no such bucket"))? = count;
        }
        Ok(histogram)
    }
}

impl Histogram {
    /// Counts a call; anything below a millisecond counts as one.
    pub(super) fn add(&mut self, ms: f64) {
        self.add_for(ms, 1.0);
    }

    /// The same for a call that stands for so many.
    pub(super) fn add_for(&mut self, ms: f64, calls: f32) {
        if let Some(count) = self.counts.get_mut(bucket(ms.max(1.0).ln() / WIDTH)) {
            *count += calls;
            self.total += f64::from(calls);
        }
    }

    /// Adds what another one counted.
    pub(super) fn merge(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(other.counts.iter()) {
            *count += more;
        }
        self.total += other.total;
    }

    /// Forgets half of everything.
    pub(super) fn halve(&mut self) {
        for count in self.counts.iter_mut() {
            *count *= 0.5;
        }
        self.total *= 0.5;
    }

    /// Calls counted, less what was forgotten.
    pub(super) fn total(&self) -> f64 {
        self.total
    }

    /// The quantile in milliseconds, interpolated within its bucket; 0 when empty.
    pub(super) fn quantile(&self, part: f64) -> f64 {
        let needed = (1.0 - part) * self.total;
        let mut above = 0.0;
        for (edge, count) in self.buckets().filter(|(_, count)| 0.0 < *count) {
            above += count;
            if needed <= above {
                let inside = (needed - (above - count)) / count;
                return ((edge + 1.0 - inside) * WIDTH).exp();
            }
        }
        0.0
    }

    /// The part of calls above so many milliseconds, interpolated; 0 when empty.
    pub(super) fn above(&self, ms: f64) -> f64 {
        let place = ms.max(1.0).ln() / WIDTH;
        let mut above = 0.0;
        for (edge, count) in self.buckets() {
            if edge <= place {
                above += count * (edge + 1.0 - place).max(0.0);
                break;
            }
            above += count;
        }
        above / self.total.max(1e-9)
    }

    /// The lower edge of every bucket in milliseconds, from the top, with the calls above it.
    pub(super) fn edges(&self) -> impl Iterator<Item = (f64, f64)> {
        self.buckets().scan(0.0, |above, (edge, count)| {
            *above += count;
            Some(((edge * WIDTH).exp(), *above))
        })
    }

    /// The buckets by number, from the top, with their counts.
    fn buckets(&self) -> impl Iterator<Item = (f64, f64)> {
        let numbers = iter::successors(Some(f64::from(BUCKETS_LAST)), |it| Some(it - 1.0));
        numbers.zip(self.counts.iter().rev().map(|count| f64::from(*count)))
    }
}

/// The number of the last bucket.
const BUCKETS_LAST: u32 = 1_599;

/// The bucket at a place on the logarithmic scale.
fn bucket(place: f64) -> usize {
    usize::try_from(whole(place)).unwrap_or(usize::MAX).min(BUCKETS - 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis::tests::{assert_near, list, number, vectors};

    #[test]
    fn quantiles_are_those_of_the_reference() {
        let Some(vectors) = vectors() else { return };
        let mut histogram = Histogram::default();
        for ms in list(&vectors["hist"]["ms"]) {
            histogram.add(number(ms));
        }
        assert_near(histogram.quantile(0.99), &vectors["hist"]["p99"]);
        assert_near(histogram.above(3_000.0), &vectors["hist"]["above_3000"]);
    }

    #[test]
    fn a_quantile_is_within_one_percent_and_survives_ageing() {
        let mut histogram = Histogram::default();
        (1..=10_000_u32).for_each(|ms| histogram.add(f64::from(ms)));
        let p99 = histogram.quantile(0.99);
        assert!((9_800.0..10_000.0).contains(&p99), "{p99}");
        histogram.halve();
        assert!((histogram.total() - 5_000.0).abs() < 1e-9);
        assert!((histogram.quantile(0.99) - p99).abs() < 1.0);
        assert!((histogram.above(5_000.0) - 0.5).abs() < 0.01);
    }

    #[test]
    fn any_number_finds_a_bucket() {
        let mut histogram = Histogram::default();
        for ms in [-5.0, 0.0, f64::INFINITY, f64::NAN, 1e300] {
            histogram.add(ms);
        }
        assert!(histogram.quantile(0.5).is_finite());
        let beyond = [1e6, 1e9].map(|ms| (histogram.above(ms) * histogram.total()).round());
        assert_eq!(beyond.map(|it| it.to_string()), ["2", "0"], "what is too long is in the last");
        assert!((histogram.total() - 5.0).abs() < f64::EPSILON);
        assert!(Histogram::default().above(10.0) < f64::EPSILON);
        assert!(Histogram::default().quantile(0.99) < f64::EPSILON);
    }
}
