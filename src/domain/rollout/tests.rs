//! Rules of the state machine, as sentences.

use super::*;
use crate::domain::{
    Answer, Consent, Freeze, FreezeText, Gate, GateEvidence, Margin, Mark, Metric, Share,
    Undecided, Watched, plan::tests::plan,
};

pub(super) const DAY: u64 = 86_400_000;

pub(super) fn evidence(verdict: Verdict, pairs: u64) -> Evidence {
    let gate = |metric| GateEvidence {
        metric,
        watched: String::new(),
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
        noise: None,
        basis: None,
        tiers: Vec::new(),
        fixed: None,
    };
    let metrics = Metric::DEFAULTS.into_iter().chain(Metric::GROUND_DEFAULTS);
    Evidence { gates: metrics.map(gate).collect(), pairs, ..Evidence::default() }
}

pub(super) fn rollout() -> Rollout {
    Rollout::new("chat".parse().unwrap(), plan())
}

pub(super) fn feed(
    rollout: &mut Rollout,
    day: u64,
    input: &Input<'_>,
    evidence: &Evidence,
) -> String {
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
    for input in [Input::Tick, Input::Idle, Input::Superseded, Input::Stopped, Input::Tripped] {
        assert_eq!(feed(&mut it, 9, &input, &evidence(Verdict::Breach, 9)), "nothing", "INV9");
    }
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
    let approve =
        |stage: &str, answer| Command::Approve { stage: stage.into(), attempt: None, answer };
    let early = feed(&mut it, 7, &Input::Command(&approve("shadow", Answer::Yes)), &none);
    assert!(early.contains("error_rate"), "{early}");
    assert_eq!(feed(&mut it, 7, &Input::Tick, &pass), "AwaitingApproval 0");
    let other = feed(&mut it, 7, &Input::Command(&approve("half", Answer::Yes)), &pass);
    assert!(other.contains("is not the current one"), "{other}");
    let yes = approve("shadow", Answer::Yes);
    assert_eq!(feed(&mut it, 7, &Input::Command(&yes), &pass), "Running 1");
    assert_eq!(it.cause(), Some(Cause::Approved));
}

#[test]
fn an_approval_counts_for_its_attempt_and_only_once_it_is_asked_for() {
    let mut it = rollout();
    it.plan.stages[0].approval = Approval::Needed;
    let pass = evidence(Verdict::Pass, 1_000);
    let approve = |attempt| {
        let (stage, answer) = ("shadow".to_owned(), Answer::Yes);
        Command::Approve { stage, attempt, answer }
    };
    for attempt in 1..=2 {
        feed(&mut it, 0, &Input::Command(&Command::Rollback), &Evidence::default());
        feed(&mut it, 0, &Input::Command(&Command::Start), &Evidence::default());
        let early = order(&mut it, 7, &approve(Some(attempt)), &pass);
        assert!(early.contains("has not asked"), "{early}");
        feed(&mut it, 7, &Input::Tick, &pass);
    }
    for other in [1, 3] {
        let said = order(&mut it, 7, &approve(Some(other)), &pass);
        assert_eq!(said, format!("attempt {other} is not the current one; that is 2"));
    }
    let no = Command::Approve { stage: "shadow".into(), attempt: Some(1), answer: Answer::No };
    assert!(order(&mut it, 7, &no, &pass).contains("attempt 1 is not"));
    assert_eq!(order(&mut it, 7, &approve(Some(2)), &pass), "Running 1");
}

pub(super) fn jump(to: &str, undecided: Undecided, consent: Consent) -> Command {
    Command::Jump { to_stage: to.to_owned(), undecided, consent }
}

/// A rollout that has come to a stage by proof, entered on that day.
pub(super) fn at_stage(stage: usize, day: u64) -> Rollout {
    let mut it = rollout();
    it.apply(Timestamp(0), &Event::StageEntered { attempt: 1, stage: 0, cause: Cause::Operator });
    let cause = Cause::GatesPassed;
    it.apply(Timestamp(day * DAY), &Event::StageEntered { attempt: 1, stage, cause });
    it
}

