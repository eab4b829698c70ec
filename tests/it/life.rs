//! Beginning, running short of descriptors, and ending: what callers notice of it is nothing.

mod crowd;
mod ends;
mod full;
mod protocols;

use std::{
    cell::Cell,
    fs,
    net::SocketAddr,
    os::fd::OwnedFd,
    path::Path,
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use crossfade::players::{Delivery, Latency, ProviderPlan};
use http_body_util::{BodyExt as _, Full};
use hyper::{
    Request,
    client::conn::http1::{SendRequest, handshake},
};
use hyper_util::rt::TokioIo;
use tokio::{
    net::{TcpStream, UnixDatagram},
    process::Command,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

use crate::world::{SOON, Serve, World, rollout, times, until};

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
        self.send(request).await
    }

    /// The same for a request that is answered at once.
    async fn ask_models(&mut self) -> Result<(u16, bool), hyper::Error> {
        let request = Request::get("/v1/models").header("host", "crossfade");
        self.send(request.body(Full::default()).unwrap()).await
    }

    async fn send(&mut self, request: Request<Full<Bytes>>) -> Result<(u16, bool), hyper::Error> {
        let response = self.0.send_request(request).await?;
        let (head, body) = response.into_parts();
        let body = body.collect().await?.to_bytes();
        assert!(!body.is_empty());
        let stays = head.headers.get("connection").is_none_or(|it| it != "close");
        Ok((head.status.as_u16(), stays))
    }
}

/// The program in a shell's process, after what the shell does first.
fn by_shell(first: &str, config: &Path) -> Command {
    let mut command = Command::new("sh");
    let script = format!("{first}; exec \"$0\" \"$@\"");
    command.args(["-c", &script, env!("CARGO_BIN_EXE_crossfade"), "serve", "-c"]).arg(config);
    command
}

/// The program as successor of the one that runs.
async fn successor(config: &Path) -> Serve {
    let mut command = Command::new(env!("CARGO_BIN_EXE_crossfade"));
    command.args(["serve", "--takeover", "-c"]).arg(config).env("RUST_LOG", "warn");
    Serve::launch(command).await
}

/// The program with at most so many descriptors, and its log in a file.
async fn with_descriptors(descriptors: usize, config: &Path, log: &Path) -> Serve {
    let mut command = by_shell(&format!("ulimit -n {descriptors}"), config);
    command.env("RUST_LOG", "warn").stderr(fs::File::create(log).unwrap());
    Serve::launch(command).await
}

/// How many descriptors a process may have from now on.
fn limit(pid: u32, descriptors: usize) {
    let (pid, limit) = (format!("--pid={pid}"), format!("--nofile={descriptors}:"));
    assert!(std::process::Command::new("prlimit").args([pid, limit]).status().unwrap().success());
}

