//! A successor takes over also from callers who speak HTTP/2 or TLS.

use bytes::Bytes;
use crossfade::players::Delivery;
use http_body_util::{BodyExt as _, Full};
use hyper::{Request, client::conn::http1::handshake};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::{Arc, Caller, JoinSet, Load, Relaxed, SocketAddr, streaming, successor};
use crate::hygiene::{
    http2::{Requests, h2},
    tls,
};
use crate::world::{World, rollout, until};

/// How a caller speaks.
#[derive(Clone, Copy)]
enum Speaks {
    Http2,
    Http2ByTls,
    Http1ByTls,
}

/// One that keeps its connection.
enum Client {
    Http1(Caller),
    Http2(Requests),
}

impl Client {
    async fn connect(address: SocketAddr, speaks: Speaks) -> Self {
        match speaks {
            Speaks::Http2 => Self::Http2(h2(TcpStream::connect(address).await.unwrap()).await),
            Speaks::Http2ByTls => Self::Http2(h2(tls::connect(address, &[b"h2"]).await).await),
            Speaks::Http1ByTls => {
                let stream = TokioIo::new(tls::connect(address, &[b"http/1.1"]).await);
                let (sender, connection) = handshake(stream).await.unwrap();
                crossfade::tasks::spawn("caller", async move { drop(connection.await) });
                Self::Http1(Caller(sender))
            }
        }
    }

    /// The status of the answer to a request, none where it was not taken any more, and whether
    /// the connection may be used again.
    async fn ask(&mut self, body: Vec<u8>) -> (Option<u16>, bool) {
        let requests = match self {
            Self::Http1(caller) => {
                let (status, stays) = caller.ask(body).await.unwrap();
                return (Some(status), stays);
            }
            Self::Http2(requests) => requests,
        };
        let request = Request::post("http://crossfade/v1/chat/completions")
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from(body)));
        match requests.try_send_request(request.unwrap()).await {
            Ok(response) => {
                let status = response.status().as_u16();
                assert!(!response.collect().await.unwrap().to_bytes().is_empty());
                (Some(status), true)
            }
            Err(mut error) => {
                // Nothing of it was sent, where it is given back: the connection is to end.
                assert!(error.take_message().is_some(), "a request was lost: {}", error.error());
                (None, false)
            }
        }
    }
}

fn load(world: &World, address: SocketAddr, speaks: &[Speaks]) -> Load {
    let (asked, ends) = (Arc::default(), Arc::default());
    let mut load = Load { callers: JoinSet::new(), asked, ends };
    for (index, speaks) in speaks.iter().copied().enumerate() {
        let (asked, ends) = (Arc::clone(&load.asked), Arc::clone(&load.ends));
        let how = if index % 2 == 0 { Delivery::Whole } else { Delivery::Stream };
        let body = world.body(index, how);
        load.callers.spawn(async move {
            let mut client = Client::connect(address, speaks).await;
            while !ends.load(Relaxed) {
                let (status, stays) = client.ask(body.clone()).await;
                if let Some(status) = status {
                    assert_eq!(status, 200);
                    asked.fetch_add(1, Relaxed);
                }
                if !stays {
                    client = Client::connect(address, speaks).await;
                }
            }
        });
    }
    load
}

/// B-62
#[tokio::test]
async fn b62_successors_leave_no_caller_of_http_2_or_tls_without_an_answer() {
    use Speaks::{Http1ByTls, Http2, Http2ByTls};
    for (more, speaks) in [
        (String::new(), [Http2; 8]),
        (
            tls::tls(),
            [
                Http2ByTls, Http2ByTls, Http1ByTls, Http1ByTls, Http2ByTls, Http2ByTls, Http1ByTls,
                Http1ByTls,
            ],
        ),
    ] {
        let world = World::with(streaming(150)).await;
        let mut serve = world.serve(&(rollout("0%", "100%") + &more)).await;
        let config = world.dir.path().join("crossfade.toml");
        let load = load(&world, serve.data, &speaks);
        for round in 0..4 {
            let before = load.asked.load(Relaxed);
            until("callers are answered", || async { before + 20 < load.asked.load(Relaxed) })
                .await;
            let next = successor(&config).await;
            assert_eq!(next.data, serve.data, "the same socket");
            let old = std::mem::replace(&mut serve, next);
            assert!(old.ended().await.success(), "round {round}");
            until("it has the store", || async {
                serve.page("/readyz").await.contains("\"ready\"")
            })
            .await;
        }
        println!("{} requests", load.end().await);
        assert!(serve.stop().await.success());
    }
}
