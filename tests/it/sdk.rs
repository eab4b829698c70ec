//! The official `openai` and `anthropic` Python SDKs on the data port: the same as without it.

use std::{
    net::SocketAddr,
    path::PathBuf,
    process::Stdio,
    sync::{Arc, Mutex},
};

use crossfade::tasks::spawn;
use serde_json::{Value, json};
use tokio::{
    io::AsyncWriteExt as _,
    net::{TcpListener, TcpStream},
    process::Command,
};

use crate::{
    hygiene::Reader,
    world::{Dir, Serve, World, configured, rollout, skipped, until},
};

#[tokio::test]
async fn the_official_sdk_of_openai_sees_no_difference() {
    let Some(python) = python("openai") else { return };
    let world = World::new().await;
    let serve = world.serve(&rollout("0%", "100%")).await;
    let questions = world.dir.path().join("questions.json");
    std::fs::write(&questions, questions_of(&world)).unwrap();
    let run = |base: String| {
        let mut command = Command::new(&python);
        command
            .arg("tests/sdk/openai_sdk.py")
            .arg(&questions)
            .env("OPENAI_BASE_URL", format!("{base}/v1"))
            .env("OPENAI_API_KEY", "caller-key");
        said(command)
    };
    let direct = run(format!("http://{}", world.primary.address())).await;
    let through = run(format!("http://{}", serve.data)).await;
    assert!(direct.lines().count() >= 8, "{direct}");
    assert_eq!(direct, through);
}

#[tokio::test]
async fn the_official_sdk_of_anthropic_sees_no_difference() {
    let Some(python) = python("anthropic") else { return };
    let (primary, candidate) = (Messages::start().await, Messages::start().await);
    let dir = Dir::new().await;
    let addresses = [primary.address, candidate.address];
    let file = configured(dir.path(), addresses, &rollout("0%", "100%"));
    let serve = Serve::start(&file).await;
    until("requests are copied", || async {
        let body = json!({ "model": "m", "max_tokens": 9, "messages": [{ "role": "user", "content": "plain" }] });
        serve.post("/v1/messages", body.to_string().into_bytes(), &[]).await;
        !candidate.asked().is_empty()
    })
    .await;
    let run = async |base: SocketAddr| {
        primary.forget();
        let mut command = Command::new(&python);
        command
            .arg("tests/sdk/anthropic_sdk.py")
            .env("ANTHROPIC_BASE_URL", format!("http://{base}"))
            .env("ANTHROPIC_API_KEY", "caller-key");
        (said(command).await, primary.asked())
    };
    let (direct, asked) = run(primary.address).await;
    let (through, asked_through) = run(serve.data).await;
    assert!(direct.lines().count() >= 10, "{direct}");
    assert!(direct.contains("retried [200, 1, "), "{direct}");
    assert_eq!(direct, through);
    assert_eq!(asked, asked_through, "as often, in the same order, and nobody asks in its place");
}

/// What a program prints that ends well.
async fn said(mut command: Command) -> String {
    let output = command.stderr(Stdio::inherit()).output().await.unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap()
}

/// A python that has the SDK: the one named, or the system's.
fn python(sdk: &str) -> Option<PathBuf> {
    let named = std::env::var_os("CROSSFADE_PYTHON").map(PathBuf::from);
    let python = named.unwrap_or_else(|| "python3".into());
    let import = format!("import {sdk}");
    let status =
        std::process::Command::new(&python).args(["-c", &import]).stderr(Stdio::null()).status();
    let has = status.is_ok_and(|it| it.success());
    if !has {
        skipped(&format!(
            "a test of the `{sdk}` package: CROSSFADE_PYTHON names no python with it"
        ));
    }
    has.then_some(python)
}

/// Requests the players know, as the SDK's arguments.
fn questions_of(world: &World) -> String {
    let rows = (0..40).map(|index| {
        let body = world.body(index, crossfade::players::Delivery::Whole);
        serde_json::from_slice::<Value>(&body).unwrap()
    });
    rows.collect::<Value>().to_string()
}

/// A provider of `/v1/messages` that does what the last message of a request names.
struct Messages {
    address: SocketAddr,
    /// What it was asked, in order.
    asked: Arc<Mutex<Vec<String>>>,
}

