//! How long a caller is waited for: between requests, for a head, inside a body.
//!
//! What nobody sends costs us a connection, and it is ours to give. A caller that does not take
//! what it is sent is the system's to cut off (`TCP_USER_TIMEOUT`), and `presence.rs`'s where it
//! takes one answer of a connection and not another.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Instant,
};

use crate::clock::Alarm;
use crate::tasks::BoxError;

use super::presence::Presence;

/// Least bytes a second of a body, once it has been waited for.
pub(super) const RATE_MIN: u64 = 500;

/// Longest waits between requests.
#[derive(Clone, Copy, Debug)]
pub(super) struct Waits {
    /// For anything at all.
    pub(super) idle: Duration,
    /// For a head that has begun.
    pub(super) head: Duration,
}

/// A caller's connection, which ends when nothing comes for too long that should.
pub(super) struct Patient<S> {
    stream: S,
    waits: Waits,
    presence: Arc<Presence>,
    /// Requests begun when it was looked last.
    begun: usize,
    /// Since when it is waited for the next one.
    since: Option<Instant>,
    awaits: Awaits,
    alarm: Alarm,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Awaits {
    Anything,
    Head,
}

impl<S> Patient<S> {
    pub(super) fn new(stream: S, waits: Waits, presence: Arc<Presence>) -> Self {
        let (awaits, alarm) = (Awaits::Anything, Alarm::default());
        Self { stream, waits, presence, begun: 0, since: None, awaits, alarm }
    }

    /// Something came that belongs to no request known yet.
    fn came(&mut self) {
        // HTTP/2 says much between requests, and its heads are limited where they are read. What
        // comes while a request is under way is its body.
        let is_head = !self.presence.is_shared() && !self.presence.is_busy();
        if self.awaits == Awaits::Anything && is_head {
            (self.awaits, self.since) = (Awaits::Head, None);
        }
    }

    /// Whether it has been waited for too long.
    fn poll_late(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let now = Instant::now();
        let begun = self.presence.begun();
        if self.begun != begun {
            (self.begun, self.awaits, self.since) = (begun, Awaits::Anything, None);
        }
        if self.presence.is_busy() {
            // Nobody says when it is not any more, so it is looked at from time to time.
            let _ = self.alarm.poll(now + self.waits.idle, context);
            return Poll::Pending;
        }
        let wait = match self.awaits {
            Awaits::Anything => self.waits.idle,
            Awaits::Head => self.waits.head,
        };
        let since = *self.since.get_or_insert(now);
        self.alarm.poll(since + wait, context)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Patient<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Poll::Ready(read) = Pin::new(&mut self.stream).poll_read(context, buffer) {
            self.came();
            return Poll::Ready(read);
        }
        self.poll_late(context).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Patient<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// A caller that sends its body too slowly, or not at all.
#[derive(Debug, thiserror::Error)]
#[error("the body of the request came too slowly")]
pub(super) struct TooSlow;

/// A caller's body, which ends with [`TooSlow`] when it has been waited for too long: at once, or
/// in all beyond what [`RATE_MIN`] allows it. While nobody asks for more, nobody waits.
pub(super) struct Paced<B> {
    body: B,
    wait_max: Duration,
    /// Since when it is waited for more.
    since: Option<Instant>,
    waited: Duration,
    len: u64,
    alarm: Alarm,
}

impl<B> Paced<B> {
    pub(super) fn new(body: B, wait_max: Duration) -> Self {
        let alarm = Alarm::default();
        Self { body, wait_max, since: None, waited: Duration::ZERO, len: 0, alarm }
    }
}

impl<B: Body<Data = Bytes, Error = hyper::Error> + Unpin> Body for Paced<B> {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        if let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(context) {
            if let Some(since) = this.since.take() {
                this.waited += since.elapsed();
            }
            if let Some(Ok(frame)) = &frame {
                let len = frame.data_ref().map_or(0, Bytes::len);
                this.len += u64::try_from(len).unwrap_or(u64::MAX);
            }
            return Poll::Ready(frame.map(|it| it.map_err(Into::into)));
        }
        let since = *this.since.get_or_insert_with(Instant::now);
        let in_all = this.wait_max + Duration::from_secs(this.len / RATE_MIN);
        let left = this.wait_max.min(in_all.saturating_sub(this.waited));
        ready!(this.alarm.poll(since + left, context));
        Poll::Ready(Some(Err(TooSlow.into())))
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
    use http_body_util::{BodyExt as _, StreamBody};
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex},
        sync::mpsc,
        time::sleep,
    };
    use tokio_stream::{StreamExt as _, wrappers::ReceiverStream};

    use super::*;

