//! Steps while the disk hangs or fails: what comes between a write's beginning and its end.

use tokio::time::timeout;

use crate::clock::Clock;
use crate::controller::{
    Rejected, Requester,
    rig::{Rig, SOON, advance, by, kind, name, plan, saved, until},
};
use crate::domain::{Command, Consent, Plan, Share, State, Undecided};
use crate::store::sim::{Errno, Fault, Lasts, Sim};

#[tokio::test]
async fn a_write_that_hangs_keeps_nobody_else_waiting() {
    let rig = Rig::running(&["a", "b", "c"]).await;
    let mut hung = rig.hang_in("a", advance()).await;
    // A rollback of another rollout, by command.
    let back = rig.run("b", Command::Rollback).await.unwrap();
    assert_eq!((back.rollout.state(), back.durable), (State::RolledBack, false));
    assert!(!rig.moves("b") && rig.moves("a"));
    // A tripwire.
    let board = rig.board.load();
    let index = board.snapshot.lanes.iter().position(|it| it.rollout == name("c")).unwrap();
    let now = Clock::start().now();
    (0..1_000).for_each(|_| board.live[index].watch(&rig.board, now, Some(true), Some(false)));
    until("the tripwire took c back", || rig.view("c").rollout.state() == State::RolledBack).await;
    assert!(!rig.moves("c"));
    // Questions.
    rig.handle.evaluate(name("a")).await.unwrap();
    assert_eq!(rig.view("a").rollout.stage_index(), 1, "not before it is on disk");
    assert!(hung.try_recv().is_err(), "and nobody was told that it is");
    rig.sim.go_on();
    let done = timeout(SOON, hung.recv()).await.unwrap().unwrap().unwrap();
    assert_eq!(done.rollout.stage_index(), 2);
    rig.until_durable("b").await;
    rig.until_durable("c").await;
    assert_eq!(rig.told(3), ["a stage 2", "b back", "c back"]);
    rig.agrees_with_its_journal().await;
}

#[tokio::test]
async fn a_step_that_was_overtaken_by_a_rollback_never_takes_effect() {
    let rig = Rig::running(&["a"]).await;
    let mut hung = rig.hang_in("a", advance()).await;
    let back = rig.run("a", Command::Rollback).await.unwrap();
    assert_eq!((back.rollout.state(), back.durable), (State::RolledBack, false));
    let answer = timeout(SOON, hung.recv()).await.unwrap().unwrap();
    assert!(matches!(answer, Err(Rejected::Stale { .. })), "{answer:?}");
    rig.sim.go_on();
    rig.until_durable("a").await;
    assert!(!rig.moves("a"));
    assert_eq!(rig.told(2), ["a stage 2", "a back"]);
    // The same key again: what it did is done, and undone.
    let again = rig.handle.command(name("a"), advance(), by("hung")).await.unwrap();
    assert_eq!(again.rollout.state(), State::RolledBack);
    rig.agrees_with_its_journal().await;
}

#[tokio::test]
async fn a_rollback_takes_the_place_of_a_step_that_fails() {
    let rig = Rig::running(&["a"]).await;
    let seq = rig.handle.views().records.last().unwrap().seq;
    let step = rig.sim.steps() + 1;
    rig.sim.fail(Some(Fault { step, error: Errno::Io, lasts: Lasts::Once }));
    let mut hung = rig.hang_in("a", advance()).await;
    rig.run("a", Command::Rollback).await.unwrap();
    rig.sim.go_on();
    assert!(timeout(SOON, hung.recv()).await.unwrap().unwrap().is_err());
    rig.until_durable("a").await;
    assert_eq!(rig.told(1), ["a back"]);
    let history = rig.agrees_with_its_journal().await;
    assert_eq!(history.last_seq(), seq + 1, "the position that was free");
}

#[tokio::test]
async fn a_rollback_overtakes_a_start_that_is_being_written() {
    for fails in [None, Some(Errno::Full)] {
        let rig = Rig::new(Sim::default()).await;
        rig.handle.create(name("a"), plan("a"), by("")).await.unwrap();
        let step = rig.sim.steps() + 1;
        rig.sim.fail(fails.map(|error| Fault { step, error, lasts: Lasts::Once }));
        let _hung = rig.hang_in("a", Command::Start).await;
        rig.run("a", Command::Rollback).await.unwrap();
        rig.sim.go_on();
        rig.until_durable("a").await;
        assert_eq!(rig.view("a").rollout.state(), State::RolledBack);
        assert!(!rig.moves("a"), "what was rolled back does not begin");
        assert_eq!(rig.told(1), ["a back"]);
        let from = rig.handle.views().records.last().unwrap().from;
        assert_eq!(from, if fails.is_none() { State::Running } else { State::Pending });
        rig.agrees_with_its_journal().await;
    }
}

