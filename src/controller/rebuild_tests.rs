//! Which stored pairs are evidence after a restart.

use std::ops::Range;

use super::{order_tests::LATER, *};
use crate::domain::{Cause, GateEvidence, Margin, Outcome, Pair, Plan};
use crate::store::samples;

const START: u64 = 1_795_000_000_000;

/// A store with one pair a second in which the candidate failed, all of one stage.
fn pairs(stage: u32, seconds: Range<u64>) -> (tempfile::TempDir, Pairs) {
    let dir = tempfile::tempdir().unwrap();
    let pairs = Pairs::open(dir.path(), samples::LIMITS).unwrap();
    for second in seconds {
        let mut pair: Pair = samples::pair("chat", START + second * 1_000, second);
        (pair.window.stage, pair.candidate.outcome) = (stage, Outcome::ProviderError);
        pairs.put_batch(&[(pair, samples::bodies("hello"))]).unwrap();
    }
    (dir, pairs)
}

/// The rollout after those events, each some seconds after the start.
fn after(events: Vec<(u64, Event)>) -> Rollout {
    let mut rollout = Rollout::new("chat".parse().unwrap(), samples::plan());
    for (second, event) in events {
        rollout.apply(Timestamp(START + second * 1_000), &event);
    }
    rollout
}

fn entered(attempt: u32, stage: usize, cause: Cause) -> Event {
    Event::StageEntered { attempt, stage, cause }
}

fn errors(ledger: &Ledger) -> GateEvidence {
    ledger.evidence().gates[0].clone()
}

/// E15
#[test]
fn after_a_jump_back_the_old_pairs_of_a_stage_are_not_its_evidence_again() {
    let (_dir, pairs) = pairs(0, 0..100);
    let start = || (0, entered(1, 0, Cause::Operator));
    let rollout = after(vec![start()]);
    assert_eq!(rebuilt(&rollout, Some(&pairs), LATER).ledger.evidence().pairs, 100);
    let rollout = after(vec![
        start(),
        (60, entered(1, 1, Cause::Override)),
        (90, entered(1, 0, Cause::Jump)),
    ]);
    let back = rebuilt(&rollout, Some(&pairs), LATER).ledger;
    assert_eq!(back.evidence().pairs, 10);
    assert!(0.0 < errors(&back).harm, "what was won against the candidate is not forgotten");
    let rollout = after(vec![
        start(),
        (50, Event::RolledBack(Cause::Operator)),
        (50, entered(2, 0, Cause::Operator)),
    ]);
    assert_eq!(
        rebuilt(&rollout, Some(&pairs), LATER).ledger.evidence().pairs,
        0,
        "another attempt"
    );
}

#[test]
fn a_tighter_gate_is_proven_by_what_comes_after_it_and_looser_terms_begin_anew() {
    let (_dir, pairs) = pairs(0, 0..40);
    let mut tighter: Plan = samples::plan();
    tighter.stages[0].gates[0].margin =
        Margin::parse(crate::domain::Metric::ErrorRate, "+0.01pp").unwrap();
    for event in [Event::Revised(Box::new(tighter.clone())), Event::Loosened(Box::new(tighter))] {
        let rollout = after(vec![(0, entered(1, 0, Cause::Operator)), (30, event)]);
        let ledger = rebuilt(&rollout, Some(&pairs), LATER).ledger;
        assert_eq!((ledger.evidence().pairs, errors(&ledger).samples), (10, 10));
        assert!(0.0 < errors(&ledger).harm, "harm goes on with what it has won");
    }
}