pub(super) fn order(it: &mut Rollout, day: u64, command: &Command, evidence: &Evidence) -> String {
    feed(it, day, &Input::Command(command), evidence)
}

#[test]
fn complete_ends_the_ladder_unless_a_gate_is_broken_or_distrusted() {
    let complete = Command::Complete { consent: Consent::Withheld };
    let mut it = at_stage(1, 7);
    for verdict in [Verdict::Breach, Verdict::Invalid] {
        assert!(order(&mut it, 8, &complete, &evidence(verdict, 9)).contains("gate"));
    }
    it.plan.stages[4].approval = Approval::Needed;
    assert!(order(&mut it, 8, &complete, &Evidence::default()).contains("needs an approval"));
    let complete = Command::Complete { consent: Consent::Given };
    assert_eq!(order(&mut it, 8, &complete, &Evidence::default()), "Succeeded 4");
    assert_eq!((it.cause(), it.stage().unwrap().serve), (Some(Cause::Override), Share::ALL));
    assert!(order(&mut it, 9, &complete, &Evidence::default()).contains("at its end"));
}

#[test]
fn an_override_does_not_stand_for_an_approval() {
    let mut it = at_stage(1, 7);
    it.plan.stages[1].approval = Approval::Needed;
    let skip = Command::Advance { from_stage: String::new(), undecided: Undecided::Skip };
    let refused = order(&mut it, 8, &skip, &Evidence::default());
    assert!(refused.contains("needs an approval"), "{refused}");
    let pass = evidence(Verdict::Pass, 1_000);
    assert_eq!(order(&mut it, 30, &skip, &pass), "AwaitingApproval 1");
}

/// What goes back wins over everything else that is asked at the same instant.
#[test]
fn while_a_gate_is_broken_only_what_goes_back_is_obeyed() {
    let breach = evidence(Verdict::Breach, 10);
    for command in every_command() {
        let mut it = at_stage(1, 7);
        it.plan.stages[1].approval = Approval::Needed;
        let said = order(&mut it, 8, &command, &breach);
        let back =
            matches!(command, Command::Rollback | Command::Approve { answer: Answer::No, .. });
        if back {
            assert_eq!(said, "RolledBack 1", "{command:?}");
        } else {
            assert!(said.contains("is breach"), "{command:?}: {said}");
            assert_eq!(feed(&mut it, 8, &Input::Idle, &breach), "RolledBack 1");
            assert_eq!(it.cause(), Some(Cause::Breach(Metric::ErrorRate)));
        }
    }
}

fn every_command() -> Vec<Command> {
    let mut other = plan();
    other.copies_per_day_max += 1;
    let stage = "read-only".to_owned();
    vec![
        Command::Start,
        Command::Supersede,
        Command::Advance { from_stage: String::new(), undecided: Undecided::Skip },
        jump("shadow", Undecided::Hold, Consent::Withheld),
        jump("full", Undecided::Skip, Consent::Given),
        Command::Complete { consent: Consent::Given },
        Command::Pause,
        Command::Resume,
        Command::Approve { stage: stage.clone(), attempt: Some(1), answer: Answer::Yes },
        Command::Approve { stage, attempt: None, answer: Answer::No },
        Command::Rollback,
        Command::Revise(Box::new(other)),
    ]
}

#[test]
fn a_watched_slice_that_is_broken_goes_back_and_one_that_is_undecided_keeps_nothing() {
    let of = |verdict| {
        let mut known = evidence(Verdict::Pass, 1_000);
        let slice = evidence(verdict, 9).gates.remove(0);
        known.gates.push(GateEvidence { watched: "tools".to_owned(), ..slice });
        known
    };
    let it = at_stage(1, 7);
    assert_eq!(feed(&mut it.clone(), 30, &Input::Tick, &of(Verdict::Undecided)), "Running 2");
    for (verdict, comes) in [(Verdict::Breach, "RolledBack 1"), (Verdict::Invalid, "nothing")] {
        let told = it.obstacle(Timestamp(30 * DAY), &of(verdict)).unwrap().to_string();
        let name = format!("is {}: in slice `tools`: difference", verdict.as_str());
        assert!(told.contains(&name), "{told}");
        assert_eq!(feed(&mut it.clone(), 30, &Input::Tick, &of(verdict)), comes);
    }
}