#[tokio::test]
async fn a_rollback_overtakes_a_start_that_waits_its_turn() {
    for start in [Command::Start, Command::Supersede] {
        let rig = Rig::running(&["b"]).await;
        rig.handle.create(name("a"), plan("a"), by("")).await.unwrap();
        let _hung = rig.hang_in("b", advance()).await;
        let mut waits = rig.ask("a", start, by(""));
        rig.handle.evaluate(name("a")).await.unwrap();
        let back = rig.run("a", Command::Rollback).await.unwrap();
        assert_eq!((back.rollout.state(), back.durable), (State::RolledBack, false));
        let answer = timeout(SOON, waits.recv()).await.unwrap().unwrap();
        assert!(matches!(answer, Err(Rejected::Stale { .. })), "{answer:?}");
        let mut later = rig.ask("a", Command::Start, by(""));
        rig.handle.evaluate(name("a")).await.unwrap();
        let _back = rig.run("a", Command::Rollback).await.unwrap();
        assert!(timeout(SOON, later.recv()).await.unwrap().unwrap().is_err());
        rig.sim.go_on();
        rig.until_durable("a").await;
        rig.handle.evaluate(name("a")).await.unwrap();
        assert!(!rig.moves("a"), "what was rolled back does not begin");
        assert_eq!(rig.told(3), ["b stage 2", "a back", "a back"]);
        rig.agrees_with_its_journal().await;
    }
}

#[tokio::test]
async fn a_fall_overtakes_every_step_of_its_rollout_that_waits_its_turn() {
    let rig = Rig::running(&["a", "b"]).await;
    let _hung = rig.hang_in("b", advance()).await;
    let mut waits = [rig.ask("a", advance(), by("")), rig.ask("a", Command::Pause, by(""))];
    rig.handle.evaluate(name("a")).await.unwrap();
    rig.run("a", Command::Rollback).await.unwrap();
    for answer in &mut waits {
        let answer = timeout(SOON, answer.recv()).await.unwrap().unwrap();
        assert!(matches!(answer, Err(Rejected::Stale { .. })), "{answer:?}");
    }
    rig.agrees_with_its_journal().await;
}

/// What takes a rollout in its second stage to a lower share without ending it.
fn lowers() -> [Command; 2] {
    let to_stage = "shadow".to_owned();
    let (undecided, consent) = (Undecided::Hold, Consent::Withheld);
    let mut plan = plan("a");
    plan.stages[1].serve = Share::NONE;
    [Command::Jump { to_stage, undecided, consent }, Command::Revise(Box::new(plan))]
}

#[tokio::test]
async fn a_lower_share_holds_before_it_is_written() {
    for command in lowers() {
        let rig = Rig::running(&["a", "b"]).await;
        assert_ne!(rig.serves("a"), Share::NONE);
        let _hung = rig.hang_in("b", advance()).await;
        let mut waits = rig.ask("a", advance(), by(""));
        rig.handle.evaluate(name("a")).await.unwrap();
        let mut lower = rig.ask("a", command, by(""));
        until("it serves nothing", || rig.serves("a") == Share::NONE).await;
        assert!(rig.moves("a") && !rig.view("a").durable);
        let overtaken = timeout(SOON, waits.recv()).await.unwrap().unwrap();
        assert!(matches!(overtaken, Err(Rejected::Stale { .. })), "{overtaken:?}");
        rig.sim.go_on();
        timeout(SOON, lower.recv()).await.unwrap().unwrap().unwrap();
        rig.until_durable("a").await;
        let board = rig.board.load();
        let index = board.snapshot.lanes.iter().position(|it| it.rollout == name("a")).unwrap();
        assert!(board.live[index].is_open(), "it goes on");
        rig.agrees_with_its_journal().await;
    }
}

#[tokio::test]
async fn a_lower_share_holds_also_where_it_cannot_be_written() {
    for command in lowers() {
        let rig = Rig::running(&["a"]).await;
        rig.sim.fail(Some(Fault { step: 0, error: Errno::Io, lasts: Lasts::ForEver }));
        let lower = rig.run("a", command).await.unwrap();
        assert!(!lower.durable && rig.moves("a"));
        assert_eq!(rig.serves("a"), Share::NONE);
        rig.sim.fail(None);
        rig.until_durable("a").await;
        rig.agrees_with_its_journal().await;
    }
}

