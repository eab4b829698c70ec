//! What scores prove, and when a judge cannot be believed.

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
        placed: Some(Placed::Once(Side::Primary)),
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
    assert!(!broken(Score::disown), "by the same, which was found unfit");
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

#[test]
fn what_a_rule_marked_speaks_against_safety_and_says_nothing_of_harm() {
    let marks = |source: &str, candidate| Marks {
        source: source.to_owned(),
        ..Marks::unplaced(0.9, candidate)
    };
    let mut gate = Score::new(reference_terms());
    gate.enter(Some(0.95));
    gate.wealth.fund(1.0);
    let ln_e = |gate: &Score| gate.wealth.ln_e();
    (0..19).for_each(|_| gate.observe(&marks("judge:m@r", 0.9)));
    let [harm, safe] = ln_e(&gate);
    gate.observe(&marks("rule:repeated", 0.0));
    let [harm_then, safe_then] = ln_e(&gate);
    assert_eq!(harm.to_bits(), harm_then.to_bits(), "nobody looked at it");
    assert!(safe_then < safe);
    // A rule is no other judge: what is known of this one is still known.
    assert_eq!((gate.shown().samples, gate.shown().problem), (19, None));
    gate.observe(&marks("rule:empty", 0.0));
    let problem = gate.shown().problem.unwrap();
    assert!(problem.starts_with("in 2 of 21 pairs the candidate said nothing"), "{problem}");
    assert_eq!(gate.problem(), None, "the judge is believed all the same");
    // However the judge loves what it is shown, nothing is proven of one that repeats itself.
    for _ in 0..2_000 {
        gate.observe(&marks("judge:m@r", 1.0));
        (0..3).for_each(|_| gate.observe(&marks("rule:repeated", 0.0)));
        assert!(ln_e(&gate)[1] < 20.0_f64.ln());
    }
}
