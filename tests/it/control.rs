//! The control port: what a pipeline and a person on call see of it.

use crossfade::players::Delivery;

use serde_json::Value;

use crate::world::{Serve, World, rollout, until};

const LADDER: &str = r#"
[rollout.chat]
candidate = "candidate"
gates = { latency_p99 = "off", judge_score = "off" }
stage = [
  { name = "one", serve = "0%",  mirror = "100%", duration = "1h", samples = 100, approval = true },
  { name = "two", serve = "20%", mirror = "100%", duration = "1h", samples = 100 },
]
"#;

#[tokio::test]
async fn the_verbs_do_what_they_say_and_refusals_say_what_would_work() {
    let world = World::new().await;
    let serve = world.serve(LADDER).await;
    until("the controller is up", || async { serve.cli(&["list"]).await.0 == 0 }).await;
    let run = |args: &'static [&'static str]| serve.cli(args);
    assert_eq!(serve.json(&["status", "chat"]).await["state"], "STATE_PENDING");
    let (code, text) = run(&["advance", "chat"]).await;
    assert_eq!(code, 6, "{text}");
    assert!(text.contains("start it first"), "{text}");
    assert_eq!(run(&["start", "chat"]).await.0, 0);
    assert_eq!(run(&["pause", "chat"]).await.0, 0);
    assert_eq!(serve.json(&["status", "chat"]).await["state"], "STATE_PAUSED");
    assert_eq!(run(&["resume", "chat"]).await.0, 0);
    let (code, text) = run(&["approve", "chat", "one"]).await;
    assert_eq!(code, 6, "{text}");
    assert!(text.contains("error_rate"), "the gate in the way is named: {text}");
    let (code, text) = run(&["approve", "chat", "two"]).await;
    assert_eq!(code, 6, "{text}");
    assert!(text.contains("not the current one"), "{text}");
    let (code, text) = run(&["status", "nothing-here"]).await;
    assert_eq!(code, 5, "{text}");
    assert_eq!(run(&["rollback", "chat"]).await.0, 0);
    assert_eq!(run(&["rollback", "chat"]).await.0, 0, "a rollback is never refused");
    let status = serve.json(&["status", "chat"]).await;
    assert_eq!((&status["state"], &status["durable"]), (&"STATE_ROLLED_BACK".into(), &true.into()));
    let events = serve.json_lines(&["events", "chat"]).await;
    assert_eq!(events.len(), 5, "{events:?}");
}

/// Runs a command, expects its exit code, and answers what it said.
async fn said(serve: &Serve, args: &[&str], code: i32) -> String {
    let (got, text) = serve.cli(args).await;
    assert_eq!(got, code, "{args:?}: {text}");
    text
}

/// Gives `chat` the plan it has, changed.
async fn update(world: &World, serve: &Serve, change: impl FnOnce(&mut Value)) -> (i32, String) {
    let mut plan = serve.json(&["status", "chat"]).await;
    change(&mut plan);
    let file = world.dir.path().join("plan.json");
    std::fs::write(&file, plan.to_string()).unwrap();
    serve.cli(&["update", "chat", "--file", file.to_str().unwrap()]).await
}

