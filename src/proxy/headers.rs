//! Which headers pass: hop-by-hop ones never, ours never outwards, a copy's by a short list.

use hyper::header::{
    ACCEPT, ACCEPT_ENCODING, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderMap, HeaderName,
    HeaderValue, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
    USER_AGENT,
};

/// Prefix of headers that speak to or of Crossfade and never reach a provider.
const OURS: &str = "x-crossfade-";
/// Marks a copy, so that a proxy further on does not copy it again.
pub(super) const COPY_MARK: HeaderName = HeaderName::from_static("x-crossfade-copy");

/// Hop-by-hop by RFC 9110, 7.6.1, and its predecessors.
const HOP_BY_HOP: [HeaderName; 9] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// What a copy may carry besides its own credential: nothing of the caller's identity.
const COPIED: [HeaderName; 7] = [
    ACCEPT,
    CONTENT_TYPE,
    USER_AGENT,
    HeaderName::from_static("anthropic-version"),
    HeaderName::from_static("anthropic-beta"),
    HeaderName::from_static("openai-beta"),
    HeaderName::from_static("traceparent"),
];

/// Drops hop-by-hop headers, also those the `Connection` header names.
pub(super) fn end_to_end(headers: &mut HeaderMap) {
    drop_all(headers, |name| HOP_BY_HOP.contains(name));
}

/// Leaves the headers of a request as its primary gets them: the caller's own, end to end.
pub(super) fn to_primary(headers: &mut HeaderMap) {
    drop_all(headers, |name| {
        HOP_BY_HOP.contains(name)
            || *name == HOST
            || *name == CONTENT_LENGTH
            || name.as_str().starts_with(OURS)
    });
}

/// Drops these headers, and those the `Connection` header names. Mostly there are none.
fn drop_all(headers: &mut HeaderMap, dropped: impl Fn(&HeaderName) -> bool) {
    let named = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|it| it.to_str().ok())
        .flat_map(|it| it.split(','))
        .filter_map(|it| it.trim().parse().ok());
    let all: Vec<HeaderName> =
        named.chain(headers.keys().filter(|it| dropped(it)).cloned()).collect();
    for name in all {
        headers.remove(name);
    }
}

/// The headers of a request as a candidate gets them: what the answer depends on, no more.
pub(super) fn to_candidate(headers: &HeaderMap) -> HeaderMap {
    let mut copy = HeaderMap::new();
    for name in &COPIED {
        for value in headers.get_all(name) {
            copy.append(name.clone(), value.clone());
        }
    }
    copy.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    copy
}

/// Headers in which the dialects carry an API key.
pub(super) const CREDENTIALS: [&str; 4] =
    ["authorization", "x-api-key", "api-key", "x-goog-api-key"];

/// Whether the caller brought a credential of its own.
pub(super) fn has_credential(headers: &HeaderMap) -> bool {
    CREDENTIALS.iter().any(|it| headers.contains_key(*it))
}

/// A header as text; empty when it is missing or not text.
pub(super) fn text<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers.get(name).and_then(|it| it.to_str().ok()).unwrap_or("").trim()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(list: &[(&'static str, &'static str)]) -> HeaderMap {
        list.iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect()
    }

    #[test]
    fn hop_by_hop_headers_and_those_named_by_connection_are_dropped() {
        let mut all = headers(&[
            ("connection", "close, X-Private"),
            ("x-private", "1"),
            ("te", "trailers"),
            ("keep-alive", "timeout=5"),
            ("transfer-encoding", "chunked"),
            ("x-request-id", "7"),
        ]);
        end_to_end(&mut all);
        assert_eq!(all.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["x-request-id"]);
    }

    #[test]
    fn a_candidate_never_sees_the_callers_identity() {
        let caller = headers(&[
            ("authorization", "Bearer secret"),
            ("x-api-key", "secret"),
            ("cookie", "session=1"),
            ("openai-organization", "org"),
            ("x-forwarded-for", "1.2.3.4"),
            ("accept-encoding", "gzip"),
            ("content-type", "application/json"),
        ]);
        let copy = to_candidate(&caller);
        assert_eq!(copy.len(), 2);
        assert_eq!(text(&copy, "content-type"), "application/json");
        assert_eq!(text(&copy, "accept-encoding"), "identity");
    }

    #[test]
    fn the_primary_gets_everything_but_our_own_marks() {
        let caller = headers(&[
            ("authorization", "Bearer secret"),
            ("x-crossfade-feature", "chat"),
            ("host", "proxy"),
            ("content-length", "3"),
            ("accept-encoding", "gzip"),
        ]);
        let mut sent = caller;
        to_primary(&mut sent);
        let names: Vec<&str> = sent.keys().map(HeaderName::as_str).collect();
        assert_eq!(names, ["authorization", "accept-encoding"]);
    }
}
