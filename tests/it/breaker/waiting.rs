//! Callers who wait: for a candidate that says nothing, and no longer than they said.

use std::time::Duration;

use crossfade::players::Delivery;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinSet,
    time::{Instant, timeout},
};

use crate::world::{World, rollout, slow, until};

use super::{NEVER_OPEN, Rig, TOUCHY, stub::Says};

const BODY: &str = r#"{"model":"m","messages":[{"role":"user","content":"hi"}]}"#;
const STREAM: &str = r#"{"model":"m","stream":true,"messages":[{"role":"user","content":"hi"}]}"#;

/// How long a caller waits whose silence is the provider's, and one for whom it is a time-out: a
/// little longer than three and ten seconds, after which the program says so, on a busy machine.
const LEFT: Duration = Duration::from_secs(5);
const LEFT_LATE: Duration = Duration::from_secs(13);

/// So many callers at once, who wait so long and no longer; how many of them heard nothing.
async fn in_vain(rig: &Rig, callers: usize, patience: Duration) -> usize {
    let mut all = JoinSet::new();
    let request = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{BODY}",
        BODY.len()
    );
    for _ in 0..callers {
        let (address, request) = (rig.serve.data, request.clone());
        all.spawn(async move {
            let mut caller = TcpStream::connect(address).await.unwrap();
            caller.write_all(request.as_bytes()).await.unwrap();
            timeout(patience, caller.read_u8()).await.is_err()
        });
    }
    all.join_all().await.into_iter().filter(|it| *it).count()
}

/// INV10
#[tokio::test]
async fn callers_of_a_candidate_that_hangs_are_the_primarys_again_though_each_of_them_left() {
    let rig = Rig::start("", &rollout("100%", "20%")).await;
    rig.candidate.says(Says::Hang);
    until("nobody waits in vain", || async { in_vain(&rig, 6, LEFT).await == 0 }).await;
    assert!(1.5 < rig.serve.metric("crossfade_breaker_open{provider=\"candidate\"}").await);
    assert!(rig.candidate.asked() < 40, "{}", rig.candidate.asked());
    until("the stage holds and says why", || async {
        let status = rig.serve.json(&["status", "chat"]).await;
        status["evidenceProblem"].as_str().unwrap().starts_with("the breaker of the candidate")
    })
    .await;
}

/// INV10
#[tokio::test]
async fn a_candidate_that_hangs_is_sent_back_though_each_of_its_callers_left() {
    // What is copied too is told by the copy, and the rest by itself.
    let (alone, copied) = (rollout("100%", "1%"), rollout("100%", "100%"));
    let sent_back = async |mirror: &str| {
        let rig = Rig::start(NEVER_OPEN, mirror).await;
        rig.candidate.says(Says::Hang);
        until("it is rolled back", || async {
            in_vain(&rig, 12, LEFT_LATE).await;
            let status = rig.serve.json(&["status", "chat"]).await;
            status["reason"]["code"] == "TRIPWIRE"
        })
        .await;
        assert!(rig.candidate.asked() <= 40, "{}", rig.candidate.asked());
    };
    tokio::join!(sent_back(&alone), sent_back(&copied));
}

/// E21
#[tokio::test]
async fn what_hangs_is_a_timeout_in_the_evidence_though_each_of_its_callers_left() {
    let timed_out = async |serve: &str, side: &str, callers: u32| {
        let rig = Rig::start(NEVER_OPEN, &rollout(serve, "1%")).await;
        let metric = async |name: &str| rig.serve.metric(name).await;
        let counted =
            async || metric("crossfade_stage_pairs").await + metric("crossfade_stage_solos").await;
        let calls = |side| format!("crossfade_requests_total{{provider=\"{side}\",role=\"serve\"");
        until("what was answered counts", || async {
            let served = metric(&calls("primary")).await + metric(&calls("candidate")).await;
            (counted().await - served).abs() < 0.5
        })
        .await;
        let before = counted().await;
        (if side == "primary" { &rig.primary } else { &rig.candidate }).says(Says::Hang);
        let all = usize::try_from(callers).unwrap();
        let left = in_vain(&rig, all, LEFT_LATE).await;
        assert!((3..=all).contains(&left), "{left} of {all}");
        // One of them may have been copied by chance, and then nothing is compared.
        until("all count, and those who left as what they were", || async {
            let timeouts = metric(&(calls(side) + ",outcome=\"timeout\"")).await;
            before + f64::from(callers) - 1.5 < counted().await && 1.5 < timeouts
        })
        .await;
    };
    tokio::join!(timed_out("100%", "candidate", 3), timed_out("50%", "primary", 20));
}

#[tokio::test]
async fn where_callers_leave_the_candidate_at_once_the_stage_holds_and_says_so() {
    let rig = Rig::start(NEVER_OPEN, &rollout("100%", "1%")).await;
    rig.candidate.says(Says::Hang);
    until("the stage holds and says why", || async {
        assert_eq!(in_vain(&rig, 10, Duration::from_millis(200)).await, 10);
        let status = rig.serve.json(&["status", "chat"]).await;
        assert_eq!(status["state"], "STATE_RUNNING", "{status}");
        status["evidenceProblem"].as_str().unwrap().contains("gave up before an answer began")
    })
    .await;
    let left =
        "crossfade_requests_total{provider=\"candidate\",role=\"serve\",outcome=\"abandoned\"";
    until("each of them is counted", || async { 19.5 < rig.serve.metric(left).await }).await;
}

