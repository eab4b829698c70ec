//! Whether a judge goes by the place an answer stands in: its position bias.
//!
//! Where it is asked once, a lot draws which answer stands first, so of a judge who reads them the
//! first is marked higher in half of the pairs that are told apart, however good either side is. Where
//! the place decides, both sides come to the same mean, and any candidate looks as good as the primary.
//!
//! Where it is asked in both orders, each answer has a mark in each place. What the place adds cancels
//! out of the means, but a judge who gives it much, or who finds another winner when the order is
//! turned round, tells little else. One who marks at random turns round about half of its winners.

use serde::{Deserialize, Serialize};

use crate::domain::Placed;

use super::{bet::Bet, float, score::Marks};

/// How much more often one place may win than the other where each pair is shown once, as a part of
/// all pairs told apart: two thirds of them may go to it.
const WINS_BORNE: f64 = 1.0 / 3.0;
/// How much higher the same answer may be marked in one place than in the other: a mark of ten.
const LEAD_BORNE: f64 = 0.1;
/// The part of pairs that may have another winner in each order.
const FLIPS_BORNE: f64 = 0.25;
/// Parts of the wealth that are staked; less than `1 / (1 + WINS_BORNE)`, so that none is ever all.
const STAKES: [f64; 3] = [0.1, 0.3, 0.6];
/// How the money is split over them.
const WEIGHTS: [f64; 3] = [0.4, 0.3, 0.3];
/// The logarithm of the wealth below which it does not fall, so that a judge who begins to go by the
/// place after a long fair time is seen.
const FLOOR: f64 = -6.0;
/// Chance that a judge within what is borne is ever called biased: for both places together, and
/// again for both orders.
const CHANCE: f64 = 0.001;

/// Bets on values from -1 to 1 that their mean is more than is borne (Ville's inequality, as every
/// bet here).
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Excess(Bet<[f64; 3]>);

impl Excess {
    fn new(money: f64) -> Self {
        Self(Bet::new(WEIGHTS, money))
    }

    fn observe(&mut self, excess: f64) {
        self.0.win(STAKES.map(|stake| (stake * excess).ln_1p()));
        self.0.hold(WEIGHTS, FLOOR);
    }

    fn is_proven(&self) -> bool {
        CHANCE.recip().ln() <= self.0.ln_e()
    }
}

/// Excesses of the first place over the second, and of the second over the first.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Places([Excess; 2]);

impl Places {
    fn new() -> Self {
        Self([Excess::new(0.5), Excess::new(0.5)])
    }

    fn observe(&mut self, lead: f64, borne: f64) {
        for (bet, lead) in self.0.iter_mut().zip([lead, -lead]) {
            bet.observe(lead - borne);
        }
    }

    /// The place that is proven to be favoured.
    fn favoured(&self) -> Option<&'static str> {
        let mut named = self.0.iter().zip(["first", "second"]);
        named.find(|(bet, _)| bet.is_proven()).map(|(_, place)| place)
    }
}

/// What the place has done to a judge's marks.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Position {
    /// Pairs shown once and told apart, and those of which the first answer was marked higher.
    apart: u64,
    first: u64,
    wins: Places,
    /// Pairs shown in both orders, how much higher their answers were marked in the first place, and
    /// those with two winners.
    both: u64,
    lead: f64,
    leads: Places,
    flipped: u64,
    flips: Excess,
}

impl Position {
    pub(super) fn new() -> Self {
        Self {
            apart: 0,
            first: 0,
            wins: Places::new(),
            both: 0,
            lead: 0.0,
            leads: Places::new(),
            flipped: 0,
            flips: Excess::new(1.0),
        }
    }

    /// Takes a pair, where it is known in which places it was shown.
    pub(super) fn observe(&mut self, marks: &Marks) {
        match (marks.placed, marks.higher()) {
            (Some(Placed::Once(first)), Some(higher)) => {
                let first_is_higher = first == higher;
                self.apart += 1;
                self.first += u64::from(first_is_higher);
                self.wins.observe(if first_is_higher { 1.0 } else { -1.0 }, WINS_BORNE);
            }
            (Some(Placed::Both { lead, flipped }), _) if (-1.0..=1.0).contains(&lead) => {
                self.both += 1;
                self.lead += lead;
                self.leads.observe(lead, LEAD_BORNE);
                self.flipped += u64::from(flipped);
                self.flips.observe(if flipped { 1.0 } else { 0.0 } - FLIPS_BORNE);
            }
            (Some(Placed::Once(_) | Placed::Both { .. }) | None, _) => {}
        }
    }

