//! The form an answer was asked to have, and whether it has it.

use serde::de::IgnoredAny;

use super::fields::Fields;
use crate::domain::{Endpoint, Outcome, ToolCall, Transcript};

/// The form an answer was asked to have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Form {
    /// None.
    #[default]
    Free,
    /// Any JSON value.
    Json,
    /// A JSON object.
    Object,
}

impl Form {
    /// What a request asks for.
    pub(super) fn of(endpoint: Endpoint, fields: &Fields<'_>) -> Self {
        match endpoint {
            Endpoint::Chat | Endpoint::Completions => Self::named(fields, "response_format"),
            Endpoint::Responses => fields
                .read::<Fields<'_>>("text")
                .map_or(Self::Free, |text| Self::named(&text, "format")),
            Endpoint::Gemini => {
                let config = fields.read::<Fields<'_>>("generationConfig");
                let mime = config.and_then(|it| it.text("responseMimeType"));
                if mime.as_deref() == Some("application/json") { Self::Json } else { Self::Free }
            }
            Endpoint::Embeddings | Endpoint::Messages => Self::Free,
        }
    }

    fn named(fields: &Fields<'_>, name: &str) -> Self {
        let kind = fields.read::<Fields<'_>>(name).and_then(|it| it.text("type"));
        match kind.as_deref() {
            Some("json_object") => Self::Object,
            Some("json_schema") => Self::Json,
            Some(_) | None => Self::Free,
        }
    }

    /// Whether an answer has the form, and the tools it calls can be called; none where neither
    /// was asked for, or there is no whole answer: a failure, a refusal.
    pub fn kept(self, outcome: Outcome, transcript: Option<&Transcript>) -> Option<bool> {
        let transcript = transcript.filter(|_| outcome == Outcome::Ok)?;
        let calls = callable(&transcript.tool_calls);
        let text = match self {
            _ if transcript.text.trim().is_empty() && !transcript.tool_calls.is_empty() => None,
            Self::Free => None,
            Self::Json => Some(is_json(&transcript.text)),
            Self::Object => {
                Some(transcript.text.trim_start().starts_with('{') && is_json(&transcript.text))
            }
        };
        match (text, calls) {
            (Some(text), Some(calls)) => Some(text && calls),
            (text, calls) => text.or(calls),
        }
    }
}

/// Whether arguments that begin as an object are one, as they are not where a model had to stop
/// inside; none where no call has such arguments. The input of a custom tool may be any text.
fn callable(calls: &[ToolCall]) -> Option<bool> {
    let arguments = calls.iter().map(|it| it.arguments.trim_start());
    let mut objects = arguments.filter(|it| it.starts_with('{')).peekable();
    objects.peek()?;
    Some(objects.all(is_json))
}

fn is_json(text: &str) -> bool {
    serde_json::from_str::<IgnoredAny>(text).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialect::{End, Received, ask, read};

    fn form(endpoint: Endpoint, body: &str) -> Form {
        let path = "/v1beta/models/m:generateContent";
        ask(endpoint, path, body.as_bytes()).unwrap().form
    }

    #[test]
    fn every_dialect_asks_for_json_in_its_own_words() {
        let chat = |kind: &str| {
            form(Endpoint::Chat, &format!(r#"{{"response_format":{{"type":"{kind}"}}}}"#))
        };
        assert_eq!(chat("json_object"), Form::Object);
        assert_eq!(chat("json_schema"), Form::Json);
        assert_eq!(chat("text"), Form::Free);
        let responses = r#"{"text":{"format":{"type":"json_schema","schema":{}}}}"#;
        assert_eq!(form(Endpoint::Responses, responses), Form::Json);
        let gemini = r#"{"generationConfig":{"responseMimeType":"application/json"}}"#;
        assert_eq!(form(Endpoint::Gemini, gemini), Form::Json);
        for endpoint in [Endpoint::Chat, Endpoint::Responses, Endpoint::Gemini] {
            assert_eq!(form(endpoint, "{}"), Form::Free);
        }
    }

    #[test]
    fn only_a_whole_answer_can_have_a_form() {
        let kept = |form: Form, text: &str| {
            let transcript = Transcript { text: text.to_owned(), ..Transcript::default() };
            form.kept(Outcome::Ok, Some(&transcript))
        };
        assert_eq!(kept(Form::Object, " {\"a\": 1}\n"), Some(true));
        assert_eq!(kept(Form::Object, "[1]"), Some(false));
        assert_eq!(kept(Form::Json, "[1]"), Some(true));
        assert_eq!(kept(Form::Json, "```json\n{}\n```"), Some(false));
        assert_eq!(kept(Form::Json, "{\"a\": "), Some(false));
        assert_eq!(kept(Form::Json, ""), Some(false));
        assert_eq!(kept(Form::Free, "{}"), None);
        let text = Transcript::default();
        assert_eq!(Form::Json.kept(Outcome::Truncated, Some(&text)), None);
        let tools = Transcript { tool_calls: vec![ToolCall::default()], ..text };
        assert_eq!(Form::Json.kept(Outcome::Ok, Some(&tools)), None);
        assert_eq!(Form::Json.kept(Outcome::Ok, None), None);
    }

    /// WIRE 35
    #[test]
    fn tools_called_with_half_an_object_cannot_be_called() {
        let kept = |text: &str, arguments: &[&str]| {
            let call = |it: &&str| ToolCall { arguments: (*it).to_owned(), ..ToolCall::default() };
            let tool_calls = arguments.iter().map(call).collect();
            let transcript = Transcript { text: text.to_owned(), tool_calls, refusal: None };
            [Form::Free, Form::Json].map(|it| it.kept(Outcome::Ok, Some(&transcript)))
        };
        assert_eq!(kept("", &["{}", " {\"a\":1}"]), [Some(true); 2]);
        assert_eq!(kept("", &["{}", "{\"city\":\"Os"]), [Some(false); 2]);
        assert_eq!(kept("Let me see.", &["{}"]), [Some(true), Some(false)]);
        assert_eq!(kept("1", &["{\"a\""]), [Some(false); 2]);
        // A custom tool takes any text, and nothing is nothing.
        assert_eq!(kept("", &["select 1", ""]), [None; 2]);
        let cut = r#"{"choices":[{"finish_reason":"length","message":{"content":null,
            "tool_calls":[{"id":"1","function":{"name":"f","arguments":"{\"x\":"}}]}}]}"#;
        let received = Received {
            endpoint: Endpoint::Chat,
            status: 200,
            content_type: "application/json",
            content_encoding: "",
            body: cut.as_bytes(),
            tail: crate::dialect::Tail::default(),
            ended: End::Whole,
        };
        let reading = read(&received);
        assert_eq!(Form::Free.kept(reading.outcome, reading.transcript.as_ref()), Some(false));
    }
}
