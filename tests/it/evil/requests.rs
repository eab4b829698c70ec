//! What the evil provider is asked.

use std::{
    io,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use tokio::{io::AsyncReadExt as _, net::TcpStream};

/// Most of a body that is kept, in bytes; the rest is only counted.
const KEPT_LEN_MAX: usize = 1 << 20;

/// A request, read to its end.
#[derive(Debug)]
pub(crate) struct Asked {
    /// Who asks, by the text of its question: the answer says it again.
    pub(crate) user: String,
    /// Whether a stream is asked for.
    pub(crate) streamed: bool,
}

/// The next request of a connection, none at its end. `ahead` is what was read too much.
pub(super) async fn read(
    stream: &mut TcpStream,
    ahead: &mut Vec<u8>,
    bytes: &AtomicU64,
) -> io::Result<Option<Asked>> {
    let end = loop {
        if let Some(end) = find(ahead, b"\r\n\r\n") {
            break end + 4;
        }
        if stream.read_buf(ahead).await? == 0 {
            return Ok(None);
        }
    };
    let head = String::from_utf8_lossy(&ahead[..end]).to_lowercase();
    ahead.drain(..end);
    let length = head.lines().find_map(|it| it.strip_prefix("content-length: "));
    let body = match length {
        Some(length) => sized(stream, ahead, length.parse().unwrap(), bytes).await?,
        None if head.contains("transfer-encoding: chunked") => {
            chunked(stream, ahead, bytes).await?
        }
        None => Vec::new(),
    };
    let value: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
    let user = value["messages"][0]["content"].as_str().unwrap_or_default().to_owned();
    Ok(Some(Asked { user, streamed: value["stream"] == true }))
}

async fn sized(
    stream: &mut TcpStream,
    ahead: &mut Vec<u8>,
    length: usize,
    bytes: &AtomicU64,
) -> io::Result<Vec<u8>> {
    let (mut body, mut left) = (Vec::new(), length);
    while 0 < left {
        if ahead.is_empty() && stream.read_buf(ahead).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let part = ahead.drain(..left.min(ahead.len()));
        left -= part.len();
        bytes.fetch_add(u64::try_from(part.len()).unwrap(), Relaxed);
        let room = KEPT_LEN_MAX.saturating_sub(body.len());
        body.extend(part.take(room));
    }
    Ok(body)
}

async fn chunked(
    stream: &mut TcpStream,
    ahead: &mut Vec<u8>,
    bytes: &AtomicU64,
) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let end = loop {
            if let Some(end) = find(ahead, b"\r\n") {
                break end;
            }
            if stream.read_buf(ahead).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        };
        let length = String::from_utf8_lossy(&ahead[..end]).into_owned();
        let length = usize::from_str_radix(&length, 16).unwrap();
        ahead.drain(..end + 2);
        body.extend(sized(stream, ahead, length, bytes).await?);
        // The line that ends a chunk; it is no part of the body.
        sized(stream, ahead, 2, &AtomicU64::new(0)).await?;
        if length == 0 {
            return Ok(body);
        }
    }
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|it| it == what)
}