    /// What is wrong with the judge, if its bias is proven.
    pub(super) fn problem(&self) -> Option<String> {
        const SO: &str = "proves nothing; take another model, which counts afresh as a new stage or \
                          attempt does";
        if let Some(place) = self.wins.favoured() {
            let count = if place == "first" { self.first } else { self.apart - self.first };
            return Some(format!(
                "the answer that stood {place} was marked higher in {count} of {} pairs, though a lot \
                 drew the places: a judge that goes by the place {SO}",
                self.apart
            ));
        }
        let both = self.both;
        if let Some(place) = self.leads.favoured() {
            let lead = (self.lead / float(both.max(1))).abs();
            return Some(format!(
                "the same answer was marked {lead:.2} higher where it stood {place}, the mean of {both} \
                 pairs in both orders: a judge that goes by the place {SO}"
            ));
        }
        self.flips.is_proven().then(|| {
            format!(
                "{} of {both} pairs had another winner once their order was turned round: a judge \
                 that contradicts itself so often {SO}",
                self.flipped
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Side, Splitmix, Winner};

    /// A number from 0 to 1.
    fn draw(numbers: &mut Splitmix) -> f64 {
        float(numbers.roll() >> 11) / 2.0_f64.powi(53)
    }

    fn once(first_is_higher: bool) -> Marks {
        let first = if first_is_higher { Side::Primary } else { Side::Candidate };
        Marks { placed: Some(Placed::Once(first)), ..Marks::unplaced(0.9, 0.8) }
    }

    fn both(lead: f64, flipped: bool) -> Marks {
        Marks { placed: Some(Placed::Both { lead, flipped }), ..Marks::unplaced(0.8, 0.8) }
    }

    /// Pairs after which a judge is called biased, at most 2,000.
    fn found_after(mut marks: impl FnMut() -> Marks) -> Option<(u64, String)> {
        let mut position = Position::new();
        (1..=2_000).find_map(|pairs| {
            position.observe(&marks());
            Some((pairs, position.problem()?))
        })
    }

    /// Pairs after which a judge is called biased who prefers the first place with this chance.
    fn biased_after(seed: u64, chance: f64) -> Option<u64> {
        let mut numbers = Splitmix(seed);
        found_after(|| once(draw(&mut numbers) < chance)).map(|(pairs, _)| pairs)
    }

    /// O4 B-80
    #[test]
    fn a_judge_that_goes_by_the_place_is_found_and_one_within_bounds_is_not() {
        let (pairs, problem) = found_after(|| once(false)).unwrap();
        assert!(problem.contains("stood second was marked higher in 27 of 27 pairs"), "{problem}");
        assert_eq!(pairs, 27);
        for chance in [0.1, 0.9] {
            let mut found: Vec<_> = (0..50).map(|seed| biased_after(seed, chance)).collect();
            found.sort_unstable();
            assert!(found[0].is_some() && found[25] < Some(80), "{chance}: {found:?}");
        }
        let mut late = Position::new();
        (0..2_000).for_each(|it| late.observe(&once(it % 2 == 0)));
        let pairs = (1..200).find(|_| {
            late.observe(&once(true));
            late.problem().is_some()
        });
        assert!(pairs < Some(60), "{pairs:?}");
        // The last two are as bad as is borne.
        for chance in [0.5, 0.4, 2.0 / 3.0, 1.0 / 3.0] {
            let wrong = (0..200).filter(|it| biased_after(*it, chance).is_some()).count();
            assert!(wrong <= 2, "{chance}: {wrong} of 200");
        }
    }

    #[test]
    fn in_both_orders_what_the_place_adds_is_seen_in_each_pair() {
        let (pairs, problem) = found_after(|| both(0.5, false)).unwrap();
        assert!(
            pairs < 50 && problem.contains("marked 0.50 higher where it stood first"),
            "{problem}"
        );
        let (_, problem) = found_after(|| both(-0.3, false)).unwrap();
        assert!(problem.contains("where it stood second"), "{problem}");
        // As much as is borne, around which it scatters.
        let within = |seed| {
            let mut numbers = Splitmix(seed);
            found_after(|| both(LEAD_BORNE + 0.6 * (draw(&mut numbers) - 0.5), false))
        };
        let wrong = (0..200).filter_map(within).count();
        assert!(wrong <= 2, "{wrong} of 200");
    }

    #[test]
    fn a_judge_that_contradicts_itself_is_found_though_no_place_wins() {
        let (pairs, problem) = found_after(|| both(0.0, true)).unwrap();
        assert!(pairs < 30 && problem.contains(" had another winner once"), "{problem}");
        // One who marks at random, each of three criteria from 0 to 10.
        let random = |seed| {
            let mut numbers = Splitmix(seed);
            found_after(|| {
                let mut mark =
                    || (0..3).map(|_| (11.0 * draw(&mut numbers)).floor()).sum::<f64>() / 30.0;
                let [ours, theirs] = [[mark(), mark()], [mark(), mark()]];
                let flipped =
                    Winner::of(ours[0], ours[1]).contradicts(Winner::of(theirs[0], theirs[1]));
                both(f64::midpoint(ours[0] - theirs[0], theirs[1] - ours[1]), flipped)
            })
        };
        let mut found: Vec<_> = (0..50).map(|it| random(it).map(|it| it.0)).collect();
        found.sort_unstable();
        assert!(found[0].is_some() && found[25] < Some(400), "{found:?}");
        let borne = |seed| {
            let mut numbers = Splitmix(seed);
            found_after(|| both(0.0, draw(&mut numbers) < FLIPS_BORNE))
        };
        let wrong = (0..200).filter_map(borne).count();
        assert!(wrong <= 2, "{wrong} of 200");
    }
}
