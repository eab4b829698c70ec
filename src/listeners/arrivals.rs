//! Connections as they come, also while the system has no descriptor for them.

use std::{
    fmt,
    future::poll_fn,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
    time::{Instant, Sleep, sleep},
};
use tokio_stream::Stream;

/// Pause after a connection could not be accepted, such as without file descriptors. Those that
/// wait meanwhile are kept by the system.
const PAUSE: Duration = Duration::from_millis(50);
/// How often the same trouble is logged.
const SAY_EVERY: Duration = Duration::from_mins(1);

/// Connections of one port. It never ends and never fails: what cannot be accepted is logged
/// now and then, and tried again.
pub struct Arrivals<S> {
    port: &'static str,
    accept: Accept<S>,
    pause: Option<Pin<Box<Sleep>>>,
    failed: Seldom,
}

type Accept<S> = Box<dyn FnMut(&mut Context<'_>) -> Poll<io::Result<S>> + Send>;

/// Counts what happens often, so that it is said seldom.
#[derive(Debug, Default)]
pub struct Seldom {
    said: Option<Instant>,
    count: u64,
}

impl Seldom {
    /// Counts one more. When it is time to say so: how many since it was said last.
    pub fn count(&mut self) -> Option<u64> {
        self.count += 1;
        if self.said.is_some_and(|it| it.elapsed() < SAY_EVERY) {
            return None;
        }
        self.said = Some(Instant::now());
        Some(std::mem::take(&mut self.count))
    }
}

impl Arrivals<TcpStream> {
    /// Connections of a TCP port, by its key in the configuration. Small answers on them do not
    /// wait for larger ones.
    pub fn tcp(port: &'static str, listener: TcpListener) -> Self {
        Self::new(port, move |context| {
            let (stream, _) = ready!(listener.poll_accept(context))?;
            drop(stream.set_nodelay(true));
            Poll::Ready(Ok(stream))
        })
    }
}

impl Arrivals<UnixStream> {
    /// Connections of a socket file, by its key in the configuration.
    pub fn unix(port: &'static str, listener: UnixListener) -> Self {
        Self::new(port, move |context| listener.poll_accept(context).map_ok(|(stream, _)| stream))
    }
}

impl<S> Arrivals<S> {
    fn new(
        port: &'static str,
        accept: impl FnMut(&mut Context<'_>) -> Poll<io::Result<S>> + Send + 'static,
    ) -> Self {
        Self { port, accept: Box::new(accept), pause: None, failed: Seldom::default() }
    }

    /// The next connection. May be dropped and asked again, and nothing is lost.
    pub async fn next(&mut self) -> S {
        poll_fn(|context| self.poll(context)).await
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<S> {
        loop {
            if let Some(pause) = &mut self.pause {
                ready!(pause.as_mut().poll(context));
                self.pause = None;
            }
            let error = match ready!((self.accept)(context)) {
                Ok(stream) => return Poll::Ready(stream),
                Err(error) => error,
            };
            if let Some(times) = self.failed.count() {
                tracing::warn!(port = self.port, %error, times, "no connection could be accepted");
            }
            // A caller that gave up while it waited is no reason to keep the next one waiting.
            let pause = match error.kind() {
                io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset => Duration::ZERO,
                _ => PAUSE,
            };
            self.pause = Some(Box::pin(sleep(pause)));
        }
    }
}

impl<S> Stream for Arrivals<S> {
    type Item = io::Result<S>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll(context).map(|it| Some(Ok(it)))
    }
}

impl<S> fmt::Debug for Arrivals<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Arrivals").field("port", &self.port).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn trouble_makes_a_pause_and_no_end() {
        let mut tries = 0;
        let mut incoming = Arrivals::new("listen", move |_| {
            tries += 1;
            Poll::Ready(match tries {
                1..=10 => Err(io::Error::from_raw_os_error(24)),
                11..=20 => Err(io::ErrorKind::ConnectionAborted.into()),
                _ => Ok(tries),
            })
        });
        let began = Instant::now();
        assert_eq!(incoming.next().await, 21);
        let took = began.elapsed();
        assert!(PAUSE * 10 <= took && took < PAUSE * 11, "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn trouble_is_said_once_a_minute_with_its_number() {
        let mut trouble = Seldom::default();
        assert_eq!([1, 2, 3].map(|_| trouble.count()), [Some(1), None, None]);
        sleep(SAY_EVERY).await;
        assert_eq!([1, 2].map(|_| trouble.count()), [Some(3), None]);
    }
}
