//! The form an answer was asked to have, and whether it has it.

use serde::de::IgnoredAny;

use super::fields::Fields;
use crate::domain::{Endpoint, Outcome, Transcript};

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

    /// Whether an answer has the form; none where none was asked for, or there is no whole
    /// answer that could have it: a failure, a refusal, a call of tools.
    pub fn kept(self, outcome: Outcome, transcript: Option<&Transcript>) -> Option<bool> {
        let transcript = transcript.filter(|_| outcome == Outcome::Ok)?;
        if transcript.text.trim().is_empty() && !transcript.tool_calls.is_empty() {
            return None;
        }
        let json = || serde_json::from_str::<IgnoredAny>(&transcript.text).is_ok();
        match self {
            Self::Free => None,
            Self::Json => Some(json()),
            Self::Object => Some(transcript.text.trim_start().starts_with('{') && json()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialect::ask;

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
        let tools = Transcript { tool_calls: vec![crate::domain::ToolCall::default()], ..text };
        assert_eq!(Form::Json.kept(Outcome::Ok, Some(&tools)), None);
        assert_eq!(Form::Json.kept(Outcome::Ok, None), None);
    }
}
