//! One caller's connection: what is spoken on it, and what it may cost.

use std::{
    convert::Infallible,
    future::poll_fn,
    io,
    pin::pin,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use hyper::{Request, body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpStream,
    sync::watch,
    task::coop,
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, rustls::ServerConfig, server::TlsStream};

use crate::tasks::{BoxError, Place, Pool, describe};
use crate::telemetry::Refusal;
use crate::upstream::Line;

use super::{
    Proxy,
    patience::{Patient, Waits},
    presence::{Presence, Reply},
};

/// Largest head of a request, and so most that is kept of what a caller has sent, in bytes.
const HEAD_BYTES_MAX: usize = 64 << 10;
/// Requests at the same time on one connection of HTTP/2.
const STREAMS_MAX: u32 = 128;
/// Requests that were taken back before they were looked at, on one connection of HTTP/2.
const RESETS_MAX: usize = 20;
/// What callers are told for whom there is no place, and how long they may take to hear it.
const BUSY: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\n\
    retry-after: 1\r\ncontent-length: 0\r\n\r\n";
const BUSY_WAIT: Duration = Duration::from_secs(1);
/// Most that is read of what such a caller says, in bytes.
const LISTENED_BYTES_MAX: u64 = 64 << 10;
/// How often a connection of HTTP/2 is asked whether anybody is there, and how long it may take
/// to say so.
const PING_EVERY: Duration = Duration::from_secs(30);
const PING_WAIT: Duration = Duration::from_secs(20);

/// Changes when connections end with what is under way on them.
pub(super) type Ends = watch::Receiver<()>;

/// Serves a caller to the end of its connection.
pub(super) fn serve(proxy: &Arc<Proxy>, stream: TcpStream, place: Place, ends: Ends) {
    if let Err(error) = limit(&stream, proxy.settings.write_timeout) {
        tracing::debug!(%error, "a connection has no limit for what is not taken");
    }
    let proxy = Arc::clone(proxy);
    Pool::run(place, "connection", async move {
        let served = match &proxy.settings.tls {
            None => speak(&proxy, stream, &builder(), ends).await,
            Some(tls) => match greet(tls, stream, proxy.settings.header_timeout).await {
                // Who agreed on HTTP/2 speaks nothing else.
                Ok(stream) if stream.get_ref().1.alpn_protocol() == Some(b"h2") => {
                    speak(&proxy, stream, &builder().http2_only(), ends).await
                }
                Ok(stream) => speak(&proxy, stream, &builder(), ends).await,
                Err(error) => Err(error.into()),
            },
        };
        // Broken connections are the callers' affair.
        if let Err(error) = served {
            tracing::debug!(error = %describe(error.as_ref()), "a connection ended");
        }
    });
}

/// Tells a caller for whom there is no place to come again, in HTTP/1.
pub(super) fn turn_away(mut stream: TcpStream, place: Place) {
    Pool::run(place, "turned away", async move {
        let said = timeout(BUSY_WAIT, async {
            stream.write_all(BUSY).await?;
            stream.shutdown().await?;
            // What was not read when it closes would take the answer back.
            let mut said = stream.take(LISTENED_BYTES_MAX);
            tokio::io::copy(&mut said, &mut tokio::io::sink()).await
        });
        // Whoever does not hear it is only turned away.
        let _ = said.await;
    });
}

/// Agrees on TLS, within the time for a head.
async fn greet(
    tls: &Arc<ServerConfig>,
    stream: TcpStream,
    wait_max: Duration,
) -> io::Result<TlsStream<TcpStream>> {
    timeout(wait_max, TlsAcceptor::from(Arc::clone(tls)).accept(stream)).await?
}

/// Answers requests until there are no more.
fn speak<S>(
    proxy: &Arc<Proxy>,
    stream: S,
    http: &auto::Builder<TokioExecutor>,
    mut ends: Ends,
) -> impl Future<Output = Result<(), BoxError>> + Send + use<S>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (line, presence) = (Arc::new(Line::default()), Arc::new(Presence::default()));
    let settings = &proxy.settings;
    let waits = Waits { idle: settings.idle_timeout, head: settings.header_timeout };
    let stream = TokioIo::new(Patient::new(stream, waits, Arc::clone(&presence)));
    let service = {
        let (proxy, line) = (Arc::clone(proxy), Arc::clone(&line));
        service_fn(move |request: Request<Incoming>| {
            let (proxy, line) = (Arc::clone(&proxy), Arc::clone(&line));
            let busy = presence.begin(request.version(), || proxy.place_beside());
            async move {
                let wait_max = proxy.settings.write_timeout;
                let answer = proxy.answer(&line, request, &busy).await;
                Ok::<_, Infallible>(answer.map(|it| Reply::new(it, busy, wait_max)))
            }
        })
    };
    let connection = http.serve_connection(stream, service).into_owned();
    let proxy = Arc::clone(proxy);
    line.along(async move {
        let (mut connection, mut ends) = (pin!(connection), pin!(ends.changed()));
        let (mut is_heard, mut has_ended) = (false, false);
        poll_fn(|context| {
            // It wakes the connection once, at the end, and is asked for no more than that.
            let may_end = !is_heard || proxy.drains.load(Ordering::Relaxed);
            is_heard |= coop::has_budget_remaining();
            if may_end && !has_ended && ends.as_mut().poll(context).is_ready() {
                has_ended = true;
                connection.as_mut().graceful_shutdown();
            }
            connection.as_mut().poll(context)
        })
        .await
    })
}

impl Proxy {
    /// A place for a request beside another one of its connection. Where descriptors are scarce it
    /// takes that of a connection, and leaves half of them to those that come.
    fn place_beside(&self) -> Option<Place> {
        let spared = self.connections.len_max() / 2;
        let place = self.streams.try_enter();
        let place = place.or_else(|| self.connections.try_enter_beside(spared));
        if place.is_none() {
            self.metrics.refusal(Refusal::Request);
        }
        place
    }
}

/// Has the system end the connection when nothing of what it is sent is taken for so long. Where
/// it is not Linux it has its own time for that.
#[cfg(target_os = "linux")]
fn limit(stream: &TcpStream, wait_max: Duration) -> io::Result<()> {
    let wait_ms = u32::try_from(crate::clock::millis(wait_max)).unwrap_or(u32::MAX);
    Ok(rustix::net::sockopt::set_tcp_user_timeout(stream, wait_ms)?)
}

#[cfg(not(target_os = "linux"))]
fn limit(_: &TcpStream, _: Duration) -> io::Result<()> {
    Ok(())
}

fn builder() -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().header_read_timeout(None).max_buf_size(HEAD_BYTES_MAX);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(u32::try_from(HEAD_BYTES_MAX).unwrap_or(u32::MAX))
        .max_pending_accept_reset_streams(RESETS_MAX)
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_WAIT);
    builder
}
