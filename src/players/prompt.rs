//! What a chat completion request asks, as far as a player needs to know.

use serde::Deserialize;
use serde_json::Value;

/// A chat completion request.
#[derive(Debug, Deserialize)]
pub(super) struct Asked {
    #[serde(default)]
    pub(super) model: String,
    pub(super) messages: Vec<Value>,
    #[serde(default)]
    tools: Option<Vec<Value>>,
    #[serde(default)]
    stream: Option<bool>,
    #[serde(default)]
    stream_options: Option<StreamOptions>,
}

#[derive(Debug, Default, Deserialize)]
struct StreamOptions {
    #[serde(default)]
    include_usage: Option<bool>,
}

impl Asked {
    /// Whether the answer is to come in pieces.
    pub(super) fn stream(&self) -> bool {
        self.stream == Some(true)
    }

    /// Whether a stream is to end with the tokens it took.
    pub(super) fn include_usage(&self) -> bool {
        self.stream_options.as_ref().is_some_and(|it| it.include_usage == Some(true))
    }

    /// What the request is known by; none without a user text.
    pub(super) fn key(&self) -> Option<String> {
        key(&self.messages, self.tools.as_deref().unwrap_or_default())
    }
}

/// What a prompt is known by: its last user text, spacing aside, and the names of its tools.
pub(super) fn key(messages: &[Value], tools: &[Value]) -> Option<String> {
    let mut key = normalised(&last_user_text(messages)?);
    if key.is_empty() {
        return None;
    }
    let mut names: Vec<&str> =
        tools.iter().filter_map(|it| it["function"]["name"].as_str()).collect();
    names.sort_unstable();
    for name in names {
        key.push('\n');
        key.push_str(name);
    }
    Some(key)
}

/// The text of the last user message, its parts joined.
pub(super) fn last_user_text(messages: &[Value]) -> Option<String> {
    let message = messages.iter().rev().find(|it| it["role"] == "user")?;
    if let Some(text) = message["content"].as_str() {
        return Some(text.to_owned());
    }
    let parts = message["content"].as_array()?;
    Some(parts.iter().filter_map(|it| it["text"].as_str()).collect())
}

/// The text with every run of white space as one blank, none at the ends.
pub(super) fn normalised(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for word in text.split_whitespace() {
        if !plain.is_empty() {
            plain.push(' ');
        }
        plain.push_str(word);
    }
    plain
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn spacing_parts_and_the_order_of_tools_do_not_change_the_key() {
        let tool = |name| json!({"type": "function", "function": {"name": name}});
        let plain = [
            json!({"role": "user", "content": "earlier"}),
            json!({"role": "user", "content": " Where  is\nit? "}),
            json!({"role": "assistant", "content": "Hm."}),
        ];
        let parts =
            [json!({"role": "user", "content": [{"type": "text", "text": "Where is it?"}]})];
        let wanted = Some("Where is it?\na\nb".to_owned());
        assert_eq!(key(&plain, &[tool("b"), tool("a")]), wanted);
        assert_eq!(key(&parts, &[tool("a"), tool("b")]), wanted);
        assert_ne!(key(&parts, &[]), wanted);
    }

    #[test]
    fn a_prompt_without_user_text_has_no_key() {
        assert_eq!(key(&[json!({"role": "system", "content": "Be kind."})], &[]), None);
        assert_eq!(key(&[json!({"role": "user", "content": " "})], &[]), None);
        assert_eq!(key(&[json!({"role": "user"})], &[]), None);
    }
}
