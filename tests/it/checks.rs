//! Deterministic checks: each fault of a candidate's answers is found by its own gate.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use bytes::Bytes;
use crossfade::tasks::spawn;
use http_body_util::{BodyExt as _, Full};
use hyper::{Request, Response, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::{net::TcpListener, time::Instant};

use crate::world::{Dir, SOON, Serve, configured, rollout, until};

/// What a provider answers to a question of this number, of this kind.
type Says = fn(number: u64, kind: &str) -> Value;

const KINDS: [&str; 3] = ["tool", "json", "text"];

/// A provider that answers so.
async fn provider(says: Says) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    spawn("provider", async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = service_fn(move |request| answer(says, request));
            spawn("connection", async move {
                let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    address
}

async fn answer(
    says: Says,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let body = request.into_body().collect().await.unwrap().to_bytes();
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let question = body["messages"][0]["content"].as_str().unwrap_or_default().to_owned();
    let mut words = question.split(' ');
    let (kind, number) = (words.next().unwrap_or_default(), words.next());
    let number = number.and_then(|it| it.parse().ok()).unwrap_or_default();
    let answer = json!({"id": "a", "object": "chat.completion", "created": 0, "model": "m",
        "choices": [{"index": 0, "finish_reason": "stop", "message": says(number, kind)}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}});
    let mut response = Response::new(Full::new(answer.to_string().into()));
    response.headers_mut().insert("content-type", "application/json".parse().unwrap());
    Ok(response)
}

/// A request of a kind.
fn request(number: u64, kind: &str) -> Vec<u8> {
    let schema = json!({"type": "object", "properties": {"n": {"type": "integer"}},
        "required": ["n"], "additionalProperties": false});
    let question = format!("{kind} {number} please, and do not make anything up");
    let mut body = json!({"model": "m", "messages": [{"role": "user", "content": question}]});
    match kind {
        "tool" => {
            let function = json!({"name": "look", "parameters": schema});
            body["tools"] = json!([{"type": "function", "function": function}]);
        }
        "json" => {
            let named = json!({"name": "answer", "schema": schema});
            body["response_format"] = json!({"type": "json_schema", "json_schema": named});
        }
        _ => {}
    }
    body.to_string().into_bytes()
}

fn calls(arguments: &Value) -> Value {
    let function = json!({"name": "look", "arguments": arguments.to_string()});
    json!({"role": "assistant", "content": null,
        "tool_calls": [{"id": "c", "type": "function", "function": function}]})
}

fn text(text: &str) -> Value {
    json!({"role": "assistant", "content": text})
}

fn well(number: u64, kind: &str) -> Value {
    match kind {
        "tool" => calls(&json!({ "n": number })),
        "json" => text(&json!({ "n": number }).to_string()),
        _ => text(&format!("Of course: what belongs to {number} is {}.", 7 * number)),
    }
}

/// As good, in other words.
fn as_well(number: u64, kind: &str) -> Value {
    match kind {
        "tool" => {
            let mut answer = calls(&json!({}));
            answer["tool_calls"][0]["function"]["arguments"] =
                format!("{{ \"n\" : {number}.0 }}").into();
            answer
        }
        "json" => text(&format!("{{\n  \"n\": {number}\n}}")),
        _ => text(&format!("To {number} belongs {}, if I may say so.", 7 * number)),
    }
}

fn with_wrong_arguments(number: u64, kind: &str) -> Value {
    if kind == "tool" { calls(&json!({ "n": number + 1 })) } else { as_well(number, kind) }
}

fn against_the_schema(number: u64, kind: &str) -> Value {
    let wrong = || text(&json!({ "n": number.to_string() }).to_string());
    if kind == "json" { wrong() } else { as_well(number, kind) }
}

fn always_the_same(number: u64, kind: &str) -> Value {
    if kind == "text" { text("Of course, gladly!") } else { as_well(number, kind) }
}

const GATES: [&str; 4] =
    ["schema_valid_rate", "tool_call_valid_rate", "repeated_rate", "tool_call_match_rate"];

/// The program between a good primary and a candidate that answers so.
async fn between(candidate: Says) -> (Serve, Dir) {
    let gates = "gates = { error_rate = \"+50pp\", schema_valid_rate = \"-5pp\", \
                 tool_call_valid_rate = \"-5pp\", repeated_rate = \"+5pp\", \
                 tool_call_match_rate = \"-5pp\", ";
    with([well, candidate], &rollout("0%", "100%").replace("gates = { ", gates)).await
}

async fn with([primary, candidate]: [Says; 2], more: &str) -> (Serve, Dir) {
    let dir = Dir::new().await;
    let providers = [provider(primary).await, provider(candidate).await];
    (Serve::start(&configured(dir.path(), providers, more)).await, dir)
}

/// Asks until that is so of the rollout.
async fn ask_until(serve: &Serve, holds: impl Fn(&Value) -> bool) -> Value {
    let ends = Instant::now() + SOON;
    let mut number = 0;
    loop {
        let status = serve.json(&["status", "chat"]).await;
        if holds(&status) {
            return status;
        }
        assert!(Instant::now() < ends, "{status:#}");
        for kind in KINDS.iter().cycle().take(30) {
            number += 1;
            assert_eq!(serve.chat(request(number, kind), &[]).await.status, 200);
        }
    }
}

/// The stored pairs of which the candidate's answer does not keep to a check.
async fn broken(serve: &Serve, check: &str) -> Vec<Value> {
    let pairs = serve.json_lines(&["pairs", "chat", "--limit", "1000"]).await;
    let is_broken = |pair: &Value, side: &str| {
        let broken = pair[side]["checksBroken"].as_array().cloned().unwrap_or_default();
        broken.contains(&check.into())
    };
    assert!(!pairs.iter().any(|it| is_broken(it, "primary")), "the primary is well");
    pairs.into_iter().filter(|it| is_broken(it, "candidate")).collect()
}

/// Whether a candidate that answers so is sent back by this gate, and shown not to keep to this check.
async fn is_sent_back(candidate: Says, gate: &str, check: &str) {
    let (serve, _dir) = between(candidate).await;
    let status = ask_until(&serve, |it| it["state"] == "STATE_ROLLED_BACK").await;
    assert_eq!(status["reason"]["code"], "GATE_BREACHED", "{status:#}");
    assert_eq!(status["reason"]["metric"], gate, "{status:#}");
    serve.is_quiet().await;
    until("pairs are stored", || async { !broken(&serve, check).await.is_empty() }).await;
    let name = broken(&serve, check).await[0]["name"].as_str().unwrap().to_owned();
    let (_, shown) = serve.cli(&["pair", name.rsplit('/').next().unwrap()]).await;
    assert!(shown.contains(&format!("✖ {check}")), "{shown}");
    let (_, listed) = serve.cli(&["pairs", "chat", "--limit", "1000"]).await;
    assert!(listed.contains(check), "{listed}");
}

#[tokio::test]
async fn the_right_tool_with_wrong_arguments_is_sent_back() {
    is_sent_back(with_wrong_arguments, "tool_call_match_rate", "tool_call_match").await;
}

#[tokio::test]
async fn json_that_is_not_valid_by_its_schema_is_sent_back() {
    is_sent_back(against_the_schema, "schema_valid_rate", "schema").await;
}

#[tokio::test]
async fn the_same_answer_to_everything_is_sent_back() {
    is_sent_back(always_the_same, "repeated_rate", "not_repeated").await;
}

#[tokio::test]
async fn a_candidate_that_says_the_same_in_other_words_passes_every_check() {
    let (serve, _dir) = between(as_well).await;
    let passes = |status: &Value, gate: &str| {
        let gates = status["evidence"].as_array().into_iter().flatten();
        gates.filter(|it| it["metric"] == gate).any(|it| it["verdict"] == "VERDICT_PASS")
    };
    let status = ask_until(&serve, |status| {
        assert_eq!(status["state"], "STATE_RUNNING", "{status:#}");
        GATES.iter().all(|gate| passes(status, gate))
    })
    .await;
    let (_, explained) = serve.cli(&["explain", "chat"]).await;
    for gate in GATES {
        assert!(explained.contains(&format!("{gate} (")), "{explained}");
    }
    assert_eq!(status["state"], "STATE_RUNNING");
}

/// No answer twice.
fn never_alike(number: u64, kind: &str) -> Value {
    static ANSWERS: AtomicU64 = AtomicU64::new(0);
    let turn = ANSWERS.fetch_add(1, Relaxed);
    if kind == "text" {
        text(&format!("Answer {turn} is for {number}."))
    } else {
        well(number, kind)
    }
}

/// M16
#[tokio::test]
async fn a_primary_that_never_says_it_twice_alike_is_its_own_measure() {
    let gates = "noise = \"100%\"\ngates = { exact_match_rate = \"-10pp beyond noise\", ";
    let more = rollout("0%", "100%").replace("gates = { ", gates);
    let (serve, _dir) = with([never_alike, never_alike], &more).await;
    let gate = |status: &Value| {
        let mut gates = status["evidence"].as_array().into_iter().flatten();
        gates.find(|it| it["metric"] == "exact_match_rate").cloned().unwrap_or_default()
    };
    let many = |it: &Value| it.as_str().is_some_and(|it| 200 <= it.parse::<u64>().unwrap());
    let status = ask_until(&serve, |status| {
        let gate = gate(status);
        many(&gate["samples"]) && many(&gate["noise"]["samples"])
    })
    .await;
    assert_eq!(status["state"], "STATE_RUNNING", "{status:#}");
    let gate = gate(&status);
    for differs in [&gate["difference"], &gate["noise"]["difference"]] {
        // Every second of those that have a text is one that is never said alike.
        let differs = differs.as_f64().unwrap();
        assert!((-60.0..-40.0).contains(&differs), "{gate:#}");
    }
    // The margin alone would be -10: the rest is how much noise is proven by now.
    assert!(gate["bound"].as_f64().unwrap() < -10.5, "{gate:#}");
}
