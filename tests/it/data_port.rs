//! The data port as a plain pass-through: bytes, streams, errors, limits.

use std::time::Duration;

use bytes::Bytes;
use crossfade::players::{Delivery, Fault};
use http_body_util::{BodyExt as _, Full};
use hyper::Request;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time::timeout,
};

use crate::world::{SOON, World, faulty, http, rollout, slow, until, whole};

/// Sends raw bytes and reads until the peer closes, which it is asked to.
async fn raw(address: std::net::SocketAddr, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request).await.unwrap();
    let mut answer = Vec::new();
    let _ = timeout(SOON, stream.read_to_end(&mut answer)).await.unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

/// An upstream that answers every connection with these bytes and closes it; what it received.
async fn echo(
    answer: &'static [u8],
) -> (std::net::SocketAddr, tokio::sync::mpsc::Receiver<Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, receiver) = tokio::sync::mpsc::channel(16);
    crossfade::tasks::spawn("echo", async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = vec![0; 65_536];
            let Ok(len) = stream.read(&mut request).await else { continue };
            request.truncate(len);
            let _ = sender.send(request).await;
            let _ = stream.write_all(answer).await;
        }
    });
    (address, receiver)
}

/// A server in front of one raw upstream.
async fn before(address: std::net::SocketAddr) -> (crate::world::Serve, crate::world::Dir) {
    crate::hygiene::before(address, "[limits]\nbody_max = \"1MiB\"\n").await
}

#[tokio::test]
async fn a_request_passes_with_its_bytes_untouched_and_hop_by_hop_headers_dropped() {
    let answer = b"HTTP/1.1 418 Teapot\r\nX-Up: 1\r\nKeep-Alive: 5\r\nConnection: close\r\nContent-Length: 4\r\n\r\n\x00\xff{}";
    let (address, mut received) = echo(answer).await;
    let (serve, _dir) = before(address).await;
    let request = b"PATCH /v1/odd%2Fpath//..a;b=..?x=%20y&z=../ HTTP/1.1\r\nHost: proxy\r\nAuthorization: Bearer mine\r\n\
        Connection: close, X-Hop\r\nX-Hop: 1\r\nX-Crossfade-Feature: chat\r\nX-Keep: a  b\r\nContent-Length: 5\r\n\r\n\x01\x02\"}{";
    let got = raw(serve.data, request).await;
    assert!(got.starts_with("HTTP/1.1 418"), "{got}");
    assert!(got.contains("x-up: 1") && !got.contains("keep-alive: 5"), "{got}");
    assert!(got.contains("x-crossfade-provider: only"), "{got}");
    let sent = received.recv().await.unwrap();
    let text = String::from_utf8_lossy(&sent).to_lowercase();
    assert!(text.starts_with("patch /v1/odd%2fpath//..a;b=..?x=%20y&z=../ http/1.1\r\n"), "{text}");
    assert!(text.contains("authorization: bearer mine") && text.contains("x-keep: a  b"), "{text}");
    assert!(!text.contains("x-hop") && !text.contains("x-crossfade"), "{text}");
    assert!(text.contains(&format!("host: {address}")), "{text}");
    assert!(sent.ends_with(b"\x01\x02\"}{"), "{text}");
}

#[tokio::test]
async fn a_request_with_nothing_in_it_says_so_to_its_provider() {
    let (address, mut received) = echo(b"HTTP/1.1 204 No Content\r\n\r\n").await;
    let (serve, _dir) = before(address).await;
    for (request, lengths) in [
        ("POST /v1/batches/a/cancel HTTP/1.1\r\nContent-Length: 0\r\n", 1),
        ("POST /v1/batches/a/cancel HTTP/1.1\r\n", 1),
        ("GET /v1/models HTTP/1.1\r\n", 0),
    ] {
        let request = format!("{request}Host: proxy\r\nConnection: close\r\n\r\n");
        assert!(raw(serve.data, request.as_bytes()).await.starts_with("HTTP/1.1 204"));
        let sent = received.recv().await.unwrap();
        let sent = String::from_utf8_lossy(&sent).to_lowercase();
        assert_eq!(sent.matches("content-length: 0\r\n").count(), lengths, "{sent}");
    }
}

#[tokio::test]
async fn a_stream_arrives_chunk_by_chunk_and_byte_for_byte() {
    let world = World::with(|primary, _| primary.latency = slow(0)).await;
    let serve = world.serve("").await;
    let body = world.body(3, Delivery::Stream);
    let direct = {
        let uri = format!("http://{}/v1/chat/completions", world.primary.address());
        let request = Request::post(uri).header("content-type", "application/json");
        let request = request.body(Full::new(Bytes::from(body.clone()))).unwrap();
        whole(http().request(request).await.unwrap()).await
    };
    let through = serve.chat(body, &[]).await;
    assert_eq!((through.status, &through.body), (direct.status, &direct.body));
    assert_eq!(through.header("content-type"), direct.header("content-type"));
    assert!(through.body.ends_with(b"data: [DONE]\n\n"));
    assert_eq!(through.header("x-crossfade-request-id").len(), 36);
}

