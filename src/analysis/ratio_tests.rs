//! What is proven of amounts, and what cannot be.

use super::*;
use crate::analysis::{
    ledger::tests::reference_terms,
    tests::{Random, assert_near, call, list, number, vectors},
};
use crate::domain::{Outcome, Verdict};

const MARGIN: Margin = Margin {
    limit: 0.4,
    expected: 0.3,
    each_max: 0.040_96,
    loss_max: 0.040_96,
    estimated_max: 0.5,
};

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
fn what_rests_on_estimates_for_more_than_may_is_invalid_and_says_how_much_does() {
    let sample = |estimated, input_tokens| {
        let usual = call(Outcome::Ok, 1.0);
        Sample { input_tokens, estimated, ..usual }
    };
    let (told, guessed) = (sample(false, Some(100)), sample(true, None));
    let more = sample(false, Some(125));
    let mut gate = Ratio::new(reference_terms());
    gate.enter(Some(MARGIN));
    for step in 0..40 {
        gate.observe(Some(0.03), Some(0.01));
        // Half of the primary's calls are half of what it was paid.
        let primary = if step % 2 == 0 { &guessed } else { &told };
        gate.rest_on([Some(0.03), Some(0.01)], [primary, &more]);
    }
    let Basis { estimated_percent, input_tokens } = gate.basis();
    assert!((estimated_percent - 50.0).abs() < 1e-9, "{estimated_percent}");
    assert_eq!(input_tokens, Some((100.0, 125.0)));
    assert_eq!(gate.shown().problem, None);
    gate.enter(Some(Margin { estimated_max: 0.5, ..MARGIN }));
    assert_eq!(gate.basis(), Basis { estimated_percent: 0.0, input_tokens: None });
    for step in 0..40 {
        gate.observe(Some(0.03), Some(0.01));
        let candidate = if step % 4 == 0 { &guessed } else { &told };
        gate.rest_on([Some(0.03), Some(0.01)], [&told, candidate]);
    }
    assert_eq!(gate.shown().problem, None, "a quarter is less");
    gate.rest_on([Some(1.0), None], [&guessed, &told]);
    assert_eq!(gate.shown().problem, None, "what is not known is no estimate");
    for _ in 0..80 {
        gate.observe(Some(0.03), Some(0.01));
        gate.rest_on([Some(0.03), Some(0.01)], [&guessed, &told]);
    }
    let problem = gate.shown().problem.unwrap();
    assert!(problem.starts_with("67% of a side's rests on estimates"), "{problem}");
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

/// However cheap the guess makes it, all of the candidate's cost is one.
#[test]
fn a_side_of_which_nothing_is_told_rests_on_estimates_alone() {
    let told = call(Outcome::Ok, 1.0);
    let guessed = Sample { estimated: true, ..told };
    for side in [[&told, &guessed], [&guessed, &told]] {
        let mut gate = Ratio::new(reference_terms());
        gate.enter(Some(MARGIN));
        for _ in 0..40 {
            gate.observe(Some(0.03), Some(0.0003));
            gate.rest_on([Some(0.03), Some(0.0003)], side);
        }
        let problem = gate.shown().problem.unwrap();
        assert!(problem.starts_with("100% of a side's rests on estimates"), "{problem}");
    }
}
