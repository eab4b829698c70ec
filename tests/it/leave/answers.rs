//! What answers and marks say, before any of it is judged or kept.

use serde_json::{Value, json};

use super::{Rig, plain, text};
use crate::world::{Serve, until};

const ADDRESS: &str = "ann@example.com";

/// Gives an address away, in the form of the endpoint that was asked.
fn leaky(head: &str, _: &Value) -> Vec<String> {
    if head.contains("generateContent") {
        return plain(&json!({ "candidates": [{
            "content": { "parts": [{ "text": ADDRESS }] }, "finishReason": "STOP" }] }));
    }
    plain(&json!({ "choices": [{
        "index": 0, "finish_reason": "stop", "message": { "content": ADDRESS } }] }))
}

/// Refuses a key and repeats it, where an error of it would be cut.
fn refusing(head: &str, _: &Value) -> Vec<String> {
    let key = head.lines().find_map(|it| it.strip_prefix("authorization: Bearer ")).unwrap_or("");
    let body = json!({ "error": { "message": format!("{}{key} is wrong", "x".repeat(288)) } });
    let body = body.to_string();
    let head = "HTTP/1.1 401 Unauthorized\r\nconnection: close\r\ncontent-length:";
    vec![format!("{head} {}\r\n\r\n{body}", body.len())]
}

/// Answers in a coding that nobody knows.
fn coded(_: &str, _: &Value) -> Vec<String> {
    let head = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-encoding: sdch\r\n";
    vec![format!("{head}content-length: 3\r\n\r\nabc")]
}

async fn post(serve: &Serve, path: &str) {
    let marks = [
        ("authorization", "Bearer canary-of-caller"),
        ("x-crossfade-feature", ADDRESS),
        ("x-crossfade-segment", ADDRESS),
    ];
    let body = json!({ "model": "m", "messages": [] }).to_string();
    serve.post(path, body.into_bytes(), &marks).await;
}

/// Asks until a pair is kept.
async fn until_kept(serve: &Serve, path: &str) {
    until("a pair is kept", || async {
        post(serve, path).await;
        !serve.json_lines(&["pairs", "chat"]).await.is_empty()
    })
    .await;
}

#[tokio::test]
async fn a_pair_whose_answers_show_data_goes_neither_to_the_judge_nor_to_disk() {
    let rig = Rig::new(leaky).await;
    let serve = rig.serve("[detect.pii]\npatterns = [\"email\"]\n", "log").await;
    until_kept(&serve, "/v1/chat/completions").await;
    until_kept(&serve, &format!("/v1beta/{ADDRESS}/x:generateContent")).await;
    let withheld = async |from: &str| {
        serve.metric(&format!("crossfade_withheld_total{{from=\"{from}\"}}")).await
    };
    assert!(1.5 < withheld("store").await && 1.5 < withheld("judge").await);
    assert!(serve.stop().await.success());
    assert_eq!(rig.judge.heard(), "");
    for (pair, bodies) in rig.kept() {
        assert!(bodies.is_empty() && !pair.judgeable);
        let bare = ["/v1/chat/completions", "/v1beta/models/-:generateContent"];
        assert!(bare.contains(&pair.path.as_str()), "{}", pair.path);
    }
}

#[tokio::test]
async fn what_must_not_be_kept_is_taken_out_of_paths_and_marks_too() {
    let rig = Rig::new(leaky).await;
    let serve = rig.serve("redact = [\"email\"]\n", "log").await;
    until_kept(&serve, &format!("/v1beta/{ADDRESS}/x:generateContent")).await;
    assert!(serve.stop().await.success());
    for (pair, bodies) in rig.kept() {
        assert_eq!(pair.path, "/v1beta/[redacted:email]/x:generateContent");
        assert_eq!([pair.feature, pair.segment], ["[redacted:email]"; 2]);
        assert!(text(&bodies).contains("[redacted:email]") && !text(&bodies).contains(ADDRESS));
    }
}

/// B-72
#[tokio::test]
async fn a_key_is_taken_out_of_an_error_before_the_rest_is_cut() {
    let rig = Rig::new(refusing).await;
    let serve = rig.serve("", "log").await;
    until_kept(&serve, "/v1/chat/completions").await;
    assert!(serve.stop().await.success());
    for (_, bodies) in rig.kept() {
        let text = text(&bodies);
        assert!(text.contains("xxxx") && !text.contains("canary"), "{text}");
    }
}

#[tokio::test]
async fn an_answer_in_a_coding_that_is_not_known_is_no_evidence() {
    let rig = Rig::new(coded).await;
    let serve = rig.serve("", "log").await;
    until("it is counted", || async {
        post(&serve, "/v1/chat/completions").await;
        0.5 < serve.metric("crossfade_lost_total{reason=\"coding\"}").await
    })
    .await;
    assert!(serve.json_lines(&["pairs", "chat"]).await.is_empty());
    let ok = "crossfade_requests_total{provider=\"primary\",role=\"serve\",outcome=\"ok\"}";
    assert!(serve.metric(ok).await < 0.5);
}
