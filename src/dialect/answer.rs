//! An answer put together again from its bytes, and how the call ended.

use super::{
    anthropic,
    decode::{Decoded, decode},
    draft::{Draft, Fault, Sort, bounded},
    gemini,
    json::Json,
    openai, responses, sse,
};
use crate::domain::{Endpoint, Outcome, Transcript, Usage};

/// What came back from a provider.
#[derive(Clone, Copy, Debug)]
pub struct Received<'a> {
    /// What was asked.
    pub endpoint: Endpoint,
    /// The HTTP status.
    pub status: u16,
    /// The `content-type`; empty when there was none.
    pub content_type: &'a str,
    /// The `content-encoding`; empty when there was none.
    pub content_encoding: &'a str,
    /// The body as it came, or its beginning.
    pub body: &'a [u8],
    /// The end of a stream of which only the beginning is in `body`, if it was kept.
    pub tail: Tail<'a>,
    /// How the body ended.
    pub ended: End,
}

/// The end of a stream that is longer than what is kept of it, without a content coding.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tail<'a> {
    /// Its last bytes; empty when none were kept.
    pub bytes: &'a [u8],
    /// How many bytes between its beginning and these are not here.
    pub missing: usize,
}

/// How a body ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// All of it is here.
    Whole,
    /// The connection failed before its end.
    Broken,
    /// It ended well, but only its beginning was kept.
    Cut,
}

/// What a provider's answer says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reading {
    /// How the call ended.
    pub outcome: Outcome,
    /// The answer, as far as it is here and can be compared.
    pub transcript: Option<Transcript>,
    /// Tokens, when the provider told.
    pub usage: Option<Usage>,
    /// The provider's own word for why it stopped.
    pub finish_reason: Option<String>,
    /// The model the provider says it used.
    pub model: Option<String>,
    /// What went wrong: at most 8 KiB, as are the words above.
    pub trouble: Option<String>,
}

/// Most tokens of a call: who tells more says nothing of them.
const TOKENS_MAX: u64 = 1 << 30;

/// Reads what came back. It never fails: whatever the bytes are, the outcome says so.
pub fn read(received: &Received<'_>) -> Reading {
    let decoded = decode(received.content_encoding, received.body, received.ended);
    if !(200..300).contains(&received.status) {
        return refused(received.status, decoded.as_ref());
    }
    let Some(decoded) = decoded else {
        return unreadable(received);
    };
    let (draft, end) = draft(received, &decoded.bytes, decoded.end);
    let end = if draft.is_cut && end == End::Whole { End::Cut } else { end };
    let (outcome, trouble) = judge(&draft, end);
    let usage = draft.counted().filter(|it| it.all() <= TOKENS_MAX);
    let comparable = draft.seen && received.endpoint != Endpoint::Embeddings;
    Reading {
        outcome,
        transcript: comparable.then_some(draft.transcript),
        usage,
        finish_reason: draft.finish.map(bounded),
        model: draft.model.map(bounded),
        trouble,
    }
}

/// The reading of an error status.
fn refused(status: u16, body: Option<&Decoded<'_>>) -> Reading {
    let fault = body.map(|it| Fault::of_body(&it.bytes));
    let sort = fault.as_ref().map_or(Sort::Other, |it| it.sort);
    let outcome = match (status, sort) {
        (408 | 504, _) => Outcome::Timeout,
        (429 | 529, _) => Outcome::Throttled,
        (401..=403, _) | (400, Sort::Credential) => Outcome::ProviderError,
        (400, Sort::Filtered) => Outcome::Refused,
        (400..=499, _) => Outcome::Incompatible,
        _ => Outcome::ProviderError,
    };
    let told = fault.map(|it| it.text).filter(|it| !it.is_empty());
    only(outcome, Some(told.unwrap_or_else(|| format!("status {status}"))))
}

/// The reading of a good status with a body in a coding we do not know: whatever is in it, it says
/// nothing.
fn unreadable(received: &Received<'_>) -> Reading {
    match received.ended {
        End::Whole | End::Cut => only(Outcome::Abandoned, Some(CODING.to_owned())),
        End::Broken => only(Outcome::Truncated, Some(BROKEN.to_owned())),
    }
}

fn only(outcome: Outcome, trouble: Option<String>) -> Reading {
    Reading { outcome, transcript: None, usage: None, finish_reason: None, model: None, trouble }
}

/// What is known of an answer, and how much of it, where it ended so.
fn draft(received: &Received<'_>, body: &[u8], mut end: End) -> (Draft, End) {
    let mut draft = Draft::default();
    // DeepSeek sends empty lines ahead of plain JSON while a request waits.
    let body = body.trim_ascii_start();
    if is_stream(received.content_type, body) {
        let mut reader = sse::Reader::default();
        reader.push(body, |event| take_event(received.endpoint, &event, &mut draft));
        let has_tail = !received.tail.bytes.is_empty();
        if has_tail && take_tail(received, reader, &mut draft) && end == End::Cut {
            end = End::Whole;
        }
    } else if received.endpoint == Endpoint::Gemini && body.starts_with(b"[") {
        gemini::array(body, &mut draft);
    } else {
        draft.done = true;
        // Of what is passed on unread there is no body.
        if !body.is_empty()
            && let Ok(value) = Json::read(body)
        {
            take_whole(received.endpoint, &value, &mut draft);
        }
    }
    (draft, end)
}

