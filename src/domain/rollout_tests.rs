//! Rules of the state machine, as sentences.

use super::*;
use crate::domain::{Metric, Share, plan::tests::plan};

const DAY: u64 = 86_400_000;

fn evidence(verdict: Verdict, pairs: u64) -> Evidence {
    let gate = |metric| GateEvidence {
        metric,
        verdict,
        alarm_from_percent: 70,
        problem: String::new(),
        samples: pairs,
        samples_needed: Some(10),
        primary: 0.0,
        candidate: 0.0,
        difference: 0.0,
        lower: 0.0,
        upper: 0.0,
        bound: 0.0,
        harm: 0.0,
        safe: 0.0,
    };
    let gates = Metric::DEFAULTS.map(gate).into();
    Evidence { gates, pairs, ..Evidence::default() }
}

fn rollout() -> Rollout {
    Rollout::new("chat".parse().unwrap(), plan())
}

fn feed(rollout: &mut Rollout, day: u64, input: &Input<'_>, evidence: &Evidence) -> String {
    let now = Timestamp(day * DAY);
    match rollout.decide(now, input, evidence) {
        Ok(Some(event)) => {
            rollout.apply(now, &event);
            format!("{:?} {}", rollout.state(), rollout.stage_index())
        }
        Ok(None) => "nothing".to_owned(),
        Err(refusal) => refusal.to_string(),
    }
}

#[test]
fn a_good_candidate_walks_to_the_end_and_stays_guarded() {
    let mut it = rollout();
    let pass = evidence(Verdict::Pass, 1_000);
    assert_eq!(feed(&mut it, 0, &Input::Command(&Command::Start), &pass), "Running 0");
    assert_eq!(feed(&mut it, 6, &Input::Tick, &pass), "nothing");
    assert_eq!(feed(&mut it, 7, &Input::Tick, &pass), "Running 1");
    for (day, stage) in [(21, 2), (35, 3), (42, 4)] {
        assert_eq!(feed(&mut it, day, &Input::Tick, &pass), format!("Running {stage}"));
    }
    assert_eq!(feed(&mut it, 56, &Input::Tick, &pass), "Succeeded 4");
    assert_eq!(it.stage().unwrap().serve, Share::ALL);
    let breach = evidence(Verdict::Breach, 1);
    assert_eq!(feed(&mut it, 57, &Input::Tick, &breach), "RolledBack 4");
    assert_eq!(it.stage(), None);
}

#[test]
fn doubt_distrust_and_few_pairs_move_nothing() {
    let mut it = rollout();
    feed(&mut it, 0, &Input::Command(&Command::Start), &Evidence::default());
    let mut distrust = evidence(Verdict::Pass, 1_000);
    distrust.problem = Some("coverage is 90%".to_owned());
    for doubt in [
        evidence(Verdict::Undecided, 9_000),
        evidence(Verdict::Invalid, 9_000),
        evidence(Verdict::Pass, 999),
        Evidence::default(),
        distrust,
    ] {
        assert_eq!(feed(&mut it, 30, &Input::Tick, &doubt), "nothing");
    }
}

#[test]
fn a_pause_shifts_the_timer_and_gates_still_guard() {
    let mut it = rollout();
    let pass = evidence(Verdict::Pass, 1_000);
    feed(&mut it, 0, &Input::Command(&Command::Start), &pass);
    feed(&mut it, 3, &Input::Command(&Command::Pause), &pass);
    assert_eq!(feed(&mut it, 60, &Input::Tick, &pass), "nothing");
    assert_eq!(feed(&mut it, 60, &Input::Command(&Command::Resume), &pass), "Running 0");
    assert_eq!(feed(&mut it, 63, &Input::Tick, &pass), "nothing");
    assert_eq!(feed(&mut it, 64, &Input::Tick, &pass), "Running 1");
    feed(&mut it, 65, &Input::Command(&Command::Pause), &pass);
    let breach = evidence(Verdict::Breach, 1);
    assert_eq!(feed(&mut it, 66, &Input::Tick, &breach), "RolledBack 1");
}

#[test]
fn a_rollback_is_never_refused_and_a_new_start_is_a_new_attempt() {
    let mut it = rollout();
    let none = Evidence::default();
    let rollback = Command::Rollback;
    assert_eq!(feed(&mut it, 0, &Input::Command(&rollback), &none), "nothing");
    feed(&mut it, 0, &Input::Command(&Command::Start), &none);
    assert_eq!(feed(&mut it, 0, &Input::Command(&rollback), &none), "RolledBack 0");
    assert_eq!(feed(&mut it, 0, &Input::Command(&rollback), &none), "nothing");
    assert_eq!(feed(&mut it, 0, &Input::Tick, &evidence(Verdict::Pass, 9_999)), "nothing");
    assert_eq!(feed(&mut it, 0, &Input::Command(&Command::Start), &none), "Running 0");
    assert_eq!(it.attempt(), 2);
    assert_eq!(feed(&mut it, 0, &Input::Tripped, &none), "RolledBack 0");
    assert_eq!(it.cause(), Some(Cause::Tripwire));
}

#[test]
fn advance_names_the_stage_it_leaves_and_skips_only_doubt() {
    let mut it = rollout();
    let none = Evidence::default();
    feed(&mut it, 0, &Input::Command(&Command::Start), &none);
    let advance = |from: &str, undecided| Command::Advance { from_stage: from.into(), undecided };
    let held = advance("shadow", Undecided::Hold);
    assert!(feed(&mut it, 1, &Input::Command(&held), &none).contains("no evidence yet"));
    let skip = advance("shadow", Undecided::Skip);
    let breach = evidence(Verdict::Breach, 10);
    assert!(feed(&mut it, 1, &Input::Command(&skip), &breach).contains("is breach"));
    assert_eq!(feed(&mut it, 1, &Input::Command(&skip), &none), "Running 1");
    assert_eq!(it.cause(), Some(Cause::Override));
    let again = feed(&mut it, 1, &Input::Command(&skip), &none);
    assert_eq!(again, "stage `shadow` is not the current one; that is `read-only`");
}

#[test]
fn an_approval_is_the_last_gate_and_bound_to_its_stage() {
    let mut it = rollout();
    it.plan.stages[0].approval = Approval::Needed;
    let (none, pass) = (Evidence::default(), evidence(Verdict::Pass, 1_000));
    feed(&mut it, 0, &Input::Command(&Command::Start), &none);
    let approve = |stage: &str, answer| Command::Approve { stage: stage.into(), answer };
    let early = feed(&mut it, 7, &Input::Command(&approve("shadow", Answer::Yes)), &none);
    assert!(early.contains("error_rate"), "{early}");
    assert_eq!(feed(&mut it, 7, &Input::Tick, &pass), "AwaitingApproval 0");
    let other = feed(&mut it, 7, &Input::Command(&approve("half", Answer::Yes)), &pass);
    assert!(other.contains("is not the current one"), "{other}");
    let yes = approve("shadow", Answer::Yes);
    assert_eq!(feed(&mut it, 7, &Input::Command(&yes), &pass), "Running 1");
    assert_eq!(it.cause(), Some(Cause::Approved));
}
