//! A candidate that serves: whatever byte its answer breaks off at, callers get one provider's
//! answer; and the way back under load.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use crossfade::domain::Splitmix;
use tokio::{task::JoinSet, time::Instant};

use super::{
    Fault, Step, answer,
    faults::{chunk, sse, stream_head},
    rig::{AT_ONCE, End, HASTY, Rig, WAYS, Way, begin, body, patient, read},
};
use crate::world::until;

async fn candidate_serves(rig: &Rig) {
    until("the candidate serves", || async {
        rig.ask("probe", Way::Whole).await.provider == "candidate"
    })
    .await;
}

/// What its answer is, as bytes on the wire, and which of them is the first of its body.
fn wire(way: Way) -> (Vec<u8>, usize) {
    let asked = super::Asked { user: "u".to_owned(), streamed: way == Way::Stream };
    let pieces = answer("candidate", &asked);
    let length_line = pieces[1].iter().position(|it| *it == b'\n').map_or(0, |it| it + 1);
    let before = if way == Way::Stream { length_line } else { 0 };
    (pieces.concat(), pieces[0].len() + before)
}

#[tokio::test]
async fn b11_a_candidate_cut_at_any_byte_is_replaced_or_delivered_and_never_mixed() {
    let rig = Rig::new(&patient("100%", "1%")).await;
    candidate_serves(&rig).await;
    for way in WAYS {
        let (bytes, first) = wire(way);
        for cut in 0..bytes.len() {
            rig.candidate.does(Fault::Cut(cut));
            let cut_off = rig.ask_or_none("u", way).await;
            // Good again at once, or the tripwire would send it back.
            rig.candidate.does(Fault::None);
            let whole = rig.ask("u", way).await;
            whole.is_from("candidate", "u");
            let Some(cut_off) = cut_off else {
                // It broke off again before its head had left for the caller.
                assert!(first < cut, "{way:?} {cut}: nothing of it was there");
                continue;
            };
            assert_eq!(cut_off.status, 200, "{way:?} {cut}");
            if cut_off.provider == "primary" {
                cut_off.is_from("primary", "u");
                assert!(cut <= first, "{way:?} {cut}: it had begun");
            } else {
                assert!(first < cut, "{way:?} {cut}: nothing of it was there");
                assert!(whole.body.starts_with(&cut_off.body), "{way:?} {cut}: mixed");
                assert_eq!(cut_off.ended, End::Broken, "{way:?} {cut}");
            }
        }
    }
    assert_eq!(rig.serve.json(&["status", "chat"]).await["state"], "STATE_RUNNING");
}

#[tokio::test]
async fn b11_every_fault_at_a_fifth_of_traffic_shows_one_providers_answer() {
    let limits = "[limits]\nfirst_byte_timeout = \"1s\"\n";
    let rig = Rig::new(&(patient("20%", "100%") + limits)).await;
    candidate_serves_some(&rig).await;
    let mut fallbacks = 0.0;
    for fault in Fault::ALL {
        // What is never ended by the candidate is never ended for its caller either.
        if matches!(
            fault,
            Fault::Endless | Fault::Crumbs | Fault::Stall(1..) | Fault::HalfClose(1..)
        ) {
            continue;
        }
        rig.candidate.plays(move |number, asked| {
            let fault = if number % 2 == 0 { fault } else { Fault::None };
            fault.steps("candidate", number, asked)
        });
        for number in 0..16 {
            let user = format!("user-{number}");
            let way = WAYS[number % 2];
            let got = rig.ask_as(&[HASTY], &user, way).await;
            let text = String::from_utf8_lossy(&got.body).into_owned();
            assert_eq!(got.status, 200, "{fault:?}: {text}");
            if got.provider == "primary" {
                got.is_from("primary", &user);
            } else {
                assert!(!text.contains("primary"), "{fault:?}: {text}");
            }
        }
        let now = rig.serve.metric("crossfade_fallbacks_total").await;
        fallbacks = f64::max(now, fallbacks);
    }
    assert!(3.0 < fallbacks, "{fallbacks} fallbacks");
}

/// The head says that it failed: nobody waits for what else it would say.
#[tokio::test]
async fn b11_a_candidate_that_fails_and_then_hangs_keeps_no_caller_waiting() {
    let rig = Rig::new(&patient("100%", "1%")).await;
    candidate_serves(&rig).await;
    let head = "HTTP/1.1 500 Oops\r\ncontent-type: text/plain\r\ncontent-length: 9\r\n\r\n";
    rig.candidate.plays(move |_, _| vec![Step::Send(head.as_bytes().to_vec()), Step::Stall]);
    let asked = Instant::now();
    rig.ask("u", Way::Whole).await.is_from("primary", "u");
    // What an answer may take to its first byte is 30 seconds.
    assert!(asked.elapsed() < Duration::from_secs(20), "{:?}", asked.elapsed());
}

async fn candidate_serves_some(rig: &Rig) {
    let number = AtomicU64::new(0);
    until("the candidate serves some", || async {
        let user = format!("user-{}", number.fetch_add(1, Relaxed) % 16);
        rig.ask(&user, Way::Whole).await.provider == "candidate"
    })
    .await;
}

