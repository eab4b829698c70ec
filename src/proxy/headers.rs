//! Which headers pass: hop-by-hop ones never, ours never outwards, a copy's by a short list.

use hyper::header::{
    ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, AsHeaderName, CONNECTION, CONTENT_TYPE, HeaderMap,
    HeaderName, HeaderValue, USER_AGENT,
};

use crate::domain::PairId;

/// Prefix of headers that speak to or of Crossfade and never reach a provider.
const OURS: &str = "x-crossfade-";
/// Marks a copy, so that a proxy further on does not copy it again.
pub(super) const COPY_MARK: HeaderName = HeaderName::from_static("x-crossfade-copy");

/// Says which trace a request belongs to (W3C Trace Context).
const TRACE_PARENT: HeaderName = HeaderName::from_static("traceparent");

/// What a copy may carry besides its own credential: nothing of the caller's identity.
const COPIED: [HeaderName; 6] = [
    ACCEPT,
    CONTENT_TYPE,
    USER_AGENT,
    HeaderName::from_static("anthropic-version"),
    HeaderName::from_static("anthropic-beta"),
    HeaderName::from_static("openai-beta"),
];

/// Drops hop-by-hop headers, also those the `Connection` header names.
pub(super) fn end_to_end(headers: &mut HeaderMap) {
    drop_all(headers, is_hop_by_hop);
}

/// Leaves the headers of a request as its primary gets them: the caller's own, end to end.
///
/// Who asked us is not for the provider to know. What was expected before the body was sent is
/// answered here: the body is asked for when the primary is.
pub(super) fn to_primary(headers: &mut HeaderMap) {
    drop_all(headers, |name| {
        is_hop_by_hop(name)
            || matches!(name, "host" | "content-length" | "expect" | "forwarded")
            || name.starts_with("x-forwarded-")
            || name.starts_with(OURS)
    });
}

/// Whether a header is hop-by-hop, by RFC 9110, 7.6.1, and its predecessors.
fn is_hop_by_hop(name: &str) -> bool {
    matches!(
        name,
        "connection"
            | "keep-alive"
            | "proxy-connection"
            | "proxy-authenticate"
            | "proxy-authorization"
            | "te"
            | "trailer"
            | "transfer-encoding"
            | "upgrade"
    )
}

/// Drops these headers, `Connection` among them, and those it names. Mostly there are none.
fn drop_all(headers: &mut HeaderMap, dropped: impl Fn(&str) -> bool) {
    let mut all: Vec<HeaderName> =
        headers.keys().filter(|it| dropped(it.as_str())).cloned().collect();
    if all.contains(&CONNECTION) {
        let listed = headers.get_all(CONNECTION).iter().filter_map(|it| it.to_str().ok());
        all.extend(listed.flat_map(|it| it.split(',')).filter_map(|it| it.trim().parse().ok()));
    }
    for name in all {
        headers.remove(name);
    }
}

/// The headers of a request as a candidate gets them: what the answer depends on, no more. It is
/// in the trace of the request it was made from, as a step of its own.
pub(super) fn to_candidate(headers: &HeaderMap, request: PairId) -> HeaderMap {
    let mut copy = HeaderMap::new();
    for name in &COPIED {
        for value in headers.get_all(name) {
            copy.append(name.clone(), value.clone());
        }
    }
    copy.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    if let Some(value) = continued(headers, request) {
        copy.insert(TRACE_PARENT, value);
    }
    copy
}

/// The same trace one step on; none where there is no valid one. The step is the second half of
/// the request's id, so that either can be found by the other.
fn continued(headers: &HeaderMap, request: PairId) -> Option<HeaderValue> {
    let mut given = headers.get_all(TRACE_PARENT).iter();
    let (Some(parent), None) = (given.next(), given.next()) else { return None };
    let mut fields = parent.to_str().ok()?.split('-');
    let mut field = |len: usize| {
        let hex = |it: u8| it.is_ascii_digit() || (b'a'..=b'f').contains(&it);
        fields.next().filter(|it| it.len() == len && it.bytes().all(hex))
    };
    let (version, trace, step, flags) = (field(2)?, field(32)?, field(16)?, field(2)?);
    let unset = |it: &str| it.bytes().all(|it| it == b'0');
    let longer = fields.next().is_some();
    if version == "ff" || unset(trace) || unset(step) || (version == "00" && longer) {
        return None;
    }
    let step = request.0 & u128::from(u64::MAX);
    HeaderValue::try_from(format!("00-{trace}-{step:016x}-{flags}")).ok()
}

