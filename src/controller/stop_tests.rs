//! Stops, lifts and starts that supersede, while the disk hangs or fails.

use std::sync::Arc;

use tokio::{sync::mpsc, time::timeout};

use crate::clock::Clock;
use crate::controller::{
    Handle, Rejected, Requester,
    rig::{Rig, SOON, advance, by, name, plan, until},
};
use crate::domain::{Cause, Command, Event, Plan, Refusal, Slice, State};
use crate::store::sim::{Errno, Fault, Lasts, Sim};
use crate::tasks::spawn;

fn is_stopped<T>(answer: &Result<T, Rejected>) -> bool {
    let Err(Rejected::Refused { refusal, .. }) = answer else { return false };
    matches!(**refusal, Refusal::Stopped { .. })
}

/// Asks for a lift, and does not wait for the answer.
fn lift(handle: &Handle) -> mpsc::Receiver<Result<(), Rejected>> {
    let (answer, here) = mpsc::channel(1);
    let handle = handle.clone();
    spawn("lift", async move { drop(answer.send(handle.lift(by("")).await).await) });
    here
}

#[tokio::test]
async fn a_stop_is_on_disk_with_every_fall_and_holds_after_a_restart_until_it_is_lifted() {
    let rig = Rig::running(&["a", "b"]).await;
    let fallen = rig.handle.stop(by("")).await.unwrap();
    assert!(fallen.iter().all(|it| it.durable && it.rollout.cause() == Some(Cause::Stopped)));
    assert_eq!(fallen.len(), 2);
    assert!(!rig.moves("a") && !rig.moves("b"));
    assert_eq!(rig.told(3), ["- Stopped", "a back", "b back"]);
    assert!(is_stopped(&rig.run("a", Command::Start).await));
    let count = rig.handle.views().records.len();
    assert_eq!(rig.handle.stop(by("")).await.unwrap().len(), 0);
    assert_eq!(rig.handle.views().records.len(), count, "a second stop is nothing new");
    let sim = rig.sim.clone();
    rig.agrees_with_its_journal().await;
    let rig = Rig::new(sim).await;
    assert!(is_stopped(&rig.run("a", Command::Start).await));
    assert!(rig.handle.views().stopped.is_some());
    rig.handle.lift(by("")).await.unwrap();
    rig.run("a", Command::Start).await.unwrap();
    assert_eq!(rig.told(2), ["- Lifted", "a stage 0"]);
    rig.agrees_with_its_journal().await;
}

#[tokio::test]
async fn a_stop_is_remembered_by_a_journal_that_has_forgotten_its_record() {
    let sim = Sim::default();
    let mut rig = Rig::on(sim.clone(), sim.short_journal().unwrap()).await;
    for it in ["a", "b"] {
        rig.handle.create(name(it), plan(it), by("")).await.unwrap();
    }
    rig.handle.stop(by("")).await.unwrap();
    for it in 0..9 {
        rig.handle.create(name(&format!("c{it}")), plan(&format!("c{it}")), by("")).await.unwrap();
    }
    rig.tasks.take().unwrap().run(async {}, SOON).await.unwrap();
    let journal = sim.short_journal().unwrap();
    assert!(3 < journal.1.forgotten && journal.1.stopped.is_some());
    let rig = Rig::on(sim, journal).await;
    assert!(is_stopped(&rig.run("a", Command::Start).await));
    rig.handle.lift(by("")).await.unwrap();
    assert!(rig.run("a", Command::Start).await.is_ok());
}

