//! A provider that answers as fast as it can, after a time, in pieces, badly, never, or is gone.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc, LazyLock, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use serde_json::json;
use tokio::{
    net::TcpListener,
    task::JoinSet,
    time::{Instant, sleep},
};

use crate::{http::Connection, load::until};

/// Most connections held; one more is closed at once.
const CONNECTIONS_MAX: usize = 8_192;
/// Letters of an answer's text: about 2 KiB with its JSON.
const TEXT_LEN: usize = 1_800;
/// Pieces of a stream, and the time between two.
const PIECES: usize = 10;
const PIECE_GAP: Duration = Duration::from_millis(5);
/// In place of this, a piece says when it was sent: nanoseconds since `START`.
pub(crate) const STAMP: &str = "0000000000000000";
/// What a failed request gets.
const FAILURE: &str = "HTTP/1.1 500 Internal Server Error\r\ncontent-type: application/json\r\n\
                       content-length: 30\r\n\r\n{\"error\":{\"message\":\"broken\"}}";

static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// How a mock answers from now on.
#[derive(Clone, Copy)]
pub(crate) enum Plan {
    /// At once, or after this time.
    Whole(Duration),
    /// As server-sent events, the first at once.
    Stream,
    /// Never; the connection stays open until the other side closes it.
    Hang,
    /// With a 500, at once.
    Fail,
}

/// A running provider. Dropped, it closes its address and all connections.
pub(crate) struct Mock {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
    accepting: JoinSet<()>,
}

struct Shared {
    plan: Mutex<Plan>,
    asked: AtomicU32,
    whole: String,
    pieces: Vec<String>,
}

impl Mock {
    /// A provider whose name is in every answer.
    pub(crate) async fn start(name: &str) -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let shared = Arc::new(Shared {
            plan: Mutex::new(Plan::Whole(Duration::ZERO)),
            asked: AtomicU32::new(0),
            whole: whole(name),
            pieces: pieces(name),
        });
        let address = listener.local_addr()?;
        let mut accepting = JoinSet::new();
        accepting.spawn(accept(listener, Arc::clone(&shared)));
        Ok(Self { address, shared, accepting })
    }

    pub(crate) fn set(&self, plan: Plan) {
        *self.shared.plan.lock().unwrap_or_else(PoisonError::into_inner) = plan;
    }

    /// Closes all connections; from now on they are refused.
    pub(crate) async fn die(&mut self) {
        self.accepting.shutdown().await;
    }

    /// Requests that came so far.
    pub(crate) fn asked(&self) -> u32 {
        self.shared.asked.load(Ordering::Relaxed)
    }

    /// The body of an answer in one piece.
    pub(crate) fn whole(&self) -> &str {
        &self.shared.whole
    }

    /// The body of a stream, with a `STAMP` in all pieces but the last.
    pub(crate) fn stream(&self) -> String {
        self.shared.pieces.concat()
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    while let Ok((socket, _)) = listener.accept().await {
        while connections.try_join_next().is_some() {}
        if connections.len() < CONNECTIONS_MAX
            && let Ok(connection) = Connection::new(socket)
        {
            let shared = Arc::clone(&shared);
            // A connection that breaks off is seen by the one who waits for the answer.
            connections.spawn(async move { drop(serve(connection, &shared).await) });
        }
    }
}

async fn serve(mut connection: Connection, shared: &Shared) -> io::Result<()> {
    let whole = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{}",
        shared.whole.len(),
        shared.whole
    );
    while connection.receive().await?.is_some() {
        let arrived = Instant::now();
        shared.asked.fetch_add(1, Ordering::Relaxed);
        let plan = *shared.plan.lock().unwrap_or_else(PoisonError::into_inner);
        match plan {
            Plan::Whole(after) => {
                if !after.is_zero() {
                    until(arrived + after).await;
                }
                connection.send(whole.as_bytes()).await?;
            }
            Plan::Stream => stream(&mut connection, &shared.pieces).await?,
            Plan::Hang => {}
            Plan::Fail => connection.send(FAILURE.as_bytes()).await?,
        }
    }
    Ok(())
}

async fn stream(connection: &mut Connection, pieces: &[String]) -> io::Result<()> {
    let mut head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\
                    transfer-encoding: chunked\r\n\r\n";
    for piece in pieces {
        let piece = piece.replace(STAMP, &format!("{:016}", START.elapsed().as_nanos()));
        let chunk = format!("{head}{:x}\r\n{piece}\r\n", piece.len());
        connection.send(chunk.as_bytes()).await?;
        head = "";
        sleep(PIECE_GAP).await;
    }
    connection.send(b"0\r\n\r\n").await
}

fn whole(name: &str) -> String {
    let content = format!("The {name} says: {}", text(TEXT_LEN));
    json!({
        "id": "chatcmpl-bench", "object": "chat.completion", "created": 1, "model": "bench",
        "choices": [{
            "index": 0, "finish_reason": "stop",
            "message": { "role": "assistant", "content": content },
        }],
        "usage": { "prompt_tokens": 450, "completion_tokens": 400, "total_tokens": 850 },
    })
    .to_string()
}

fn pieces(name: &str) -> Vec<String> {
    let piece = |number: usize| {
        let content = format!("{name} {number} {}", text(TEXT_LEN / PIECES));
        let finish = (number == PIECES).then_some("stop");
        let chunk = json!({
            "id": "chatcmpl-bench", "object": "chat.completion.chunk", "created": 1,
            "model": "bench",
            "choices": [{ "index": 0, "delta": { "content": content }, "finish_reason": finish }],
            "system_fingerprint": STAMP,
        });
        format!("data: {chunk}\n\n")
    };
    let done = "data: [DONE]\n\n".to_owned();
    (1..=PIECES).map(piece).chain([done]).collect()
}

/// When the piece with this stamp was sent.
pub(crate) fn sent(stamp: &[u8]) -> Option<Instant> {
    let nanos = str::from_utf8(stamp).ok()?.parse().ok()?;
    START.checked_add(Duration::from_nanos(nanos))
}

/// So many letters of text.
pub(crate) fn text(len: usize) -> String {
    "Summarise the following incident report in two lines. ".chars().cycle().take(len).collect()
}
