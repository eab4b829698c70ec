//! More requests than there are descriptors for, on connections of HTTP/2.

use std::fs;

use bytes::Bytes;
use crossfade::players::Delivery;
use http_body_util::Full;
use hyper::{
    Request, Response,
    body::Incoming,
    client::conn::http2::{self, SendRequest},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{net::TcpStream, task::JoinSet, time::timeout};

use super::{Caller, streaming, with_descriptors};
use crate::world::{SOON, World, rollout, until, whole};

const DESCRIPTORS: usize = 512;
/// A quarter of the descriptors, two for each connection; half of them for requests beside others.
const BESIDE: usize = DESCRIPTORS / 4 / 2 / 2;
const CONNECTIONS: usize = 5;
const REQUESTS: usize = 120;

type Requests = SendRequest<Full<Bytes>>;

async fn h2(world: &World, serve: &crate::world::Serve) -> (Requests, Vec<u8>) {
    let stream = TcpStream::connect(serve.data).await.unwrap();
    let builder = http2::Builder::new(TokioExecutor::new());
    let (requests, connection) = builder.handshake(TokioIo::new(stream)).await.unwrap();
    crossfade::tasks::spawn("h2", async move { drop(connection.await) });
    (requests, world.body(1, Delivery::Stream))
}

async fn ask(mut requests: Requests, body: Vec<u8>) -> Response<Incoming> {
    let request = Request::post("http://crossfade/v1/chat/completions")
        .header("content-type", "application/json")
        .body(Full::new(Bytes::from(body)));
    timeout(SOON, requests.send_request(request.unwrap())).await.unwrap().unwrap()
}

#[tokio::test]
async fn b51_requests_of_http2_beyond_the_descriptors_are_refused_and_hurt_nobody_else() {
    let world = World::with(streaming(600_000)).await;
    let (config, log) = (world.dir.path().join("crossfade.toml"), world.dir.path().join("log"));
    fs::write(&config, world.config(&rollout("0%", "1%"))).unwrap();
    let serve = with_descriptors(DESCRIPTORS, &config, &log).await;
    until("the controller is up", || async { serve.cli(&["list"]).await.0 == 0 }).await;

    let (mut asking, mut connections) = (JoinSet::new(), Vec::new());
    for _ in 0..CONNECTIONS {
        let (requests, body) = h2(&world, &serve).await;
        for _ in 0..REQUESTS {
            asking.spawn(ask(requests.clone(), body.clone()));
        }
        connections.push((requests, body));
    }
    let (mut streams, mut refused) = (Vec::new(), 0);
    while let Some(answer) = asking.join_next().await {
        let answer = answer.unwrap();
        if answer.status() == 200 {
            streams.push(answer);
            continue;
        }
        let answer = whole(answer).await;
        assert_eq!((answer.status, answer.header("retry-after")), (503, "1"));
        assert_eq!(answer.json()["error"]["code"], "busy");
        refused += 1;
    }
    // Those that are refused make a moment's company for the next ones.
    assert!((BESIDE..=BESIDE + CONNECTIONS).contains(&streams.len()), "{}", streams.len());
    let counted = serve.metric("crossfade_refused_total{reason=\"requests\"}").await;
    assert!((counted - f64::from(refused)).abs() < 0.5, "{counted} {refused}");

    let mut caller = Caller::connect(serve.data).await;
    let asked = timeout(SOON, caller.ask_models()).await.expect("it has descriptors");
    assert_eq!(asked.unwrap(), (200, true));
    let (requests, body) = h2(&world, &serve).await;
    assert_eq!(ask(requests, body).await.status(), 200, "a connection is for one request too");

    drop(streams);
    let (requests, body) = connections.pop().unwrap();
    until("it goes on", || async { ask(requests.clone(), body.clone()).await.status() == 200 })
        .await;
    let log = fs::read_to_string(&log).unwrap();
    assert!(!log.contains("Too many open files"), "{log}");
}
