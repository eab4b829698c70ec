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
    /// How the body ended.
    pub ended: End,
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

/// Reads what came back. It never fails: whatever the bytes are, the outcome says so.
pub fn read(received: &Received<'_>) -> Reading {
    let decoded = decode(received.content_encoding, received.body, received.ended);
    if !(200..300).contains(&received.status) {
        return refused(received.status, decoded.as_ref());
    }
    let Some(decoded) = decoded else {
        return unreadable(received);
    };
    let draft = draft(received, &decoded.bytes);
    let end = if draft.is_cut && decoded.end == End::Whole { End::Cut } else { decoded.end };
    let (outcome, trouble) = judge(&draft, end);
    let comparable = draft.seen && received.endpoint != Endpoint::Embeddings;
    Reading {
        outcome,
        transcript: comparable.then_some(draft.transcript),
        usage: draft.usage,
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

fn draft(received: &Received<'_>, body: &[u8]) -> Draft {
    let mut draft = Draft::default();
    // DeepSeek sends empty lines ahead of plain JSON while a request waits.
    let body = body.trim_ascii_start();
    if is_stream(received.content_type, body) {
        for event in sse::events(body) {
            take_event(received.endpoint, &event, &mut draft);
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
    draft
}

/// Whether the body is a stream of events. The bytes are believed before the header.
fn is_stream(content_type: &str, body: &[u8]) -> bool {
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
        // Whatever it is, it is not part of the answer.
        Err(_) => return,
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
mod tests {
    use super::*;

    fn received(status: u16, body: &str, ended: End) -> Received<'_> {
        Received {
            endpoint: Endpoint::Chat,
            status,
            content_type: "",
            content_encoding: "",
            body: body.as_bytes(),
            ended,
        }
    }

    fn outcome(status: u16, body: &str, ended: End) -> Outcome {
        read(&received(status, body, ended)).outcome
    }

    const ANSWER: &str =
        r#"{"model":"m","choices":[{"message":{"content":"Hi"},"finish_reason":"stop"}]}"#;

    fn finished(word: &str) -> Outcome {
        outcome(200, &ANSWER.replace("stop", word), End::Whole)
    }

    #[test]
    fn every_status_has_its_outcome() {
        for (status, expected) in [
            (301, Outcome::ProviderError),
            (400, Outcome::Incompatible),
            (401, Outcome::ProviderError),
            (402, Outcome::ProviderError),
            (403, Outcome::ProviderError),
            (404, Outcome::Incompatible),
            (408, Outcome::Timeout),
            (413, Outcome::Incompatible),
            (429, Outcome::Throttled),
            (500, Outcome::ProviderError),
            (503, Outcome::ProviderError),
            (504, Outcome::Timeout),
            (529, Outcome::Throttled),
        ] {
            assert_eq!(outcome(status, "", End::Whole), expected, "{status}");
        }
        let reading = read(&received(500, "", End::Whole));
        assert_eq!(reading.trouble.as_deref(), Some("status 500"));
    }

    #[test]
    fn a_400_about_the_key_or_a_filter_says_more_than_its_status() {
        let key = r#"{"error":{"code":400,"message":"API key not valid. Please pass one."}}"#;
        assert_eq!(outcome(400, key, End::Whole), Outcome::ProviderError);
        let filter = r#"{"error":{"code":"content_filter","message":"Filtered"}}"#;
        assert_eq!(outcome(400, filter, End::Whole), Outcome::Refused);
    }

    /// M17
    #[test]
    fn finish_reasons_are_told_apart() {
        assert_eq!(finished("stop"), Outcome::Ok);
        assert_eq!(finished("length"), Outcome::Ok);
        assert_eq!(finished("content_filter"), Outcome::Refused);
        assert_eq!(finished("SAFETY"), Outcome::Refused);
        assert_eq!(finished("error"), Outcome::ProviderError);
        assert_eq!(finished("network_error"), Outcome::ProviderError);
        assert_eq!(finished("MALFORMED_FUNCTION_CALL"), Outcome::ProviderError);
        assert_eq!(finished("UNEXPECTED_TOOL_CALL"), Outcome::ProviderError);
    }

    #[test]
    fn an_error_inside_a_200_is_an_error() {
        let error = r#"{"error":{"code":502,"message":"Provider returned error"}}"#;
        let reading = read(&received(200, error, End::Whole));
        assert_eq!(reading.outcome, Outcome::ProviderError);
        assert_eq!(reading.trouble.as_deref(), Some("502: Provider returned error"));
        assert_eq!(reading.transcript, None);
        let busy = r#"{"error":{"code":429,"message":"x"}}"#;
        assert_eq!(outcome(200, busy, End::Whole), Outcome::Throttled);
    }

    #[test]
    fn a_body_that_is_no_answer_is_an_error() {
        for body in ["", "<html>", "{}", "[]", "null", r#"{"choices":[]}"#, "data: [DONE]\n\n"] {
            assert_eq!(outcome(200, body, End::Whole), Outcome::ProviderError, "{body}");
        }
    }

    #[test]
    fn a_broken_or_unended_answer_is_truncated_and_a_cut_one_is_not() {
        let stream = "data: {\"choices\":[{\"delta\":{\"content\":\"Hi\"}}]}\n\n";
        assert_eq!(outcome(200, stream, End::Whole), Outcome::Truncated);
        assert_eq!(outcome(200, ANSWER, End::Broken), Outcome::Truncated);
        let cut = read(&received(200, stream, End::Cut));
        assert_eq!(cut.outcome, Outcome::Ok);
        assert_eq!(cut.transcript.unwrap().text, "Hi");
        assert_eq!(outcome(200, &ANSWER[..20], End::Cut), Outcome::Ok);
        let empty = Received { content_type: "text/event-stream", ..received(200, "", End::Whole) };
        assert_eq!(read(&empty).outcome, Outcome::Truncated);
    }

    #[test]
    fn a_coding_we_do_not_know_says_nothing() {
        let it = Received { content_encoding: "sdch", ..received(200, "\x1b", End::Whole) };
        let reading = read(&it);
        assert_eq!((reading.outcome, reading.transcript), (Outcome::Abandoned, None));
        let broken = Received { ended: End::Broken, ..it };
        assert_eq!(read(&broken).outcome, Outcome::Truncated);
    }

    #[test]
    fn empty_lines_ahead_of_json_are_not_a_stream() {
        assert_eq!(outcome(200, &format!("\n\n\n{ANSWER}"), End::Whole), Outcome::Ok);
    }

    #[test]
    fn an_error_event_counts_in_every_dialect() {
        for endpoint in [Endpoint::Chat, Endpoint::Responses, Endpoint::Messages, Endpoint::Gemini]
        {
            let body = "event: error\ndata: {\"error\":{\"type\":\"overloaded_error\"}}\n\n";
            let it = Received { endpoint, ..received(200, body, End::Whole) };
            assert_eq!(read(&it).outcome, Outcome::Throttled);
            let body = "event: error\ndata: something broke\n\n";
            let it = Received { endpoint, ..received(200, body, End::Whole) };
            assert_eq!(read(&it).outcome, Outcome::ProviderError);
        }
    }
}
