//! kill -9 at random moments: what was acknowledged is still there, and never a higher share.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use crossfade::players::Delivery;
use serde_json::Value;

use crate::world::{Serve, World, times, until};

/// Kills of one store. There is one store on every run.
const ROUNDS: u64 = 100;

/// Three stages that a person walks up by skipping what is not decided.
const LADDER: &str = r#"
[rollout.chat]
candidate = "candidate"
gates = { latency_p99 = "off", judge_score = "off" }
stage = [
  { name = "one",   serve = "0%",  mirror = "100%", duration = "1h", samples = 100 },
  { name = "two",   serve = "20%", mirror = "100%", duration = "1h", samples = 100 },
  { name = "three", serve = "60%", mirror = "100%", duration = "1h", samples = 100 },
]
"#;

/// A small generator, so that a round can be played again by its seed.
fn dice(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Where a rollout stands as a number that only an acknowledged step may raise.
fn height(rollout: &Value) -> i64 {
    match rollout["state"].as_str().unwrap_or("") {
        "STATE_RUNNING" | "STATE_PAUSED" | "STATE_SUCCEEDED" => {
            1 + rollout["stageIndex"].as_i64().unwrap_or(0)
        }
        _ => 0,
    }
}

/// Users whose answers tell the share on the wire.
const USERS: usize = 20;

/// Those of the users whom the candidate answers.
async fn served(world: &World, serve: &Serve) -> BTreeSet<usize> {
    let mut served = BTreeSet::new();
    for user in 0..USERS {
        let headers = [("x-crossfade-user", &*format!("user-{user}"))];
        let answer = serve.chat(world.body(user, Delivery::Whole), &headers).await;
        assert_eq!(answer.status, 200);
        if answer.header("x-crossfade-provider") == "candidate" {
            served.insert(user);
        }
    }
    served
}

/// Where the events lead, one by one: none is there twice, none is missing.
fn walked(log: &[Value]) -> i64 {
    let (mut height, mut attempt) = (0, 0);
    for (index, event) in (1..).zip(log) {
        assert_eq!(event["name"], format!("rollouts/chat/events/{index}"));
        height = match event["type"].as_str().unwrap() {
            "TYPE_CREATED" if index == 1 => 0,
            "TYPE_STAGE_ENTERED" => {
                let stage = ["one", "two", "three"].iter().position(|it| event["stageId"] == *it);
                let stage = i64::try_from(stage.unwrap()).unwrap();
                assert_eq!(stage, height, "{event} does not follow");
                attempt += i64::from(stage == 0);
                assert_eq!(event["attempt"], attempt, "{event}");
                stage + 1
            }
            "TYPE_SUCCEEDED" => {
                assert!(height == 3 && event["fromState"] == "STATE_RUNNING", "{event}");
                height
            }
            "TYPE_ROLLED_BACK" => {
                assert!(0 < height, "{event} rolled back what was not there");
                0
            }
            other => panic!("{other} was never asked for"),
        };
    }
    height
}

/// C1 INV4
#[tokio::test]
async fn c1_b28_b31_a_hundred_kills_lose_nothing_acknowledged_and_raise_nothing() {
    for stores in 0..u64::try_from(times("CROSSFADE_KILLED_STORES", 1)).unwrap() {
        let (cut_off, events) = survives(stores * ROUNDS).await;
        println!("{ROUNDS} kills, {cut_off} of them in a step, {events} events");
    }
}

/// Kills the program a hundred times, by the dice from this seed on; how many of the kills cut a
/// step off, and how many events there are.
async fn survives(seeds: u64) -> (u64, usize) {
    let world = World::new().await;
    let mut serve = world.serve(LADDER).await;
    let (mut acknowledged, mut events, mut cut_off) = (0, Vec::new(), 0);
    let mut kills_within = Duration::from_millis(40);
    let mut shares: BTreeMap<i64, BTreeSet<usize>> = BTreeMap::new();
    for round in 0..ROUNDS {
        let seed = dice(seeds + round);
        // One step up or back, which the kill may or may not let finish.
        let verb: &[&str] = match (acknowledged, seed % 4) {
            (0, _) => &["start", "chat"],
            (_, 0) => &["rollback", "chat"],
            _ => &["advance", "chat", "--override-undecided", "--comment", "drill"],
        };
        let traffic =
            serve.chat(world.body(usize::try_from(seed % 400).unwrap(), Delivery::Whole), &[]);
        let kill = tokio::time::sleep(kills_within * u32::try_from(seed % 1_000).unwrap() / 1_000);
        let step = async {
            let (code, _) = serve.cli(verb).await;
            code
        };
        let code = tokio::select! {
            code = async { traffic.await; step.await } => Some(code),
            () = kill => None,
        };
        let up = verb[0] != "rollback";
        let asked = match (code, up) {
            // What was asked and not answered may have happened or not.
            (None | Some(0), true) => (acknowledged + 1).min(3),
            (None, false) | (Some(_), _) => acknowledged,
        };
        acknowledged = match (code, up) {
            (Some(0), true) => asked,
            (Some(0), false) => 0,
            (None | Some(_), _) => acknowledged,
        };
        serve.kill().await;
        let file = world.dir.path().join("crossfade.toml");
        serve = Serve::start(&file).await;
        let now = std::cell::Cell::new(0);
        until("it stands again", || {
            let (serve, now) = (&serve, &now);
            async move {
                let (code, text) = serve.cli(&["status", "chat", "-o", "json"]).await;
                let Ok(rollout) = serde_json::from_str::<Value>(&text) else {
                    return false;
                };
                now.set(height(&rollout));
                code == 0
            }
        })
        .await;
        let now = now.get();
        assert!(now <= asked, "round {round}: at {now}, asked for {asked}");
        let may_fall = !up && code.is_none();
        assert!(acknowledged <= now || may_fall, "round {round}: fell to {now}");
        cut_off += u64::from(code.is_none());
        // So that on any machine some steps are cut off and others are not.
        kills_within = if code.is_none() { kills_within * 5 / 4 } else { kills_within * 9 / 10 };
        // Oldest first, and only ever continued.
        let log = serve.json_lines(&["events", "chat", "--limit", "1000"]).await;
        assert!(log.starts_with(&events), "round {round}: {log:?} does not continue {events:?}");
        assert_eq!(walked(&log), now, "round {round}: {log:?}");
        // The share on the wire is the one of the state: for each stage always the same users.
        let served = served(&world, &serve).await;
        assert_eq!(shares.entry(now).or_insert_with(|| served.clone()), &served, "round {round}");
        (events, acknowledged) = (log, now);
    }
    let users = |height: i64| shares.get(&height).cloned().unwrap_or_default();
    assert!(users(0).is_empty() && users(1).is_empty(), "{shares:?}");
    assert!(users(2).is_subset(&users(3)) && users(2).len() < users(3).len(), "{shares:?}");
    assert!((1..USERS).contains(&users(3).len()), "{shares:?}");
    assert!(10 <= cut_off, "only {cut_off} steps were cut off half-way");
    (cut_off, events.len())
}
