//! A request for another provider: the same bytes, but for the values that must differ.

use std::ops::Range;

use serde_json::Value;

use super::{
    request::{Asked, before_query, gemini_call},
    rules::obey,
    splices::{Container, Splices},
};
use crate::domain::{Endpoint, RequestRules, hash};

/// What to change.
#[derive(Clone, Copy, Debug)]
pub struct Edits<'a> {
    /// The provider's own name for the model; none keeps the caller's.
    pub model: Option<&'a str>,
    /// What the request is for.
    pub purpose: Purpose,
    /// What else it must look like there; none changes nothing else.
    pub rules: Option<&'a RequestRules>,
}

/// What a request to another provider is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A copy: nobody waits for its answer, it leaves nothing behind, and it tells its usage.
    Copy,
    /// The caller gets its answer: it is the candidate's turn.
    Serve,
    /// The caller gets its answer in place of the primary's.
    StandIn,
}

/// Why a request cannot be rewritten.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// The body is not the one that was asked about.
    #[error("could not rewrite a body other than the one that was read")]
    OtherBody,
    /// A Gemini path without `{model}:{verb}`.
    #[error("could not find the model in the path")]
    NoModelInPath,
}

/// The path with query, and the body, of a request for another provider.
///
/// Always: the model (in the body, or in a Gemini path) becomes the provider's, the caller's
/// credential leaves the query, whoever the end user is becomes `crossfade`, and a
/// `prompt_cache_key`, which may name them too, a name made of it. For a copy also:
/// Responses get `"store": false`, and a chat or completion stream is told to report its usage
/// unless the caller said whether it should. Then what the provider's rules name. Nothing else
/// changes, and nothing is encoded anew.
///
/// # Errors
/// When the body or path is not the one `asked` came from.
pub fn adapt(
    endpoint: Endpoint,
    path_and_query: &str,
    body: &[u8],
    asked: &Asked,
    edits: &Edits<'_>,
) -> Result<(String, Vec<u8>), Unfit> {
    let mut splices = Splices::new(body)?;
    let model_in_body = edits.model.map(|it| Value::from(it).to_string());
    let path = match endpoint {
        Endpoint::Gemini => gemini_path(path_and_query, edits.model)?,
        Endpoint::Chat
        | Endpoint::Completions
        | Endpoint::Embeddings
        | Endpoint::Responses
        | Endpoint::Messages => {
            if let Some(model) = model_in_body {
                splices.set("model", asked.spans.model.clone(), &model);
            }
            let path = before_query(path_and_query);
            with_query(path.to_owned(), path_and_query.get(path.len() + 1..))
        }
    };
    for span in &asked.spans.users {
        splices.set("user", Some(span.clone()), NOBODY);
    }
    if let Some(span) = &asked.spans.cache_key {
        let key = body.get(span.clone()).ok_or(Unfit::OtherBody)?;
        splices.replace(span.clone(), pseudonym(&String::from_utf8_lossy(key)));
    }
    match edits.purpose {
        Purpose::Copy => make_copy(endpoint, asked, edits, &mut splices)?,
        Purpose::Serve | Purpose::StandIn => {}
    }
    if let Some(rules) = edits.rules {
        obey(rules, endpoint, edits.purpose, &mut splices);
    }
    Ok((path, splices.apply()?))
}

fn make_copy(
    endpoint: Endpoint,
    asked: &Asked,
    edits: &Edits<'_>,
    splices: &mut Splices<'_>,
) -> Result<(), Unfit> {
    let takes_options = !edits.rules.is_some_and(|it| it.drops("stream_options"));
    match endpoint {
        Endpoint::Responses => splices.set("store", asked.spans.store.clone(), "false"),
        Endpoint::Chat | Endpoint::Completions if asked.stream && takes_options => {
            ask_for_usage(splices, asked.spans.stream_options.clone())?;
        }
        Endpoint::Chat
        | Endpoint::Completions
        | Endpoint::Embeddings
        | Endpoint::Messages
        | Endpoint::Gemini => {}
    }
    Ok(())
}

/// What stands for every end user: a name any provider takes, and that says nothing.
const NOBODY: &str = r#""crossfade""#;

/// What stands for a key of a cache: the same for the same, so that the cache is still hit.
fn pseudonym(key: &str) -> String {
    if key.starts_with('"') {
        format!("\"crossfade-{:016x}\"", hash("cache", key))
    } else {
        key.to_owned()
    }
}

const INCLUDE_USAGE: &str = r#"{"include_usage":true}"#;

