//! A judge that cannot be believed: the gate says so, and nothing moves for it.

mod deceived;
mod thinker;

use std::fs;

use crossfade::players::Delivery;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    breaker::stub::{Says, Stub},
    world::{Serve, World, until},
};

/// One stage that the judge alone decides, at once.
const STAGE: &str = r#"
[rollout.chat]
candidate = "candidate"
autostart = true
gates = { error_rate = "off", latency_p99 = "off", judge_score = ">= 90%" }
stage = [{ name = "only", serve = "0%", mirror = "100%", duration = "1s", samples = 1 }]
"#;

/// What a judge says that is no judgement, and what is told of it.
fn nonsense() -> Vec<(&'static str, Says, &'static str)> {
    let marks = |first: &str| {
        let marks = format!(r#"{{"accuracy":{first},"relevance":9,"tone":9}}"#);
        format!(r#"{{"answer_1":{marks},"answer_2":{marks},"reason":"both are good"}}"#)
    };
    vec![
        ("down", Says::Status(500, ""), "refused by its status"),
        ("silent", Says::Hang, "timed out"),
        ("gone", Says::Cut(20), "without a connection"),
        ("prose", said("Both answers have their merits."), "unreadable"),
        ("half of it", said(&marks("9")[..60]), "unreadable"),
        ("11 of 10", said(&marks("11")), "unreadable"),
        ("less than nothing", said(&marks("-1")), "unreadable"),
        ("NaN", said(&marks("NaN")), "unreadable"),
        ("infinity", said(&marks("1e999")), "unreadable"),
        ("a word", said(&marks("\"9\"")), "unreadable"),
    ]
}

/// An answer of a model with this text.
fn said(text: &str) -> Says {
    let message = json!({ "role": "assistant", "content": text });
    let body = json!({ "choices": [{ "index": 0, "message": message, "finish_reason": "stop" }] });
    let body = body.to_string();
    let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n";
    Says::Sends(format!("{head}content-length: {}\r\n\r\n{body}", body.len()).leak())
}

/// A rollout with a judge that says this, or with the fair one of the world, until its gate is
/// `verdict`; how it stands then.
async fn judged(world: &World, says: Option<Says>, verdict: &str) -> (Serve, Value, TempDir) {
    judged_until(world, (says, "both"), |it| {
        it["evidence"][0]["verdict"] == verdict || it["state"] == "STATE_SUCCEEDED"
    })
    .await
}

/// The same, shown pairs in so many orders, until it stands as wanted.
async fn judged_until(
    world: &World,
    (says, orders): (Option<Says>, &str),
    wanted: impl Fn(&Value) -> bool,
) -> (Serve, Value, TempDir) {
    let judge = Stub::start("judge").await;
    let is_fair = says.is_none();
    if let Some(says) = says {
        judge.says(says);
    }
    let ours = format!("base_url = \"http://{}/v1\"\nmodel = \"judge\"\n", world.judge.address());
    let wait = if matches!(says, Some(Says::Hang)) { "100ms" } else { "20s" };
    let theirs = format!(
        "base_url = \"http://{}/v1\"\nmodel = \"judge\"\ntimeout = \"{wait}\"\nretries_max = 0\n",
        judge.address
    );
    let text = world.config(STAGE);
    assert!(text.contains(&ours), "{text}");
    let dir = TempDir::new_in(world.dir.path()).unwrap();
    let store = |dir: &std::path::Path| format!("store = \"{}\"", dir.join("store").display());
    let text = if is_fair { text } else { text.replace(&ours, &theirs) };
    let text =
        text.replace("model = \"judge\"\n", &format!("model = \"judge\"\norders = \"{orders}\"\n"));
    let text = text.replace(&store(world.dir.path()), &store(dir.path()));
    let file = dir.path().join("c.toml");
    fs::write(&file, text).unwrap();
    let serve = Serve::start(&file).await;
    let (index, status) = (std::cell::Cell::new(0), std::cell::RefCell::new(Value::Null));
    until("it stands as wanted", || async {
        for _ in 0..5 {
            let body = world.body(index.replace(index.get() + 1), Delivery::Whole);
            assert_eq!(serve.chat(body, &[]).await.status, 200);
        }
        *status.borrow_mut() = serve.json(&["status", "chat"]).await;
        wanted(&status.borrow())
    })
    .await;
    (serve, status.into_inner(), dir)
}

#[tokio::test]
async fn b23_a_judge_that_cannot_be_believed_neither_advances_nor_sends_back() {
    let world = World::new().await;
    // One that can be believed ends the stage.
    let (_, status, _dir) = judged(&world, None, "VERDICT_PASS").await;
    assert_ne!(status["evidence"][0]["verdict"], "VERDICT_INVALID", "{status}");
    for (what, says, why) in nonsense() {
        let (serve, status, _dir) = judged(&world, Some(says), "VERDICT_INVALID").await;
        assert_eq!(status["state"], "STATE_RUNNING", "{what}: {status}");
        let problem = status["evidence"][0]["problem"].as_str().unwrap();
        assert!(problem.contains("scores due in this stage were lost"), "{what}: {problem}");
        assert!(
            problem.contains("its calls since we started: ") && problem.contains(why),
            "{what}: {problem}"
        );
        // Somebody who looks is told, and so is who watches the metrics.
        let (_, told) = serve.cli(&["explain", "chat"]).await;
        assert!(told.contains("scores due in this stage were lost"), "{what}: {told}");
        assert!(told.contains(": 0 answers read, "), "{what}: {told}");
        assert!(0.5 < serve.metric("crossfade_lost_total{reason=\"judge_failed\"}").await);
        // No order to go on is obeyed by the evidence either.
        assert_ne!(serve.cli(&["advance", "chat"]).await.0, 0, "{what}");
        let events = serve.json_lines(&["events", "chat"]).await;
        let types: Vec<_> = events.iter().map(|it| it["type"].as_str().unwrap()).collect();
        assert_eq!(types, ["TYPE_CREATED", "TYPE_STAGE_ENTERED"], "{what}");
    }
}

#[tokio::test]
async fn b23_a_judge_that_gives_everybody_the_same_marks_proves_nothing() {
    let world = World::new().await;
    let marks = r#"{"accuracy":9,"relevance":9,"tone":9}"#;
    let stuck = format!(r#"{{"answer_1":{marks},"answer_2":{marks},"reason":"as good"}}"#);
    let (serve, status, _dir) = judged(&world, Some(said(&stuck)), "VERDICT_INVALID").await;
    assert_eq!(status["state"], "STATE_RUNNING", "{status}");
    let problem = status["evidence"][0]["problem"].as_str().unwrap();
    assert!(problem.contains("tells nothing apart"), "{problem}");
    assert_ne!(serve.cli(&["advance", "chat"]).await.0, 0);
}

/// O4 B-80
#[tokio::test]
async fn a_judge_that_prefers_what_stands_first_proves_nothing() {
    let world = World::new().await;
    let marks = |mark| format!(r#"{{"accuracy":{mark},"relevance":{mark},"tone":{mark}}}"#);
    let always = |second| {
        let (better, worse) = (marks("9"), marks(second));
        said(&format!(r#"{{"answer_1":{better},"answer_2":{worse},"reason":"it is first"}}"#))
    };
    // By a hair where it is shown one order, drawn by lot, or by much where it is shown both.
    for (orders, says, why) in [
        ("one", always("8.9"), "the answer that stood first was marked higher"),
        ("both", always("4"), "the same answer was marked 0.50 higher where it stood first"),
    ] {
        let (serve, status, _dir) = judged_until(&world, (Some(says), orders), |it| {
            it["evidence"][0]["problem"].as_str().is_some_and(|it| it.contains(why))
        })
        .await;
        assert_eq!(status["state"], "STATE_RUNNING", "{status}");
        assert_eq!(status["evidence"][0]["verdict"], "VERDICT_INVALID", "{status}");
        let (_, told) = serve.cli(&["explain", "chat"]).await;
        assert!(told.contains("a judge that goes by the place proves nothing"), "{told}");
        assert_ne!(serve.cli(&["advance", "chat"]).await.0, 0);
    }
}
