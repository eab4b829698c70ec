//! Live stages: who serves, who takes over, and the way back.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering::Relaxed},
    },
};

use crossfade::players::{Delivery, Fault};
use tokio::{task::JoinSet, time::Instant};

use crate::world::{PRIMARY, SOON, Serve, World, faulty, rollout, slow, until};

/// Waits until the stage is open and the candidate answers.
async fn candidate_serves(world: &World, serve: &Serve) {
    until("the candidate serves", || async {
        let answer = serve.chat(world.body(0, Delivery::Whole), &[]).await;
        answer.header("x-crossfade-provider") == "candidate"
    })
    .await;
}

/// M10
#[tokio::test]
async fn a_serving_share_is_sticky_for_a_user_and_about_right() {
    let world = World::new().await;
    let serve = world.serve(&rollout("50%", "1%")).await;
    candidate_serves(&world, &serve).await;
    let mut served = 0;
    for user in 0..60 {
        let user = format!("user-{user}");
        let mut providers = HashSet::new();
        for turn in 0..3 {
            let headers = [("x-crossfade-user", user.as_str())];
            let answer = serve.chat(world.body(turn, Delivery::Whole), &headers).await;
            assert_eq!(answer.status, 200);
            providers.insert(answer.header("x-crossfade-provider").to_owned());
        }
        assert_eq!(providers.len(), 1, "{user} was moved: {providers:?}");
        served += usize::from(providers.contains("candidate"));
    }
    assert!((15..=45).contains(&served), "{served} of 60 users at 50%");
}

#[tokio::test]
async fn a_candidate_that_fails_before_its_first_byte_is_replaced_unnoticed() {
    for fault in [Fault::Dead, Fault::Errors(500), Fault::Errors(429), Fault::Hang] {
        let world = World::new().await;
        let more = rollout("100%", "1%") + "[limits]\nfirst_byte_timeout = \"500ms\"\n";
        let serve = world.serve(&more).await;
        candidate_serves(&world, &serve).await;
        world.candidate.set_fault(fault);
        for delivery in [Delivery::Whole, Delivery::Stream] {
            // The first byte of a whole answer comes when it is complete.
            let deadline = [("x-crossfade-deadline", "1")];
            let answer = serve.chat(world.body(1, delivery), &deadline).await;
            assert_eq!(answer.status, 200, "{fault:?}");
            assert_eq!(answer.header("x-crossfade-provider"), "primary", "{fault:?}");
        }
        assert!(1.5 < serve.metric("crossfade_fallbacks_total").await, "{fault:?}");
    }
}

#[tokio::test]
async fn a_fallback_counts_for_the_candidate_and_never_for_the_primary() {
    let world = World::new().await;
    let serve = world.serve(&rollout("100%", "1%")).await;
    candidate_serves(&world, &serve).await;
    let counted = async || {
        let (pairs, solos) =
            (serve.metric("crossfade_stage_pairs").await, serve.metric("crossfade_stage_solos"));
        pairs + solos.await
    };
    let asked = async || f64::from(u32::try_from(world.candidate.stats().requests).unwrap());
    until("what was asked counts", || async { (counted().await - asked().await).abs() < 0.5 })
        .await;
    let before = counted().await;
    world.candidate.set_fault(Fault::Errors(500));
    for _ in 0..3 {
        let answer = serve.chat(world.body(1, Delivery::Whole), &[]).await;
        assert_eq!(answer.header("x-crossfade-provider"), "primary");
    }
    world.candidate.set_fault(Fault::None);
    // One after them shows that the answers of the primary would have been counted by now.
    serve.chat(world.body(1, Delivery::Whole), &[]).await;
    until("each of them counts once", || async { before + 3.5 < counted().await }).await;
    assert!((counted().await - before - 4.0).abs() < 1e-9);
    let rollout = serve.json(&["status", "chat"]).await;
    assert_eq!(rollout["evidenceProblem"], "", "{rollout}");
    assert!(0.0 < rollout["evidence"][0]["candidateValue"].as_f64().unwrap(), "{rollout}");
}

