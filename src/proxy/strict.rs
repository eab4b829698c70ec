//! Heads that two readers could read in two ways are refused before anything else is done.
//!
//! hyper refuses what breaks the grammar and writes every request anew, so that a provider gets
//! one length or one `chunked`. What it lets through and another reader may see otherwise is here.

use hyper::{
    Method, Version,
    header::{
        CONTENT_LENGTH, HOST, HeaderMap, HeaderName, HeaderValue, TRANSFER_ENCODING, UPGRADE,
    },
    http::request::Parts,
};

use super::{answer::Own, headers, serve::path_and_query};

/// Longest path and query, in bytes.
const TARGET_LEN_MAX: usize = 16 << 10;

/// Refuses a head that is not plainly one request for one path here.
///
/// # Errors
/// What the caller is told instead.
pub(super) fn check(head: &Parts) -> Result<(), Own> {
    let is_2 = head.version == Version::HTTP_2;
    let tunnel = head.method == Method::CONNECT || head.method == Method::TRACE;
    let elsewhere = !is_2 && head.uri.authority().is_some();
    if tunnel || elsewhere || !head.uri.path().starts_with('/') || wants_socket(&head.headers) {
        return Err(Own::NotServed);
    }
    let target = path_and_query(&head.uri);
    if TARGET_LEN_MAX < target.len() {
        return Err(Own::TargetTooLong);
    }
    if !target.bytes().all(|it| it.is_ascii_graphic()) || leaves(head.uri.path()) {
        return Err(Own::BadPath);
    }
    if !has_one_host(head) || !is_framed_once(&head.headers) {
        return Err(Own::Malformed);
    }
    Ok(())
}

/// Whether the caller wants to talk something else than HTTP from here on. An offer of HTTP/2 may
/// be passed over.
fn wants_socket(headers: &HeaderMap) -> bool {
    let asked = headers.get_all(UPGRADE).iter().filter_map(|it| it.to_str().ok());
    asked.flat_map(|it| it.split(',')).any(|it| it.trim().eq_ignore_ascii_case("websocket"))
}

/// Whether it says once, in plain letters, whom it is for. HTTP/1.0 need not say it.
fn has_one_host(head: &Parts) -> bool {
    let mut hosts = head.headers.get_all(HOST).iter().map(HeaderValue::as_bytes);
    let (host, more) = (hosts.next(), hosts.next());
    let authority = head.uri.authority().map(|it| it.as_str().as_bytes());
    let agree = match (host, authority) {
        (Some(host), Some(authority)) => host.eq_ignore_ascii_case(authority),
        (Some(_), None) | (None, Some(_)) => true,
        (None, None) => head.version == Version::HTTP_10,
    };
    let plain = |it: &[u8]| {
        let allowed = |it: &u8| it.is_ascii_alphanumeric() || b"-._~:[]%".contains(it);
        !it.is_empty() && it.iter().all(allowed)
    };
    agree && more.is_none() && host.is_none_or(plain) && authority.is_none_or(plain)
}

/// Whether nothing about the length of its body can be read in two ways.
fn is_framed_once(headers: &HeaderMap) -> bool {
    let count = |name: HeaderName| headers.get_all(name).iter().count();
    let lengths = count(CONTENT_LENGTH);
    match count(TRANSFER_ENCODING) {
        0 => lengths <= 1,
        1 => {
            let coding = headers::text(headers, TRANSFER_ENCODING);
            lengths == 0 && coding.eq_ignore_ascii_case("chunked")
        }
        _ => false,
    }
}