#[tokio::test]
async fn b13_a_flip_under_load_costs_no_caller_anything_and_streams_go_on() {
    let rig = Arc::new(Rig::new(&patient("100%", "1%")).await);
    candidate_serves(&rig).await;
    // Streams that stand still in their middle, and requests without a pause beside them.
    let late = Arc::new(AtomicU64::new(0));
    let counts = Arc::clone(&late);
    rig.candidate.plays(move |number, asked| {
        let steps = Fault::None.steps("candidate", number, asked);
        counts.fetch_add(u64::from(asked.user.starts_with("late-")), Relaxed);
        if !asked.user.starts_with("stream") {
            return steps;
        }
        let last = steps.len() - 1;
        let (start, end) = steps.split_at(last);
        [start, &[Step::Gate], end].concat()
    });
    let mut streams = Vec::new();
    for number in 0..20 {
        let user = format!("stream-{number}");
        let response = begin(&rig.http, rig.serve.data, &body(&user, Way::Stream)).await;
        assert_eq!(response.headers()["x-crossfade-provider"], "candidate");
        streams.push((user, response));
    }
    let turn = Arc::new(AtomicU64::new(0));
    let served = Arc::new(AtomicU64::new(0));
    let mut load = JoinSet::new();
    for caller in 0..16 {
        let (rig, turn, served) = (Arc::clone(&rig), Arc::clone(&turn), Arc::clone(&served));
        load.spawn(async move {
            let mut dice = Splitmix(caller);
            while turn.load(Relaxed) < 2 {
                let when = ["early", "late"][usize::from(turn.load(Relaxed) == 1)];
                let user = format!("{when}-{caller}-{}", dice.roll());
                let got = rig.ask(&user, WAYS[usize::from(dice.roll().is_multiple_of(2))]).await;
                let provider =
                    if when == "late" { "primary".to_owned() } else { got.provider.clone() };
                got.is_from(&provider, &user);
                served.fetch_add(1, Relaxed);
            }
        });
    }
    until("load is on", || async { 300 < served.load(Relaxed) }).await;
    let (code, text) = rig.serve.cli(&["rollback", "chat"]).await;
    assert_eq!(code, 0, "{text}");
    let at = served.load(Relaxed);
    turn.store(1, Relaxed);
    until("load goes on", || async { at + 500 < served.load(Relaxed) }).await;
    assert_eq!(late.load(Relaxed), 0, "asked after the rollback was answered");
    turn.store(2, Relaxed);
    while let Some(ended) = load.join_next().await {
        ended.unwrap();
    }
    rig.candidate.open(20);
    for (user, response) in streams {
        let got = read(response).await;
        got.is_from("candidate", &user);
    }
}

/// One event a time, each after the caller has what came before.
#[tokio::test]
async fn b13_a_stream_under_way_is_not_even_delayed_by_the_way_back() {
    let rig = Rig::new(&patient("100%", "1%")).await;
    candidate_serves(&rig).await;
    rig.candidate.plays(|_, _| {
        let events = sse("candidate answers u").into_iter();
        let events = events.flat_map(|it| [Step::Gate, Step::Send(chunk(it.as_bytes()))]);
        let end = [Step::Send(b"0\r\n\r\n".to_vec())];
        [Step::Send(stream_head())].into_iter().chain(events).chain(end).collect()
    });
    rig.candidate.open(1);
    let mut response = begin(&rig.http, rig.serve.data, &body("u", Way::Stream)).await;
    let first = http_body_util::BodyExt::frame(response.body_mut()).await.unwrap().unwrap();
    assert!(first.data_ref().unwrap().starts_with(b"data: "));
    assert_eq!(rig.serve.cli(&["rollback", "chat"]).await.0, 0);
    let started = Instant::now();
    rig.candidate.open(100);
    let rest = read(response).await;
    assert_eq!(rest.ended, End::Whole);
    assert!(rest.body.ends_with(b"data: [DONE]\n\n"));
    assert!(started.elapsed() < AT_ONCE);
}

#[tokio::test]
async fn calls_under_way_when_a_rollout_goes_back_are_counted() {
    const CALLS: usize = 20;
    let rig = Arc::new(Rig::new(&patient("100%", "1%")).await);
    candidate_serves(&rig).await;
    let left = "crossfade_requests_total{provider=\"candidate\",role=\"serve\",\
                outcome=\"abandoned\"}";
    let fallbacks = "crossfade_fallbacks_total{rollout=\"chat\"}";
    assert!(rig.serve.metric(left).await < 0.5 && rig.serve.metric(fallbacks).await < 0.5);
    rig.candidate.does(Fault::Stall(0));
    let (begun, mut calls) = (rig.candidate.begun(), JoinSet::new());
    for number in 0..CALLS {
        let rig = Arc::clone(&rig);
        calls.spawn(async move {
            let user = format!("u-{number}");
            rig.ask(&user, Way::Whole).await.is_from("primary", &user);
        });
    }
    let all = begun + u64::try_from(CALLS).unwrap();
    until("the candidate has all of them", || async { all <= rig.candidate.begun() }).await;
    assert_eq!(rig.serve.cli(&["rollback", "chat"]).await.0, 0);
    while let Some(call) = calls.join_next().await {
        call.unwrap();
    }
    for counted in [left, fallbacks] {
        let calls = rig.serve.metric(counted).await;
        assert!((calls - 20.0).abs() < 0.5, "{counted} {calls}");
    }
}
