//! Steps up that the disk held back for so long that they would not be taken any more.

use std::sync::Arc;

use crate::controller::{
    Controller, Requester,
    rig::{Rig, Store, advance, by, kind, name, plan, setup, tell, until},
};
use crate::domain::{Cause, Command, Event, Lane, Outcome, Share, Timestamp};
use crate::store::{Recorder, sim::Sim};

const START: Timestamp = Timestamp(1_795_000_000_000);

/// C3
#[tokio::test]
async fn what_was_told_before_a_success_was_written_is_none_of_the_guard_after_a_kill_either() {
    let store = Store::new();
    let rig = store.open(START).await;
    let mut plan = plan("a");
    plan.stages.truncate(1);
    rig.handle.create(name("a"), plan, by("")).await.unwrap();
    rig.run("a", Command::Start).await.unwrap();
    rig.end().await;

    let setup = store.setup(START);
    let (outbox, clock) = (setup.outbox.clone(), setup.clock);
    let (handle, recorder) = Recorder::start(store.pairs.clone(), move || clock.now()).unwrap();
    setup.recorder.set(handle).unwrap();
    let (mut controller, _handle) = Controller::new(setup).await;
    let window = controller.managed[&name("a")].rollout.window().unwrap();
    controller.carry_out(
        &name("a"),
        Event::Succeeded(Cause::Override),
        &Requester::controller(),
        None,
    );
    let later = Timestamp(clock.now().0 + 5);
    until("time has passed", || later <= clock.now()).await;
    tell(&outbox, &store.pairs, &window, &[Outcome::Ok; 30], clock.now());
    while let Ok(seen) = controller.seen.try_recv() {
        controller.take(seen);
    }
    let pairs = |it: &Controller| it.managed[&name("a")].ledger.evidence().pairs;
    assert_eq!(pairs(&controller), 30);
    let landed = controller.book.written().await;
    controller.written(landed);
    assert_eq!(pairs(&controller), 0, "the guard counts anew");
    recorder.join().unwrap();
    let (controller, _handle) = Controller::new(store.setup(later)).await;
    assert_eq!(pairs(&controller), 0);
}

/// Writes that the gates of `a` have passed and it enters this stage, on a disk that hangs until it
/// is known to be slow, if it is `late`. Tells what its traffic is then.
async fn enter(controller: &mut Controller, sim: &Sim, stage: usize, late: bool) -> Arc<Lane> {
    if late {
        sim.hang();
    }
    let up = Event::StageEntered { attempt: 1, stage, cause: Cause::GatesPassed };
    controller.carry_out(&name("a"), up, &Requester::controller(), None);
    until("the write is slow", || !late || controller.book.problem().is_some()).await;
    sim.go_on();
    let written = controller.book.written().await;
    controller.written(written);
    let shown = Arc::clone(&controller.board.load().snapshot.lanes[0]);
    controller.settle().await;
    shown
}

#[tokio::test]
async fn a_step_up_that_came_late_and_would_not_be_taken_now_raises_nothing() {
    let rig = Rig::new(Sim::default()).await;
    rig.handle.create(name("a"), plan("a"), by("")).await.unwrap();
    rig.run("a", Command::Start).await.unwrap();
    let sim = rig.end().await;
    for late in [true, false] {
        let sim = Sim::with(&sim.seen());
        let (mut controller, _handle) =
            Controller::new(setup(Ok(sim.endless_journal().unwrap()))).await;
        let lane = enter(&mut controller, &sim, 1, late).await;
        assert!(lane.window.is_some());
        assert_eq!(lane.serve == Share::NONE, late);
        let (_, history) = sim.endless_journal().unwrap();
        let kinds: Vec<String> = history.records.iter().skip(2).map(kind).collect();
        assert_eq!(kinds, if late { vec!["a stage 1", "a stage 0"] } else { vec!["a stage 1"] });
    }
}

/// INV4
#[tokio::test]
async fn a_step_that_came_late_is_taken_back_also_to_where_other_requests_are() {
    let rig = Rig::new(Sim::default()).await;
    let mut plan = plan("a");
    plan.stages[1].slice.tasks = vec!["notes".to_owned()];
    plan.stages[2].slice.tasks = vec!["titles".to_owned()];
    rig.handle.create(name("a"), plan.clone(), by("")).await.unwrap();
    for command in [Command::Start, advance()] {
        rig.run("a", command).await.unwrap();
    }
    let sim = rig.end().await;
    let (mut controller, _handle) =
        Controller::new(setup(Ok(sim.endless_journal().unwrap()))).await;
    controller.publish();
    let lane = enter(&mut controller, &sim, 2, true).await;
    assert_eq!((lane.serve, &lane.stage_slice), (plan.stages[1].serve, &plan.stages[1].slice));
    let (_, history) = sim.endless_journal().unwrap();
    let kinds: Vec<String> = history.records.iter().skip(2).map(kind).collect();
    assert_eq!(kinds, ["a stage 1", "a stage 2", "a stage 1"]);
}
