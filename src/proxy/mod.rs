//! Live traffic. Sees only what the board publishes, never the controller.
//!
//! The path of one request is `serve.rs`, top to bottom; the other side is asked in `mirror.rs`.

mod answer;
mod headers;
mod id;
mod mirror;
mod request;
mod serve;
mod tee;

pub use request::{Callers, Marks};

use std::{
    convert::Infallible,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use hyper::service::service_fn;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto, graceful::GracefulShutdown},
};
use tokio::{
    net::TcpListener,
    sync::mpsc,
    time::{Instant, timeout, timeout_at},
};

use crate::clock::Clock;
use crate::domain::Name;
use crate::listeners::{Arrivals, Seldom};
use crate::store::RecorderHandle;
use crate::tasks::{BoxError, Pool, Stop, describe};
use crate::telemetry::Metrics;
use crate::traffic::{Barometer, Board, Job, Outbox, Trail};
use crate::upstream::{Line, Upstream};

/// How long a connection on which nothing is asked stays open after another process has taken over:
/// whoever is about to ask on it is answered, and told to ask the next time on a new one.
pub const LINGER: Duration = Duration::from_secs(5);

/// How long copies that are given up may take to say so.
const GIVE_UP_WAIT: Duration = Duration::from_secs(1);

/// Whether answers carry our own headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Headers {
    /// `x-crossfade-request-id` and `x-crossfade-provider` are added.
    Added,
    /// Nothing is added.
    Off,
}

/// Limits and choices, from the configuration.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Largest request body, in bytes.
    pub body_bytes_max: usize,
    /// Largest request body that is copied, in bytes.
    pub copy_bytes_max: usize,
    /// Most of an answer that is kept, in bytes.
    pub capture_bytes_max: usize,
    /// How long a copy may take.
    pub copy_timeout: Duration,
    /// How long a serving candidate may take to its first byte.
    pub first_byte_timeout: Duration,
    /// How long the primary may take to the head of its answer.
    pub upstream_timeout: Duration,
    /// How long a caller may take to send a request's headers.
    pub header_timeout: Duration,
    /// How long requests under way may take to end when the program stops.
    pub grace: Duration,
    /// Whether answers carry our own headers.
    pub headers: Headers,
}

/// Where pairs go to be judged.
#[derive(Clone, Debug)]
pub struct ToJudge {
    /// The judge's queue.
    pub jobs: mpsc::Sender<Job>,
    /// Data classes the judge may see.
    pub cleared: Vec<String>,
}

/// The proxy.
#[derive(Debug)]
pub struct Proxy {
    /// What holds now.
    pub board: Arc<Board>,
    /// Every provider.
    pub upstream: Upstream,
    /// Who serves.
    pub primary: Name,
    /// Marks of the applications.
    pub callers: Callers,
    /// Limits and choices.
    pub settings: Settings,
    /// Places for connections of callers.
    pub connections: Pool,
    /// Places for copies.
    pub pool: Pool,
    /// Copies until they are pairs, for whoever has to wait for them.
    pub under_way: Pool,
    /// Whether callers are told to ask the next time on a new connection.
    pub drains: AtomicBool,
    /// Whether copies that are given up are so because the program ends.
    pub ends: AtomicBool,
    /// To the controller.
    pub outbox: Outbox,
    /// Reads the primary's weather off its calls.
    pub barometer: Arc<Barometer>,
    /// What became of the last requests.
    pub trail: Arc<Trail>,
    /// To the store, once it is open.
    pub recorder: Arc<OnceLock<RecorderHandle>>,
    /// To the judge, if there is one.
    pub judge: Option<ToJudge>,
    /// What we count.
    pub metrics: Arc<Metrics>,
    /// The clock.
    pub clock: Clock,
}

/// Accepts connections until told to stop, then lets requests under way end.
///
/// # Errors
/// None of its own.
pub async fn serve(
    proxy: Arc<Proxy>,
    listener: TcpListener,
    mut stop: Stop,
) -> Result<(), BoxError> {
    let graceful = GracefulShutdown::new();
    let mut drain = stop.clone();
    let (mut arrivals, mut closed) = (Arrivals::tcp("listen", listener), Seldom::default());
    loop {
        let stream = tokio::select! {
            stream = arrivals.next() => stream,
            () = stop.closing() => break,
            () = drain.draining(), if !proxy.drains.load(Ordering::Relaxed) => {
                proxy.drains.store(true, Ordering::Relaxed);
                continue;
            }
        };
        let Some(place) = proxy.connections.try_enter() else {
            if let Some(times) = closed.count() {
                tracing::warn!(times, "limits.connections_max is reached; connections are closed");
            }
            continue;
        };
        let line = Arc::new(Line::default());
        let service = {
            let (proxy, line) = (Arc::clone(&proxy), Arc::clone(&line));
            service_fn(move |request| {
                let (proxy, line) = (Arc::clone(&proxy), Arc::clone(&line));
                async move { Ok::<_, Infallible>(proxy.answer(&line, request).await) }
            })
        };
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder.http1().timer(TokioTimer::new()).header_read_timeout(proxy.settings.header_timeout);
        builder.http2().timer(TokioTimer::new());
        let connection = builder.serve_connection(TokioIo::new(stream), service).into_owned();
        let served = line.along(graceful.watch(connection));
        Pool::run(place, "connection", async move {
            // Broken connections are the callers' affair.
            if let Err(error) = served.await {
                tracing::debug!(error = %describe(error.as_ref()), "a connection ended");
            }
        });
    }
    drop(arrivals);
    end(&proxy, graceful, stop).await;
    Ok(())
}

/// Lets requests under way end.
async fn end(proxy: &Proxy, graceful: GracefulShutdown, mut stop: Stop) {
    proxy.drains.store(true, Ordering::Relaxed);
    if stop.has_left() {
        let _ = timeout(LINGER, proxy.connections.emptied()).await;
    }
    let ends = Instant::now() + proxy.settings.grace;
    if timeout_at(ends, graceful.shutdown()).await.is_err() {
        tracing::warn!("requests were still under way when the grace time was over");
    }
    stop.wait().await;
    if timeout_at(ends, proxy.under_way.emptied()).await.is_err() {
        let copies = proxy.under_way.busy();
        tracing::warn!(copies, "copies are given up: the grace time is over");
        proxy.ends.store(true, Ordering::Relaxed);
        proxy.board.load().live.iter().for_each(|it| it.close());
        let _ = timeout(GIVE_UP_WAIT, proxy.under_way.emptied()).await;
    }
}
