//! A provider that wants its requests different gets them so; the primary gets its caller's bytes.

use crossfade::players::Delivery;
use serde_json::{Value, json};

use crate::world::{CANDIDATE, PRIMARY, World, rollout, until};

const RULES: &str = r#"[provider.candidate.request]
rename = { max_tokens = "max_completion_tokens" }
drop = ["logprobs", "messages.name"]
clamp = { temperature = [0.0, 1.0] }
developer = "system"
tool_ids = "alnum9"
thinking = "strip"
reasoning_content = "empty"
"#;

/// A conversation that has called a tool, before a prompt of which every player knows the answer.
fn body(world: &World) -> Value {
    let mut body: Value = serde_json::from_slice(&world.body(1, Delivery::Whole)).unwrap();
    let before = json!([
        {"role": "developer", "content": "short"},
        {"role": "user", "content": "and you?", "name": "ana"},
        {"role": "assistant", "content": null, "reasoning_content": "hm", "tool_calls": [
            {"id": "call_1-a", "type": "function", "function": {"name": "f", "arguments": "{}"}},
        ]},
        {"role": "tool", "tool_call_id": "call_1-a", "content": "7"},
    ]);
    let messages = body["messages"].as_array().unwrap();
    let all = before.as_array().unwrap().iter().chain(messages).cloned().collect();
    body["messages"] = Value::Array(all);
    for (name, value) in [("max_tokens", 9), ("temperature", 2), ("logprobs", 1)] {
        body[name] = json!(value);
    }
    body
}

/// What the candidate is to get: with its own thinking, if any was given.
fn expected(body: &Value, (id, reasoning): (&str, &str)) -> String {
    let mut text = body.to_string().replacen(PRIMARY, CANDIDATE, 1);
    for (before, after) in [
        ("\"max_tokens\"", "\"max_completion_tokens\""),
        (",\"logprobs\":1", ""),
        (",\"name\":\"ana\"", ""),
        ("\"temperature\":2", "\"temperature\":1"),
        ("\"developer\"", "\"system\""),
        ("call_1-a", id),
        ("\"reasoning_content\":\"hm\"", &format!("\"reasoning_content\":\"{reasoning}\"")),
    ] {
        assert!(text.contains(before), "{before} in {text}");
        text = text.replace(before, after);
    }
    text
}

async fn both_get(served: &str, by: &str, reasoning: &str) {
    let world = World::new().await;
    let serve = world.serve(&(rollout(served, "100%") + RULES)).await;
    let body = body(&world);
    until("both sides are asked", || async {
        let answer = serve.chat(body.to_string().into_bytes(), &[]).await;
        assert_eq!(answer.status, 200);
        answer.header("x-crossfade-provider") == by && !world.candidate.seen().is_empty()
    })
    .await;
    for seen in world.primary.seen() {
        assert_eq!(String::from_utf8(seen.body.to_vec()).unwrap(), body.to_string());
    }
    let seen = &world.candidate.seen()[0];
    let got: Value = serde_json::from_slice(&seen.body).unwrap();
    let id = got["messages"][2]["tool_calls"][0]["id"].as_str().unwrap();
    assert!(id.len() == 9 && id.bytes().all(|it| it.is_ascii_alphanumeric()), "{id}");
    let text = String::from_utf8(seen.body.to_vec()).unwrap();
    assert_eq!(text, expected(&body, (id, reasoning)));
    until("it is a pair", || async { !serve.json_lines(&["pairs", "chat"]).await.is_empty() })
        .await;
    let pair = &serve.json_lines(&["pairs", "chat"]).await[0];
    assert_eq!(pair["candidate"]["outcome"], "OUTCOME_OK");
}

#[tokio::test]
async fn a_copy_looks_as_the_candidate_wants_it_and_the_primarys_bytes_are_the_callers() {
    both_get("0%", "primary", "").await;
}

/// What the candidate serves sticks to it, so the thinking in it is its own.
#[tokio::test]
async fn so_does_what_the_candidate_serves_but_for_its_own_thinking() {
    both_get("100%", "candidate", "hm").await;
}