#[tokio::test]
async fn the_first_chunk_is_there_before_the_last_one_is_made() {
    let world = World::with(|primary, _| {
        primary.latency = crossfade::players::Latency::Fixed { first_byte_ms: 10, total_ms: 4_000 };
    })
    .await;
    let serve = world.serve("").await;
    let uri = format!("http://{}/v1/chat/completions", serve.data);
    let request = Request::post(uri).header("content-type", "application/json");
    let body = Bytes::from(world.body(5, Delivery::Stream));
    let mut response = http().request(request.body(Full::new(body)).unwrap()).await.unwrap();
    let first = response.body_mut().frame().await.unwrap().unwrap();
    assert!(first.is_data());
    // The whole takes four seconds at the provider; held back, all of it would be here by now.
    let first_at = tokio::time::Instant::now();
    assert!(whole(response).await.body.ends_with(b"data: [DONE]\n\n"));
    assert!(Duration::from_secs(1) < first_at.elapsed(), "{:?}", first_at.elapsed());
}

#[tokio::test]
async fn errors_of_the_primary_pass_as_they_are() {
    let world = World::with(|primary, _| primary.fault = Fault::Errors(503)).await;
    let serve = world.serve("").await;
    let answer = serve.chat(world.body(0, Delivery::Whole), &[]).await;
    assert_eq!(answer.status, 503);
    assert_eq!(answer.header("x-crossfade-provider"), "primary");
    assert!(answer.json()["error"]["message"].is_string());
}

#[tokio::test]
async fn our_own_errors_have_the_form_clients_understand() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let nobody = listener.local_addr().unwrap();
    drop(listener);
    let (serve, _dir) = before(nobody).await;
    let answer = serve.post("/v1/chat/completions", b"{}".to_vec(), &[]).await;
    assert_eq!(answer.status, 502);
    assert_eq!(answer.json()["error"]["code"], "primary_unreachable");

    let large = serve.post("/v1/files", vec![b'x'; (1 << 20) + 1], &[]).await;
    assert_eq!((large.status, &large.json()["error"]["code"]), (413, &"request_too_large".into()));

    let connect = raw(
        serve.data,
        b"CONNECT a.example:443 HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n",
    )
    .await;
    assert!(connect.starts_with("HTTP/1.1 501"), "{connect}");
    let other = raw(
        serve.data,
        b"GET http://a.example/ HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n",
    )
    .await;
    assert!(other.starts_with("HTTP/1.1 501"), "{other}");
    let garbage = raw(serve.data, b"\x16\x03\x01\r\n\r\n").await;
    assert!(garbage.is_empty() || garbage.starts_with("HTTP/1.1 400"), "{garbage}");
}

#[tokio::test]
async fn a_chunked_body_over_the_limit_is_refused_and_one_below_passes() {
    let world = World::new().await;
    let serve = world.serve("[limits]\nbody_max = \"64KiB\"\nmirror_body_max = \"16KiB\"\n").await;
    let chunked = |len: usize| {
        let head = "POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n\
                    Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n";
        format!("{head}{len:x}\r\n{}\r\n0\r\n\r\n", "x".repeat(len))
    };
    let refused = raw(serve.data, chunked(65_537).as_bytes()).await;
    assert!(refused.starts_with("HTTP/1.1 413"), "{refused}");
    let passed = raw(serve.data, chunked(40_000).as_bytes()).await;
    assert!(passed.starts_with("HTTP/1.1 400"), "the player's own word for no JSON: {passed}");
}

/// M5 B-04
#[tokio::test]
async fn a_caller_who_leaves_cancels_the_call_upstream() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (serve, _dir) = before(listener.local_addr().unwrap()).await;
    let mut caller = TcpStream::connect(serve.data).await.unwrap();
    caller
        .write_all(b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}")
        .await
        .unwrap();
    let (mut upstream, _) = timeout(SOON, listener.accept()).await.unwrap().unwrap();
    let mut request = vec![0; 4_096];
    assert!(0 < upstream.read(&mut request).await.unwrap());
    drop(caller);
    // The end of the upstream connection is what the provider sees of a cancelled call.
    let rest = timeout(SOON, async {
        loop {
            match upstream.read(&mut request).await {
                Ok(0) | Err(_) => break,
                Ok(_) => {}
            }
        }
    });
    rest.await.unwrap();
}

/// The next request on a connection from the proxy.
async fn request(upstream: &mut TcpStream) -> String {
    let mut bytes = vec![0; 4_096];
    let len = timeout(SOON, upstream.read(&mut bytes)).await.unwrap().unwrap();
    String::from_utf8_lossy(&bytes[..len]).into_owned()
}

/// A caller's next request is asked, reaches `upstream` and is answered, with this header.
async fn exchange(caller: &mut TcpStream, upstream: &mut TcpStream, (path, header): (&str, &str)) {
    ask(caller, path).await;
    let got = request(upstream).await;
    assert!(got.starts_with(&format!("GET /v1/{path} HTTP/1.1\r\n")), "{got}");
    let host = upstream.local_addr().unwrap();
    assert_eq!(got.matches(&format!("host: {host}\r\n")).count(), 1, "{got}");
    let answer = format!("HTTP/1.1 200 OK\r\n{header}\r\nContent-Length: 2\r\n\r\nok");
    upstream.write_all(answer.as_bytes()).await.unwrap();
    assert_eq!(answered(caller).await, "HTTP/1.1 200 OK");
}

