//! The gate on judged scores.

use serde::{Deserialize, Serialize};

use super::{
    bet::{BEYOND_MULTIPLES, HARM_MULTIPLES, HarmGains, SAFE_MULTIPLES, Wealth},
    float,
    gate::{Shown, Terms},
    interval::Differences,
    odds::Alarm,
};

/// Most of the wealth that is staked at once.
const FRACTION_MAX: f64 = 0.9;
/// Scores the running means begin with, before any is seen, and what they are.
const SCORES_PRIOR: f64 = 10.0;
const MEAN_PRIOR: f64 = 0.8;
const SQUARES_PRIOR: f64 = 0.05;
/// Due scores before losses are looked at.
const DUE_MIN: u64 = 20;
/// One in so many due scores may be lost; what is lost may not be lost by chance.
const LOST_ONE_IN: u64 = 20;

/// Bets on who scores lower, a pair of scores at a time.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Score {
    pub(super) wealth: Wealth,
    terms: Terms,
    /// Part of the primary's mean that must be reached; none where the gate is not set.
    reach: Option<f64>,
    /// Running means of this attempt: the primary's score, and both payoffs squared.
    primary: Mean,
    harm_squares: Mean,
    safe_squares: Mean,
    /// Running mean of the payoff on safety, beginning at none.
    safe_payoffs: Mean,
    /// In this stage.
    sum: f64,
    differences: Differences,
    lost: u64,
}

/// A mean that begins with a guess worth [`SCORES_PRIOR`] scores.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Mean {
    count: f64,
    sum: f64,
}

impl Mean {
    pub(super) fn new(guess: f64) -> Self {
        Self { count: SCORES_PRIOR, sum: SCORES_PRIOR * guess }
    }

    pub(super) fn add(&mut self, value: f64) {
        self.count += 1.0;
        self.sum += value;
    }

    pub(super) fn value(self) -> f64 {
        self.sum / self.count
    }
}

impl Score {
    pub(super) fn new(terms: Terms) -> Self {
        Self {
            wealth: terms.wealth(),
            terms,
            reach: None,
            primary: Mean::new(MEAN_PRIOR),
            harm_squares: Mean::new(SQUARES_PRIOR),
            safe_squares: Mean::new(SQUARES_PRIOR),
            safe_payoffs: Mean::new(0.0),
            sum: 0.0,
            differences: Differences::default(),
            lost: 0,
        }
    }

    /// Begins a stage: the proof of safety and the counters start fresh.
    pub(super) fn enter(&mut self, reach: Option<f64>) {
        self.wealth.renew_safe();
        (self.sum, self.differences, self.lost) = (0.0, Differences::default(), 0);
        self.reach = reach;
    }

    /// A score that was due and cannot be had.
    pub(super) fn lose(&mut self) {
        self.lost += 1;
    }

    /// Bets on a pair of scores with stakes made from the earlier ones.
    pub(super) fn observe(&mut self, primary: f64, candidate: f64) {
        if ![primary, candidate].iter().all(|it| (0.0..=1.0).contains(it)) {
            self.lose();
            return;
        }
        if let Some(reach) = self.reach {
            self.bet(reach, primary, candidate);
        }
        self.primary.add(primary);
        self.sum += primary;
        self.differences.add(candidate - primary);
    }

    fn bet(&mut self, reach: f64, primary: f64, candidate: f64) {
        // One margin, in scores.
        let margin = (1.0 - reach) * self.primary.value();
        // Both payoffs are at least -1.
        let squares = self.harm_squares.value();
        let harm = primary - candidate;
        let safe = (candidate - reach * primary) / reach;
        let fraction = self.safe_fraction(margin / reach);
        let safe_gains = SAFE_MULTIPLES.map(|multiple| (fraction * multiple * safe).ln_1p());
        self.wealth.win(mean_gains(self.terms.alarm, (margin, harm), squares), safe_gains);
        self.harm_squares.add(harm * harm);
        self.safe_squares.add(safe * safe);
        self.safe_payoffs.add(safe);
    }

    /// The part to stake on safety if its payoff has this mean for equal sides, or more if
    /// the past says more.
    fn safe_fraction(&self, mean: f64) -> f64 {
        let mean = mean.max(self.terms.trust * self.safe_payoffs.value());
        (mean / self.safe_squares.value()).min(FRACTION_MAX)
    }

