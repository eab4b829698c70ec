//! Raw requests on the data port: what goes on to a provider has one length, one host, and nothing
//! that was said to us alone.
#![no_main]

use std::{convert::Infallible, time::Duration};

use crossfade::proxy::onward;
use http_body_util::{BodyExt, Empty};
use hyper::{
    Request, Response,
    body::{Bytes, Incoming},
    client, server,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use libfuzzer_sys::fuzz_target;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream},
    runtime::Builder,
};

const BUFFER: usize = 1 << 20;

fuzz_target!(|bytes: &[u8]| {
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).build();
    let runtime = runtime.expect("a runtime");
    let done = async { tokio::time::timeout(Duration::from_secs(60), pass_on(bytes)).await };
    for sent in runtime.block_on(done).expect("it ends") {
        check(&sent);
    }
});

/// What reaches the provider of these bytes of a caller, request by request.
async fn pass_on(bytes: &[u8]) -> Vec<Vec<u8>> {
    let (mut caller, ours) = tokio::io::duplex(BUFFER);
    let (told, mut heard) = tokio::sync::mpsc::unbounded_channel();
    let answer = service_fn(move |request: Request<Incoming>| {
        let told = told.clone();
        async move {
            if let Some(sent) = forward(request).await {
                told.send(sent).expect("somebody hears");
            }
            Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
        }
    });
    let serving = server::conn::http1::Builder::new().serve_connection(TokioIo::new(ours), answer);
    let asking = async move {
        caller.write_all(bytes).await.ok();
        caller.shutdown().await.ok();
        caller.read_to_end(&mut Vec::new()).await.ok();
    };
    let (served, ()) = tokio::join!(serving, asking);
    drop(served);
    let mut all = Vec::new();
    while let Ok(sent) = heard.try_recv() {
        all.push(sent);
    }
    all
}

/// Sends a request on as the proxy does, and tells the bytes of it.
async fn forward(request: Request<Incoming>) -> Option<Vec<u8>> {
    let (head, body) = request.into_parts();
    let (method, target) = (head.method.clone(), head.uri.clone());
    let headers = onward(head)?;
    let body = body.collect().await.ok()?;
    let mut request = Request::new(http_body_util::Full::new(body.to_bytes()));
    *request.method_mut() = method;
    *request.uri_mut() = target;
    *request.headers_mut() = headers;
    request.headers_mut().insert("host", "provider".parse().expect("a header"));
    let (ours, provider) = tokio::io::duplex(BUFFER);
    let (mut sender, connection) = client::conn::http1::handshake(TokioIo::new(ours)).await.ok()?;
    let answered = async {
        sender.send_request(request).await.ok();
        drop(sender);
    };
    let (sent, _, ()) = tokio::join!(receive(provider), connection, answered);
    Some(sent)
}

/// Everything until the caller waits for an answer.
async fn receive(mut provider: DuplexStream) -> Vec<u8> {
    let mut sent = Vec::new();
    let quiet = Duration::from_secs(1);
    while let Ok(Ok(1..)) = tokio::time::timeout(quiet, provider.read_buf(&mut sent)).await {}
    sent
}

fn check(sent: &[u8]) {
    let end = sent.windows(4).position(|it| it == b"\r\n\r\n").expect("a head that ends");
    let head = &sent[..end];
    let mut lines = head.split(|it| *it == b'\n');
    let first = lines.next().expect("a request line");
    assert_eq!(first.iter().filter(|it| **it == b' ').count(), 2, "one target");
    let name = |line: &[u8]| {
        let name = line.split(|it| *it == b':').next().unwrap_or_default();
        String::from_utf8_lossy(name).to_ascii_lowercase()
    };
    let names: Vec<String> = lines.map(name).collect();
    let count = |wanted: &str| names.iter().filter(|it| *it == wanted).count();
    assert!(count("content-length") + count("transfer-encoding") <= 1, "{names:?}");
    assert_eq!(count("host"), 1, "{names:?}");
    let ours = |it: &String| it.starts_with("x-crossfade-") || it.starts_with("x-forwarded-");
    assert!(!names.iter().any(ours), "{names:?}");
    for hop in ["connection", "te", "trailer", "upgrade", "keep-alive", "proxy-authorization"] {
        assert_eq!(count(hop), 0, "{names:?}");
    }
}
