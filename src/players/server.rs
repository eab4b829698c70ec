//! A small HTTP server for players: connections, bodies, counts and a memory of requests.

use std::{
    collections::VecDeque,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt, Limited, combinators::UnsyncBoxBody};
use hyper::{
    HeaderMap, Method, Request, Response, StatusCode, body::Incoming, server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    time,
};

use super::reply;
use crate::tasks::{self, Pool};

/// Where chat completions are asked for.
pub(super) const CHAT_PATH: &str = "/v1/chat/completions";
/// Longest request body a player reads, in bytes.
const BODY_LEN_MAX: usize = 8 << 20;
/// Most connections a player holds; one more is closed at once.
const CONNECTIONS_MAX: usize = 4_096;
/// Most requests a player remembers.
const SEEN_LEN_MAX: usize = 1_000;
/// Most bytes of bodies a player remembers.
const SEEN_BYTES_MAX: usize = 64 << 20;
/// How long to wait when a connection cannot be accepted, so as not to spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A body a player sends.
pub(super) type Body = UnsyncBoxBody<Bytes, io::Error>;

/// A request a player received.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Its method.
    pub method: Method,
    /// Its path, without the query.
    pub path: String,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
}

/// What became of the chat completions a player was asked for.
///
/// A request that hangs, or whose caller left, is in `requests` and in nothing else.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Asked for.
    pub requests: u64,
    /// Answered from a row, broken on purpose or not.
    pub answered: u64,
    /// Failed on purpose or as recorded, or not understood.
    pub errors: u64,
    /// In no row: HTTP 404 with the type `replay_unknown`.
    pub unknown: u64,
}

/// Something that answers requests.
pub(super) trait Player: Send + Sync + 'static {
    /// Answers one request.
    fn reply(&self, seen: &Seen) -> impl Future<Output = Reply> + Send;
}

/// An answer, or none: then the connection is closed.
pub(super) struct Reply {
    pub(super) fate: Fate,
    pub(super) response: Option<Response<Body>>,
}

/// What an answer counts as.
#[derive(Clone, Copy, Debug)]
pub(super) enum Fate {
    Answered,
    Error,
    Unknown,
    /// Not about a chat completion.
    Aside,
}

/// A running server. Dropped, it closes its address and all connections.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) address: SocketAddr,
    log: Arc<Log>,
    stop: watch::Sender<()>,
}

/// What all connections of a server use.
struct Shared<P> {
    player: P,
    log: Arc<Log>,
}

#[derive(Debug, Default)]
struct Log(Mutex<Entries>);

#[derive(Debug, Default)]
struct Entries {
    stats: Stats,
    seen: VecDeque<Seen>,
    seen_bytes: usize,
}

/// The player closed the connection instead of answering.
#[derive(Debug, thiserror::Error)]
#[error("the player closed the connection on purpose")]
struct Closed;

impl Server {
    /// Listens at the address; port 0 takes any that is free.
    pub(super) async fn start(player: impl Player, address: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let (stop, stopped) = watch::channel(());
        let server = Self { address: listener.local_addr()?, log: Arc::default(), stop };
        let shared = Arc::new(Shared { player, log: Arc::clone(&server.log) });
        tasks::spawn("player", accept(listener, shared, stopped));
        Ok(server)
    }

    /// What became of the requests so far.
    pub(super) fn stats(&self) -> Stats {
        self.log.entries().stats
    }

    /// The last requests, oldest first.
    pub(super) fn seen(&self) -> Vec<Seen> {
        self.log.entries().seen.iter().cloned().collect()
    }

    /// Closes everything and waits until it is closed, so that the address is free again.
    pub(super) async fn stop(self) {
        self.stop.send_replace(());
        self.stop.closed().await;
    }
}

async fn accept<P: Player>(
    listener: TcpListener,
    shared: Arc<Shared<P>>,
    mut stopped: watch::Receiver<()>,
) {
    let places = Pool::new(CONNECTIONS_MAX);
    loop {
        let accepted = tokio::select! {
            _ = stopped.changed() => return,
            accepted = listener.accept() => accepted,
        };
        match (accepted, places.try_enter()) {
            (Ok((stream, _)), Some(place)) => {
                let serving = serve(stream, Arc::clone(&shared), stopped.clone());
                Pool::run(place, "player connection", serving);
            }
            (Ok(_), None) => tracing::warn!("a player has all the connections it can hold"),
            (Err(error), _) => {
                tracing::warn!(%error, "a player could not accept a connection");
                time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn serve<P: Player>(
    stream: TcpStream,
    shared: Arc<Shared<P>>,
    mut stopped: watch::Receiver<()>,
) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "a player could not switch off Nagle's delay");
    }
    let service = service_fn(|request| {
        let shared = Arc::clone(&shared);
        async move { answer(&shared, request).await }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .serve_connection(TokioIo::new(stream), service);
    tokio::select! {
        _ = stopped.changed() => {}
        ended = connection => if let Err(error) = ended {
            tracing::debug!(%error, "a connection to a player ended early");
        }
    }
}

async fn answer<P: Player>(
    shared: &Shared<P>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Closed> {
    let (head, body) = request.into_parts();
    let Ok(body) = Limited::new(body, BODY_LEN_MAX).collect().await else {
        let message = format!("the body is not whole, or longer than {BODY_LEN_MAX} bytes");
        return Ok(reply::refuse(StatusCode::PAYLOAD_TOO_LARGE, &message, "invalid_request_error"));
    };
    let seen = Seen {
        method: head.method,
        path: head.uri.path().to_owned(),
        headers: head.headers,
        body: body.to_bytes(),
    };
    shared.log.receive(&seen);
    let reply = shared.player.reply(&seen).await;
    shared.log.count(reply.fate);
    reply.response.ok_or(Closed)
}

impl Log {
    fn receive(&self, seen: &Seen) {
        let mut entries = self.entries();
        if seen.path == CHAT_PATH {
            entries.stats.requests += 1;
        }
        entries.seen_bytes += seen.body.len();
        entries.seen.push_back(seen.clone());
        while SEEN_LEN_MAX < entries.seen.len() || SEEN_BYTES_MAX < entries.seen_bytes {
            let Some(oldest) = entries.seen.pop_front() else { return };
            entries.seen_bytes -= oldest.body.len();
        }
    }

    fn count(&self, fate: Fate) {
        let stats = &mut self.entries().stats;
        match fate {
            Fate::Answered => stats.answered += 1,
            Fate::Error => stats.errors += 1,
            Fate::Unknown => stats.unknown += 1,
            Fate::Aside => {}
        }
    }

    fn entries(&self) -> MutexGuard<'_, Entries> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
