//! A provider on a raw socket that does as it is told.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

/// What a provider does with a request.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Says {
    /// It answers.
    Well,
    /// It answers with this status, and with this line among its headers.
    Status(u16, &'static str),
    /// It fails every second request.
    EverySecond,
    /// It sends this, and then nothing.
    Sends(&'static str),
    /// It sends so many bytes of a good answer and closes the connection.
    Cut(usize),
    /// It answers and closes the connection without saying so.
    ThenClose,
    /// Nothing at all.
    Hang,
}

/// A provider that does as it is told.
pub(crate) struct Stub {
    pub(crate) address: std::net::SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    name: &'static str,
    says: Mutex<Says>,
    /// Requests for an answer, health checks aside.
    asked: AtomicUsize,
    /// Connections it has closed.
    closed: AtomicUsize,
    /// The head, in small letters, and the body of every request.
    seen: Mutex<Vec<(String, String)>>,
}

impl Stub {
    pub(crate) async fn start(name: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (asked, closed) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let says = Mutex::new(Says::Well);
        let shared = Arc::new(Shared { name, says, asked, closed, seen: Mutex::default() });
        let all = Arc::clone(&shared);
        crossfade::tasks::spawn("stub", async move {
            while let Ok((stream, _)) = listener.accept().await {
                let shared = Arc::clone(&all);
                crossfade::tasks::spawn("stub connection", async move {
                    answer(stream, &shared).await;
                    shared.closed.fetch_add(1, Relaxed);
                });
            }
        });
        Self { address, shared }
    }

    pub(crate) fn says(&self, says: Says) {
        *self.shared.says.lock().unwrap() = says;
    }

    /// Requests for an answer, health checks aside.
    pub(crate) fn asked(&self) -> usize {
        self.shared.asked.load(Relaxed)
    }

    /// Connections it has closed.
    pub(crate) fn closed(&self) -> usize {
        self.shared.closed.load(Relaxed)
    }

    /// The first line of every request.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.heads().iter().filter_map(|it| it.lines().next().map(str::to_owned)).collect()
    }

    /// The head of every request.
    pub(crate) fn heads(&self) -> Vec<String> {
        self.shared.seen.lock().unwrap().iter().map(|(head, _)| head.clone()).collect()
    }

    /// The body of every request.
    pub(crate) fn bodies(&self) -> Vec<String> {
        self.shared.seen.lock().unwrap().iter().map(|(_, body)| body.clone()).collect()
    }
}

/// A good answer: its head, and its body.
pub(crate) fn good(name: &str) -> (String, String) {
    let body = serde_json::json!({
        "id": "a", "object": "chat.completion", "created": 0, "model": name,
        "choices": [{ "index": 0, "message": { "role": "assistant", "content": name }, "finish_reason": "stop" }],
        "usage": { "prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2 }
    })
    .to_string();
    let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: ";
    (format!("{head}{}\r\n\r\n", body.len()), body)
}

async fn answer(mut stream: TcpStream, shared: &Shared) {
    while let Some((head, body)) = request(&mut stream).await {
        let turn = shared.asked.fetch_add(usize::from(head.starts_with("post")), Relaxed);
        shared.seen.lock().unwrap().push((head, body));
        let (head, body) = good(shared.name);
        let good = head + &body;
        let failed = |status, line: &str| {
            format!("HTTP/1.1 {status} No\r\n{line}content-length: 2\r\n\r\n{{}}")
        };
        let says = *shared.says.lock().unwrap();
        let text = match says {
            Says::EverySecond if turn.is_multiple_of(2) => failed(500, ""),
            Says::Well | Says::EverySecond | Says::ThenClose => good,
            Says::Sends(text) => text.to_owned(),
            Says::Status(status, line) => failed(status, line),
            Says::Cut(len) => good[..len].to_owned(),
            Says::Hang => return std::future::pending().await,
        };
        if stream.write_all(text.as_bytes()).await.is_err()
            || matches!(says, Says::Cut(_) | Says::ThenClose)
        {
            return;
        }
        if matches!(says, Says::Sends(_)) {
            return std::future::pending().await;
        }
    }
}

/// Reads one request to its end; its head and its body.
pub(crate) async fn request(stream: &mut TcpStream) -> Option<(String, String)> {
    let mut bytes = Vec::new();
    loop {
        if let Some(end) = bytes.windows(4).position(|it| it == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&bytes[..end]).to_lowercase();
            let length = head.lines().find_map(|it| it.strip_prefix("content-length: "));
            let length: usize = length.map_or(0, |it| it.parse().unwrap());
            if end + 4 + length <= bytes.len() {
                let body = String::from_utf8_lossy(&bytes[end + 4..]).into_owned();
                return Some((head, body));
            }
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
}