#[tokio::test]
async fn a_ladder_is_jumped_on_edited_and_ended_as_the_asker_may() {
    let world = World::new().await;
    let serve = world.serve(LADDER).await;
    until("the controller is up", || async { serve.cli(&["list"]).await.0 == 0 }).await;
    said(&serve, &["start", "chat"], 0).await;

    let over = said(&serve, &["jump", "chat", "two"], 6).await;
    assert!(over.contains("--approve"), "{over}");
    let why = ["--override", "--comment", "why"];
    let over = said(&serve, &[&["jump", "chat", "two"], &why[..]].concat(), 6).await;
    assert!(over.contains("`one` needs an approval"), "{over}");
    said(&serve, &[&["jump", "chat", "two", "--approve"], &why[..]].concat(), 0).await;
    let status = serve.json(&["status", "chat"]).await;
    assert_eq!((&status["stageIndex"], &status["attempt"]), (&1.into(), &1.into()));
    assert_eq!(status["reason"]["code"], "OPERATOR_OVERRIDE");
    said(&serve, &["jump", "chat", "one"], 0).await;
    assert_eq!(serve.json(&["status", "chat"]).await["reason"]["code"], "OPERATOR_JUMP");

    let (code, text) = update(&world, &serve, |it| it["stages"][1]["minSamples"] = 7.into()).await;
    assert_eq!(code, 0, "what is to come may change: {text}");
    let (code, text) = update(&world, &serve, |it| it["stages"][0]["serveBps"] = 10.into()).await;
    assert_eq!(code, 6, "{text}");
    assert!(text.contains("stages[0].serve_bps"), "{text}");
    let (code, text) = update(&world, &serve, |it| it["etag"] = "1".into()).await;
    assert_eq!(code, 6, "somebody else was first: {text}");
    let (code, text) = update(&world, &serve, |it| it["stages"][0]["minSamples"] = 1.into()).await;
    assert_eq!(code, 0, "{text}");
    let status = serve.json(&["status", "chat"]).await;
    assert_eq!(
        (&status["planRevision"], &status["reason"]["code"]),
        (&"3".into(), &"PLAN_LOOSENED".into())
    );

    serve.kill().await;
    let serve = Serve::start(&world.dir.path().join("crossfade.toml")).await;
    until("the controller is up", || async { serve.cli(&["list"]).await.0 == 0 }).await;
    let status = serve.json(&["status", "chat"]).await;
    assert_eq!(status["planRevision"], "3", "a restart undoes no edit");
    assert_eq!(status["stages"][1]["minSamples"], "7");
    said(&serve, &["complete", "chat", "--approve", "--comment", "why"], 0).await;
    let status = serve.json(&["status", "chat"]).await;
    assert_eq!((&status["state"], &status["stageIndex"]), (&"STATE_SUCCEEDED".into(), &1.into()));
}

#[tokio::test]
async fn one_rollout_supersedes_another_and_a_stop_outlasts_a_restart() {
    let world = World::new().await;
    let serve = world.serve(LADDER).await;
    until("the controller is up", || async { serve.cli(&["list"]).await.0 == 0 }).await;
    said(&serve, &["start", "chat"], 0).await;
    let create = ["create", "next", "--primary", "primary", "--candidate", "candidate"];
    said(&serve, &[&create[..], &["--gate", "error_rate=+1pp"]].concat(), 0).await;
    let refused = said(&serve, &["start", "next"], 6).await;
    assert!(refused.contains("`chat`") && refused.contains("--supersede"), "{refused}");
    said(&serve, &["start", "next", "--supersede"], 0).await;
    let status = serve.json(&["status", "chat"]).await;
    assert_eq!(
        (&status["state"], &status["reason"]["code"]),
        (&"STATE_ROLLED_BACK".into(), &"SUPERSEDED".into())
    );
    assert_eq!(serve.json(&["status", "next"]).await["state"], "STATE_RUNNING");

    said(&serve, &["stop", "--comment", "fire", "--request-id", "s-1"], 0).await;
    let status = serve.json(&["status", "next"]).await;
    assert_eq!(
        (&status["state"], &status["reason"]["code"]),
        (&"STATE_ROLLED_BACK".into(), &"STOPPED".into())
    );
    serve.kill().await;
    let serve = Serve::start(&world.dir.path().join("crossfade.toml")).await;
    until("the controller is up", || async { serve.cli(&["list"]).await.0 == 0 }).await;
    let refused = said(&serve, &["start", "next"], 6).await;
    assert!(refused.contains("crossfade stop --lift"), "{refused}");
    assert!(said(&serve, &["list"], 0).await.contains("fire"));
    said(&serve, &["stop", "--lift"], 0).await;
    said(&serve, &["start", "next"], 0).await;
    let again = said(&serve, &["stop", "--request-id", "s-1"], 0).await;
    assert!(again.contains("next is at") && again.contains("was lifted since"), "{again}");
    let events = serve.json_lines(&["events", "-"]).await;
    let kinds: Vec<_> =
        events.iter().rev().map(|it| it["type"].as_str().unwrap()).take(4).collect();
    assert_eq!(kinds, ["TYPE_STAGE_ENTERED", "TYPE_LIFTED", "TYPE_ROLLED_BACK", "TYPE_STOPPED"]);
}