fn ask_for_usage(splices: &mut Splices<'_>, options: Option<Range<usize>>) -> Result<(), Unfit> {
    let Some(span) = options else {
        splices.set("stream_options", None, INCLUDE_USAGE);
        return Ok(());
    };
    if splices.body.get(span.clone()).ok_or(Unfit::OtherBody)? == b"null" {
        splices.replace(span, INCLUDE_USAGE);
        return Ok(());
    }
    // Anything but an object is the provider's to refuse.
    let Some(options) = Container::object(splices.body, &span) else { return Ok(()) };
    if options.get("include_usage").is_none() {
        splices.add(&options, "include_usage", "true");
    }
    Ok(())
}

fn gemini_path(path_and_query: &str, model: Option<&str>) -> Result<String, Unfit> {
    let path = before_query(path_and_query);
    let call = gemini_call(path).ok_or(Unfit::NoModelInPath)?;
    let mut adapted = path.to_owned();
    if let Some(model) = model {
        adapted.replace_range(call.span, &encode(model));
    }
    Ok(with_query(adapted, path_and_query.get(path.len() + 1..)))
}

/// The path with what may stay of a query.
fn with_query(mut path: String, query: Option<&str>) -> String {
    let query = query.unwrap_or_default();
    let kept: Vec<&str> = query.split('&').filter(|it| !is_credential(it)).collect();
    if kept.iter().any(|it| !it.is_empty()) {
        path.push('?');
        path.push_str(&kept.join("&"));
    }
    path
}

/// Whether a query parameter is a credential of the caller, with or without the `$` Google's
/// system parameters may carry.
fn is_credential(parameter: &str) -> bool {
    let name = parameter.split_once('=').map_or(parameter, |(name, _)| name);
    let name = name.strip_prefix('$').or_else(|| name.strip_prefix("%24")).unwrap_or(name);
    matches!(name, "key" | "access_token" | "api_key" | "api-key" | "token")
}

/// The text as one segment of a path.
fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'@' => {
                encoded.push(char::from(byte));
            }
            _ => {
                encoded.push('%');
                encoded.extend([byte >> 4, byte & 0x0f].map(hex));
            }
        }
    }
    encoded
}

fn hex(digit: u8) -> char {
    char::from_digit(u32::from(digit), 16).map_or('0', |it| it.to_ascii_uppercase())
}

#[cfg(test)]
mod tests {
    use super::{super::request::ask, *};

    fn adapted(endpoint: Endpoint, body: &str, edits: Edits<'_>) -> String {
        let asked = ask(endpoint, "/v1/x", body.as_bytes()).unwrap();
        let (path, body) = adapt(endpoint, "/v1/x?a=b", body.as_bytes(), &asked, &edits).unwrap();
        assert_eq!(path, "/v1/x?a=b");
        String::from_utf8(body).unwrap()
    }

    const COPY: Edits<'_> = Edits { model: Some("new"), purpose: Purpose::Copy, rules: None };
    const SERVE: Edits<'_> = Edits { model: Some("new"), purpose: Purpose::Serve, rules: None };
    const AS_IT_IS: Edits<'_> = Edits { model: None, purpose: Purpose::Serve, rules: None };

