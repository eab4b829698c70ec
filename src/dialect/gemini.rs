//! The `generateContent` dialect of Gemini, from Google's AI Studio and Vertex.

use serde_json::Deserializer;

use super::{
    draft::{Draft, count, text},
    json::Json,
};
use crate::domain::{ToolCall, Usage};

/// Takes a whole answer, or one part of a streamed one: they have the same shape.
pub(super) fn part(value: &Json<'_>, draft: &mut Draft) {
    draft.set_fault(&value["error"]);
    draft.set_model(&value["modelVersion"]);
    take_usage(&value["usageMetadata"], draft);
    take_block(&value["promptFeedback"], draft);
    for candidate in value["candidates"].items().iter().filter(|it| count(&it["index"]) == 0) {
        draft.seen = true;
        let finish = finish_reason(&candidate["finishReason"]);
        draft.set_finish(&finish);
        draft.done |= !finish.is_null();
        for part in candidate["content"]["parts"].items() {
            take_part(part, draft);
        }
    }
}

/// Takes a stream that came as one JSON array, which is what Gemini sends without `alt=sse`.
///
/// An array that breaks off gives the parts before the break.
pub(super) fn array(body: &[u8], draft: &mut Draft) {
    let mut rest = body.strip_prefix(b"[").unwrap_or(body).trim_ascii_start();
    loop {
        let mut values = Deserializer::from_slice(rest).into_iter::<Json<'_>>();
        let Some(Ok(value)) = values.next() else { break };
        part(&value, draft);
        rest = rest.get(values.byte_offset()..).unwrap_or_default().trim_ascii_start();
        rest = rest.strip_prefix(b",").unwrap_or(rest).trim_ascii_start();
    }
    // An empty array is whole, and no answer.
    draft.done |= !draft.seen && rest.starts_with(b"]");
}

fn take_part(part: &Json<'_>, draft: &mut Draft) {
    if part["thought"] == Json::Bool(true) {
        return;
    }
    draft.transcript.text += part["text"].as_str().unwrap_or_default();
    let call = &part["functionCall"];
    if call.is_object() {
        let args = &call["args"];
        draft.transcript.tool_calls.push(ToolCall {
            id: text(&call["id"]).unwrap_or_default(),
            name: text(&call["name"]).unwrap_or_default(),
            arguments: if args.is_null() { "{}".to_owned() } else { args.to_string() },
        });
    }
}

/// A prompt that was blocked has no candidates, and a reason instead.
fn take_block(feedback: &Json<'_>, draft: &mut Draft) {
    let reason = &feedback["blockReason"];
    if reason.is_null() {
        return;
    }
    draft.seen = true;
    draft.done = true;
    draft.set_finish(reason);
    let told = text(&feedback["blockReasonMessage"]).or_else(|| text(reason));
    draft.transcript.refusal = told.or_else(|| Some("the prompt was blocked".to_owned()));
}

/// The reason as a word. Some callers ask for enums as numbers; from 6 on the two services
/// number differently, so those stay numbers.
fn finish_reason<'a>(value: &Json<'a>) -> Json<'a> {
    let word = match value.as_u64() {
        Some(1) => "STOP",
        Some(2) => "MAX_TOKENS",
        Some(3) => "SAFETY",
        Some(4) => "RECITATION",
        Some(5) => "OTHER",
        Some(0) => return Json::Null,
        Some(number) => return Json::Text(number.to_string().into()),
        None => return value.clone(),
    };
    Json::Text(word.into())
}