#[tokio::test]
async fn after_the_first_byte_a_failure_is_delivered_as_it_is() {
    let world = World::new().await;
    let serve = world.serve(&rollout("100%", "1%")).await;
    candidate_serves(&world, &serve).await;
    world.candidate.set_fault(Fault::CutBody);
    let uri = format!("http://{}/v1/chat/completions", serve.data);
    let request = hyper::Request::post(uri).header("content-type", "application/json");
    let body = http_body_util::Full::new(world.body(1, Delivery::Stream).into());
    let response = crate::world::http().request(request.body(body).unwrap()).await.unwrap();
    assert_eq!(response.headers()["x-crossfade-provider"], "candidate");
    let body = http_body_util::BodyExt::collect(response.into_body()).await;
    assert!(body.is_err(), "a cut answer must not look whole");
}

/// INV10
#[tokio::test]
async fn a_candidate_that_simply_dies_is_sent_back_within_a_handful_of_calls() {
    let world = World::new().await;
    let serve = world.serve(&rollout("100%", "1%")).await;
    candidate_serves(&world, &serve).await;
    world.candidate.set_fault(Fault::Dead);
    let before = world.candidate.stats().requests;
    until("it is rolled back", || async {
        let answer = serve.chat(world.body(1, Delivery::Whole), &[]).await;
        assert_eq!((answer.status, answer.header("x-crossfade-provider")), (200, "primary"));
        serve.json(&["status", "chat"]).await["state"] == "STATE_ROLLED_BACK"
    })
    .await;
    let calls = world.candidate.stats().requests - before;
    assert!(calls <= 20, "{calls} calls until back");
    let rollout = serve.json(&["status", "chat"]).await;
    assert_eq!(rollout["reason"]["code"], "TRIPWIRE");
}

#[tokio::test]
async fn a_bad_candidate_is_sent_back_by_the_bets_over_pairs() {
    let world = World::with(|_, candidate| {
        candidate.errors = crossfade::domain::Share::from_basis_points(1_500).unwrap();
    })
    .await;
    let serve = world.serve(&rollout("0%", "100%")).await;
    let ends = Instant::now() + SOON;
    let mut index = 0;
    while serve.json(&["status", "chat"]).await["state"] != "STATE_ROLLED_BACK" {
        assert!(Instant::now() < ends, "{:?}", serve.json(&["status", "chat"]).await);
        for _ in 0..20 {
            serve.chat(world.body(index, Delivery::Whole), &[]).await;
            index += 1;
        }
    }
    let rollout = serve.json(&["status", "chat"]).await;
    assert_eq!(rollout["reason"]["code"], "GATE_BREACHED");
    assert_eq!(rollout["reason"]["metric"], "error_rate");
}

/// C9 INV2 B-13
#[tokio::test]
async fn no_new_request_reaches_the_candidate_after_a_rollback_was_answered() {
    let world = Arc::new(World::with(|_, candidate| candidate.latency = slow(20)).await);
    let serve = Arc::new(world.serve(&rollout("50%", "100%")).await);
    until("the candidate serves", || async {
        serve.chat(world.body(0, Delivery::Whole), &[]).await;
        0 < world.candidate.stats().requests
    })
    .await;
    // 0: load before the rollback; 1: requests begun after its answer; 2: the end.
    let turn = Arc::new(AtomicU8::new(0));
    let mut load = JoinSet::new();
    for lane in 0..16 {
        let (world, serve, turn) = (Arc::clone(&world), Arc::clone(&serve), Arc::clone(&turn));
        load.spawn(async move {
            let client = crate::world::http();
            for index in 0.. {
                let now = turn.load(Relaxed);
                if now == 2 {
                    break;
                }
                let body = world.rows.request(lane + index, PRIMARY, Delivery::Whole);
                let mut body = body
                    .unwrap_or_else(|| world.rows.request(0, PRIMARY, Delivery::Whole).unwrap());
                body["user"] = format!("turn-{now}-{lane}-{index}").into();
                let uri = format!("http://{}/v1/chat/completions", serve.data);
                let request = hyper::Request::post(uri).header("content-type", "application/json");
                let body = http_body_util::Full::new(body.to_string().into_bytes().into());
                let answer = client.request(request.body(body).unwrap()).await.unwrap();
                assert_eq!(crate::world::whole(answer).await.status, 200);
            }
        });
    }
    until("load is on", || async { 200 < world.candidate.stats().requests }).await;
    let (code, text) = serve.cli(&["rollback", "chat"]).await;
    assert_eq!(code, 0, "{text}");
    turn.store(1, Relaxed);
    let begun_after =
        |seen: &crossfade::players::Seen| String::from_utf8_lossy(&seen.body).contains("\"turn-1-");
    until("traffic goes on", || async {
        300 < world.primary.seen().iter().filter(|it| begun_after(it)).count()
    })
    .await;
    assert_eq!(world.candidate.seen().iter().filter(|it| begun_after(it)).count(), 0);
    turn.store(2, Relaxed);
    while let Some(ended) = load.join_next().await {
        ended.unwrap();
    }
}