/// F1
#[test]
fn a_plan_under_way_changes_only_in_what_is_to_come() {
    type Change<'a> = &'a dyn Fn(&mut Plan);
    let it = at_stage(1, 7);
    let revised = |change: Change<'_>| {
        let mut plan = it.plan().clone();
        change(&mut plan);
        match it.revise(&plan) {
            Ok(Some(event)) => event.cause().code().to_owned(),
            Ok(None) => "nothing".to_owned(),
            Err(Refusal::Fixed { field, .. }) => field,
            Err(other) => panic!("{other}"),
        }
    };
    assert_eq!(revised(&|_| {}), "nothing");
    let future: [Change<'_>; 7] = [
        &|it| it.stages[3].serve = Share::ALL,
        &|it| it.stages.truncate(2),
        &|it| it.stages[1].serve = Share::NONE,
        &|it| it.stages[1].samples_min += 1,
        &|it| it.stages[1].duration_ms_max = Some(u64::MAX),
        &|it| it.stages[1].gates[0].margin = Margin::parse(Metric::ErrorRate, "+0.01pp").unwrap(),
        &|it| it.times.bake_ms = Some(1),
    ];
    for change in future {
        assert_eq!(revised(change), "OPERATOR");
    }
    let looser: [Change<'_>; 6] = [
        &|it| it.stages[1].samples_min -= 1,
        &|it| it.stages[1].duration_ms_min -= 1,
        &|it| it.stages[1].gates.truncate(1),
        &|it| it.stages[1].gates[0].role = Role::Guard,
        &|it| it.stages[1].gates[0].margin = Margin::parse(Metric::ErrorRate, "+0.51pp").unwrap(),
        &|it| it.stages[1].gates[2].margin = Margin::parse(Metric::JudgeScore, ">=94%").unwrap(),
    ];
    for change in looser {
        assert_eq!(revised(change), "PLAN_LOOSENED");
    }
    let cost = Gate { margin: Margin::default_of(Metric::Cost), role: Role::Guard };
    let fixed: [(Change<'_>, &str); 9] = [
        (&|it| it.stages[4].gates.push(cost), "gates"),
        (&|it| it.stages[0].samples_min += 1, "stages[0]"),
        (&|it| it.stages.truncate(1), "stages[1]"),
        (&|it| it.stages[1].serve = Share::ALL, "stages[1].serve_bps"),
        (&|it| it.stages[1].name = "other".to_owned(), "stages[1].stage_id"),
        (&|it| it.candidate = "other".parse().unwrap(), "candidate"),
        (&|it| it.slice.features = vec!["other".to_owned()], "slice"),
        (&|it| it.risk.harm_bps += 1, "risk"),
        (&|it| it.watched = Some(Watched { by: Mark::Task, values: Vec::new() }), "slices"),
    ];
    for (change, field) in fixed {
        assert_eq!(revised(change), field);
    }
}

#[test]
fn a_looser_plan_begins_the_stage_anew_and_a_tighter_gate_its_evidence() {
    let mut it = at_stage(1, 7);
    let mut plan = it.plan().clone();
    plan.stages[1].gates[0].margin = Margin::parse(Metric::ErrorRate, "+0.01pp").unwrap();
    order(&mut it, 10, &Command::Revise(Box::new(plan.clone())), &Evidence::default());
    assert_eq!((it.plan_revision(), it.since()), (2, Timestamp(10 * DAY)));
    assert_eq!(it.dwelt_ms(Timestamp(10 * DAY)), 3 * DAY, "time goes on");
    plan.stages[1].samples_min = 1;
    order(&mut it, 11, &Command::Revise(Box::new(plan)), &Evidence::default());
    assert_eq!((it.plan_revision(), it.since()), (3, Timestamp(11 * DAY)));
    assert_eq!((it.dwelt_ms(Timestamp(11 * DAY)), it.attempt()), (0, 1));
    assert_eq!(it.cause(), Some(Cause::Loosened));
}

