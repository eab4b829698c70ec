//! Backtests: what a store remembers gives the decision that was taken live, and others.

use std::{fs, net::SocketAddr, path::Path, time::UNIX_EPOCH};

use bytes::Bytes;
use crossfade::domain::{Seen, Share, Window};
use crossfade::players::{Delivery, Latency};
use crossfade::store::{Limits, Pairs};
use http_body_util::Full;
use hyper::Request;
use serde_json::Value;
use tokio::{process::Command, time::Instant};

use crate::world::{SOON, Serve, World, http, until, whole};

/// Two short stages with one gate, all of the traffic in pairs.
fn ladder(margin: &str) -> String {
    format!(
        "[rollout.chat]\ncandidate = \"candidate\"\nautostart = true\nmirror = \"100%\"\n\
         gates = {{ error_rate = \"{margin}\", latency_p99 = \"off\", judge_score = \"off\" }}\n\
         stage = [\n  {{ name = \"shadow\", serve = \"0%\", duration = \"1s\", samples = 50 }},\n  \
         {{ name = \"full\", serve = \"100%\", duration = \"1s\", samples = 50 }},\n]\n"
    )
}

/// Sends requests one after the other until the rollout has ended. Its state and last event.
async fn play(world: &World, serve: &Serve) -> (String, Value) {
    play_some(world, serve, |index| (index, "text")).await
}

