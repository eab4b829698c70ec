//! What answers come to, whatever their bytes are.

use super::*;

fn received(status: u16, body: &str, ended: End) -> Received<'_> {
    Received {
        endpoint: Endpoint::Chat,
        status,
        content_type: "",
        content_encoding: "",
        body: body.as_bytes(),
        tail: Tail::default(),
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
fn more_tokens_than_can_be_are_not_told() {
    let usage = |tokens: u64| {
        let body = format!(
            "{{\"choices\":[{{\"message\":{{\"content\":\"a\"}},\"finish_reason\":\"stop\"}}],\
             \"usage\":{{\"prompt_tokens\":{tokens},\"completion_tokens\":2}}}}"
        );
        read(&received(200, &body, End::Whole)).usage
    };
    assert_eq!(usage(TOKENS_MAX - 2).map(|it| it.all()), Some(TOKENS_MAX));
    for tokens in [TOKENS_MAX, u64::MAX - 1, u64::MAX] {
        assert_eq!(usage(tokens), None, "{tokens}");
    }
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
fn counters_that_nobody_counted_are_no_usage() {
    let usage = |answer: &str, counters: &str| {
        let body = answer.replacen('{', &format!("{{\"usage\":{counters},"), 1);
        read(&received(200, &body, End::Whole)).usage
    };
    for counters in [
        r#"{"prompt_tokens":0,"completion_tokens":0,"total_tokens":0}"#,
        r#"{"prompt_tokens":0,"completion_tokens":2}"#,
        r#"{"prompt_tokens":12}"#,
    ] {
        assert_eq!(usage(ANSWER, counters), None, "{counters}");
    }
    assert!(usage(ANSWER, r#"{"prompt_tokens":12,"completion_tokens":1}"#).is_some());
    let silent = ANSWER.replace("Hi", "");
    assert!(usage(&silent, r#"{"prompt_tokens":12,"completion_tokens":0}"#).is_some());
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

const BEGUN: &str = "data: {\"model\":\"m\",\"choices\":[{\"delta\":{\"content\":\"Hi\"}}]}\n\n";
const DELTA: &str = "data: {\"choices\":[{\"delta\":{\"content\":\" there\"}}]}\n\n";
const LAST: &str = "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"length\"}],\
    \"usage\":{\"prompt_tokens\":3,\"completion_tokens\":5}}\n\ndata: [DONE]\n\n";
const FAULT: &str = "data: {\"error\":{\"code\":500,\"message\":\"late\"}}\n\n";

fn ended_with(bytes: &str, missing: usize) -> Reading {
    let tail = Tail { bytes: bytes.as_bytes(), missing };
    read(&Received { tail, ..received(200, BEGUN, End::Cut) })
}

#[test]
fn the_end_of_a_stream_that_is_cut_says_how_it_went() {
    for (missing, before) in [(0, String::new()), (9, format!("[\"a}}\r\n\r\n{DELTA}"))] {
        let reading = ended_with(&(before.clone() + LAST), missing);
        assert_eq!(reading.outcome, Outcome::Ok);
        assert_eq!(reading.finish_reason.as_deref(), Some("length"));
        assert_eq!(reading.usage, Some(Usage { input: 3, output: 5, ..Usage::default() }));
        assert_eq!(reading.transcript.unwrap().text, "Hi", "its beginning");
        let reading = ended_with(&(before.clone() + FAULT), missing);
        assert_eq!(reading.trouble.as_deref(), Some("500: late"));
        assert_eq!(reading.outcome, Outcome::ProviderError);
        let unended = ended_with(&(before + DELTA), missing);
        assert_eq!(unended.outcome, Outcome::Truncated);
    }
    // Nobody knows what an event says whose beginning is not here.
    for tail in ["\n", "no end", "x\n\n"] {
        assert_eq!(ended_with(tail, 9).outcome, Outcome::Ok, "{tail:?}");
    }
    assert_eq!(ended_with("data: {\"choi", 0).outcome, Outcome::Truncated);
}

#[test]
fn an_event_that_is_cut_in_two_is_read_where_nothing_is_missing() {
    for cut in 0..=FAULT.len() {
        let (head, tail) = FAULT.split_at(cut);
        let body = BEGUN.to_owned() + head;
        let tail = Tail { bytes: tail.as_bytes(), missing: 0 };
        let reading = read(&Received { tail, ..received(200, &body, End::Cut) });
        assert_eq!(reading.outcome, Outcome::ProviderError, "{cut}");
    }
}

#[test]
fn an_event_that_is_no_json_is_the_providers_error() {
    let garbled = "data: {\"choices\":[{\"delta\":{\"con\n\n";
    let stream = [BEGUN, garbled, LAST].concat();
    assert_eq!(outcome(200, &stream, End::Whole), Outcome::ProviderError);
    assert_eq!(ended_with(&(garbled.to_owned() + LAST), 0).outcome, Outcome::ProviderError);
    for well in ["data:\n\n", ": comment\n\n", "event: ping\ndata: now\n\n", "id: 1\n\n"] {
        let stream = [BEGUN, well, LAST].concat();
        assert_eq!(outcome(200, &stream, End::Whole), Outcome::Ok, "{well:?}");
    }
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
    for endpoint in [Endpoint::Chat, Endpoint::Responses, Endpoint::Messages, Endpoint::Gemini] {
        let body = "event: error\ndata: {\"error\":{\"type\":\"overloaded_error\"}}\n\n";
        let it = Received { endpoint, ..received(200, body, End::Whole) };
        assert_eq!(read(&it).outcome, Outcome::Throttled);
        let body = "event: error\ndata: something broke\n\n";
        let it = Received { endpoint, ..received(200, body, End::Whole) };
        assert_eq!(read(&it).outcome, Outcome::ProviderError);
    }
}
