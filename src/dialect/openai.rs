//! The chat, completions and embeddings dialect, as `OpenAI` began it and many speak it.

use super::{
    draft::{Draft, count, text, written},
    json::Json,
};
use crate::domain::{ToolCall, Usage};

/// Takes a whole chat or completions answer.
pub(super) fn whole(value: &Json<'_>, draft: &mut Draft) {
    take(value, "message", draft);
}

/// Takes one chunk of a streamed answer.
pub(super) fn chunk(value: &Json<'_>, draft: &mut Draft) {
    // Perplexity sends all of the message so far beside each delta: only the delta counts.
    take(value, "delta", draft);
}

/// Takes a whole embeddings answer, of which nothing is compared.
pub(super) fn embeddings(value: &Json<'_>, draft: &mut Draft) {
    draft.set_fault(&value["error"]);
    draft.seen = !value["data"].items().is_empty();
    draft.set_model(&value["model"]);
    draft.usage = usage(&value["usage"]);
}

fn take(value: &Json<'_>, message: &str, draft: &mut Draft) {
    draft.set_fault(&value["error"]);
    draft.set_model(&value["model"]);
    // Usage may come in any chunk; the last one is the total.
    let groq = || usage(&value["x_groq"]["usage"]);
    draft.usage = usage(&value["usage"]).or_else(groq).or(draft.usage);
    for choice in value["choices"].items().iter().filter(|it| count(&it["index"]) == 0) {
        draft.seen = true;
        draft.set_fault(&choice["error"]);
        draft.set_finish(&choice["finish_reason"]);
        draft.done |= text(&choice["finish_reason"]).is_some();
        take_message(&choice[message], draft);
        // Completions have their text where chat has a message.
        draft.transcript.text += choice["text"].as_str().unwrap_or_default();
    }
}

fn take_message(message: &Json<'_>, draft: &mut Draft) {
    draft.add_refusal(&message["refusal"]);
    match &message["content"] {
        Json::Text(text) => draft.transcript.text += text,
        // Mistral's reasoning models send parts; what they think aloud is not the answer.
        Json::List(parts) => {
            for part in parts.iter().filter(|it| it["type"].as_str() == Some("text")) {
                draft.transcript.text += part["text"].as_str().unwrap_or_default();
            }
        }
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::Object(_) => {}
    }
    for call in message["tool_calls"].items() {
        if draft.is_cut {
            break;
        }
        take_call(call, draft);
    }
    take_legacy_call(&message["function_call"], draft);
}

/// Takes a tool call or a fragment of one: by its id, else by its index, else the last one.
fn take_call(call: &Json<'_>, draft: &mut Draft) {
    let function = if text(&call["function"]["name"]).is_some() || !call["custom"].is_object() {
        &call["function"]
    } else {
        &call["custom"]
    };
    let name = text(&function["name"]);
    let more = written(&function["arguments"]) + &written(&function["input"]);
    let index = call["index"].as_u64();
    let known = match text(&call["id"]) {
        // Some providers number every call 0: a new id is a new call.
        Some(id) => draft.transcript.tool_calls.iter_mut().find(|it| it.id == id),
        None if index.is_some() => draft.call_at(index),
        None if name.is_some() => None,
        None => draft.transcript.tool_calls.last_mut(),
    };
    if let Some(known) = known {
        if known.name.is_empty() {
            known.name = name.unwrap_or_default();
        }
        known.arguments += &more;
    } else {
        let id = text(&call["id"]).unwrap_or_default();
        let name = name.unwrap_or_default();
        draft.add_call(index, ToolCall { id, name, arguments: more });
    }
}

/// Takes the one call of the days before `tool_calls`, whole or in fragments.
fn take_legacy_call(call: &Json<'_>, draft: &mut Draft) {
    let more = written(&call["arguments"]);
    match text(&call["name"]) {
        Some(name) => draft.add_call(None, ToolCall { id: String::new(), name, arguments: more }),
        None => {
            if let Some(known) = draft.call_at(None) {
                known.arguments += &more;
            }
        }
    }
}

