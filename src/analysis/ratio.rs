//! The instrument for amounts: what the candidate's calls cost as a part of the primary's.

use serde::{Deserialize, Serialize};

use crate::domain::Basis;

use super::{
    Sample,
    bet::{SAFE_MULTIPLES, Wealth},
    float,
    gate::{Shown, Terms},
    interval::{Differences, Interval},
    score::{Mean, growth, mean_gains},
};

/// Most of the wealth that is staked at once.
const FRACTION_MAX: f64 = 0.9;
/// The guess of the mean squared payoff, and of the primary's mean as a part of the bound.
const SQUARES_PRIOR: f64 = 0.01;
const MEAN_PRIOR: f64 = 0.12;
/// Pairs before unknown amounts are looked at, and one in how many may be unknown.
const PAIRS_MIN: u64 = 20;
const UNKNOWN_ONE_IN: u64 = 20;
/// Ratios are shown in percent of the primary's.
const PERCENT: f64 = 100.0;

/// What is allowed; parts of the primary's amounts.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Margin {
    /// The most that is allowed.
    pub(super) limit: f64,
    /// What is hoped for: harm is an excess over it.
    pub(super) expected: f64,
    /// What no single amount comes above. The candidate's may not either: a bet on an
    /// unbounded loss proves nothing, and to clip it would make dear calls look cheap.
    pub(super) each_max: f64,
    /// What the candidate's payoff on safety is divided by; `each_max` unless tested.
    pub(super) loss_max: f64,
    /// The part of each side's amounts that may be estimated.
    pub(super) estimated_max: f64,
}

/// Bets on what the candidate's calls come to, a pair of amounts at a time.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Ratio {
    pub(super) wealth: Wealth,
    terms: Terms,
    margin: Option<Margin>,
    /// Running means of this attempt: the primary's amount as a part of the bound, and both
    /// payoffs squared.
    primary: Mean,
    harm_squares: Mean,
    safe_squares: Mean,
    /// In this stage.
    pairs: u64,
    sums: Sums,
    unknown: u64,
    above: u64,
    rests: Rests,
}

/// What the amounts of a stage rest on.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
struct Rests {
    /// Of the primary and of the candidate: what is known, and what of it was estimated.
    amounts: [f64; 2],
    estimated: [f64; 2],
    /// Input tokens of both sides, over the pairs in which both told them.
    input: (f64, f64),
    told: u64,
}

/// Sums over pairs of amounts, as parts of the bound.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
struct Sums {
    primary: f64,
    candidate: f64,
    primary_squares: f64,
    candidate_squares: f64,
    products: f64,
}

impl Ratio {
    pub(super) fn new(terms: Terms) -> Self {
        Self {
            wealth: terms.wealth(),
            terms,
            margin: None,
            primary: Mean::new(MEAN_PRIOR),
            harm_squares: Mean::new(SQUARES_PRIOR),
            safe_squares: Mean::new(SQUARES_PRIOR),
            pairs: 0,
            sums: Sums::default(),
            unknown: 0,
            above: 0,
            rests: Rests::default(),
        }
    }

    /// Begins a stage: the proof of safety and the counters start fresh.
    pub(super) fn enter(&mut self, margin: Option<Margin>) {
        self.wealth.renew_safe();
        (self.pairs, self.unknown, self.above) = (0, 0, 0);
        self.sums = Sums::default();
        self.rests = Rests::default();
        self.margin = margin;
    }

