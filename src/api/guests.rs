//! Connections to the control port, as many as may be, and none that says nothing.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Sleep, sleep},
};
use tokio_stream::{Stream, StreamExt as _};
use tonic::transport::server::Connected;

use crate::tasks::{Place, Pool};

/// Connections at a time; what comes beyond is closed. Descriptors are shared with callers.
const CONNECTIONS_MAX: usize = 64;
/// Longest wait for the greeting of one, which is asked for signs of life only after it.
const GREETING_WAIT: Duration = Duration::from_secs(10);
/// Bytes of a greeting (RFC 9113, 3.4).
const GREETING_LEN: usize = 24;

/// A connection that has a place, and begins in time.
#[derive(Debug)]
pub(super) struct Guest<S> {
    stream: S,
    greeting: Option<(usize, Pin<Box<Sleep>>)>,
    #[expect(dead_code, reason = "held for its drop")]
    place: Place,
}

/// Those that have a place.
pub(super) fn guests<S>(
    arrivals: impl Stream<Item = io::Result<S>>,
) -> impl Stream<Item = io::Result<Guest<S>>> {
    let places = Pool::new(CONNECTIONS_MAX);
    arrivals.filter_map(move |stream| {
        let place = places.try_enter()?;
        let greeting = Some((0, Box::pin(sleep(GREETING_WAIT))));
        Some(stream.map(|stream| Guest { stream, greeting, place }))
    })
}

impl<S: Connected> Connected for Guest<S> {
    type ConnectInfo = S::ConnectInfo;

    fn connect_info(&self) -> Self::ConnectInfo {
        self.stream.connect_info()
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Guest<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        let Some((len, wait)) = &mut self.greeting else { return read };
        *len += buffer.filled().len() - before;
        if GREETING_LEN <= *len {
            self.greeting = None;
        } else if wait.as_mut().poll(context).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Guest<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex},
        time::Instant,
    };

    use super::*;

    #[tokio::test]
    async fn so_many_have_a_place_and_one_that_leaves_makes_room() {
        let mut callers = Vec::new();
        let arrivals = (0..CONNECTIONS_MAX + 2).map(|_| {
            let (caller, here) = duplex(64);
            callers.push(caller);
            Ok(here)
        });
        let arrivals: Vec<io::Result<DuplexStream>> = arrivals.collect();
        let mut guests = Box::pin(guests(tokio_stream::iter(arrivals)));
        let mut inside = Vec::new();
        for _ in 0..CONNECTIONS_MAX {
            inside.push(guests.next().await.unwrap().unwrap());
        }
        drop(inside.pop());
        inside.push(guests.next().await.unwrap().unwrap());
        assert!(guests.next().await.is_none());
        assert_eq!(callers.last_mut().unwrap().read(&mut [0]).await.unwrap(), 0, "it is closed");
    }

    #[tokio::test(start_paused = true)]
    async fn who_does_not_greet_in_time_is_let_go_and_who_did_may_be_silent() {
        let (mut caller, here) = duplex(64);
        let arrivals = tokio_stream::iter([Ok(here)]);
        let mut guest = Box::pin(guests(arrivals)).next().await.unwrap().unwrap();
        let began = Instant::now();
        caller.write_all(b"PRI").await.unwrap();
        guest.read_exact(&mut [0; 3]).await.unwrap();
        let late = guest.read_u8().await.unwrap_err();
        assert_eq!((late.kind(), began.elapsed()), (io::ErrorKind::TimedOut, GREETING_WAIT));

        let (mut caller, here) = duplex(64);
        let arrivals = tokio_stream::iter([Ok(here)]);
        let mut guest = Box::pin(guests(arrivals)).next().await.unwrap().unwrap();
        caller.write_all(&[b'x'; GREETING_LEN]).await.unwrap();
        guest.read_exact(&mut [0; GREETING_LEN]).await.unwrap();
        let silent = tokio::time::timeout(GREETING_WAIT * 100, guest.read_u8()).await;
        assert!(silent.is_err(), "{silent:?}");
    }
}
