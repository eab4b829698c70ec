//! Whole programs: the demo, the recorded rehearsals, `config check`, what the README says.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
};

use tokio::process::Command;

fn crossfade() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_crossfade"));
    command.stdin(Stdio::null()).kill_on_drop(true);
    command
}

#[tokio::test]
async fn the_demo_ends_with_one_success_one_rollback_and_no_error_for_callers() {
    let _alone = crate::world::alone().await;
    let output = crossfade().args(["demo", "-o", "json"]).output().await.unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{text}\n{errors}");
    let report: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(report["caller_errors"], 0, "{text}");
    let outcome = |name: &str| {
        let rollouts = report["rollouts"].as_array().unwrap();
        rollouts.iter().find(|it| it["name"] == name).unwrap()["outcome"].clone()
    };
    assert_eq!(outcome("good-cheap"), "succeeded", "{text}");
    assert_eq!(outcome("bad-cheap"), "rolled_back", "{text}");
}

#[tokio::test]
async fn the_recorded_rehearsals_give_their_four_outcomes_live_and_in_a_backtest() {
    let data =
        std::env::var_os("CROSSFADE_DATA").map_or_else(|| "../shared/data".into(), PathBuf::from);
    if !data.join("pairs/alpaca.jsonl").is_file() {
        crate::world::skipped(&format!(
            "the_recorded_rehearsals_give_their_four_outcomes_live_and_in_a_backtest: no recordings in {}; \
             set CROSSFADE_DATA to their folder",
            data.display()
        ));
        return;
    }
    let _alone = crate::world::alone().await;
    let kept = tempfile::TempDir::new().unwrap();
    for plan in [
        "better_candidate_succeeds",
        "worse_candidate_is_sent_back",
        "failing_candidate_is_sent_back",
        "slow_candidate_is_sent_back",
    ] {
        let file = format!("tests/replay/{plan}.toml");
        let output = crossfade()
            .args(["rehearse", "-o", "json", "--keep"])
            .arg(kept.path())
            .arg(&file)
            .env("CROSSFADE_DATA", &data)
            .output()
            .await
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{plan}: {text}\n{errors}");
        let live: serde_json::Value = serde_json::from_str(&text).unwrap();
        let live = &live["rollouts"][0];
        let again = backtest(&kept.path().join(plan).join("store"), &live["name"]).await;
        let step = again["steps"].as_array().unwrap().last().unwrap();
        assert_eq!((&again["outcome"], &step["step"]), (&live["outcome"], &live["outcome"]));
        assert_eq!(again["notes"], serde_json::json!([]), "{plan}: {again}");
        if live["outcome"] == "rolled_back" {
            // By the same pair: as many of them counted.
            assert_eq!(
                (&again["gate"], &step["pairs"]),
                (&live["gate"], &live["pairs"]),
                "{again}"
            );
        }
    }
}

/// What comes of a rollout's stored pairs, played again.
async fn backtest(store: &Path, rollout: &serde_json::Value) -> serde_json::Value {
    let mut command = crossfade();
    command.args(["simulate", "-o", "json", "--pairs", rollout.as_str().unwrap(), "--store"]);
    let output = command.arg(store).output().await.unwrap();
    serde_json::from_slice(&output.stdout).unwrap()
}

#[tokio::test]
async fn config_check_tells_every_fault_at_once_and_exits_with_7() {
    let dir = tempfile::TempDir::new().unwrap();
    let file = dir.path().join("bad.toml");
    std::fs::write(
        &file,
        "listne = \"127.0.0.1:0\"\ncontrol = \"0.0.0.0:9090\"\n[provider.a]\nbase_url = \"http://127.0.0.1:1\"\nkey = \"sk-literal-secret\"\n",
    )
    .unwrap();
    let output = crossfade().args(["config", "check", "-c"]).arg(&file).output().await.unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(7), "{text}");
    assert!(text.contains("did you mean `listen`") && text.contains("loopback"), "{text}");
    assert!(text.contains("key") && !text.contains("sk-literal-secret"), "{text}");
    let good = crossfade()
        .args(["config", "check", "-c", "config/minimal.toml"])
        .env("OPENAI_API_KEY", "a")
        .env("DEEPSEEK_API_KEY", "b")
        .output()
        .await
        .unwrap();
    assert!(good.status.success(), "{}", String::from_utf8_lossy(&good.stderr));
}

#[tokio::test]
async fn an_unreachable_server_and_a_wrong_word_have_their_own_exit_codes() {
    let gone = crossfade().args(["--server", "http://127.0.0.1:1", "list"]).output().await.unwrap();
    assert_eq!(gone.status.code(), Some(3), "{}", String::from_utf8_lossy(&gone.stderr));
    let wrong = crossfade().args(["lsit"]).output().await.unwrap();
    assert_eq!(wrong.status.code(), Some(2), "{}", String::from_utf8_lossy(&wrong.stderr));
}
