//! What a request asks for: its endpoint, model and keys, found without building its messages.

use std::ops::Range;

use super::{
    barred::barred,
    fields::{Fields, span},
    form::Form,
};
use crate::domain::{Endpoint, Skip, Tie};

/// What one request asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// The model; empty when none is named.
    pub model: String,
    /// Whether the answer is to come as a stream.
    pub stream: bool,
    /// The end user, as the application names them.
    pub user: Option<String>,
    /// The conversation, as the application names it.
    pub conversation: Option<String>,
    /// Why it may not be copied or moved, if so.
    pub barred: Option<Skip>,
    /// Whether it may be moved at all: what its answer leaves behind binds it to a provider.
    pub tie: Tie,
    /// The form its answer is to have.
    pub form: Form,
    /// Whether it may give schemas that its answer is held against, which may take a while.
    pub has_schemas: bool,
    /// The most output tokens that it allows; none where it does not say.
    pub output_max: Option<u64>,
    pub(super) spans: Spans,
}

/// Where the values stand that [`super::adapt()`] may replace: byte ranges of the body.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Spans {
    pub(super) model: Option<Range<usize>>,
    pub(super) store: Option<Range<usize>>,
    pub(super) stream_options: Option<Range<usize>>,
    /// Names of the end user.
    pub(super) users: Vec<Range<usize>>,
    /// What tells conversations, or end users, apart for the provider's cache.
    pub(super) cache_key: Option<Range<usize>>,
}

impl Asked {
    /// The same, with the end user also named at a place of the body: names with dots between. An
    /// empty place is none.
    #[must_use]
    pub fn naming_user_at(mut self, place: &str, body: &[u8]) -> Self {
        let fields = if place.is_empty() { None } else { Fields::parse(body) };
        let Some(value) = fields.as_ref().and_then(|it| it.at(place)) else { return self };
        let (user, spans) = (span(body, value), &mut self.spans);
        let holds = |one: &Range<usize>, other: &Range<usize>| {
            one.start <= other.start && other.end <= one.end
        };
        spans.users.retain(|it| !holds(&user, it));
        spans.cache_key.take_if(|it| holds(&user, it));
        if !spans.users.iter().any(|it| holds(it, &user)) {
            spans.users.push(user);
        }
        self
    }
}

/// What an answer binds its request to. A Responses answer is stored unless `store` is false, and
/// its next turn asks for it where it was given; vectors of two models cannot be compared.
fn tie(endpoint: Endpoint, fields: &Fields<'_>) -> Tie {
    match endpoint {
        Endpoint::Embeddings => Tie::Primary,
        Endpoint::Responses if fields.get("store") != Some("false") => Tie::Primary,
        Endpoint::Responses
        | Endpoint::Chat
        | Endpoint::Completions
        | Endpoint::Messages
        | Endpoint::Gemini => Tie::None,
    }
}

/// The endpoint of a request, if it is one that may be copied.
///
/// The path is the application's own; a query is ignored.
pub fn endpoint(method: &str, path: &str) -> Option<Endpoint> {
    if method != "POST" {
        return None;
    }
    match before_query(path) {
        "/v1/chat/completions" => Some(Endpoint::Chat),
        "/v1/completions" => Some(Endpoint::Completions),
        "/v1/embeddings" => Some(Endpoint::Embeddings),
        "/v1/responses" => Some(Endpoint::Responses),
        "/v1/messages" => Some(Endpoint::Messages),
        path => gemini_call(path).map(|_| Endpoint::Gemini),
    }
}

/// The path of an endpoint, with nothing of a request in it.
pub fn path(endpoint: Endpoint) -> &'static str {
    match endpoint {
        Endpoint::Chat => "/v1/chat/completions",
        Endpoint::Completions => "/v1/completions",
        Endpoint::Embeddings => "/v1/embeddings",
        Endpoint::Responses => "/v1/responses",
        Endpoint::Messages => "/v1/messages",
        Endpoint::Gemini => "/v1beta/models/-:generateContent",
    }
}

