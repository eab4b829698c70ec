//! Flags while the disk is well, hangs or fails.

use tokio::{sync::mpsc, time::timeout};

use crate::controller::{
    Handle, Rejected,
    managed::Managed,
    rig::{Rig, SOON, by, name, plan, until},
};
use crate::domain::{
    Cause, Command, Event, Facts, Flag, Flags, Input, Key, Record, Share, Side, State, Tie,
    Timestamp,
};
use crate::store::sim::{Errno, Fault, Lasts, Sim};
use crate::tasks::spawn;
use crate::traffic::Copies;

fn share(basis_points: u16) -> Share {
    Share::from_basis_points(basis_points).unwrap()
}

fn flag(called: &str, rollout: Option<&str>, serve: u16) -> Flag {
    let (serve, mirror) = (Some(share(serve)), None);
    let (feature, segment) = (String::new(), String::new());
    Flag { name: name(called), rollout: rollout.map(name), feature, segment, serve, mirror }
}

/// How many of a thousand requests the candidate answers now.
fn served(rig: &Rig, rollout: &str) -> usize {
    let board = rig.board.load();
    let facts = |key: usize| Facts {
        key: Key::Request(key.to_string()),
        feature: rollout.to_owned(),
        segment: String::new(),
        task: String::new(),
        model: String::new(),
        data: vec![],
        barred: None,
        tie: Tie::None,
    };
    let is_served = |key: &usize| board.snapshot.route(&facts(*key)).serve == Side::Candidate;
    (0..1_000).filter(is_served).count()
}

/// Sets a flag, and does not wait for the answer.
fn set(handle: &Handle, flag: Flag) -> mpsc::Receiver<Result<(), Rejected>> {
    let (answer, here) = mpsc::channel(1);
    let handle = handle.clone();
    spawn("flag", async move { drop(answer.send(handle.set_flag(flag, by("")).await).await) });
    here
}

async fn answered(mut answer: mpsc::Receiver<Result<(), Rejected>>) -> Result<(), Rejected> {
    timeout(SOON, answer.recv()).await.unwrap().unwrap()
}

#[tokio::test]
async fn a_flag_caps_its_rollout_until_it_is_cleared_also_after_a_restart() {
    let rig = Rig::running(&["a", "b"]).await;
    let (before, others) = (served(&rig, "a"), served(&rig, "b"));
    assert!(0 < before && 0 < others);
    rig.handle.set_flag(flag("low", Some("a"), 100), by("")).await.unwrap();
    assert!((1..before).contains(&served(&rig, "a")) && served(&rig, "b") == others);
    rig.handle.set_flag(flag("stop", None, 0), by("")).await.unwrap();
    assert_eq!((served(&rig, "a"), served(&rig, "b")), (0, 0));
    assert!(rig.view("a").rollout.stage().is_some(), "the rollout goes on");
    let count = rig.handle.views().records.len();
    rig.handle.set_flag(flag("stop", None, 0), by("")).await.unwrap();
    assert_eq!(rig.handle.views().records.len(), count, "the same again is nothing new");
    let sim = rig.sim.clone();
    rig.agrees_with_its_journal().await;

    let rig = Rig::new(sim).await;
    until("it is published", || rig.moves("a")).await;
    assert_eq!((served(&rig, "a"), served(&rig, "b")), (0, 0));
    assert!(rig.handle.views().flags_durable && rig.handle.views().flags.len() == 2);
    for it in ["stop", "low", "nothing"] {
        rig.handle.clear_flag(name(it), by("")).await.unwrap();
    }
    assert_eq!(served(&rig, "a"), before);
    assert_eq!(rig.told(4), ["- Flagged", "- Flagged", "- Unflagged", "- Unflagged"]);
    rig.agrees_with_its_journal().await;
}

#[tokio::test]
async fn what_lowers_is_seen_before_it_is_written_and_what_raises_after() {
    let rig = Rig::running(&["a"]).await;
    let before = served(&rig, "a");
    rig.handle.set_flag(flag("low", None, 200), by("")).await.unwrap();
    let low = served(&rig, "a");
    let hung = rig.hang_in("a", Command::Pause).await;
    let off = set(&rig.handle, flag("off", Some("a"), 0));
    until("it is in force", || served(&rig, "a") == 0).await;
    let raise = set(&rig.handle, flag("low", None, 10_000));
    assert!(answered(off).await.is_ok(), "its answer waits for no disk");
    assert!(!rig.handle.views().flags_durable);
    rig.sim.go_on();
    drop(hung);
    drop(answered(raise).await);
    until("all is on disk", || rig.handle.views().flags_durable).await;
    assert_eq!(served(&rig, "a"), 0, "off always wins");

    rig.sim.fail(Some(Fault { step: 0, error: Errno::Io, lasts: Lasts::ForEver }));
    assert!(answered(set(&rig.handle, flag("off", Some("a"), 5_000))).await.is_err());
    assert!(rig.handle.clear_flag(name("off"), by("")).await.is_err());
    assert_eq!(served(&rig, "a"), 0);
    rig.sim.fail(None);
    until("the journal is well", || rig.handle.views().degraded.is_none()).await;
    rig.handle.clear_flag(name("off"), by("")).await.unwrap();
    assert!(low <= served(&rig, "a") && low < before);
    rig.agrees_with_its_journal().await;
}

