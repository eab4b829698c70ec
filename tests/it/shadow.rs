//! Shadow stages: what is copied, what never is, and that nobody notices.

use crossfade::players::{Delivery, Fault};

use crate::world::{CANDIDATE, World, faulty, rollout, slow, until};

/// Reason, path, body, headers.
type Case<'a> = (&'a str, &'a str, &'a str, &'a [(&'a str, &'a str)]);

/// M14
#[tokio::test]
async fn a_copy_has_its_own_credential_and_model_and_nothing_of_the_caller() {
    let world = World::new().await;
    let serve = world.serve(&rollout("0%", "100%")).await;
    let headers =
        [("cookie", "session=1"), ("x-crossfade-data", "eu"), ("x-forwarded-for", "10.0.0.1")];
    until("the candidate sees a copy", || async {
        let answer = serve.chat(world.body(1, Delivery::Whole), &headers).await;
        assert_eq!((answer.status, answer.header("x-crossfade-provider")), (200, "primary"));
        !world.candidate.seen().is_empty()
    })
    .await;
    let (copy, original) = (&world.candidate.seen()[0], &world.primary.seen()[0]);
    assert_eq!(copy.headers.get("authorization").unwrap(), "Bearer candidate-key");
    assert_eq!(copy.headers.get("accept-encoding").unwrap(), "identity");
    for hidden in ["cookie", "x-forwarded-for", "x-crossfade-data"] {
        assert!(!copy.headers.contains_key(hidden), "{hidden}");
    }
    assert_eq!(original.headers.get("authorization").unwrap(), "Bearer caller-key");
    assert_eq!(original.body, world.body(1, Delivery::Whole));
    let (copy, original) = (
        String::from_utf8_lossy(&copy.body).into_owned(),
        String::from_utf8_lossy(&original.body).into_owned(),
    );
    assert_eq!(copy, original.replace(crate::world::PRIMARY, CANDIDATE));
}

#[tokio::test]
async fn a_pair_is_stored_judged_and_shown_with_both_answers() {
    let world = World::new().await;
    let serve = world
        .serve(&rollout("0%", "100%").replace("judge_score = \"off\"", "judge_score = \">= 90%\""))
        .await;
    until("a pair is stored", || async {
        serve.chat(world.body(2, Delivery::Stream), &[]).await;
        !serve.json_lines(&["pairs", "chat"]).await.is_empty()
    })
    .await;
    let pairs = serve.json_lines(&["pairs", "chat"]).await;
    let oldest = pairs.last().unwrap()["name"].as_str().unwrap();
    let id = oldest.rsplit('/').next().unwrap().to_owned();
    until("it is judged", || async {
        serve.json(&["pair", &id]).await["judgements"].as_array().is_some_and(|it| !it.is_empty())
    })
    .await;
    let (code, text) = serve.cli(&["pair", &id]).await;
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("primary") && text.contains("candidate"), "{text}");
}

/// Pairs and requests seen on one side that count in the stage.
async fn counted(serve: &crate::world::Serve) -> (f64, f64) {
    (serve.metric("crossfade_stage_pairs").await, serve.metric("crossfade_stage_solos").await)
}

#[tokio::test]
async fn what_is_not_copied_counts_for_the_primary_and_a_conversation_counts_once() {
    let world = World::new().await;
    let serve = world.serve(&rollout("0%", "10%")).await;
    until("the rollout runs", || async { serve.cli(&["status", "chat"]).await.0 == 0 }).await;
    let id = |index: usize| format!("request-{index}");
    for index in 0..100 {
        let delivery = if index % 2 == 0 { Delivery::Whole } else { Delivery::Stream };
        let id = id(index);
        serve.chat(world.body(index, delivery), &[("x-request-id", &id)]).await;
    }
    until("every request counts on some side", || async {
        let (pairs, solos) = counted(&serve).await;
        99.5 < pairs + solos
    })
    .await;
    let (pairs, solos) = counted(&serve).await;
    assert!(0.5 < pairs && 4.0 * pairs < solos, "{pairs} pairs and {solos} solos at 10%");
    for turn in 0..30 {
        let headers = [("x-crossfade-conversation", "c-1")];
        serve.chat(world.body(turn, Delivery::Whole), &headers).await;
    }
    serve.chat(world.body(0, Delivery::Whole), &[("x-request-id", "last")]).await;
    until("the conversation and the last request count", || async {
        let (now, alone) = counted(&serve).await;
        pairs + solos + 1.5 < now + alone
    })
    .await;
    let (now, alone) = counted(&serve).await;
    assert!((now + alone - pairs - solos - 2.0).abs() < 1e-9, "30 turns are one of 2 lots");
}

