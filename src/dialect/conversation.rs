//! A request as a person or a judge reads it.

use super::{draft::written, fields::Fields, json::Json};
use crate::domain::{Endpoint, hash};

/// The roles and texts of a request, then its tools by name, in at most `len_max` bytes.
///
/// Of a longer one the middle is left out: it begins with the instructions and ends with the
/// question. A body that cannot be read gives an empty text.
pub fn conversation(endpoint: Endpoint, body: &[u8], len_max: usize) -> String {
    let Ok(body) = Json::read(body) else {
        return String::new();
    };
    let mut turns = turns(endpoint, &body);
    turns.push(tools(&body));
    turns.retain(|it| !it.is_empty());
    shorten(turns.join("\n\n"), len_max)
}

/// What a request asks last: the text of the last turn of its user, in at most `len_max` bytes;
/// empty where there is none.
pub(super) fn question(endpoint: Endpoint, body: &[u8], len_max: usize) -> String {
    let Ok(body) = Json::read(body) else {
        return String::new();
    };
    let turns = turns(endpoint, &body);
    let asked = turns.iter().rev().find_map(|it| it.strip_prefix("user: "));
    shorten(asked.unwrap_or_default().to_owned(), len_max)
}

/// What the turns of a request come to, as they are written.
pub(super) fn asked(endpoint: Endpoint, body: &[u8]) -> u64 {
    let places: &[&str] = match endpoint {
        Endpoint::Chat => &["messages"],
        Endpoint::Completions => &["prompt", "suffix"],
        Endpoint::Embeddings => &["input"],
        Endpoint::Responses => {
            &["instructions", "input", "previous_response_id", "conversation", "prompt"]
        }
        Endpoint::Messages => &["system", "messages"],
        Endpoint::Gemini => &["systemInstruction", "system_instruction", "contents"],
    };
    let fields = Fields::parse(body);
    places.iter().fold(0, |sum: u64, place| {
        let said = fields.as_ref().and_then(|it| it.get(place));
        said.map_or(sum, |it| sum.rotate_left(1) ^ hash(place, it))
    })
}

fn turns(endpoint: Endpoint, body: &Json<'_>) -> Vec<String> {
    match endpoint {
        Endpoint::Chat => listed(&body["messages"], "user"),
        Endpoint::Completions => vec![turn("user", &body["prompt"])],
        Endpoint::Embeddings => vec![turn("user", &body["input"])],
        Endpoint::Responses => {
            let mut turns = vec![turn("system", &body["instructions"])];
            match &body["input"] {
                Json::List(items) => turns.extend(items.iter().map(|it| role(it, "user"))),
                input => turns.push(turn("user", input)),
            }
            turns
        }
        Endpoint::Messages => {
            let mut turns = vec![turn("system", &body["system"])];
            turns.extend(listed(&body["messages"], "user"));
            turns
        }
        Endpoint::Gemini => {
            let system = either(body, "systemInstruction", "system_instruction");
            let mut turns = vec![turn("system", &system["parts"])];
            turns.extend(listed(&body["contents"], "user"));
            turns
        }
    }
}

fn listed(messages: &Json<'_>, unnamed: &str) -> Vec<String> {
    messages.items().iter().map(|it| role(it, unnamed)).collect()
}

/// One message under its role.
fn role(message: &Json<'_>, unnamed: &str) -> String {
    let role = match message["type"].as_str() {
        Some("function_call" | "custom_tool_call" | "reasoning") => "assistant",
        Some("function_call_output" | "custom_tool_call_output") => "tool",
        _ => unnamed,
    };
    turn(message["role"].as_str().unwrap_or(role), message)
}

fn turn(role: &str, value: &Json<'_>) -> String {
    let mut lines = Vec::new();
    say(value, &mut lines);
    lines.retain(|it| !it.is_empty());
    if lines.is_empty() { String::new() } else { format!("{role}: {}", lines.join("\n")) }
}

/// The lines a message or a part of one comes to, in any dialect.
fn say(value: &Json<'_>, lines: &mut Vec<String>) {
    match value {
        Json::Text(text) => lines.push(text.clone().into_owned()),
        Json::List(parts) => parts.iter().for_each(|it| say(it, lines)),
        Json::Object(_) => say_part(value, lines),
        // Token ids, mostly: nothing a person reads.
        Json::Null | Json::Bool(_) | Json::Number(_) => {}
    }
}