#[tokio::test]
async fn a_stop_that_is_asked_again_by_its_key_undoes_no_lift_also_after_compaction() {
    let sim = Sim::default();
    let mut rig = Rig::on(sim.clone(), sim.short_journal().unwrap()).await;
    for it in ["a", "b", "c"] {
        rig.handle.create(name(it), plan(it), by("")).await.unwrap();
    }
    rig.run("a", Command::Start).await.unwrap();
    rig.run("b", Command::Start).await.unwrap();
    let stop = async |rig: &Rig, key| {
        let views = rig.handle.stop(by(key)).await.unwrap();
        views.iter().map(|it| it.rollout.name().to_string()).collect::<Vec<_>>()
    };
    for _ in 0..2 {
        assert_eq!(stop(&rig, "fire").await, ["a", "b"], "while it holds too");
    }
    assert_eq!(rig.told(3), ["- Stopped", "a back", "b back"]);
    rig.handle.lift(by("")).await.unwrap();
    for _ in 0..6 {
        rig.run("c", Command::Start).await.unwrap();
        rig.run("c", Command::Rollback).await.unwrap();
    }
    rig.run("a", Command::Start).await.unwrap();
    rig.run("c", Command::Start).await.unwrap();
    for _ in 0..2 {
        let last = rig.handle.views().records.last().unwrap().seq;
        assert_eq!(stop(&rig, "fire").await, ["a", "b"]);
        assert!(rig.moves("a") && rig.moves("c") && rig.handle.views().stopped.is_none());
        assert!(rig.board.load().live.iter().filter(|it| it.is_open()).count() == 2);
        assert_eq!(rig.handle.views().records.last().unwrap().seq, last, "nothing happened");
        rig.tasks.take().unwrap().run(async {}, SOON).await.unwrap();
        let journal = sim.short_journal().unwrap();
        assert!(6 < journal.1.forgotten, "the stop is older than every record that is left");
        rig = Rig::on(sim.clone(), journal).await;
        until("it is shown", || rig.handle.views().rollouts.len() == 3 && rig.moves("a")).await;
    }
    assert_eq!(stop(&rig, "smoke").await, ["a", "c"], "another key stops");
    assert!(is_stopped(&rig.run("b", Command::Start).await));
}

#[tokio::test]
async fn a_stop_does_not_wait_for_the_disk_and_overtakes_what_is_being_written() {
    let starts = [("a", advance()), ("c", Command::Start)];
    for (rollout, command) in starts {
        let rig = Rig::running(&["a", "b"]).await;
        rig.handle.create(name("c"), plan("c"), by("")).await.unwrap();
        let mut hung = rig.hang_in(rollout, command).await;
        let mut waits = rig.ask("c", Command::Start, by(""));
        let fallen = timeout(SOON, rig.handle.stop(by(""))).await.unwrap().unwrap();
        assert!(fallen.len() == 2 && fallen.iter().all(|it| !it.durable));
        assert!(["a", "b", "c"].iter().all(|it| !rig.moves(it)));
        assert!(is_stopped(&timeout(SOON, hung.recv()).await.unwrap().unwrap()));
        rig.sim.go_on();
        assert!(is_stopped(&timeout(SOON, waits.recv()).await.unwrap().unwrap()));
        for it in ["a", "b", "c"] {
            rig.until_durable(it).await;
            assert!(!rig.moves(it), "{it}");
        }
        assert_ne!(rig.view(rollout).rollout.state(), State::Running);
        rig.agrees_with_its_journal().await;
    }
}

#[tokio::test]
async fn a_stop_on_a_broken_disk_is_in_force_and_written_when_the_disk_is_well_again() {
    let rig = Rig::running(&["a"]).await;
    rig.sim.fail(Some(Fault { step: 0, error: Errno::Io, lasts: Lasts::ForEver }));
    let fallen = rig.handle.stop(by("")).await.unwrap();
    assert!(fallen.len() == 1 && !fallen[0].durable && !rig.moves("a"));
    assert!(rig.handle.lift(by("")).await.is_err(), "a lift is a step forward");
    rig.sim.fail(None);
    rig.until_durable("a").await;
    assert_eq!(rig.told(2), ["- Stopped", "a back"]);
    assert!(is_stopped(&rig.run("a", Command::Start).await));
    rig.agrees_with_its_journal().await;
}

#[tokio::test]
async fn a_stop_overtakes_a_lift_that_is_being_written() {
    for fails in [None, Some(Errno::Io)] {
        let rig = Rig::running(&["a"]).await;
        rig.handle.stop(by("")).await.unwrap();
        let steps = rig.sim.steps();
        rig.sim.fail(fails.map(|error| Fault { step: steps + 1, error, lasts: Lasts::Once }));
        rig.sim.hang();
        let mut lifted = lift(&rig.handle);
        until("the disk hangs", || steps < rig.sim.steps()).await;
        rig.handle.stop(by("")).await.unwrap();
        assert!(timeout(SOON, lifted.recv()).await.unwrap().unwrap().is_err());
        rig.sim.go_on();
        until("it is told", || rig.told(1) == ["- Stopped"]).await;
        assert!(is_stopped(&rig.run("a", Command::Start).await));
        rig.agrees_with_its_journal().await;
    }
}

