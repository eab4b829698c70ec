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
    says: Arc<Mutex<Says>>,
    asked: Arc<AtomicUsize>,
    seen: Arc<Mutex<Vec<(String, String)>>>,
}

impl Stub {
    pub(crate) async fn start(name: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (says, asked) = (Arc::new(Mutex::new(Says::Well)), Arc::new(AtomicUsize::new(0)));
        let seen = Arc::new(Mutex::default());
        let (plan, count, log) = (Arc::clone(&says), Arc::clone(&asked), Arc::clone(&seen));
        crossfade::tasks::spawn("stub", async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (plan, count, log) = (Arc::clone(&plan), Arc::clone(&count), Arc::clone(&log));
                crossfade::tasks::spawn("stub connection", async move {
                    answer(stream, name, (&plan, &count, &log)).await;
                });
            }
        });
        Self { address, says, asked, seen }
    }

    pub(crate) fn says(&self, says: Says) {
        *self.says.lock().unwrap() = says;
    }

    /// Requests for an answer, health checks aside.
    pub(crate) fn asked(&self) -> usize {
        self.asked.load(Relaxed)
    }

    /// The first line of every request.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.seen.lock().unwrap().iter().map(|(line, _)| line.clone()).collect()
    }

    /// The body of every request.
    pub(crate) fn bodies(&self) -> Vec<String> {
        self.seen.lock().unwrap().iter().map(|(_, body)| body.clone()).collect()
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

async fn answer(
    mut stream: TcpStream,
    name: &str,
    (plan, count, log): (&Mutex<Says>, &AtomicUsize, &Mutex<Vec<(String, String)>>),
) {
    while let Some((line, body)) = request(&mut stream).await {
        let turn = count.fetch_add(usize::from(line.starts_with("post")), Relaxed);
        log.lock().unwrap().push((line, body));
        let (head, body) = good(name);
        let good = head + &body;
        let failed = |status, line: &str| {
            format!("HTTP/1.1 {status} No\r\n{line}content-length: 2\r\n\r\n{{}}")
        };
        let says = *plan.lock().unwrap();
        let text = match says {
            Says::EverySecond if turn.is_multiple_of(2) => failed(500, ""),
            Says::Well | Says::EverySecond | Says::ThenClose => good,
            Says::Status(status, line) => failed(status, line),
            Says::Cut(len) => good[..len].to_owned(),
            Says::Hang => return std::future::pending().await,
        };
        if stream.write_all(text.as_bytes()).await.is_err()
            || matches!(says, Says::Cut(_) | Says::ThenClose)
        {
            return;
        }
    }
}

/// Reads one request to its end; its first line and its body.
async fn request(stream: &mut TcpStream) -> Option<(String, String)> {
    let mut bytes = Vec::new();
    loop {
        if let Some(end) = bytes.windows(4).position(|it| it == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&bytes[..end]).to_lowercase();
            let length = head.lines().find_map(|it| it.strip_prefix("content-length: "));
            let length: usize = length.map_or(0, |it| it.parse().unwrap());
            if end + 4 + length <= bytes.len() {
                let body = String::from_utf8_lossy(&bytes[end + 4..]).into_owned();
                return Some((head.lines().next()?.to_owned(), body));
            }
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
}