/// Takes what the end of a stream tells of how the call went. What it says there is no part of the
/// transcript, of which only the beginning is kept. Answers whether the end is known by it.
fn take_tail(received: &Received<'_>, mut reader: sse::Reader, draft: &mut Draft) -> bool {
    let Tail { mut bytes, missing } = received.tail;
    if 0 < missing {
        (reader, bytes) = (sse::Reader::default(), sse::after_empty_line(bytes));
    }
    // An event so long that its beginning is not here may have said anything.
    let mut is_known = missing == 0;
    let mut end = Draft { usage: draft.usage, ..Draft::default() };
    reader.push(bytes, |event| {
        is_known = true;
        take_event(received.endpoint, &event, &mut end);
    });
    draft.seen |= end.seen;
    draft.done |= end.done;
    draft.usage = end.usage;
    draft.finish = end.finish.or(draft.finish.take());
    draft.fault = draft.fault.take().or(end.fault);
    is_known
}

/// Whether the body is a stream of events. The bytes are believed before the header.
pub fn is_stream(content_type: &str, body: &[u8]) -> bool {
    let body = body.trim_ascii_start();
    let fields: [&[u8]; 5] = [b"data:", b"event:", b"id:", b"retry:", b":"];
    let named = content_type.to_ascii_lowercase().contains("event-stream");
    let json = body.starts_with(b"{") || body.starts_with(b"[");
    (named && !json) || fields.iter().any(|it| body.starts_with(it))
}

fn take_whole(endpoint: Endpoint, value: &Json<'_>, draft: &mut Draft) {
    match endpoint {
        Endpoint::Chat | Endpoint::Completions => openai::whole(value, draft),
        Endpoint::Embeddings => openai::embeddings(value, draft),
        Endpoint::Responses => responses::whole(value, draft),
        Endpoint::Messages => anthropic::whole(value, draft),
        Endpoint::Gemini => gemini::part(value, draft),
    }
}

fn take_event(endpoint: Endpoint, event: &sse::Event, draft: &mut Draft) {
    if event.data.trim_ascii().starts_with(b"[DONE]") {
        draft.done = true;
        return;
    }
    let value = match Json::read(&event.data) {
        Ok(value) => value,
        Err(_) if event.name == "error" => {
            draft.fault.get_or_insert_with(|| Fault::of_body(&event.data));
            return;
        }
        // It keeps a connection open.
        Err(_) if event.name == "ping" || event.data.trim_ascii().is_empty() => return,
        // Callers stumble over it, or miss what it was to say.
        Err(_) => {
            let text = "an event of the stream is garbled: its data is no JSON".to_owned();
            draft.fault.get_or_insert(Fault { text, sort: Sort::Other });
            return;
        }
    };
    if event.name == "error" {
        let error = if value["error"].is_null() { &value } else { &value["error"] };
        draft.set_fault(error);
        return;
    }
    match endpoint {
        Endpoint::Chat | Endpoint::Completions => openai::chunk(&value, draft),
        // Embeddings are never streamed; what came instead is no answer.
        Endpoint::Embeddings => {}
        Endpoint::Responses => responses::event(&value, draft),
        Endpoint::Messages => anthropic::event(&value, draft),
        Endpoint::Gemini => gemini::part(&value, draft),
    }
}

const CODING: &str = "the body is in a coding that is not known";
const BROKEN: &str = "the connection failed before the end of the body";

/// How a call with a good status ended, and what was wrong with it.
fn judge(draft: &Draft, end: End) -> (Outcome, Option<String>) {
    if let Some(fault) = &draft.fault {
        let outcome = match fault.sort {
            Sort::Throttled => Outcome::Throttled,
            Sort::Filtered => Outcome::Refused,
            Sort::Credential | Sort::Other => Outcome::ProviderError,
        };
        return (outcome, Some(fault.text.clone()));
    }
    let finish = draft.finish.as_deref().map(ending);
    match (finish, end) {
        (Some(Ending::Failed), _) => {
            let word = draft.finish.as_deref().unwrap_or_default();
            (Outcome::ProviderError, Some(bounded(format!("finish reason `{word}`"))))
        }
        (_, End::Broken) => (Outcome::Truncated, Some(BROKEN.to_owned())),
        (_, End::Whole) if !draft.done => {
            (Outcome::Truncated, Some("the stream ended without its end mark".to_owned()))
        }
        (_, End::Whole) if !draft.seen => {
            (Outcome::ProviderError, Some("the body is no answer of this endpoint".to_owned()))
        }
        (Some(Ending::Refused), End::Whole | End::Cut) => (Outcome::Refused, None),
        (Some(Ending::Plain) | None, End::Whole | End::Cut) => match draft.transcript.refusal {
            Some(_) => (Outcome::Refused, None),
            None => (Outcome::Ok, None),
        },
    }
}

/// What a word for why the model stopped comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    /// It said what it had to say, or reached a limit it was given.
    Plain,
    /// It, or a filter, declined.
    Refused,
    /// It broke down. Gateways hide these behind `stop`.
    Failed,
}

fn ending(word: &str) -> Ending {
    match word.to_ascii_lowercase().as_str() {
        "content_filter"
        | "refusal"
        | "safety"
        | "recitation"
        | "blocklist"
        | "prohibited_content"
        | "spii"
        | "image_safety"
        | "image_prohibited_content"
        | "image_recitation"
        | "language"
        | "model_armor"
        | "guardrail_intervened"
        | "sensitive" => Ending::Refused,
        "error"
        | "network_error"
        | "malformed_function_call"
        | "unexpected_tool_call"
        | "too_many_tool_calls"
        | "malformed_response"
        | "insufficient_system_resource"
        | "failed"
        | "cancelled" => Ending::Failed,
        _ => Ending::Plain,
    }
}

#[cfg(test)]
#[path = "answer_tests.rs"]
mod tests;
