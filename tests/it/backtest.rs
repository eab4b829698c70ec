//! Backtests: what a store remembers gives the decision that was taken live, and others.

use std::{fs, path::Path};

use crossfade::domain::Share;
use crossfade::players::Delivery;
use serde_json::Value;
use tokio::{process::Command, time::Instant};

use crate::world::{SOON, Serve, World};

/// Two short stages with one gate, all of the traffic in pairs.
fn ladder(margin: &str) -> String {
    format!(
        "[rollout.chat]\ncandidate = \"candidate\"\nautostart = true\nmirror = \"100%\"\n\
         gates = {{ error_rate = \"{margin}\", latency_p99 = \"off\", judge_score = \"off\" }}\n\
         stage = [\n  {{ name = \"shadow\", serve = \"0%\", duration = \"1s\", samples = 50 }},\n  \
         {{ name = \"full\", serve = \"100%\", duration = \"1s\", samples = 50 }},\n]\n"
    )
}

/// Sends requests one after the other until the rollout has ended. Its state and last event.
async fn play(world: &World, serve: &Serve) -> (String, Value) {
    let ends = Instant::now() + SOON;
    for index in 0.. {
        serve.chat(world.body(index, Delivery::Whole), &[]).await;
        if index % 20 > 0 {
            continue;
        }
        let rollout = serve.json(&["status", "chat"]).await;
        assert!(Instant::now() < ends, "{rollout}");
        let state = rollout["state"].as_str().unwrap().to_owned();
        if state == "STATE_ROLLED_BACK" || state == "STATE_SUCCEEDED" {
            let events = serve.json_lines(&["events", "chat"]).await;
            return (state, events.last().unwrap().clone());
        }
    }
    unreachable!("the range has no end")
}

async fn backtest(store: &Path, more: &[&str]) -> (i32, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_crossfade"))
        .args(["simulate", "--pairs", "rollouts/chat", "-o", "json", "--store"])
        .arg(store)
        .args(more)
        .output()
        .await
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    (output.status.code().unwrap(), text)
}

async fn played(store: &Path, more: &[&str]) -> Value {
    let (code, text) = backtest(store, more).await;
    assert_eq!(code, 0, "{text}");
    serde_json::from_str(&text).unwrap()
}

#[tokio::test]
async fn a_backtest_rolls_back_by_the_pair_that_did_it_live() {
    let world = World::with(|_, candidate| {
        candidate.errors = Share::from_basis_points(1_500).unwrap();
    })
    .await;
    let serve = world.serve(&ladder("+0.5pp")).await;
    let store = world.dir.path().join("store");
    let (state, event) = play(&world, &serve).await;
    assert_eq!(state, "STATE_ROLLED_BACK");

    let (code, text) = backtest(&store, &[]).await;
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("in use") && text.contains("segments"), "{text}");
    assert!(serve.stop().await.success());

    let own = played(&store, &[]).await;
    let step = own["steps"].as_array().unwrap().last().unwrap();
    assert_eq!((&own["outcome"], &own["gate"]), (&"rolled_back".into(), &"error_rate".into()));
    assert_eq!((&step["step"], &step["stage"]), (&"rolled_back".into(), &"shadow".into()));
    assert!(step["pair"].is_string(), "{own}");
    let live = event["evidence"][0]["samples"].as_str().unwrap().parse::<u64>().unwrap();
    let again = step["pairs"].as_u64().unwrap();
    assert_eq!(again, live, "{own}");

    let file = world.dir.path().join("wide.toml");
    fs::write(&file, ladder("+60pp")).unwrap();
    let wide = played(&store, &["--plan", file.to_str().unwrap()]).await;
    assert_ne!(wide["outcome"], "rolled_back", "{wide}");
    assert!(again <= wide["pairs"].as_u64().unwrap(), "{wide}");
}

#[tokio::test]
async fn a_backtest_takes_the_steps_that_were_taken_live() {
    let world = World::new().await;
    let serve = world.serve(&ladder("+10pp")).await;
    let store = world.dir.path().join("store");
    let (state, _) = play(&world, &serve).await;
    assert_eq!(state, "STATE_SUCCEEDED");
    assert!(serve.stop().await.success());
    let own = played(&store, &["--attempt", "1"]).await;
    assert_eq!(own["outcome"], "succeeded", "{own}");
    let steps: Vec<&str> =
        own["steps"].as_array().unwrap().iter().map(|it| it["step"].as_str().unwrap()).collect();
    assert_eq!(steps, ["advanced", "succeeded"], "{own}");

    let (code, text) = backtest(&store, &["--attempt", "2"]).await;
    assert_eq!(code, 5, "{text}");
    let (code, text) = backtest(&world.dir.path().join("nowhere"), &[]).await;
    assert!(code == 1 && text.contains("--store"), "{text}");
}
