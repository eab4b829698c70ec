//! What comes in: the body within its limits, the marks, the facts a route needs.

use std::{collections::HashMap, time::Duration};

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited, StreamBody};
use hyper::{
    body::{Body as _, Frame, Incoming},
    header::HeaderMap,
    http::request::Parts,
};
use tokio::time::timeout;

use crate::dialect::{self, Asked};
use crate::domain::{Endpoint, Facts, Key, PairId, Skip};
use crate::memory::Held;
use crate::tasks::BoxError;
use crate::upstream::Body;

use super::{answer::Own, headers};

/// Longest wait for the next part of a request's body.
const BODY_WAIT: Duration = Duration::from_secs(30);

/// Longest mark that is read, in bytes; marks are remembered for many requests.
const MARK_LEN_MAX: usize = 256;

/// A request body as far as it may be looked at.
pub(super) enum Gathered {
    /// All of it, and the memory that it takes.
    Whole(Bytes, Held),
    /// More than may be copied or held: what was read, followed by the rest.
    Long(Body, Skip),
}

/// What an application is known by: its API key, and the marks that go with it.
#[derive(Clone, Debug, Default)]
pub struct Marks {
    /// The feature; empty when unmarked.
    pub feature: String,
    /// The segment; empty when unmarked.
    pub segment: String,
    /// The data classes.
    pub data: Vec<String>,
}

/// Marks by API key, and the data classes of requests that say nothing.
#[derive(Clone, Debug, Default)]
pub struct Callers {
    /// By key.
    pub by_key: HashMap<String, Marks>,
    /// For requests without a mark of their own.
    pub data_default: Vec<String>,
}

/// The whole body within a limit, never buffered.
pub(super) fn limited(body: Incoming, bytes_max: usize) -> Body {
    Limited::new(body, bytes_max).boxed()
}

/// Whether an error comes from a body over its limit.
pub(super) fn is_too_large(error: &BoxError) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error.as_ref());
    while let Some(it) = cause {
        if it.is::<LengthLimitError>() {
            return true;
        }
        cause = it.source();
    }
    false
}

/// Reads a body as far as it may be copied.
///
/// # Errors
/// When it breaks off, or stalls.
pub(super) async fn gather(
    mut body: Incoming,
    (copy_bytes_max, bytes_max): (usize, usize),
    mut held: Held,
) -> Result<Gathered, Own> {
    if let Some(length) = body.size_hint().exact()
        && u64::try_from(copy_bytes_max).is_ok_and(|it| it < length)
    {
        return Ok(Gathered::Long(limited(body, bytes_max), Skip::Size));
    }
    let mut read = BytesMut::new();
    loop {
        let frame = timeout(BODY_WAIT, body.frame()).await.map_err(|_| Own::BodyBroken)?;
        let Some(frame) = frame else { return Ok(Gathered::Whole(read.freeze(), held)) };
        let Ok(chunk) = frame.map_err(|_| Own::BodyBroken)?.into_data() else { continue };
        let is_held = held.try_grow(chunk.len()).is_ok();
        if is_held && read.is_empty() && body.is_end_stream() {
            return Ok(Gathered::Whole(chunk, held));
        }
        read.extend_from_slice(&chunk);
        let skip = if is_held { Skip::Size } else { Skip::Memory };
        if !is_held || copy_bytes_max < read.len() {
            return Ok(Gathered::Long(joined(read.freeze(), body, bytes_max), skip));
        }
    }
}

/// What was read, and then the rest.
fn joined(read: Bytes, rest: Incoming, bytes_max: usize) -> Body {
    let left = bytes_max.saturating_sub(read.len());
    let first = Full::new(read).map_err(|never| -> BoxError { match never {} });
    let chain = tokio_stream::StreamExt::chain(frames(first), frames(Limited::new(rest, left)));
    BodyExt::boxed(StreamBody::new(chain))
}

