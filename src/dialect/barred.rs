//! Which requests may not be copied, by what their body asks for.

use serde_json::{Value, value::RawValue};

use super::fields::Fields;
use crate::domain::{Endpoint, Skip};

/// Anthropic tools the caller runs itself, by the start of their versioned type.
const ANTHROPIC_CALLER_TOOLS: [&str; 4] = ["bash_", "text_editor_", "computer_", "memory_"];

/// Why a request may not be copied, if so. Tools are barred unless known to be run by the caller.
pub(super) fn barred(endpoint: Endpoint, fields: &Fields<'_>) -> Option<Skip> {
    match endpoint {
        Endpoint::Chat => chat(fields),
        Endpoint::Completions => completions(fields),
        Endpoint::Embeddings => None,
        Endpoint::Responses => responses(fields),
        Endpoint::Messages => messages(fields),
        Endpoint::Gemini => gemini(fields),
    }
}

fn chat(fields: &Fields<'_>) -> Option<Skip> {
    if fields.is_true("store") || refers(fields.get("messages"), &["file_id"]) {
        return Some(Skip::Stateful);
    }
    // `plugins` is OpenRouter's, `search_parameters` xAI's.
    let searches =
        ["web_search_options", "search_parameters", "plugins"].iter().any(|it| fields.has(it));
    if searches || any_tool(fields, |tool| !matches!(kind(tool), "" | "function" | "custom")) {
        return Some(Skip::HostedTool);
    }
    if above_one(fields, "n") {
        return Some(Skip::Multiple);
    }
    not_text(fields, "modalities").then_some(Skip::Modality)
}

fn completions(fields: &Fields<'_>) -> Option<Skip> {
    let prompts: Vec<&RawValue> = fields.read("prompt").unwrap_or_default();
    let starts_prompt = |it: &&RawValue| it.get().starts_with(['"', '[']);
    let several = prompts.len() > 1 && prompts.first().is_some_and(starts_prompt);
    let multiple = several || above_one(fields, "n") || above_one(fields, "best_of");
    multiple.then_some(Skip::Multiple)
}

fn responses(fields: &Fields<'_>) -> Option<Skip> {
    let stored = ["previous_response_id", "conversation", "prompt"].iter().any(|it| fields.has(it));
    let refers = refers(fields.get("input"), &["file_id", "item_reference"]);
    if stored || fields.is_true("background") || refers {
        return Some(Skip::Stateful);
    }
    let hosted = |tool: &Fields<'_>| match kind(tool) {
        "function" | "custom" | "namespace" => false,
        "tool_search" => tool.get("execution") != Some(r#""client""#),
        _ => true,
    };
    if any_tool(fields, hosted) {
        return Some(Skip::HostedTool);
    }
    not_text(fields, "modalities").then_some(Skip::Modality)
}

fn messages(fields: &Fields<'_>) -> Option<Skip> {
    if fields.has("container") || refers(fields.get("messages"), &["file_id"]) {
        return Some(Skip::Stateful);
    }
    let hosted = |tool: &Fields<'_>| {
        let kind = kind(tool);
        let ours = ANTHROPIC_CALLER_TOOLS.iter().any(|it| kind.starts_with(it));
        !(kind.is_empty() || kind == "custom" || ours)
    };
    let servers = fields.get("mcp_servers").is_some_and(|it| !is_empty_list(it));
    (servers || any_tool(fields, hosted)).then_some(Skip::HostedTool)
}

fn gemini(fields: &Fields<'_>) -> Option<Skip> {
    let cached = fields.has("cachedContent") || fields.has("cached_content");
    if cached || refers(fields.get("contents"), &["fileUri", "file_uri"]) {
        return Some(Skip::Stateful);
    }
    let declares = |name: &str| matches!(name, "functionDeclarations" | "function_declarations");
    if any_tool(fields, |tool| tool.names().any(|it| !declares(it) && tool.has(it))) {
        return Some(Skip::HostedTool);
    }
    let config: Fields<'_> =
        fields.read("generationConfig").or_else(|| fields.read("generation_config"))?;
    if above_one(&config, "candidateCount") || above_one(&config, "candidate_count") {
        return Some(Skip::Multiple);
    }
    let other = not_text(&config, "responseModalities") || not_text(&config, "response_modalities");
    other.then_some(Skip::Modality)
}

