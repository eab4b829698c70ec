//! What a caller may cost, and for how long; and that whoever makes progress goes on.

use std::{net::SocketAddr, time::Duration};

use http_body_util::BodyExt as _;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time::{Instant, sleep, timeout},
};

use crate::world::{SOON, times};

use super::{
    Provider, Reader, before,
    http2::{get, h2},
};

/// Short waits, so that a test of them is short; and none so short that a busy machine makes a
/// caller dawdle who does not.
const LIMITS: &str = "[limits]\nheader_read_timeout = \"2s\"\nbody_read_timeout = \"2s\"\n\
                      write_timeout = \"2s\"\nidle_timeout = \"3s\"\n";
/// Longer than each of them.
const LONGER: Duration = Duration::from_secs(5);

/// B-42
#[tokio::test]
async fn a_head_that_is_too_large_is_refused() {
    let provider = Provider::start().await;
    let (serve, _dir) = before(provider.address, "").await;
    let get =
        |target: &str, headers: &str| format!("GET {target} HTTP/1.1\r\nHost: a\r\n{headers}\r\n");
    for (request, status) in [
        (get("/v1/x", &"X-A: b\r\n".repeat(1_000)), 431),
        (get("/v1/x", &format!("X-A: {}\r\n", "a".repeat(1 << 20))), 431),
        (get(&format!("/v1/{}", "x".repeat(20_000)), ""), 414),
        (get(&format!("/v1/{}", "x".repeat(1 << 16)), ""), 431),
        (get("/v1/x", &format!("X-A: {}\r\n", "a".repeat(30_000))), 200),
        (get(&format!("/v1/{}", "x".repeat(10_000)), &"X-A: b\r\n".repeat(90)), 200),
    ] {
        let mut caller = Reader::new(TcpStream::connect(serve.data).await.unwrap());
        // It may be refused before it is written.
        drop(caller.stream.write_all(request.as_bytes()).await);
        let answer = timeout(SOON, caller.answer()).await.unwrap();
        assert_eq!(answer.map_or(status, |it| it.status()), status, "{}", &request[..40]);
    }
    assert_eq!(provider.take().0.len(), 2);
}

/// Opens a connection, says this much and then `drip` again and again, until it is closed.
async fn hold(address: SocketAddr, says: &str, drip: &str) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(says.as_bytes()).await.unwrap();
    let (mut read, mut write) = stream.into_split();
    let mut answer = Vec::new();
    let dripping = async {
        while write.write_all(drip.as_bytes()).await.is_ok() {
            sleep(Duration::from_millis(100)).await;
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        _ = timeout(SOON, read.read_to_end(&mut answer)) => {}
        () = dripping => {}
    }
    answer
}

#[tokio::test]
async fn an_upload_that_moves_takes_nothing_of_its_providers_time() {
    let provider = Provider::start().await;
    let (serve, _dir) = before(provider.address, "[limits]\nupstream_timeout = \"3s\"\n").await;
    let mut caller = Reader::new(TcpStream::connect(serve.data).await.unwrap());
    let head = "POST /v1/x HTTP/1.1\r\nHost: a\r\nContent-Length: 15\r\n\r\n";
    caller.stream.write_all(head.as_bytes()).await.unwrap();
    for _ in 0..15 {
        sleep(Duration::from_millis(300)).await;
        caller.stream.write_all(b"a").await.unwrap();
    }
    let answer = timeout(SOON, caller.answer()).await.unwrap().unwrap();
    assert_eq!(answer.status(), 200);
}

/// B-41
#[tokio::test]
async fn callers_that_dawdle_lose_their_connections_and_nobody_else_notices() {
    let provider = Provider::start().await;
    let (serve, _dir) = before(provider.address, LIMITS).await;
    let post = "POST /v1/x HTTP/1.1\r\nHost: a\r\n";
    let sized = format!("{post}Content-Length: 10000\r\n\r\nabc");
    let chunked = format!("{post}Transfer-Encoding: chunked\r\n\r\n");
    let dawdlers = [
        ("", ""),
        ("GET /v1/x HT", ""),
        ("GET /v1/x HTTP/1.1\r\n", "X-A: b\r\n"),
        ("PRI * HTTP/2.0\r\n\r\n", ""),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", ""),
        (&sized, ""),
        (&sized, "a"),
        (&chunked, "1\r\na\r\n"),
        ("GET /v1/x HTTP/1.1\r\nHost: a\r\n\r\n", ""),
    ];
    let began = Instant::now();
    let mut held = tokio::task::JoinSet::new();
    for _ in 0..times("CROSSFADE_DAWDLERS", 30) {
        for (says, drip) in dawdlers.map(|(says, drip)| (says.to_owned(), drip.to_owned())) {
            let address = serve.data;
            held.spawn(async move { (hold(address, &says, &drip).await, says) });
        }
    }
    // Others are served meanwhile.
    let mut served = 0;
    while !held.is_empty() {
        let answer = serve.post("/v1/x", b"abc".to_vec(), &[]).await;
        assert_eq!(answer.status, 200);
        served += 1;
        while let Some(ended) = held.try_join_next() {
            let (answer, says) = ended.unwrap();
            let answer = String::from_utf8_lossy(&answer).into_owned();
            let status = answer.get(9..12).unwrap_or_default();
            match says {
                it if it.starts_with("POST") => assert_eq!(status, "408", "{answer}"),
                it if it.ends_with("a\r\n\r\n") => assert_eq!(status, "200", "{answer}"),
                _ => assert!(status.is_empty() || says.starts_with("PRI"), "{answer}"),
            }
        }
    }
    assert!(began.elapsed() < SOON / 2, "{:?}", began.elapsed());
    assert!(3 < served, "{served}");
}