fn frames<B>(body: B) -> impl tokio_stream::Stream<Item = Result<Frame<Bytes>, BoxError>>
where
    B: hyper::body::Body<Data = Bytes, Error = BoxError> + Unpin,
{
    http_body_util::BodyStream::new(body)
}

/// Why a request may not be copied, by its headers alone.
fn barred(headers: &HeaderMap) -> Option<Skip> {
    let retry = headers::text(headers, "x-stainless-retry-count");
    if headers.contains_key(&headers::COPY_MARK) {
        Some(Skip::Loop)
    } else if !retry.is_empty() && retry != "0" {
        Some(Skip::Retry)
    } else if headers.contains_key("idempotency-key") {
        Some(Skip::Idempotent)
    } else {
        None
    }
}

/// What kind of request it is, or why no rollout may look at its body.
pub(super) fn endpoint(head: &Parts) -> Result<Endpoint, Skip> {
    match dialect::endpoint(head.method.as_str(), head.uri.path()) {
        Some(endpoint) if is_json(&head.headers) => Ok(endpoint),
        Some(_) => Err(Skip::NotJson),
        None => Err(Skip::Endpoint),
    }
}

/// Whether the body calls itself JSON.
fn is_json(headers: &HeaderMap) -> bool {
    let kind = headers::text(headers, "content-type").split(';').next().unwrap_or("").trim();
    kind.eq_ignore_ascii_case("application/json")
}

impl Callers {
    /// Everything the route needs to know: headers first, then the API key, then the body.
    pub(super) fn facts(&self, id: PairId, head: &Parts, asked: &Asked) -> Facts {
        let headers = &head.headers;
        let marks = self.marks(headers, head.uri.query().unwrap_or(""));
        let own = |name: &str, mark: &str| {
            let text = headers::text(headers, name);
            let text = text.get(..MARK_LEN_MAX).unwrap_or(text);
            if text.is_empty() { mark.to_owned() } else { text.to_owned() }
        };
        let conversation =
            own("x-crossfade-conversation", asked.conversation.as_deref().unwrap_or(""));
        let user = own("x-crossfade-user", asked.user.as_deref().unwrap_or(""));
        let key = match (conversation.is_empty(), user.is_empty()) {
            (false, _) => Key::Conversation(conversation),
            (true, false) => Key::User(user),
            (true, true) => Key::Request(own("x-request-id", &id.to_string())),
        };
        Facts {
            key,
            feature: own("x-crossfade-feature", &marks.feature),
            segment: own("x-crossfade-segment", &marks.segment),
            task: own("x-crossfade-task", ""),
            model: asked.model.clone(),
            data: self.data(headers, &marks),
            barred: barred(headers).or(asked.barred),
            tie: asked.tie,
        }
    }

    /// The marks of every key a request carries: the first one's feature and segment, all data.
    fn marks(&self, headers: &HeaderMap, query: &str) -> Marks {
        let mut all = Marks::default();
        for marks in api_keys(headers, query).filter_map(|it| self.by_key.get(it)) {
            if all.feature.is_empty() && all.segment.is_empty() {
                (all.feature, all.segment) = (marks.feature.clone(), marks.segment.clone());
            }
            all.data.extend(marks.data.iter().cloned());
        }
        all
    }

    /// Data classes of the header and the key together; the default only where neither says any.
    fn data(&self, headers: &HeaderMap, marks: &Marks) -> Vec<String> {
        let named = headers
            .get_all("x-crossfade-data")
            .iter()
            .map(|it| it.to_str().unwrap_or("unreadable"))
            .flat_map(|it| it.split(','))
            .map(|it| it.trim().to_ascii_lowercase())
            .filter(|it| !it.is_empty());
        let mut all: Vec<String> = named.chain(marks.data.iter().cloned()).collect();
        if all.is_empty() {
            all.clone_from(&self.data_default);
        }
        all
    }
}

/// Query parameters in which an API key may stand.
const QUERY_KEYS: [&str; 3] = ["key", "api_key", "access_token"];

