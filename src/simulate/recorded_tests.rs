//! What is played of what was recorded.

use super::*;
use crate::analysis::{Observation, Said, Sample};
use crate::domain::{Lot, Outcome, Pair, Share, Timestamp};
use crate::simulate::tests::plan;
use crate::store::samples;

/// What was told of a pair that was asked in a stage at a time, the candidate's answer like this.
fn heard(seq: u64, stage: u32, at: u64, candidate: Outcome) -> Heard {
    let mut pair: Pair = samples::pair("x", at, seq);
    (pair.window.stage, pair.watched, pair.lot) = (stage, String::new(), None);
    pair.candidate.outcome = candidate;
    pair.order = Some(Order { seq, at: Timestamp(at + 150) });
    Heard::of(&Seen::Pair(Box::new(pair)))
}

#[test]
fn what_was_on_its_way_while_a_step_was_written_counts_in_no_stage_as_it_did_live() {
    let (name, plan) = plan("error_rate = \"+5pp\"", &["0%", "50%"]);
    let entered = |stage, at, after| Taken {
        at: Timestamp(at),
        event: Event::StageEntered { attempt: 1, stage, cause: Cause::Operator },
        samples: Vec::new(),
        after: Some(after),
        weather: Vec::new(),
    };
    let ok = Outcome::Ok;
    let mut recorded = Recorded {
        name,
        plan,
        attempt: 1,
        steps: vec![entered(0, 1_000, 0), entered(1, 10_000, 20)],
        heard: (1..=19).map(|seq| heard(seq, 0, 1_000 + seq, ok)).collect(),
    };
    // Told while the step was being written.
    recorded.heard.push(heard(20, 0, 9_990, ok));
    // Asked after the step was decided and before it was seen, and told after that.
    recorded.heard.extend((21..=60).map(|seq| heard(seq, 0, 10_000 + seq, Outcome::ProviderError)));
    recorded.heard.extend((61..=70).map(|seq| heard(seq, 1, 12_000 + seq, ok)));
    let played = recorded.play(None);
    assert_eq!((played.outcome, played.pairs), ("running", 30), "{played:?}");
    assert_eq!(played.steps.len(), 1, "{played:?}");
    assert_eq!(played.steps[0].at, "1970-01-01T00:00:10.000Z", "when it was decided");
    // Another plan takes its steps itself, so it counts where it stands.
    let other = recorded.play(Some(recorded.plan.clone()));
    assert_eq!(other.outcome, "rolled_back", "{other:?}");
}

/// Half of the requests were copied, so half of the primary's answers stand alone.
#[test]
fn what_was_drawn_by_other_shares_counts_in_another_plan_by_its_pairs_alone() {
    let (name, mut plan) = plan("error_rate = \"+5pp\"", &["0%", "50%"]);
    plan.stages[0].mirror = Share::from_basis_points(5_000).unwrap();
    let entered = Taken {
        at: Timestamp(1_000),
        event: Event::StageEntered { attempt: 1, stage: 0, cause: Cause::Operator },
        samples: Vec::new(),
        after: Some(0),
        weather: Vec::new(),
    };
    let drawn = |seq: u64| {
        let mut heard = heard(seq, 0, 1_000 + seq, Outcome::Ok);
        let Said::Request(seen) = &mut heard.news.said else { panic!("{heard:?}") };
        let alone = seq.is_multiple_of(2);
        let candidate = seen.candidate.filter(|_| !alone);
        *seen = Observation { lot: Some(Lot::Once), candidate, ..seen.clone() };
        heard.pair = heard.pair.filter(|_| !alone);
        heard
    };
    let (steps, heard) = (vec![entered], (1..=2_000).map(drawn).collect());
    let recorded = Recorded { name, plan, attempt: 1, steps, heard };
    let same = recorded.play(Some(recorded.plan.clone()));
    assert!(!same.notes.iter().any(|it| it.contains("other shares")), "{same:?}");
    let mut other = recorded.plan.clone();
    other.stages[0].mirror = Share::from_basis_points(1_000).unwrap();
    let other = recorded.play(Some(other));
    let note = "1000 requests of which one side was seen are left out";
    assert!(other.notes.iter().any(|it| it.starts_with(note)), "{other:?}");
    assert!(!other.why.contains("mismatch"), "{other:?}");
    assert_eq!(other.pairs, 1_000);
}

/// Nothing is served and a fifth copied; then the ladder is ended, and all is served.
#[test]
fn after_a_ladder_that_was_ended_early_a_backtest_bets_by_the_shares_of_its_last_stage() {
    let (name, mut plan) = plan("error_rate = \"+5pp\"", &["0%", "100%"]);
    for stage in &mut plan.stages {
        stage.mirror = Share::from_basis_points(2_000).unwrap();
    }
    let taken = |at, after, event| Taken {
        at: Timestamp(at),
        event,
        samples: Vec::new(),
        after: Some(after),
        weather: Vec::new(),
    };
    let entered = Event::StageEntered { attempt: 1, stage: 0, cause: Cause::Operator };
    let drawn = |seq: u64| {
        let failed = seq.is_multiple_of(27);
        let outcome = if failed { Outcome::ProviderError } else { Outcome::Ok };
        let mut heard = heard(seq, 1, 10_000 + seq, outcome);
        let Said::Request(seen) = &mut heard.news.said else { panic!("{heard:?}") };
        let alone = !seq.is_multiple_of(5);
        let primary = seen.primary.map(|it| Sample { outcome, ..it }).filter(|_| !alone);
        *seen = Observation { lot: Some(Lot::Once), primary, ..seen.clone() };
        heard.pair = heard.pair.filter(|_| !alone);
        heard
    };
    let recorded = Recorded {
        name,
        plan,
        attempt: 1,
        steps: vec![taken(1_000, 0, entered), taken(9_000, 0, Event::Succeeded(Cause::Override))],
        heard: (1..=4_000).map(drawn).collect(),
    };
    let played = recorded.play(None);
    assert_eq!((played.outcome, played.pairs), ("succeeded", 800), "{played:?}");
}

/// A step that took effect notes where its evidence begins, however soon it is sent back.
#[test]
fn a_step_that_a_rollback_overtook_was_never_taken() {
    let taken = |at, after, event| Taken {
        at: Timestamp(at),
        event,
        samples: Vec::new(),
        after,
        weather: Vec::new(),
    };
    let entered = |attempt, stage| Event::StageEntered { attempt, stage, cause: Cause::Operator };
    let back = || Event::RolledBack(Cause::Operator);
    let played = |first, second| {
        let (name, plan) = plan("error_rate = \"+5pp\"", &["0%", "50%"]);
        let mut recorded = Recorded {
            name,
            plan,
            attempt: 1,
            steps: vec![
                taken(1_000, first, entered(1, 0)),
                taken(2_000, second, entered(1, 1)),
                taken(2_000, None, back()),
            ],
            heard: (1..=9).map(|seq| heard(seq, 0, 1_000 + seq, Outcome::Ok)).collect(),
        };
        recorded.leave_out_overtaken();
        let steps = recorded.play(None).steps;
        steps.iter().map(|it| (it.step, it.stage.clone())).collect::<Vec<_>>()
    };
    let both = played(Some(0), Some(9));
    assert_eq!(both.len(), 2, "{both:?}");
    assert_eq!(played(Some(0), None), [("rolled_back", both[0].1.clone())]);
    // Where no note is left, nothing is known.
    assert_eq!(played(None, None), both);
}