/// INV4
#[tokio::test]
async fn a_jump_back_that_gives_the_candidate_other_requests_is_written_before_it_is_seen() {
    let rig = Rig::new(Sim::default()).await;
    let mut plan = plan("a");
    plan.stages[1].slice.tasks = vec!["notes".to_owned()];
    plan.stages[2].slice.tasks = vec!["titles".to_owned()];
    rig.handle.create(name("a"), plan.clone(), by("")).await.unwrap();
    for command in [Command::Start, advance(), advance()] {
        rig.run("a", command).await.unwrap();
    }
    let to_stage = plan.stages[1].name.clone();
    let (undecided, consent) = (Undecided::Skip, Consent::Withheld);
    let mut back = rig.hang_in("a", Command::Jump { to_stage, undecided, consent }).await;
    rig.handle.evaluate(name("a")).await.unwrap();
    assert_eq!(rig.serves("a"), plan.stages[2].serve, "a lower share, but of other requests");
    rig.sim.go_on();
    timeout(SOON, back.recv()).await.unwrap().unwrap().unwrap();
    assert_eq!(rig.serves("a"), plan.stages[1].serve);
    rig.agrees_with_its_journal().await;
}

#[tokio::test]
async fn b53_steps_wait_their_turn_and_one_key_is_obeyed_once() {
    let rig = Rig::running(&["a", "b"]).await;
    let mut hung = rig.hang_in("a", advance()).await;
    let mut same: Vec<_> = (0..100).map(|_| rig.ask("a", advance(), by("hung"))).collect();
    let mut other = rig.ask("b", advance(), by("other"));
    rig.handle.evaluate(name("a")).await.unwrap();
    rig.sim.go_on();
    for answer in same.iter_mut().chain([&mut hung]) {
        let view = timeout(SOON, answer.recv()).await.unwrap().unwrap().unwrap();
        assert_eq!(view.rollout.stage_index(), 2);
    }
    assert!(timeout(SOON, other.recv()).await.unwrap().unwrap().is_ok());
    assert_eq!(rig.told(2), ["a stage 2", "b stage 2"]);
    rig.agrees_with_its_journal().await;
}

#[tokio::test]
async fn v8_of_two_that_saw_the_same_revision_one_is_obeyed() {
    let rig = Rig::running(&["a"]).await;
    let by = |key: &str| Requester { revision: Some(rig.view("a").rollout.revision()), ..by(key) };
    let steps = rig.sim.steps();
    rig.sim.hang();
    let mut answers = ["first", "second"].map(|it| rig.ask("a", advance(), by(it)));
    until("the disk hangs", || steps < rig.sim.steps()).await;
    rig.sim.go_on();
    let (mut done, mut stale) = (0, 0);
    for answer in &mut answers {
        match timeout(SOON, answer.recv()).await.unwrap().unwrap() {
            Ok(_) => done += 1,
            Err(Rejected::Stale { .. }) => stale += 1,
            Err(other) => panic!("{other}"),
        }
    }
    assert_eq!((done, stale), (1, 1));
    assert_eq!(rig.told(1), ["a stage 2"]);
    rig.agrees_with_its_journal().await;
}

#[tokio::test]
async fn a_disk_that_is_slow_for_long_refuses_steps_forward_at_once() {
    let rig = Rig::running(&["a", "b"]).await;
    let _hung = rig.hang_in("a", advance()).await;
    let mut waits = rig.ask("b", advance(), by(""));
    let refused = timeout(SOON, waits.recv()).await.unwrap().unwrap();
    assert!(matches!(refused, Err(Rejected::Unavailable(_))), "{refused:?}");
    let degraded = rig.handle.views().degraded.clone().unwrap();
    assert!(degraded.contains("waiting for the disk"), "{degraded}");
    rig.sim.go_on();
    until("it advanced", || rig.view("a").rollout.stage_index() == 2).await;
    assert_eq!(rig.view("b").rollout.stage_index(), 1);
    rig.agrees_with_its_journal().await;
}

