//! What counts in a visit of a stage: time of a process that runs, news of this process, and calls
//! that have ended.

use std::{sync::Arc, time::Duration};

use tokio::time::advance;

use crate::controller::{
    Decision, Evaluation, Setup,
    rig::{Rig, Store, by, name, plan, until},
};
use crate::domain::{
    Command, Consent, Margin, Metric, Outcome, Plan, Share, State, Timestamp, Undecided,
};

const START: Timestamp = Timestamp(1_795_000_000_000);
const MINUTE: Duration = Duration::from_mins(1);
const MINUTE_MS: u64 = 60_000;

/// Two stages of so many minutes and few pairs.
fn short(minutes: u64) -> Plan {
    let mut plan = plan("a");
    plan.stages.truncate(2);
    for stage in &mut plan.stages {
        (stage.duration_ms_min, stage.samples_min) = (minutes * MINUTE_MS, 10);
        stage.gates[0].margin = Margin::parse(Metric::ErrorRate, "+20pp").unwrap();
    }
    plan
}

/// Requests of the rollout that both sides answer well.
async fn answer(store: &Store, rig: &Rig, requests: usize) {
    store.answer(rig, &vec![Outcome::Ok; requests]).await;
}

/// A process whose rollout has stages of so many minutes, and 100 requests answered well.
async fn begun(store: &Store, minutes: u64) -> Rig {
    let rig = store.open(START).await;
    rig.handle.create(name("a"), short(minutes), by("")).await.unwrap();
    rig.run("a", Command::Start).await.unwrap();
    answer(store, &rig, 100).await;
    rig
}

/// Minutes spent in the stage that a restart would know of.
fn kept_minutes(store: &Store) -> u64 {
    let kept = store.pairs.kept("traffic/a").unwrap_or_default();
    kept.as_chunks().0.get(7).map_or(0, |it| u64::from_be_bytes(*it) / MINUTE_MS)
}

async fn look(rig: &Rig) -> Evaluation {
    rig.look("a").await
}

/// Whole minutes that count in the stage.
async fn minutes(rig: &Rig) -> u64 {
    let view = look(rig).await.view;
    view.rollout.dwelt_ms(view.now) / MINUTE_MS
}

/// T1 T3 T6
#[tokio::test(start_paused = true)]
async fn neither_down_time_nor_a_set_clock_is_time_in_a_stage_and_a_restart_waits_for_news() {
    let store = Store::new();
    let rig = begun(&store, 60).await;
    advance(20 * MINUTE).await;
    assert_eq!(minutes(&rig).await, 20);
    until("it is kept", || kept_minutes(&store) == 20).await;
    // Killed; days later, or by a clock that somebody set.
    drop(rig);
    let rig = store.open(Timestamp(START.0 + 5 * 24 * 60 * MINUTE_MS)).await;
    assert_eq!(minutes(&rig).await, 20);
    advance(39 * MINUTE).await;
    answer(&store, &rig, 1).await;
    assert_eq!(minutes(&rig).await, 59);
    assert_eq!(look(&rig).await.view.rollout.stage_index(), 0, "proven, and not for an hour");
    until("it is kept", || kept_minutes(&store) == 59).await;
    drop(rig);
    let rig = store.open(START).await;
    advance(2 * MINUTE).await;
    let Evaluation { view, decision, .. } = look(&rig).await;
    assert_eq!((view.rollout.stage_index(), decision), (0, Decision::Hold));
    assert!(view.message.contains("nothing of it was heard since"), "{}", view.message);
    answer(&store, &rig, 1).await;
    until("it goes on", || rig.view("a").rollout.stage_index() == 1).await;
    advance(59 * MINUTE).await;
    answer(&store, &rig, 100).await;
    assert_eq!(look(&rig).await.view.rollout.stage_index(), 1, "one stage, and anew");
}

