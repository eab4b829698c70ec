//! Intervals for people to read: valid whenever they are looked at. The bets decide.

use std::ops::Neg;

use serde::{Deserialize, Serialize};
use statrs::function::beta::ln_beta;

use super::{QUANTILE, bet::ln_sum, float, histogram::Histogram};

/// Chance that an interval ever misses the truth while it is watched.
pub(super) const MISS: f64 = 0.05;
/// Fractions staked in the bets that shut out a mean: this and eleven halvings of it.
const FRACTION_MAX: f64 = 0.97;
const FRACTIONS: u16 = 12;
/// Calls above and below a quantile that its mixture begins with: the bounds are tightest after
/// some thousands of samples.
const PRIOR: (f64, f64) = (0.5, 6.125);
/// How many deviations from its mean 95% of a normal sample lie within.
const DEVIATIONS: f64 = 1.959_964;

/// A lower and an upper end.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Interval {
    pub(super) lower: f64,
    pub(super) upper: f64,
}

/// What is kept of paired differences between −1 and 1.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(super) struct Differences {
    /// How many.
    pub(super) count: u64,
    /// Their sum.
    pub(super) sum: f64,
    /// The sum of their squares.
    pub(super) squares: f64,
}

impl Differences {
    /// Counts one more.
    pub(super) fn add(&mut self, difference: f64) {
        self.count += 1;
        self.sum += difference;
        self.squares += difference * difference;
    }

    /// The interval of their mean; −1 to 1 while nothing is known.
    ///
    /// A mean is shut out when a mixture of bets against it or less (for the upper end: or
    /// more) has won 2/α. A lower bound of the wealth, ln(1+λz) ≥ λz + (ln(1−λ)+λ)z² for
    /// z ≥ −1, needs three sums only. Source: Fan, Grama & Liu 2015, lemma 4.1;
    /// Waudby-Smith & Ramdas 2024.
    pub(super) fn interval(self) -> Interval {
        Interval { lower: self.lower(), upper: -(-self).lower() }
    }

    /// The 95% interval of their mean where it was settled before anybody looked how many there would
    /// be; −1 to 1 while nothing is known.
    ///
    /// Wald's, with a difference of 1 and one of −1 added, so that it keeps its level where nearly
    /// all are nothing, and where there are few. Source: Bonett & Price 2012, Journal of
    /// Educational and Behavioral Statistics 37, 479-488.
    pub(super) fn fixed(self) -> Interval {
        if self.count == 0 {
            return Interval { lower: -1.0, upper: 1.0 };
        }
        let count = float(self.count) + 2.0;
        let mean = self.sum / count;
        let reach = DEVIATIONS * (((self.squares + 2.0) / count - mean * mean) / count).sqrt();
        Interval { lower: (mean - reach).max(-1.0), upper: (mean + reach).min(1.0) }
    }

    fn lower(self) -> f64 {
        let count = float(self.count);
        if self.count == 0 {
            return -1.0;
        }
        // Shifted by 1 the values are not negative, and their mean is in 0..=2.
        let (sum, squares) = (self.sum + count, self.squares + 2.0 * self.sum + count);
        let (mut shut_out, mut possible) = (0.0, 2.0);
        for _ in 0..50 {
            let mean = f64::midpoint(shut_out, possible);
            let (z, z_squares) =
                (sum / mean - count, squares / (mean * mean) - 2.0 * sum / mean + count);
            if (2.0 / MISS).ln() <= ln_wealth(z, z_squares) {
                shut_out = mean;
            } else {
                possible = mean;
            }
        }
        shut_out - 1.0
    }
}

impl Neg for Differences {
    type Output = Self;

    fn neg(self) -> Self {
        Self { sum: -self.sum, ..self }
    }
}

pub(super) fn ln_wealth(sum: f64, squares: f64) -> f64 {
    let mut fraction = FRACTION_MAX;
    let gains: [f64; 12] = std::array::from_fn(|_| {
        let gain = fraction * sum + ((-fraction).ln_1p() + fraction) * squares;
        fraction *= 0.5;
        gain
    });
    ln_sum(&gains) - f64::from(FRACTIONS).ln()
}

