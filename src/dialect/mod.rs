//! temporary chat-only stand-in
use crate::domain::{Agreement, Endpoint, Outcome, Skip, ToolCall, Transcript, Usage};
use serde_json::{Value, value::RawValue};
use std::collections::BTreeMap;
#[derive(Debug)]
pub struct Asked {
    pub model: String,
    pub stream: bool,
    pub user: Option<String>,
    pub conversation: Option<String>,
    pub barred: Option<Skip>,
    span: (usize, usize),
}
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
pub enum End {
    Whole,
    Broken,
    Cut,
}
#[derive(Debug)]
pub struct Received<'a> {
    pub endpoint: Endpoint,
    pub status: u16,
    pub content_type: &'a str,
    pub content_encoding: &'a str,
    pub body: &'a [u8],
    pub ended: End,
}
#[derive(Debug)]
pub struct Reading {
    pub outcome: Outcome,
    pub transcript: Option<Transcript>,
    pub usage: Option<Usage>,
    pub finish_reason: Option<String>,
    pub model: Option<String>,
    pub trouble: Option<String>,
}
#[derive(Debug)]
pub struct Edits<'a> {
    pub model: Option<&'a str>,
    pub purpose: Purpose,
}
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Purpose {
    Copy,
    Serve,
}
pub fn endpoint(m: &str, p: &str) -> Option<Endpoint> {
    (m == "POST" && p == "/v1/chat/completions").then_some(Endpoint::Chat)
}
pub fn ask(_e: Endpoint, _p: &str, b: &[u8]) -> Result<Asked, Skip> {
    let map: BTreeMap<String, &RawValue> = serde_json::from_slice(b).map_err(|_| Skip::NotJson)?;
    let text = |k: &str| map.get(k).and_then(|v| serde_json::from_str::<String>(v.get()).ok());
    let raw = map.get("model").ok_or(Skip::NotJson)?;
    let start = raw.get().as_ptr().addr() - b.as_ptr().addr();
    let barred = if map.get("store").is_some_and(|v| v.get() == "true") {
        Some(Skip::Stateful)
    } else if map.get("n").is_some_and(|v| v.get() != "1") {
        Some(Skip::Multiple)
    } else {
        None
    };
    Ok(Asked {
        model: text("model").unwrap_or_default(),
        stream: map.get("stream").is_some_and(|v| v.get() == "true"),
        user: text("user"),
        conversation: None,
        barred,
        span: (start, start + raw.get().len()),
    })
}
pub fn adapt(
    _e: Endpoint,
    p: &str,
    b: &[u8],
    a: &Asked,
    x: &Edits<'_>,
) -> Result<(String, Vec<u8>), Skip> {
    let mut out = b.to_vec();
    if let Some(m) = x.model {
        out.splice(a.span.0..a.span.1, Value::from(m).to_string().into_bytes());
    }
    Ok((p.to_owned(), out))
}
pub fn read(r: &Received<'_>) -> Reading {
    let mut reading = Reading {
        outcome: Outcome::Ok,
        transcript: None,
        usage: None,
        finish_reason: None,
        model: None,
        trouble: None,
    };
    reading.outcome = match r.status {
        200 => Outcome::Ok,
        429 => Outcome::Throttled,
        500.. => Outcome::ProviderError,
        _ => Outcome::Incompatible,
    };
    if reading.outcome != Outcome::Ok || r.ended == End::Cut {
        return reading;
    }
    if r.ended == End::Broken {
        reading.outcome = Outcome::Truncated;
        return reading;
    }
    let body = String::from_utf8_lossy(r.body);
    let mut t = Transcript::default();
    let values: Vec<Value> = if r.content_type.contains("event-stream") {
        if !body.contains("[DONE]") {
            reading.outcome = Outcome::Truncated;
            return reading;
        }
        body.lines()
            .filter_map(|l| l.strip_prefix("data: "))
            .filter(|l| *l != "[DONE]")
            .map(|l| serde_json::from_str(l).unwrap_or(Value::Null))
            .collect()
    } else {
        vec![serde_json::from_slice(r.body).unwrap_or(Value::Null)]
    };
    if values.iter().any(Value::is_null) {
        reading.outcome = Outcome::ProviderError;
        return reading;
    }
    for v in &values {
        for key in ["message", "delta"] {
            let m = &v["choices"][0][key];
            t.text.push_str(m["content"].as_str().unwrap_or(""));
            for c in m["tool_calls"].as_array().into_iter().flatten() {
                if let Some(n) = c["function"]["name"].as_str() {
                    t.tool_calls.push(ToolCall {
                        id: String::new(),
                        name: n.to_owned(),
                        arguments: String::new(),
                    });
                }
                if let Some(last) = t.tool_calls.last_mut() {
                    last.arguments.push_str(c["function"]["arguments"].as_str().unwrap_or(""));
                }
            }
        }
    }
    reading.transcript = Some(t);
    reading
}
pub fn agreement(a: Option<&Transcript>, b: Option<&Transcript>) -> Agreement {
    match (a, b) {
        (Some(a), Some(b)) if a == b => Agreement::Exact,
        (Some(_), Some(_)) => Agreement::Different,
        _ => Agreement::Unknown,
    }
}
pub fn conversation(_e: Endpoint, b: &[u8], _l: usize) -> String {
    let v: Value = serde_json::from_slice(b).unwrap_or(Value::Null);
    v["messages"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|m| {
            format!("{}: {}", m["role"].as_str().unwrap_or(""), m["content"].as_str().unwrap_or(""))
        })
        .collect::<Vec<_>>()
        .join("\n\n")
}