#[test]
fn an_approval_is_asked_again_under_another_plan() {
    let mut it = at_stage(1, 7);
    it.plan.stages[1].approval = Approval::Needed;
    let pass = evidence(Verdict::Pass, 1_000);
    assert_eq!(feed(&mut it, 21, &Input::Tick, &pass), "AwaitingApproval 1");
    let mut plan = it.plan().clone();
    plan.stages[1].duration_ms_min += DAY;
    let revise = Command::Revise(Box::new(plan));
    assert_eq!(order(&mut it, 30, &revise, &pass), "Running 1");
    assert_eq!(feed(&mut it, 30, &Input::Tick, &pass), "nothing", "a day more is needed");
    assert_eq!(feed(&mut it, 31, &Input::Tick, &pass), "AwaitingApproval 1");
}

fn frozen(mut rollout: Rollout, days: (u64, u64)) -> Rollout {
    let date = |day: u64| format!("1970-01-{:02}T00:00", day + 1);
    let (from, to, zone) = (date(days.0), date(days.1), "UTC".to_owned());
    let text = FreezeText { days: vec![], from, to, zone };
    rollout.plan.times.freezes = vec![Freeze::read(&text).unwrap()];
    rollout
}

/// T7, T8
#[test]
fn in_a_freeze_holds_finish_and_nothing_goes_forward_but_back() {
    let pass = evidence(Verdict::Pass, 1_000);
    let advance = |undecided| Command::Advance { from_stage: String::new(), undecided };
    let mut it = frozen(at_stage(0, 0), (5, 10));
    assert_eq!(feed(&mut it, 8, &Input::Tick, &pass), "nothing");
    let held = order(&mut it, 8, &advance(Undecided::Hold), &pass);
    assert_eq!(held, "stage `shadow` is frozen until 1970-01-11 00:00 UTC");
    assert_eq!(order(&mut it.clone(), 8, &advance(Undecided::Skip), &pass), "Running 1");
    assert_eq!(
        feed(&mut it.clone(), 8, &Input::Tick, &evidence(Verdict::Breach, 1)),
        "RolledBack 0"
    );
    assert_eq!(order(&mut it.clone(), 8, &Command::Rollback, &pass), "RolledBack 0");
    assert_eq!(feed(&mut it, 10, &Input::Tick, &pass), "Running 1", "the hold went on");
    let mut live = frozen(rollout(), (5, 10));
    live.plan.stages.remove(0);
    assert!(order(&mut live, 6, &Command::Start, &pass).contains("is frozen"));
}

/// V28
#[test]
fn a_stage_that_lasts_too_long_is_told_once_and_waiting_does_not_count() {
    let none = Evidence::default();
    let mut it = at_stage(0, 0);
    it.plan.stages[0].duration_ms_max = Some(10 * DAY);
    order(&mut it, 5, &Command::Pause, &none);
    assert_eq!(feed(&mut it, 50, &Input::Tick, &none), "nothing");
    order(&mut it, 50, &Command::Resume, &none);
    assert_eq!(feed(&mut it, 54, &Input::Tick, &none), "nothing");
    assert!(!it.is_overdue());
    assert_eq!(feed(&mut it, 55, &Input::Tick, &none), "Running 0");
    assert!(it.is_overdue());
    assert_eq!(feed(&mut it, 56, &Input::Tick, &none), "nothing", "once");
    let pass = evidence(Verdict::Pass, 1_000);
    assert_eq!(feed(&mut it, 57, &Input::Tick, &pass), "Running 1", "it moves nothing");
    assert!(!it.is_overdue());
}