    const WAIT: Duration = Duration::from_secs(30);
    const WAITS: Waits = Waits { idle: Duration::from_secs(75), head: Duration::from_secs(10) };

    /// How long a body lasts of which so many bytes come after each pause, and how it ends.
    async fn lasts(len: usize, pauses: &[u64]) -> (Duration, bool) {
        let (sender, receiver) = mpsc::channel(1);
        let frames = ReceiverStream::new(receiver).map(|it| Ok(Frame::data(it)));
        let mut body = Paced::new(StreamBody::new(frames), WAIT);
        let send = async move {
            for pause in pauses {
                sleep(Duration::from_secs(*pause)).await;
                if sender.send(Bytes::from(vec![0; len])).await.is_err() {
                    return;
                }
            }
        };
        let read = async move {
            let began = Instant::now();
            while let Some(frame) = body.frame().await {
                if let Err(error) = frame {
                    assert!(error.is::<TooSlow>());
                    return (began.elapsed(), false);
                }
            }
            (began.elapsed(), true)
        };
        tokio::join!(read, send).0
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_may_pause_and_may_be_slow_but_not_for_ever() {
        let seconds = Duration::from_secs;
        assert_eq!(lasts(1, &[29]).await, (seconds(29), true));
        assert_eq!(lasts(1, &[31]).await, (seconds(30), false));
        assert_eq!(
            lasts(1_000_000, &[0, 31]).await,
            (seconds(30), false),
            "one pause is one pause"
        );
        // A byte now and then is no progress, however long it goes on.
        assert_eq!(lasts(1, &[9; 100]).await, (seconds(30), false));
        // As slow as may be, for as long as it takes.
        assert_eq!(lasts(5_000, &[10; 100]).await, (seconds(1_000), true));
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_nobody_asks_for_is_not_late() {
        let frames = tokio_stream::iter([Ok(Frame::data(Bytes::from_static(b"a")))]);
        let mut body = Paced::new(StreamBody::new(frames), WAIT);
        sleep(WAIT * 100).await;
        assert!(body.frame().await.unwrap().is_ok());
        sleep(WAIT * 100).await;
        assert!(body.frame().await.is_none());
    }

    fn connection() -> (DuplexStream, Patient<DuplexStream>, Arc<Presence>) {
        let (caller, here) = duplex(64);
        let presence = Arc::new(Presence::default());
        (caller, Patient::new(here, WAITS, Arc::clone(&presence)), presence)
    }

    /// How long it is waited for more bytes than came.
    async fn waited(connection: &mut Patient<DuplexStream>) -> Duration {
        let began = Instant::now();
        let error = loop {
            match connection.read_u8().await {
                Ok(_) => {}
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        began.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_that_has_begun_is_waited_for_less_than_one_that_has_not() {
        let (mut caller, mut here, presence) = connection();
        assert_eq!(waited(&mut here).await, WAITS.idle);
        let (mut begins, mut begun, _) = connection();
        begins.write_all(b"GET ").await.unwrap();
        assert_eq!(waited(&mut begun).await, WAITS.head);
        // Between two requests it may be silent again.
        caller.write_all(b"GET ").await.unwrap();
        assert!(here.read_u8().await.is_ok());
        drop(presence.begin(hyper::Version::HTTP_11, || None));
        assert_eq!(waited(&mut here).await, WAITS.idle);
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_comes_after_its_head_begins_no_other_head() {
        let (mut caller, mut here, presence) = connection();
        caller.write_all(b"POST ").await.unwrap();
        assert!(here.read_u8().await.is_ok());
        let busy = presence.begin(hyper::Version::HTTP_11, || None);
        let ends = async {
            sleep(Duration::from_secs(1)).await;
            caller.write_all(b"body").await.unwrap();
            sleep(Duration::from_secs(1)).await;
            drop(busy);
        };
        let (waited, ()) = tokio::join!(waited(&mut here), ends);
        assert!(WAITS.idle <= waited, "{waited:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_under_way_may_take_its_time() {
        let (_caller, mut here, presence) = connection();
        let busy = presence.begin(hyper::Version::HTTP_11, || None);
        let ends = async {
            sleep(WAITS.idle * 100).await;
            drop(busy);
        };
        let (waited, ()) = tokio::join!(waited(&mut here), ends);
        assert!(WAITS.idle * 100 < waited && waited <= WAITS.idle * 102, "{waited:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn what_http_2_says_between_requests_is_no_head() {
        let (mut caller, mut here, presence) = connection();
        drop(presence.begin(hyper::Version::HTTP_2, || None));
        caller.write_all(b"PING").await.unwrap();
        assert_eq!(waited(&mut here).await, WAITS.idle);
    }
}