    pub(super) fn shown(&self) -> Shown {
        let samples = self.differences.count;
        let interval = self.differences.interval();
        let count = float(samples.max(1));
        let primary = self.sum / count;
        let reach = self.reach.unwrap_or(1.0);
        let payoff = (1.0 - reach) / reach * self.primary.value();
        let fraction = self.safe_fraction(payoff);
        let expected = payoff.max(self.safe_payoffs.value());
        let growth = growth(fraction, expected, self.safe_squares.value());
        Shown {
            samples,
            samples_needed: self.wealth.samples_needed(samples, growth),
            primary,
            candidate: primary + self.differences.sum / count,
            difference: self.differences.sum / count,
            lower: interval.lower,
            upper: interval.upper,
            bound: reach * primary - primary,
            problem: self.problem(),
        }
    }

    fn problem(&self) -> Option<String> {
        let due = self.differences.count + self.lost;
        (DUE_MIN <= due && due < LOST_ONE_IN * self.lost).then(|| {
            format!(
                "{} of {due} scores due in this stage were lost, more than 5%: \
                 see why the judge fails; a new stage or attempt counts afresh",
                self.lost
            )
        })
    }
}

/// The mean logarithmic gain of a stake, to the second order, by the mean of its payoff and of the
/// squared payoff.
pub(super) fn growth(fraction: f64, mean: f64, squares: f64) -> f64 {
    fraction * mean - 0.5 * fraction * fraction * squares
}

/// The logarithmic gains of the bets on harm from one payoff that is at least −1 and whose mean
/// is 0 where there is no regression.
///
/// `margin` is one margin in units of the payoff, `squares` the mean of the squared payoff. Where
/// the null allows some of it, that is taken away and the rest scaled back to −1.
pub(super) fn mean_gains(alarm: Alarm, (margin, payoff): (f64, f64), squares: f64) -> HarmGains {
    let bet = |multiple: f64, (allowed, taxed): (f64, Option<f64>)| {
        let scale = 1.0 + allowed;
        let mean = (multiple * margin - allowed) / scale;
        let squares = (squares / (scale * scale)).max(mean * mean * 1e-6);
        let fraction = (mean / (squares + mean * mean)).min(FRACTION_MAX);
        let tax = taxed.map_or(0.0, |part| growth(fraction, part * margin, squares).max(0.0));
        (fraction * (payoff - allowed) / scale).ln_1p() - tax
    };
    let (null, beyond) = match alarm {
        Alarm::From { part } => ((0.0, Some(part)), part * margin),
        Alarm::AtMargin => ((margin, None), margin),
    };
    HarmGains {
        harm: HARM_MULTIPLES.map(|multiple| bet(multiple, null)),
        beyond: BEYOND_MULTIPLES.map(|multiple| bet(multiple, (beyond, None))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis::{
        ledger::tests::reference_terms,
        tests::{assert_near, list, number, vectors},
    };

    #[test]
    fn wealth_is_that_of_the_reference() {
        let Some(vectors) = vectors() else { return };
        let case = &vectors["judge_gate"];
        let mut gate = Score::new(reference_terms());
        gate.enter(Some(0.95));
        gate.wealth.fund(0.4);
        for (scores, expected) in list(&case["scores"]).iter().zip(list(&case["ln_e"])) {
            gate.observe(number(&scores[0]), number(&scores[1]));
            assert_near(gate.wealth.ln_e()[0], &expected[0]);
            assert_near(gate.wealth.ln_e()[1], &expected[1]);
        }
    }

    #[test]
    fn a_far_better_candidate_is_proven_sooner_than_an_equal_one() {
        let scores_until_safe = |trust: f64| {
            let mut gate = Score::new(Terms { trust, ..reference_terms() });
            gate.enter(Some(0.95));
            let safe = 20.0_f64.ln();
            (1..2_000_u32).find(|turn| {
                // Three times in four the candidate is preferred outright.
                let candidate = if turn % 4 == 0 { 0.1 } else { 0.9 };
                gate.observe(1.0 - candidate, candidate);
                safe <= gate.wealth.ln_e()[1]
            })
        };
        let (slow, fast) = (scores_until_safe(0.0).unwrap(), scores_until_safe(0.5).unwrap());
        assert!(fast < 60 && 3 * fast < slow, "{fast} scores, the reference takes {slow}");
    }

    #[test]
    fn values_that_are_no_scores_count_as_lost() {
        let mut gate = Score::new(reference_terms());
        gate.enter(Some(0.95));
        for _ in 0..18 {
            gate.observe(0.5, 0.5);
        }
        gate.observe(f64::NAN, 0.5);
        assert_eq!(gate.problem(), None);
        gate.observe(0.5, 1.1);
        assert!(gate.problem().unwrap().starts_with("2 of 20 scores"));
        assert!(gate.shown().candidate.is_finite());
    }
}
