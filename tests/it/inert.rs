//! Texts of models, providers and callers that would steer a terminal, a browser or a log: all that
//! is printed of them is inert, and JSON says the same as they do.

use std::{fs, process::Stdio};

use serde_json::{Value, json};
use tokio::process::Command;

use crate::{
    breaker::stub::{Says, Stub},
    world::{Dir, Serve, configured, rollout, until},
};

/// Clears the screen, names the window, hides, turns the line round, breaks it, and is a script.
const EVIL: &str = "\u{1b}[2J\u{1b}]0;mine\u{7}\u{9b}31m\u{202e}exe.gpj\u{2066}\u{61c}\u{200f}\r\n\
                    \u{7f}\u{85}\u{2028}<script>alert(1)</script><svg onload=alert(1)>\0";

/// What steers a terminal or a line, and is none of the program's own lines.
fn steers(it: char) -> bool {
    it != '\n' && it.is_control()
        || matches!(it, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}')
        || matches!(it, '\u{2066}'..='\u{2069}')
}

fn is_inert(what: &str, bytes: &[u8]) {
    let text = std::str::from_utf8(bytes).unwrap_or_else(|error| panic!("{what}: {error}"));
    let found = text.chars().position(steers);
    let around = found.map(|at| text.chars().skip(at.saturating_sub(80)).take(90));
    assert!(found.is_none(), "{what}: {:?}", around.map(String::from_iter));
}

/// An answer that is evil wherever a text can be.
fn answer() -> &'static str {
    let call = json!({ "id": EVIL, "type": "function",
        "function": { "name": EVIL, "arguments": json!({ "a": EVIL }).to_string() } });
    let message = json!({ "role": "assistant", "content": EVIL, "tool_calls": [call] });
    let body = json!({
        "id": EVIL, "object": "chat.completion", "created": 0, "model": EVIL,
        "choices": [{ "index": 0, "message": message, "finish_reason": EVIL }],
        "usage": { "prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2 },
    })
    .to_string();
    let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n";
    format!("{head}content-length: {}\r\n\r\n{body}", body.len()).leak()
}

/// An error of the same kind.
fn error() -> &'static str {
    let body = json!({ "error": { "message": EVIL, "type": EVIL, "code": EVIL } }).to_string();
    let head = "HTTP/1.1 400 No\r\ncontent-type: application/json\r\nconnection: close\r\n";
    format!("{head}content-length: {}\r\n\r\n{body}", body.len()).leak()
}

struct Rig {
    providers: [Stub; 2],
    serve: Serve,
    dir: Dir,
}

impl Rig {
    async fn start(logs: &str) -> Self {
        let providers = [Stub::start("primary").await, Stub::start("candidate").await];
        let dir = Dir::new().await;
        let addresses = [providers[0].address, providers[1].address];
        let file = configured(dir.path(), addresses, &rollout("0%", "100%"));
        let log = fs::File::create(dir.path().join("log")).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_crossfade"));
        command.args(["serve", "--logs", logs, "-c"]).arg(&file).env("RUST_LOG", "trace");
        command.stderr(Stdio::from(log));
        Self { providers, serve: Serve::launch(command).await, dir }
    }

    /// Asks with a request that is evil wherever a text can be; the id of it.
    async fn ask(&self) -> String {
        let body = json!({
            "model": EVIL, "user": EVIL, "metadata": { "segment": EVIL, EVIL: EVIL },
            "messages": [{ "role": "user", "content": EVIL, "name": EVIL }],
        });
        // What cannot stand in a header is left out of it.
        let header: String = EVIL.chars().filter(|it| !it.is_ascii_control()).collect();
        let headers = ["x-crossfade-feature", "x-crossfade-segment", "x-crossfade-user"];
        let headers = headers.map(|it| (it, header.as_str()));
        let answer = self.serve.chat(body.to_string().into_bytes(), &headers).await;
        answer.header("x-crossfade-request-id").to_owned()
    }