    /// Takes a pair of amounts; one that is not known is counted as such.
    pub(super) fn observe(&mut self, primary: Option<f64>, candidate: Option<f64>) {
        let Some(margin) = self.margin else { return };
        let known = |it: Option<f64>| it.filter(|it| it.is_finite() && 0.0 <= *it);
        let (primary, candidate) = (known(primary), known(candidate));
        let (Some(primary), Some(candidate)) = (primary, candidate) else {
            self.unknown += 1;
            // Those that are not known may be the dear ones.
            self.suppose(margin, primary.unwrap_or(0.0), candidate.unwrap_or(margin.each_max));
            return;
        };
        if margin.each_max < primary || margin.each_max < candidate {
            self.above += 1;
            return;
        }
        self.bet(margin, primary, candidate);
        let (p, c) = (primary / margin.each_max, candidate / margin.each_max);
        self.primary.add(p);
        self.pairs += 1;
        let sums = &mut self.sums;
        (sums.primary, sums.candidate) = (sums.primary + p, sums.candidate + c);
        sums.primary_squares += p * p;
        sums.candidate_squares += c * c;
        sums.products += p * c;
    }

    /// Takes note of what a pair of amounts rests on.
    pub(super) fn rest_on(&mut self, amounts: [Option<f64>; 2], sides: [&Sample; 2]) {
        let rests = &mut self.rests;
        if let [Some(primary), Some(candidate)] = amounts {
            for (place, amount) in [primary, candidate].into_iter().enumerate() {
                rests.amounts[place] += amount;
                rests.estimated[place] += if sides[place].estimated { amount } else { 0.0 };
            }
        }
        if let [Some(primary), Some(candidate)] = sides.map(|it| it.input_tokens.map(float)) {
            rests.input = (rests.input.0 + primary, rests.input.1 + candidate);
            rests.told += 1;
        }
    }

    /// What the amounts of the stage rest on.
    pub(super) fn basis(&self) -> Basis {
        let Rests { input: (primary, candidate), told, .. } = self.rests;
        let mean = |sum: f64| sum / float(told.max(1));
        Basis {
            estimated_percent: self.rests.part() * PERCENT,
            input_tokens: (0 < told).then(|| (mean(primary), mean(candidate))),
        }
    }

    /// Takes note of a candidate call that was made and whose end is not known: it may have cost
    /// as much as one may.
    pub(super) fn lose(&mut self) {
        if let Some(margin) = self.margin {
            self.suppose(margin, 0.0, margin.each_max);
        }
    }

    /// Takes the worst that a pair may have come to as a loss on safety alone.
    fn suppose(&mut self, margin: Margin, primary: f64, candidate: f64) {
        let safe = (margin.limit * primary - candidate) / margin.loss_max;
        let safe = safe.clamp(-1.0, 0.0);
        let fraction = self.safe_fraction(margin);
        self.wealth.lose_safe(SAFE_MULTIPLES.map(|it| (fraction * it * safe).ln_1p()));
        self.safe_squares.add(safe * safe);
    }

    fn bet(&mut self, margin: Margin, primary: f64, candidate: f64) {
        let Margin { limit, expected, each_max, loss_max, .. } = margin;
        let mean = self.primary.value() * each_max;
        // Both payoffs are at least -1.
        let unit = expected * each_max;
        let harm = (candidate - expected * primary) / unit;
        let one = (limit - expected) * mean / unit;
        let gains = mean_gains(self.terms.alarm, (one, harm), self.harm_squares.value());
        let safe = (limit * primary - candidate) / loss_max;
        let fraction = self.safe_fraction(margin);
        let safe_gains = SAFE_MULTIPLES.map(|multiple| (fraction * multiple * safe).ln_1p());
        self.wealth.win(gains, safe_gains);
        self.harm_squares.add(harm * harm);
        self.safe_squares.add(safe * safe);
    }

    /// The part to stake on safety if the ratio is the expected one.
    fn safe_fraction(&self, margin: Margin) -> f64 {
        let mean = self.safe_payoff(margin);
        (mean / self.safe_squares.value()).min(FRACTION_MAX)
    }

    fn safe_payoff(&self, Margin { limit, expected, each_max, loss_max, .. }: Margin) -> f64 {
        (limit - expected) * self.primary.value() * each_max / loss_max
    }