/// Reads a request in one pass over its body.
///
/// # Errors
/// [`Skip::NotJson`] when the body is not one JSON object, or can be read in two ways.
pub fn ask(endpoint: Endpoint, path: &str, body: &[u8]) -> Result<Asked, Skip> {
    let fields = Fields::parse(body).ok_or(Skip::NotJson)?;
    let (model, stream) = match endpoint {
        Endpoint::Gemini => {
            let call = gemini_call(before_query(path)).ok_or(Skip::Endpoint)?;
            (call.model.to_owned(), call.verb == STREAM_VERB)
        }
        Endpoint::Chat
        | Endpoint::Completions
        | Endpoint::Embeddings
        | Endpoint::Responses
        | Endpoint::Messages => (model(&fields)?, fields.is_true("stream")),
    };
    let place = |name| fields.raw(name).map(|value| span(body, value));
    Ok(Asked {
        model,
        stream,
        user: user(endpoint, &fields),
        conversation: conversation(endpoint, &fields),
        barred: barred(endpoint, &fields),
        tie: tie(endpoint, &fields),
        form: Form::of(endpoint, &fields),
        has_schemas: Form::schema(endpoint, &fields).is_some()
            || ["tools", "functions"].iter().any(|it| fields.has(it)),
        output_max: output_max(&fields),
        spans: Spans {
            model: place("model"),
            store: place("store"),
            stream_options: place("stream_options"),
            users: users(endpoint, body, &fields),
            cache_key: place("prompt_cache_key"),
        },
    })
}

/// The last segment of a Gemini path: `{model}:{verb}`, and where the model stands.
pub(super) struct GeminiCall<'a> {
    pub(super) model: &'a str,
    pub(super) span: Range<usize>,
    verb: &'a str,
}

const VERB: &str = "generateContent";
const STREAM_VERB: &str = "streamGenerateContent";

/// The model and verb of a Gemini path without its query.
pub(super) fn gemini_call(path: &str) -> Option<GeminiCall<'_>> {
    let start = path.rfind('/')? + 1;
    let (model, verb) = path.get(start..)?.rsplit_once(':')?;
    let known = verb == VERB || verb == STREAM_VERB;
    (known && !model.is_empty()).then(|| GeminiCall {
        model,
        span: start..start + model.len(),
        verb,
    })
}

pub(super) fn before_query(path: &str) -> &str {
    path.split_once('?').map_or(path, |(path, _)| path)
}

fn model(fields: &Fields<'_>) -> Result<String, Skip> {
    if fields.has("model") {
        return fields.read("model").ok_or(Skip::NotJson);
    }
    Ok(String::new())
}

/// Where the body names its end user.
fn users(endpoint: Endpoint, body: &[u8], fields: &Fields<'_>) -> Vec<Range<usize>> {
    let names: &[&str] = match endpoint {
        Endpoint::Chat | Endpoint::Completions | Endpoint::Embeddings | Endpoint::Responses => {
            &["user", "safety_identifier", "metadata.user_id"]
        }
        Endpoint::Messages => &["metadata.user_id"],
        Endpoint::Gemini => &[],
    };
    names.iter().filter_map(|it| fields.at(it)).map(|value| span(body, value)).collect()
}

/// The most output tokens that a request allows: of several names for it the largest number.
fn output_max(fields: &Fields<'_>) -> Option<u64> {
    let names = [
        "max_tokens",
        "max_completion_tokens",
        "max_output_tokens",
        "generationConfig.maxOutputTokens",
        "generation_config.max_output_tokens",
    ];
    names.iter().filter_map(|it| fields.at(it)?.get().parse().ok()).max()
}

fn user(endpoint: Endpoint, fields: &Fields<'_>) -> Option<String> {
    match endpoint {
        Endpoint::Chat | Endpoint::Completions | Endpoint::Embeddings | Endpoint::Responses => {
            fields.text("safety_identifier").or_else(|| fields.text("user"))
        }
        Endpoint::Messages => fields.read::<Fields<'_>>("metadata")?.text("user_id"),
        Endpoint::Gemini => None,
    }
}

