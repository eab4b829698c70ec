//! The official `openai` Python SDK on the data port: the same as without it.

use std::{path::PathBuf, process::Stdio};

use tokio::process::Command;

use crate::world::{World, rollout};

#[tokio::test]
async fn the_official_sdk_sees_no_difference() {
    let Some(python) = python() else {
        crate::world::skipped(
            "the_official_sdk_sees_no_difference: no python with the `openai` package; \
             set CROSSFADE_PYTHON to one",
        );
        return;
    };
    let world = World::new().await;
    let serve = world.serve(&rollout("0%", "100%")).await;
    let questions = world.dir.path().join("questions.json");
    std::fs::write(&questions, questions_of(&world)).unwrap();
    let run = |base: String| {
        let questions = questions.clone();
        let mut command = Command::new(&python);
        command
            .arg("tests/sdk/openai_sdk.py")
            .arg(questions)
            .env("OPENAI_BASE_URL", format!("{base}/v1"))
            .env("OPENAI_API_KEY", "caller-key")
            .stderr(Stdio::inherit());
        async move { command.output().await.unwrap() }
    };
    let direct = run(format!("http://{}", world.primary.address())).await;
    let through = run(format!("http://{}", serve.data)).await;
    assert!(direct.status.success() && through.status.success());
    let (direct, through) =
        (String::from_utf8(direct.stdout).unwrap(), String::from_utf8(through.stdout).unwrap());
    assert!(direct.lines().count() >= 8, "{direct}");
    assert_eq!(direct, through);
}

/// A python that has the SDK: the one named, or the system's.
fn python() -> Option<PathBuf> {
    let named = std::env::var_os("CROSSFADE_PYTHON").map(PathBuf::from);
    let python = named.unwrap_or_else(|| "python3".into());
    let status = std::process::Command::new(&python)
        .args(["-c", "import openai"])
        .stderr(Stdio::null())
        .status();
    status.is_ok_and(|it| it.success()).then_some(python)
}

/// Requests the players know, as the SDK's arguments.
fn questions_of(world: &World) -> String {
    let rows = (0..40).map(|index| {
        let body = world.body(index, crossfade::players::Delivery::Whole);
        serde_json::from_slice::<serde_json::Value>(&body).unwrap()
    });
    rows.collect::<serde_json::Value>().to_string()
}
