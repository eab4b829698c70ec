//! What was lost on the way never adds up to a proof.

use super::tests::{Draws, LATER, SHADOW, plan};
use super::*;
use crate::analysis::{
    Marks,
    tests::{Random, call},
};
use crate::domain::{Excluded, Outcome, Verdict};

#[test]
fn lost_copies_of_failures_never_prove_safety() {
    for seed in 0..5 {
        let mut draws = Draws::new(&plan(&[Metric::ErrorRate]), seed, SHADOW);
        for _ in 0..60_000 {
            let (_, candidate) = draws.draw();
            let (ours, theirs) = (draws.random.call(0.002, 1.0), draws.random.call(0.012, 1.0));
            if candidate && theirs.outcome.failed() {
                // Its copy is lost, so it is seen on neither side.
                draws.ledger.copy_lost(Timestamp(draws.requests * 10));
                continue;
            }
            draws.see(Lot::Once, (Some(ours), candidate.then_some(theirs)));
            let wealth =
                draws.ledger.instrument(Metric::ErrorRate, None).unwrap().wealth().unwrap();
            assert_ne!(wealth.verdict(), Verdict::Pass, "after {} requests", draws.requests);
        }
    }
}

#[test]
fn lost_copies_are_counted_and_shown() {
    let mut ledger = Draws::new(&plan(&[Metric::ErrorRate]), 1, SHADOW).ledger;
    for second in 1..=20 {
        ledger.copy_lost(Timestamp(second * 1_000));
    }
    assert_eq!(ledger.evidence().excluded, [Excluded { reason: "copy_lost", count: 20 }]);
    assert!(ledger.evidence().problem.unwrap().contains("copies that were sent ended was lost"));
}

#[test]
fn harm_seen_while_copies_were_lost_sends_nobody_back_in_the_next_stage() {
    let mut ledger = Draws::new(&plan(&[Metric::ErrorRate]), 1, Chances::PAIRS).ledger;
    let fail = |ledger: &mut Ledger, times: std::ops::Range<u64>| {
        for second in times {
            let (primary, candidate) =
                (call(Outcome::Ok, 900.0), call(Outcome::ProviderError, 9.0));
            let (primary, candidate) = (Some(primary), Some(candidate));
            let seen = Observation { lot: None, primary, candidate, watched: String::new() };
            ledger.observe(Timestamp(second * 1_000), &seen);
        }
    };
    ledger.copy_lost(Timestamp(1_000));
    fail(&mut ledger, 1..60);
    let wealth =
        |it: &Ledger| it.instrument(Metric::ErrorRate, None).unwrap().wealth().unwrap().clone();
    assert!(wealth(&ledger).is_breached() && !ledger.is_broken());
    ledger.enter(1, Timestamp(60_000), Chances::PAIRS);
    assert!(!ledger.is_broken());
    fail(&mut ledger, 60..62);
    assert!(!ledger.is_broken(), "two failures are no proof");
    fail(&mut ledger, 62..120);
    assert!(ledger.is_broken(), "it is proven anew");
}

/// One pair in thirty is lost, which may have been the dearest and the worst.
#[test]
fn lost_copies_prove_neither_cost_nor_score() {
    for metric in [Metric::Cost, Metric::OutputTokensRatio, Metric::JudgeScore] {
        let verdict = |lost_one_in: u64| {
            let mut ledger = Draws::new(&plan(&[metric]), 1, Chances::PAIRS).ledger;
            let usual = Sample { usd: Some(0.3), ..call(Outcome::Ok, 900.0) };
            let primary = Sample { output_tokens: Some(4_000), ..usual };
            let candidate = Sample { usd: Some(0.09), output_tokens: Some(4_000), ..usual };
            for turn in 1..=3_000 {
                let at = Timestamp(turn * 100);
                if turn % lost_one_in == 0 {
                    ledger.copy_lost(at);
                    continue;
                }
                let (primary, candidate) = (Some(primary), Some(candidate));
                let watched = String::new();
                ledger.observe(at, &Observation { lot: None, primary, candidate, watched });
                ledger.score(at, "", &Marks::unplaced(0.8, 0.8));
            }
            ledger.instrument(metric, None).unwrap().wealth().unwrap().verdict()
        };
        assert_eq!(verdict(u64::MAX), Verdict::Pass, "{metric:?}");
        assert_eq!(verdict(20), Verdict::Undecided, "{metric:?}");
    }
}