/// C5
#[tokio::test]
async fn c5_a_broken_disk_moves_nothing_forward_and_everything_back() {
    for error in [Errno::Io, Errno::Full] {
        let rig = Rig::running(&["a", "b"]).await;
        let count = rig.handle.views().records.len();
        rig.sim.fail(Some(Fault { step: 0, error, lasts: Lasts::ForEver }));
        let refused = rig.run("a", advance()).await;
        assert!(matches!(refused, Err(Rejected::Unavailable(_))), "{refused:?}");
        assert_eq!((rig.view("a").rollout.stage_index(), rig.told(1).len()), (1, 1));
        let back = rig.run("b", Command::Rollback).await.unwrap();
        assert_eq!((back.rollout.state(), back.durable), (State::RolledBack, false));
        assert!(!rig.moves("b"));
        until("it is told", || rig.handle.views().records.len() == count + 1).await;
        let problem = rig.handle.views().degraded.clone().unwrap();
        assert!(problem.contains("not on disk yet: 1"), "{problem}");
        let refused = rig.run("a", advance()).await;
        assert!(matches!(refused, Err(Rejected::Unavailable(_))), "{refused:?}");
        rig.sim.fail(None);
        rig.until_durable("b").await;
        rig.run("a", advance()).await.unwrap();
        assert_eq!(rig.told(2), ["b back", "a stage 2"]);
        rig.agrees_with_its_journal().await;
    }
}

#[tokio::test]
async fn a_journal_that_cannot_be_put_in_order_is_not_tried_without_a_pause() {
    let rig = Rig::running(&["a"]).await;
    rig.sim.fail(Some(Fault { step: 0, error: Errno::Io, lasts: Lasts::ForEver }));
    rig.run("a", advance()).await.unwrap_err();
    let before = rig.sim.steps();
    for _ in 0..1_000 {
        rig.handle.evaluate(name("a")).await.unwrap();
    }
    let tries = rig.sim.steps() - before;
    assert!(tries < 100, "{tries} steps of a broken disk while a thousand questions were answered");
}

#[tokio::test]
async fn a_rollback_made_while_the_journal_is_put_in_order_is_written_before_what_follows() {
    let sim = Sim::default();
    let rig = Rig::on(sim.clone(), sim.short_journal().unwrap()).await;
    for it in ["a", "b"] {
        rig.handle.create(name(it), plan(it), by("")).await.unwrap();
        rig.run(it, Command::Start).await.unwrap();
        rig.run(it, advance()).await.unwrap();
    }
    // Written and synced, then to be made shorter: that fails, and the next try of it hangs.
    let step = sim.steps() + 3;
    sim.fail(Some(Fault { step, error: Errno::Io, lasts: Lasts::Once }));
    sim.hang_from(step + 1);
    rig.run("a", advance()).await.unwrap();
    until("it is being put in order", || step < sim.steps()).await;
    let mut waits = rig.ask("a", advance(), by(""));
    let mut back = rig.ask("b", Command::Rollback, by(""));
    until("b is back", || !rig.moves("b")).await;
    sim.go_on();
    timeout(SOON, waits.recv()).await.unwrap().unwrap().unwrap();
    assert!(timeout(SOON, back.recv()).await.unwrap().unwrap().unwrap().durable);
    assert_eq!(rig.told(2), ["b back", "a stage 3"]);
    assert_eq!(rig.handle.views().degraded, None);
    rig.end().await;
    let (_, history) = sim.endless_journal().unwrap();
    assert_eq!(kind(history.records.last().unwrap()), "a stage 3");
}

#[tokio::test]
async fn a_rollback_that_failed_to_be_written_is_tried_again_at_the_end_of_the_program() {
    let rig = Rig::running(&["a"]).await;
    rig.sim.fail(Some(Fault { step: 0, error: Errno::Io, lasts: Lasts::ForEver }));
    let back = rig.run("a", Command::Rollback).await.unwrap();
    assert_eq!((back.rollout.state(), back.durable), (State::RolledBack, false));
    // The first try of the end fails too.
    let step = rig.sim.steps() + 1;
    rig.sim.fail(Some(Fault { step, error: Errno::Io, lasts: Lasts::Once }));
    let sim = rig.end().await;
    let (_, history) = sim.endless_journal().unwrap();
    assert_eq!(kind(history.records.last().unwrap()), "a back");
}

#[tokio::test]
async fn b29_whatever_the_disk_does_meanwhile_the_journal_tells_what_was_shown() {
    for seed in 0..40_u64 {
        let rig = Rig::running(&["a", "b"]).await;
        let mut dice = seed;
        let mut roll = |sides: u64| {
            dice = dice
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (dice >> 33) % sides
        };
        let mut answers = Vec::new();
        for _ in 0..12 {
            let rollout = if roll(2) == 0 { "a" } else { "b" };
            match roll(8) {
                0 => rig.sim.hang(),
                1 | 2 => rig.sim.go_on(),
                3 => {
                    let (step, error) = (rig.sim.steps() + 1 + roll(3), Errno::Io);
                    rig.sim.fail(Some(Fault { step, error, lasts: Lasts::Once }));
                }
                4 | 5 => answers.push(rig.ask(rollout, advance(), by(""))),
                6 => answers.push(rig.ask(rollout, Command::Start, by(""))),
                _ => answers.push(rig.ask(rollout, Command::Rollback, by(""))),
            }
            // Lets what was asked arrive, in any order.
            let _ = rig.handle.evaluate(name("a")).await;
        }
        rig.sim.go_on();
        for mut answer in answers {
            timeout(SOON, answer.recv())
                .await
                .unwrap_or_else(|_| panic!("seed {seed}"))
                .unwrap()
                .ok();
        }
        rig.agrees_with_its_journal().await;
    }
}

