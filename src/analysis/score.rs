//! The gate on judged scores.

use serde::{Deserialize, Serialize};

use crate::domain::{self, Side};

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
    reach: Option<f64>,
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
    /// Whose answer was shown first; none where nobody noted it.
    pub first: Option<Side>,
    /// Who gave them: of another judge nothing is known yet.
    pub source: String,
}

impl Marks {
    /// Those of answers that nobody saw side by side, or nobody knows in which order.
    pub fn unplaced(primary: f64, candidate: f64) -> Self {
        Self { primary, candidate, first: None, source: String::new() }
    }

    /// Those of a score.
    pub fn of(score: &domain::Score) -> Self {
        let (primary, candidate, source) = (score.primary, score.candidate, score.source.clone());
        Self { primary, candidate, first: score.first, source }
    }

    /// Whether the answer that stood first was marked higher; none where it is not known which it
    /// was, or both were marked alike.
    fn first_is_higher(&self) -> Option<bool> {
        let apart = self.primary.partial_cmp(&self.candidate).filter(|it| it.is_ne())?;
        Some(self.first? == if apart.is_gt() { Side::Primary } else { Side::Candidate })
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
        (self.sum, self.differences, self.lost) = (0.0, Differences::default(), 0);
        (self.first, self.varies, self.position) = (None, false, Position::new());
        self.reach = reach;
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
        if self.source != marks.source {
            // The first one is no other one: what was lost before it speaks was its own to say.
            if !self.source.is_empty() {
                self.wealth.forgive();
                self.enter(self.reach);
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
        if let Some(first_is_higher) = marks.first_is_higher() {
            self.position.observe(first_is_higher);
        }
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
            bound: reach * primary - primary,
            problem: self.problem(),
        }
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
        stuck.or_else(|| self.position.problem())
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
mod tests {
    use super::*;
    use crate::analysis::{
        instrument::Instrument,
        ledger::tests::reference_terms,
        tests::{assert_near, list, number, vectors},
    };
    use crate::domain::{Gate, Margin, Metric, Role, Verdict};

    #[test]
    fn wealth_is_that_of_the_reference() {
        let Some(vectors) = vectors() else { return };
        let case = &vectors["judge_gate"];
        let mut gate = Score::new(reference_terms());
        gate.enter(Some(0.95));
        gate.wealth.fund(0.4);
        for (scores, expected) in list(&case["scores"]).iter().zip(list(&case["ln_e"])) {
            gate.observe(&Marks::unplaced(number(&scores[0]), number(&scores[1])));
            assert_near(gate.wealth.ln_e()[0], &expected[0]);
            assert_near(gate.wealth.ln_e()[1], &expected[1]);
        }
    }

    /// B-23
    #[test]
    fn a_judge_that_tells_nothing_apart_proves_nothing() {
        let mut gate = Score::new(reference_terms());
        gate.enter(Some(0.95));
        (0..200).for_each(|_| gate.observe(&Marks::unplaced(0.9, 0.9)));
        let problem = gate.shown().problem.unwrap();
        assert!(problem.starts_with("all 200 answers of both sides"), "{problem}");
        gate.observe(&Marks::unplaced(0.9, 0.8));
        assert_eq!(gate.shown().problem, None, "it does tell answers apart");
        gate.enter(Some(0.95));
        (0..19).for_each(|_| gate.observe(&Marks::unplaced(0.9, 0.9)));
        assert_eq!(gate.shown().problem, None, "too few to say");
        gate.observe(&Marks::unplaced(0.9, 0.9));
        assert!(gate.shown().problem.is_some(), "each stage asks anew");
    }

    /// O1
    #[test]
    fn a_judge_that_fails_sends_nobody_back_and_what_was_proven_counts_once_it_is_well() {
        let mut gate = Score::new(reference_terms());
        gate.enter(Some(0.95));
        gate.wealth.fund(1.0);
        let verdict = |gate: &Score| {
            let margin = Margin::default_of(Metric::JudgeScore);
            let asked = Gate { margin, role: Role::Prove };
            Instrument::Score(gate.clone()).evidence(asked, reference_terms()).verdict
        };
        for _ in 0..60 {
            gate.observe(&Marks::unplaced(0.9, 0.3));
            gate.lose();
        }
        assert!(gate.wealth.is_breached());
        assert_eq!(verdict(&gate), Verdict::Invalid, "half of the scores are lost");
        (0..1_200).for_each(|_| gate.observe(&Marks::unplaced(0.9, 0.3)));
        assert_eq!(verdict(&gate), Verdict::Breach);
    }

    #[test]
    fn of_another_judge_nothing_is_known_yet() {
        let mut gate = Score::new(reference_terms());
        gate.enter(Some(0.95));
        let marks = |source: &str| Marks {
            first: Some(Side::Primary),
            source: source.to_owned(),
            ..Marks::unplaced(0.9, 0.8)
        };
        (0..60).for_each(|_| gate.observe(&marks("judge:one@rubric-1")));
        assert!(gate.problem().unwrap().contains("stood first"));
        gate.observe(&marks("judge:two@rubric-1"));
        assert_eq!((gate.problem(), gate.shown().samples), (None, 1));
        // What was lost before a judge's first word stays lost.
        let mut gate = Score::new(reference_terms());
        gate.enter(Some(0.95));
        (0..20).for_each(|_| gate.lose());
        gate.observe(&marks("judge:one@rubric-1"));
        assert!(gate.problem().unwrap().starts_with("20 of 21 scores"));
    }

    #[test]
    fn what_nobody_could_believe_sends_nobody_back_later() {
        let broken = |then: fn(&mut Score)| {
            let mut gate = Score::new(reference_terms());
            gate.enter(Some(0.95));
            gate.wealth.fund(1.0);
            for _ in 0..60 {
                let source = "one".to_owned();
                gate.observe(&Marks { source, ..Marks::unplaced(0.9, 0.3) });
                gate.lose();
            }
            assert!(gate.wealth.is_breached() && gate.problem().is_some());
            then(&mut gate);
            let source = gate.source.clone();
            gate.observe(&Marks { source: source.clone(), ..Marks::unplaced(0.9, 0.3) });
            let at_once = gate.wealth.is_breached();
            for _ in 0..60 {
                gate.observe(&Marks { source: source.clone(), ..Marks::unplaced(0.9, 0.3) });
            }
            assert!(gate.problem().is_none() && gate.wealth.is_breached(), "it is proven anew");
            at_once
        };
        assert!(!broken(|gate| gate.enter(Some(0.95))), "in the next stage");
        let other = |gate: &mut Score| {
            gate.observe(&Marks { source: "two".to_owned(), ..Marks::unplaced(0.9, 0.9) });
        };
        assert!(!broken(other), "by another judge");
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
                gate.observe(&Marks::unplaced(1.0 - candidate, candidate));
                safe <= gate.wealth.ln_e()[1]
            })
        };
        let (slow, fast) = (scores_until_safe(0.0).unwrap(), scores_until_safe(0.5).unwrap());
        assert!(fast < 60 && 3 * fast < slow, "{fast} scores, the reference takes {slow}");
    }