    pub(super) fn shown(&self) -> Shown {
        let (limit, each_max) = self.margin.map_or((0.0, 0.0), |it| (it.limit, it.each_max));
        let growth = self.margin.map_or(0.0, |margin| {
            let squares = self.safe_squares.value();
            growth(self.safe_fraction(margin), self.safe_payoff(margin), squares)
        });
        let count = float(self.pairs.max(1));
        let Sums { primary, candidate, .. } = self.sums;
        let ratio = if 0.0 < primary { candidate / primary } else { 0.0 };
        let upper = least_ratio(|ratio| self.excess(ratio).interval().upper < 0.0);
        let lower = least_ratio(|ratio| self.excess(ratio).interval().lower <= 0.0);
        let fixed = Interval {
            lower: least_ratio(|ratio| self.excess(ratio).fixed().lower <= 0.0) * PERCENT,
            upper: least_ratio(|ratio| self.excess(ratio).fixed().upper < 0.0) * PERCENT,
        };
        Shown {
            samples: self.pairs,
            samples_needed: self.wealth.samples_needed(self.pairs, growth),
            primary: primary * each_max / count,
            candidate: candidate * each_max / count,
            difference: ratio * PERCENT,
            lower: lower * PERCENT,
            upper: upper * PERCENT,
            fixed: Some(fixed),
            bound: limit * PERCENT,
            problem: self.problem(),
        }
    }

    /// What is known of `candidate − ratio · primary`, scaled to −1..1.
    fn excess(&self, ratio: f64) -> Differences {
        let scale = ratio.max(1.0);
        let Sums { primary, candidate, primary_squares, candidate_squares, products } = self.sums;
        let squares = candidate_squares - 2.0 * ratio * products + ratio * ratio * primary_squares;
        Differences {
            count: self.pairs,
            sum: (candidate - ratio * primary) / scale,
            squares: squares / (scale * scale),
        }
    }

    fn problem(&self) -> Option<String> {
        let pairs = self.pairs + self.unknown + self.above;
        if 0 < self.above {
            let each_max = self.margin.map_or(0.0, |it| it.each_max);
            return Some(format!(
                "{} of {pairs} pairs came above {each_max}, the most a single call may come to: \
                 raise `each <=` of this gate; a new stage or attempt counts afresh",
                self.above
            ));
        }
        let (part, most) = (self.rests.part(), self.margin.map_or(1.0, |it| it.estimated_max));
        if PAIRS_MIN <= pairs && most < part {
            return Some(format!(
                "{:.0}% of a side's rests on estimates, as providers tell no usage, more than {:.0}%: let \
                 streams ask for it (`stream_options.include_usage`), or raise `estimated <=` of \
                 this gate",
                part * PERCENT,
                most * PERCENT
            ));
        }
        (PAIRS_MIN <= pairs && pairs < UNKNOWN_ONE_IN * self.unknown).then(|| {
            format!(
                "{} of {pairs} pairs have no known amount, more than 5%: give the prices of both \
                 providers, or see why they tell no usage",
                self.unknown
            )
        })
    }
}

impl Rests {
    /// The part of a side's amounts that was estimated, of the side where it is the larger one: in
    /// the sum of both, a side would seem the better known the lower it is guessed.
    fn part(&self) -> f64 {
        let parts = self.estimated.iter().zip(self.amounts);
        parts.map(|(guessed, all)| if 0.0 < all { guessed / all } else { 0.0 }).fold(0.0, f64::max)
    }
}

/// The least ratio up to 100 of which this can be said; infinite if it cannot.
fn least_ratio(said: impl Fn(f64) -> bool) -> f64 {
    let (mut low, mut high) = (0.0, 100.0);
    if !said(high) {
        return f64::INFINITY;
    }
    for _ in 0..40 {
        let ratio = f64::midpoint(low, high);
        if said(ratio) { high = ratio } else { low = ratio }
    }
    low
}

#[cfg(test)]
#[path = "ratio_tests.rs"]
mod tests;