#[tokio::test]
async fn what_is_at_its_end_can_be_deleted_and_is_gone_after_a_kill() {
    let world = World::new().await;
    let serve = world.serve(LADDER).await;
    until("the controller is up", || async { serve.cli(&["list"]).await.0 == 0 }).await;
    let create = ["create", "next", "--primary", "primary", "--candidate", "candidate"];
    let create = [&create[..], &["--gate", "error_rate=+1pp"]].concat();
    said(&serve, &create, 0).await;
    said(&serve, &["start", "next"], 0).await;
    let refused = said(&serve, &["delete", "next"], 6).await;
    assert!(refused.contains("crossfade rollback next"), "{refused}");
    said(&serve, &["rollback", "next"], 0).await;
    let delete = ["delete", "next", "--comment", "merged", "--request-id", "d-1"];
    said(&serve, &delete, 0).await;
    said(&serve, &delete, 0).await;
    said(&serve, &["status", "next"], 5).await;
    let refused = said(&serve, &["delete", "chat"], 6).await;
    assert!(refused.contains("configuration"), "{refused}");
    let metrics = serve.page("/metrics").await;
    assert!(metrics.contains("rollout=\"chat\"") && !metrics.contains("rollout=\"next\",state"));
    serve.kill().await;
    let serve = Serve::start(&world.dir.path().join("crossfade.toml")).await;
    until("the controller is up", || async { serve.cli(&["list"]).await.0 == 0 }).await;
    said(&serve, &["status", "next"], 5).await;
    said(&serve, &delete, 0).await;
    let events = said(&serve, &["events", "next"], 0).await;
    assert!(events.contains("deleted") && events.contains("merged"), "{events}");
    said(&serve, &create, 0).await;
    assert_eq!(serve.json(&["status", "next"]).await["state"], "STATE_PENDING");
}

/// V8 INV6
#[tokio::test]
async fn a_request_id_is_obeyed_once_also_across_a_restart() {
    let world = World::new().await;
    let serve = world.serve(LADDER).await;
    until("the controller is up", || async { serve.cli(&["list"]).await.0 == 0 }).await;
    let start = ["--request-id", "build-17", "start", "chat"];
    assert_eq!(serve.cli(&start).await.0, 0);
    assert_eq!(serve.cli(&start).await.0, 0);
    assert_eq!(serve.cli(&["rollback", "chat"]).await.0, 0);
    serve.kill().await;
    let serve = Serve::start(&world.dir.path().join("crossfade.toml")).await;
    until("the controller is up", || async { serve.cli(&["list"]).await.0 == 0 }).await;
    assert_eq!(serve.cli(&start).await.0, 0, "the same answer, and nothing done");
    assert_eq!(serve.json(&["status", "chat"]).await["state"], "STATE_ROLLED_BACK");
    let (code, text) = serve.cli(&["--request-id", "build-17", "pause", "chat"]).await;
    assert_eq!(code, 2, "{text}");
}

#[tokio::test]
async fn a_unix_socket_serves_the_same_and_other_addresses_are_refused() {
    let world = World::new().await;
    let socket = world.dir.path().join("control.sock");
    let text = world
        .config("")
        .replace("control = \"127.0.0.1:0\"", &format!("control = \"unix:{}\"", socket.display()));
    let file = world.dir.path().join("unix.toml");
    std::fs::write(&file, text).unwrap();
    let serve = Serve::start(&file).await;
    assert!(serve.control.starts_with("unix:"), "{}", serve.control);
    until("the controller is up", || async { serve.cli(&["list"]).await.0 == 0 }).await;
    let mode =
        std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&socket).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
}

/// C3
#[tokio::test]
async fn evidence_survives_a_restart_by_way_of_the_stored_pairs() {
    let world = World::new().await;
    let serve = world.serve(&rollout("0%", "100%")).await;
    let pairs = |status: &Value| {
        status["evidence"][0]["samples"].as_str().and_then(|it| it.parse::<u64>().ok()).unwrap_or(0)
    };
    let mut sent = 0;
    until("forty pairs count", || {
        sent += 10;
        let (world, serve) = (&world, &serve);
        async move {
            for index in sent..sent + 10 {
                serve.chat(world.body(index, Delivery::Whole), &[]).await;
            }
            40 <= pairs(&serve.json(&["status", "chat"]).await)
        }
    })
    .await;
    assert!(serve.stop().await.success(), "an orderly stop");
    let serve = Serve::start(&world.dir.path().join("crossfade.toml")).await;
    until("they count again", || async {
        let (code, text) = serve.cli(&["status", "chat", "-o", "json"]).await;
        code == 0 && 40 <= pairs(&serde_json::from_str(&text).unwrap())
    })
    .await;
}

