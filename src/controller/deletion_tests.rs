//! What is deleted is gone, for this process and the next.

use tokio::time::timeout;

use super::*;
use crate::controller::{
    Setup, Start, Wanted,
    rig::{Rig, SOON, Store, advance, by, name, plan, until},
};
use crate::domain::{Outcome, Timestamp};
use crate::store::sim::Sim;

async fn delete(rig: &Rig, rollout: &str, by: Requester) -> Result<(), Rejected> {
    timeout(SOON, rig.handle.delete(name(rollout), by)).await.unwrap()
}

fn code(refused: Result<(), Rejected>) -> &'static str {
    let Err(Rejected::Refused { refusal, .. }) = refused else { panic!("{refused:?}") };
    refusal.code()
}

#[tokio::test]
async fn only_what_moves_no_traffic_is_deleted_and_a_restart_does_not_know_it() {
    let rig = Rig::running(&["a", "b"]).await;
    assert_eq!(code(delete(&rig, "a", by("")).await), "MOVES_TRAFFIC");
    rig.run("a", Command::Rollback).await.unwrap();
    let seen = Requester { revision: Some(1), ..by("k") };
    assert!(matches!(delete(&rig, "a", seen).await, Err(Rejected::Stale { .. })));
    delete(&rig, "a", by("k")).await.unwrap();
    assert!(matches!(rig.run("a", Command::Start).await, Err(Rejected::Unknown(_))));
    // Asked once more it is done already; by somebody else there is nothing to do it to.
    delete(&rig, "a", by("k")).await.unwrap();
    assert!(matches!(delete(&rig, "a", by("other")).await, Err(Rejected::Unknown(_))));
    let history = rig.agrees_with_its_journal().await;
    assert_eq!(history.records.last().unwrap().event, Event::Deleted);
}

#[tokio::test]
async fn a_namesake_begins_with_nothing_of_what_was_deleted() {
    let store = Store::new();
    let rig = store.open(Timestamp(1_000_000)).await;
    let begin = async |rig: &Rig| {
        rig.handle.create(name("a"), plan("a"), by("")).await.unwrap();
        rig.run("a", Command::Start).await.unwrap();
    };
    begin(&rig).await;
    store.answer(&rig, &[Outcome::Ok; 30]).await;
    until("they are heard", || rig.view("a").evidence.pairs == 30).await;
    rig.run("a", Command::Rollback).await.unwrap();
    delete(&rig, "a", by("")).await.unwrap();
    begin(&rig).await;
    assert_eq!((rig.view("a").rollout.attempt(), rig.view("a").evidence.pairs), (1, 0));
    store.answer(&rig, &[Outcome::Ok; 7]).await;
    until("they are heard", || rig.view("a").evidence.pairs == 7).await;
    rig.end().await;
    let again = store.open(Timestamp(9_000_000)).await;
    assert_eq!(again.look("a").await.view.evidence.pairs, 7);
}

#[tokio::test]
async fn while_a_deletion_is_written_nothing_else_begins() {
    let rig = Rig::new(Sim::default()).await;
    rig.handle.create(name("a"), plan("a"), by("")).await.unwrap();
    let steps = rig.sim.steps();
    rig.sim.hang();
    let handle = rig.handle.clone();
    let (answer, mut deleted) = tokio::sync::oneshot::channel();
    crate::tasks::spawn("delete", async move {
        drop(answer.send(handle.delete(name("a"), by("")).await));
    });
    until("the disk hangs", || steps < rig.sim.steps()).await;
    for command in [Command::Start, advance()] {
        let refused = rig.run("a", command).await;
        assert!(matches!(refused, Err(Rejected::Unavailable(_))), "{refused:?}");
    }
    // A rollback is never refused; there is nothing to roll back.
    rig.run("a", Command::Rollback).await.unwrap();
    rig.sim.go_on();
    timeout(SOON, &mut deleted).await.unwrap().unwrap().unwrap();
    assert!(rig.handle.view(&name("a")).is_err());
    rig.agrees_with_its_journal().await;
}

#[tokio::test]
async fn what_the_configuration_asks_for_is_not_deleted() {
    let store = Store::new();
    let wanted = Wanted { name: name("a"), plan: plan("a"), start: Start::WhenAsked };
    let setup = Setup { wanted: vec![wanted], ..store.setup(Timestamp(1_000_000)) };
    let rig = Rig::set_up(store.sim.clone(), setup).await;
    assert_eq!(code(delete(&rig, "a", by("")).await), "CONFIGURED");
    rig.end().await;
    let rig = store.open(Timestamp(2_000_000)).await;
    delete(&rig, "a", by("")).await.unwrap();
}
