//! Intervals for samples of which the size was set before anybody looked, as that of a golden set.
//!
//! Those that are watched while they grow have the wider ones of `interval.rs`, valid at any time.

use super::interval::Differences;
use crate::domain::Splitmix;

/// How often a sample is drawn anew.
const DRAWS: u64 = 1_000;
/// Draws left out at each end: the 95% between them stay.
const DRAWS_BEYOND: usize = 25;

/// The 95% interval of the mean of paired differences, each between −1 and 1; all of that where there
/// are none.
pub fn paired_difference(differences: &[f64]) -> [f64; 2] {
    let mut all = Differences::default();
    for it in differences {
        all.add(*it);
    }
    let interval = all.fixed();
    [interval.lower, interval.upper]
}

/// The 95% interval of a figure of a sample of `len`: `figure` is told which of it are drawn, some
/// more than once. None where it has no value for some draw.
///
/// The same sample gives the same interval. Source: Efron 1979, the percentiles of the bootstrap.
pub fn resampled(len: usize, figure: impl Fn(&[usize]) -> Option<f64>) -> Option<[f64; 2]> {
    let size = u64::try_from(len).ok().filter(|it| 0 < *it)?;
    let mut dice = Splitmix(size);
    let mut drawn = vec![0; len];
    let mut figures = Vec::new();
    for _ in 0..DRAWS {
        for it in &mut drawn {
            *it = usize::try_from(dice.roll() % size).unwrap_or_default();
        }
        figures.push(figure(&drawn)?);
    }
    figures.sort_by(f64::total_cmp);
    Some([figures[DRAWS_BEYOND], figures[figures.len() - 1 - DRAWS_BEYOND]])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis::{float, tests::Random};

    #[test]
    fn few_or_equal_pairs_prove_little() {
        let [lower, upper] = paired_difference(&[]);
        assert!(lower < -0.999 && 0.999 < upper);
        let [lower, upper] = paired_difference(&[1.0]);
        assert!((lower - -0.733_5).abs() < 1e-3 && (1.0 - upper).abs() < 1e-9, "{lower} {upper}");
        // 1.96 · √(2/102/102): near to the rule of three.
        let [lower, upper] = paired_difference(&[0.0; 100]);
        assert!((upper - 0.027_17).abs() < 1e-4 && (lower + upper).abs() < 1e-12, "{upper}");
    }

    /// By hand: 40 + 2 pairs, a sum of −4, squares of 8 + 2.
    #[test]
    fn the_interval_is_that_of_bonett_and_price() {
        let differences: Vec<f64> =
            [[-1.0; 6].as_slice(), &[1.0; 2], &[0.0; 32]].concat().into_iter().collect();
        let [lower, upper] = paired_difference(&differences);
        assert!(
            (lower - -0.239_9).abs() < 1e-3 && (upper - 0.049_4).abs() < 1e-3,
            "{lower} {upper}"
        );
    }

    #[test]
    fn intervals_miss_the_truth_as_seldom_as_they_say() {
        let mut missed = [0; 2];
        for seed in 0..400 {
            let mut random = Random(seed);
            let pairs: Vec<[f64; 2]> = (0..120)
                .map(|_| [0.85, 0.75].map(|it| f64::from(u8::from(random.happens(it)))))
                .collect();
            let differences: Vec<f64> = pairs.iter().map(|[one, other]| other - one).collect();
            let mean = |drawn: &[usize]| {
                let sum: f64 = drawn.iter().map(|it| differences[*it]).sum();
                Some(sum / float(u64::try_from(drawn.len()).ok()?))
            };
            let found = [paired_difference(&differences), resampled(120, mean).unwrap()];
            for (missed, [lower, upper]) in missed.iter_mut().zip(found) {
                *missed += u32::from(-0.1 < lower || upper < -0.1);
            }
        }
        // One in twenty of 400, and three deviations of that.
        assert!(missed.iter().all(|it| (5..=33).contains(it)), "{missed:?}");
    }

    #[test]
    fn what_has_no_figure_has_no_interval() {
        assert!(resampled(0, |_| Some(1.0)).is_none());
        assert!(resampled(5, |_| None).is_none());
        let [lower, upper] =
            resampled(5, |drawn| u32::try_from(drawn.len()).ok().map(f64::from)).unwrap();
        assert!((lower - 5.0).abs() < 1e-9 && (upper - 5.0).abs() < 1e-9);
    }
}
