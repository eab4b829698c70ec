//! Steps up that the disk held back for so long that they would not be taken any more.

use std::sync::Arc;

use crate::controller::{
    Controller, Requester,
    rig::{Rig, advance, by, kind, name, plan, setup, until},
};
use crate::domain::{Cause, Command, Event, Lane, Share};
use crate::store::sim::Sim;

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