/// B-11
#[tokio::test]
async fn the_primary_takes_over_while_its_caller_still_waits() {
    let rig = Rig::start(NEVER_OPEN, &rollout("100%", "1%")).await;
    rig.candidate.says(Says::Hang);
    let asked = async |header: &str, body: &str| {
        let began = Instant::now();
        let answer = rig.serve.chat(body.into(), &[(header, "10")]).await;
        assert_eq!((answer.status, answer.header("x-crossfade-provider")), (200, "primary"));
        let took = began.elapsed().as_millis();
        assert!((5_000..10_000).contains(&took), "{header}: {took} ms");
    };
    let both = async |header: &str| tokio::join!(asked(header, BODY), asked(header, STREAM));
    tokio::join!(
        both("x-crossfade-deadline"),
        both("x-stainless-read-timeout"),
        both("x-stainless-timeout"),
    );
}

#[tokio::test]
async fn comments_and_blank_lines_are_no_answer() {
    let limits = "[limits]\nfirst_byte_timeout = \"3s\"\n";
    let rig = Rig::start(NEVER_OPEN, &(rollout("100%", "1%") + limits)).await;
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n";
    let pieces = [": wait\n\n", "\n", ": wait\n", "data: {}\n\n", "data: [DONE]\n\n"];
    let whole = pieces.concat();
    let length = format!("{head}content-length: {}\r\n\r\n", whole.len());
    rig.candidate.says(Says::Sends([&length, pieces[0], pieces[1], pieces[2]].concat().leak()));
    let answer = rig.serve.chat(STREAM.into(), &[]).await;
    assert_eq!((answer.status, answer.header("x-crossfade-provider")), (200, "primary"));
    // With an answer behind them they are passed on as they came.
    rig.candidate.says(Says::Sends((length + &whole).leak()));
    let answer = rig.serve.chat(STREAM.into(), &[]).await;
    assert_eq!(answer.header("x-crossfade-provider"), "candidate");
    assert_eq!(&answer.body[..], whole.as_bytes());
}

#[tokio::test]
async fn a_whole_answer_may_take_longer_than_the_first_byte_of_a_stream() {
    let world = World::with(|_, candidate| candidate.latency = slow(2_000)).await;
    let limits = "[limits]\nfirst_byte_timeout = \"200ms\"\n";
    let serve = world.serve(&(rollout("100%", "1%") + limits)).await;
    until("the candidate serves", || async {
        let answer = serve.chat(world.body(0, Delivery::Whole), &[]).await;
        answer.header("x-crossfade-provider") == "candidate"
    })
    .await;
    let answer = serve.chat(world.body(1, Delivery::Stream), &[]).await;
    assert_eq!(answer.header("x-crossfade-provider"), "primary");
}

#[tokio::test]
async fn a_copy_that_takes_no_longer_than_its_primary_has_not_failed() {
    let world = World::with(|primary, candidate| {
        (primary.latency, candidate.latency) = (slow(900), slow(900));
    })
    .await;
    let limits = "[limits]\nmirror_timeout = \"300ms\"\n";
    let serve = world.serve(&(rollout("0%", "100%") + limits)).await;
    until("copies are lost, and nobody is to blame", || async {
        let chat = |index| serve.chat(world.body(index, Delivery::Whole), &[]);
        tokio::join!(chat(0), chat(1), chat(2), chat(3), chat(4), chat(5));
        9.5 < serve.metric("crossfade_lost_total{reason=\"late\"}").await
    })
    .await;
    let status = serve.json(&["status", "chat"]).await;
    assert_eq!(status["state"], "STATE_RUNNING", "{status}");
    assert!(serve.metric("crossfade_stage_pairs").await < 0.5);
}

#[tokio::test]
async fn what_a_candidate_thinks_of_a_request_keeps_nobody_from_it() {
    let rig = Rig::start(NEVER_OPEN, &rollout("100%", "1%")).await;
    for _ in 0..60 {
        assert_eq!(rig.chat_while(Says::Status(400, "")).await, "primary");
    }
    assert_eq!(rig.chat_while(Says::Well).await, "candidate");
    let kept = rig.serve.metric("crossfade_mirror_skipped_total{reason=\"retry_budget\"}").await;
    assert!(kept < 0.5, "{kept}");
}

#[tokio::test]
async fn copies_close_a_breaker_where_no_caller_can() {
    let rig = Rig::start(&format!("{TOUCHY}\"100ms\" }}"), &rollout("100%", "100%")).await;
    rig.open_breaker().await;
    rig.candidate.says(Says::Well);
    until("it is found well by what it is never to serve", || async {
        let vectors = r#"{"model":"m","input":"a"}"#;
        let answer = rig.serve.post("/v1/embeddings", vectors.into(), &[]).await;
        assert_eq!(answer.header("x-crossfade-provider"), "primary");
        rig.serve.metric("crossfade_breaker_open{provider=\"candidate\"}").await < 0.5
    })
    .await;
}