/// Whether a reader who tidies paths up might end above or outside of where this one points: by a
/// segment of dots, also with parameters or written in percent. Two slashes at the start are sent by
/// a well-known SDK, and are a path like any other: what is asked is below a provider's base URL.
fn leaves(path: &str) -> bool {
    let plain = |code: &str| match code.to_ascii_lowercase().as_str() {
        "2e" => Some('.'),
        "2f" | "5c" => Some('/'),
        "3b" => Some(';'),
        _ => None,
    };
    if !path.contains('.') && !path.contains("%2") {
        return false;
    }
    let mut read = String::with_capacity(path.len());
    let mut rest = path;
    while let Some(next) = rest.chars().next() {
        let code = if next == '%' { rest.get(1..3).and_then(plain) } else { None };
        read.push(code.unwrap_or(if next == '\\' { '/' } else { next }));
        rest = &rest[if code.is_some() { 3 } else { next.len_utf8() }..];
    }
    let name = |it: &str| it.split(';').next().is_some_and(|it| it == "." || it == "..");
    read.split('/').any(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_may_lead_elsewhere_is_known_however_it_is_written() {
        #[rustfmt::skip]
        let elsewhere = [
            "/v1/..", "/v1/../x", "/v1/./x", "/..;/x",
            "/..;a=b", "/%2e%2e/x", "/.%2E/x", "/v1/%2e", "/a%2f..%2fb", "/a\\..\\b", "/..%3b/x",
        ];
        for path in elsewhere {
            assert!(leaves(path), "{path}");
        }
        #[rustfmt::skip]
        let here = [
            "/", "//openai/deployments", "/v1", "/v1/", "/v1//models", "/v1/...", "/v1/a..b", "/v1/.hidden", "/v1/a%2Fb", "/%",
            "/%2", "/v1/models/a:b", "/v1/%252e%252e/x", "/;..", "/v1/é",
        ];
        for path in here {
            assert!(!leaves(path), "{path}");
        }
    }

    fn verdict(build: hyper::http::request::Builder) -> Result<(), Own> {
        check(&build.body(()).unwrap().into_parts().0)
    }

    #[test]
    fn one_host_is_needed_and_both_places_of_http_2_must_agree() {
        let ask = || hyper::Request::get("/v1/models");
        assert_eq!(verdict(ask().header("host", "a:80")), Ok(()));
        assert_eq!(verdict(ask()), Err(Own::Malformed));
        assert_eq!(verdict(ask().version(Version::HTTP_10)), Ok(()));
        assert_eq!(verdict(ask().header("host", "a").header("host", "a")), Err(Own::Malformed));
        for host in ["", "a b", "a@b", "a,b", "a/b"] {
            assert_eq!(verdict(ask().header("host", host)), Err(Own::Malformed), "{host}");
        }
        let two = || hyper::Request::get("http://a/v1/models").version(Version::HTTP_2);
        assert_eq!(verdict(two()), Ok(()));
        assert_eq!(verdict(two().header("host", "A")), Ok(()));
        assert_eq!(verdict(two().header("host", "b")), Err(Own::Malformed));
        let one = hyper::Request::get("http://a/v1/models").header("host", "a");
        assert_eq!(verdict(one), Err(Own::NotServed));
    }

    #[test]
    fn a_body_has_one_length_or_is_chunked() {
        let ask = || hyper::Request::post("/").header("host", "a");
        assert_eq!(verdict(ask().header("transfer-encoding", "Chunked")), Ok(()));
        for coding in ["identity", "gzip, chunked", "chunked, chunked", "xchunked", ""] {
            let refused = verdict(ask().header("transfer-encoding", coding));
            assert_eq!(refused, Err(Own::Malformed), "{coding}");
        }
        let both = ask().header("transfer-encoding", "chunked").header("content-length", "1");
        assert_eq!(verdict(both), Err(Own::Malformed));
    }

    #[test]
    fn what_is_no_request_for_a_path_is_not_served() {
        let ask = |method: &str, target: &str| {
            hyper::Request::builder().method(method).uri(target).header("host", "a")
        };
        for (method, target) in [("TRACE", "/"), ("CONNECT", "a:443"), ("OPTIONS", "*")] {
            assert_eq!(verdict(ask(method, target)), Err(Own::NotServed), "{method}");
        }
        let upgrade = |to: &str| verdict(ask("GET", "/").header("upgrade", to));
        assert_eq!(upgrade("WebSocket"), Err(Own::NotServed));
        assert_eq!(upgrade("h2c"), Ok(()));
        let long = format!("/{}", "a".repeat(TARGET_LEN_MAX));
        assert_eq!(verdict(ask("GET", &long)), Err(Own::TargetTooLong));
    }
}
