//! The Messages dialect of Anthropic.

use super::{
    draft::{Draft, text},
    json::Json,
};
use crate::domain::{ToolCall, Usage};

/// Takes a whole message.
pub(super) fn whole(value: &Json<'_>, draft: &mut Draft) {
    draft.set_fault(&value["error"]);
    let Json::List(content) = &value["content"] else { return };
    draft.seen = true;
    draft.set_model(&value["model"]);
    draft.set_finish(&value["stop_reason"]);
    take_usage(&value["usage"], draft);
    for (block, index) in content.iter().zip(0..) {
        take_block(block, index, draft);
        end_block(index, draft);
    }
}

/// Takes one event of a streamed message. Unknown events mean nothing to us.
pub(super) fn event(value: &Json<'_>, draft: &mut Draft) {
    let index = value["index"].as_u64().unwrap_or(0);
    match value["type"].as_str().unwrap_or_default() {
        "message_start" => {
            draft.seen = true;
            draft.set_model(&value["message"]["model"]);
            take_usage(&value["message"]["usage"], draft);
        }
        "content_block_start" => take_block(&value["content_block"], index, draft),
        "content_block_delta" => take_delta(&value["delta"], index, draft),
        "content_block_stop" => end_block(index, draft),
        "message_delta" => {
            draft.set_finish(&value["delta"]["stop_reason"]);
            draft.done |= text(&value["delta"]["stop_reason"]).is_some();
            take_usage(&value["usage"], draft);
        }
        "message_stop" => draft.done = true,
        _ => draft.set_fault(&value["error"]),
    }
}

fn take_block(block: &Json<'_>, index: u64, draft: &mut Draft) {
    match block["type"].as_str().unwrap_or_default() {
        "text" => draft.transcript.text += block["text"].as_str().unwrap_or_default(),
        "tool_use" => {
            let input = &block["input"];
            // In a stream the block begins with `{}` and the fragments follow.
            let is_empty = matches!(input, Json::Object(members) if members.is_empty());
            let told = !is_empty && !input.is_null();
            draft.add_call(
                Some(index),
                ToolCall {
                    id: text(&block["id"]).unwrap_or_default(),
                    name: text(&block["name"]).unwrap_or_default(),
                    arguments: if told { input.to_string() } else { String::new() },
                },
            );
        }
        _ => {}
    }
}

fn take_delta(delta: &Json<'_>, index: u64, draft: &mut Draft) {
    match delta["type"].as_str().unwrap_or_default() {
        "text_delta" => draft.transcript.text += delta["text"].as_str().unwrap_or_default(),
        "input_json_delta" => {
            if let Some(call) = draft.call_at(Some(index)) {
                call.arguments += delta["partial_json"].as_str().unwrap_or_default();
            }
        }
        _ => {}
    }
}

/// A call that ends without arguments has none: `{}`.
fn end_block(index: u64, draft: &mut Draft) {
    if let Some(call) = draft.call_at(Some(index))
        && call.arguments.is_empty()
    {
        call.arguments.push_str("{}");
    }
}

/// Takes what is told of the tokens. Counters come in pieces and again: the last one holds.
fn take_usage(value: &Json<'_>, draft: &mut Draft) {
    if !value.is_object() {
        return;
    }
    let usage: &mut Usage = draft.usage.get_or_insert_default();
    for (name, counter) in [
        ("input_tokens", &mut usage.input),
        ("cache_read_input_tokens", &mut usage.cache_read),
        ("cache_creation_input_tokens", &mut usage.cache_write),
        ("output_tokens", &mut usage.output),
    ] {
        *counter = value[name].as_u64().unwrap_or(*counter);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_whole_message_gives_its_texts_and_calls() {
        let mut draft = Draft::default();
        let content = json!([
            {"type": "thinking", "thinking": "hm"},
            {"type": "text", "text": "I "},
            {"type": "server_tool_use", "name": "web_search", "input": {}},
            {"type": "text", "text": "look"},
            {"type": "tool_use", "id": "t", "name": "f", "input": {"b": 1, "a": 2}},
            {"type": "tool_use", "id": "u", "name": "g", "input": {}},
        ]);
        let usage = json!({"input_tokens": 3, "cache_read_input_tokens": 5,
            "cache_creation_input_tokens": null, "output_tokens": 7});
        let value = json!({"type": "message", "model": "m", "content": content,
            "stop_reason": "tool_use", "usage": usage});
        whole(&Json::from(&value), &mut draft);
        assert_eq!(draft.transcript.text, "I look");
        let arguments: Vec<_> =
            draft.transcript.tool_calls.iter().map(|it| it.arguments.as_str()).collect();
        assert_eq!(arguments, [r#"{"b":1,"a":2}"#, "{}"]);
        let usage = Usage { input: 3, cache_read: 5, cache_write: 0, output: 7 };
        assert_eq!(draft.usage, Some(usage));
    }

    #[test]
    fn a_stream_adds_up_and_its_counters_do_not() {
        let mut draft = Draft::default();
        for value in [
            json!({"type": "message_start", "message": {"model": "m", "content": [],
                "usage": {"input_tokens": 9, "output_tokens": 1}}}),
            json!({"type": "ping"}),
            json!({"type": "content_block_start", "index": 0,
                "content_block": {"type": "text", "text": ""}}),
            json!({"type": "content_block_delta", "index": 0,
                "delta": {"type": "text_delta", "text": "Hi"}}),
            json!({"type": "content_block_stop", "index": 0}),
            json!({"type": "content_block_start", "index": 1,
                "content_block": {"type": "tool_use", "id": "t", "name": "f", "input": {}}}),
            json!({"type": "content_block_delta", "index": 1,
                "delta": {"type": "input_json_delta", "partial_json": "{\"a\""}}),
            json!({"type": "content_block_delta", "index": 1,
                "delta": {"type": "input_json_delta", "partial_json": ":1}"}}),
            json!({"type": "content_block_stop", "index": 1}),
            json!({"type": "content_block_start", "index": 2,
                "content_block": {"type": "tool_use", "id": "u", "name": "g", "input": {}}}),
            json!({"type": "content_block_delta", "index": 2,
                "delta": {"type": "input_json_delta", "partial_json": ""}}),
            json!({"type": "content_block_stop", "index": 2}),
            json!({"type": "an_event_of_next_year"}),
            json!({"type": "message_delta", "delta": {"stop_reason": "refusal"},
                "usage": {"input_tokens": 9, "output_tokens": 30}}),
        ] {
            event(&Json::from(&value), &mut draft);
        }
        assert_eq!(draft.transcript.text, "Hi");
        let calls = &draft.transcript.tool_calls;
        assert_eq!((calls[0].arguments.as_str(), calls[1].arguments.as_str()), ("{\"a\":1}", "{}"));
        assert_eq!(draft.finish.as_deref(), Some("refusal"));
        assert!(draft.done && draft.seen);
        assert_eq!(draft.usage, Some(Usage { input: 9, output: 30, ..Usage::default() }));
    }
}
