//! What comes in: the body within its limits, the marks, the facts a route needs.

use std::collections::HashMap;

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited, StreamBody};
use hyper::{
    body::{Body as _, Frame, Incoming},
    header::HeaderMap,
    http::request::Parts,
};

use crate::dialect::{self, Asked};
use crate::domain::{Endpoint, Facts, Key, PairId, Skip, Sticky};
use crate::tasks::BoxError;
use crate::upstream::Body;

use super::{
    answer::Own,
    headers,
    patience::{Paced, TooSlow},
};

/// A request body as far as it may be looked at.
pub(super) enum Gathered {
    /// All of it.
    Whole(Bytes),
    /// More than may be copied: what was read, followed by the rest.
    Long(Body),
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
    /// What sticks to a side: the first of these that a request has.
    pub sticky: Vec<Sticky>,
    /// For requests without a mark of their own.
    pub data_default: Vec<String>,
}

/// The whole body within a limit, never buffered.
pub(super) fn limited(body: Paced<Incoming>, bytes_max: usize) -> Body {
    Limited::new(body, bytes_max).boxed()
}

/// What to answer when a request could not be passed on because of its own body.
pub(super) fn fault(error: &BoxError) -> Option<Own> {
    let mut own = None;
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error.as_ref());
    while let Some(it) = cause {
        if it.is::<LengthLimitError>() {
            return Some(Own::BodyTooLarge);
        }
        if it.is::<TooSlow>() {
            return Some(Own::BodyTooSlow);
        }
        if it.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_user) {
            own = Some(Own::BodyBroken);
        }
        cause = it.source();
    }
    own
}

/// Reads a body as far as it may be copied.
///
/// # Errors
/// When it breaks off, or stalls.
pub(super) async fn gather(
    mut body: Paced<Incoming>,
    copy_bytes_max: usize,
    bytes_max: usize,
) -> Result<Gathered, Own> {
    if let Some(length) = body.size_hint().exact()
        && u64::try_from(copy_bytes_max).is_ok_and(|it| it < length)
    {
        return Ok(Gathered::Long(limited(body, bytes_max)));
    }
    let mut read = BytesMut::new();
    loop {
        let Some(frame) = body.frame().await else { return Ok(Gathered::Whole(read.freeze())) };
        let frame = frame.map_err(|error| fault(&error).unwrap_or(Own::BodyBroken))?;
        let Ok(chunk) = frame.into_data() else { continue };
        if read.is_empty() && body.is_end_stream() {
            return Ok(Gathered::Whole(chunk));
        }
        read.extend_from_slice(&chunk);
        if copy_bytes_max < read.len() {
            return Ok(Gathered::Long(joined(read.freeze(), body, bytes_max)));
        }
    }
}

/// What was read, and then the rest.
fn joined(read: Bytes, rest: Paced<Incoming>, bytes_max: usize) -> Body {
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
    pub(super) fn facts(
        &self,
        id: PairId,
        head: &Parts,
        (endpoint, asked, body): (Endpoint, &Asked, &[u8]),
    ) -> Facts {
        let headers = &head.headers;
        let marks = self.marks(headers, head.uri.query().unwrap_or(""));
        let own = |name: &str, mark: &str| {
            let text = headers::text(headers, name);
            if text.is_empty() { mark.to_owned() } else { text.to_owned() }
        };
        let some = |text: String| (!text.is_empty()).then_some(text);
        let key = self.sticky.iter().find_map(|it| match it {
            Sticky::Header(name) => some(own(name, "")).map(Key::Conversation),
            Sticky::Conversation => {
                let named = asked.conversation.as_deref().unwrap_or("");
                some(own("x-crossfade-conversation", named)).map(Key::Conversation)
            }
            Sticky::User => {
                let named = asked.user.as_deref().unwrap_or("");
                some(own("x-crossfade-user", named)).map(Key::User)
            }
            Sticky::Opening => dialect::opening(endpoint, body).map(Key::Conversation),
        });
        let key = key.unwrap_or_else(|| Key::Request(own("x-request-id", &id.to_string())));
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
        facts_by(Sticky::DEFAULT.to_vec(), list, body)
    }

    fn facts_by(sticky: Vec<Sticky>, list: &[(&'static str, &'static str)], body: &str) -> Facts {
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
            sticky,
            data_default: vec!["internal".to_owned()],
        };
        let asked = dialect::ask(Endpoint::Chat, "/v1/chat/completions", body.as_bytes()).unwrap();
        let mut request = hyper::Request::post("/v1/chat/completions?a=b&key=k-query");
        *request.headers_mut().unwrap() = headers(list);
        let (head, ()) = request.body(()).unwrap().into_parts();
        callers.facts(PairId(7), &head, (Endpoint::Chat, &asked, body.as_bytes()))
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

    /// M10
    #[test]
    fn the_key_is_the_first_part_that_a_request_has() {
        let body = r#"{"model":"m","user":"u","messages":[{"role":"user","content":"a"}]}"#;
        let header = || Sticky::Header("x-session".to_owned());
        let by = |list: &[(&'static str, &'static str)], sticky: &[Sticky]| {
            facts_by(sticky.to_vec(), list, body).key
        };
        let session = by(&[("x-session", "s-1")], &[header(), Sticky::User]);
        assert_eq!(session, Key::Conversation("s-1".to_owned()));
        assert_eq!(by(&[], &[header(), Sticky::User]), Key::User("u".to_owned()));
        let opening = r#"{"role":"user","content":"a"}"#.to_owned();
        assert_eq!(by(&[], &[Sticky::Opening, Sticky::User]), Key::Conversation(opening));
        assert_eq!(by(&[("x-request-id", "r")], &[]), Key::Request("r".to_owned()));
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