/// The same with the requests of these numbers, each of this task.
async fn play_some(
    world: &World,
    serve: &Serve,
    request: impl Fn(usize) -> (usize, &'static str),
) -> (String, Value) {
    let ends = Instant::now() + SOON;
    for index in 0.. {
        let (number, task) = request(index);
        serve.chat(world.body(number, Delivery::Whole), &[("x-crossfade-task", task)]).await;
        if index % 20 > 0 {
            continue;
        }
        let rollout = serve.json(&["status", "chat"]).await;
        assert!(Instant::now() < ends, "{rollout}");
        let state = rollout["state"].as_str().unwrap().to_owned();
        if state == "STATE_ROLLED_BACK" || state == "STATE_SUCCEEDED" {
            let events = serve.json_lines(&["events", "chat"]).await;
            return (state, events.last().unwrap().clone());
        }
    }
    unreachable!("the range has no end")
}

async fn backtest(store: &Path, more: &[&str]) -> (i32, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_crossfade"))
        .args(["simulate", "--pairs", "rollouts/chat", "-o", "json", "--store"])
        .arg(store)
        .args(more)
        .output()
        .await
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    (output.status.code().unwrap(), text)
}

pub(crate) async fn played(store: &Path, more: &[&str]) -> Value {
    let (code, text) = backtest(store, more).await;
    assert_eq!(code, 0, "{text}");
    serde_json::from_str(&text).unwrap()
}

/// The pair by which a stage was proven broken live, by what is stored alone: as many counted up to
/// it as the event knew, it was told before the event, and the next one was not.
fn broken_by(store: &Path, event: &Value) -> String {
    let limits =
        Limits { bytes_max: u64::MAX, age_ms_max: u64::MAX, free_bytes_min: 0, queue_len_max: 1 };
    let (mut told, window) =
        (Vec::new(), Window { rollout: "chat".parse().unwrap(), attempt: 1, stage: 0 });
    let mut each = |seen| {
        if let Seen::Pair(pair) = seen {
            told.push((pair.order.unwrap(), pair.id));
        }
    };
    Pairs::open(store, limits).unwrap().of_window(&window, &mut each).unwrap();
    told.sort_by_key(|it| it.0);
    let known = event["evidence"][0]["samples"].as_str().unwrap().parse::<usize>().unwrap();
    let at = humantime::parse_rfc3339(event["createTime"].as_str().unwrap()).unwrap();
    let at = u64::try_from(at.duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap();
    let (last, id) = told[known - 1];
    assert!(last.at.0 <= at, "{event}");
    assert!(told.get(known).is_none_or(|(next, _)| at <= next.at.0), "{event}");
    id.to_string()
}

#[tokio::test]
async fn a_backtest_rolls_back_by_the_pair_that_did_it_live() {
    let world = World::with(|_, candidate| {
        candidate.errors = Share::from_basis_points(1_500).unwrap();
    })
    .await;
    let serve = world.serve(&ladder("+0.5pp")).await;
    let store = world.dir.path().join("store");
    let (state, event) = play(&world, &serve).await;
    assert_eq!(state, "STATE_ROLLED_BACK");

    let (code, text) = backtest(&store, &[]).await;
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("in use") && text.contains("segments"), "{text}");
    assert!(serve.stop().await.success());

    let own = played(&store, &[]).await;
    let step = own["steps"].as_array().unwrap().last().unwrap();
    assert_eq!((&own["outcome"], &own["gate"]), (&"rolled_back".into(), &"error_rate".into()));
    assert_eq!((&step["step"], &step["stage"]), (&"rolled_back".into(), &"shadow".into()));
    assert!(step["pair"].is_string(), "{own}");
    let live = event["evidence"][0]["samples"].as_str().unwrap().parse::<u64>().unwrap();
    let again = step["pairs"].as_u64().unwrap();
    assert_eq!(again, live, "{own}");
    assert_eq!(step["pair"], broken_by(&store, &event), "{own}");

    let file = world.dir.path().join("wide.toml");
    fs::write(&file, ladder("+60pp")).unwrap();
    let wide = played(&store, &["--plan", file.to_str().unwrap()]).await;
    assert_ne!(wide["outcome"], "rolled_back", "{wide}");
    assert!(again <= wide["pairs"].as_u64().unwrap(), "{wide}");
}

#[tokio::test]
async fn a_backtest_takes_the_steps_that_were_taken_live() {
    let world = World::new().await;
    let serve = world.serve(&ladder("+10pp")).await;
    let store = world.dir.path().join("store");
    let (state, _) = play(&world, &serve).await;
    assert_eq!(state, "STATE_SUCCEEDED");
    assert!(serve.stop().await.success());
    let own = played(&store, &["--attempt", "1"]).await;
    assert_eq!(own["outcome"], "succeeded", "{own}");
    let steps: Vec<&str> =
        own["steps"].as_array().unwrap().iter().map(|it| it["step"].as_str().unwrap()).collect();
    assert_eq!(steps, ["advanced", "succeeded"], "{own}");

    let (code, text) = backtest(&store, &["--attempt", "2"]).await;
    assert_eq!(code, 5, "{text}");
    let (code, text) = backtest(&world.dir.path().join("nowhere"), &[]).await;
    assert!(code == 1 && text.contains("--store"), "{text}");
}

#[tokio::test]
async fn a_backtest_knows_at_each_step_what_was_known_live() {
    let world = World::with(|_, candidate| {
        // Copies come late, and many are under way when a stage is left.
        candidate.latency = Latency::Spread { median_ms: 40, sigma: 0.8 };
    })
    .await;
    let serve = world.serve(&ladder("+40pp")).await;
    let store = world.dir.path().join("store");
    let caller = || play(&world, &serve);
    let states = tokio::join!(caller(), caller(), caller(), caller());
    assert_eq!(states.0.0, "STATE_SUCCEEDED", "{states:?}");
    let events = serve.json_lines(&["events", "chat"]).await;
    assert!(serve.stop().await.success());

    let own = played(&store, &[]).await;
    assert_eq!((&own["outcome"], &own["notes"]), (&"succeeded".into(), &Value::Array(vec![])));
    let decided =
        events.iter().filter(|it| it["evidence"].as_array().is_some_and(|it| !it.is_empty()));
    let decided: Vec<&Value> = decided.collect();
    let steps = own["steps"].as_array().unwrap();
    assert_eq!(decided.len(), steps.len(), "{own} {events:?}");
    for (step, event) in steps.iter().zip(decided) {
        // What was told while the step was being written counted in the stage that it left.
        let live = event["evidence"][0]["samples"].as_str().unwrap().parse::<u64>().unwrap();
        assert!(live <= step["pairs"].as_u64().unwrap(), "{own} {events:?}");
        assert_eq!(step["at"].as_str().unwrap()[..19], event["createTime"].as_str().unwrap()[..19]);
    }
}

/// Requests of which this provider fails the first kind and answers the second, by number.
async fn sorted(world: &World, address: SocketAddr) -> [Vec<usize>; 2] {
    let mut sorted = [Vec::new(), Vec::new()];
    for number in 0..world.rows.len() {
        let body = Full::new(Bytes::from(world.body(number, Delivery::Whole)));
        let request = Request::post(format!("http://{address}/v1/chat/completions")).body(body);
        let answer = whole(http().request(request.unwrap()).await.unwrap()).await;
        sorted[usize::from(answer.status == 200)].push(number);
    }
    sorted
}

#[tokio::test]
async fn a_slice_that_breaks_under_a_good_average_goes_back_by_name_live_and_in_a_backtest() {
    let world = World::with(|_, candidate| {
        candidate.errors = Share::from_basis_points(1_000).unwrap();
    })
    .await;
    let [failing, answered] = sorted(&world, world.candidate.address()).await;
    let slices = "slices = { by = \"task\", values = [\"text\", \"tools\"] }\nautostart";
    // So many pairs that no stage is left before the slice has broken.
    let patient = ladder("+50pp").replace("samples = 50", "samples = 5000");
    let serve = world.serve(&patient.replace("autostart", slices)).await;
    // One request in eight is a tool call, of which none succeeds.
    let (state, event) = play_some(&world, &serve, |index| {
        let (kind, task) = if index % 8 == 7 { (&failing, "tools") } else { (&answered, "text") };
        (kind[index / 8 % kind.len()], task)
    })
    .await;
    assert_eq!(state, "STATE_ROLLED_BACK");
    assert_eq!(event["reason"]["slice"], "tools", "{event}");
    assert_eq!(event["evidence"][2]["slice"], "tools", "{event}");
    assert_ne!(event["evidence"][0]["verdict"], "VERDICT_BREACH", "{event}");
    let (_, events) = serve.cli(&["events", "chat"]).await;
    assert!(events.contains("GATE_BREACHED  error_rate in tools"), "{events}");
    let (_, explained) = serve.cli(&["explain", "chat"]).await;
    assert!(explained.contains("error_rate in slice `tools` +100.000 pp"), "{explained}");
    let series = "crossfade_gate_verdict{rollout=\"chat\",gate=\"error_rate\",slice=\"tools\"";
    let breach = format!("{series},verdict=\"breach\"}}");
    until("its gauge says so", || async { 0.5 < serve.metric(&breach).await }).await;
    assert!(serve.stop().await.success());

    let store = world.dir.path().join("store");
    let own = played(&store, &[]).await;
    assert!(own["why"].as_str().unwrap().starts_with("error_rate in slice `tools`: "), "{own}");
    let samples = event["evidence"][2]["samples"].as_str().unwrap();
    assert!(own["why"].as_str().unwrap().contains(&format!("n={samples};")), "{own} {event}");

    let file = world.dir.path().join("other.toml");
    fs::write(&file, ladder("+50pp").replace("autostart", &slices.replace("tools", "code")))
        .unwrap();
    let other = played(&store, &["--plan", file.to_str().unwrap()]).await;
    assert_ne!(other["outcome"], "rolled_back", "{other}");
    let left_out = "slices that were not watched when this was recorded are left out: code";
    assert_eq!(other["notes"][0], left_out, "{other}");
}