fn say_part(part: &Json<'_>, lines: &mut Vec<String>) {
    let kind = part["type"].as_str().unwrap_or_default();
    if part["thought"] == Json::Bool(true)
        || matches!(kind, "thinking" | "redacted_thinking" | "reasoning")
    {
        return;
    }
    let before = lines.len();
    for name in ["text", "content", "parts", "refusal"] {
        say(&part[name], lines);
    }
    for call in part["tool_calls"].items() {
        let function = either(call, "function", "custom");
        lines.push(calls(function, either(function, "arguments", "input")));
    }
    let gemini = either(part, "functionCall", "function_call");
    if gemini.is_object() {
        lines.push(calls(gemini, either(gemini, "args", "arguments")));
    }
    let result = either(part, "functionResponse", "function_response");
    if result.is_object() {
        lines.push(format!("[result of {}: {}]", written(&result["name"]), result["response"]));
    }
    match kind {
        "function_call" | "custom_tool_call" | "tool_use" => {
            lines.push(calls(part, either(part, "arguments", "input")));
        }
        "function_call_output" | "custom_tool_call_output" => say(&part["output"], lines),
        // An image, a document, a sound: named, not shown.
        kind if !kind.is_empty() && lines.len() == before && part["text"].as_str().is_none() => {
            lines.push(format!("[{kind}]"));
        }
        _ => {}
    }
    let inline = ["inlineData", "inline_data", "fileData", "file_data"];
    if inline.iter().any(|it| part[it].is_object()) {
        lines.push("[file]".to_owned());
    }
}

fn calls(function: &Json<'_>, arguments: &Json<'_>) -> String {
    format!("[calls {}({})]", written(&function["name"]), written(arguments))
}

fn either<'a, 'b>(value: &'a Json<'b>, name: &str, other: &str) -> &'a Json<'b> {
    if value[name].is_null() { &value[other] } else { &value[name] }
}

/// The names of the tools the model may call.
fn tools(body: &Json<'_>) -> String {
    let mut names = Vec::new();
    for tool in ["tools", "functions"].into_iter().flat_map(|it| body[it].items()) {
        let declared = either(tool, "functionDeclarations", "function_declarations");
        for named in [tool, &tool["function"], &tool["custom"]].into_iter().chain(declared.items())
        {
            names.extend(named["name"].as_str());
        }
    }
    if names.is_empty() { String::new() } else { format!("tools: {}", names.join(", ")) }
}

const LEFT_OUT: &str = "\n[…]\n";