#[tokio::test]
async fn b51_without_descriptors_callers_go_on_others_wait_and_the_log_is_not_flooded() {
    const DESCRIPTORS: usize = 128;
    let world = World::new().await;
    let (config, log) = (world.dir.path().join("crossfade.toml"), world.dir.path().join("log"));
    fs::write(&config, world.config(&rollout("0%", "1%"))).unwrap();
    let serve = with_descriptors(DESCRIPTORS, &config, &log).await;
    until("the controller is up", || async { serve.cli(&["list"]).await.0 == 0 }).await;
    let mut caller = Caller::connect(serve.data).await;
    for index in 0..3 {
        assert_eq!(caller.ask(world.body(index, Delivery::Whole)).await.unwrap(), (200, true));
    }

    // Connections that ended have given theirs back.
    let open = format!("/proc/{}/fd", serve.pid());
    let (seen, same) = (Cell::new(0), Cell::new(0));
    until("none is given back any more", || async {
        let now = fs::read_dir(&open).unwrap().count();
        same.set(if seen.replace(now) == now { same.get() + 1 } else { 0 });
        10 < same.get()
    })
    .await;
    // Somebody else takes them, such as a file system that hangs: the limit comes down.
    let taken = |it: &usize| fs::exists(format!("{open}/{it}")).unwrap();
    limit(serve.pid(), (0..DESCRIPTORS).find(|it| !taken(it)).unwrap());
    for index in 0..20 {
        assert_eq!(caller.ask(world.body(index, Delivery::Whole)).await.unwrap(), (200, true));
    }
    // They are accepted by the system, and wait for the program.
    let mut late = Caller::connect(serve.data).await;
    let ready = TcpStream::connect(serve.operations).await.unwrap();
    let waits = timeout(Duration::from_secs(1), late.ask(world.body(1, Delivery::Whole))).await;
    assert!(waits.is_err(), "{waits:?}");
    limit(serve.pid(), DESCRIPTORS);
    let mut later = Caller::connect(serve.data).await;
    let answered = timeout(SOON, later.ask(world.body(2, Delivery::Whole))).await.unwrap();
    assert_eq!(answered.unwrap(), (200, true));
    until("it is ready again", || async { serve.page("/readyz").await.contains("\"ready\"") })
        .await;
    assert_eq!(serve.cli(&["list"]).await.0, 0);
    drop(ready);

    assert!(serve.stop().await.success());
    let log = fs::read_to_string(&log).unwrap();
    let said = |what: &str| log.lines().filter(|it| it.contains(what)).count();
    assert!((1..=3).contains(&said("no connection could be accepted")), "{log}");
    assert_eq!(said("limits.connections_max does not fit"), 1, "{log}");
}

/// A primary whose answers take so long from their first byte to their last.
fn streaming(total_ms: u32) -> impl FnOnce(&mut ProviderPlan, &mut ProviderPlan) {
    move |primary, _| primary.latency = Latency::Fixed { first_byte_ms: 10, total_ms }
}

/// A stream that has begun; resolves to the last bytes of it.
async fn begun(world: &World, address: SocketAddr, index: usize) -> JoinSet<String> {
    let mut caller = Caller::connect(address).await;
    let body = Full::new(Bytes::from(world.body(index, Delivery::Stream)));
    let request = Request::post("/v1/chat/completions").header("host", "crossfade").body(body);
    let response = caller.0.send_request(request.unwrap()).await.unwrap();
    assert_eq!(response.status(), 200);
    let mut stream = JoinSet::new();
    stream.spawn(async move {
        let _caller = caller;
        match response.into_body().collect().await {
            Ok(body) => String::from_utf8(body.to_bytes().to_vec()).unwrap(),
            Err(error) => error.to_string(),
        }
    });
    stream
}

fn is_whole(stream: &str) -> bool {
    stream.trim_end().ends_with("data: [DONE]")
}

async fn whole(stream: &mut JoinSet<String>) -> bool {
    is_whole(&timeout(SOON, stream.join_next()).await.unwrap().unwrap().unwrap())
}

#[tokio::test]
async fn b62_readiness_goes_false_first_and_streams_finish_within_the_grace_time() {
    let world = World::with(streaming(15_000)).await;
    let limits = "[limits]\ndrain_delay = \"5s\"\ngrace = \"90s\"\n";
    let serve = world.serve(&(rollout("0%", "100%") + limits)).await;
    until("it is ready", || async { serve.page("/readyz").await.contains("\"ready\"") }).await;
    let mut streams = Vec::new();
    for index in 0..100 {
        streams.push(begun(&world, serve.data, index).await);
    }
    let mut caller = Caller::connect(serve.data).await;
    serve.signal("TERM");
    until("it says so", || async { serve.page("/readyz").await.contains("\"draining\"") }).await;
    let (data, operations) = (serve.data, serve.operations);
    // Whoever still comes is served, and told to come elsewhere next time.
    assert_eq!(caller.ask_models().await.unwrap(), (200, false));
    until("it accepts nobody", || async { TcpStream::connect(data).await.is_err() }).await;
    assert!(TcpStream::connect(operations).await.is_ok(), "it can be watched to its end");
    for stream in &mut streams {
        assert!(whole(stream).await);
    }
    assert!(serve.ended().await.success());
}

