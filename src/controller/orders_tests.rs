//! What the configuration asks for at the start, and what it finds there.

use std::sync::Arc;

use tokio::time::timeout;

use crate::clock::Clock;
use crate::controller::{
    Controller, Rejected, Setup, Start, Wanted,
    rig::{Rig, SOON, by, name, plan, setup, until},
};
use crate::domain::{Command, Plan, State};
use crate::store::sim::{Errno, Fault, Lasts, Sim};

fn wanted(rollout: &str) -> Vec<Wanted> {
    vec![Wanted { name: name(rollout), plan: plan(rollout), start: Start::Once }]
}

/// A configuration that has another candidate in the place of `cheap`.
fn other(sim: &Sim) -> Setup {
    let mut setup = setup(Ok(sim.endless_journal().unwrap()));
    setup.providers.remove(&name("cheap"));
    setup.providers.insert(name("other"), Vec::new());
    setup
}

fn to_other(rollout: &str) -> Plan {
    Plan { candidate: name("other"), ..plan(rollout) }
}

#[tokio::test]
async fn a_disk_that_hangs_at_the_start_does_not_keep_the_program_from_starting() {
    let sim = Sim::default();
    let setup = Setup { wanted: wanted("a"), ..setup(Ok(sim.endless_journal().unwrap())) };
    sim.hang();
    let rig = timeout(SOON, Rig::set_up(sim.clone(), setup)).await;
    sim.go_on();
    let rig = rig.unwrap();
    until("it is there", || rig.handle.view(&name("a")).is_ok()).await;
    rig.agrees_with_its_journal().await;
}

#[tokio::test]
async fn nothing_moves_before_it_is_known_what_the_configuration_cannot_serve() {
    let sim = Rig::running(&["a"]).await.end().await;
    let wanted = vec![Wanted { plan: to_other("b"), ..wanted("b").remove(0) }];
    let setup = Setup { wanted, ..other(&sim) };
    let board = Arc::clone(&setup.board);
    let (controller, _handle) = Controller::new(setup).await;
    assert!(board.load().snapshot.lanes.is_empty(), "the loop does not run yet");
    controller.publish();
    let moving = |it: &str| {
        let lanes = &board.load().snapshot.lanes;
        lanes.iter().any(|lane| lane.rollout == name(it) && lane.window.is_some())
    };
    assert!(moving("b") && !moving("a"));
}

#[tokio::test]
async fn a_plan_that_names_a_provider_again_makes_a_broken_rollout_whole() {
    let rig = Rig::running(&["a"]).await;
    rig.run("a", Command::Rollback).await.unwrap();
    let sim = rig.end().await;
    let rig = Rig::set_up(sim.clone(), other(&sim)).await;
    rig.run("a", Command::Revise(Box::new(to_other("a")))).await.unwrap();
    rig.run("a", Command::Start).await.unwrap();
    assert!(rig.moves("a"));
}

#[tokio::test]
async fn a_restart_does_not_start_what_was_rolled_back_before_it_began() {
    let rig = Rig::new(Sim::default()).await;
    rig.handle.create(name("a"), plan("a"), by("")).await.unwrap();
    let step = rig.sim.steps() + 1;
    rig.sim.fail(Some(Fault { step, error: Errno::Io, lasts: Lasts::Once }));
    let _hung = rig.hang_in("a", Command::Start).await;
    rig.run("a", Command::Rollback).await.unwrap();
    rig.sim.go_on();
    rig.until_durable("a").await;
    assert_eq!(rig.view("a").rollout.attempt(), 0);
    let sim = rig.end().await;
    let setup = Setup { wanted: wanted("a"), ..setup(Ok(sim.endless_journal().unwrap())) };
    let rig = Rig::set_up(sim, setup).await;
    until("it is shown", || rig.handle.view(&name("a")).is_ok()).await;
    assert_eq!(rig.view("a").rollout.state(), State::RolledBack);
}

#[tokio::test]
async fn a_key_of_a_command_that_changed_nothing_is_obeyed_once_too() {
    let rig = Rig::running(&["a"]).await;
    rig.run("a", Command::Pause).await.unwrap();
    let ask = |command: Command| rig.handle.command(name("a"), command, by("late"));
    ask(Command::Pause).await.unwrap();
    rig.run("a", Command::Resume).await.unwrap();
    let again = ask(Command::Pause).await.unwrap();
    assert_eq!(again.rollout.state(), State::Running, "it was asked before the resume");
    let other = ask(Command::Resume).await;
    assert!(matches!(other, Err(Rejected::ReusedRequestId(_))), "{other:?}");
}

#[tokio::test]
async fn a_start_does_not_begin_anew_what_has_just_to_go_back() {
    let sim = Rig::running(&["a"]).await.end().await;
    let setup = setup(Ok(sim.endless_journal().unwrap()));
    let board = Arc::clone(&setup.board);
    let (mut controller, _handle) = Controller::new(setup).await;
    let live = Arc::clone(&controller.managed[&name("a")].live);
    let now = Clock::start().now();
    (0..1_000).for_each(|_| live.watch(&board, now, Some(true), Some(false)));
    let answer = controller.obey(&name("a"), &Command::Start, &by(""));
    assert!(matches!(answer, Err(Rejected::Stale { .. })), "{answer:?}");
    assert_eq!(controller.managed[&name("a")].rollout.state(), State::RolledBack);
}
