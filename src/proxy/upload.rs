//! The body of a request on its way to a provider: the provider's time begins when it stands still.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt;
use tokio::time::Instant;

use crate::tasks::BoxError;
use crate::upstream::{Body, Line};

use super::waiting::late;

/// When a body moved last.
#[derive(Clone, Debug)]
pub(super) struct Moved(Arc<Mutex<Instant>>);

struct Upload<B> {
    body: B,
    moved: Moved,
}

/// The same body, and when it moved last.
pub(super) fn watched<B>(body: B) -> (Body, Moved)
where
    B: HttpBody<Data = Bytes, Error = BoxError> + Send + Sync + Unpin + 'static,
{
    let moved = Moved(Arc::new(Mutex::new(Instant::now())));
    if body.is_end_stream() {
        return (body.boxed(), moved);
    }
    (Upload { body, moved: moved.clone() }.boxed(), moved)
}

impl Moved {
    /// Resolves when it has not moved for so long.
    pub(super) async fn stands(self, time: Duration, own_line: Option<&Line>) {
        late(own_line, || *self.at() + time).await;
    }

    /// A poisoned lock still guards a time.
    fn at(&self) -> MutexGuard<'_, Instant> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<B: HttpBody<Data = Bytes, Error = BoxError> + Unpin> HttpBody for Upload<B> {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        if frame.is_ready() {
            *self.moved.at() = Instant::now();
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::StreamBody;
    use tokio::{sync::mpsc, time::sleep};
    use tokio_stream::{StreamExt as _, wrappers::ReceiverStream};

    use super::*;

    const TIME: Duration = Duration::from_mins(10);

    #[tokio::test(start_paused = true)]
    async fn a_provider_has_its_time_from_the_last_byte_that_moved() {
        let (sender, receiver) = mpsc::channel(1);
        let frames = ReceiverStream::new(receiver).map(|it| Ok(Frame::data(it)));
        let (body, moved) = watched(BodyExt::boxed(StreamBody::new(frames)));
        let started = Instant::now();
        let stands = moved.stands(TIME, None);
        let send = async move {
            for _ in 0..5 {
                sleep(TIME / 2).await;
                sender.send(Bytes::from_static(b"a")).await.unwrap();
            }
        };
        let (read, (), ()) = tokio::join!(body.collect(), stands, send);
        assert_eq!(read.unwrap().to_bytes().len(), 5);
        assert_eq!(started.elapsed(), TIME / 2 * 5 + TIME);
    }
}