#[tokio::test]
async fn a_key_is_obeyed_once_and_refused_for_anything_else_also_after_compaction() {
    let sim = Sim::default();
    let mut rig = Rig::on(sim.clone(), sim.short_journal().unwrap()).await;
    rig.handle.create(name("a"), plan("a"), by("create")).await.unwrap();
    rig.run("a", Command::Start).await.unwrap();
    let from =
        |stage: &str, undecided| Command::Advance { from_stage: stage.to_owned(), undecided };
    let other = Plan { copies_per_day_max: 7, ..plan("a") };
    let asked = [
        ("up", from("shadow", Undecided::Skip)),
        ("pause", Command::Pause),
        ("resume", Command::Resume),
        ("back", Command::Rollback),
        ("revise", Command::Revise(Box::new(other.clone()))),
    ];
    for (key, command) in &asked {
        rig.handle.command(name("a"), command.clone(), by(key)).await.unwrap();
    }
    for _ in 0..6 {
        rig.run("a", Command::Start).await.unwrap();
        rig.run("a", Command::Rollback).await.unwrap();
    }
    rig.until_durable("a").await;
    let refused = [
        ("up", from("read-only", Undecided::Skip)),
        ("up", from("shadow", Undecided::Hold)),
        ("pause", Command::Resume),
        ("revise", Command::Revise(Box::new(Plan { copies_per_day_max: 8, ..plan("a") }))),
        ("create", Command::Pause),
    ];
    for _ in 0..2 {
        let revision = rig.view("a").rollout.revision();
        for (key, command) in &asked {
            let view = rig.handle.command(name("a"), command.clone(), by(key)).await.unwrap();
            assert_eq!(view.rollout.revision(), revision, "{key}");
        }
        for (key, command) in &refused {
            let answer = rig.handle.command(name("a"), command.clone(), by(key)).await;
            assert!(matches!(answer, Err(Rejected::ReusedRequestId(_))), "{key}: {answer:?}");
        }
        rig.handle.create(name("a"), plan("a"), by("create")).await.unwrap();
        let answer = rig.handle.create(name("a"), other.clone(), by("create")).await;
        assert!(matches!(answer, Err(Rejected::ReusedRequestId(_))), "{answer:?}");
        let shown = saved(&rig.handle);
        rig.tasks.take().unwrap().run(async {}, SOON).await.unwrap();
        let journal = sim.short_journal().unwrap();
        assert!(6 < journal.1.forgotten, "the keys are older than every record that is left");
        rig = Rig::on(sim.clone(), journal).await;
        until("it is shown", || !saved(&rig.handle).is_empty()).await;
        assert_eq!(saved(&rig.handle), shown);
    }
}

#[tokio::test]
async fn a_step_that_was_refused_does_not_come_back_with_the_next_start() {
    let rig = Rig::running(&["a"]).await;
    // Its bytes are written, the sync fails, and so does taking them away, until the disk works.
    let from = rig.sim.steps();
    let fault = |step, lasts| Fault { step: from + step, error: Errno::Io, lasts };
    rig.sim.fail(Some(fault(2, Lasts::Once)));
    rig.sim.fail_again(fault(3, Lasts::ForEver));
    let refused = rig.run("a", advance()).await;
    assert!(matches!(refused, Err(Rejected::Unavailable(_))), "{refused:?}");
    let (_, history) = Sim::with(&rig.sim.seen()).endless_journal().unwrap();
    assert_eq!(kind(history.records.last().unwrap()), "a stage 2", "a kill -9 now: in doubt");
    rig.sim.fail(None);
    until("it is in order", || rig.handle.views().degraded.is_none()).await;
    let (_, history) = Sim::with(&rig.sim.seen()).endless_journal().unwrap();
    assert_eq!(kind(history.records.last().unwrap()), "a stage 1");
    assert_eq!(rig.told(1), ["a stage 1"]);
    rig.agrees_with_its_journal().await;
}
