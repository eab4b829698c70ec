//! Connections on which a provider is heard out, also when it hangs up on what is sent to it.
//!
//! One that refuses a request by its head (413, 401, 429) may answer and close before it has read
//! the body. hyper gives up where that cannot be written, and would never see the answer that is
//! here already.

use std::{
    io::{self, ErrorKind, IoSlice},
    mem,
    pin::Pin,
    task::{Context, Poll, ready},
};

use hyper::rt::{Read, ReadBuf, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::{Connected, Connection};

/// Read at once from a provider that has hung up.
const CHUNK_LEN_MAX: usize = 4 << 10;

/// A connection that seems to take all that is sent to it from where the provider has hung up:
/// reading says how it ends.
#[derive(Debug)]
pub(super) struct Hearing<S> {
    stream: S,
    hung_up: Option<HungUp>,
}

/// How writing ended, until reading has said it.
#[derive(Debug)]
enum HungUp {
    Untold(io::Error),
    Told,
}

impl<S> Hearing<S> {
    pub(super) fn new(stream: S) -> Self {
        Self { stream, hung_up: None }
    }

    /// What came of sending so many bytes.
    fn sent<T>(&mut self, all: T, sent: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        match sent {
            Poll::Ready(Err(error)) if is_hung_up(&error) => {
                self.hung_up = Some(HungUp::Untold(error));
                Poll::Ready(Ok(all))
            }
            Poll::Ready(_) | Poll::Pending => sent,
        }
    }
}

fn is_hung_up(error: &io::Error) -> bool {
    let kinds = [ErrorKind::BrokenPipe, ErrorKind::ConnectionReset, ErrorKind::ConnectionAborted];
    kinds.contains(&error.kind())
}

impl<S: Read + Unpin> Read for Hearing<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        mut buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let Some(hung_up) = &mut this.hung_up else {
            return Pin::new(&mut this.stream).poll_read(context, buffer);
        };
        let mut room = [0; CHUNK_LEN_MAX];
        let len = room.len().min(buffer.remaining());
        let mut chunk = ReadBuf::new(&mut room[..len]);
        let read = ready!(Pin::new(&mut this.stream).poll_read(context, chunk.unfilled()));
        if (read.is_err() || chunk.filled().is_empty())
            && let HungUp::Untold(error) = mem::replace(hung_up, HungUp::Told)
        {
            return Poll::Ready(Err(error));
        }
        buffer.put_slice(chunk.filled());
        Poll::Ready(read)
    }
}

impl<S: Write + Unpin> Write for Hearing<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.hung_up.is_some() {
            return Poll::Ready(Ok(bytes.len()));
        }
        let sent = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.sent(bytes.len(), sent)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let all = slices.iter().map(|it| it.len()).sum();
        if self.hung_up.is_some() {
            return Poll::Ready(Ok(all));
        }
        let sent = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.sent(all, sent)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.hung_up.is_some() {
            return Poll::Ready(Ok(()));
        }
        let sent = Pin::new(&mut self.stream).poll_flush(context);
        self.sent((), sent)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.hung_up.is_some() {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

impl<S: Connection> Connection for Hearing<S> {
    fn connected(&self) -> Connected {
        self.stream.connected()
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use http_body_util::{BodyExt as _, Full};
    use hyper::{Request, client::conn::http1::handshake};
    use tokio::time::timeout;

    use super::*;
    use crate::tasks::{describe, spawn};

    const REFUSAL: &[u8] = b"HTTP/1.1 413 Payload Too Large\r\nContent-Length: 4\r\n\r\nlong";

    /// A provider that hangs up on the second thing it is sent, and has said this.
    struct Refusing {
        says: &'static [u8],
        writes: u32,
        reads: Option<Waker>,
    }

    impl Read for Refusing {
        fn poll_read(
            mut self: Pin<&mut Self>,
            context: &mut Context<'_>,
            mut buffer: ReadBufCursor<'_>,
        ) -> Poll<io::Result<()>> {
            if self.writes < 2 {
                self.reads = Some(context.waker().clone());
                return Poll::Pending;
            }
            // In pieces, as it may come.
            let len = self.says.len().min(20);
            buffer.put_slice(&self.says[..len]);
            self.says = &self.says[len..];
            Poll::Ready(Ok(()))
        }
    }

    impl Write for Refusing {
        fn poll_write(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            self.writes += 1;
            if self.writes == 1 {
                return Poll::Ready(Ok(bytes.len().min(1_000)));
            }
            self.reads.take().into_iter().for_each(Waker::wake);
            Poll::Ready(Err(ErrorKind::ConnectionReset.into()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Err(ErrorKind::NotConnected.into()))
        }
    }

    async fn asked(says: &'static [u8]) -> hyper::Result<(u16, Vec<u8>)> {
        let stream = Hearing::new(Refusing { says, writes: 0, reads: None });
        let (mut sender, connection) = handshake(stream).await?;
        spawn("connection", async move { drop(connection.await) });
        let request = Request::post("/").body(Full::new(&[0_u8; 1 << 20][..])).unwrap();
        let wait = std::time::Duration::from_mins(1);
        let response = timeout(wait, sender.send_request(request)).await.unwrap()?;
        let status = response.status().as_u16();
        let body = timeout(wait, response.collect()).await.unwrap()?.to_bytes();
        timeout(wait, sender.ready()).await.unwrap().unwrap_err();
        Ok((status, body.to_vec()))
    }

    #[tokio::test]
    async fn who_answers_and_hangs_up_is_heard() {
        assert_eq!(asked(REFUSAL).await.unwrap(), (413, b"long".to_vec()));
    }

    #[tokio::test]
    async fn who_hangs_up_without_a_whole_answer_has_given_none() {
        for len in [0, 20, REFUSAL.len() - 1] {
            let error = asked(&REFUSAL[..len]).await.unwrap_err();
            assert!(describe(&error).contains("reset"), "{len}: {}", describe(&error));
        }
    }
}