/// Tokens as this dialect counts them: input with what was cached, output with reasoning.
fn usage(value: &Json<'_>) -> Option<Usage> {
    let input = value["prompt_tokens"].as_u64()?;
    let details = &value["prompt_tokens_details"];
    // OpenAI's name, then Moonshot's, DeepSeek's and Mistral's.
    let cache_read = [
        &details["cached_tokens"],
        &value["cached_tokens"],
        &value["prompt_cache_hit_tokens"],
        &value["num_cached_tokens"],
    ]
    .into_iter()
    .find_map(Json::as_u64)
    .unwrap_or(0);
    let cache_write = count(&details["cache_write_tokens"]);
    // Gemini's OpenAI endpoint counts its thoughts in the total alone.
    let beyond_input = count(&value["total_tokens"]).saturating_sub(input);
    Some(Usage {
        input: input.saturating_sub(cache_read).saturating_sub(cache_write),
        cache_read,
        cache_write,
        output: count(&value["completion_tokens"]).max(beyond_input),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{super::draft::TOOL_CALLS_MAX, *};

    fn streamed(chunks: &[Value]) -> Draft {
        let mut draft = Draft::default();
        for value in chunks {
            chunk(&Json::from(value), &mut draft);
        }
        draft
    }

    fn calls(deltas: &[Value]) -> Vec<(String, String, String)> {
        let chunk = |it: &Value| json!({"choices": [{"delta": {"tool_calls": it}}]});
        let draft = streamed(&deltas.iter().map(chunk).collect::<Vec<_>>());
        let calls = draft.transcript.tool_calls.into_iter();
        calls.map(|it| (it.id, it.name, it.arguments)).collect()
    }

    fn call(id: &str, name: &str, arguments: &str) -> (String, String, String) {
        (id.to_owned(), name.to_owned(), arguments.to_owned())
    }

    #[test]
    fn a_stream_adds_up_to_its_text_finish_and_last_usage() {
        let draft = streamed(&[
            json!({"model": "m", "choices": [{"index": 0, "delta": {"content": "He"}}]}),
            json!({"choices": [{"index": 1, "delta": {"content": "other choice"}}]}),
            json!({"choices": [{"delta": {"content": "y"}, "message": {"content": "Hey"}}]}),
            json!({"choices": [{"delta": {}, "finish_reason": "stop"}], "usage": {
                "prompt_tokens": 1, "completion_tokens": 1}}),
            json!({"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 3,
                "prompt_tokens_details": {"cached_tokens": 4}}}),
            json!({"choices": [], "usage": null}),
        ]);
        assert_eq!(draft.transcript.text, "Hey");
        assert_eq!(draft.finish.as_deref(), Some("stop"));
        assert!(draft.seen && draft.done);
        let usage = Usage { input: 5, cache_read: 4, cache_write: 0, output: 3 };
        assert_eq!(draft.usage, Some(usage));
    }

    #[test]
    fn fragments_go_to_the_call_of_their_index() {
        let got = calls(&[
            json!([{"index": 0, "id": "a", "function": {"name": "f", "arguments": ""}}]),
            json!([{"index": 1, "id": "b", "function": {"name": "g", "arguments": null}}]),
            json!([{"index": 0, "function": {"arguments": "{\"x\":"}}]),
            json!([{"index": 1, "function": {"arguments": "{}"}},
                   {"index": 0, "function": {"arguments": "1}"}}]),
        ]);
        assert_eq!(got, [call("a", "f", "{\"x\":1}"), call("b", "g", "{}")]);
    }

    #[test]
    fn a_new_id_is_a_new_call_and_an_old_one_is_not() {
        let got = calls(&[
            json!([{"index": 0, "id": "a", "function": {"name": "f", "arguments": "{}"}}]),
            json!([{"index": 0, "id": "b", "function": {"name": "g", "arguments": "{"}}]),
            json!([{"index": 0, "id": "b", "function": {"name": "g", "arguments": "}"}}]),
        ]);
        assert_eq!(got, [call("a", "f", "{}"), call("b", "g", "{}")]);
    }

    #[test]
    fn calls_without_index_or_id_are_whole_calls() {
        let got = calls(&[
            json!([{"function": {"name": "f", "arguments": {"x": 1}}}]),
            json!([{"function": {"name": "f", "arguments": "{"}}]),
            json!([{"function": {"arguments": "}"}}]),
        ]);
        assert_eq!(got, [call("", "f", "{\"x\":1}"), call("", "f", "{}")]);
    }

    #[test]
    fn whole_answers_may_hold_parts_custom_tools_or_a_legacy_call() {
        let mut draft = Draft::default();
        let message = json!({
            "content": [{"type": "thinking", "thinking": []}, {"type": "text", "text": "Yes"}],
            "refusal": "",
            "function_call": {"name": "old", "arguments": "{}"},
            "tool_calls": [
                {"id": "c", "custom": {"name": "sql", "input": "select 1"}},
                {"id": "d", "custom": {"name": ""}, "function": {"name": "f", "arguments": "{}"}},
            ],
        });
        let answer = json!({"choices": [{"message": message, "finish_reason": ""}]});
        whole(&Json::from(&answer), &mut draft);
        assert_eq!((draft.transcript.text.as_str(), draft.transcript.refusal), ("Yes", None));
        assert_eq!(draft.finish, None);
        let names: Vec<_> = draft.transcript.tool_calls.iter().map(|it| it.name.as_str()).collect();
        assert_eq!(names, ["sql", "f", "old"]);
    }

    #[test]
    fn an_error_counts_even_after_a_plain_finish() {
        let draft = streamed(&[
            json!({"choices": [{"delta": {}, "finish_reason": "length"}]}),
            json!({"choices": [{"delta": {}}], "error": {"code": 400, "message": "Limit"}}),
        ]);
        assert_eq!(draft.fault.unwrap().text, "400: Limit");
        let error = json!({"code": 502, "message": "Provider failed"});
        let draft = streamed(&[json!({"choices": [{"delta": {}, "error": error}]})]);
        assert_eq!(draft.fault.unwrap().text, "502: Provider failed");
    }

    #[test]
    fn completions_and_embeddings_have_their_own_shape() {
        let mut draft = Draft::default();
        let answer = json!({"choices": [{"text": "Hi", "finish_reason": "length"}]});
        whole(&Json::from(&answer), &mut draft);
        assert_eq!(draft.transcript.text, "Hi");
        let mut draft = Draft::default();
        let answer = json!({"data": [{"embedding": [0.1]}], "usage": {"prompt_tokens": 2}});
        embeddings(&Json::from(&answer), &mut draft);
        assert!(draft.seen);
        assert_eq!(draft.usage, Some(Usage { input: 2, ..Usage::default() }));
    }

    #[test]
    fn calls_without_end_are_read_in_a_time_that_grows_with_their_bytes_alone() {
        let call = |it: usize| json!({"id": format!("{it:06}"), "function": {"name": "f"}});
        let calls: Vec<Value> = (0..200_000).map(call).collect();
        let mut draft = Draft::default();
        let answer = json!({"choices": [{"message": {"tool_calls": calls}}]});
        whole(&Json::from(&answer), &mut draft);
        assert!(draft.is_cut && draft.transcript.tool_calls.len() == TOOL_CALLS_MAX);
        let delta = json!({"choices": [{"delta": {"tool_calls": [{"index": 0, "id": ""}]}}]});
        let delta = Json::from(&delta);
        (0..100_000).for_each(|_| chunk(&delta, &mut draft));
        assert_eq!(draft.transcript.tool_calls.len(), TOOL_CALLS_MAX);
    }

    #[test]
    fn usage_is_told_under_many_names() {
        let cached = |more: Value| {
            let mut value = json!({"prompt_tokens": 10, "completion_tokens": 2});
            value.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            usage(&Json::from(&value)).unwrap()
        };
        let expected = Usage { input: 7, cache_read: 3, cache_write: 0, output: 2 };
        assert_eq!(cached(json!({"prompt_tokens_details": {"cached_tokens": 3}})), expected);
        assert_eq!(cached(json!({"prompt_tokens_details": null, "cached_tokens": 3})), expected);
        assert_eq!(cached(json!({"prompt_cache_hit_tokens": 3})), expected);
        assert_eq!(cached(json!({"num_cached_tokens": 3})), expected);
        assert_eq!(cached(json!({"total_tokens": 40})).output, 30);
        let draft = streamed(&[json!({"x_groq": {"usage": {"prompt_tokens": 1}}})]);
        assert_eq!(draft.usage, Some(Usage { input: 1, ..Usage::default() }));
    }
}
