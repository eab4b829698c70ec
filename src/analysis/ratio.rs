//! The instrument for amounts: what the candidate's calls cost as a part of the primary's.

use serde::{Deserialize, Serialize};

use super::{
    bet::{SAFE_MULTIPLES, Wealth},
    float,
    gate::{Shown, Terms},
    interval::Differences,
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
        }
    }

    /// Begins a stage: the proof of safety and the counters start fresh.
    pub(super) fn enter(&mut self, margin: Option<Margin>) {
        self.wealth.renew_safe();
        (self.pairs, self.unknown, self.above) = (0, 0, 0);
        self.sums = Sums::default();
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
        let Margin { limit, expected, each_max, loss_max } = margin;
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

    fn safe_payoff(&self, Margin { limit, expected, each_max, loss_max }: Margin) -> f64 {
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
        Shown {
            samples: self.pairs,
            samples_needed: self.wealth.samples_needed(self.pairs, growth),
            primary: primary * each_max / count,
            candidate: candidate * each_max / count,
            difference: ratio * PERCENT,
            lower: lower * PERCENT,
            upper: upper * PERCENT,
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
        (PAIRS_MIN <= pairs && pairs < UNKNOWN_ONE_IN * self.unknown).then(|| {
            format!(
                "{} of {pairs} pairs have no known amount, more than 5%: give the prices of both \
                 providers, or see why they tell no usage",
                self.unknown
            )
        })
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
mod tests {
    use super::*;
    use crate::analysis::{
        ledger::tests::reference_terms,
        tests::{Random, assert_near, list, number, vectors},
    };
    use crate::domain::Verdict;

    const MARGIN: Margin =
        Margin { limit: 0.4, expected: 0.3, each_max: 0.040_96, loss_max: 0.040_96 };

    #[test]
    fn wealth_is_that_of_the_reference_where_it_clips_nothing() {
        let Some(vectors) = vectors() else { return };
        let case = &vectors["cost_gate"];
        let mut gate = Ratio::new(reference_terms());
        gate.primary = Mean::new(0.005 / MARGIN.each_max);
        gate.enter(Some(Margin { loss_max: 0.4 * MARGIN.each_max, ..MARGIN }));
        gate.wealth.fund(0.4);
        for (costs, expected) in list(&case["costs"]).iter().zip(list(&case["ln_e"])) {
            let (primary, candidate) = (number(&costs[0]), number(&costs[1]));
            assert!(candidate <= 0.4 * MARGIN.each_max);
            gate.observe(Some(primary), Some(candidate));
            assert_near(gate.wealth.ln_e()[0], &expected[0]);
            assert_near(gate.wealth.ln_e()[1], &expected[1]);
        }
    }

    /// Pairs of costs at a true ratio, until there is a verdict; how many it took.
    fn run(gate: &mut Ratio, seed: u64, ratio: f64) -> u32 {
        let mut random = Random(seed);
        for pairs in 1..=3_000 {
            let (both, ours, theirs) = (random.normal(), random.normal(), random.normal());
            let tokens = |own: f64| (400.0 * (0.72 * both + 0.36 * own).exp()).min(4_096.0);
            gate.observe(Some(tokens(ours) * 1e-5), Some(tokens(theirs) * 1e-5 * ratio));
            if gate.wealth.verdict() != Verdict::Undecided {
                return pairs;
            }
        }
        3_000
    }

    #[test]
    fn a_ratio_of_seventy_percent_never_passes_forty_and_thirty_does() {
        for seed in 0..100 {
            for (ratio, verdict) in [(0.7, Verdict::Breach), (0.3, Verdict::Pass)] {
                let mut gate = Ratio::new(reference_terms());
                gate.enter(Some(MARGIN));
                gate.wealth.fund(0.4);
                let pairs = run(&mut gate, seed, ratio);
                assert_eq!(gate.wealth.verdict(), verdict, "{ratio} after {pairs}");
                assert!(gate.shown().problem.is_none());
            }
        }
    }

    #[test]
    fn a_ratio_is_shown_in_percent_beside_the_mean_amounts() {
        let mut gate = Ratio::new(reference_terms());
        gate.enter(Some(MARGIN));
        for (primary, candidate) in [(0.01, 0.002), (0.03, 0.008)] {
            gate.observe(Some(primary), Some(candidate));
        }
        let Shown { primary, candidate, difference, bound, .. } = gate.shown();
        let shown = [primary, candidate, difference, bound].map(|it| format!("{it:.3}"));
        assert_eq!(shown, ["0.020", "0.005", "25.000", "40.000"]);
    }

    /// A tenth of a mean of 0.12 is hoped for a pair, and 0.9 is staked on payoffs whose square
    /// is 0.01: ln 20 / (0.9 · 0.012 − 0.81 · 0.01 / 2).
    #[test]
    fn before_any_pair_the_samples_needed_are_those_of_the_guess() {
        let mut gate = Ratio::new(reference_terms());
        gate.enter(Some(MARGIN));
        assert_eq!(gate.shown().samples_needed, Some(444));
    }

    /// A small stake grows fastest if it is the mean payoff by the mean of its square.
    #[test]
    fn what_is_staked_on_safety_is_best_where_the_ratio_is_as_expected() {
        let (mut gate, mut random) = (Ratio::new(reference_terms()), Random(2));
        gate.enter(Some(MARGIN));
        let (mut sum, mut squares) = (0.0, 0.0);
        for _ in 0..50_000 {
            // A few dear calls, and all others for nothing.
            let dear = |it| if it { 0.04 } else { 0.0 };
            let (primary, candidate) = (dear(random.happens(0.1)), dear(random.happens(0.03)));
            gate.observe(Some(primary), Some(candidate));
            let payoff = (0.4 * primary - candidate) / MARGIN.each_max;
            (sum, squares) = (sum + payoff, squares + payoff * payoff);
        }
        let staked = gate.safe_fraction(MARGIN);
        assert!((staked / (sum / squares) - 1.0).abs() < 0.05, "{staked} {}", sum / squares);
    }

    /// Sums over pairs tell as much as the pairs themselves.
    #[test]
    fn the_excess_over_a_ratio_is_that_of_each_pair() {
        for ratio in [0.3, 2.5] {
            let (mut gate, mut random) = (Ratio::new(reference_terms()), Random(3));
            gate.enter(Some(MARGIN));
            let mut each = Differences::default();
            for _ in 0..50 {
                let [primary, candidate] = [0.04, 0.02].map(|it| it * random.uniform());
                gate.observe(Some(primary), Some(candidate));
                each.add((candidate - ratio * primary) / MARGIN.each_max / ratio.max(1.0));
            }
            let excess = gate.excess(ratio);
            assert_eq!(excess.count, each.count);
            assert!((excess.sum - each.sum).abs() < 1e-9, "{excess:?} {each:?}");
            assert!((excess.squares - each.squares).abs() < 1e-9, "{excess:?} {each:?}");
        }
    }

    #[test]
    fn an_amount_above_the_bound_is_not_clipped_but_invalid() {
        let mut gate = Ratio::new(reference_terms());
        gate.enter(Some(MARGIN));
        gate.observe(Some(0.01), Some(0.05));
        let shown = gate.shown();
        assert_eq!(shown.samples, 0);
        assert!(shown.problem.unwrap().starts_with("1 of 1 pairs came above 0.04096"));
    }

    #[test]
    fn an_unknown_amount_is_unknown_and_never_zero() {
        let mut gate = Ratio::new(reference_terms());
        gate.enter(Some(MARGIN));
        for unknown in [None, Some(f64::NAN), Some(f64::INFINITY), Some(-0.001)] {
            (0..9).for_each(|_| gate.observe(Some(0.01), Some(0.003)));
            gate.observe(Some(0.01), unknown);
        }
        assert!(gate.shown().problem.unwrap().starts_with("4 of 40 pairs have no known amount"));
        assert!((gate.shown().difference - 30.0).abs() < 1e-9);
    }

    /// Thirty percent are known, and one pair in thirty hides forty times as much.
    #[test]
    fn what_is_not_known_or_lost_never_adds_up_to_a_proof() {
        for hide in [|gate: &mut Ratio| gate.observe(Some(0.01), None), Ratio::lose] {
            for seed in 0..20 {
                let (mut gate, mut random) = (Ratio::new(reference_terms()), Random(seed));
                gate.enter(Some(MARGIN));
                for pairs in 0..3_000 {
                    if random.happens(1.0 / 30.0) {
                        hide(&mut gate);
                    } else {
                        gate.observe(Some(0.01), Some(0.003));
                    }
                    assert_eq!(gate.wealth.verdict(), Verdict::Undecided, "{seed}, {pairs}");
                }
            }
        }
    }

    #[test]
    fn a_few_unknown_amounts_only_make_the_proof_longer() {
        let mut gate = Ratio::new(reference_terms());
        gate.enter(Some(MARGIN));
        let proven = (1..20_000).find(|pair| {
            let candidate = (pair % 200 != 50).then_some(0.003);
            gate.observe(Some(0.01), candidate);
            gate.wealth.verdict() == Verdict::Pass
        });
        assert!(proven.is_some_and(|it| 152 < it), "{proven:?}");
    }

    #[test]
    fn one_unknown_amount_in_twenty_is_borne_and_more_are_not() {
        for (known, unknown, many) in [(0, 19, false), (19, 1, false), (18, 2, true)] {
            let mut gate = Ratio::new(reference_terms());
            gate.enter(Some(MARGIN));
            (0..known).for_each(|_| gate.observe(Some(0.01), Some(0.003)));
            (0..unknown).for_each(|_| gate.observe(Some(0.01), None));
            assert_eq!(gate.shown().problem.is_some(), many, "{unknown} beside {known}");
        }
    }

    #[test]
    fn the_interval_of_a_ratio_holds_it_and_narrows() {
        let mut gate = Ratio::new(reference_terms());
        gate.enter(Some(MARGIN));
        let nothing = gate.shown();
        assert!(nothing.lower < 1e-9 && nothing.upper.is_infinite());
        let mut random = Random(5);
        for _ in 0..3_000 {
            let amount = 0.001 + 0.01 * random.uniform();
            gate.observe(Some(amount), Some(0.3 * amount * (0.5 + random.uniform())));
        }
        let Shown { lower, upper, .. } = gate.shown();
        assert!(lower < 30.0 && 30.0 < upper && upper - lower < 12.0, "{lower} {upper}");
    }
}