fn conversation(endpoint: Endpoint, fields: &Fields<'_>) -> Option<String> {
    let named = match endpoint {
        Endpoint::Chat | Endpoint::Responses => fields.text("prompt_cache_key"),
        Endpoint::Completions | Endpoint::Embeddings | Endpoint::Messages | Endpoint::Gemini => {
            None
        }
    };
    named.or_else(|| {
        let metadata: Fields<'_> = fields.read("metadata")?;
        metadata.text("conversation_id").or_else(|| metadata.text("session_id"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(endpoint: Endpoint, body: &str) -> Asked {
        ask(endpoint, "/v1/x", body.as_bytes()).unwrap()
    }

    #[test]
    fn only_listed_paths_are_endpoints_and_only_for_post() {
        assert_eq!(endpoint("POST", "/v1/chat/completions"), Some(Endpoint::Chat));
        assert_eq!(endpoint("POST", "/v1/messages?beta=true"), Some(Endpoint::Messages));
        assert_eq!(
            endpoint("POST", "/v1beta/models/gemini-2.5-pro:streamGenerateContent?alt=sse"),
            Some(Endpoint::Gemini)
        );
        for path in [
            "/v1/chat/completions/",
            "/v1/chat/completions/x",
            "/v1/messages/batches",
            "/v1/responses/compact",
            "/v1beta/models/g:countTokens",
            "/v1beta/models/:generateContent",
            "/v1beta/models/x:generateContent/y",
            "/openai/v1/chat/completions",
        ] {
            assert_eq!(endpoint("POST", path), None, "{path}");
        }
        for it in Endpoint::ALL {
            assert_eq!(endpoint("POST", path(it)), Some(it));
        }
        assert_eq!(endpoint("GET", "/v1/responses"), None);
        assert_eq!(endpoint("post", "/v1/responses"), None);
    }

    #[test]
    fn the_model_and_the_keys_are_found() {
        let it = asked(
            Endpoint::Chat,
            r#"{"model":"m\u00e9","stream":true,"user":"u","safety_identifier":"s",
                "prompt_cache_key":"k","metadata":{"session_id":"z"}}"#,
        );
        assert_eq!((it.model.as_str(), it.stream), ("mé", true));
        assert_eq!(it.user.as_deref(), Some("s"));
        assert_eq!(it.conversation.as_deref(), Some("k"));

        let body = r#"{"model":"m","metadata":{"user_id":"u","conversation_id":"c"}}"#;
        let it = asked(Endpoint::Messages, body);
        assert_eq!(it.user.as_deref(), Some("u"));
        assert_eq!(it.conversation.as_deref(), Some("c"));

        let it = asked(Endpoint::Chat, r#"{"user":"","metadata":{"session_id":7}}"#);
        assert_eq!((it.model.as_str(), it.stream), ("", false));
        assert_eq!((it.user, it.conversation), (None, None));
    }

    #[test]
    fn what_an_answer_leaves_behind_ties_its_request_to_the_primary() {
        let tie = |endpoint, body: &str| ask(endpoint, "/", body.as_bytes()).unwrap().tie;
        assert_eq!(tie(Endpoint::Responses, r#"{"model":"m","input":"a"}"#), Tie::Primary);
        let kept = r#"{"model":"m","input":"a","store":false}"#;
        assert_eq!(tie(Endpoint::Responses, kept), Tie::None);
        assert_eq!(tie(Endpoint::Embeddings, r#"{"model":"m","input":"a"}"#), Tie::Primary);
        assert_eq!(tie(Endpoint::Chat, r#"{"model":"m","messages":[]}"#), Tie::None);
    }

    #[test]
    fn the_most_output_that_a_request_allows_is_found_in_every_dialect() {
        let most = |body: &str| ask(Endpoint::Chat, "/", body.as_bytes()).unwrap().output_max;
        assert_eq!(most(r#"{"max_tokens":7}"#), Some(7));
        assert_eq!(most(r#"{"max_tokens":7,"max_completion_tokens":9}"#), Some(9));
        assert_eq!(most(r#"{"max_output_tokens":5}"#), Some(5));
        assert_eq!(most(r#"{"generationConfig":{"maxOutputTokens":3}}"#), Some(3));
        assert_eq!(most(r#"{"max_tokens":null}"#), None);
        assert_eq!(most(r#"{"max_tokens":-1}"#), None);
    }

    #[test]
    fn gemini_says_its_model_in_the_path() {
        let path = "/v1beta/models/gemini-2.5-pro:streamGenerateContent?alt=sse";
        let it = ask(Endpoint::Gemini, path, br#"{"contents":[]}"#).unwrap();
        assert_eq!((it.model.as_str(), it.stream), ("gemini-2.5-pro", true));
        let path = "/v1/models/g:generateContent";
        assert!(!ask(Endpoint::Gemini, path, b"{}").unwrap().stream);
    }

    #[test]
    fn a_body_that_is_no_object_or_ambiguous_is_not_json() {
        for body in ["", "[]", "{", "null", "{\"model\":1}", "{\"model\":\"a\",\"model\":\"a\"}"] {
            let refused = ask(Endpoint::Chat, "/v1/chat/completions", body.as_bytes());
            assert_eq!(refused, Err(Skip::NotJson), "{body}");
        }
    }
}
