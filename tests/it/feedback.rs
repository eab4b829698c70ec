//! What callers think of the answers they got, from the wire to the way back.

use crossfade::players::Delivery;

use crate::backtest::played;
use crate::world::{Serve, World, http, until, whole};

const HALF: &str = r#"
[rollout.chat]
candidate = "candidate"
autostart = true
gates = { error_rate = "+50pp", latency_p99 = "off", judge_score = "off", feedback = ">= 90%" }
stage = [{ name = "half", serve = "50%", mirror = "1%", duration = "1h", samples = 1 }]
"#;

/// One request: its id, and who answered it.
async fn ask(world: &World, serve: &Serve) -> (String, String) {
    let answer = serve.chat(world.body(0, Delivery::Whole), &[]).await;
    let of = |name| answer.header(name).to_owned();
    (of("x-crossfade-request-id"), of("x-crossfade-provider"))
}

/// The evidence of the gate on it.
async fn gate(serve: &Serve) -> serde_json::Value {
    let status = serve.json(&["status", "chat"]).await;
    let gates = status["evidence"].as_array().unwrap();
    gates.iter().find(|it| it["metric"] == "feedback").unwrap().clone()
}

#[tokio::test]
async fn a_candidate_whose_answers_displease_is_sent_back_by_what_callers_say() {
    let world = World::new().await;
    let serve = world.serve(HALF).await;
    until("the stage is open", || async { ask(&world, &serve).await.1 == "candidate" }).await;
    let (mut said, mut first) = (0, None);
    while serve.json(&["status", "chat"]).await["state"] == "STATE_RUNNING" {
        for _ in 0..8 {
            let (id, provider) = ask(&world, &serve).await;
            first.get_or_insert(id.clone());
            let score = if provider == "candidate" { "0" } else { "1" };
            let (code, text) = serve.cli(&["feedback", &id, score]).await;
            assert_eq!(code, 0, "{text}");
            said += 1;
        }
        assert!(said < 400, "{}", gate(&serve).await);
    }
    let status = serve.json(&["status", "chat"]).await;
    assert_eq!(status["state"], "STATE_ROLLED_BACK");
    let reason = &status["reason"];
    assert_eq!((&reason["code"], &reason["metric"]), (&"GATE_BREACHED".into(), &"feedback".into()));
    assert_eq!(gate(&serve).await["candidateValue"], 0.0);
    let (id, provider) = ask(&world, &serve).await;
    assert_eq!(provider, "primary");
    let told = serve.cli(&["feedback", &first.unwrap(), "1"]).await.1;
    assert!(told.contains("is not under way"), "{told}");
    assert!(serve.cli(&["feedback", &id, "1"]).await.1.contains("does not count"));

    assert!(serve.stop().await.success());
    let again = played(&world.dir.path().join("store"), &[]).await;
    assert_eq!((&again["outcome"], &again["gate"]), (&"rolled_back".into(), &"feedback".into()));
}

/// INV6
#[tokio::test]
async fn an_opinion_that_is_told_again_after_a_restart_is_known_by_its_key_and_its_request() {
    let world = World::new().await;
    let serve = world.serve(&HALF.replace("mirror = \"1%\"", "mirror = \"100%\"")).await;
    until("the stage is open", || async { ask(&world, &serve).await.1 == "candidate" }).await;
    let (id, _) = ask(&world, &serve).await;
    let (other, _) = ask(&world, &serve).await;
    let (_, first) = serve.cli(&["feedback", &id, "1", "--request-id", "thumb-1"]).await;
    assert!(first.contains("it counts for"), "{first}");
    until("both are stored", || async {
        let listed = serve.json_lines(&["pairs", "chat"]).await;
        let name = |it: &serde_json::Value| it["name"].as_str().unwrap().to_owned();
        let listed: Vec<String> = listed.iter().map(name).collect();
        [&id, &other].iter().all(|id| listed.iter().any(|it| it.ends_with(*id)))
    })
    .await;
    assert!(serve.stop().await.success());
    let serve = Serve::start(&world.dir.path().join("crossfade.toml")).await;
    until("the controller is up", || async { serve.cli(&["list"]).await.0 == 0 }).await;
    let say = async |args: &[&str]| serve.cli(&[&["feedback"], args].concat()).await;
    let stands = say(&[&id, "1"]).await;
    assert!(stands.1.contains("the first stands"), "{stands:?}");
    let reused = say(&[&other, "1", "--request-id", "thumb-1"]).await;
    assert!(reused.0 == 2 && reused.1.contains("another score"), "{reused:?}");
    let again = say(&[&id, "1", "--request-id", "thumb-1"]).await;
    assert_eq!(again, (0, first), "a retry is answered the same");
    let counts = say(&[&other, "0"]).await;
    assert!(counts.1.contains("it counts for"), "{counts:?}");
}

