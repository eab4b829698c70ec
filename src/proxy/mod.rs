//! Live traffic. Sees only what the board publishes, never the controller.
//!
//! The path of one request is `serve.rs`, top to bottom; the other side is asked in `mirror.rs`, and
//! a candidate that serves in `fallback.rs`. Who stands in for the primary is in `failover.rs`.

mod answer;
mod callers;
mod checks;
mod connection;
mod failover;
mod fallback;
mod half;
mod headers;
mod id;
mod mirror;
mod noise;
mod patience;
mod presence;
mod redact;
mod request;
mod serve;
mod spend;
mod strict;
mod survey;
mod tee;
mod upload;
mod waiting;

pub use callers::{Callers, Marks};
pub use checks::Checker;

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
    time::{Instant, timeout, timeout_at},
};
use tokio_rustls::rustls::ServerConfig;

use crate::clock::Clock;
use crate::domain::Name;
use crate::listeners::{Arrivals, Seldom};
use crate::memory::Memory;
use crate::patterns::Redactor;
use crate::store::RecorderHandle;
use crate::tasks::{BoxError, Pool, Stop};
use crate::telemetry::{Metrics, Refusal};
use crate::traffic::{Barometer, Board, Job, Outbox, Surveyor, Trail};
use crate::upstream::Upstream;

/// How long a connection on which nothing is asked stays open after another process has taken over:
/// whoever is about to ask on it is answered, and told to ask the next time on a new one.
pub const LINGER: Duration = Duration::from_secs(5);

/// Callers at a time who are told that there is no place for them, as far as that is said plainly.
const SPARE_LEN_MAX: usize = 16;

/// How long connections are still taken that came before the end: in one moment, not in two.
const LAST_WAIT: Duration = Duration::from_millis(100);

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
    /// How long a stream may take to its first byte where another provider can answer.
    pub first_byte_timeout: Duration,
    /// How long a provider may take to the head of its answer, once it has the request.
    pub upstream_timeout: Duration,
    /// What the data port shows to those who speak TLS; without it HTTP is spoken plainly.
    pub tls: Option<Arc<ServerConfig>>,
    /// How long a caller may take to send a request's headers.
    pub header_timeout: Duration,
    /// How long a caller may pause in a request's body, and be slower than is useful in all.
    pub body_timeout: Duration,
    /// How long a caller may take nothing of what it is sent.
    pub write_timeout: Duration,
    /// How long a connection may be without a request.
    pub idle_timeout: Duration,
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
    /// Who answers in its place when it cannot, in this order.
    pub failover: Vec<Name>,
    /// Marks of the applications.
    pub callers: Callers,
    /// Limits and choices.
    pub settings: Settings,
    /// Places for connections of callers.
    pub connections: Pool,
    /// Places for requests beside another one of their connection.
    pub streams: Pool,
    /// Places for copies.
    pub pool: Pool,
    /// What copies, answers and requests may hold.
    pub memory: Memory,
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
    /// Looks at a share of what is asked.
    pub surveyor: Arc<Surveyor>,
    /// What became of the last requests.
    pub trail: Arc<Trail>,
    /// To the store, once it is open.
    pub recorder: Arc<OnceLock<RecorderHandle>>,
    /// What answers are checked with.
    pub checker: Checker,
    /// To the judge, if there is one.
    pub judge: Option<ToJudge>,
    /// Data classes of which the store may keep texts.
    pub store_cleared: Vec<String>,
    /// Takes out of texts what must not be kept.
    pub redactor: Redactor,
    /// What we count.
    pub metrics: Arc<Metrics>,
    /// The clock.
    pub clock: Clock,
}

/// The headers with which a request goes on to its primary; none where its head is refused. It is
/// what happens to every head, without a connection, so that random ones can be tried.
#[cfg(fuzzing)]
pub fn onward(mut head: hyper::http::request::Parts) -> Option<hyper::HeaderMap> {
    strict::check(&head).ok()?;
    headers::to_primary(&mut head.headers);
    Some(head.headers)
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
    let (end_all, told) = watch::channel(());
    let mut drain = stop.clone();
    let spare = Pool::new(SPARE_LEN_MAX);
    let (mut arrivals, mut closed) = (Arrivals::tcp("listen", listener), Seldom::default());
    loop {
        let stream = tokio::select! {
            // Who comes when it closes is left to who comes after.
            biased;
            () = stop.closing() => break,
            () = drain.draining(), if !proxy.drains.load(Ordering::Relaxed) => {
                proxy.drains.store(true, Ordering::Relaxed);
                continue;
            }
            stream = arrivals.next() => stream,
        };
        let Some(place) = proxy.connections.try_enter() else {
            proxy.metrics.refusal(Refusal::Connection);
            if let Some(place) = spare.try_enter().filter(|_| proxy.settings.tls.is_none()) {
                connection::turn_away(stream, place);
            }
            if let Some(times) = closed.count() {
                tracing::warn!(times, "limits.connections_max is reached; connections are closed");
            }
            continue;
        };
        connection::serve(&proxy, stream, place, told.clone());
    }
    // Those that the system has accepted already are in nobody's hands but ours.
    let ends = Instant::now() + LAST_WAIT;
    while !stop.has_left() {
        let Ok(stream) = timeout_at(ends, arrivals.next()).await else { break };
        let Some(place) = proxy.connections.try_enter() else { break };
        connection::serve(&proxy, stream, place, told.clone());
    }
    drop(arrivals);
    end(&proxy, end_all, stop).await;
    Ok(())
}

/// Lets requests under way end.
async fn end(proxy: &Proxy, end_all: watch::Sender<()>, mut stop: Stop) {
    proxy.drains.store(true, Ordering::Relaxed);
    if stop.has_left() {
        let _ = timeout(LINGER, proxy.connections.emptied()).await;
    }
    let ends = Instant::now() + proxy.settings.grace;
    let _ = end_all.send(());
    if timeout_at(ends, proxy.connections.emptied()).await.is_err() {
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