/// Takes the counters told so far; each part of a stream may tell some of them.
fn take_usage(value: &Json<'_>, draft: &mut Draft) {
    let prompt = value["promptTokenCount"].as_u64();
    let answer = value["candidatesTokenCount"].as_u64();
    let thoughts = value["thoughtsTokenCount"].as_u64();
    if prompt.is_some() {
        let usage = draft.usage.get_or_insert_default();
        usage.cache_read = count(&value["cachedContentTokenCount"]);
        usage.input = (count(&value["promptTokenCount"])
            + count(&value["toolUsePromptTokenCount"]))
        .saturating_sub(usage.cache_read);
    }
    if answer.is_some() || thoughts.is_some() {
        let usage: &mut Usage = draft.usage.get_or_insert_default();
        usage.output = answer.unwrap_or(0).saturating_add(thoughts.unwrap_or(0));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn answer() -> Value {
        json!({
            "candidates": [{
                "content": {"role": "model", "parts": [
                    {"text": "hm", "thought": true},
                    {"text": "Hi"},
                    {"functionCall": {"name": "f", "args": {"x": 1}}, "thoughtSignature": "s"},
                    {"functionCall": {"name": "g"}},
                ]},
                "finishReason": "STOP",
            }],
            "usageMetadata": {"promptTokenCount": 10, "cachedContentTokenCount": 4,
                "candidatesTokenCount": 2, "thoughtsTokenCount": 3, "toolUsePromptTokenCount": 1},
            "modelVersion": "gemini-x",
        })
    }

    #[test]
    fn a_whole_answer_gives_text_calls_and_usage() {
        let mut draft = Draft::default();
        part(&Json::from(&answer()), &mut draft);
        assert_eq!(draft.transcript.text, "Hi");
        let calls: Vec<_> = draft
            .transcript
            .tool_calls
            .iter()
            .map(|it| (it.name.as_str(), it.arguments.as_str()))
            .collect();
        assert_eq!(calls, [("f", r#"{"x":1}"#), ("g", "{}")]);
        assert_eq!(draft.finish.as_deref(), Some("STOP"));
        assert_eq!(draft.model.as_deref(), Some("gemini-x"));
        let usage = Usage { input: 7, cache_read: 4, cache_write: 0, output: 5 };
        assert_eq!(draft.usage, Some(usage));
    }

    #[test]
    fn an_array_is_a_stream_and_may_break_off() {
        let piece = |text: &str| json!({"candidates": [{"content": {"parts": [{"text": text}]}}]});
        let body =
            json!([piece("H"), piece("i"), answer()]).to_string().replace("},{", "}\n,\r\n{");
        let mut draft = Draft::default();
        array(body.as_bytes(), &mut draft);
        assert_eq!(draft.transcript.text, "HiHi");
        assert!(draft.done);

        let mut draft = Draft::default();
        array(&body.as_bytes()[..body.len() / 3], &mut draft);
        assert!(draft.seen && !draft.done);
        assert!(draft.transcript.text.starts_with('H'));

        let mut draft = Draft::default();
        array(b"[]", &mut draft);
        assert!(draft.done && !draft.seen);
    }

    #[test]
    fn a_blocked_prompt_is_a_refusal_whatever_its_reason() {
        let mut draft = Draft::default();
        let blocked = json!({"promptFeedback": {"blockReason": "OTHER"}});
        part(&Json::from(&blocked), &mut draft);
        assert!(draft.seen && draft.done);
        assert_eq!(draft.transcript.refusal.as_deref(), Some("OTHER"));
    }

    #[test]
    fn reasons_and_counters_come_in_odd_forms() {
        assert_eq!(finish_reason(&Json::from(&json!(2))).as_str(), Some("MAX_TOKENS"));
        assert_eq!(finish_reason(&Json::from(&json!(9))).as_str(), Some("9"));
        assert_eq!(finish_reason(&Json::from(&json!(0))), Json::Null);
        let mut draft = Draft::default();
        take_usage(&Json::from(&json!({"trafficType": "ON_DEMAND"})), &mut draft);
        assert_eq!(draft.usage, None);
        take_usage(&Json::from(&json!({"promptTokenCount": 4})), &mut draft);
        take_usage(
            &Json::from(&json!({"candidatesTokenCount": 2, "thoughtsTokenCount": 1})),
            &mut draft,
        );
        assert_eq!(draft.usage, Some(Usage { input: 4, output: 3, ..Usage::default() }));
    }
}