/// The `type` of a tool; empty when it has none. Escapes stay, so a disguised type is unknown.
fn kind<'a>(tool: &Fields<'a>) -> &'a str {
    tool.get("type").map_or("", |it| it.trim_matches('"'))
}

/// Whether any tool is of that sort. Tools that cannot be read are.
fn any_tool(fields: &Fields<'_>, sort: impl FnMut(&Fields<'_>) -> bool) -> bool {
    if !fields.has("tools") {
        return false;
    }
    fields.read::<Vec<Fields<'_>>>("tools").is_none_or(|tools| tools.iter().any(sort))
}

fn above_one(fields: &Fields<'_>, name: &str) -> bool {
    fields.read::<f64>(name).is_some_and(|it| it > 1.0)
}

fn not_text(fields: &Fields<'_>, name: &str) -> bool {
    let kinds: Vec<String> = fields.read(name).unwrap_or_default();
    kinds.iter().any(|it| !it.eq_ignore_ascii_case("text"))
}

fn is_empty_list(text: &str) -> bool {
    text.trim_start_matches('[').trim_start().starts_with(']')
}

/// Whether the messages refer to something kept at the provider by one of these names.
///
/// The text is searched first: trees are built of the few that hold such a word at all.
fn refers(messages: Option<&str>, names: &[&str]) -> bool {
    let Some(text) = messages.filter(|text| names.iter().any(|it| text.contains(it))) else {
        return false;
    };
    serde_json::from_str(text).map_or(true, |value: Value| holds(&value, names))
}

fn holds(value: &Value, names: &[&str]) -> bool {
    match value {
        Value::Array(items) => items.iter().any(|it| holds(it, names)),
        Value::Object(map) => map.iter().any(|(name, value)| {
            let referred = names.contains(&name.as_str()) && value.as_str().is_some_and(kept);
            let typed = name == "type" && value.as_str().is_some_and(|it| names.contains(&it));
            // What the model wrote for a tool is the caller's own data, whatever it is called.
            let own = matches!(name.as_str(), "input" | "args" | "response");
            referred || typed || (!own && holds(value, names))
        }),
        _ => false,
    }
}