/// The interval of candidate minus primary 99th percentile in milliseconds; an end is
/// infinite while nothing is known about it.
pub(super) fn p99_difference(primary: &Histogram, candidate: &Histogram) -> Interval {
    let (primary, candidate) = (p99(primary, MISS / 2.0), p99(candidate, MISS / 2.0));
    Interval { lower: candidate.lower - primary.upper, upper: candidate.upper - primary.lower }
}

/// The interval of the 99th percentile: edges of buckets whose counts cannot be its own.
///
/// Counts above an edge are exact, so each edge can be tested with Robbins' beta mixture
/// for a Bernoulli rate of 1 %. Source: Howard & Ramdas 2022; Robbins 1970.
fn p99(histogram: &Histogram, miss: f64) -> Interval {
    let rate = 1.0 - QUANTILE;
    let (total, limit) = (histogram.total(), miss.recip().ln());
    let mut interval = Interval { lower: 0.0, upper: f64::INFINITY };
    let mut known: Option<(f64, f64)> = None;
    for (edge, above) in histogram.edges() {
        // Most buckets are empty; what holds for the edge above holds here too.
        let ln_e = match known {
            Some((count, ln_e)) if above <= count => ln_e,
            Some(_) | None => ln_mixture(above, total, rate, PRIOR),
        };
        known = Some((above, ln_e));
        if ln_e < limit {
            continue;
        }
        if rate * total <= above {
            interval.lower = edge;
            break;
        }
        interval.upper = edge;
    }
    interval
}

/// Logarithmic wealth of Robbins' beta mixture against a rate after `hits` of `total`.
pub(super) fn ln_mixture(hits: f64, total: f64, rate: f64, (a, b): (f64, f64)) -> f64 {
    let misses = (total - hits).max(0.0);
    ln_beta(a + hits, b + misses) - ln_beta(a, b) - hits * rate.ln() - misses * (-rate).ln_1p()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis::tests::{Random, assert_near, list, number, vectors};

    #[test]
    fn bounds_of_a_percentile_are_those_of_the_reference() {
        let Some(vectors) = vectors() else { return };
        let mut histogram = Histogram::default();
        for ms in list(&vectors["hist"]["ms"]) {
            histogram.add(number(ms));
        }
        let bounds = p99(&histogram, 0.05);
        assert_near(bounds.lower, &vectors["hist"]["bounds_5pct"][0]);
        assert_near(bounds.upper, &vectors["hist"]["bounds_5pct"][1]);
    }

    #[test]
    fn nothing_known_is_the_widest_interval() {
        assert_eq!(Differences::default().interval(), Interval { lower: -1.0, upper: 1.0 });
        let nothing = p99_difference(&Histogram::default(), &Histogram::default());
        assert!(nothing.lower < -1e300 && 1e300 < nothing.upper);
    }

    #[test]
    fn an_interval_watched_all_the_time_rarely_misses() {
        let mut missed = 0;
        for seed in 0..200 {
            let mut random = Random(seed);
            let mut differences = Differences::default();
            let mut miss = false;
            for step in 0..2_000 {
                let (primary, candidate) = (random.happens(0.05), random.happens(0.07));
                differences.add(f64::from(u8::from(candidate)) - f64::from(u8::from(primary)));
                if step % 40 == 0 {
                    let Interval { lower, upper } = differences.interval();
                    miss |= 0.02 < lower || upper < 0.02;
                }
            }
            missed += u32::from(miss);
            let Interval { lower, upper } = differences.interval();
            assert!(upper - lower < 0.08, "{lower} {upper}");
        }
        assert!(missed <= 10, "{missed} of 200 missed at a level of 5 %");
    }

    #[test]
    fn a_thousand_calls_without_errors_narrow_it_to_a_percent_point() {
        let calm = Differences { count: 1_000, sum: 0.0, squares: 0.0 }.interval();
        assert!(calm.upper < 0.01 && -0.01 < calm.lower, "{calm:?}");
    }
}
