//! What comes over the wire is what HTTP allows, once; what does not end is ended.

mod frames;
pub(crate) mod http2;
mod lies;
mod limits;
mod smuggling;
pub(crate) mod tls;

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use crossfade::tasks::spawn;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

use crate::world::{Dir, Serve};

/// A server in front of one raw provider.
pub(crate) async fn before(provider: SocketAddr, more: &str) -> (Serve, Dir) {
    let dir = Dir::new().await;
    let text = format!(
        "listen = \"127.0.0.1:0\"\ncontrol = \"127.0.0.1:0\"\noperations = \"127.0.0.1:0\"\n\
         store = \"{}\"\n[provider.only]\nbase_url = \"http://{provider}/v1\"\n{more}",
        dir.path().join("store").display()
    );
    let file = dir.path().join("c.toml");
    std::fs::write(&file, text).unwrap();
    (Serve::start(&file).await, dir)
}

/// Reads messages by the letter of RFC 9112, and nothing more than they are.
pub(crate) struct Reader<S> {
    pub(crate) stream: S,
    ahead: Vec<u8>,
}

/// How reading a message ended without one.
#[derive(Debug)]
pub(crate) enum End {
    /// Between two messages.
    Clean,
    /// Inside a message.
    Cut,
    /// With something that is no message, or more than one.
    Wrong(String),
}

/// A message: its first line, its headers, its body.
pub(crate) struct Message {
    pub(crate) first: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Message {
    /// The values of a header.
    pub(crate) fn all(&self, name: &str) -> Vec<&str> {
        let named = self.headers.iter().filter(|(it, _)| it.eq_ignore_ascii_case(name));
        named.map(|(_, value)| value.as_str()).collect()
    }

    /// The status, of an answer.
    pub(crate) fn status(&self) -> u16 {
        self.first.split(' ').nth(1).unwrap().parse().unwrap()
    }
}

/// The sections of a golden file: a name, what is expected, and bytes.
pub(crate) fn sections(file: &str) -> Vec<(String, String, Vec<u8>)> {
    let text = std::fs::read_to_string(file).unwrap();
    let mut sections: Vec<(String, String, Vec<u8>)> = Vec::new();
    for line in text.lines().filter(|it| !it.starts_with('#')) {
        if let Some((name, expected)) = line.strip_prefix('[').and_then(|it| it.split_once("] ")) {
            sections.push((name.to_owned(), expected.to_owned(), Vec::new()));
        } else if let Some((_, _, bytes)) = sections.last_mut() {
            bytes.extend(unescaped(line));
        }
    }
    sections
}

fn unescaped(line: &str) -> Vec<u8> {
    let (mut bytes, mut rest) = (Vec::new(), line.bytes());
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'\\' => match rest.next().unwrap() {
                b'r' => b'\r',
                b'n' => b'\n',
                b't' => b'\t',
                b'0' => 0,
                b'x' => {
                    let digits = [rest.next().unwrap(), rest.next().unwrap()];
                    u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap()
                }
                other => other,
            },
            plain => plain,
        });
    }
    bytes
}

fn wrong<T>(what: &str, bytes: &[u8]) -> Result<T, End> {
    Err(End::Wrong(format!("{what}: {}", bytes.escape_ascii())))
}

fn is_token(text: &str) -> bool {
    let allowed = |it: u8| it.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&it);
    !text.is_empty() && text.bytes().all(allowed)
}