#[tokio::test]
async fn c7_b67_a_second_process_on_one_store_serves_and_waits_for_the_first_to_end() {
    let world = World::new().await;
    let first = world.serve(LADDER).await;
    until("the controller is up", || async { first.cli(&["list"]).await.0 == 0 }).await;
    assert_eq!(first.cli(&["start", "chat"]).await.0, 0);
    let file = world.dir.path().join("crossfade.toml");
    let second = Serve::start(&file).await;
    let answer = second.chat(world.body(1, Delivery::Whole), &[]).await;
    assert_eq!((answer.status, answer.header("x-crossfade-provider")), (200, "primary"));
    let named = format!("in use by process {}", first.pid());
    until("it says what it waits for", || async {
        let ready = second.page("/readyz").await;
        ready.contains("degraded") && ready.contains(&named)
    })
    .await;
    for verb in ["pause", "rollback", "status"] {
        let (code, text) = second.cli(&[verb, "chat"]).await;
        assert!(code != 0 && text.contains(&named), "{verb}: {code}: {text}");
    }
    assert_eq!(first.json(&["status", "chat"]).await["state"], "STATE_RUNNING");
    first.kill().await;
    until("the second one takes over", || async {
        second.page("/readyz").await.contains("\"ready\"")
    })
    .await;
    assert_eq!(second.json(&["status", "chat"]).await["state"], "STATE_RUNNING");
    assert_eq!(second.cli(&["rollback", "chat"]).await.0, 0);
    let events = second.json_lines(&["events", "chat"]).await;
    assert_eq!(events.len(), 3, "{events:?}");
    second.chat(world.body(2, Delivery::Whole), &[]).await;
    assert!(second.stop().await.success(), "it ends as the first one would have");
}

#[tokio::test]
async fn a_second_process_says_why_it_cannot_take_over_and_tries_on() {
    let world = World::new().await;
    let first = world.serve(LADDER).await;
    until("the controller is up", || async { first.cli(&["list"]).await.0 == 0 }).await;
    let second = Serve::start(&world.dir.path().join("crossfade.toml")).await;
    let says = |what: &'static str| {
        let second = &second;
        move || async move { second.page("/readyz").await.contains(what) }
    };
    until("it waits", says("in use by")).await;
    let journal = world.dir.path().join("store").join("journal.log");
    let good = std::fs::read(&journal).unwrap();
    std::fs::write(&journal, b"not a journal at all").unwrap();
    first.kill().await;
    until("it says what is wrong", says("damaged at byte 0")).await;
    std::fs::write(&journal, good).unwrap();
    until("it takes over", says("\"ready\"")).await;
}

#[tokio::test]
async fn c4_b34_a_damaged_journal_serves_the_primary_and_controls_nothing() {
    let world = World::new().await;
    let store = world.dir.path().join("store");
    std::fs::create_dir_all(&store).unwrap();
    std::fs::write(store.join("journal.log"), b"not a journal at all").unwrap();
    let serve = world.serve(LADDER).await;
    let answer = serve.chat(world.body(1, Delivery::Whole), &[]).await;
    assert_eq!((answer.status, answer.header("x-crossfade-provider")), (200, "primary"));
    until("it says what is wrong", || async {
        let ready = serve.page("/readyz").await;
        ready.contains("degraded") && ready.contains("damaged at byte 0")
    })
    .await;
    let (code, text) = serve.cli(&["start", "chat"]).await;
    assert!(code != 0 && text.contains("damaged at byte 0"), "{code}: {text}");
    let kept = std::fs::read(store.join("journal.log")).unwrap();
    assert_eq!(kept, b"not a journal at all", "nothing is repaired by guessing");
}

const ASKING: &str = r#"
[rollout.chat]
candidate = "candidate"
gates = { error_rate = "+20pp", latency_p99 = "off", judge_score = "off" }
stage = [
  { name = "one", serve = "0%",  mirror = "100%", duration = "1s", samples = 20, approval = true },
  { name = "two", serve = "20%", mirror = "100%", duration = "1h", samples = 100 },
]
"#;

/// Starts `chat`, and asks until its first stage is proven and waits for an approval.
async fn until_it_asks(world: &World, serve: &Serve) {
    said(serve, &["start", "chat"], 0).await;
    until("it asks for an approval", || async {
        serve.chat(world.body(0, Delivery::Whole), &[]).await;
        serve.json(&["status", "chat"]).await["state"] == "STATE_AWAITING_APPROVAL"
    })
    .await;
}

