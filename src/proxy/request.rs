//! What comes in: the body within its limits, and what kind of request it is.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited, StreamBody};
use hyper::{
    body::{Body as _, Frame, Incoming, SizeHint},
    header::{CONTENT_TYPE, HeaderMap},
    http::request::Parts,
};
use tokio_stream::StreamExt as _;

use crate::dialect;
use crate::domain::{Endpoint, Skip};
use crate::memory::Held;
use crate::tasks::BoxError;
use crate::upstream::Body;

use super::{
    answer::Own,
    headers,
    patience::{Paced, TooSlow},
};

/// A request body as far as it may be looked at.
pub(super) enum Gathered {
    /// All of it, and the memory that it takes.
    Whole(Bytes, Held),
    /// More than may be copied or held: what was read, followed by the rest.
    Long(Body, Skip),
}

/// The whole body within a limit, never buffered.
pub(super) fn limited(body: Paced<Incoming>, bytes_max: usize) -> Limited<Paced<Incoming>> {
    Limited::new(body, bytes_max)
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
    (copy_bytes_max, bytes_max): (usize, usize),
    mut held: Held,
) -> Result<Gathered, Own> {
    if let Some(length) = body.size_hint().exact()
        && u64::try_from(copy_bytes_max).is_ok_and(|it| it < length)
    {
        return Ok(Gathered::Long(limited(body, bytes_max).boxed(), Skip::Size));
    }
    let mut read = BytesMut::new();
    loop {
        let Some(frame) = body.frame().await else {
            return Ok(Gathered::Whole(read.freeze(), held));
        };
        let frame = frame.map_err(|error| fault(&error).unwrap_or(Own::BodyBroken))?;
        let Ok(chunk) = frame.into_data() else { continue };
        let is_held = held.try_grow(chunk.len()).is_ok();
        if is_held && read.is_empty() && body.is_end_stream() {
            return Ok(Gathered::Whole(chunk, held));
        }
        read.extend_from_slice(&chunk);
        let skip = if is_held { Skip::Size } else { Skip::Memory };
        if !is_held || copy_bytes_max < read.len() {
            return Ok(Gathered::Long(joined((read.freeze(), held), body, bytes_max), skip));
        }
    }
}

/// What was read, and then the rest. The memory of the first is held till the rest goes on: who
/// does not take the one does not ask for the other.
fn joined<B>((read, held): (Bytes, Held), rest: Paced<B>, bytes_max: usize) -> Body
where
    B: hyper::body::Body<Data = Bytes, Error = hyper::Error> + Send + Sync + Unpin + 'static,
{
    let left = bytes_max.saturating_sub(read.len());
    let length = rest.size_hint().exact().zip(u64::try_from(read.len()).ok());
    let first = Full::new(read).map_err(|never| -> BoxError { match never {} });
    let mut held = Some(held);
    let rest = frames(Limited::new(rest, left)).map(move |frame| {
        drop(held.take());
        frame
    });
    let body = StreamBody::new(frames(first).chain(rest));
    match length {
        Some((rest, read)) => BodyExt::boxed(Long { body, left: rest + read }),
        None => BodyExt::boxed(body),
    }
}

/// A body of a known length: its provider is told it as the caller has.
struct Long<B> {
    body: B,
    left: u64,
}

impl<B> hyper::body::Body for Long<B>
where
    B: hyper::body::Body<Data = Bytes, Error = BoxError> + Unpin,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        if let Some(Ok(frame)) = &frame {
            let sent = frame.data_ref().and_then(|it| u64::try_from(it.len()).ok());
            self.left = self.left.saturating_sub(sent.unwrap_or(0));
        }
        Poll::Ready(frame)
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

fn frames<B>(body: B) -> impl tokio_stream::Stream<Item = Result<Frame<Bytes>, BoxError>>
where
    B: hyper::body::Body<Data = Bytes, Error = BoxError> + Unpin,
{
    http_body_util::BodyStream::new(body)
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
    let kind = headers::text(headers, CONTENT_TYPE).split(';').next().unwrap_or("").trim();
    kind.eq_ignore_ascii_case("application/json")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::memory::{Memory, Need};

    #[tokio::test]
    async fn what_was_read_of_a_long_body_is_held_until_it_is_taken() {
        let memory = Memory::new(1_000);
        let mut held = memory.hold(Need::Request, None);
        held.try_grow(500).unwrap();
        let rest = tokio_stream::iter([Ok(Frame::data(Bytes::from_static(b"b")))]);
        let rest = Paced::new(StreamBody::new(rest), Duration::from_secs(1));
        let mut body = joined((Bytes::from_static(b"a"), held), rest, 10);
        assert_eq!(memory.bytes(), 500);
        let first = body.frame().await.unwrap().unwrap().into_data().unwrap();
        assert_eq!((&first[..], memory.bytes()), (&b"a"[..], 500), "nobody asked for more yet");
        let second = body.frame().await.unwrap().unwrap().into_data().unwrap();
        assert_eq!((&second[..], memory.bytes()), (&b"b"[..], 0));
        assert!(body.frame().await.is_none());
    }
}