    /// Mean factors of the wealth where a payoff is -1 or 1 and has this mean.
    fn factors(alarm: Alarm, margin: f64, mean: f64) -> [[f64; 4]; 2] {
        let [won, lost] = [1.0, -1.0].map(|payoff| mean_gains(alarm, (margin, payoff), 1.0));
        let chance = 0.5 + 0.5 * mean;
        let factor = |won: f64, lost: f64| chance * won.exp() + (1.0 - chance) * lost.exp();
        let factors =
            |won: [f64; 4], lost: [f64; 4]| std::array::from_fn(|it| factor(won[it], lost[it]));
        [factors(won.harm, lost.harm), factors(won.beyond, lost.beyond)]
    }

    #[test]
    fn bets_on_harm_are_fair_at_what_the_null_allows_and_grow_beyond_it() {
        let (part, margin) = (0.7, 0.04);
        let alarm = Alarm::From { part };
        let is_fair = |factors: [f64; 4]| factors.iter().all(|it| (it - 1.0).abs() < 1e-12);
        let [harm, _] = factors(alarm, margin, 0.0);
        assert!(harm.iter().all(|it| *it <= 1.0), "what is taxed is worse than fair: {harm:?}");
        assert!(is_fair(factors(alarm, margin, part * margin)[1]));
        assert!(factors(Alarm::AtMargin, margin, margin).into_iter().all(is_fair));
        for alarm in [alarm, Alarm::AtMargin] {
            let grown = factors(alarm, margin, 3.0 * margin);
            assert!(grown.as_flattened().iter().all(|it| 1.0 < *it), "{grown:?}");
        }
    }

