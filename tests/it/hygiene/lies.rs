//! A provider that lies costs its callers an error that says why, and never a wrong answer.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use crossfade::tasks::spawn;
use tokio::{
    io::AsyncWriteExt as _,
    net::{TcpListener, TcpStream},
    time::timeout,
};

use crate::world::SOON;

use super::{Message, Reader, before, sections};

/// A provider that answers the next requests with these bytes, and then closes.
struct Liar {
    address: SocketAddr,
    says: Arc<Mutex<Vec<u8>>>,
}

impl Liar {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let says: Arc<Mutex<Vec<u8>>> = Arc::default();
        let said = Arc::clone(&says);
        spawn("liar", async move {
            while let Ok((stream, _)) = listener.accept().await {
                let mut reader = Reader::new(stream);
                if reader.request(&address.to_string()).await.is_ok() {
                    let bytes = said.lock().unwrap().clone();
                    drop(reader.stream.write_all(&bytes).await);
                }
            }
        });
        Self { address, says }
    }

    fn says(&self, bytes: &[u8]) {
        *self.says.lock().unwrap() = bytes.to_vec();
    }
}

async fn ask(address: SocketAddr, method: &str) -> Result<Message, super::End> {
    let mut caller = Reader::new(TcpStream::connect(address).await.unwrap());
    let request = format!("{method} /v1/x HTTP/1.1\r\nHost: a\r\n\r\n");
    caller.stream.write_all(request.as_bytes()).await.unwrap();
    timeout(SOON, caller.answer()).await.unwrap()
}

/// What an answer comes to, in the words of the golden file.
fn verdict(answer: Result<Message, super::End>) -> String {
    let Ok(answer) = answer else { return "cut".to_owned() };
    let status = answer.status();
    if answer.all("x-crossfade-provider").is_empty() {
        let body: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
        return format!("{status} {}", body["error"]["code"].as_str().unwrap());
    }
    let expected: &[u8] = if status == 200 { b"ok" } else { b"" };
    let text = String::from_utf8_lossy(&answer.body).into_owned();
    assert_eq!(answer.body, expected, "{status} {text}");
    for name in ["set-cookie", "x-evil", "trailer", "upgrade", "proxy-authenticate", "keep-alive"] {
        assert!(answer.all(name).is_empty(), "{name}");
    }
    format!("{status} whole")
}