/// Ids are kept at the provider; of addresses, those of its file store and of buckets.
fn kept(reference: &str) -> bool {
    let web = reference.starts_with("http://") || reference.starts_with("https://");
    !web || reference.contains("generativelanguage.googleapis.com")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn skip(endpoint: Endpoint, body: &str) -> Option<Skip> {
        barred(endpoint, &Fields::parse(body.as_bytes()).unwrap())
    }

    #[track_caller]
    fn check(endpoint: Endpoint, rows: &[(&str, Option<Skip>)]) {
        for (body, expected) in rows {
            assert_eq!(skip(endpoint, body), *expected, "{body}");
        }
    }

    /// M7
    #[test]
    fn chat_is_barred_by_state_hosted_tools_choices_and_audio() {
        check(
            Endpoint::Chat,
            &[
                (r#"{"store":true}"#, Some(Skip::Stateful)),
                (r#"{"store":false,"n":1,"modalities":["text"],"tools":[]}"#, None),
                (r#"{"messages":[{"content":[{"file":{"file_id":"f"}}]}]}"#, Some(Skip::Stateful)),
                (r#"{"messages":[{"content":"what is a file_id?"}]}"#, None),
                (r#"{"web_search_options":{}}"#, Some(Skip::HostedTool)),
                (r#"{"web_search_options":null}"#, None),
                (r#"{"tools":[{"type":"openrouter:web_search"}]}"#, Some(Skip::HostedTool)),
                (r#"{"tools":[{"type":"function"},{"function":{}},{"type":"custom"}]}"#, None),
                (r#"{"tools":{}}"#, Some(Skip::HostedTool)),
                (r#"{"n":2}"#, Some(Skip::Multiple)),
                (r#"{"modalities":["text","audio"]}"#, Some(Skip::Modality)),
            ],
        );
    }

    #[test]
    fn completions_are_barred_by_several_prompts_or_choices() {
        check(
            Endpoint::Completions,
            &[
                (r#"{"prompt":["a"]}"#, None),
                (r#"{"prompt":[1,2,3]}"#, None),
                (r#"{"prompt":["a","b"]}"#, Some(Skip::Multiple)),
                (r#"{"prompt":[[1],[2]]}"#, Some(Skip::Multiple)),
                (r#"{"best_of":3}"#, Some(Skip::Multiple)),
            ],
        );
        check(Endpoint::Embeddings, &[(r#"{"input":["a","b"]}"#, None)]);
    }

    #[test]
    fn responses_are_barred_by_what_is_kept_and_by_hosted_tools() {
        check(
            Endpoint::Responses,
            &[
                (r#"{"store":true,"input":"x"}"#, None),
                (r#"{"previous_response_id":null}"#, None),
                (r#"{"previous_response_id":"r"}"#, Some(Skip::Stateful)),
                (r#"{"conversation":{"id":"c"}}"#, Some(Skip::Stateful)),
                (r#"{"background":true}"#, Some(Skip::Stateful)),
                (r#"{"prompt":{"id":"p"}}"#, Some(Skip::Stateful)),
                (r#"{"input":[{"type":"item_reference","id":"i"}]}"#, Some(Skip::Stateful)),
                (r#"{"tools":[{"type":"mcp"}]}"#, Some(Skip::HostedTool)),
                (r#"{"tools":[{"type":"tool_search"}]}"#, Some(Skip::HostedTool)),
                (r#"{"tools":[{"type":"tool_search","execution":"client"}]}"#, None),
                (r#"{"tools":[{"type":"function","name":"web_search"}]}"#, None),
            ],
        );
    }

    #[test]
    fn messages_are_barred_by_containers_files_servers_and_server_tools() {
        let tool_input =
            r#"{"messages":[{"content":[{"type":"tool_use","input":{"file_id":"mine"}}]}]}"#;
        check(
            Endpoint::Messages,
            &[
                (r#"{"container":"c"}"#, Some(Skip::Stateful)),
                (
                    r#"{"messages":[{"content":[{"source":{"type":"file","file_id":"f"}}]}]}"#,
                    Some(Skip::Stateful),
                ),
                (tool_input, None),
                (r#"{"mcp_servers":[ ]}"#, None),
                (r#"{"mcp_servers":[{"url":"x"}]}"#, Some(Skip::HostedTool)),
                (r#"{"tools":[{"name":"x"},{"type":"custom"},{"type":"bash_20250124"}]}"#, None),
                (r#"{"tools":[{"type":"web_search_20250305"}]}"#, Some(Skip::HostedTool)),
            ],
        );
    }

    #[test]
    fn gemini_is_barred_by_caches_files_hosted_tools_and_candidates() {
        let files = "https://generativelanguage.googleapis.com/v1beta/files/a";
        let file = |uri: &str| format!(r#"{{"contents":[{{"fileData":{{"fileUri":"{uri}"}}}}]}}"#);
        assert_eq!(skip(Endpoint::Gemini, &file(files)), Some(Skip::Stateful));
        assert_eq!(skip(Endpoint::Gemini, &file("gs://bucket/a")), Some(Skip::Stateful));
        assert_eq!(skip(Endpoint::Gemini, &file("https://example.com/a.png")), None);
        check(
            Endpoint::Gemini,
            &[
                (r#"{"cachedContent":"cachedContents/x"}"#, Some(Skip::Stateful)),
                (r#"{"tools":[{"googleSearch":{}}]}"#, Some(Skip::HostedTool)),
                (r#"{"tools":[{"functionDeclarations":[]},{"codeExecution":null}]}"#, None),
                (r#"{"generationConfig":{"candidateCount":2}}"#, Some(Skip::Multiple)),
                (r#"{"generationConfig":{"responseModalities":["AUDIO"]}}"#, Some(Skip::Modality)),
                (r#"{"generationConfig":{"responseModalities":["TEXT"]}}"#, None),
            ],
        );
    }
}