/// The first third and the last two thirds of a text that is too long.
fn shorten(text: String, len_max: usize) -> String {
    if text.len() <= len_max {
        return text;
    }
    let Some(room) = len_max.checked_sub(LEFT_OUT.len()) else {
        return text[..text.floor_char_boundary(len_max)].to_owned();
    };
    let head = text.floor_char_boundary(room / 3);
    let tail = text.ceil_char_boundary(text.len() - (room - room / 3));
    [&text[..head], LEFT_OUT, &text[tail..]].concat()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read(endpoint: Endpoint, body: &Value) -> String {
        conversation(endpoint, body.to_string().as_bytes(), 10_000)
    }

    #[test]
    fn chat_reads_as_roles_texts_calls_and_tools() {
        let body = json!({
            "messages": [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": [
                    {"type": "text", "text": "What is this?"},
                    {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
                ]},
                {"role": "assistant", "content": null, "tool_calls": [
                    {"id": "a", "function": {"name": "look", "arguments": "{\"x\":1}"}}]},
                {"role": "tool", "tool_call_id": "a", "content": "a cat"},
            ],
            "tools": [{"type": "function", "function": {"name": "look"}}],
        });
        assert_eq!(
            read(Endpoint::Chat, &body),
            "system: Be brief.\n\nuser: What is this?\n[image_url]\n\n\
             assistant: [calls look({\"x\":1})]\n\ntool: a cat\n\ntools: look"
        );
    }

    #[test]
    fn messages_read_the_same() {
        let body = json!({
            "system": [{"type": "text", "text": "Be brief."}],
            "messages": [
                {"role": "user", "content": "Hi"},
                {"role": "assistant", "content": [
                    {"type": "thinking", "thinking": "hm"},
                    {"type": "tool_use", "name": "f", "input": {"x": 1}}]},
                {"role": "user", "content": [{"type": "tool_result", "content": "done"}]},
            ],
            "tools": [{"name": "f"}],
        });
        assert_eq!(
            read(Endpoint::Messages, &body),
            "system: Be brief.\n\nuser: Hi\n\nassistant: [calls f({\"x\":1})]\n\n\
             user: done\n\ntools: f"
        );
    }

    #[test]
    fn responses_read_the_same() {
        let body = json!({
            "instructions": "Be brief.",
            "input": [
                {"role": "user", "content": [{"type": "input_text", "text": "Hi"}]},
                {"type": "reasoning", "summary": []},
                {"type": "function_call", "name": "f", "arguments": "{}"},
                {"type": "function_call_output", "output": "done"},
            ],
        });
        assert_eq!(
            read(Endpoint::Responses, &body),
            "system: Be brief.\n\nuser: Hi\n\nassistant: [calls f({})]\n\ntool: done"
        );
        assert_eq!(read(Endpoint::Responses, &json!({"input": "Hi"})), "user: Hi");
    }

    #[test]
    fn gemini_reads_the_same() {
        let body = json!({
            "systemInstruction": {"parts": [{"text": "Be brief."}]},
            "contents": [
                {"role": "user", "parts": [{"text": "Hi"}, {"inlineData": {"data": "AA"}}]},
                {"role": "model", "parts": [{"functionCall": {"name": "f", "args": {"x": 1}}}]},
                {"parts": [{"functionResponse": {"name": "f", "response": {"y": 2}}}]},
            ],
            "tools": [{"functionDeclarations": [{"name": "f"}, {"name": "g"}]}],
        });
        assert_eq!(
            read(Endpoint::Gemini, &body),
            "system: Be brief.\n\nuser: Hi\n[file]\n\nmodel: [calls f({\"x\":1})]\n\n\
             user: [result of f: {\"y\":2}]\n\ntools: f, g"
        );
    }

    #[test]
    fn prompts_and_inputs_are_the_users() {
        assert_eq!(read(Endpoint::Completions, &json!({"prompt": "Once"})), "user: Once");
        assert_eq!(read(Endpoint::Embeddings, &json!({"input": ["a", "b"]})), "user: a\nb");
        assert_eq!(conversation(Endpoint::Chat, b"{", 10), "");
    }

    #[test]
    fn the_same_is_asked_where_every_turn_is_the_same() {
        let body = |system: &str, image: &str, seed: u32| {
            json!({"messages": [
                {"role": "system", "content": system},
                {"role": "user", "content": [{"type": "text", "text": "Summarise the document."},
                    {"type": "image_url", "image_url": {"url": image}}]},
            ], "seed": seed})
        };
        let asked = |body: Value| asked(Endpoint::Chat, body.to_string().as_bytes());
        let first = asked(body("a", "data:1", 1));
        assert_eq!(first, asked(body("a", "data:1", 2)), "how it is answered is not what is asked");
        assert_ne!(first, asked(body("b", "data:1", 1)));
        assert_ne!(first, asked(body("a", "data:2", 1)));
        assert_ne!(first, asked(json!({"messages": []})));
        let messages = |system: &str, text: &str| {
            let body = json!({"system": system, "messages": [{"role": "user", "content": text}]});
            super::asked(Endpoint::Messages, body.to_string().as_bytes())
        };
        assert_ne!(messages("a", "c"), messages("b", "c"));
        assert_ne!(messages("a", "c"), messages("a", "d"));
        assert_eq!(super::asked(Endpoint::Chat, b"{"), 0);
    }

    #[test]
    fn the_question_is_what_the_user_said_last() {
        let body = json!({"messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": "Hello"},
            {"role": "user", "content": "How late is it?"},
            {"role": "tool", "content": "12:00"},
        ]});
        let asked =
            |body: &Value, len_max| question(Endpoint::Chat, body.to_string().as_bytes(), len_max);
        assert_eq!(asked(&body, 100), "How late is it?");
        assert_eq!(asked(&body, 3), "How");
        assert_eq!(asked(&json!({"messages": []}), 100), "");
        assert_eq!(question(Endpoint::Chat, b"{", 10), "");
    }

    #[test]
    fn the_middle_of_a_long_one_is_left_out() {
        let body = json!({"prompt": format!("first {} last", "ä".repeat(1_000))});
        for len_max in 0..200 {
            let text = conversation(Endpoint::Completions, body.to_string().as_bytes(), len_max);
            assert!(text.len() <= len_max, "{len_max}");
        }
        let text = conversation(Endpoint::Completions, body.to_string().as_bytes(), 100);
        assert!(text.starts_with("user: first ") && text.ends_with(" last"));
        assert!(text.contains("[…]"));
    }
}
