//! Ends that meet with something else: a successor, callers that the system has accepted.

use std::fs;

use crossfade::players::Delivery;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use super::{begun, by_shell, streaming, successor, whole};
use crate::world::{SOON, Serve, World, rollout, until};

#[tokio::test]
async fn a_successor_that_comes_while_it_drains_is_left_everything() {
    let world = World::new().await;
    let socket = world.dir.path().join("control.sock");
    let text = world
        .config(&(rollout("0%", "1%") + "[limits]\ndrain_delay = \"10m\"\n"))
        .replace("control = \"127.0.0.1:0\"", &format!("control = \"unix:{}\"", socket.display()));
    let config = world.dir.path().join("crossfade.toml");
    fs::write(&config, text).unwrap();
    let first = Serve::start(&config).await;
    until("it is ready", || async { first.page("/readyz").await.contains("\"ready\"") }).await;
    first.signal("TERM");
    until("it drains", || async { first.page("/readyz").await.contains("\"draining\"") }).await;
    let second = successor(&config).await;
    assert!(first.ended().await.success(), "it waits for nobody now");
    until("it has the store", || async { second.page("/readyz").await.contains("\"ready\"") })
        .await;
    assert!(socket.exists(), "it is the successor's");
    assert_eq!(second.cli(&["rollback", "chat"]).await.0, 0);
    second.kill().await;
}

#[tokio::test]
async fn callers_whom_the_system_has_accepted_are_answered_at_the_end() {
    let world = World::new().await;
    let serve = world.serve("").await;
    until("it is ready", || async { serve.page("/readyz").await.contains("\"ready\"") }).await;
    serve.signal("STOP");
    let mut callers = Vec::new();
    for _ in 0..30 {
        let mut caller = TcpStream::connect(serve.data).await.unwrap();
        let request = b"GET /v1/models HTTP/1.1\r\nHost: a\r\n\r\n";
        caller.write_all(request).await.unwrap();
        callers.push(caller);
    }
    serve.signal("TERM");
    serve.signal("CONT");
    for mut caller in callers {
        let mut answer = String::new();
        timeout(SOON, caller.read_to_string(&mut answer)).await.unwrap().unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
    assert!(serve.ended().await.success());
}

#[tokio::test]
async fn neither_the_end_nor_a_successor_waits_for_a_store_that_takes_long_to_open() {
    let world = World::with(streaming(2_000)).await;
    let (config, store) = (world.dir.path().join("crossfade.toml"), world.dir.path().join("store"));
    let socket = world.dir.path().join("control.sock");
    let text = world
        .config(&rollout("0%", "100%"))
        .replace("control = \"127.0.0.1:0\"", &format!("control = \"unix:{}\"", socket.display()));
    fs::write(&config, text).unwrap();
    fs::create_dir(&store).unwrap();
    // Whoever reads it waits for somebody to write to it.
    let journal = store.join("journal.log");
    assert!(std::process::Command::new("mkfifo").arg(&journal).status().unwrap().success());
    let serve = Serve::begin(by_shell(":", &config)).await;
    let mut stream = begun(&world, serve.data, 1).await;
    assert!(serve.page("/readyz").await.contains("the controller is not up yet"));
    assert!(serve.stop().await.success());
    assert!(whole(&mut stream).await, "callers were let finish");
    assert!(!socket.exists());

    let first = Serve::begin(by_shell(":", &config)).await;
    let mut stream = begun(&world, first.data, 2).await;
    fs::remove_file(&journal).unwrap();
    let second = successor(&config).await;
    assert_eq!(second.data, first.data, "the same socket");
    assert!(first.ended().await.success());
    assert!(whole(&mut stream).await);
    until("it has the store", || async { second.page("/readyz").await.contains("\"ready\"") })
        .await;
    until("its control port stands", || async { second.cli(&["rollback", "chat"]).await.0 == 0 })
        .await;
}

#[tokio::test]
async fn a_successor_of_one_that_opens_its_store_waits_for_it_and_has_the_store_then() {
    // Longer than a process looks for pairs that somebody else has.
    let world = World::with(streaming(12_000)).await;
    let config = world.dir.path().join("crossfade.toml");
    let index = world.dir.path().join("store/sled");
    fs::write(&config, world.config(&rollout("0%", "100%"))).unwrap();
    fs::create_dir_all(&index).unwrap();
    // Whoever reads it waits for somebody to write to it.
    let settings = index.join("conf");
    assert!(std::process::Command::new("mkfifo").arg(&settings).status().unwrap().success());
    let first = Serve::begin(by_shell(":", &config)).await;
    let taken = world.dir.path().join("store/pairs.lock");
    until("it opens the pairs", || async { taken.exists() }).await;
    let mut stream = begun(&world, first.data, 1).await;
    fs::remove_file(&settings).unwrap();
    let second = successor(&config).await;
    assert!(second.page("/readyz").await.contains("the process before this one is ending"));
    assert!(whole(&mut stream).await);
    assert!(first.ended().await.success());
    until("it has the store", || async { second.page("/readyz").await.contains("\"ready\"") })
        .await;
    until("control answers", || async { second.cli(&["list"]).await.0 == 0 }).await;
    let (code, text) = second.cli(&["pairs", "chat"]).await;
    assert_eq!(code, 0, "{text}");
    assert_eq!(second.json(&["status", "chat"]).await["state"], "STATE_RUNNING");
}

#[tokio::test]
async fn control_is_not_flooded_and_greets_whoever_comes_next() {
    let world = World::new().await;
    let serve = world.serve(&rollout("0%", "1%")).await;
    until("the controller is up", || async { serve.cli(&["list"]).await.0 == 0 }).await;
    let control = serve.control.strip_prefix("http://").unwrap();
    let open = format!("/proc/{}/fd", serve.pid());
    let before = fs::read_dir(&open).unwrap().count();
    let mut flood = Vec::new();
    for _ in 0..400 {
        flood.push(TcpStream::connect(control).await.unwrap());
    }
    let mut last = flood.pop().unwrap();
    assert_eq!(timeout(SOON, last.read(&mut [0])).await.unwrap().unwrap_or(0), 0, "it is closed");
    assert!(fs::read_dir(&open).unwrap().count() < before + 100);
    assert_eq!(serve.chat(world.body(1, Delivery::Whole), &[]).await.status, 200);
    drop(flood);
    until("control answers again", || async { serve.cli(&["list"]).await.0 == 0 }).await;
}