/// A wall clock that went back over a restart takes no time away and adds none.
#[test]
fn a_clock_that_went_back_stops_neither_stakes_nor_money_nor_a_delay() {
    let mut plan = plan(&[Metric::ErrorRate]);
    plan.stages[0].delay_ms = 600_000;
    let begun = LATER;
    let mut ledger = Ledger::new(&plan);
    ledger.enter(0, begun, Chances::PAIRS);
    ledger.leave_out(Timestamp(begun.0 + 60_000));
    let mut again = Ledger::new(&plan);
    let now = Timestamp(begun.0 - 86_400_000);
    assert!(again.decode(now, &ledger.encode()));
    let left = |minutes: u64| again.is_early(Timestamp(now.0 + minutes * 60_000));
    assert!(left(8) && !left(9));
    let before = again.state.now_ms;
    assert_eq!(before, now.0);
    let money = again.state.money.due(Timestamp(now.0 + 3_600_000));
    assert!(0.01 < money, "{money}");
}

/// All clocks of the bets go on from where they stood: blocks of weather end, the past is aged and
/// conversations are forgotten as if nothing had happened.
#[test]
fn after_a_clock_went_back_by_a_day_everything_is_counted_as_without_it() {
    const HOUR_MS: u64 = 3_600_000;
    let half = Chances { primary: 0.5, candidate: 0.5, served: 0.5 };
    let mut plan = plan(&[Metric::ErrorRate, Metric::LatencyP99]);
    plan.stages[0].duration_ms_min = 0;
    let begin = || {
        let mut ledger = Ledger::new(&plan);
        ledger.enter(0, LATER, half);
        ledger
    };
    let tell = |ledger: &mut Ledger, hours: std::ops::Range<u64>, back_ms: u64| {
        for minute in hours.start * 60..hours.end * 60 {
            // Another spell of a slow and failing provider, and another crowd, every two hours.
            let mut random = Random(minute);
            let bad = minute / 30 % 4 == 0;
            for second in (0..60).step_by(3) {
                let at = Timestamp(LATER.0 + minute * 60_000 + second * 1_000 - back_ms);
                let (failing, slow) = if bad {
                    (0.3, 3.0)
                } else {
                    (0.01, 1.0 + 0.001 * crate::analysis::float(minute))
                };
                let call = random.call(failing, slow);
                let lot = Lot::Sticky(minute / 120 % 2 * 10_000 + minute % 60 * 60 + second);
                let primary = random.happens(0.5);
                let sides = (primary.then_some(call), (!primary).then_some(call));
                let (primary, candidate) = sides;
                let watched = String::new();
                ledger.observe(at, &Observation { lot: Some(lot), primary, candidate, watched });
            }
        }
    };
    let day_ms = 24 * HOUR_MS;
    let mut straight = begin();
    tell(&mut straight, 0..20, 0);
    let mut back = Ledger::new(&plan);
    let now = Timestamp(straight.state.now_ms - day_ms);
    assert!(back.decode(now, &straight.encode()));
    tell(&mut straight, 20..40, 0);
    tell(&mut back, 20..40, day_ms);
    let known = |ledger: &Ledger| {
        let instruments: Vec<_> = ledger.state.instruments.iter().map(Instrument::wealth).collect();
        format!("{:?} {instruments:?}", ledger.evidence())
    };
    assert_eq!(known(&back), known(&straight));
}
