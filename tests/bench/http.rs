//! Just enough HTTP/1.1 for both ends of a measurement: they share a core, and must cost little.

use std::io;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::Instant,
};

/// Longest message that is read, in bytes.
const MESSAGE_LEN_MAX: usize = 1 << 20;

/// One connection, kept alive, one message at a time.
pub(crate) struct Connection {
    socket: TcpStream,
    raw: Vec<u8>,
    unchunked: Vec<u8>,
    arrivals: Vec<(usize, Instant)>,
}

/// A request or an answer, whole.
pub(crate) struct Message<'a> {
    /// The first line, without its end.
    pub(crate) start: &'a [u8],
    /// The body, without its chunks' frames.
    pub(crate) body: &'a [u8],
    /// When the first byte of the body was here.
    pub(crate) begun: Instant,
    /// How much of a chunked body was here when, chunk by chunk.
    pub(crate) arrivals: &'a [(usize, Instant)],
}

enum Framing {
    Length(usize),
    Chunked,
}

impl Connection {
    pub(crate) fn new(socket: TcpStream) -> io::Result<Self> {
        socket.set_nodelay(true)?;
        let raw = Vec::with_capacity(8 << 10);
        Ok(Self { socket, raw, unchunked: Vec::new(), arrivals: Vec::new() })
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.socket.write_all(bytes).await
    }

    /// The next message; none when the other side has closed between two.
    pub(crate) async fn receive(&mut self) -> io::Result<Option<Message<'_>>> {
        self.raw.clear();
        self.arrivals.clear();
        let head_len = loop {
            if self.read().await? == 0 {
                return if self.raw.is_empty() { Ok(None) } else { Err(broken("cut off")) };
            }
            if let Some(at) = self.raw.windows(4).position(|it| it == b"\r\n\r\n") {
                break at + 4;
            }
        };
        let framing = framing(&self.raw[..head_len])?;
        if let Framing::Length(0) = framing {
            return Ok(Some(self.message(&[], Instant::now())));
        }
        self.fill(head_len + 1).await?;
        let begun = Instant::now();
        match framing {
            Framing::Length(len) => {
                self.fill(head_len + len).await?;
                if head_len + len < self.raw.len() {
                    return Err(broken("longer than announced"));
                }
                Ok(Some(self.message(&self.raw[head_len..], begun)))
            }
            Framing::Chunked => {
                self.unchunk(head_len).await?;
                Ok(Some(self.message(&self.unchunked, begun)))
            }
        }
    }

    fn message<'a>(&'a self, body: &'a [u8], begun: Instant) -> Message<'a> {
        let start = self.raw.split(|it| *it == b'\r').next().unwrap_or_default();
        Message { start, body, begun, arrivals: &self.arrivals }
    }

    /// Reads chunks, the first of which begins at `at`, up to the empty one.
    async fn unchunk(&mut self, mut at: usize) -> io::Result<()> {
        self.unchunked.clear();
        loop {
            let Some(line_len) = self.raw[at..].windows(2).position(|it| it == b"\r\n") else {
                self.fill(self.raw.len() + 1).await?;
                continue;
            };
            let line = str::from_utf8(&self.raw[at..at + line_len]).unwrap_or_default();
            let size = line.split(';').next().unwrap_or_default().trim();
            let size = usize::from_str_radix(size, 16).map_err(|_| broken("bad chunk size"))?;
            let (begin, end) = (at + line_len + 2, at + line_len + 2 + size);
            self.fill(end + 2).await?;
            if size == 0 {
                return Ok(());
            }
            self.unchunked.extend_from_slice(&self.raw[begin..end]);
            self.arrivals.push((self.unchunked.len(), Instant::now()));
            at = end + 2;
        }
    }

    /// Reads until there are `len` bytes at least.
    async fn fill(&mut self, len: usize) -> io::Result<()> {
        if MESSAGE_LEN_MAX < len {
            return Err(broken("too long"));
        }
        while self.raw.len() < len {
            if self.read().await? == 0 {
                return Err(broken("cut off"));
            }
        }
        Ok(())
    }

    async fn read(&mut self) -> io::Result<usize> {
        if MESSAGE_LEN_MAX < self.raw.len() {
            return Err(broken("too long"));
        }
        self.socket.read_buf(&mut self.raw).await
    }
}

fn framing(head: &[u8]) -> io::Result<Framing> {
    for line in head.split(|it| *it == b'\n') {
        let Some(colon) = line.iter().position(|it| *it == b':') else { continue };
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        if name.eq_ignore_ascii_case(b"content-length") {
            let len = str::from_utf8(value).ok().and_then(|it| it.parse().ok());
            return len.map(Framing::Length).ok_or_else(|| broken("bad length"));
        }
        if name.eq_ignore_ascii_case(b"transfer-encoding") && value == b"chunked" {
            return Ok(Framing::Chunked);
        }
    }
    Err(broken("without length"))
}

fn broken(how: &str) -> io::Error {
    io::Error::other(format!("an HTTP message is {how}"))
}
