//! Flags under the whole program: what operators cap is capped at once, for whom they say.

use crossfade::players::Delivery;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use crate::world::{SOON, Serve, World, rollout, until};

/// How many of twenty requests of a segment the candidate answers.
async fn served(world: &World, serve: &Serve, segment: &str) -> usize {
    let mut served = 0;
    for index in 0..20 {
        let user = format!("{segment}-{index}");
        let headers = [("x-crossfade-user", &*user), ("x-crossfade-segment", segment)];
        let answer = serve.chat(world.body(index, Delivery::Whole), &headers).await;
        assert_eq!(answer.status, 200);
        served += usize::from(answer.header("x-crossfade-provider") == "candidate");
    }
    served
}

#[tokio::test]
async fn a_flag_caps_a_segment_at_once_and_outlasts_a_restart() {
    let world = World::new().await;
    let serve = world.serve(&rollout("100%", "1%")).await;
    until("the candidate serves", || async { served(&world, &serve, "free").await == 20 }).await;
    let set =
        ["flag", "set", "paid", "--segment", "paid", "--serve", "0%", "--comment", "contract"];
    let (code, text) = serve.cli(&set).await;
    assert_eq!(code, 0, "{text}");
    assert_eq!(served(&world, &serve, "paid").await, 0);
    assert_eq!(served(&world, &serve, "free").await, 20);
    serve.kill().await;

    let serve = Serve::start(&world.dir.path().join("crossfade.toml")).await;
    until("the candidate serves", || async { served(&world, &serve, "free").await == 20 }).await;
    assert_eq!(served(&world, &serve, "paid").await, 0);
    let flags = serve.json_lines(&["flag", "list"]).await;
    assert_eq!(flags.len(), 1, "{flags:?}");
    assert_eq!(
        (&flags[0]["name"], &flags[0]["comment"]),
        (&"flags/paid".into(), &"contract".into())
    );
    let (_, table) = serve.cli(&["flag", "list"]).await;
    assert!(
        table.contains("paid") && table.contains("0%") && table.contains("contract"),
        "{table}"
    );

    let off = ["flag", "set", "everything", "--serve", "0%", "--mirror", "0%"];
    assert_eq!(serve.cli(&off).await.0, 0);
    assert_eq!(served(&world, &serve, "free").await, 0);
    let (_, text) = serve.cli(&["status", "chat"]).await;
    assert!(text.contains("a flag lets it serve 0%"), "{text}");
    let (code, text) =
        serve.cli(&["advance", "chat", "--override-undecided", "--comment", "why"]).await;
    assert!(code == 6 && text.contains("a flag lets it serve 0%"), "{code}: {text}");
    for name in ["everything", "paid"] {
        assert_eq!(serve.cli(&["flag", "clear", name]).await.0, 0);
    }
    assert_eq!(served(&world, &serve, "paid").await, 20);
    let events = serve.json_lines(&["events", "-"]).await;
    let kinds: Vec<_> =
        events.iter().rev().map(|it| it["type"].as_str().unwrap()).take(3).collect();
    assert_eq!(kinds, ["TYPE_UNFLAGGED", "TYPE_UNFLAGGED", "TYPE_FLAGGED"]);
    assert!(events.iter().any(|it| it["flag"].as_str().unwrap().contains("segment `paid`")));
    let (code, text) = serve.cli(&["flag", "set", "x", "--serve", "5"]).await;
    assert_eq!(code, 2, "{text}");
}

#[tokio::test]
async fn a_flag_holds_for_a_request_whose_body_is_still_on_its_way() {
    let world = World::new().await;
    let serve = world.serve(&rollout("100%", "1%")).await;
    until("the candidate serves", || async { served(&world, &serve, "free").await == 20 }).await;
    let body = world.body(0, Delivery::Whole);
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n\
         Expect: 100-continue\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let mut caller = TcpStream::connect(serve.data).await.unwrap();
    caller.write_all(head.as_bytes()).await.unwrap();
    // Its head is known, and the body asked for.
    let mut first = [0; 25];
    timeout(SOON, caller.read_exact(&mut first)).await.unwrap().unwrap();
    assert_eq!(&first, b"HTTP/1.1 100 Continue\r\n\r\n");
    let off = ["flag", "set", "everything", "--serve", "0%", "--mirror", "0%"];
    assert_eq!(serve.cli(&off).await.0, 0);
    caller.write_all(&body).await.unwrap();
    let mut answer = String::new();
    timeout(SOON, caller.read_to_string(&mut answer)).await.unwrap().unwrap();
    assert!(answer.contains("x-crossfade-provider: primary"), "{answer}");
}
