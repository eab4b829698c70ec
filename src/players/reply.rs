//! The HTTP side of an answer: errors, whole bodies, and streams that take their time.

use std::{convert::Infallible, future, io};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::{
    Response, StatusCode,
    body::Frame,
    header::{CONTENT_TYPE, HeaderValue},
};
use serde_json::{Value, json};
use tokio::{
    task,
    time::{self, Instant},
};
use tokio_stream::StreamExt;

use super::{
    plan::{Delays, Fault},
    prompt::Asked,
    server::{Body, CHAT_PATH, Fate, Reply},
};

/// One step of a body that takes its time.
enum Step {
    Send(Bytes),
    Cut,
    Stall,
}

/// A response of the kind a provider gives to what it will not answer.
pub(super) fn refuse(status: StatusCode, message: &str, kind: &str) -> Response<Body> {
    let error = json!({"message": message, "type": kind, "param": null, "code": null});
    json_response(status, &json!({"error": error}))
}

/// A JSON body, at once.
pub(super) fn json_response(status: StatusCode, body: &Value) -> Response<Body> {
    let mut response = Response::new(full(Bytes::from(body.to_string())));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// An error of the player's own making.
pub(super) fn failed(status: u16, message: &str) -> Reply {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let kind = match status {
        StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
        status if status.is_client_error() => "invalid_request_error",
        _ => "server_error",
    };
    Reply { fate: Fate::Error, response: Some(refuse(status, message, kind)) }
}

/// The answer to a prompt that is in no row.
pub(super) fn unknown(message: &str) -> Reply {
    let response = refuse(StatusCode::NOT_FOUND, message, "replay_unknown");
    Reply { fate: Fate::Unknown, response: Some(response) }
}

/// The answer to a request for anything but a chat completion.
pub(super) fn no_such_route() -> Reply {
    let message = format!("a player answers POST {CHAT_PATH} and, a provider, GET /v1/models");
    let response = refuse(StatusCode::NOT_FOUND, &message, "invalid_request_error");
    Reply { fate: Fate::Aside, response: Some(response) }
}

/// No answer at all: the connection is closed.
pub(super) fn close() -> Reply {
    Reply { fate: Fate::Error, response: None }
}

/// Waits until the caller gives up or the player stops.
pub(super) async fn hang() -> Infallible {
    future::pending().await
}

/// The JSON texts of an answer as a response: one body, or the events of a stream,
/// in the time they are to take from `start`, broken as the fault says.
pub(super) async fn deliver(
    texts: Vec<String>,
    asked: &Asked,
    fault: Fault,
    (start, delays): (Instant, Delays),
) -> Response<Body> {
    let mut frames: Vec<Bytes> = texts.into_iter().map(Bytes::from).collect();
    if fault == Fault::BadJson {
        let middle = frames.len() / 2;
        for frame in frames.iter_mut().skip(middle).take(1) {
            frame.truncate(frame.len() / 2);
        }
    }
    let head = if asked.stream() {
        for frame in &mut frames {
            *frame = event(frame);
        }
        time::sleep_until(start + delays.first_byte).await;
        "text/event-stream; charset=utf-8"
    } else {
        time::sleep_until(start + delays.total).await;
        "application/json"
    };
    let ending = match fault {
        Fault::CutBody => Some(Step::Cut),
        Fault::StallBody => Some(Step::Stall),
        Fault::None
        | Fault::Hang
        | Fault::Dead
        | Fault::Errors(_)
        | Fault::Every(_)
        | Fault::BadJson => None,
    };
    let body = match ending {
        Some(ending) => paced(half(frames), Some(ending), (start, delays)),
        None if asked.stream() => paced(frames, None, (start, delays)),
        None => full(frames.concat().into()),
    };
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(head));
    response
}

/// The frames, each flushed by itself, evenly spread between first byte and last.
fn paced(frames: Vec<Bytes>, ending: Option<Step>, (start, delays): (Instant, Delays)) -> Body {
    let gaps = u32::try_from(frames.len().saturating_sub(1)).unwrap_or(u32::MAX).max(1);
    let rest = delays.total.saturating_sub(delays.first_byte);
    let steps = (0..=u32::MAX).zip(frames.into_iter().map(Step::Send).chain(ending));
    let body = tokio_stream::iter(steps).then(move |(n, step)| async move {
        let due = start + delays.first_byte + rest * n.min(gaps) / gaps;
        if Instant::now() < due {
            time::sleep_until(due).await;
        } else {
            task::yield_now().await;
        }
        match step {
            Step::Send(bytes) => Ok(Frame::data(bytes)),
            Step::Cut => Err(io::Error::other("the player cut its answer on purpose")),
            Step::Stall => match hang().await {},
        }
    });
    StreamBody::new(body).boxed_unsync()
}

/// The first half: of many frames the first, of one its first bytes.
fn half(mut frames: Vec<Bytes>) -> Vec<Bytes> {
    match frames.as_mut_slice() {
        [whole] => whole.truncate(whole.len() / 2),
        many => {
            let keep = many.len() / 2;
            frames.truncate(keep);
        }
    }
    frames
}

fn event(data: &Bytes) -> Bytes {
    [b"data: ", data.as_ref(), b"\n\n"].concat().into()
}

fn full(bytes: Bytes) -> Body {
    Full::new(bytes).map_err(|never| match never {}).boxed_unsync()
}
