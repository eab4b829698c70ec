//! Beginning, running short of descriptors, and ending: what callers notice of it is nothing.

use std::{fs, net::SocketAddr, path::Path, time::Duration};

use bytes::Bytes;
use crossfade::players::Delivery;
use http_body_util::{BodyExt as _, Full};
use hyper::{
    Request,
    client::conn::http1::{SendRequest, handshake},
};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, process::Command, time::timeout};

use crate::world::{SOON, Serve, World, rollout, until};

/// A caller that keeps its connection.
struct Caller(SendRequest<Full<Bytes>>);

impl Caller {
    async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        let (sender, connection) = handshake(TokioIo::new(stream)).await.unwrap();
        crossfade::tasks::spawn("caller", async move { drop(connection.await) });
        Self(sender)
    }

    /// The status of the answer to one request, and whether the connection may be used again.
    async fn ask(&mut self, body: Vec<u8>) -> Result<(u16, bool), hyper::Error> {
        let request = Request::post("/v1/chat/completions")
            .header("host", "crossfade")
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from(body)))
            .unwrap();
        let response = self.0.send_request(request).await?;
        let (head, body) = response.into_parts();
        let body = body.collect().await?.to_bytes();
        assert!(!body.is_empty());
        let stays = head.headers.get("connection").is_none_or(|it| it != "close");
        Ok((head.status.as_u16(), stays))
    }
}

/// The program with at most so many descriptors, and its log in a file.
async fn with_descriptors(descriptors: usize, config: &Path, log: &Path) -> Serve {
    let mut command = Command::new("sh");
    let script = format!("ulimit -n {descriptors}; exec \"$0\" \"$@\"");
    command.args(["-c", &script, env!("CARGO_BIN_EXE_crossfade")]);
    command.env("RUST_LOG", "warn").stderr(fs::File::create(log).unwrap());
    Serve::start_with(command, config).await
}

#[tokio::test]
async fn b51_without_descriptors_callers_go_on_others_wait_and_the_log_is_not_flooded() {
    const DESCRIPTORS: usize = 128;
    let world = World::new().await;
    let (config, log) = (world.dir.path().join("crossfade.toml"), world.dir.path().join("log"));
    fs::write(&config, world.config(&rollout("0%", "0%"))).unwrap();
    let serve = with_descriptors(DESCRIPTORS, &config, &log).await;
    until("the controller is up", || async { serve.cli(&["list"]).await.0 == 0 }).await;
    let mut caller = Caller::connect(serve.data).await;
    for index in 0..3 {
        assert_eq!(caller.ask(world.body(index, Delivery::Whole)).await.unwrap(), (200, true));
    }

    let control: SocketAddr = serve.control.strip_prefix("http://").unwrap().parse().unwrap();
    let mut flood = Vec::new();
    for _ in 0..2 * DESCRIPTORS {
        flood.push(TcpStream::connect(control).await.unwrap());
    }
    let open = format!("/proc/{}/fd", serve.pid());
    until("every descriptor is taken", || async {
        DESCRIPTORS <= fs::read_dir(&open).unwrap().count()
    })
    .await;
    for index in 0..20 {
        assert_eq!(caller.ask(world.body(index, Delivery::Whole)).await.unwrap(), (200, true));
    }
    // They are accepted by the system, and wait for the program.
    let mut late = Caller::connect(serve.data).await;
    let ready = TcpStream::connect(serve.operations).await.unwrap();
    let waits = timeout(Duration::from_secs(1), late.ask(world.body(1, Delivery::Whole))).await;
    assert!(waits.is_err(), "{waits:?}");
    drop(flood);
    let mut later = Caller::connect(serve.data).await;
    let answered = timeout(SOON, later.ask(world.body(2, Delivery::Whole))).await.unwrap();
    assert_eq!(answered.unwrap(), (200, true));
    assert!(serve.page("/readyz").await.contains("\"ready\""));
    assert_eq!(serve.cli(&["list"]).await.0, 0);
    drop(ready);

    let log = fs::read_to_string(&log).unwrap();
    let said = |what: &str| log.lines().filter(|it| it.contains(what)).count();
    assert!((1..=3).contains(&said("no connection could be accepted")), "{log}");
    assert_eq!(said("limits.connections_max does not fit"), 1, "{log}");
    assert!(serve.stop().await.success());
}