/// V15, V16
#[tokio::test]
async fn an_approval_that_comes_again_passes_no_later_attempt() {
    let world = World::new().await;
    let serve = world.serve(ASKING).await;
    until("the controller is up", || async { serve.cli(&["list"]).await.0 == 0 }).await;
    until_it_asks(&world, &serve).await;
    let next = "crossfade approve chat one --attempt 1";
    assert!(said(&serve, &["status", "chat"], 0).await.contains(next));
    assert!(said(&serve, &["advance", "chat"], 6).await.contains(next));
    said(&serve, &["rollback", "chat"], 0).await;
    until_it_asks(&world, &serve).await;

    let first = said(&serve, &["approve", "chat", "one", "--attempt", "1"], 6).await;
    assert!(first.contains("attempt 1 is not the current one; that is 2"), "{first}");
    let approve = ["approve", "chat", "one", "--attempt", "2", "--request-id", "yes"];
    let stale = said(&serve, &[&approve[..], &["--etag", "1"]].concat(), 6).await;
    assert!(stale.contains("not 1"), "{stale}");
    let etag = serve.json(&["status", "chat"]).await["etag"].as_str().unwrap().to_owned();
    said(&serve, &[&approve[..], &["--etag", &etag]].concat(), 0).await;
    assert_eq!(serve.json(&["status", "chat"]).await["stageIndex"], 1);
    for verb in ["advance", "resume", "complete"] {
        let args = [verb, "chat", "--etag", &etag, "--comment", "why"];
        assert!(said(&serve, &args, 6).await.contains("look again"), "{verb}");
    }

    said(&serve, &["rollback", "chat"], 0).await;
    until_it_asks(&world, &serve).await;
    said(&serve, &approve, 0).await;
    let status = serve.json(&["status", "chat"]).await;
    let stands = (&status["attempt"], &status["state"]);
    assert_eq!(stands, (&3.into(), &"STATE_AWAITING_APPROVAL".into()), "it answers as before");
}

/// A plan that nobody can prove in a minute, unless a million requests come in it.
const HASTY: &str = r#"{
  "primary": "providers/primary", "candidate": "providers/candidate",
  "stages": [{
    "stageId": "shadow", "mirrorBps": 1, "minDuration": "1s", "maxDuration": "60s", "minSamples": 1,
    "gates": [{ "metric": "error_rate", "maxRegression": "+0.5pp" }]
  }]
}"#;

#[tokio::test]
async fn a_plan_that_cannot_be_proven_in_its_time_is_refused_once_traffic_tells() {
    let world = World::new().await;
    let wanted = "[rollout.wanted]\ncandidate = \"candidate\"\nslice = { features = [\"none\"] }\n\
        gates = { latency_p99 = \"off\", judge_score = \"off\" }\n\
        stage = [{ name = \"hasty\", serve = \"0%\", mirror = \"0.01%\", duration = \"1s\", \
        duration_max = \"1m\", samples = 1 }]\n";
    let serve = world.serve(wanted).await;
    until("the controller is up", || async { serve.cli(&["list"]).await.0 == 0 }).await;
    let file = world.dir.path().join("hasty.json");
    std::fs::write(&file, HASTY).unwrap();
    let create = |name| ["create", name, "--file", file.to_str().unwrap()];

    let unknown = said(&serve, &create("early"), 0).await;
    assert!(unknown.contains("too little traffic was seen"), "{unknown}");
    for index in 0..30 {
        serve.chat(world.body(index, Delivery::Whole), &[]).await;
    }
    let refused = said(&serve, &create("late"), 6).await;
    for part in ["`error_rate` of stage `shadow`", "at most 1m", "larger mirror share", "--force"] {
        assert!(refused.contains(part), "{part}: {refused}");
    }
    let refused = said(&serve, &["start", "early"], 6).await;
    assert!(refused.contains("crossfade start early --force"), "{refused}");

    let forced = said(&serve, &[&create("late")[..], &["--force"]].concat(), 0).await;
    assert!(forced.contains("longer than its max_duration"), "{forced}");
    let late = serve.json(&["status", "late"]).await;
    assert_eq!(late["forecasts"][0]["tooSlow"], true, "{late}");
    assert!(0.0 < late["requestsPerMinute"].as_f64().unwrap(), "{late}");
    said(&serve, &["start", "early", "--force"], 0).await;

    // What the configuration asks for is there all the same, and says so.
    until("what the configuration asks for is looked at", || async {
        serve.cli(&["status", "wanted"]).await.1.contains("plan        ‼ `error_rate` of `hasty`")
    })
    .await;
}
