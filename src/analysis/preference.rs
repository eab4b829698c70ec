//! The instrument for what people prefer: comparisons of both answers to one request.

use serde::{Deserialize, Serialize};

use crate::domain::{PairId, Review, Timestamp};

use super::{
    Ledger,
    gate::{Shown, Terms},
    instrument::Instrument,
    interval::{MISS, ln_wealth},
    lots::Keys,
    opinion::own_key,
    score::{Marks, Mean, Score},
};

/// Millionths in one.
const MILLION: f64 = 1e6;
/// What bets on comparisons begin with: half are won, and every payoff is about one.
const WON_PRIOR: f64 = 0.5;
const SQUARES_PRIOR: f64 = 1.0;

/// Bets on who wins the smaller part of the comparisons.
///
/// Pairs that raise doubt are shown more often, and each comparison weighs the inverse of the
/// chance of its pair, at most 1: `w` times a payoff has the sign of the weighted mean, so a bet on
/// it is fair or worse while the win rate over all pairs is what the bet says it is, and it is
/// never larger than the payoff itself. The part `s` that the candidate wins and the rest of it are
/// marked as scores are, so harm is `w(1 - 2s)`, and a part of `m` is a reach of `m / (1 - m)`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Preference {
    pub(super) score: Score,
    /// The part the candidate is to win; none where the gate is not set.
    part: Option<f64>,
    /// Pairs compared in this stage: who is asked a second time tells nothing new of the sides.
    heard: Keys,
    sums: Sums,
}

/// One comparison.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Compared {
    /// The pair.
    pub pair: PairId,
    /// What the candidate won of it: 0, 0.5 for a tie, or 1.
    pub win: f64,
    /// What it stands for, above 0 and at most 1.
    pub weight: f64,
}

/// Sums over weights w and differences d from −1 to 1.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
struct Sums {
    w: f64,
    wd: f64,
    ww: f64,
    wwd: f64,
    wwdd: f64,
}

impl Compared {
    /// What a review says that is evidence; none while it is not.
    pub(super) fn of(review: &Review) -> Option<Self> {
        let weight = f64::from(review.weight_millionths) / MILLION;
        Some(Self { pair: review.pair, win: review.winner()?.win(), weight })
    }
}

impl Ledger {
    /// Takes a comparison of a pair in this watched slice.
    pub(super) fn compare(&mut self, at: Timestamp, watched: &str, compared: Compared) {
        self.pass(at);
        for (_, instrument) in self.taking(watched) {
            if let Instrument::Preference(it) = instrument {
                it.observe(compared);
            }
        }
    }
}

impl Preference {
    pub(super) fn new(terms: Terms) -> Self {
        let mut score = Score::new(terms);
        score.primary = Mean::new(WON_PRIOR);
        score.harm_squares = Mean::new(SQUARES_PRIOR);
        score.safe_squares = Mean::new(SQUARES_PRIOR);
        Self { score, part: None, heard: Keys::default(), sums: Sums::default() }
    }

    /// Begins a stage, in which the candidate is to win this part, below 0.5.
    pub(super) fn enter(&mut self, part: Option<f64>) {
        self.score.enter(part.map(|it| it / (1.0 - it)));
        (self.part, self.heard, self.sums) = (part, Keys::default(), Sums::default());
    }

    /// Takes a comparison; the first of each pair counts.
    pub(super) fn observe(&mut self, Compared { pair, win, weight }: Compared) {
        let sane = (0.0..=1.0).contains(&win) && 0.0 < weight && weight <= 1.0;
        if !sane || !self.heard.is_first(own_key(pair)) {
            return;
        }
        self.score.observe(&Marks::unplaced(weight * (1.0 - win), weight * win));
        self.sums.add(weight, 2.0 * win - 1.0);
    }

    pub(super) fn shown(&self) -> Shown {
        let known = self.score.shown();
        let difference = if 0 < known.samples { self.sums.wd / self.sums.w } else { 0.0 };
        let (lower, upper) =
            (self.sums.lower(known.samples), -self.sums.neg().lower(known.samples));
        Shown {
            primary: f64::midpoint(1.0, -difference),
            candidate: f64::midpoint(1.0, difference),
            difference,
            lower,
            upper,
            fixed: None,
            bound: 2.0 * self.part.unwrap_or(0.5) - 1.0,
            // That people find all alike is no fault of theirs.
            problem: None,
            ..known
        }
    }
}

impl Sums {
    fn add(&mut self, w: f64, d: f64) {
        self.w += w;
        self.wd += w * d;
        self.ww += w * w;
        self.wwd += w * w * d;
        self.wwdd += w * w * d * d;
    }

    fn neg(self) -> Self {
        Self { wd: -self.wd, wwd: -self.wwd, ..self }
    }

    /// The lower end of the weighted mean of the differences: what is below it is shut out by bets
    /// on `w(d - mean)`, as in [`Differences`](super::interval::Differences) where every weight is 1.
    fn lower(self, count: u64) -> f64 {
        let (mut shut_out, mut possible) = (-1.0, 1.0);
        if count == 0 {
            return shut_out;
        }
        for _ in 0..50 {
            let mean = f64::midpoint(shut_out, possible);
            let scale = 1.0 + mean;
            let z = (self.wd - mean * self.w) / scale;
            let z_squares =
                (self.wwdd - 2.0 * mean * self.wwd + mean * mean * self.ww) / (scale * scale);
            if (2.0 / MISS).ln() <= ln_wealth(z, z_squares) {
                shut_out = mean;
            } else {
                possible = mean;
            }
        }
        shut_out
    }
}

#[cfg(test)]
#[path = "preference_tests.rs"]
mod tests;
