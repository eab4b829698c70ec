//! An answer while it is being put together, and the errors found inside it.

use super::json::Json;
use crate::domain::{ToolCall, Transcript, Usage};

/// Longest text a provider tells of itself, in bytes: what went wrong, its model, why it stopped.
/// Much more than is worth keeping, so that a key in it is there as a whole for whoever takes it
/// out before the rest is cut.
const TOLD_LEN_MAX: usize = 8 << 10;

/// Most tool calls that are read of one answer: they are looked up by walking them, and a provider
/// may send as many as it likes.
pub(super) const TOOL_CALLS_MAX: usize = 256;

/// What an answer has told so far, whatever its dialect.
#[derive(Debug, Default)]
pub(super) struct Draft {
    /// Whether it holds an answer of its dialect at all.
    pub(super) seen: bool,
    /// Whether it told that it is complete.
    pub(super) done: bool,
    /// Whether it had more tool calls than are read.
    pub(super) is_cut: bool,
    pub(super) transcript: Transcript,
    /// The provider's index of each tool call of the transcript.
    pub(super) indexes: Vec<Option<u64>>,
    pub(super) usage: Option<Usage>,
    pub(super) finish: Option<String>,
    pub(super) model: Option<String>,
    pub(super) fault: Option<Fault>,
}

impl Draft {
    /// Remembers the model, if one is named.
    pub(super) fn set_model(&mut self, value: &Json<'_>) {
        self.model = text(value).or_else(|| self.model.take());
    }

    /// Remembers why the model stopped, if that is told.
    pub(super) fn set_finish(&mut self, value: &Json<'_>) {
        self.finish = text(value).or_else(|| self.finish.take());
    }

    /// Adds to the refusal, if there is one.
    pub(super) fn add_refusal(&mut self, value: &Json<'_>) {
        if let Some(more) = text(value) {
            self.transcript.refusal.get_or_insert_default().push_str(&more);
        }
    }

    /// Adds a tool call at the provider's index, while there is room.
    pub(super) fn add_call(&mut self, index: Option<u64>, call: ToolCall) {
        if self.indexes.len() >= TOOL_CALLS_MAX {
            self.is_cut = true;
            return;
        }
        self.transcript.tool_calls.push(call);
        self.indexes.push(index);
    }

    /// The newest tool call at the provider's index.
    pub(super) fn call_at(&mut self, index: Option<u64>) -> Option<&mut ToolCall> {
        let position = self.indexes.iter().rposition(|it| *it == index)?;
        self.transcript.tool_calls.get_mut(position)
    }

    /// The tokens, if anybody counted them: every request has input, and who says something has
    /// output. Gateways that do not count write zeros.
    pub(super) fn counted(&self) -> Option<Usage> {
        let Usage { input, cache_read, cache_write, output } = self.usage?;
        let Transcript { text, tool_calls, refusal } = &self.transcript;
        let is_silent = text.is_empty() && tool_calls.is_empty() && refusal.is_none();
        let has_input = 0 < input || 0 < cache_read || 0 < cache_write;
        self.usage.filter(|_| has_input && (0 < output || is_silent))
    }

    /// Remembers an error, unless it is `null`; the first one counts.
    pub(super) fn set_fault(&mut self, error: &Json<'_>) {
        if !error.is_null() && self.fault.is_none() {
            self.fault = Some(Fault::of(error));
        }
    }
}

/// A text that is not empty.
pub(super) fn text(value: &Json<'_>) -> Option<String> {
    value.as_str().filter(|it| !it.is_empty()).map(str::to_owned)
}

/// A text as it is; of anything else its JSON; of `null` nothing.
pub(super) fn written(value: &Json<'_>) -> String {
    match value {
        Json::Null => String::new(),
        Json::Text(text) => text.clone().into_owned(),
        other => other.to_string(),
    }
}

/// A counter of tokens; zero when it is not told.
pub(super) fn count(value: &Json<'_>) -> u64 {
    value.as_u64().unwrap_or(0)
}

/// An error a provider told in a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    /// Its kind and message, bounded.
    pub(super) text: String,
    pub(super) sort: Sort,
}

/// What an error is about, as far as it matters to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sort {
    /// Too many requests, or an overloaded provider.
    Throttled,
    /// The request was stopped by a content filter.
    Filtered,
    /// The credential was refused.
    Credential,
    /// Anything else.
    Other,
}

