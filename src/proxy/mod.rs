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
    io,
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
    time::{Instant, sleep, timeout, timeout_at},
};

use crate::clock::Clock;
use crate::domain::Name;
use crate::memory::Memory;
use crate::store::RecorderHandle;
use crate::tasks::{BoxError, Pool, Stop, describe};
use crate::telemetry::Metrics;
use crate::traffic::{Barometer, Board, Job, Outbox, Trail};
use crate::upstream::{Line, Upstream};

/// Pause after a connection could not be accepted, such as without file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

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
    /// Connections at the same time.
    pub connections_max: usize,
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
    /// Places for copies.
    pub pool: Pool,
    /// What copies, answers and requests may hold.
    pub memory: Memory,
    /// Copies until they are pairs, for whoever has to wait for them.
    pub under_way: Pool,
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
/// None of its own: a connection that cannot be accepted is logged and the next one tried.
pub async fn serve(
    proxy: Arc<Proxy>,
    listener: TcpListener,
    mut stop: Stop,
) -> Result<(), BoxError> {
    let places = Pool::new(proxy.settings.connections_max);
    let graceful = GracefulShutdown::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.wait() => break,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                refused(&error).await;
                continue;
            }
        };
        let Some(place) = places.try_enter() else {
            tracing::warn!("limits.connections_max is reached; a connection is closed");
            continue;
        };
        // Small answers must not wait for larger ones.
        drop(stream.set_nodelay(true));
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
    drop(listener);
    let ends = Instant::now() + proxy.settings.grace;
    if timeout_at(ends, graceful.shutdown()).await.is_err() {
        tracing::warn!("requests were still under way when the grace time was over");
    }
    if timeout_at(ends, proxy.under_way.emptied()).await.is_err() {
        let copies = proxy.under_way.busy();
        tracing::warn!(copies, "copies are given up: the grace time is over");
        proxy.ends.store(true, Ordering::Relaxed);
        proxy.board.load().live.iter().for_each(|it| it.close());
        let _ = timeout(GIVE_UP_WAIT, proxy.under_way.emptied()).await;
    }
    Ok(())
}

async fn refused(error: &io::Error) {
    tracing::warn!(%error, "a connection could not be accepted");
    sleep(ACCEPT_PAUSE).await;
}