#[tokio::test]
async fn a_request_is_explained_by_its_id() {
    let world = World::new().await;
    let serve = world.serve(&rollout("0%", "100%")).await;
    world.copied(&serve).await;
    let explained = async |headers: &[(&str, &str)]| {
        let answer = serve.chat(world.body(1, Delivery::Whole), headers).await;
        let id = answer.header("x-crossfade-request-id").to_owned();
        until("its calls have ended", || async {
            let told = serve.json(&["explain", "--request", &id]).await;
            let copied = told["skipReason"] == "";
            !told["primary"].is_null() && (!copied || !told["candidate"].is_null())
        })
        .await;
        serve.json(&["explain", "--request", &id]).await
    };
    let copied = explained(&[("x-crossfade-user", "ana@x"), ("x-crossfade-data", "eu")]).await;
    assert_eq!(
        (&copied["rollout"], &copied["served"]),
        (&"rollouts/chat".into(), &"SERVED_PRIMARY".into())
    );
    assert_eq!(
        (&copied["counted"], &copied["lots"]["key"]),
        (&"COUNTED_PAIR".into(), &"user".into())
    );
    assert_eq!(copied["candidate"]["outcome"], "OUTCOME_OK");
    assert!(!copied.to_string().contains("ana@x"), "{copied}");
    let barred = explained(&[("x-crossfade-data", "pii")]).await;
    assert_eq!(barred["skipReason"], "data_class");
    let id = barred["requestId"].as_str().unwrap();
    let (code, text) = serve.cli(&["explain", "--request", id]).await;
    assert!(code == 0 && text.contains("not cleared for its data classes"), "{text}");
    let (code, text) = serve.cli(&["explain", "--request", &"0".repeat(32)]).await;
    assert!(code == 5 && text.contains("never seen here"), "{code} {text}");
}

/// M8
#[tokio::test]
async fn data_the_candidate_is_not_cleared_for_is_never_copied() {
    let world = World::new().await;
    let serve = world.serve(&rollout("0%", "100%")).await;
    let before = world.copied(&serve).await;
    for (index, data) in ["pii", "eu, pii", "something-unknown"].into_iter().enumerate() {
        let body = world.body(index, Delivery::Whole);
        assert_eq!(serve.chat(body, &[("x-crossfade-data", data)]).await.status, 200);
    }
    // A cleared one after them shows that the others would have been there by now.
    serve.chat(world.body(9, Delivery::Whole), &[("x-crossfade-data", "eu")]).await;
    until("the cleared one is copied", || async { before < world.candidate.stats().requests })
        .await;
    assert_eq!(world.candidate.stats().requests, before + 1);
    let skipped = "crossfade_mirror_skipped_total{reason=\"data_class\"}";
    assert!((serve.metric(skipped).await - 3.0).abs() < 1e-9);
}

/// M13
#[tokio::test]
async fn the_daily_cap_stops_copies_and_the_stage_says_so() {
    let world = World::new().await;
    let plan = rollout("0%", "100%").replace("autostart", "copies_per_day = 5\nautostart");
    let serve = world.serve(&plan).await;
    until("the cap is met", || async {
        serve.chat(world.body(0, Delivery::Whole), &[]).await;
        0.5 < serve.metric("crossfade_mirror_skipped_total{reason=\"daily_cap\"}").await
    })
    .await;
    serve.is_quiet().await;
    assert_eq!(world.candidate.stats().requests, 5);
    until("the stage says so", || async {
        let (code, text) = serve.cli(&["status", "chat"]).await;
        assert_eq!(code, 0, "{text}");
        text.contains("copies are used up")
    })
    .await;
}