#[tokio::test]
async fn a_stream_keeps_the_process_for_the_grace_time_and_not_when_it_is_asked_twice() {
    let world = World::with(streaming(120_000)).await;
    let serve = world.serve(&(rollout("0%", "100%") + "[limits]\ngrace = \"100ms\"\n")).await;
    until("it is ready", || async { serve.page("/readyz").await.contains("\"ready\"") }).await;
    let mut stream = begun(&world, serve.data, 1).await;
    assert!(serve.stop().await.success());
    assert!(!whole(&mut stream).await);

    let serve = world.serve(&(rollout("0%", "100%") + "[limits]\ngrace = \"10m\"\n")).await;
    until("it is ready", || async { serve.page("/readyz").await.contains("\"ready\"") }).await;
    let _stream = begun(&world, serve.data, 1).await;
    serve.signal("TERM");
    until("it drains", || async { serve.page("/readyz").await.contains("\"draining\"") }).await;
    serve.signal("INT");
    assert_eq!(serve.ended().await.code(), Some(1));
}

/// Callers who ask on and on, each on a connection that it keeps as long as it may.
struct Load {
    callers: JoinSet<()>,
    asked: Arc<AtomicUsize>,
    ends: Arc<AtomicBool>,
}

impl Load {
    fn begin(world: &World, address: SocketAddr, callers: usize) -> Self {
        let (asked, ends) = (Arc::<AtomicUsize>::default(), Arc::<AtomicBool>::default());
        let mut load = Self { callers: JoinSet::new(), asked, ends };
        for index in 0..callers {
            let (asked, ends) = (Arc::clone(&load.asked), Arc::clone(&load.ends));
            let how = if index % 2 == 0 { Delivery::Whole } else { Delivery::Stream };
            let body = world.body(index, how);
            load.callers.spawn(async move {
                let mut caller = Caller::connect(address).await;
                while !ends.load(Relaxed) {
                    let (status, stays) = caller.ask(body.clone()).await.unwrap();
                    assert_eq!(status, 200);
                    asked.fetch_add(1, Relaxed);
                    if !stays {
                        caller = Caller::connect(address).await;
                    }
                }
            });
        }
        load
    }

    /// Ends it; answers how many requests were answered. None may have been lost.
    async fn end(mut self) -> usize {
        self.ends.store(true, Relaxed);
        while let Some(ended) = self.callers.join_next().await {
            ended.unwrap();
        }
        self.asked.load(Relaxed)
    }
}

/// B-62, B-67
#[tokio::test]
async fn b62_successors_take_the_sockets_over_and_nothing_is_refused_or_lost() {
    let world = World::with(streaming(150)).await;
    let mut serve = world.serve(&rollout("0%", "100%")).await;
    let config = world.dir.path().join("crossfade.toml");
    until("it is ready", || async { serve.page("/readyz").await.contains("\"ready\"") }).await;
    let load = Load::begin(&world, serve.data, 12);
    let mut streams = Vec::new();
    let takeovers = times("CROSSFADE_TAKEOVERS", 20);
    for round in 0..takeovers {
        let before = load.asked.load(Relaxed);
        for index in 0..10 {
            streams.push(begun(&world, serve.data, round + index).await);
        }
        let next = successor(&config).await;
        assert_eq!((next.data, &next.control), (serve.data, &serve.control), "the same sockets");
        assert_eq!(next.operations, serve.operations);
        let old = std::mem::replace(&mut serve, next);
        assert!(old.ended().await.success(), "round {round}");
        until("it has the store", || async { serve.page("/readyz").await.contains("\"ready\"") })
            .await;
        until("callers are answered", || async { before < load.asked.load(Relaxed) }).await;
    }
    for stream in &mut streams {
        assert!(whole(stream).await);
    }
    let asked = load.end().await;
    println!("{takeovers} successors, {asked} requests and {} streams", streams.len());
    assert_eq!(serve.json(&["status", "chat"]).await["state"], "STATE_RUNNING");
    assert_eq!(serve.cli(&["rollback", "chat"]).await.0, 0);
    assert_eq!(serve.json_lines(&["events", "chat"]).await.len(), 3);
    assert!(serve.stop().await.success());
}