    #[test]
    fn neither_the_callers_credential_nor_its_end_user_reaches_another_provider() {
        let body =
            br#"{"model":"m","user":"alice@a.example","safety_identifier":"a-1","messages":[]}"#;
        let path = "/v1/chat/completions?api-version=1&key=secret&api_key=secret";
        let asked = ask(Endpoint::Chat, path, body).unwrap();
        let edits = Edits { model: None, purpose: Purpose::Serve, rules: None };
        let (path, adapted) = adapt(Endpoint::Chat, path, body, &asked, &edits).unwrap();
        assert_eq!(path, "/v1/chat/completions?api-version=1");
        let expected =
            br#"{"model":"m","user":"crossfade","safety_identifier":"crossfade","messages":[]}"#;
        assert_eq!(adapted, expected);

        let body = br#"{"model":"m","metadata":{"user_id":"alice"},"messages":[]}"#;
        let asked = ask(Endpoint::Messages, "/v1/messages", body).unwrap();
        let (_, adapted) = adapt(Endpoint::Messages, "/v1/messages", body, &asked, &edits).unwrap();
        assert_eq!(adapted, br#"{"model":"m","metadata":{"user_id":"crossfade"},"messages":[]}"#);
    }

    #[test]
    fn the_key_of_a_cache_is_another_one_and_the_same_in_every_turn() {
        for (endpoint, edits) in [(Endpoint::Chat, AS_IT_IS), (Endpoint::Responses, AS_IT_IS)] {
            let turn = r#"{"prompt_cache_key":"k-1","messages":[]}"#;
            let expected = r#"{"prompt_cache_key":"crossfade-2d144f2a45a27c9e","messages":[]}"#;
            assert_eq!(adapted(endpoint, turn, edits), expected);
        }
        let null = r#"{"prompt_cache_key":null}"#;
        assert_eq!(adapted(Endpoint::Chat, null, AS_IT_IS), null);
    }

    #[test]
    fn only_the_model_changes_for_one_who_serves() {
        let body = r#" { "messages":[{"model":"x"}] , "model" : "old" ,"stream":true, "z":1.50 } "#;
        let expected = body.replace("\"old\"", "\"new\"");
        assert_eq!(adapted(Endpoint::Chat, body, SERVE), expected);
        assert_eq!(adapted(Endpoint::Chat, body, AS_IT_IS), body);
    }

    #[test]
    fn a_model_is_escaped_and_put_in_where_there_was_none() {
        let quoted = Edits { model: Some("a\"b"), purpose: Purpose::Serve, rules: None };
        assert_eq!(adapted(Endpoint::Chat, r#"{"model":"x"}"#, quoted), r#"{"model":"a\"b"}"#);
        assert_eq!(adapted(Endpoint::Chat, "{ }", SERVE), r#"{"model":"new" }"#);
        assert_eq!(adapted(Endpoint::Chat, r#"{"a":1}"#, SERVE), r#"{"model":"new","a":1}"#);
        assert_eq!(adapted(Endpoint::Chat, r#"{"model":null}"#, SERVE), r#"{"model":"new"}"#);
    }

    #[test]
    fn a_copy_of_a_stream_tells_its_usage_unless_the_caller_decided() {
        for (options, expected) in [
            ("null", r#"{"include_usage":true}"#),
            ("{}", r#"{"include_usage":true}"#),
            (r#"{ "a":1}"#, r#"{"include_usage":true, "a":1}"#),
            (r#"{"include_usage":false}"#, r#"{"include_usage":false}"#),
        ] {
            let body = |options: &str, model: &str| {
                format!(r#"{{"stream":true,"stream_options":{options},"model":"{model}"}}"#)
            };
            let copy = adapted(Endpoint::Chat, &body(options, "old"), COPY);
            assert_eq!(copy, body(expected, "new"));
        }
        assert_eq!(
            adapted(Endpoint::Chat, r#"{"model":"m","stream":true}"#, COPY),
            r#"{"stream_options":{"include_usage":true},"model":"new","stream":true}"#
        );
        let plain = r#"{"model":"new","stream":false}"#;
        assert_eq!(adapted(Endpoint::Chat, plain, COPY), plain);
    }

    #[test]
    fn a_copy_of_a_response_is_never_stored() {
        assert_eq!(
            adapted(Endpoint::Responses, r#"{"model":"m"}"#, COPY),
            r#"{"store":false,"model":"new"}"#
        );
        assert_eq!(
            adapted(Endpoint::Responses, r#"{"store": true,"model":"m"}"#, COPY),
            r#"{"store": false,"model":"new"}"#
        );
        let stored = r#"{"store":true,"model":"new"}"#;
        assert_eq!(adapted(Endpoint::Responses, stored, SERVE), stored);
    }

    #[test]
    fn a_gemini_path_gets_the_model_and_loses_the_key() {
        let path = |path: &str, model| {
            let asked = ask(Endpoint::Gemini, path, b"{}").unwrap();
            let edits = Edits { model, purpose: Purpose::Serve, rules: None };
            adapt(Endpoint::Gemini, path, b"{}", &asked, &edits).unwrap().0
        };
        let stream = "/v1beta/models/old:streamGenerateContent";
        assert_eq!(
            path(&format!("{stream}?key=secret&alt=sse&%24key=s"), Some("new-1.5")),
            "/v1beta/models/new-1.5:streamGenerateContent?alt=sse"
        );
        assert_eq!(path(&format!("{stream}?key=secret"), None), stream);
        assert_eq!(path(&format!("{stream}?"), None), stream);
        assert_eq!(
            path("/v1/models/old:generateContent", Some("a/b:c?d")),
            "/v1/models/a%2Fb%3Ac%3Fd:generateContent"
        );
    }

    #[test]
    fn another_body_than_the_one_read_is_refused() {
        let body = br#"{"stream":false,"model":"a long one"}"#;
        let asked = ask(Endpoint::Chat, "/v1/chat/completions", body).unwrap();
        let other = adapt(Endpoint::Chat, "/", b"{}", &asked, &COPY);
        assert_eq!(other, Err(Unfit::OtherBody));
    }
}
