//! Our own answers: errors in the form every `OpenAI` client understands.

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{
    Response, StatusCode, Version,
    header::{CONNECTION, CONTENT_TYPE, HeaderValue, RETRY_AFTER},
};
use serde_json::json;

use crate::upstream::{Body, Invalid};

/// Everything we answer ourselves instead of a provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Own {
    /// The request's body is over the limit.
    BodyTooLarge,
    /// The request's body broke off.
    BodyBroken,
    /// The request's body stalled, or as good as.
    BodyTooSlow,
    /// CONNECT, TRACE, a WebSocket, or a target that is not a path.
    NotServed,
    /// More than one host or length, or none of what is needed.
    Malformed,
    /// A path that could lead elsewhere.
    BadPath,
    /// The path and query are over the limit.
    TargetTooLong,
    /// There is no place for one more request of its connection.
    Busy,
    /// The primary cannot be reached or broke off before its answer began.
    PrimaryUnreachable,
    /// What the primary answered is no answer.
    PrimaryInvalid(Invalid),
    /// The primary did not begin to answer in time.
    PrimaryTimeout,
    /// A defect of ours.
    Defect,
}

impl Own {
    fn parts(self) -> (StatusCode, &'static str, &'static str) {
        match self {
            Self::BodyTooLarge => (
                StatusCode::PAYLOAD_TOO_LARGE,
                "request_too_large",
                "the request body is larger than this proxy accepts (limits.body_bytes_max)",
            ),
            Self::BodyBroken => (
                StatusCode::BAD_REQUEST,
                "request_incomplete",
                "the request body ended before it was complete",
            ),
            Self::BodyTooSlow => (
                StatusCode::REQUEST_TIMEOUT,
                "request_too_slow",
                "the request body came too slowly (limits.body_read_timeout)",
            ),
            Self::NotServed => (
                StatusCode::NOT_IMPLEMENTED,
                "not_served",
                "this proxy serves plain paths only: no CONNECT, no TRACE, no WebSocket, no other host",
            ),
            Self::Malformed => (
                StatusCode::BAD_REQUEST,
                "malformed_request",
                "a request needs one plain Host, and one Content-Length or \
                 `Transfer-Encoding: chunked` if it has a body",
            ),
            Self::BadPath => (
                StatusCode::BAD_REQUEST,
                "bad_path",
                "the path has a segment of dots, or is not plain ASCII",
            ),
            Self::TargetTooLong => (
                StatusCode::URI_TOO_LONG,
                "target_too_long",
                "the path and query are longer than 16 KiB",
            ),
            Self::Busy => (
                StatusCode::SERVICE_UNAVAILABLE,
                "busy",
                "this proxy has no place for one more request now (limits.connections_max, and \
                 the limit of open files)",
            ),
            Self::PrimaryUnreachable => (
                StatusCode::BAD_GATEWAY,
                "primary_unreachable",
                "the primary provider could not be reached or broke off before answering",
            ),
            Self::PrimaryInvalid(why) => (StatusCode::BAD_GATEWAY, "primary_invalid", lie(why)),
            Self::PrimaryTimeout => (
                StatusCode::GATEWAY_TIMEOUT,
                "primary_timeout",
                "the primary provider did not begin to answer in time (limits.upstream_timeout)",
            ),
            Self::Defect => (
                StatusCode::INTERNAL_SERVER_ERROR,
                "internal",
                "this proxy failed to handle the request; the provider was not at fault",
            ),
        }
    }

    /// Whether it is the request that is not taken.
    fn refuses(self) -> bool {
        match self {
            Self::BodyTooLarge
            | Self::BodyBroken
            | Self::BodyTooSlow
            | Self::NotServed
            | Self::Malformed
            | Self::BadPath
            | Self::TargetTooLong => true,
            Self::Busy
            | Self::PrimaryUnreachable
            | Self::PrimaryInvalid(_)
            | Self::PrimaryTimeout
            | Self::Defect => false,
        }
    }

    /// The answer. What the caller sends after a request that was refused is not listened to.
    pub(super) fn response(self, version: Version) -> Response<Body> {
        let (status, code, message) = self.parts();
        let kind = if status.is_client_error() { "invalid_request_error" } else { "proxy_error" };
        let body = json!({
            "error": { "message": message, "type": kind, "param": null, "code": code }
        });
        let mut response = Response::new(full(Bytes::from(body.to_string())));
        *response.status_mut() = status;
        let json = HeaderValue::from_static("application/json");
        response.headers_mut().insert(CONTENT_TYPE, json);
        if self == Self::Busy {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        if self.refuses() && version != Version::HTTP_2 {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

/// What is said of an answer of the primary that is none.
fn lie(why: Invalid) -> &'static str {
    match why {
        Invalid::Form => "the primary provider's answer is not HTTP, or its head is too large",
        Invalid::Framing => "the primary provider's answer says in two ways where it ends",
        Invalid::Switch => "the primary provider wants to speak another protocol, unasked",
        Invalid::Flood => "the primary provider sends interim answers without end",
    }
}

/// A body that is whole already.
pub(super) fn full(bytes: Bytes) -> Body {
    Full::new(bytes).map_err(|never| match never {}).boxed()
}