/// M1 B-01
#[tokio::test]
async fn a_hanging_candidate_and_a_hanging_judge_leave_memory_bounded_and_callers_alone() {
    let world = World::with(faulty(Fault::Hang)).await;
    world.judge.set_fault(crossfade::players::JudgeFault::Hang);
    let serve = world.serve(&rollout("0%", "100%")).await;
    let memory = || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", serve.pid())).unwrap();
        let line = status.lines().find(|it| it.starts_with("VmRSS")).unwrap().to_owned();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
    };
    for index in 0..300 {
        assert_eq!(serve.chat(world.body(index, Delivery::Whole), &[]).await.status, 200);
    }
    let full = memory();
    for index in 0..600 {
        assert_eq!(serve.chat(world.body(index, Delivery::Whole), &[]).await.status, 200);
    }
    let grown = memory().saturating_sub(full);
    assert!(grown < 32 * 1024, "{grown} KiB more after twice the requests");
}

/// O1
#[tokio::test]
async fn a_hanging_judge_costs_scores_and_nothing_else() {
    let world = World::new().await;
    world.judge.set_fault(crossfade::players::JudgeFault::Hang);
    let judged = rollout("0%", "100%").replace("judge_score = \"off\"", "judge_score = \">= 90%\"");
    let more = judged + "[limits]\njudge_queue_len_max = 2\n";
    let serve = world.serve(&more).await;
    until("the judge is behind", || async {
        let answer = serve.chat(world.body(0, Delivery::Whole), &[]).await;
        assert_eq!((answer.status, answer.header("x-crossfade-provider")), (200, "primary"));
        2.5 < serve.metric("crossfade_lost_total{reason=\"judge_full\"}").await
    })
    .await;
    assert!(0 < world.judge.stats().requests);
    assert_eq!(serve.json(&["status", "chat"]).await["state"], "STATE_RUNNING");
}

#[tokio::test]
async fn a_rollback_is_done_again_for_a_new_attempt_and_whatever_is_said_with_it() {
    let world = World::new().await;
    let serve = world.serve(&rollout("100%", "1%")).await;
    let serves = || async {
        let answer = serve.chat(world.body(0, Delivery::Whole), &[]).await;
        answer.header("x-crossfade-provider") == "candidate"
    };
    let novel = "so long\na story ".repeat(200);
    let rollback = ["--request-id", "r-1", "--comment", novel.as_str(), "rollback", "chat"];
    for _ in 0..2 {
        until("the candidate serves", serves).await;
        let (code, text) = serve.cli(&rollback).await;
        assert_eq!(code, 0, "{text}");
        assert_eq!(serve.json(&["status", "chat"]).await["state"], "STATE_ROLLED_BACK");
        assert!(!serves().await);
        assert_eq!(serve.cli(&["start", "chat"]).await.0, 0);
    }
}
