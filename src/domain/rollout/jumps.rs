//! Steps that people answer for: jumps back, forward, and to where other requests are, and what a
//! judge alone would let go on.

use super::{
    tests::{DAY, at_stage, evidence, feed, jump, order},
    *,
};
use crate::domain::{Consent, Gate, Margin, Metric, Undecided};

#[test]
fn a_jump_back_is_always_allowed_and_gathers_evidence_afresh() {
    let back = jump("read-only", Undecided::Hold, Consent::Withheld);
    for evidence in [Evidence::default(), evidence(Verdict::Invalid, 3)] {
        for held in [None, Some(Event::Paused(Cause::Operator)), Some(Event::ApprovalRequested)] {
            let mut it = at_stage(3, 30);
            if let Some(event) = held {
                it.apply(Timestamp(31 * DAY), &event);
            }
            assert_eq!(order(&mut it, 32, &back, &evidence), "Running 1");
            assert_eq!((it.attempt(), it.cause()), (1, Some(Cause::Jump)));
            assert_eq!((it.since(), it.dwelt_ms(Timestamp(33 * DAY))), (Timestamp(32 * DAY), DAY));
        }
    }
}

/// V18
#[test]
fn a_jump_forward_is_an_override_and_approves_only_with_that_right() {
    let none = Evidence::default();
    let mut it = at_stage(1, 7);
    it.plan.stages[2].approval = Approval::Needed;
    let to = |undecided, consent| jump("half", undecided, consent);
    let plain = order(&mut it, 8, &to(Undecided::Hold, Consent::Given), &none);
    assert!(plain.contains("without proof"), "{plain}");
    let unapproved = order(&mut it, 8, &to(Undecided::Skip, Consent::Withheld), &none);
    assert!(unapproved.contains("`low-stakes` needs an approval"), "{unapproved}");
    let with_all = to(Undecided::Skip, Consent::Given);
    for (verdict, says) in [(Verdict::Breach, "is breach"), (Verdict::Invalid, "is invalid")] {
        let refused = order(&mut it, 8, &with_all, &evidence(verdict, 9));
        assert!(refused.contains(says), "{refused}");
    }
    let nowhere = jump("ful", Undecided::Skip, Consent::Given);
    assert!(order(&mut it, 8, &nowhere, &none).contains("there are shadow, read-only"));
    assert_eq!(order(&mut it, 8, &with_all, &none), "Running 3");
    assert_eq!(it.cause(), Some(Cause::Override));
}

/// INV1
#[test]
fn a_jump_back_that_brings_some_requests_to_the_candidate_is_an_override() {
    let back = |undecided| jump("read-only", undecided, Consent::Withheld);
    let mut it = at_stage(2, 30);
    it.plan.stages[1].slice.features = vec!["notes".to_owned()];
    it.plan.stages[2].slice.tasks = vec!["summary".to_owned()];
    let none = Evidence::default();
    let plain = order(&mut it, 31, &back(Undecided::Hold), &none);
    assert!(plain.contains("without proof"), "{plain}");
    assert_eq!(order(&mut it, 31, &back(Undecided::Skip), &none), "Running 1");
    assert_eq!(it.cause(), Some(Cause::Override));
    let shadow = jump("shadow", Undecided::Hold, Consent::Withheld);
    assert_eq!(order(&mut it, 32, &shadow, &none), "Running 0");
}

/// O5
#[test]
fn a_judge_that_stands_alone_lets_nothing_go_on_but_by_a_persons_word() {
    let mut it = at_stage(1, 7);
    // As plans were made while one stage with something else was enough for all.
    for stage in &mut it.plan.stages {
        stage.gates.retain(|it| it.metric() != Metric::RepeatedRate);
    }
    let pass = evidence(Verdict::Pass, 9_999);
    assert_eq!(feed(&mut it, 300, &Input::Tick, &pass), "nothing");
    let obstacle = it.obstacle(Timestamp(300 * DAY), &pass).unwrap();
    assert_eq!(obstacle.code(), "JUDGED_ALONE");
    let advance = |undecided| Command::Advance { from_stage: String::new(), undecided };
    let refused = order(&mut it, 300, &advance(Undecided::Hold), &pass);
    assert!(refused.contains("the judge alone says what answers are worth"), "{refused}");
    // What guards there, and is proven, stands beside it as well.
    let margin = Margin::default_of(Metric::RepeatedRate);
    let mut guarded = it.clone();
    guarded.plan.stages[1].gates.push(Gate { margin, role: Role::Guard });
    assert_eq!(feed(&mut guarded, 300, &Input::Tick, &pass), "Running 2");
    assert_eq!(order(&mut it, 300, &advance(Undecided::Skip), &pass), "Running 2");
    assert_eq!(it.cause(), Some(Cause::Override));
}