async fn ask(caller: &mut TcpStream, path: &str) {
    let request = format!("GET /v1/{path} HTTP/1.1\r\nHost: proxy\r\n\r\n");
    caller.write_all(request.as_bytes()).await.unwrap();
}

/// The first line of an answer that has been read to its end.
async fn answered(caller: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\nok") && !answer.ends_with(b"}}") {
        assert!(0 < timeout(SOON, caller.read_buf(&mut answer)).await.unwrap().unwrap());
    }
    String::from_utf8_lossy(&answer).lines().next().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn a_caller_that_stays_has_its_own_connection_and_nothing_is_asked_twice() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let accept = || async { timeout(SOON, listener.accept()).await.unwrap().unwrap().0 };
    let (serve, _dir) = before(listener.local_addr().unwrap()).await;
    let mut caller = TcpStream::connect(serve.data).await.unwrap();
    let ((), mut shared) = tokio::join!(ask(&mut caller, "first"), accept());
    assert!(request(&mut shared).await.starts_with("GET /v1/first "));
    shared.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.unwrap();
    assert_eq!(answered(&mut caller).await, "HTTP/1.1 200 OK");

    // From its second request on; and as long as the provider keeps it.
    let ((), mut own) = tokio::join!(ask(&mut caller, "second"), accept());
    assert!(request(&mut own).await.starts_with("GET /v1/second "));
    own.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.unwrap();
    assert_eq!(answered(&mut caller).await, "HTTP/1.1 200 OK");
    exchange(&mut caller, &mut own, ("third", "X-A: b")).await;
    // Said aloud, because a request may be sent before a silent end of the connection is seen.
    exchange(&mut caller, &mut own, ("fourth", "Connection: close")).await;
    drop(own);

    // A request that was read is not sent again when its connection breaks.
    let ((), mut own) = tokio::join!(ask(&mut caller, "broken"), accept());
    assert!(request(&mut own).await.starts_with("GET /v1/broken "));
    drop(own);
    assert_eq!(answered(&mut caller).await, "HTTP/1.1 502 Bad Gateway");
    let ((), mut own) = tokio::join!(ask(&mut caller, "last"), accept());
    assert!(request(&mut own).await.starts_with("GET /v1/last "));
    assert!(shared.try_read(&mut [0; 64]).is_err(), "nothing came by the pool meanwhile");

    drop(caller);
    assert_eq!(request(&mut own).await, "", "the call is cancelled");
}

/// C4 INV7
#[tokio::test]
async fn without_a_usable_store_the_primary_is_served_and_readiness_says_so() {
    let world = World::new().await;
    std::fs::write(world.dir.path().join("store"), "a file where the folder should be").unwrap();
    let serve = world.serve(&rollout("0%", "100%")).await;
    let answer = serve.chat(world.body(0, Delivery::Whole), &[]).await;
    assert_eq!(answer.status, 200);
    let ready = serve.page("/readyz").await;
    assert!(ready.contains("degraded"), "{ready}");
    assert_eq!(serve.page("/healthz").await, "ok\n");
    let (code, text) = serve.cli(&["start", "chat"]).await;
    assert_ne!(code, 0, "{text}");
    assert_eq!(world.candidate.stats().requests, 0);
}

#[tokio::test]
async fn a_primary_that_hangs_with_a_dead_candidate_beside_it_is_still_the_primary() {
    let world = World::with(faulty(Fault::Dead)).await;
    let serve = world.serve(&rollout("0%", "100%")).await;
    until("copies are made", || async {
        let answer = serve.chat(world.body(0, Delivery::Whole), &[]).await;
        assert_eq!((answer.status, answer.header("x-crossfade-provider")), (200, "primary"));
        0 < world.candidate.stats().requests
    })
    .await;
}

/// B-60
#[tokio::test]
async fn a_caller_without_a_place_is_told_to_come_again() {
    let world = World::new().await;
    let serve = world.serve("[limits]\nconnections_max = 1\n").await;
    let ask = b"GET /v1/models HTTP/1.1\r\nhost: a\r\n\r\n";
    let once = b"GET /v1/models HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
    let mut first = TcpStream::connect(serve.data).await.unwrap();
    first.write_all(ask).await.unwrap();
    let mut answer = [0; 12];
    timeout(SOON, first.read_exact(&mut answer)).await.unwrap().unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200");
    let told = raw(serve.data, ask).await;
    assert!(told.starts_with("HTTP/1.1 503 ") && told.contains("retry-after: 1\r\n"), "{told}");
    let refused = serve.metric("crossfade_refused_total{reason=\"connections\"}").await;
    assert!(0.5 < refused && refused < 1.5, "{refused}");
    drop(first);
    until("there is a place", || async { raw(serve.data, once).await.starts_with("HTTP/1.1 200") })
        .await;
}
