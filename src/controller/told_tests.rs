//! What people are told of a rollout: why it stands where it does, by whom, and what lets it go on.

use std::collections::BTreeMap;

use crate::controller::{
    Judged, Requester, Setup, View,
    rig::{Rig, Store, by, name, plan, until},
};
use crate::domain::{
    Approval, Command, Gate, Margin, Metric, Outcome, Plan, Role, Share, State, Timestamp, Verdict,
};

const START: Timestamp = Timestamp(1_795_000_000_000);

/// A stage that is over soon, with a gate on each of these.
fn brief(metrics: &[Metric]) -> Plan {
    let mut plan = plan("a");
    plan.stages.truncate(1);
    for stage in &mut plan.stages {
        (stage.duration_ms_min, stage.samples_min) = (1_000, 10);
        let gate = |it: &Metric| Gate { margin: Margin::default_of(*it), role: Role::Prove };
        stage.gates = metrics.iter().map(gate).collect();
    }
    plan.judge_share = Share::ALL;
    plan
}

/// A process on what is stored.
async fn open(store: &Store, judge: Judged) -> Rig {
    let setup = Setup { judge, ..store.setup(START) };
    Rig::set_up(store.sim.clone(), setup).await
}

async fn look(rig: &Rig) -> View {
    rig.look("a").await.view
}

fn asked_by(actor: &str) -> Requester {
    Requester { actor: actor.to_owned(), ..by("") }
}

#[tokio::test]
async fn what_proved_a_rollback_is_told_after_a_restart_too() {
    let store = Store::new();
    let rig = open(&store, Judged::No).await;
    rig.handle.create(name("a"), brief(&[Metric::ErrorRate]), by("")).await.unwrap();
    rig.run("a", Command::Start).await.unwrap();
    let half = [Outcome::Ok, Outcome::ProviderError].repeat(200);
    store.answer(&rig, &half).await;
    until("it goes back", || rig.view("a").rollout.state() == State::RolledBack).await;
    rig.until_durable("a").await;
    let told = rig.view("a").message;
    assert!(told.starts_with("error_rate +"), "{told}");
    assert!(told.ends_with("goes back from 70% of the margin on"), "{told}");
    rig.end().await;
    let rig = open(&store, Judged::No).await;
    assert_eq!(look(&rig).await.message, told);
    // Who edits what is to come of it later is not who sent it back.
    let mut edited = brief(&[Metric::ErrorRate]);
    edited.copies_per_day_max += 1;
    let update = Command::Revise(Box::new(edited));
    rig.handle.command(name("a"), update, asked_by("bob")).await.unwrap();
    assert_eq!(rig.view("a").actor, "controller");
}

#[tokio::test]
async fn a_gate_that_nobody_can_judge_any_more_says_so() {
    let store = Store::new();
    let rig = open(&store, Judged::Yes(BTreeMap::new())).await;
    let alone = rig.handle.create(name("b"), brief(&[Metric::JudgeScore]), by("")).await;
    let told = format!("{:?}", alone.unwrap_err());
    assert!(told.contains("would have the judge alone prove"), "{told}");
    let beside = brief(&[Metric::JudgeScore, Metric::RefusalRate]);
    rig.handle.create(name("a"), beside, by("")).await.unwrap();
    rig.run("a", Command::Start).await.unwrap();
    rig.end().await;
    let related = || BTreeMap::from([(name("cheap"), "it is its own".to_owned())]);
    for (judge, why) in [(Judged::No, "no [judge]"), (Judged::Yes(related()), "it is its own")] {
        let rig = open(&store, judge).await;
        let view = look(&rig).await;
        let gate = &view.evidence.gates[0];
        assert_eq!((gate.verdict, view.rollout.state()), (Verdict::Invalid, State::Running));
        assert!(view.message.contains(why) && gate.problem.contains(why), "{}", view.message);
        rig.end().await;
    }
}

#[tokio::test]
async fn what_was_proven_and_is_in_doubt_since_is_not_offered_for_approval() {
    let store = Store::new();
    let rig = open(&store, Judged::No).await;
    let mut asking = brief(&[Metric::ErrorRate]);
    asking.stages[0].gates[0].margin = Margin::parse(Metric::ErrorRate, "+20pp").unwrap();
    asking.stages[0].approval = Approval::Needed;
    rig.handle.create(name("a"), asking, by("")).await.unwrap();
    rig.run("a", Command::Start).await.unwrap();
    store.answer(&rig, &[Outcome::Ok; 200]).await;
    until("it asks", || rig.view("a").rollout.state() == State::AwaitingApproval).await;
    let told = look(&rig).await.message;
    assert!(told.starts_with("proven; `crossfade approve a"), "{told}");
    rig.until_durable("a").await;
    rig.end().await;
    // Nothing of it was heard since.
    let rig = open(&store, Judged::No).await;
    let told = look(&rig).await.message;
    assert!(told.starts_with("was proven and waits for approval, but now: "), "{told}");
    assert!(!told.contains("crossfade approve"), "{told}");
}