/// Every API key a request carries, wherever a dialect puts one.
fn api_keys<'a>(headers: &'a HeaderMap, query: &'a str) -> impl Iterator<Item = &'a str> {
    let in_headers = headers::CREDENTIALS.iter().flat_map(|name| headers.get_all(*name));
    let in_headers = in_headers.filter_map(|it| it.to_str().ok()).map(|it| {
        // `Bearer KEY`, whatever the case of the scheme; a bare key has no space.
        it.trim().rsplit_once(' ').map_or(it.trim(), |(_, key)| key)
    });
    let in_query = query.split('&').filter_map(|it| it.split_once('='));
    let in_query = in_query.filter(|(name, _)| QUERY_KEYS.contains(name)).map(|(_, key)| key);
    in_headers.chain(in_query)
}

#[cfg(test)]
mod tests {
    use hyper::header::{HeaderName, HeaderValue};

    use super::*;

    fn headers(list: &[(&'static str, &'static str)]) -> HeaderMap {
        list.iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect()
    }

    fn facts(list: &[(&'static str, &'static str)], body: &str) -> Facts {
        let marks = Marks {
            feature: "batch".to_owned(),
            segment: "free".to_owned(),
            data: vec!["pii".to_owned()],
        };
        let callers = Callers {
            by_key: HashMap::from([
                ("k-1".to_owned(), marks),
                ("k-query".to_owned(), Marks { data: vec!["q".to_owned()], ..Marks::default() }),
            ]),
            data_default: vec!["internal".to_owned()],
        };
        let asked = dialect::ask(Endpoint::Chat, "/v1/chat/completions", body.as_bytes()).unwrap();
        let mut request = hyper::Request::post("/v1/chat/completions?a=b&key=k-query");
        *request.headers_mut().unwrap() = headers(list);
        let (head, ()) = request.body(()).unwrap().into_parts();
        callers.facts(PairId(7), &head, &asked)
    }

    const BODY: &str = r#"{"model":"gpt","messages":[],"user":"u-1"}"#;

    /// M10 M11
    #[test]
    fn the_conversation_is_the_key_else_the_user_else_the_request() {
        assert_eq!(facts(&[], BODY).key, Key::User("u-1".to_owned()));
        let conversation = facts(&[("x-crossfade-conversation", "c-1")], BODY);
        assert_eq!(conversation.key, Key::Conversation("c-1".to_owned()));
        let request = facts(&[("x-request-id", "r-1")], r#"{"model":"gpt","messages":[]}"#);
        assert_eq!(request.key, Key::Request("r-1".to_owned()));
    }

    /// M8
    #[test]
    fn data_classes_of_header_and_key_add_up_and_the_default_fills_a_gap() {
        assert_eq!(facts(&[], BODY).data, ["q"], "a key in the query counts too");
        let keyed = facts(&[("authorization", "Bearer k-1"), ("x-crossfade-data", "EU, x")], BODY);
        assert_eq!(keyed.data, ["eu", "x", "pii", "q"]);
        assert_eq!(keyed.feature, "batch");
        for scheme in ["BEARER k-1", "k-1"] {
            assert_eq!(facts(&[("authorization", scheme)], BODY).data, ["pii", "q"]);
        }
        let both = facts(&[("x-api-key", "k-1"), ("authorization", "Bearer other")], BODY);
        assert_eq!(both.data, ["pii", "q"]);
        assert_eq!(Callers::default().data(&HeaderMap::new(), &Marks::default()), [""; 0]);
    }

    #[test]
    fn retries_loops_and_idempotent_requests_are_never_copied() {
        assert_eq!(facts(&[("x-stainless-retry-count", "0")], BODY).barred, None);
        assert_eq!(facts(&[("x-stainless-retry-count", "1")], BODY).barred, Some(Skip::Retry));
        assert_eq!(facts(&[("x-crossfade-copy", "1")], BODY).barred, Some(Skip::Loop));
        assert_eq!(facts(&[("idempotency-key", "a")], BODY).barred, Some(Skip::Idempotent));
    }
}