#[tokio::test]
async fn a_successor_serves_at_once_and_control_stays_until_the_last_stream_has_ended() {
    let world = World::with(streaming(12_000)).await;
    let socket = world.dir.path().join("control.sock");
    let text = world
        .config(&rollout("100%", "1%"))
        .replace("control = \"127.0.0.1:0\"", &format!("control = \"unix:{}\"", socket.display()));
    let config = world.dir.path().join("crossfade.toml");
    fs::write(&config, text).unwrap();
    let first = Serve::start(&config).await;
    until("it is ready", || async { first.page("/readyz").await.contains("\"ready\"") }).await;
    let idle = Caller::connect(first.data).await;
    let mut stream = begun(&world, first.data, 1).await;
    let second = successor(&config).await;
    assert!(second.page("/readyz").await.contains(&format!("in use by process {}", first.pid())));
    // Either process may be asked to go back, at any time.
    let asked = second.chat(world.body(2, Delivery::Whole), &[]);
    let (answer, (code, text)) = tokio::join!(asked, second.cli(&["rollback", "chat"]));
    assert_eq!((answer.status, answer.header("x-crossfade-provider")), (200, "primary"));
    assert_eq!(code, 0, "{text}");
    assert!(whole(&mut stream).await);
    assert!(first.ended().await.success());
    drop(idle);
    until("it has the store", || async { second.page("/readyz").await.contains("\"ready\"") })
        .await;
    assert_eq!(second.json(&["status", "chat"]).await["state"], "STATE_ROLLED_BACK");
    assert!(socket.exists());
    assert!(second.stop().await.success());
    assert!(!socket.exists(), "its last process takes it away");
}

#[tokio::test]
async fn without_a_process_to_take_over_from_it_is_the_first_one() {
    let world = World::new().await;
    let config = world.dir.path().join("crossfade.toml");
    fs::write(&config, world.config("")).unwrap();
    let serve = successor(&config).await;
    assert_eq!(serve.chat(world.body(1, Delivery::Whole), &[]).await.status, 200);
    // One that dies before it serves leaves everything as it was.
    let bad = world.config("").replace("control = \"127.0.0.1:0\"", "control = \"unix:/dev/null\"");
    let other = world.dir.path().join("other.toml");
    fs::write(&other, bad).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_crossfade"));
    let output = command.args(["serve", "--takeover", "-c"]).arg(&other).output().await.unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert_eq!(serve.chat(world.body(1, Delivery::Whole), &[]).await.status, 200);
    until("it is ready again", || async { serve.page("/readyz").await.contains("\"ready\"") })
        .await;
    let next = successor(&config).await;
    assert!(serve.ended().await.success());
    assert_eq!(next.chat(world.body(1, Delivery::Whole), &[]).await.status, 200);
}

/// Two sockets as systemd passes them: the first by its name, or both by their addresses.
fn activated(config: &Path, sockets: [&std::net::TcpListener; 2], names: &str) -> Command {
    let passed = "exec 3<&0 4<&2 0</dev/null 2>/dev/null; export LISTEN_FDS=2 LISTEN_PID=$$";
    let mut command = by_shell(passed, config);
    command.env("LISTEN_FDNAMES", names);
    let [data, operations] = sockets.map(|it| OwnedFd::from(it.try_clone().unwrap()));
    command.stdin(Stdio::from(data)).stderr(Stdio::from(operations));
    command
}

