//! The Responses dialect of `OpenAI`.

use super::{
    draft::{Draft, count, text, written},
    json::Json,
};
use crate::domain::{ToolCall, Transcript, Usage};

/// Takes a whole response.
pub(super) fn whole(value: &Json<'_>, draft: &mut Draft) {
    draft.set_fault(&value["error"]);
    draft.set_model(&value["model"]);
    draft.usage = usage(&value["usage"]).or(draft.usage);
    draft.set_finish(&value["status"]);
    draft.set_finish(&value["incomplete_details"]["reason"]);
    let Json::List(output) = &value["output"] else { return };
    draft.seen = true;
    // At the end of a stream it says again what the deltas said; some say it with nothing in it.
    if !output.is_empty() {
        draft.transcript = Transcript::default();
        for item in output {
            take_item(item, draft);
        }
    }
}

/// Takes one event of a streamed response.
pub(super) fn event(value: &Json<'_>, draft: &mut Draft) {
    match value["type"].as_str().unwrap_or_default() {
        "response.created" => {
            draft.seen = true;
            draft.set_model(&value["response"]["model"]);
        }
        "response.output_text.delta" => {
            draft.transcript.text += value["delta"].as_str().unwrap_or_default();
        }
        "response.refusal.delta" => draft.add_refusal(&value["delta"]),
        "response.output_item.done" => take_call(&value["item"], draft),
        "response.completed" | "response.incomplete" | "response.failed" | "response.cancelled" => {
            draft.done = true;
            whole(&value["response"], draft);
        }
        "error" => {
            draft.set_fault(if value["error"].is_null() { value } else { &value["error"] });
        }
        _ => draft.set_fault(&value["error"]),
    }
}

fn take_item(item: &Json<'_>, draft: &mut Draft) {
    if item["type"].as_str() == Some("message") {
        for part in item["content"].items() {
            draft.add_refusal(&part["refusal"]);
            draft.transcript.text += part["text"].as_str().unwrap_or_default();
        }
    }
    take_call(item, draft);
}

fn take_call(item: &Json<'_>, draft: &mut Draft) {
    let arguments = match item["type"].as_str() {
        Some("function_call") => written(&item["arguments"]),
        Some("custom_tool_call") => written(&item["input"]),
        _ => return,
    };
    draft.transcript.tool_calls.push(ToolCall {
        id: text(&item["call_id"]).unwrap_or_default(),
        name: text(&item["name"]).unwrap_or_default(),
        arguments,
    });
}

/// Tokens as this dialect counts them: input with what was cached, output with reasoning.
fn usage(value: &Json<'_>) -> Option<Usage> {
    let input = value["input_tokens"].as_u64()?;
    let cache_read = count(&value["input_tokens_details"]["cached_tokens"]);
    Some(Usage {
        input: input.saturating_sub(cache_read),
        cache_read,
        cache_write: 0,
        output: count(&value["output_tokens"]),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn streamed(events: &[Value]) -> Draft {
        let mut draft = Draft::default();
        for value in events {
            event(&Json::from(value), &mut draft);
        }
        draft
    }

    fn answer() -> Value {
        json!({
            "model": "m", "status": "completed", "error": null,
            "output": [
                {"type": "reasoning", "content": [{"type": "reasoning_text", "text": "hm"}]},
                {"type": "message", "content": [{"type": "output_text", "text": "Hi"}]},
                {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
                {"type": "custom_tool_call", "call_id": "d", "name": "g", "input": "x"},
            ],
            "usage": {"input_tokens": 9, "input_tokens_details": {"cached_tokens": 2},
                "output_tokens": 3},
        })
    }

    #[test]
    fn a_whole_response_gives_text_calls_and_usage() {
        let mut draft = Draft::default();
        whole(&Json::from(&answer()), &mut draft);
        assert_eq!(draft.transcript.text, "Hi");
        assert_eq!(draft.transcript.tool_calls.len(), 2);
        assert_eq!(draft.finish.as_deref(), Some("completed"));
        let usage = Usage { input: 7, cache_read: 2, cache_write: 0, output: 3 };
        assert_eq!(draft.usage, Some(usage));
    }

    #[test]
    fn a_stream_says_the_same_with_or_without_its_final_output() {
        let deltas = [
            json!({"type": "response.created", "response": {"model": "m"}}),
            json!({"type": "response.output_text.delta", "delta": "H"}),
            json!({"type": "response.output_text.delta", "delta": "i"}),
            json!({"type": "response.output_item.done", "item": answer()["output"][2]}),
            json!({"type": "response.output_item.done", "item": answer()["output"][3]}),
        ];
        let unfinished = streamed(&deltas);
        assert!(unfinished.seen && !unfinished.done);
        let mut empty = answer();
        empty["output"] = json!([]);
        for last in [answer(), empty] {
            let last = json!({"type": "response.completed", "response": last});
            let draft = streamed(&[&deltas[..], &[last]].concat());
            assert!(draft.done);
            assert_eq!(draft.transcript, unfinished.transcript);
            assert_eq!(draft.transcript.text, "Hi");
        }
    }

    #[test]
    fn incomplete_failed_and_refused_responses_say_so() {
        let mut value = answer();
        value["status"] = json!("incomplete");
        value["incomplete_details"] = json!({"reason": "content_filter"});
        let draft = streamed(&[json!({"type": "response.incomplete", "response": value})]);
        assert_eq!(draft.finish.as_deref(), Some("content_filter"));
        assert!(draft.usage.is_some());

        let error = json!({"code": "server_error", "message": "Sorry"});
        let failed = json!({"status": "failed", "error": error});
        let draft = streamed(&[json!({"type": "response.failed", "response": failed})]);
        assert_eq!(draft.fault.unwrap().text, "server_error: Sorry");

        let draft = streamed(&[json!({"type": "error", "code": "c", "message": "m"})]);
        assert_eq!(draft.fault.unwrap().text, "c: m");

        let draft = streamed(&[json!({"type": "response.refusal.delta", "delta": "No"})]);
        assert_eq!(draft.transcript.refusal.as_deref(), Some("No"));
    }
}