#[tokio::test]
async fn what_may_not_be_copied_is_passed_on_and_counted_by_reason() {
    let world = World::new().await;
    let more = rollout("0%", "100%") + "[limits]\nmirror_body_max = \"4KiB\"\n";
    let serve = world.serve(&more).await;
    let before = world.copied(&serve).await;
    let chat = "/v1/chat/completions";
    let large = format!("{{\"model\":\"x\",\"messages\":[],\"pad\":\"{}\"}}", "x".repeat(5_000));
    let cases: [Case<'_>; 6] = [
        ("stateful", chat, r#"{"model":"m","messages":[],"store":true}"#, &[]),
        ("multiple", chat, r#"{"model":"m","messages":[],"n":2}"#, &[]),
        ("retry", chat, r#"{"model":"m","messages":[]}"#, &[("x-stainless-retry-count", "1")]),
        ("endpoint", "/v1/files", "{}", &[]),
        ("not_json", chat, "not json", &[]),
        ("size", chat, &large, &[]),
    ];
    for (reason, path, body, headers) in cases {
        serve.post(path, body.as_bytes().to_vec(), headers).await;
        let series = format!("crossfade_mirror_skipped_total{{reason=\"{reason}\"}}");
        assert!((serve.metric(&series).await - 1.0).abs() < 1e-9, "{reason}");
    }
    assert_eq!(world.candidate.stats().requests, before);
}

/// M1 INV7
#[tokio::test]
async fn a_candidate_that_fails_in_any_way_changes_nothing_for_callers() {
    for fault in [Fault::Dead, Fault::Hang, Fault::Errors(500), Fault::CutBody, Fault::BadJson] {
        let world = World::with(faulty(fault)).await;
        let serve = world.serve(&rollout("0%", "100%")).await;
        until("the lane is open", || async {
            serve.chat(world.body(0, Delivery::Whole), &[]).await;
            0 < world.candidate.stats().requests
        })
        .await;
        let before = world.primary.stats().requests;
        for index in 0..12 {
            let delivery = if index % 2 == 0 { Delivery::Whole } else { Delivery::Stream };
            let answer = serve.chat(world.body(index, delivery), &[]).await;
            assert_eq!(answer.status, 200, "{fault:?}");
            assert_eq!(answer.header("x-crossfade-provider"), "primary", "{fault:?}");
        }
        assert_eq!(world.primary.stats().requests, before + 12, "{fault:?}");
    }
}

/// M3 B-03
#[tokio::test]
async fn a_full_pool_drops_copies_counts_them_and_delays_nobody() {
    let world = World::with(faulty(Fault::Hang)).await;
    let more = rollout("0%", "100%") + "[limits]\nmirror_concurrency_max = 3\n";
    let serve = world.serve(&more).await;
    until("the pool is full", || async {
        assert_eq!(serve.chat(world.body(0, Delivery::Whole), &[]).await.status, 200);
        2.5 < serve.metric("crossfade_mirror_skipped_total{reason=\"busy\"}").await
    })
    .await;
    assert!((serve.metric("crossfade_mirror_in_flight ").await - 3.0).abs() < 1e-9);
}

/// C11
#[tokio::test]
async fn copies_under_way_become_pairs_before_the_program_ends() {
    let world = World::with(|_, candidate| candidate.latency = slow(6_000)).await;
    let serve = world.serve(&(rollout("0%", "100%") + "[limits]\ngrace = \"60s\"\n")).await;
    // Requests that come before the rollout moves are not copied.
    until("copies are under way", || async {
        assert_eq!(serve.chat(world.body(0, Delivery::Whole), &[]).await.status, 200);
        4 < world.candidate.stats().requests
    })
    .await;
    assert!(serve.json_lines(&["pairs", "chat"]).await.is_empty());
    assert!(serve.stop().await.success());
    let serve = world.serve(&rollout("0%", "100%")).await;
    let copies = usize::try_from(world.candidate.stats().requests).unwrap();
    let pairs = serve.json_lines(&["pairs", "chat", "--limit", "1000"]).await.len();
    assert!(5 <= copies && pairs == copies, "{pairs} pairs of {copies} copies");
    until("all of them count", || async {
        let told = serve.json(&["status", "chat"]).await["pairs"].clone();
        told.as_str() == Some(&copies.to_string())
    })
    .await;
}

/// C11
#[tokio::test]
async fn copies_that_outlast_the_end_are_no_evidence() {
    let world = World::with(faulty(Fault::Hang)).await;
    let more = rollout("0%", "100%") + "[limits]\ngrace = \"500ms\"\n";
    let serve = world.serve(&more).await;
    until("copies are under way", || async {
        assert_eq!(serve.chat(world.body(0, Delivery::Whole), &[]).await.status, 200);
        29 < world.candidate.stats().requests
    })
    .await;
    assert!(serve.stop().await.success());
    let serve = world.serve(&more).await;
    let rollout = serve.json(&["status", "chat"]).await.to_string();
    assert!(!rollout.contains("never became a pair"), "{rollout}");
    assert!(serve.json_lines(&["pairs", "chat"]).await.is_empty());
}

/// M4
#[tokio::test]
async fn a_long_prompt_is_copied_and_the_first_chunk_of_its_stream_waits_for_nobody() {
    let world = World::with(|_, candidate| candidate.latency = slow(6_000)).await;
    let serve = world.serve(&rollout("0%", "100%")).await;
    let mut body: serde_json::Value =
        serde_json::from_slice(&world.body(3, Delivery::Stream)).unwrap();
    let padding = "x".repeat(2 << 20);
    body["metadata"] = serde_json::json!({ "padding": padding });
    let answer = serve.chat(body.to_string().into_bytes(), &[]).await;
    assert!(answer.status == 200 && answer.header("content-type").starts_with("text/event-stream"));
    // The caller has the whole stream while the candidate has not begun to answer.
    assert!(serve.json_lines(&["pairs", "chat"]).await.is_empty());
    until("the pair is there", || async { !serve.json_lines(&["pairs", "chat"]).await.is_empty() })
        .await;
    let copy = world.candidate.seen().pop().unwrap();
    assert!(2 << 20 < copy.body.len(), "{} bytes", copy.body.len());
    let pair = &serve.json_lines(&["pairs", "chat"]).await[0];
    let outcome = |side: &str| pair[side]["outcome"].as_str().unwrap().to_owned();
    assert_eq!(
        (outcome("primary"), outcome("candidate")),
        ("OUTCOME_OK".into(), "OUTCOME_OK".into())
    );
}