/// A provider whose answers have no end: each is a piece again and again. Tells when one is given up.
async fn endless(
    piece: usize,
    pause: Duration,
) -> (SocketAddr, tokio::sync::mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, receiver) = tokio::sync::mpsc::channel(16);
    crossfade::tasks::spawn("endless", async move {
        while let Ok((stream, _)) = listener.accept().await {
            let sender = sender.clone();
            crossfade::tasks::spawn("connection", async move {
                let mut reader = Reader::new(stream);
                let Ok(request) = reader.request(&address.to_string()).await else { return };
                drop(reader.stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await);
                while reader.stream.write_all(&vec![b'x'; piece]).await.is_ok() {
                    sleep(pause).await;
                }
                drop(sender.send(request.first).await);
            });
        }
    });
    (address, receiver)
}

/// B-41: the wait is for a caller that takes nothing, not for one that takes long.
#[tokio::test]
async fn an_answer_nobody_takes_is_given_up_and_one_that_is_taken_slowly_goes_on() {
    let (address, mut given_up) = endless(64 << 10, Duration::ZERO).await;
    let (serve, _dir) = before(address, LIMITS).await;
    let ask = |path: &'static str| async move {
        let mut stream = TcpStream::connect(serve.data).await.unwrap();
        let request = format!("GET /v1/{path} HTTP/1.1\r\nHost: a\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        stream
    };
    let (_never, mut slowly) = (ask("never").await, ask("slowly").await);
    let began = Instant::now();
    let mut taken = vec![0; 256 << 10];
    // And until the other one is given up.
    let mut first = None;
    while began.elapsed() < LONGER || first.is_none() {
        assert!(began.elapsed() < SOON, "it is never given up");
        slowly.read_exact(&mut taken).await.unwrap();
        sleep(Duration::from_millis(50)).await;
        first = first.or_else(|| given_up.try_recv().ok());
    }
    assert_eq!(first.unwrap(), "GET /v1/never HTTP/1.1");
    assert!(given_up.try_recv().is_err());
}

/// None of the waits is for an answer that comes slowly.
#[tokio::test]
async fn a_stream_that_makes_progress_outlasts_every_wait() {
    let (address, mut given_up) = endless(1, Duration::from_millis(300)).await;
    let (serve, _dir) = before(address, LIMITS).await;
    let mut stream = TcpStream::connect(serve.data).await.unwrap();
    stream.write_all(b"GET /v1/x HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let mut requests = h2(TcpStream::connect(serve.data).await.unwrap()).await;
    let mut answer = requests.send_request(get("/v1/y")).await.unwrap();
    let began = Instant::now();
    while began.elapsed() < LONGER {
        assert!(0 < timeout(SOON, stream.read(&mut [0; 64])).await.unwrap().unwrap());
        assert!(timeout(SOON, answer.body_mut().frame()).await.unwrap().unwrap().is_ok());
    }
    assert!(given_up.try_recv().is_err());
}

/// A caller that takes one answer of its connection and not another loses only that.
#[tokio::test]
async fn an_answer_nobody_takes_is_given_up_alone() {
    let (address, mut given_up) = endless(500, Duration::from_millis(5)).await;
    let (serve, _dir) = before(address, LIMITS).await;
    let mut requests = h2(TcpStream::connect(serve.data).await.unwrap()).await;
    let never = requests.send_request(get("/v1/never")).await.unwrap();
    let mut taken = requests.send_request(get("/v1/taken")).await.unwrap();
    let mut first = None;
    let began = Instant::now();
    while began.elapsed() < LONGER || first.is_none() {
        assert!(began.elapsed() < SOON, "it is never given up");
        assert!(timeout(SOON, taken.body_mut().frame()).await.unwrap().unwrap().is_ok());
        first = first.or_else(|| given_up.try_recv().ok());
    }
    assert_eq!(first.unwrap(), "GET /v1/never HTTP/1.1");
    assert!(given_up.try_recv().is_err());
    drop(never);
}
