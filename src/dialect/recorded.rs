//! What providers really sent, read by this module. Skipped, saying so, where it is absent.

use std::{collections::BTreeMap, env, fs, path::Path};

use serde_json::Value;

use super::{
    Asked, Edits, End, Purpose, Reading, Received, Tail, adapt, agreement, ask, conversation,
    estimate, read,
};
use crate::domain::{Agreement, Endpoint, Outcome, Skip};

const FILES: [&str; 5] =
    ["openai_chat", "openai_responses", "anthropic_messages", "gemini_generate", "gemini_stream"];

/// Streams with an error inside: two `event: error` of Groq, one chunk of `OpenRouter`.
const ERROR_INSIDE: [&str; 3] = ["wire-56738ee3ea53", "wire-fdbd9c61cb1e", "wire-220ea69ed921"];

/// Rows that count as tool calls for a `function_call` without name and arguments (Snowflake
/// writes every field it knows): their answer is a text.
const EMPTY_CALL: [&str; 6] = [
    "wire-6e282c2a3327",
    "wire-700e79c10a6e",
    "wire-8283a3ab4110",
    "wire-8b46dc98d7b9",
    "wire-cbf53d4e4461",
    "wire-e5d42cee88fb",
];

/// The rows of one file; none, with a word about it, when it is not there.
fn rows(file: &str) -> Vec<Value> {
    let data = env::var_os("CROSSFADE_DATA").unwrap_or_else(|| "../shared/data".into());
    let path = Path::new(&data).join("wire").join(file).with_extension("jsonl");
    let Ok(text) = fs::read_to_string(&path) else {
        println!("SKIPPED: no {}; set CROSSFADE_DATA to the recorded exchanges", path.display());
        return Vec::new();
    };
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn all_rows() -> Vec<Value> {
    FILES.iter().flat_map(|file| rows(file)).collect()
}

fn endpoint(row: &Value) -> Endpoint {
    match row["kind"].as_str().unwrap() {
        "openai_chat" => Endpoint::Chat,
        "openai_responses" => Endpoint::Responses,
        "anthropic_messages" => Endpoint::Messages,
        _ => Endpoint::Gemini,
    }
}

fn received<'a>(row: &'a Value, body: &'a str, ended: End) -> Received<'a> {
    Received {
        endpoint: endpoint(row),
        status: u16::try_from(row["status"].as_u64().unwrap()).unwrap(),
        content_type: row["response_headers"]["content-type"].as_str().unwrap_or_default(),
        content_encoding: "",
        body: body.as_bytes(),
        tail: Tail::default(),
        ended,
    }
}

fn body(row: &Value) -> &str {
    row["response_body"].as_str().unwrap()
}

/// It counts no token of its request, which has some.
const UNCOUNTED: &str = "wire-5012d39de30f";

fn tells_usage(row: &Value) -> bool {
    ["\"prompt_tokens\"", "\"promptTokenCount\"", "\"input_tokens\""]
        .iter()
        .any(|it| body(row).contains(it))
}

#[track_caller]
fn check_answer(row: &Value, reading: &Reading) {
    let id = row["id"].as_str().unwrap();
    if ERROR_INSIDE.contains(&id) {
        assert_eq!(reading.outcome, Outcome::ProviderError, "{id} {:?}", reading.trouble);
        return;
    }
    assert!(matches!(reading.outcome, Outcome::Ok | Outcome::Refused), "{id} {reading:?}");
    let transcript = reading.transcript.as_ref().unwrap();
    let calls = row["tool_call"] == true && !EMPTY_CALL.contains(&id);
    assert!(!calls || !transcript.tool_calls.is_empty(), "{id} {transcript:?}");
    for call in &transcript.tool_calls {
        assert!(!call.name.is_empty(), "{id}");
        let json = serde_json::from_str::<Value>(&call.arguments);
        assert!(call.arguments.is_empty() || json.is_ok(), "{id} {call:?}");
    }
    assert!(!tells_usage(row) || id == UNCOUNTED || reading.usage.is_some(), "{id}");
    assert_eq!(agreement(Some(transcript), Some(transcript)), Agreement::Exact, "{id}");
}

#[test]
fn every_recorded_answer_is_read() {
    let mut counts: BTreeMap<(String, &str), usize> = BTreeMap::new();
    let (mut silent, mut with_usage, mut unnamed) = (Vec::new(), 0, 0);
    for row in all_rows() {
        let reading = read(&received(&row, body(&row), End::Whole));
        let kind = row["kind"].as_str().unwrap().to_owned();
        *counts.entry((kind, reading.outcome.as_str())).or_default() += 1;
        if row["status"].as_u64() < Some(300) {
            check_answer(&row, &reading);
            with_usage += usize::from(reading.usage.is_some());
            unnamed += usize::from(reading.model.is_none());
            let said = reading.transcript.unwrap_or_default();
            if said.text.is_empty() && said.tool_calls.is_empty() {
                silent.push(format!("{} {:?}", row["id"], reading.finish_reason));
            }
        } else {
            assert_ne!(reading.outcome, Outcome::Ok, "{}", row["id"]);
            assert!(reading.trouble.is_some_and(|it| it.len() > 5), "{}", row["id"]);
        }
    }
    println!("outcomes {counts:?}");
    println!("with usage {with_usage}, without model {unnamed}, nothing said {silent:?}");
}

/// How far estimates are from what was billed, printed with its distribution.
#[test]
fn estimates_of_tokens_are_near_what_was_billed() {
    let rows = all_rows();
    let mut errors: BTreeMap<(&str, &str), Vec<i64>> = BTreeMap::new();
    for row in rows.iter().filter(|it| it["status"].as_u64() < Some(300)) {
        let reading = read(&received(row, body(row), End::Whole));
        let (Some(usage), Some(said)) = (reading.usage, &reading.transcript) else { continue };
        let request = row["request"].to_string();
        let guess = estimate(endpoint(row), request.as_bytes(), said);
        let input = usage.input + usage.cache_read + usage.cache_write;
        // What was thought and pictures are no texts, so both ends of the list are far off.
        for (side, billed, guessed) in
            [("input", input, guess.input), ("output", usage.output, guess.output)]
        {
            if 0 < billed {
                let [billed, guessed] = [billed, guessed].map(|it| i64::try_from(it).unwrap());
                let error = (guessed - billed) * 100 / billed;
                for kind in ["all", row["kind"].as_str().unwrap()] {
                    errors.entry((kind, side)).or_default().push(error);
                }
            }
        }
    }
    for ((kind, side), errors) in &mut errors {
        errors.sort_unstable();
        let at = |percent: usize| errors[(errors.len() - 1) * percent / 100];
        let near = errors.iter().filter(|it| it.abs() <= 20).count() * 100 / errors.len();
        println!(
            "{kind} {side}: {} exchanges, error in percent at 5/25/50/75/95 of them {} {} {} {} {}; {near}% \
             of them within 20%",
            errors.len(),
            at(5),
            at(25),
            at(50),
            at(75),
            at(95)
        );
        assert!(*kind != "all" || -30 <= at(50) && at(50) <= 30, "{side}");
    }
}

#[test]
fn every_recorded_stream_that_breaks_off_is_truncated_and_never_ok() {
    let mut cuts = 0;
    for row in all_rows() {
        if row["sse"] != true || row["status"] != 200 {
            continue;
        }
        let half = body(&row).len() / 2;
        let body = &body(&row)[..body(&row).floor_char_boundary(half)];
        let broken = read(&received(&row, body, End::Broken));
        assert_eq!(broken.outcome, Outcome::Truncated, "{}", row["id"]);
        cuts += 1;
    }
    println!("cut streams {cuts}");
}

#[test]
fn every_recorded_request_is_asked_about_and_adapted() {
    let mut skips: BTreeMap<Option<Skip>, usize> = BTreeMap::new();
    for row in all_rows() {
        let endpoint = endpoint(&row);
        let (path, body) = (row["path"].as_str().unwrap(), row["request"].to_string());
        let asked = ask(endpoint, path, body.as_bytes()).unwrap();
        assert_eq!(asked.stream, row["stream"], "{}", row["id"]);
        *skips.entry(asked.barred).or_default() += 1;

        let as_it_is = Edits { model: None, purpose: Purpose::Serve, rules: None };
        let (same_path, same) = adapt(endpoint, path, body.as_bytes(), &asked, &as_it_is).unwrap();
        if asked.spans.users.is_empty() && asked.spans.cache_key.is_none() {
            assert_eq!((same_path.as_str(), same), (path, body.clone().into_bytes()));
        }
        for purpose in [Purpose::Copy, Purpose::Serve] {
            check_adapted(&row, path, &asked, purpose);
        }
        let text = conversation(endpoint, body.as_bytes(), 2_000);
        // A stored prompt is all that some requests say.
        let told = text.contains(": ") || !row["request"]["prompt"].is_null();
        assert!(told && text.len() <= 2_000, "{} {text}", row["id"]);
    }
    println!("barred {skips:?}");
}

fn check_adapted(row: &Value, path: &str, asked: &Asked, purpose: Purpose) {
    let endpoint = endpoint(row);
    let body = row["request"].to_string();
    let edits = Edits { model: Some("the-other"), purpose, rules: None };
    let (path, adapted) = adapt(endpoint, path, body.as_bytes(), asked, &edits).unwrap();
    let adapted: Value = serde_json::from_slice(&adapted).unwrap();
    let mut expected = row["request"].clone();
    if endpoint == Endpoint::Gemini {
        assert!(path.contains("/the-other:"), "{path}");
    } else {
        expected["model"] = "the-other".into();
    }
    for name in ["user", "safety_identifier"] {
        if expected.get(name).is_some() {
            expected[name] = "crossfade".into();
        }
    }
    if expected.get("metadata").and_then(|it| it.get("user_id")).is_some() {
        expected["metadata"]["user_id"] = "crossfade".into();
    }
    if let Some(key) = expected.get_mut("prompt_cache_key").filter(|it| it.is_string()) {
        *key = adapted["prompt_cache_key"].clone();
        assert!(key.as_str().is_some_and(|it| it.starts_with("crossfade-")), "{key}");
    }
    if purpose == Purpose::Copy && endpoint == Endpoint::Responses {
        expected["store"] = false.into();
    }
    let streams = asked.stream && purpose == Purpose::Copy && endpoint == Endpoint::Chat;
    if streams && expected["stream_options"]["include_usage"].is_null() {
        expected["stream_options"]["include_usage"] = true.into();
    }
    assert_eq!(adapted, expected, "{}", row["id"]);
}