    /// A bettor makes the most of the regression that it is best against.
    #[test]
    fn no_other_stake_on_harm_grows_much_faster() {
        for (margin, bettor) in [(0.04, 0), (0.04, 1), (0.2, 0)] {
            let multiple = BEYOND_MULTIPLES[bettor];
            let chance = 0.5 + 0.5 * multiple * margin;
            let growth = |won: f64, lost: f64| chance * won + (1.0 - chance) * lost;
            let [won, lost] = [1.0, -1.0]
                .map(|payoff| mean_gains(Alarm::AtMargin, (margin, payoff), 1.0).beyond[bettor]);
            let staked = |fraction: f64| {
                let gain = |payoff: f64| (fraction * (payoff - margin) / (1.0 + margin)).ln_1p();
                growth(gain(1.0), gain(-1.0))
            };
            let best = (1..97_u32).map(|it| staked(f64::from(it) / 100.0)).fold(0.0, f64::max);
            let ours = growth(won, lost);
            assert!(0.95 * best < ours, "{margin} {multiple}: {ours} {best}");
        }
    }

    #[test]
    fn no_bet_on_harm_risks_more_than_nine_tenths() {
        let gains = |alarm| mean_gains(alarm, (0.5, -1.0), 1e-9);
        let (strict, usual) = (gains(Alarm::AtMargin), gains(Alarm::From { part: 0.7 }));
        let kept = [strict.harm[0], strict.beyond[0], usual.beyond[0]];
        assert_eq!(kept.map(|it| format!("{:.3}", it.exp())), ["0.100"; 3]);
    }

    #[test]
    fn values_that_are_no_scores_count_as_lost() {
        let mut gate = Score::new(reference_terms());
        gate.enter(Some(0.95));
        for _ in 0..18 {
            gate.observe(&Marks::unplaced(0.5, 0.5));
        }
        gate.observe(&Marks::unplaced(f64::NAN, 0.5));
        assert_eq!(gate.problem(), None);
        gate.observe(&Marks::unplaced(0.5, 1.1));
        assert!(gate.problem().unwrap().starts_with("2 of 20 scores"));
        assert!(gate.shown().candidate.is_finite());
        gate.enter(Some(0.95));
        (0..19).for_each(|_| gate.observe(&Marks::unplaced(0.5, 0.5)));
        gate.lose();
        assert_eq!(gate.problem(), None);
    }

    #[test]
    fn means_are_shown_and_what_may_be_missing_from_the_primarys() {
        let mut gate = Score::new(reference_terms());
        gate.enter(Some(0.95));
        gate.observe(&Marks::unplaced(0.8, 0.6));
        gate.observe(&Marks::unplaced(0.6, 0.5));
        let Shown { samples, primary, candidate, difference, bound, .. } = gate.shown();
        let shown = [primary, candidate, difference, bound].map(|it| format!("{it:.3}"));
        assert_eq!((samples, shown), (2, ["0.700", "0.550", "-0.150", "-0.035"].map(String::from)));
    }

    /// Of a mean of 0.8 a twentieth may be missing. The payoff on it is a nineteenth of 0.8 and
    /// its square 0.05, of which the best stake makes ln 20 at 0.0421² / 0.05 / 2 a pair.
    #[test]
    fn before_any_score_the_samples_needed_are_those_of_the_guess() {
        let mut gate = Score::new(reference_terms());
        gate.enter(Some(0.95));
        assert_eq!(gate.shown().samples_needed, Some(169));
    }
}
