//! Our own answers: errors in the form every `OpenAI` client understands.

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{
    Response, StatusCode,
    header::{CONTENT_TYPE, HeaderValue},
};
use serde_json::json;

use crate::upstream::Body;

/// Everything we answer ourselves instead of a provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Own {
    /// The request's body is over the limit.
    BodyTooLarge,
    /// The request's body broke off or stalled.
    BodyBroken,
    /// CONNECT, TRACE, or a target that is not a path.
    NotServed,
    /// The primary cannot be reached or broke off before its answer began.
    PrimaryUnreachable,
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
            Self::NotServed => (
                StatusCode::NOT_IMPLEMENTED,
                "not_served",
                "this proxy serves plain paths only: no CONNECT, no TRACE, no other host",
            ),
            Self::PrimaryUnreachable => (
                StatusCode::BAD_GATEWAY,
                "primary_unreachable",
                "the primary provider could not be reached or broke off before answering",
            ),
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

    /// The answer.
    pub(super) fn response(self) -> Response<Body> {
        let (status, code, message) = self.parts();
        let kind = if status.is_client_error() { "invalid_request_error" } else { "proxy_error" };
        let body = json!({
            "error": { "message": message, "type": kind, "param": null, "code": code }
        });
        let mut response = Response::new(full(Bytes::from(body.to_string())));
        *response.status_mut() = status;
        let json = HeaderValue::from_static("application/json");
        response.headers_mut().insert(CONTENT_TYPE, json);
        response
    }
}

/// A body that is whole already.
pub(super) fn full(bytes: Bytes) -> Body {
    Full::new(bytes).map_err(|never| match never {}).boxed()
}