impl Messages {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let all = Arc::clone(&asked);
        spawn("messages", async move {
            while let Ok((stream, _)) = listener.accept().await {
                spawn("connection", answer(stream, address, Arc::clone(&all)));
            }
        });
        Self { address, asked }
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }

    fn forget(&self) {
        self.asked.lock().unwrap().clear();
    }
}

async fn answer(stream: TcpStream, address: SocketAddr, asked: Arc<Mutex<Vec<String>>>) {
    let mut reader = Reader::new(stream);
    while let Ok(request) = reader.request(&address.to_string()).await {
        let body: Value = serde_json::from_slice(&request.body).unwrap();
        let text = body["messages"][0]["content"].as_str().unwrap().to_owned();
        let again = asked.lock().unwrap().contains(&text);
        asked.lock().unwrap().push(text.clone());
        let (kind, sent) = match (request.first.split(' ').nth(1).unwrap(), text.as_str(), again) {
            ("/v1/messages/count_tokens", ..) => ("200", json!({ "input_tokens": 7 }).to_string()),
            (_, "silence", _) => return std::future::pending().await,
            (_, "overloaded once", false) | (_, "overloaded", _) => {
                ("529", problem("overloaded_error"))
            }
            (_, "limited once", false) => ("429", problem("rate_limit_error")),
            (_, "conflict once", false) => ("409", problem("conflict_error")),
            (_, "refused", _) => ("400", problem("invalid_request_error")),
            (_, "stream", _) => ("stream", events("message_stop")),
            (_, "broken stream", _) => ("stream", events("error")),
            _ => ("200", message().to_string()),
        };
        // Headers that the SDK reads: how to be told of, when to come again, and whether.
        let headers = match kind {
            "stream" => "content-type: text/event-stream\r\n",
            "429" => "content-type: application/json\r\nretry-after-ms: 20\r\n",
            "409" | "529" => {
                "content-type: application/json\r\nretry-after: 0.02\r\nx-should-retry: true\r\n"
            }
            _ => "content-type: application/json\r\n",
        };
        let status = if kind == "stream" { "200" } else { kind };
        let head = format!(
            "HTTP/1.1 {status} Said\r\n{headers}request-id: req_1\r\ncontent-length: {}\r\n\r\n",
            sent.len()
        );
        if reader.stream.write_all((head + &sent).as_bytes()).await.is_err() {
            return;
        }
    }
}

fn problem(kind: &str) -> String {
    let error = json!({ "type": kind, "message": "so it is" });
    json!({ "type": "error", "error": error, "request_id": "req_1" }).to_string()
}

fn message() -> Value {
    json!({
        "id": "msg_1", "type": "message", "role": "assistant", "model": "m",
        "content": [
            { "type": "text", "text": "Ähm, 7 ✔" },
            { "type": "tool_use", "id": "toolu_1", "name": "f", "input": { "a": 1 } },
        ],
        "stop_reason": "tool_use", "stop_sequence": null,
        "usage": { "input_tokens": 7, "output_tokens": 3, "cache_read_input_tokens": 90 },
    })
}

/// A stream with pings, and an event that nobody knows, up to one of this name.
fn events(last: &str) -> String {
    let mut begun = message();
    (begun["content"], begun["stop_reason"]) = (json!([]), Value::Null);
    let text = |text: &str| json!({ "index": 0, "delta": { "type": "text_delta", "text": text } });
    let end = match last {
        "error" => json!({ "error": { "type": "overloaded_error", "message": "too much" } }),
        _ => json!({}),
    };
    let stop = json!({ "delta": { "stop_reason": "end_turn", "stop_sequence": null },
        "usage": { "output_tokens": 9 } });
    let events = [
        ("message_start", json!({ "message": begun })),
        (
            "content_block_start",
            json!({ "index": 0, "content_block": { "type": "text", "text": "" } }),
        ),
        ("ping", json!({})),
        ("content_block_delta", text("Ähm, ")),
        ("news_of_tomorrow", json!({ "a": [1] })),
        ("content_block_delta", text("7 ✔")),
        ("content_block_stop", json!({ "index": 0 })),
        ("message_delta", stop),
        (last, end),
    ];
    let event = |(name, mut data): (&str, Value)| {
        data["type"] = name.into();
        format!("event: {name}\ndata: {data}\n\n")
    };
    events.into_iter().map(event).collect()
}
