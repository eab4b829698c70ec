//! Whether a judge goes by the place an answer stands in: its position bias.
//!
//! A lot draws which answer stands first, so of a judge who reads them the first is marked higher in
//! half of the pairs that are told apart, however good either side is. Where the place decides, both
//! sides come to the same mean, and any candidate looks as good as the primary.

use serde::{Deserialize, Serialize};

use super::bet::Bet;

/// How much more often one place may win than the other, as a part of all pairs told apart: two
/// thirds of them may go to it.
const BORNE: f64 = 1.0 / 3.0;
/// Parts of the wealth that are staked; less than `1 / (1 + BORNE)`, so that none is ever all.
const STAKES: [f64; 3] = [0.1, 0.3, 0.6];
/// How the money is split over them.
const WEIGHTS: [f64; 3] = [0.4, 0.3, 0.3];
/// The logarithm of the wealth below which it does not fall, so that a judge who begins to go by the
/// place after a long fair time is seen.
const FLOOR: f64 = -6.0;
/// Chance that a judge within what is borne is ever called biased, for both places together.
const CHANCE: f64 = 0.001;

/// Bets that one place wins more often than it may (Ville's inequality, as every bet here).
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Position {
    /// Pairs told apart, and those of which the first answer was marked higher.
    count: u64,
    first: u64,
    /// On the first place, and on the second.
    bets: [Bet<[f64; 3]>; 2],
}

impl Position {
    pub(super) fn new() -> Self {
        let bet = Bet::new(WEIGHTS, 0.5);
        Self { count: 0, first: 0, bets: [bet.clone(), bet] }
    }

    /// Takes a pair of which the answer that stood first was marked higher, or lower.
    pub(super) fn observe(&mut self, first_is_higher: bool) {
        self.count += 1;
        self.first += u64::from(first_is_higher);
        let payoff = if first_is_higher { 1.0 } else { -1.0 };
        for (bet, payoff) in self.bets.iter_mut().zip([payoff, -payoff]) {
            bet.win(STAKES.map(|stake| (stake * (payoff - BORNE)).ln_1p()));
            bet.hold(WEIGHTS, FLOOR);
        }
    }

    /// What is wrong with the judge, if its bias is proven.
    pub(super) fn problem(&self) -> Option<String> {
        let proven = |bet: &Bet<[f64; 3]>| CHANCE.recip().ln() <= bet.ln_e();
        let (place, count) = match self.bets.each_ref().map(proven) {
            [true, _] => ("first", self.first),
            [_, true] => ("second", self.count - self.first),
            [false, false] => return None,
        };
        Some(format!(
            "the answer that stood {place} was marked higher in {count} of {} pairs, though a lot \
             drew the places: a judge that goes by the place proves nothing; take another model, which \
             counts afresh as a new stage or attempt does",
            self.count
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis::float;
    use crate::domain::Splitmix;

    /// Pairs after which a judge is called biased who prefers the first place with this chance.
    fn biased_after(seed: u64, chance: f64) -> Option<u64> {
        let (mut numbers, mut position) = (Splitmix(seed), Position::new());
        (1..=2_000).find(|_| {
            position.observe(float(numbers.roll() >> 11) / 2.0_f64.powi(53) < chance);
            position.problem().is_some()
        })
    }

    /// O4 B-80
    #[test]
    fn a_judge_that_goes_by_the_place_is_found_and_one_within_bounds_is_not() {
        let mut position = Position::new();
        let pairs = (1..100).find(|_| {
            position.observe(false);
            position.problem().is_some()
        });
        let problem = position.problem().unwrap();
        assert!(problem.contains("stood second was marked higher in 27 of 27 pairs"), "{problem}");
        assert_eq!(pairs, Some(27));
        for chance in [0.1, 0.9] {
            let mut found: Vec<_> = (0..50).map(|seed| biased_after(seed, chance)).collect();
            found.sort_unstable();
            assert!(found[0].is_some() && found[25] < Some(80), "{chance}: {found:?}");
        }
        let mut late = Position::new();
        (0..2_000).for_each(|it| late.observe(it % 2 == 0));
        let pairs = (1..200).find(|_| {
            late.observe(true);
            late.problem().is_some()
        });
        assert!(pairs < Some(60), "{pairs:?}");
        // The last two are as bad as is borne.
        for chance in [0.5, 0.4, 2.0 / 3.0, 1.0 / 3.0] {
            let wrong = (0..200).filter(|it| biased_after(*it, chance).is_some()).count();
            assert!(wrong <= 2, "{chance}: {wrong} of 200");
        }
    }
}
