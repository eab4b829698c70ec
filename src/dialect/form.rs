//! The form an answer was asked to have, and whether it has it.

use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use super::{fields::Fields, schema::Wording};
use crate::domain::{Endpoint, ToolCall};

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
            Endpoint::Messages => Self::typed(output_format(fields)),
            Endpoint::Embeddings => Self::Free,
        }
    }

    fn named(fields: &Fields<'_>, name: &str) -> Self {
        Self::typed(fields.read::<Fields<'_>>(name))
    }

    fn typed(format: Option<Fields<'_>>) -> Self {
        let kind = format.and_then(|it| it.text("type"));
        match kind.as_deref() {
            Some("json_object") => Self::Object,
            Some("json_schema") => Self::Json,
            Some(_) | None => Self::Free,
        }
    }

    /// Whether a text has the form; none where none was asked for.
    pub(super) fn kept(self, text: &str) -> Option<bool> {
        match self {
            Self::Free => None,
            Self::Json => Some(is_json(text)),
            Self::Object => Some(text.trim_start().starts_with('{') && is_json(text)),
        }
    }

    /// The schema that JSON was asked to be valid against, where one was given.
    pub(super) fn schema<'a>(
        endpoint: Endpoint,
        fields: &Fields<'a>,
    ) -> Option<(&'a RawValue, Wording)> {
        let json = |it: Fields<'a>| Some((it.raw("schema")?, Wording::Json));
        let inner = |name: &str| fields.read::<Fields<'a>>(name);
        match endpoint {
            Endpoint::Chat | Endpoint::Completions => {
                json(inner("response_format")?.read("json_schema")?)
            }
            Endpoint::Responses => json(inner("text")?.read("format")?),
            Endpoint::Messages => json(output_format(fields)?),
            Endpoint::Gemini => {
                let config = inner("generationConfig")?;
                let plain = config.raw("responseJsonSchema").map(|it| (it, Wording::Json));
                plain.or_else(|| Some((config.raw("responseSchema")?, Wording::Either)))
            }
            Endpoint::Embeddings => None,
        }
    }
}

/// What Anthropic calls it, now and at first.
fn output_format<'a>(fields: &Fields<'a>) -> Option<Fields<'a>> {
    let config = fields.read::<Fields<'a>>("output_config");
    config.and_then(|it| it.read("format")).or_else(|| fields.read("output_format"))
}

/// Whether arguments that begin as an object are one, as they are not where a model had to stop
/// inside; none where no call has such arguments. The input of a custom tool may be any text.
pub(super) fn callable(calls: &[ToolCall]) -> Option<bool> {
    let arguments = calls.iter().map(|it| it.arguments.trim_start());
    let mut objects = arguments.filter(|it| it.starts_with('{')).peekable();
    objects.peek()?;
    Some(objects.all(is_json))
}

pub(super) fn is_json(text: &str) -> bool {
    serde_json::from_str::<IgnoredAny>(text).is_ok()
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
    fn a_text_has_its_form_or_not() {
        for (form, text, kept) in [
            (Form::Object, " {\"a\": 1}\n", Some(true)),
            (Form::Object, "[1]", Some(false)),
            (Form::Json, "[1]", Some(true)),
            (Form::Json, "```json\n{}\n```", Some(false)),
            (Form::Json, "{\"a\": ", Some(false)),
            (Form::Json, "", Some(false)),
            (Form::Free, "{}", None),
        ] {
            assert_eq!(form.kept(text), kept, "{text}");
        }
    }

    #[test]
    fn every_dialect_gives_its_schema_in_its_own_words() {
        for (endpoint, body) in [
            (
                Endpoint::Chat,
                r#"{"response_format":{"type":"json_schema","json_schema":{"schema":{"a":1}}}}"#,
            ),
            (Endpoint::Responses, r#"{"text":{"format":{"type":"json_schema","schema":{"a":1}}}}"#),
            (Endpoint::Messages, r#"{"output_format":{"type":"json_schema","schema":{"a":1}}}"#),
            (
                Endpoint::Messages,
                r#"{"output_config":{"format":{"type":"json_schema","schema":{"a":1}}}}"#,
            ),
            (
                Endpoint::Gemini,
                r#"{"generationConfig":{"responseMimeType":"application/json",
                    "responseSchema":{"a":1}}}"#,
            ),
        ] {
            assert_eq!(form(endpoint, body), Form::Json, "{body}");
            let fields = Fields::parse(body.as_bytes()).unwrap();
            let (schema, wording) = Form::schema(endpoint, &fields).unwrap();
            assert_eq!(schema.get(), r#"{"a":1}"#);
            assert_eq!(wording == Wording::Either, endpoint == Endpoint::Gemini);
        }
        let none = Fields::parse(br#"{"response_format":{"type":"json_object"}}"#).unwrap();
        assert!(Form::schema(Endpoint::Chat, &none).is_none());
    }

    /// WIRE 35
    #[test]
    fn tools_called_with_half_an_object_cannot_be_called() {
        let kept = |arguments: &[&str]| {
            let call = |it: &&str| ToolCall { arguments: (*it).to_owned(), ..ToolCall::default() };
            callable(&arguments.iter().map(call).collect::<Vec<_>>())
        };
        assert_eq!(kept(&["{}", " {\"a\":1}"]), Some(true));
        assert_eq!(kept(&["{}", "{\"city\":\"Os"]), Some(false));
        // A custom tool takes any text, and nothing is nothing.
        assert_eq!(kept(&["select 1", ""]), None);
    }
}
