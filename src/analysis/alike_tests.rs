//! How metrics behave that are read off both answers of a pair.

use crate::analysis::{
    Chances, Ledger, Observation, Sample,
    ledger::tests::plan,
    tests::{Random, call},
};
use crate::domain::{Check, Checks, Lot, Margin, Metric, Outcome, Plan, Share, Timestamp, Verdict};

/// The gates of the default ladder, with this margin in place of theirs.
fn with_margin(metric: Metric, text: &str) -> Plan {
    let mut plan = plan(&[metric]);
    for gate in plan.stages.iter_mut().flat_map(|it| &mut it.gates) {
        gate.margin = Margin::parse(metric, text).unwrap();
    }
    plan
}

fn matching(kept: bool) -> Sample {
    let checks = Checks::default().with(Check::ExactMatch, Some(kept));
    Sample { checks, ..call(Outcome::Ok, 900.0) }
}

fn pair(candidate: Sample) -> Observation {
    let (primary, candidate) = (Some(matching(true)), Some(candidate));
    Observation { lot: Some(Lot::Once), primary, candidate, watched: String::new() }
}

/// Plays candidates that so often say something else. How many of twelve passed, and were broken.
fn play(different: f64, text: &str, noise: Option<f64>) -> (u32, u32) {
    let plan = with_margin(Metric::ExactMatchRate, text);
    let (mut passed, mut broken) = (0, 0);
    for seed in 1..13 {
        let (mut ledger, mut random) = (Ledger::new(&plan), Random(seed));
        ledger.enter(0, Timestamp(0), Chances::of(&plan.stages[0]));
        for step in 0..4_000_u64 {
            let at = Timestamp(step * 100);
            if let Some(noise) = noise {
                ledger.observe_noise(at, &pair(matching(!random.happens(noise))));
            }
            ledger.observe(at, &pair(matching(!random.happens(different))));
            // Of a request with one side nothing is compared.
            let solo = Observation {
                lot: Some(Lot::Once),
                primary: None,
                candidate: Some(call(Outcome::Ok, 900.0)),
                watched: String::new(),
            };
            ledger.observe(at, &solo);
            if ledger.is_broken() {
                broken += 1;
                break;
            }
            if ledger.unproven().next().is_none() {
                passed += 1;
                break;
            }
        }
        let samples = ledger.evidence().gates[0].samples;
        assert!(samples <= 4_000 && 0 < samples, "{samples}");
    }
    (passed, broken)
}

/// M16
#[test]
fn what_differs_less_than_it_may_is_no_harm_and_what_differs_more_is() {
    assert_eq!(play(0.0, "-5pp", None), (12, 0));
    assert_eq!(play(0.03, "-5pp", None), (12, 0));
    let (passed, broken) = play(0.045, "-5pp", None);
    assert!(broken == 0, "within the margin: {passed} {broken}");
    let (passed, broken) = play(0.055, "-5pp", None);
    assert!(passed <= 1, "beyond it: {passed} {broken}");
    assert_eq!(play(0.1, "-5pp", None), (0, 12));
}

#[test]
fn the_noise_of_the_primary_counts_where_the_margin_says_so_and_nowhere_else() {
    assert_eq!(play(0.1, "-5pp", Some(0.1)), (0, 12));
    let (passed, broken) = play(0.1, "-5pp beyond noise", Some(0.1));
    assert!(6 <= passed && broken == 0, "as the primary itself: {passed} {broken}");
    let (passed, broken) = play(0.3, "-5pp beyond noise", Some(0.1));
    assert!(passed == 0 && 11 <= broken, "far more: {passed} {broken}");
}

#[test]
fn in_a_stage_that_serves_pairs_alone_count_whatever_the_lots() {
    let mut plan = with_margin(Metric::ExactMatchRate, "-5pp");
    let stage = &mut plan.stages[1];
    let half = Share::from_basis_points(5_000).unwrap();
    (stage.serve, stage.mirror) = (half, half);
    let mut ledger = Ledger::new(&plan);
    ledger.enter(1, Timestamp(0), Chances::of(&plan.stages[1]));
    for step in 0..1_000 {
        ledger.observe(Timestamp(step * 100), &pair(matching(step % 10 != 0)));
    }
    let gate = ledger.evidence().gates.remove(0);
    assert!((gate.difference + 10.0).abs() < 1e-9 && gate.samples == 1_000, "{gate:?}");
    assert!(-15.0 < gate.lower && gate.upper < -5.0, "{gate:?}");
    assert_eq!((gate.verdict, gate.alarm_from_percent), (Verdict::Breach, 100));
}

#[test]
fn likeness_is_the_mean_over_pairs_and_broken_below_its_bound_alone() {
    let run = |like: [f64; 2]| {
        let plan = with_margin(Metric::RougeL, ">= 50%");
        let mut ledger = Ledger::new(&plan);
        ledger.enter(0, Timestamp(0), Chances::of(&plan.stages[0]));
        for step in 0..400 {
            let rouge_l = Some(like[usize::try_from(step % 2).unwrap()]);
            ledger.observe(Timestamp(step * 100), &pair(Sample { rouge_l, ..matching(true) }));
            ledger.observe(Timestamp(step * 100), &pair(matching(true)));
        }
        let gate = ledger.evidence().gates.remove(0);
        let mut again = Ledger::new(&plan);
        assert!(again.decode(Timestamp(u64::MAX), &ledger.encode()));
        assert_eq!(again.evidence().gates[0], gate);
        gate
    };
    let gate = run([0.7, 0.9]);
    assert_eq!((gate.verdict, gate.samples), (Verdict::Pass, 400), "{gate:?}");
    assert!((gate.candidate - 0.8).abs() < 1e-9 && (gate.bound + 0.5).abs() < 1e-9, "{gate:?}");
    // Alike throughout is what is wanted, and no sign that nobody looks.
    assert_eq!(run([1.0, 1.0]).verdict, Verdict::Pass);
    assert_eq!(run([0.5, 0.6]).verdict, Verdict::Pass);
    assert_eq!(run([0.2, 0.4]).verdict, Verdict::Breach);
    assert_eq!(run([0.5, 0.5]).verdict, Verdict::Undecided);
}