#[tokio::test]
async fn every_raw_answer_comes_to_what_the_golden_file_says() {
    let liar = Liar::start().await;
    let (serve, _dir) = before(liar.address, "").await;
    let mut faults = Vec::new();
    for (name, expected, bytes) in sections("tests/golden/hygiene/answers.txt") {
        liar.says(&bytes);
        let got = verdict(ask(serve.data, "GET").await);
        if got != expected {
            faults.push(format!("[{name}] {got}"));
        }
    }
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[tokio::test]
async fn an_answer_to_head_has_the_length_of_a_body_and_none() {
    let liar = Liar::start().await;
    let (serve, _dir) = before(liar.address, "").await;
    liar.says(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil");
    let mut caller = Reader::new(TcpStream::connect(serve.data).await.unwrap());
    for _ in 0..3 {
        caller.stream.write_all(b"HEAD /v1/x HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        let head = timeout(SOON, caller.head()).await.unwrap().unwrap();
        assert_eq!((head.status(), head.all("content-length")), (200, vec!["4"]));
    }
}

/// Heads and what comes before them have an end, in a limit of ours if not by themselves.
#[tokio::test]
async fn an_answer_that_never_begins_is_given_up() {
    let liar = Liar::start().await;
    let (serve, _dir) = before(liar.address, "").await;
    let end = "Content-Length: 2\r\n\r\nok";
    let bomb = |header: &str, times| format!("HTTP/1.1 200 OK\r\n{}{end}", header.repeat(times));
    let long = format!("X-A: {}\r\n", "a".repeat(1 << 20));
    let interim = "HTTP/1.1 102 Processing\r\n\r\n";
    for (says, expected) in [
        (bomb("X-A: b\r\n", 1_000), "502 primary_invalid"),
        (bomb(&long, 1), "502 primary_invalid"),
        (bomb("X-A: b\r\n", 50), "200 whole"),
        (interim.repeat(16) + &bomb("", 0), "200 whole"),
        (interim.repeat(1_000_000), "502 primary_invalid"),
    ] {
        liar.says(says.as_bytes());
        assert_eq!(verdict(ask(serve.data, "GET").await), expected, "{}", &says[..100]);
    }
}

/// What a provider sends beyond its answer is nobody's answer: on a caller's own connection, and
/// on one that callers share.
#[tokio::test]
async fn what_follows_an_answer_is_not_the_next_one() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    spawn("liar", async move {
        while let Ok((stream, _)) = listener.accept().await {
            spawn("connection", async move {
                let mut reader = Reader::new(stream);
                while let Ok(request) = reader.request(&address.to_string()).await {
                    let path = request.first.split(' ').nth(1).unwrap();
                    let answer =
                        format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{path}", path.len());
                    let evil = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil";
                    if reader.stream.write_all((answer + evil).as_bytes()).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    let (serve, _dir) = before(address, "").await;
    for caller in 0..20 {
        let mut reader = Reader::new(TcpStream::connect(serve.data).await.unwrap());
        for turn in 0..5 {
            let path = format!("/v1/{caller}/{turn}");
            let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n");
            reader.stream.write_all(request.as_bytes()).await.unwrap();
            let answer = timeout(SOON, reader.answer()).await.unwrap().unwrap();
            let body = String::from_utf8_lossy(&answer.body).into_owned();
            assert!(answer.status() == 502 || body == path, "{path}: {body}");
        }
    }
}

/// B-45: the caller waits for a word before it sends its body, and the provider needs no body to
/// say no.
#[tokio::test]
async fn an_answer_may_come_before_the_body() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (serve, _dir) = before(address, "").await;
    let mut caller = Reader::new(TcpStream::connect(serve.data).await.unwrap());
    let request =
        b"POST /v1/files HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n";
    caller.stream.write_all(request).await.unwrap();
    let (stream, _) = timeout(SOON, listener.accept()).await.unwrap().unwrap();
    let mut provider = Reader::new(stream);
    let head = timeout(SOON, provider.head()).await.unwrap().unwrap();
    assert!(head.all("expect").is_empty());
    let no = b"HTTP/1.1 417 Expectation Failed\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    provider.stream.write_all(no).await.unwrap();
    let answer = timeout(SOON, caller.answer()).await.unwrap().unwrap();
    assert_eq!(answer.status(), 100);
    assert_eq!(timeout(SOON, caller.answer()).await.unwrap().unwrap().status(), 417);
}

/// A provider may refuse a request by its head, while the body is on its way, and close.
#[tokio::test]
async fn a_refusal_during_an_upload_reaches_the_caller() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    spawn("provider", async move {
        while let Ok((stream, _)) = listener.accept().await {
            spawn("connection", async move {
                let mut reader = Reader::new(stream);
                while let Ok(head) = reader.head().await {
                    let is_upload = head.first.starts_with("POST");
                    let status = if is_upload { "413 Payload Too Large" } else { "200 OK" };
                    let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 2\r\n\r\nso");
                    if reader.stream.write_all(answer.as_bytes()).await.is_err() || is_upload {
                        return;
                    }
                }
            });
        }
    });
    let (serve, _dir) = before(address, "").await;
    let upload: Arc<[u8]> = vec![b'a'; 6 << 20].into();
    for turn in 0..20 {
        let (read, mut write) = TcpStream::connect(serve.data).await.unwrap().into_split();
        let mut caller = Reader::new(read);
        // Who asks a second time has a connection of its own to the provider.
        if turn % 2 == 0 {
            write.write_all(b"GET /v1/x HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
            assert_eq!(timeout(SOON, caller.answer()).await.unwrap().unwrap().status(), 200);
        }
        let body = Arc::clone(&upload);
        spawn("upload", async move {
            let head = format!(
                "POST /v1/files HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n",
                body.len()
            );
            drop(write.write_all(head.as_bytes()).await);
            drop(write.write_all(&body).await);
            // It stays, as one who waits for an answer does.
            write.forget();
        });
        let answer = timeout(SOON, caller.answer()).await.unwrap().unwrap();
        assert_eq!((answer.status(), &answer.body[..]), (413, &b"so"[..]), "{turn}");
    }
}