impl<S: AsyncRead + Unpin> Reader<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self { stream, ahead: Vec::new() }
    }

    /// Waits for more bytes; whether there are any.
    pub(crate) async fn more(&mut self) -> bool {
        matches!(self.stream.read_buf(&mut self.ahead).await, Ok(len) if 0 < len)
    }

    async fn exactly(&mut self, len: usize) -> Result<Vec<u8>, End> {
        while self.ahead.len() < len {
            if !self.more().await {
                return Err(End::Cut);
            }
        }
        Ok(self.ahead.drain(..len).collect())
    }

    /// All bytes up to these, and these.
    async fn through(&mut self, end: &[u8]) -> Result<Vec<u8>, End> {
        loop {
            if let Some(at) = self.ahead.windows(end.len()).position(|it| it == end) {
                return self.exactly(at + end.len()).await;
            }
            if !self.more().await {
                return Err(if self.ahead.is_empty() { End::Clean } else { End::Cut });
            }
        }
    }

    pub(crate) async fn head(&mut self) -> Result<Message, End> {
        let bytes = self.through(b"\r\n\r\n").await?;
        let text = String::from_utf8_lossy(&bytes[..bytes.len() - 4]).into_owned();
        if text.replace("\r\n", "").contains(|it: char| it.is_ascii_control() && it != '\t') {
            return wrong("control characters", &bytes);
        }
        let mut lines = text.split("\r\n");
        let first = lines.next().unwrap_or_default().to_owned();
        let header = |it: &str| {
            Some(it.split_once(": ")?)
                .filter(|(name, _)| is_token(name))
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
        };
        let Some(headers) = lines.map(header).collect() else { return wrong("headers", &bytes) };
        let message = Message { first, headers, body: Vec::new() };
        let (lengths, codings) = (message.all("content-length"), message.all("transfer-encoding"));
        if 1 < lengths.len() + codings.len() || codings.iter().any(|it| *it != "chunked") {
            return wrong("framing", &bytes);
        }
        Ok(message)
    }

    async fn chunks(&mut self) -> Result<Vec<u8>, End> {
        let mut body = Vec::new();
        loop {
            let line = self.through(b"\r\n").await?;
            let digits = std::str::from_utf8(&line[..line.len() - 2]).unwrap_or("?");
            let size = usize::from_str_radix(digits, 16).ok().filter(|it| *it < 1 << 24);
            let Some(size) = size.filter(|_| !digits.starts_with('+')) else {
                return wrong("a chunk's size", &line);
            };
            let mut data = self.exactly(size + 2).await?;
            if !data.ends_with(b"\r\n") {
                return wrong("a chunk's end", &data);
            }
            data.truncate(size);
            body.append(&mut data);
            if size == 0 {
                return Ok(body);
            }
        }
    }

    async fn body(&mut self, mut head: Message) -> Result<Message, End> {
        let bodiless = ["HTTP/1.1 1", "HTTP/1.1 204", "HTTP/1.1 304"];
        if bodiless.iter().any(|it| head.first.starts_with(it)) {
            return Ok(head);
        }
        let length = head.all("content-length").first().map(|it| it.parse::<usize>());
        let inside = |it| if matches!(it, End::Clean) { End::Cut } else { it };
        head.body = match length {
            Some(Ok(len)) => self.exactly(len).await?,
            Some(Err(_)) => return wrong("a length", head.first.as_bytes()),
            None if head.all("transfer-encoding").is_empty() => Vec::new(),
            None => self.chunks().await.map_err(inside)?,
        };
        Ok(head)
    }

    /// A request for one of these hosts.
    pub(crate) async fn request(&mut self, host: &str) -> Result<Message, End> {
        let head = self.head().await?;
        let words: Vec<&str> = head.first.split(' ').collect();
        let fits = matches!(words[..], [method, target, "HTTP/1.1"]
            if is_token(method) && target.starts_with('/') && !target.starts_with("//"));
        if !fits || head.all("host") != [host] {
            return wrong("a head", format!("{} {:?}", head.first, head.all("host")).as_bytes());
        }
        let request = self.body(head).await?;
        if !self.ahead.is_empty() {
            return wrong("bytes after a request", &self.ahead);
        }
        Ok(request)
    }

    /// An answer.
    pub(crate) async fn answer(&mut self) -> Result<Message, End> {
        let head = self.head().await?;
        let words: Vec<&str> = head.first.splitn(3, ' ').collect();
        if !words[0].starts_with("HTTP/1.") || words.get(1).is_none_or(|it| it.len() != 3) {
            return wrong("an answer", head.first.as_bytes());
        }
        self.body(head).await
    }
}

/// A provider that reads strictly, answers 200 to every request and remembers how each ended.
pub(crate) struct Provider {
    pub(crate) address: SocketAddr,
    pub(crate) seen: Arc<Mutex<Vec<Result<String, End>>>>,
}

impl Provider {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::default();
        let all: Arc<Mutex<Vec<Result<String, End>>>> = Arc::clone(&seen);
        spawn("provider", async move {
            while let Ok((stream, _)) = listener.accept().await {
                let all = Arc::clone(&all);
                spawn("connection", async move {
                    let mut reader = Reader::new(stream);
                    loop {
                        let ended = reader.request(&address.to_string()).await;
                        let goes_on = ended.is_ok();
                        if !matches!(ended, Err(End::Clean)) {
                            all.lock().unwrap().push(ended.map(|it| it.first));
                        }
                        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
                        if !goes_on || reader.stream.write_all(answer).await.is_err() {
                            return;
                        }
                    }
                });
            }
        });
        Self { address, seen }
    }

    /// What it has seen since it was asked last: whole requests, and what was wrong.
    pub(crate) fn take(&self) -> (Vec<String>, Vec<String>) {
        let (mut whole, mut faults) = (Vec::new(), Vec::new());
        for ended in std::mem::take(&mut *self.seen.lock().unwrap()) {
            match ended {
                Ok(first) => whole.push(first),
                Err(End::Wrong(what)) => faults.push(what),
                Err(End::Cut | End::Clean) => {}
            }
        }
        (whole, faults)
    }
}
