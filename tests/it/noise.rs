//! Noise: a primary that differs from itself, and how that is shown.

use crossfade::players::{Delivery, Fault};
use tokio::{io::AsyncWriteExt as _, net::TcpStream};

use crate::world::{Serve, World, rollout, slow, until};

/// A stage that copies everything, and asks the primary everything twice.
fn plan() -> String {
    rollout("0%", "100%").replace("autostart", "noise = \"100%\"\nautostart")
}

/// The noise of the only gate, as `explain` tells it.
async fn shown(serve: &Serve) -> serde_json::Value {
    serve.json(&["status", "chat"]).await["evidence"][0]["noise"].clone()
}

/// M16 M14
#[tokio::test]
async fn a_primary_that_fails_by_chance_is_shown_against_itself_also_after_a_restart() {
    let world = World::with(|primary, _| primary.fault = Fault::Every(3)).await;
    let serve = world.serve(&plan()).await;
    until("requests are asked twice", || async {
        for index in 0..20 {
            serve.chat(world.body(index, Delivery::Whole), &[]).await;
        }
        let samples = shown(&serve).await["samples"].as_str().map(str::to_owned);
        samples.is_some_and(|it| 60 <= it.parse::<u64>().unwrap())
    })
    .await;
    let answer = serve.chat(world.body(1, Delivery::Stream), &[]).await;
    let id = answer.header("x-crossfade-request-id");
    let (_, told) = serve.cli(&["explain", "--request", id]).await;
    assert!(told.contains("The primary was asked a second time"), "{told}");
    serve.is_quiet().await;
    // Each is a copy, and counts as one.
    let (primary, candidate) = (world.primary.stats().requests, world.candidate.stats().requests);
    until("all copies are counted", || async {
        let copies = serve.json(&["status", "chat"]).await["copiesToday"].clone();
        copies.as_str() == Some(&(2 * candidate).to_string())
    })
    .await;
    assert!(2 * candidate <= primary, "{candidate} copies, the primary was asked {primary} times");
    until("all of them are told", || async {
        shown(&serve).await["samples"].as_str() == Some(&candidate.to_string())
    })
    .await;

    let noise = shown(&serve).await;
    let number = |key: &str| noise[key].as_f64().unwrap();
    assert!(number("lower") < number("difference") && number("difference") < number("upper"));
    assert!(-70.0 < number("lower") && number("upper") < 70.0, "{noise}");
    let (_, explained) = serve.cli(&["explain", "chat"]).await;
    let line = format!("the primary's own noise {:+.3} pp in [", number("difference"));
    assert!(explained.contains(&line), "{explained}");
    assert!(explained.contains(&format!("{candidate} samples; ")), "{explained}");
    let (_, picture) = serve.cli(&["status", "chat"]).await;
    assert!(picture.contains("NOISE (primary twice)"), "{picture}");
    assert!(picture.contains(&format!("of {candidate}")), "{picture}");

    assert!(serve.stop().await.success());
    let serve = world.serve(&plan()).await;
    until("it is known again", || async { shown(&serve).await == noise }).await;
}

#[tokio::test]
async fn what_was_asked_a_second_time_is_counted_though_the_caller_left() {
    let world = World::with(|primary, _| primary.latency = slow(500)).await;
    let serve = world.serve(&plan()).await;
    until("requests are asked twice", || async {
        let body = world.body(1, Delivery::Whole);
        let head = format!(
            "host: a\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        let mut caller = TcpStream::connect(serve.data).await.unwrap();
        let request = format!("POST /v1/chat/completions HTTP/1.1\r\n{head}");
        caller.write_all(&[request.as_bytes(), &body].concat()).await.unwrap();
        let before = world.primary.stats().requests;
        until("it is asked", || async { before < world.primary.stats().requests }).await;
        drop(caller);
        1 < world.candidate.stats().requests
    })
    .await;
    let series = "crossfade_requests_total{provider=\"primary\",role=\"mirror\",outcome=\"ok\"}";
    until("it is counted", || async { 0.5 < serve.metric(series).await }).await;
}