    /// The whole log, to its last line: what a program that runs has just begun to write is no line yet.
    async fn log(self) -> Vec<u8> {
        assert!(self.serve.stop().await.success());
        fs::read(self.dir.path().join("log")).unwrap()
    }

    /// A verb's output, both streams and both forms, is inert; its lines of JSON.
    async fn prints(&self, args: &[&str]) -> Vec<Value> {
        let mut lines = Vec::new();
        for form in ["table", "json"] {
            let mut command = Command::new(env!("CARGO_BIN_EXE_crossfade"));
            command.args(["--server", &self.serve.control, "-o", form]).args(args);
            let output = command.output().await.unwrap();
            is_inert(&format!("{args:?} as {form}"), &output.stdout);
            is_inert(&format!("{args:?} as {form}, notes"), &output.stderr);
            if form == "json" && output.status.success() {
                let text = String::from_utf8(output.stdout).unwrap();
                lines = text.lines().map(|it| serde_json::from_str(it).unwrap()).collect();
            }
        }
        lines
    }
}

/// The texts of a value, wherever they stand.
fn texts(value: &Value) -> Vec<&str> {
    match value {
        Value::String(text) => vec![text],
        Value::Array(items) => items.iter().flat_map(texts).collect(),
        Value::Object(fields) => fields.values().flat_map(texts).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) => Vec::new(),
    }
}

#[tokio::test]
async fn b58_nothing_that_is_printed_of_others_texts_steers_a_terminal() {
    let rig = Rig::start("text").await;
    rig.providers.iter().for_each(|it| it.says(Says::Sends(answer())));
    until("there is a pair", || async {
        rig.ask().await;
        !rig.serve.json_lines(&["pairs", "chat"]).await.is_empty()
    })
    .await;
    rig.providers[1].says(Says::Sends(error()));
    let id = rig.ask().await;
    let comment = EVIL.replace('\0', "");
    for args in [
        &["pause", "chat", "--comment", &comment][..],
        &["status", "chat"],
        &["list"],
        &["explain", "chat"],
        &["explain", "--request", &id],
        &["explain", &comment],
        &["pairs", "chat", "--limit", "50"],
        &["events", "chat"],
        &["rollback", "chat", "--comment", &comment],
        &["flag", "list"],
    ] {
        rig.prints(args).await;
    }
    let pairs = rig.prints(&["pairs", "chat", "--limit", "50"]).await;
    let well = pairs.iter().find(|it| it["candidate"]["outcome"] == "OUTCOME_OK").unwrap();
    // To the letter: what is printed as JSON says what was said.
    assert_eq!(well["candidate"]["finishReason"], EVIL);
    assert_eq!(well["candidate"]["model"], EVIL);
    for pair in &pairs {
        let name = pair["name"].as_str().unwrap().rsplit('/').next().unwrap().to_owned();
        rig.prints(&["pair", &name]).await;
    }
    let events = rig.prints(&["events", "chat"]).await;
    assert!(events.iter().flat_map(texts).any(|it| it.contains("<script>")), "{events:?}");
    for page in ["/metrics", "/readyz"] {
        is_inert(page, rig.serve.page(page).await.as_bytes());
    }
    is_inert("the log", &rig.log().await);
}

#[tokio::test]
async fn b58_every_line_of_a_log_in_json_is_one_object_and_inert() {
    let rig = Rig::start("json").await;
    for says in [answer(), error(), "HTTP/1.1 200 OK\r\nx: \u{1b}[2J\r\n\r\n"] {
        rig.providers.iter().for_each(|it| it.says(Says::Sends(says)));
        for _ in 0..5 {
            rig.ask().await;
        }
    }
    rig.prints(&["rollback", "chat", "--comment", &EVIL.replace('\0', "")]).await;
    let log = rig.log().await;
    is_inert("the log", &log);
    let lines = String::from_utf8(log).unwrap();
    let told = lines.lines().map(|it| serde_json::from_str::<Value>(it).unwrap());
    assert!(told.filter(Value::is_object).count() == lines.lines().count());
    assert!(10 < lines.lines().count());
}