#[tokio::test]
async fn a_stop_overtakes_a_lift_that_waits_its_turn() {
    let rig = Rig::running(&["a"]).await;
    rig.handle.stop(by("")).await.unwrap();
    rig.handle.create(name("b"), plan("b"), by("")).await.unwrap();
    let revise = Command::Revise(Box::new(Plan { copies_per_day_max: 7, ..plan("b") }));
    let _hung = rig.hang_in("b", revise).await;
    let mut lifted = lift(&rig.handle);
    rig.handle.evaluate(name("a")).await.unwrap();
    rig.handle.stop(by("")).await.unwrap();
    assert!(is_stopped(&timeout(SOON, lifted.recv()).await.unwrap().unwrap()));
    rig.sim.go_on();
    rig.until_durable("b").await;
    until("it is told", || rig.told(2) == ["b Revised", "- Stopped"]).await;
    assert!(is_stopped(&rig.run("a", Command::Start).await));
    rig.agrees_with_its_journal().await;
}

#[tokio::test]
async fn a_lift_that_names_a_stop_leaves_a_later_one() {
    let rig = Rig::running(&["a"]).await;
    let lift = |at: u64| rig.handle.lift(Requester { revision: Some(at), ..by("") });
    let stopped_at = || rig.handle.views().stopped_at.unwrap().0;
    rig.handle.stop(by("")).await.unwrap();
    let first = stopped_at();
    lift(first).await.unwrap();
    lift(first).await.unwrap();
    until("time has passed", || first + 10 < Clock::start().now().0).await;
    rig.handle.stop(by("")).await.unwrap();
    let late = lift(first).await;
    assert!(matches!(late, Err(Rejected::Stale { .. })), "{late:?}");
    assert!(is_stopped(&rig.run("a", Command::Start).await));
    lift(stopped_at()).await.unwrap();
    rig.agrees_with_its_journal().await;
}

#[tokio::test]
async fn what_is_superseded_is_on_disk_before_what_supersedes_it() {
    let rig = Rig::running(&["a"]).await;
    let same =
        Plan { slice: Slice { features: vec!["a".to_owned()], ..Slice::default() }, ..plan("b") };
    rig.handle.create(name("b"), same, by("")).await.unwrap();
    let refused = rig.run("b", Command::Start).await;
    assert!(matches!(refused, Err(Rejected::Overlap { .. })), "{refused:?}");
    // The next write is of the fall, and fails.
    let step = rig.sim.steps() + 1;
    rig.sim.fail(Some(Fault { step, error: Errno::Io, lasts: Lasts::ForEver }));
    let refused = rig.run("b", Command::Supersede).await;
    assert!(matches!(refused, Err(Rejected::Unavailable(_))), "{refused:?}");
    assert_eq!(rig.view("a").rollout.cause(), Some(Cause::Superseded));
    assert!(!rig.moves("a") && !rig.moves("b"));
    rig.sim.fail(None);
    rig.until_durable("a").await;
    rig.run("a", Command::Start).await.unwrap();
    let done = rig.run("b", Command::Supersede).await.unwrap();
    assert!(done.rollout.state() == State::Running && rig.moves("b") && !rig.moves("a"));
    assert_eq!(rig.told(3), ["a stage 0", "a back", "b stage 0"]);
    rig.agrees_with_its_journal().await;
}

#[tokio::test]
async fn a_plan_that_was_overtaken_holds_for_the_next_attempt_as_in_the_journal() {
    let rig = Rig::running(&["a"]).await;
    let revised = Plan { copies_per_day_max: 7, ..plan("a") };
    let hung = rig.hang_in("a", Command::Revise(Box::new(revised.clone()))).await;
    rig.run("a", Command::Rollback).await.unwrap();
    rig.sim.go_on();
    rig.until_durable("a").await;
    drop(hung);
    assert_eq!(*rig.view("a").rollout.plan(), revised);
    let back = Arc::clone(rig.handle.views().records.last().unwrap());
    assert!(matches!(back.event, Event::RolledBack(_)));
    assert_eq!(back.plan_revision, rig.view("a").rollout.plan_revision());
    rig.agrees_with_its_journal().await;
}

#[tokio::test]
async fn without_a_journal_nobody_is_told_that_everything_is_stopped() {
    let rig = Rig::made(Sim::default(), Err("another process has it".to_owned())).await;
    let refused = rig.handle.stop(by("")).await;
    assert!(matches!(refused, Err(Rejected::Unavailable(_))), "{refused:?}");
    let refused = rig.handle.lift(by("")).await;
    assert!(matches!(refused, Err(Rejected::Unavailable(_))), "{refused:?}");
    assert_eq!(rig.handle.views().stopped, None);
}