#[tokio::test]
async fn sockets_of_the_service_manager_outlive_the_process() {
    let world = World::new().await;
    let bind = || std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let (data, operations) = (bind(), bind());
    let at = |it: &std::net::TcpListener| it.local_addr().unwrap();
    let text = world.config("");
    let text = text.replacen("listen = \"127.0.0.1:0\"", &format!("listen = \"{}\"", at(&data)), 1);
    let text = text.replacen(
        "operations = \"127.0.0.1:0\"",
        &format!("operations = \"{}\"", at(&operations)),
        1,
    );
    let config = world.dir.path().join("crossfade.toml");
    fs::write(&config, text).unwrap();
    for names in ["data:operations", "crossfade.socket:crossfade.socket"] {
        let mut early = Caller::connect(at(&data)).await;
        let serve = Serve::launch(activated(&config, [&data, &operations], names)).await;
        assert_eq!((serve.data, serve.operations), (at(&data), at(&operations)));
        let early = early.ask(world.body(1, Delivery::Whole));
        assert_eq!(timeout(SOON, early).await.unwrap().unwrap(), (200, true));
        until("it is ready", || async { serve.page("/readyz").await.contains("\"ready\"") }).await;
        assert!(serve.stop().await.success());
    }
    fs::write(&config, world.config("").replacen("127.0.0.1:0", "127.0.0.2:0", 1)).unwrap();
    let mut command = by_shell("exec 3<&0 0</dev/null; export LISTEN_FDS=1 LISTEN_PID=$$", &config);
    command.env("LISTEN_FDNAMES", "data").stdin(Stdio::from(OwnedFd::from(data)));
    let output = timeout(SOON, command.output()).await.unwrap().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && text.contains("the file says nothing"), "{text}");
}

/// What the service manager hears, until it hears `word`.
async fn heard(socket: &UnixDatagram, word: &str) -> String {
    let mut buffer = [0; 256];
    let ends = Instant::now() + SOON;
    loop {
        let received = timeout(ends - Instant::now(), socket.recv(&mut buffer)).await;
        let len = received.unwrap_or_else(|_| panic!("never heard {word}")).unwrap();
        let text = String::from_utf8_lossy(&buffer[..len]).into_owned();
        if text.contains(word) {
            return text;
        }
    }
}

#[tokio::test]
async fn the_service_manager_hears_of_the_beginning_the_life_a_successor_and_the_end() {
    let world = World::new().await;
    let path = world.dir.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    let config = world.dir.path().join("crossfade.toml");
    fs::write(&config, world.config("")).unwrap();
    let mut command = by_shell("export WATCHDOG_PID=$$", &config);
    command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "200000");
    let serve = Serve::launch(command).await;
    let main = |pid: u32| format!("MAINPID={pid}\n");
    assert!(heard(&socket, "READY=1").await.contains(&main(serve.pid())));
    heard(&socket, "WATCHDOG=1").await;

    let (first, data) = (serve.pid(), serve.data);
    serve.signal("USR2");
    let text = heard(&socket, "READY=1").await;
    let second = text.lines().find_map(|it| it.strip_prefix("MAINPID=")).unwrap().to_owned();
    assert_ne!(second, first.to_string());
    assert!(serve.ended().await.success());
    let mut caller = Caller::connect(data).await;
    let answer = caller.ask(world.body(1, Delivery::Whole)).await.unwrap();
    heard(&socket, "WATCHDOG=1").await;
    let killed = std::process::Command::new("kill").arg(&second).status().unwrap();
    assert!(killed.success());
    assert_eq!(answer, (200, true));
    heard(&socket, "STOPPING=1").await;
    let ends = Instant::now() + SOON;
    while TcpStream::connect(data).await.is_ok() {
        assert!(Instant::now() < ends, "the successor does not end");
        sleep(Duration::from_millis(20)).await;
    }
}
