//! The gate on judged scores.

use serde::{Deserialize, Serialize};

use crate::domain::{self, Placed, Side};

use super::{
    bet::{BEYOND_MULTIPLES, HARM_MULTIPLES, HarmGains, SAFE_MULTIPLES, Wealth},
    float,
    gate::{Shown, Terms},
    interval::Differences,
    odds::Alarm,
    position::Position,
};

/// Most of the wealth that is staked at once.
const FRACTION_MAX: f64 = 0.9;
/// Scores the running means begin with, before any is seen, and what they are.
const SCORES_PRIOR: f64 = 10.0;
const MEAN_PRIOR: f64 = 0.8;
const SQUARES_PRIOR: f64 = 0.05;
/// Due scores before it is looked at what is lost, and whether they are all the same.
const DUE_MIN: u64 = 20;
/// One in so many due scores may be lost; what is lost may not be lost by chance.
const LOST_ONE_IN: u64 = 20;

/// Bets on who scores lower, a pair of scores at a time.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Score {
    pub(super) wealth: Wealth,
    terms: Terms,
    /// Part of the primary's mean that must be reached; none where the gate is not set.
    pub(super) reach: Option<f64>,
    /// Running means of this attempt: the primary's score, and both payoffs squared.
    pub(super) primary: Mean,
    pub(super) harm_squares: Mean,
    pub(super) safe_squares: Mean,
    /// Running mean of the payoff on safety, beginning at none.
    safe_payoffs: Mean,
    /// In this stage.
    sum: f64,
    differences: Differences,
    lost: u64,
    /// Pairs that a rule marked in place of the judge.
    ruled: u64,
    /// The first score, and whether another one was different.
    first: Option<f64>,
    varies: bool,
    position: Position,
    /// Who judges.
    source: String,
}

/// How the answers of a pair were marked.
#[derive(Clone, Debug)]
pub struct Marks {
    /// The primary's, 0 to 1.
    pub primary: f64,
    /// The candidate's, 0 to 1.
    pub candidate: f64,
    /// In which places the answers were shown; none where nobody noted it.
    pub placed: Option<Placed>,
    /// Who gave them: of another judge nothing is known yet.
    pub source: String,
}

impl Marks {
    /// Those of answers that nobody saw side by side, or nobody knows in which order.
    pub fn unplaced(primary: f64, candidate: f64) -> Self {
        Self { primary, candidate, placed: None, source: String::new() }
    }

    /// Those of a score.
    pub fn of(score: &domain::Score) -> Self {
        let (primary, candidate, source) = (score.primary, score.candidate, score.source.clone());
        Self { primary, candidate, placed: score.placed, source }
    }