#[tokio::test]
async fn an_opinion_counts_once_outlasts_a_restart_and_needs_a_known_request() {
    let world = World::new().await;
    let serve = world.serve(HALF).await;
    until("the stage is open", || async { ask(&world, &serve).await.1 == "candidate" }).await;
    let (mut primary, mut candidate) = (None, None);
    for _ in 0..200 {
        let (id, provider) = ask(&world, &serve).await;
        (if provider == "candidate" { &mut candidate } else { &mut primary }).get_or_insert(id);
        if primary.is_some() && candidate.is_some() {
            break;
        }
    }
    let (primary, candidate) = (primary.unwrap(), candidate.unwrap());
    let say = async |id: &str, score: &str, code: i32| {
        let (got, text) = serve.cli(&["feedback", id, score]).await;
        assert_eq!(got, code, "{text}");
        text
    };
    assert!(say(&candidate, "0.5", 0).await.contains("it counts for candidate"));
    assert!(say(&primary, "1", 0).await.contains("it counts for primary"));
    for _ in 0..2 {
        let again = say(&primary, "1", 0).await;
        assert!(again.contains("does not count") && again.contains("the first stands"), "{again}");
    }
    until("it is counted", || async { gate(&serve).await["samples"] == "1" }).await;
    let told = gate(&serve).await;
    assert_eq!((&told["primaryValue"], &told["candidateValue"]), (&1.0.into(), &0.5.into()));
    let unknown = say("0192f0c1-2345-7abc-8def-0123456789ab", "1", 5).await;
    assert!(unknown.contains("were remembered") || unknown.contains("are remembered"), "{unknown}");
    say(&candidate, "1.5", 2).await;

    serve.stop().await;
    let serve = Serve::start(&world.dir.path().join("crossfade.toml")).await;
    until("the controller is up", || async { serve.cli(&["list"]).await.0 == 0 }).await;
    assert_eq!(gate(&serve).await["samples"], "1", "it outlasts a restart");
}

/// What the operations port says to this body: status and JSON.
async fn post(serve: &Serve, kind: &str, body: &str) -> (u16, serde_json::Value) {
    let request = hyper::Request::post(format!("http://{}/feedback", serve.operations))
        .header("content-type", kind)
        .body(http_body_util::Full::new(bytes::Bytes::from(body.to_owned())))
        .unwrap();
    let answer = whole(http().request(request).await.unwrap()).await;
    assert_eq!(answer.header("content-type"), "application/json");
    (answer.status, answer.json())
}

#[tokio::test]
async fn an_application_without_grpc_says_it_over_http_with_the_same_answers() {
    let world = World::new().await;
    let serve = world.serve(HALF).await;
    until("the stage is open", || async { ask(&world, &serve).await.1 == "candidate" }).await;
    let (id, provider) = ask(&world, &serve).await;
    let json = "application/json";
    let body = format!(r#"{{"response_id":"{id}","thumb":"up","idempotency_key":"k"}}"#);
    for _ in 0..2 {
        let told = post(&serve, json, &body).await;
        assert_eq!(told.0, 200, "{told:?}");
        assert_eq!(told.1["provider"], format!("providers/{provider}"), "{told:?}");
        assert_eq!(told.1["not_counted"], "", "a retry is answered the same");
    }
    let (_, text) = serve.cli(&["feedback", &id, "1"]).await;
    assert!(text.contains("the first stands"), "it is the same path: {text}");
    let scored =
        serve.metric(&format!("crossfade_feedback_score_sum{{provider=\"{provider}\"")).await;
    assert!((scored - 1.0).abs() < 1e-9, "{scored}");

    let unknown = r#"{"response_id":"0192f0c1-2345-7abc-8def-0123456789ab","score":0.5}"#;
    let reused = body.replace("up", "down");
    for (kind, body, status, reason) in [
        (json, unknown, 404, "NOT_FOUND"),
        (json, reused.as_str(), 400, "INVALID_ARGUMENT"),
        (json, "{", 400, "INVALID_ARGUMENT"),
        (json, r#"{"response_id":"1","score":1,"thumb":"up"}"#, 400, "INVALID_ARGUMENT"),
        (json, r#"{"response_id":"1","score":7}"#, 400, "INVALID_ARGUMENT"),
        (json, r#"{"response_id":"1","scor":1}"#, 400, "INVALID_ARGUMENT"),
        (json, &"x".repeat(20_000), 413, "TOO_LONG"),
        ("text/plain", body.as_str(), 415, "NOT_JSON"),
    ] {
        let told = post(&serve, kind, body).await;
        assert_eq!((told.0, &told.1["error"]["reason"]), (status, &reason.into()), "{told:?}");
        assert_ne!(told.1["error"]["message"], "");
    }
}