/// Headers in which the dialects carry an API key.
pub(super) static CREDENTIALS: [HeaderName; 4] = [
    AUTHORIZATION,
    HeaderName::from_static("x-api-key"),
    HeaderName::from_static("api-key"),
    HeaderName::from_static("x-goog-api-key"),
];

/// How long an answer asks to be left alone, as [`crate::upstream::retry_after_ms`] reads it; empty
/// when it does not.
pub(super) fn retry_after(headers: &HeaderMap) -> String {
    match text(headers, "retry-after-ms") {
        "" => text(headers, "retry-after").to_owned(),
        ms => format!("{ms}ms"),
    }
}

/// A header as text; empty when it is missing or not text. A name that is known before costs much
/// less as a [`HeaderName`].
pub(super) fn text(headers: &HeaderMap, name: impl AsHeaderName) -> &str {
    headers.get(name).and_then(|it| it.to_str().ok()).unwrap_or("").trim()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::proxy) fn headers(list: &[(&'static str, &'static str)]) -> HeaderMap {
        list.iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect()
    }

    #[test]
    fn hop_by_hop_headers_and_those_named_by_connection_are_dropped_both_ways() {
        let mut all = headers(&[
            ("connection", "close, X-Private"),
            ("x-private", "1"),
            ("te", "trailers"),
            ("trailer", "x-sum"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "keep-alive"),
            ("proxy-authorization", "Basic a"),
            ("proxy-authenticate", "Basic"),
            ("upgrade", "h2c"),
            ("transfer-encoding", "chunked"),
            ("x-request-id", "7"),
        ]);
        let mut sent = all.clone();
        end_to_end(&mut all);
        to_primary(&mut sent);
        for left in [all, sent] {
            assert_eq!(left.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["x-request-id"]);
        }
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
        let copy = to_candidate(&caller, PairId(7));
        assert_eq!(copy.len(), 2);
        assert_eq!(text(&copy, "content-type"), "application/json");
        assert_eq!(text(&copy, "accept-encoding"), "identity");
    }

    #[test]
    fn the_finer_of_two_ways_to_ask_for_rest_counts() {
        let both = headers(&[("retry-after", "2"), ("retry-after-ms", "1500")]);
        assert_eq!(retry_after(&both), "1500ms");
        assert_eq!(retry_after(&headers(&[("retry-after", " 2 ")])), "2");
        assert_eq!(retry_after(&HeaderMap::new()), "");
    }

    #[test]
    fn the_primary_gets_everything_but_our_own_marks() {
        let caller = headers(&[
            ("authorization", "Bearer secret"),
            ("x-crossfade-feature", "chat"),
            ("host", "proxy"),
            ("content-length", "3"),
            ("expect", "100-continue"),
            ("forwarded", "for=192.0.2.1"),
            ("x-forwarded-for", "192.0.2.1"),
            ("traceparent", "any"),
            ("accept-encoding", "gzip"),
        ]);
        let mut sent = caller;
        to_primary(&mut sent);
        let names: Vec<&str> = sent.keys().map(HeaderName::as_str).collect();
        assert_eq!(names, ["authorization", "accept-encoding", "traceparent"]);
    }

    #[test]
    fn a_copy_is_a_new_step_of_the_same_trace() {
        let request = PairId(0x0190_0000_0000_7000_8000_0000_0000_00ff);
        let continued = |value| continued(&headers(&[("traceparent", value)]), request);
        let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let next = "00-4bf92f3577b34da6a3ce929d0e0e4736-80000000000000ff-01";
        assert_eq!(continued(parent).unwrap(), next);
        let later = "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more";
        assert_eq!(continued(later).unwrap(), next);
        for invalid in [
            "",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
        ] {
            assert_eq!(continued(invalid), None, "{invalid}");
        }
        assert_eq!(super::continued(&HeaderMap::new(), request), None);
    }
}