/// Parts of the kinds that ask to come back later, in small letters and digits alone.
const THROTTLED: [&str; 7] = [
    "ratelimit",
    "overloaded",
    "resourceexhausted",
    "toomanyrequests",
    "throttl",
    "insufficientquota",
    "engineoverload",
];

/// What providers say of a refused key with status 400 (xAI, Gemini).
const CREDENTIAL: [&str; 3] = ["incorrect api key", "api key not valid", "invalid api key"];

impl Fault {
    /// Reads the body of an error response: JSON of any known shape, or plain text.
    pub(super) fn of_body(body: &[u8]) -> Self {
        let Ok(value) = Json::read(body) else {
            let head = body.get(..TOLD_LEN_MAX).unwrap_or(body);
            let text = String::from_utf8_lossy(head).trim().to_owned();
            return Self { text: bounded(text), sort: Sort::Other };
        };
        // Gemini streams without `alt=sse` wrap even their errors in an array.
        let first = match &value {
            Json::List(errors) => errors.first().unwrap_or(&Json::Null),
            one => one,
        };
        if first["error"].is_object() { Self::of(&first["error"]) } else { Self::of(first) }
    }

    /// Reads an error object, or an error that is a plain text.
    pub(super) fn of(error: &Json<'_>) -> Self {
        let kinds: Vec<String> = ["type", "code", "status", "status_code"]
            .into_iter()
            .map(|name| written(&error[name]))
            .filter(|it| !it.is_empty() && it != "error")
            .collect();
        let message = ["message", "detail", "error"]
            .into_iter()
            .map(|name| written(&error[name]))
            .find(|it| !it.is_empty())
            .unwrap_or_else(|| if kinds.is_empty() { written(error) } else { String::new() });
        let sort = sort(&kinds, &message);
        let parts = kinds.into_iter().take(1).chain(Some(message).filter(|it| !it.is_empty()));
        Self { text: bounded(parts.collect::<Vec<_>>().join(": ")), sort }
    }
}

fn sort(kinds: &[String], message: &str) -> Sort {
    let plain = |kind: &String| -> String {
        kind.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_ascii_lowercase()
    };
    let kinds: Vec<String> = kinds.iter().map(plain).collect();
    let any = |test: &dyn Fn(&str) -> bool| kinds.iter().any(|kind| test(kind));
    let message = message.to_ascii_lowercase();
    if any(&|kind| matches!(kind, "429" | "529") || THROTTLED.iter().any(|it| kind.contains(it))) {
        Sort::Throttled
    } else if any(&|kind| kind == "contentfilter" || kind == "contentpolicyviolation") {
        Sort::Filtered
    } else if CREDENTIAL.iter().any(|it| message.starts_with(it)) {
        Sort::Credential
    } else {
        Sort::Other
    }
}

/// A text cut to what may be told.
pub(super) fn bounded(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(TOLD_LEN_MAX));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(body: &str, expected: &str, sort: Sort) {
        let fault = Fault::of_body(body.as_bytes());
        assert_eq!((fault.text.as_str(), fault.sort), (expected, sort));
    }

    #[test]
    fn errors_of_every_known_shape_are_read() {
        check(
            r#"{"type":"error","error":{"type":"overloaded_error","message":"Busy"}}"#,
            "overloaded_error: Busy",
            Sort::Throttled,
        );
        check(
            r#"[{"error":{"code":429,"message":"Quota","status":"RESOURCE_EXHAUSTED"}}]"#,
            "429: Quota",
            Sort::Throttled,
        );
        check(
            r#"{"code":"invalid-argument","error":"Incorrect API key provided."}"#,
            "invalid-argument: Incorrect API key provided.",
            Sort::Credential,
        );
        check(
            r#"{"error":{"code":"content_filter","message":"Filtered","status":400}}"#,
            "content_filter: Filtered",
            Sort::Filtered,
        );
        check(r#"{"detail":"No such model"}"#, "No such model", Sort::Other);
        check(r#"{"message":"Malformed input"}"#, "Malformed input", Sort::Other);
        check(" <html>Bad gateway</html>\n", "<html>Bad gateway</html>", Sort::Other);
        check("", "", Sort::Other);
    }

    #[test]
    fn a_long_error_is_cut_between_letters() {
        let fault = Fault::of(&Json::Text(format!("-{}", "ä".repeat(TOLD_LEN_MAX)).into()));
        assert_eq!(fault.text, format!("-{}", "ä".repeat(TOLD_LEN_MAX / 2 - 1)));
    }
}