    /// Whose answer was marked higher; none where both were marked alike.
    pub(super) fn higher(&self) -> Option<Side> {
        let apart = self.primary.partial_cmp(&self.candidate).filter(|it| it.is_ne())?;
        Some(if apart.is_gt() { Side::Primary } else { Side::Candidate })
    }
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
            ruled: 0,
            first: None,
            varies: false,
            position: Position::new(),
            source: String::new(),
        }
    }

    /// Begins a stage: the proof of safety and the counters start fresh.
    pub(super) fn enter(&mut self, reach: Option<f64>) {
        if self.problem().is_some() {
            self.wealth.forgive();
        }
        self.wealth.renew_safe();
        (self.sum, self.differences) = (0.0, Differences::default());
        (self.lost, self.ruled) = (0, 0);
        (self.first, self.varies, self.position) = (None, false, Position::new());
        self.reach = reach;
    }

    /// Forgets what was said so far: another one judges now, or the one who did was found unfit.
    pub(super) fn disown(&mut self) {
        self.wealth.forgive();
        self.enter(self.reach);
    }

    /// A score that was due and cannot be had: it may have been the worst.
    pub(super) fn lose(&mut self) {
        self.lost += 1;
        self.suppose(1.0);
    }

    /// A copy that was made and of which nothing came: with this chance it would have been
    /// judged, and then it may have been the worst.
    pub(super) fn lose_copy(&mut self, judged: f64) {
        self.suppose(judged);
    }

    /// Takes the worst payoff that a pair of scores has, −1, as a loss on safety alone.
    fn suppose(&mut self, chance: f64) {
        let Some(reach) = self.reach else { return };
        let margin = (1.0 - reach) * self.primary.value();
        let fraction = self.safe_fraction(margin / reach);
        let loss = |multiple: f64| (-chance * fraction * multiple).ln_1p();
        self.wealth.lose_safe(SAFE_MULTIPLES.map(loss));
    }

    /// Bets on a pair of scores with stakes made from the earlier ones.
    pub(super) fn observe(&mut self, marks: &Marks) {
        let Marks { primary, candidate, .. } = *marks;
        if marks.source.starts_with(domain::Score::RULE) {
            // What no judge looked at speaks against safety alone: harm is for a judge to say, or
            // for a gate on the rule itself.
            self.ruled += 1;
            self.suppose(1.0);
            return;
        }
        if self.source != marks.source {
            // The first one is no other one: what was lost before it speaks was its own to say.
            if !self.source.is_empty() {
                self.disown();
            }
            self.source.clone_from(&marks.source);
        }
        if ![primary, candidate].iter().all(|it| (0.0..=1.0).contains(it)) {
            self.lose();
            return;
        }
        if let Some(reach) = self.reach {
            self.bet(reach, primary, candidate);
        }
        let first = *self.first.get_or_insert(primary);
        self.position.observe(marks);
        self.varies |= [primary, candidate].iter().any(|it| it.to_bits() != first.to_bits());
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
            fixed: Some(self.differences.fixed()),
            bound: reach * primary - primary,
            problem: self.problem().or_else(|| self.unjudgeable()),
        }
    }

    /// Why no judge can prove safety here: too many answers were not worth its while.
    fn unjudgeable(&self) -> Option<String> {
        let (count, ruled) = (self.differences.count, self.ruled);
        let due = count + ruled;
        (DUE_MIN <= due && due < LOST_ONE_IN * ruled).then(|| {
            format!(
                "in {ruled} of {due} pairs the candidate said nothing, or what it had said to other \
                 questions: no judge is asked of that, and it counts as the lowest mark; see its \
                 answers (`crossfade pairs`), or gate labels by rules in place of judge_score"
            )
        })
    }

    /// Why the judge cannot be believed.
    pub(super) fn problem(&self) -> Option<String> {
        let (count, lost) = (self.differences.count, self.lost);
        let due = count + lost;
        if DUE_MIN <= due && due < LOST_ONE_IN * lost {
            return Some(format!(
                "{lost} of {due} scores due in this stage were lost, more than 5%: \
                 see why the judge fails; a new stage or attempt counts afresh"
            ));
        }
        let alike = DUE_MIN <= count && !self.varies;
        let stuck = self.first.filter(|_| alike).map(|score| {
            format!(
                "all {count} answers of both sides were given the same score, {score}: a judge that \
                 tells nothing apart proves nothing; see what it is asked and what it says"
            )
        });
        self.position.problem().or(stuck)
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
/// the null allows some of it, that is taken away, and the stake is kept below what may be lost.
pub(super) fn mean_gains(alarm: Alarm, (margin, payoff): (f64, f64), squares: f64) -> HarmGains {
    let bet = |multiple: f64, (allowed, taxed): (f64, Option<f64>)| {
        let mean = multiple * margin - allowed;
        let fraction = (mean / (squares + mean * mean)).min(FRACTION_MAX / (1.0 + allowed));
        let tax = taxed.map_or(0.0, |part| growth(fraction, part * margin, squares).max(0.0));
        (fraction * (payoff - allowed)).ln_1p() - tax
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
#[path = "score_tests.rs"]
mod tests;