#[tokio::test]
async fn a_lower_flag_overtakes_a_higher_one_of_its_name_that_is_being_written() {
    let rig = Rig::running(&["a"]).await;
    rig.handle.set_flag(flag("cap", None, 300), by("")).await.unwrap();
    let (low, steps) = (served(&rig, "a"), rig.sim.steps());
    rig.sim.hang();
    let raise = set(&rig.handle, flag("cap", None, 9_000));
    until("the disk hangs", || steps < rig.sim.steps()).await;
    assert_eq!(served(&rig, "a"), low, "not before it is written");
    let lower = set(&rig.handle, flag("cap", None, 0));
    assert!(answered(raise).await.is_err(), "it never takes effect");
    assert!(answered(lower).await.is_ok());
    assert_eq!(served(&rig, "a"), 0);
    rig.sim.go_on();
    until("all is on disk", || rig.handle.views().flags_durable).await;
    assert_eq!(served(&rig, "a"), 0);
    let sim = rig.sim.clone();
    rig.agrees_with_its_journal().await;
    let rig = Rig::new(sim).await;
    until("it is published", || rig.moves("a")).await;
    assert_eq!(served(&rig, "a"), 0);
}

#[tokio::test]
async fn a_flag_over_all_of_a_rollout_holds_its_ladder_and_says_so() {
    let rig = Rig::running(&["a"]).await;
    rig.handle.set_flag(flag("cap", Some("a"), 100), by("")).await.unwrap();
    let problem = || rig.view("a").evidence.problem.unwrap_or_default();
    until("it says so", || problem().contains("a flag lets it serve 1%")).await;
    rig.handle.clear_flag(name("cap"), by("")).await.unwrap();
    until("it goes on", || !problem().contains("flag")).await;
    // All of its traffic is of one feature.
    let of = |feature: &str| Flag { feature: feature.to_owned(), ..flag("cap", None, 0) };
    rig.handle.set_flag(of("a"), by("")).await.unwrap();
    until("it says so", || problem().contains("a flag lets it serve 0%")).await;
    rig.handle.set_flag(of("another"), by("")).await.unwrap();
    until("it goes on", || !problem().contains("flag")).await;
}

/// A rollout in its first stage, of which nothing was heard.
fn entered() -> Managed {
    let mut managed = Managed::new(name("a"), plan("a"), Timestamp(0), &Copies::new(0, (0, 0)));
    let event = Event::StageEntered { attempt: 1, stage: 0, cause: Cause::Operator };
    managed.apply(&Record {
        seq: 1,
        at: Timestamp(0),
        rollout: name("a"),
        actor: String::new(),
        comment: String::new(),
        request_id: String::new(),
        event,
        from: State::Pending,
        to: State::Running,
        plan_revision: 1,
        evidence: Vec::new(),
    });
    managed
}

#[test]
fn silence_begins_when_copies_may_be_made_again() {
    let mut managed = entered();
    let idle_ms = managed.rollout.plan().times.idle_ms_max;
    managed.live.price(None);
    managed.weigh(Timestamp(idle_ms + 1));
    let problem = managed.evidence.problem.clone().unwrap();
    assert!(problem.contains("has no price"), "{problem}");
    managed.live.price(Some(1));
    assert!(matches!(managed.input(Timestamp(idle_ms + 2)), Input::Tick));
    assert!(matches!(managed.input(Timestamp(2 * idle_ms + 2)), Input::Idle));
}

#[test]
fn a_rollout_whose_only_feature_is_not_copied_is_not_idle() {
    let mut managed = entered();
    let later = Timestamp(managed.rollout.plan().times.idle_ms_max + 1);
    assert!(matches!(managed.input(later), Input::Idle));
    let mirror = Some(Share::NONE);
    let off = Flag { feature: "a".to_owned(), serve: None, mirror, ..flag("off", None, 0) };
    managed.flags = Flags::default().with(off);
    assert!(matches!(managed.input(later), Input::Tick));
}

#[tokio::test]
async fn there_are_only_so_many_flags_and_they_outlast_their_records() {
    let sim = Sim::default();
    let mut rig = Rig::on(sim.clone(), sim.short_journal().unwrap()).await;
    for it in 0..Flags::LEN_MAX {
        rig.handle.set_flag(flag(&format!("f{it}"), None, 10_000), by("")).await.unwrap();
    }
    assert!(rig.handle.set_flag(flag("more", None, 0), by("")).await.is_err());
    rig.handle.set_flag(flag("f0", None, 0), by("")).await.unwrap();
    rig.tasks.take().unwrap().run(async {}, SOON).await.unwrap();
    let (_, history) = sim.short_journal().unwrap();
    assert!(0 < history.forgotten && !history.flags.is_empty());
    let rig = Rig::on(sim.clone(), sim.short_journal().unwrap()).await;
    until("they are shown", || rig.handle.views().flags.len() == Flags::LEN_MAX).await;
    let off = Event::Flagged(Box::new(flag("f0", None, 0)));
    assert!(rig.handle.views().flags.iter().any(|it| it.event == off));
}