/// E1
#[test]
fn silence_holds_a_rollout_or_sends_it_back_as_its_plan_says() {
    let none = Evidence::default();
    let mut it = at_stage(1, 7);
    assert!(!it.is_idle(Timestamp(8 * DAY - 1), Timestamp(7 * DAY)));
    assert!(it.is_idle(Timestamp(8 * DAY), Timestamp(7 * DAY)));
    let mut other = it.clone();
    assert_eq!(feed(&mut it, 8, &Input::Idle, &none), "Paused 1");
    assert_eq!(it.cause(), Some(Cause::Idle));
    assert!(!it.is_idle(Timestamp(80 * DAY), Timestamp(7 * DAY)), "told once");
    assert_eq!(feed(&mut it, 9, &Input::Idle, &none), "nothing");
    other.plan.times.on_idle = OnIdle::Rollback;
    assert_eq!(feed(&mut other, 8, &Input::Idle, &none), "RolledBack 1");
    assert_eq!(other.cause(), Some(Cause::Idle));
}

/// INV11
#[test]
fn after_success_the_gates_guard_for_the_time_to_bake() {
    let (pass, breach) = (evidence(Verdict::Pass, 9), evidence(Verdict::Breach, 9));
    let mut it = at_stage(4, 30);
    it.apply(Timestamp(50 * DAY), &Event::Succeeded(Cause::GatesPassed));
    assert_eq!(feed(&mut it, 5_000, &Input::Tick, &pass), "nothing", "for ever by itself");
    it.plan.times.bake_ms = Some(10 * DAY);
    assert_eq!(feed(&mut it, 59, &Input::Tick, &pass), "nothing");
    assert_eq!(feed(&mut it.clone(), 60, &Input::Tick, &breach), "RolledBack 4");
    let blind = evidence(Verdict::Invalid, 9);
    assert_eq!(feed(&mut it, 60, &Input::Tick, &blind), "nothing", "it must see");
    assert_ne!(it.mirror(), Share::NONE);
    assert_eq!(feed(&mut it, 60, &Input::Tick, &pass), "Baked 4");
    assert_eq!((it.mirror(), it.stage().unwrap().serve), (Share::NONE, Share::ALL));
    assert_eq!(feed(&mut it, 61, &Input::Tick, &breach), "nothing", "INV9");
    assert_eq!(order(&mut it, 61, &Command::Rollback, &breach), "RolledBack 4");
}

/// T3
#[test]
fn after_a_long_absence_one_stage_is_left_and_the_next_needs_its_own_proof() {
    let mut it = at_stage(0, 0);
    let pass = evidence(Verdict::Pass, 1_000);
    assert_eq!(feed(&mut it, 100, &Input::Tick, &pass), "Running 1");
    assert_eq!(feed(&mut it, 100, &Input::Tick, &Evidence::default()), "nothing");
    assert_eq!(feed(&mut it, 100, &Input::Tick, &pass), "nothing", "nor its own time");
}

/// T1
#[test]
fn a_clock_that_went_back_makes_no_time_pass() {
    let mut it = at_stage(0, 30);
    assert_eq!(it.dwelt_ms(Timestamp(10 * DAY)), 0);
    assert_eq!(feed(&mut it, 10, &Input::Tick, &evidence(Verdict::Pass, 1_000)), "nothing");
}

/// V21
#[test]
fn what_is_superseded_or_stopped_goes_back_whatever_its_state() {
    for (input, cause) in [(Input::Superseded, Cause::Superseded), (Input::Stopped, Cause::Stopped)]
    {
        for event in [Event::Paused(Cause::Operator), Event::Baked, Event::ApprovalRequested] {
            let mut it = at_stage(2, 7);
            it.apply(Timestamp(8 * DAY), &event);
            assert_eq!(feed(&mut it, 9, &input, &Evidence::default()), "RolledBack 2");
            assert_eq!((it.cause(), it.stage()), (Some(cause), None));
        }
    }
}

#[test]
fn every_state_has_a_name_that_reads_back() {
    for state in State::ALL {
        assert_eq!(State::from_name(state.as_str()), Some(state));
    }
    assert_eq!(State::from_name("elsewhere"), None);
}