#[tokio::test(start_paused = true)]
async fn without_the_stored_evidence_a_stage_begins_again_and_it_counts_once_it_is_back() {
    let store = Store::new();
    let rig = begun(&store, 60).await;
    advance(20 * MINUTE).await;
    until("it is kept", || kept_minutes(&store) == 20).await;
    drop(rig);
    let later = Timestamp(START.0 + 5 * 24 * 60 * MINUTE_MS);
    let setup = Setup { pairs: None, ..store.setup(later) };
    let rig = Rig::set_up(store.sim.clone(), setup).await;
    assert_eq!(minutes(&rig).await, 0);
    advance(59 * MINUTE).await;
    let Evaluation { view, decision, .. } = look(&rig).await;
    assert_eq!((view.rollout.stage_index(), decision), (0, Decision::Hold));
    assert_eq!(view.evidence.pairs, 0);
    drop(rig);
    let rig = store.open(later).await;
    assert_eq!((minutes(&rig).await, look(&rig).await.view.evidence.pairs), (20, 100));
}

#[tokio::test(start_paused = true)]
async fn a_stage_is_not_left_while_calls_hang_that_began_in_it() {
    let store = Store::new();
    let rig = store.open(START).await;
    rig.handle.create(name("a"), short(1), by("")).await.unwrap();
    rig.run("a", Command::Start).await.unwrap();
    let live = Arc::clone(&rig.board.load().live[0]);
    let hang: Vec<_> = (0..20).map(|_| live.wait(START)).collect();
    answer(&store, &rig, 100).await;
    advance(2 * MINUTE).await;
    let Evaluation { view, decision, .. } = look(&rig).await;
    assert_eq!((view.rollout.stage_index(), decision), (0, Decision::Hold));
    assert!(
        view.message.contains("20 of the last 20 calls are still under way"),
        "{}",
        view.message
    );
    drop(hang);
    until("it goes on", || rig.view("a").rollout.stage_index() == 1).await;
}

/// C3
#[tokio::test(start_paused = true)]
async fn an_edit_and_a_kill_right_after_it_take_no_time_from_the_stage() {
    let store = Store::new();
    let rig = begun(&store, 60).await;
    advance(20 * MINUTE).await;
    until("it is kept", || kept_minutes(&store) == 20).await;
    let mut edited = short(60);
    edited.stages[0].mirror = Share::from_basis_points(3_000).unwrap();
    rig.run("a", Command::Revise(Box::new(edited))).await.unwrap();
    assert_eq!(minutes(&rig).await, 20);
    drop(rig);
    let later = |hours: u64| Timestamp(START.0 + hours * 60 * MINUTE_MS);
    let rig = store.open(later(1)).await;
    assert_eq!(minutes(&rig).await, 20);
    // What was kept of a stage is not the time of another one, nor of the same one begun anew.
    let (to_stage, undecided, consent) = ("shadow".to_owned(), Undecided::Hold, Consent::Withheld);
    rig.run("a", Command::Jump { to_stage, undecided, consent }).await.unwrap();
    drop(rig);
    let rig = store.open(later(2)).await;
    assert_eq!(minutes(&rig).await, 0);
}

/// INV1
#[tokio::test(start_paused = true)]
async fn a_candidate_that_is_configured_otherwise_begins_its_stage_anew() {
    let store = Store::new();
    let open = async |at: u64, identity: u64| {
        let mut setup = store.setup(Timestamp(START.0 + at * 60 * MINUTE_MS));
        setup.identities.insert(name("cheap"), identity);
        Rig::set_up(store.sim.clone(), setup).await
    };
    let rig = open(0, 1).await;
    rig.handle.create(name("a"), short(60), by("")).await.unwrap();
    rig.run("a", Command::Start).await.unwrap();
    answer(&store, &rig, 100).await;
    advance(20 * MINUTE).await;
    until("it is kept", || kept_minutes(&store) == 20).await;
    drop(rig);
    let rig = open(1, 1).await;
    assert_eq!((minutes(&rig).await, look(&rig).await.view.evidence.pairs), (20, 100));
    drop(rig);
    let rig = open(2, 2).await;
    let view = look(&rig).await.view;
    assert_eq!((minutes(&rig).await, view.evidence.pairs), (0, 0));
    assert_eq!(view.rollout.state(), State::Running);
    let told = rig.handle.views().records.last().unwrap().comment.clone();
    assert_eq!(told, "its providers are configured otherwise than before");
    // Once.
    answer(&store, &rig, 50).await;
    advance(MINUTE).await;
    until("it is kept", || kept_minutes(&store) == 1).await;
    drop(rig);
    let rig = open(3, 2).await;
    assert_eq!((minutes(&rig).await, look(&rig).await.view.evidence.pairs), (1, 50));
}
