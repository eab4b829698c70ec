//! People compare answers blind, by gRPC and at the command line, and what they say decides.

use std::{collections::HashSet, process::Stdio, time::Duration};

use crossfade::api::{Caller, Client, Failure, FailureKind, Message as _, proto};
use crossfade::players::Delivery;
use proto::{LeaseReviewResponse, submit_review_request::Preference};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    process::{Child, ChildStdin, ChildStdout, Command},
};

use crate::backtest::played;
use crate::world::{CANDIDATE, PRIMARY, Serve, World, until};

/// One stage that people alone decide, who are shown every pair of two different answers.
const SHADOW: &str = r#"
[rollout.chat]
candidate = "candidate"
autostart = true
review = "100%"
judge_share = "0%"
gates = { error_rate = "off", latency_p99 = "off", judge_score = "off", human_win_rate = ">= 45%" }
stage = [{ name = "shadow", serve = "0%", mirror = "100%", duration = "1h", samples = 1 }]
"#;

/// A class that only texts tell, for which the candidate is cleared and the store is not.
const CLASSES: &str = "[detect.eu]\npatterns = [\"email\"]\n";

/// Somebody who compares answers over gRPC.
#[derive(Clone)]
struct Reviewer {
    client: Client,
}

impl Reviewer {
    async fn new(serve: &Serve, name: &str) -> Self {
        let caller = Caller { actor: Some(name.to_owned()), timeout: Duration::from_secs(30) };
        Self { client: Client::connect(&serve.control, caller).await.unwrap() }
    }

    async fn try_lease(&mut self) -> LeaseReviewResponse {
        let parent = "rollouts/chat".to_owned();
        let request = proto::LeaseReviewRequest { parent, lease: None };
        self.client.lease_review(request).await.unwrap()
    }

    /// The next pair, once there is one.
    async fn lease(&mut self) -> LeaseReviewResponse {
        until("a pair waits", || async { !self.clone().try_lease().await.lease_id.is_empty() })
            .await;
        // It stays the same until it is answered.
        self.try_lease().await
    }

    async fn submit(
        &mut self,
        lease: &LeaseReviewResponse,
        preference: Preference,
    ) -> Result<proto::SubmitReviewResponse, Failure> {
        let request = proto::SubmitReviewRequest {
            lease_id: lease.lease_id.clone(),
            preference: preference.into(),
            comment: "because".to_owned(),
        };
        self.client.submit_review(request).await
    }

    async fn progress(&mut self) -> proto::ReviewProgress {
        let parent = "rollouts/chat".to_owned();
        let request = proto::GetReviewProgressRequest { parent };
        self.client.get_review_progress(request).await.unwrap()
    }
}

/// A tool call as the command line shows it.
fn calls(name: &str, arguments: &str) -> String {
    format!("→ {name}({arguments})")
}

/// The answers of the candidate, as the command line shows them.
fn own(world: &World) -> HashSet<String> {
    let answers = world.rows.iter().map(|row| {
        let own = &row.outputs[CANDIDATE];
        let call = own.tool_calls.first();
        call.map_or_else(|| own.text().to_owned(), |it| calls(&it.name, &it.arguments))
    });
    answers.collect()
}

/// Whether the candidate's answer stands first.
fn candidate_first(own: &HashSet<String>, lease: &LeaseReviewResponse) -> bool {
    let [a, b] = [&lease.answer_a, &lease.answer_b].map(|it| {
        let answer = it.as_ref().unwrap();
        let call = answer.tool_calls.first();
        let text = call.map_or_else(|| answer.text.clone(), |it| calls(&it.name, &it.arguments));
        own.contains(&text)
    });
    assert_ne!(a, b, "one of them is the candidate's: {lease:?}");
    a
}

/// Asks until so many different pairs are stored: every fifth request has the same answers.
async fn ask(world: &World, serve: &Serve, requests: std::ops::Range<usize>) {
    until("requests are copied", || async {
        serve.chat(world.body(4, Delivery::Whole), &[]).await;
        0 < world.candidate.stats().requests
    })
    .await;
    for index in requests {
        assert_eq!(serve.chat(world.body(index, Delivery::Whole), &[]).await.status, 200);
    }
    serve.is_quiet().await;
}

async fn gate(serve: &Serve) -> serde_json::Value {
    let status = serve.json(&["status", "chat"]).await;
    let gates = status["evidence"].as_array().unwrap();
    gates.iter().find(|it| it["metric"] == "human_win_rate").unwrap().clone()
}

fn samples(gate: &serde_json::Value) -> usize {
    gate["samples"].as_str().unwrap().parse().unwrap()
}

/// `crossfade review` with its keys in our hands.
struct AtKeys {
    child: Child,
    keys: ChildStdin,
    lines: tokio::io::Lines<BufReader<ChildStdout>>,
}

impl AtKeys {
    fn new(serve: &Serve, name: &str) -> Self {
        Self::called(serve, &["--actor", name])
    }

    /// With what is said of who sits there.
    fn called(serve: &Serve, who: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_crossfade"))
            .args(["--server", &serve.control])
            .args(who)
            .args(["review", "chat"])
            .env_remove("CROSSFADE_ACTOR")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let keys = child.stdin.take().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, keys, lines }
    }

    /// The two answers that are shown next.
    async fn shown(&mut self) -> [String; 2] {
        let mut answers = [String::new(), String::new()];
        let mut place = None;
        loop {
            let line = self.lines.next_line().await.unwrap().unwrap();
            match line.as_str() {
                "1" => place = Some(0),
                "2" => place = Some(1),
                line if line.starts_with("1 first better") => return answers,
                line => {
                    if let (Some(place), Some(text)) = (place, line.strip_prefix("  │ ")) {
                        answers[place].push_str(text);
                    }
                }
            }
        }
    }

    async fn press(&mut self, keys: &str) {
        self.keys.write_all(format!("{keys}\n").as_bytes()).await.unwrap();
    }

    /// Ends it; what it said last.
    async fn quit(mut self) -> String {
        self.press("q").await;
        drop(self.keys);
        let mut last = String::new();
        while let Some(line) = self.lines.next_line().await.unwrap() {
            last.push_str(&line);
            last.push('\n');
        }
        assert!(self.child.wait().await.unwrap().success(), "{last}");
        last
    }
}

#[tokio::test]
async fn a_candidate_that_people_dislike_is_sent_back_by_two_reviewers_at_grpc_and_keys() {
    let world = World::new().await;
    let serve = world.serve(SHADOW).await;
    let own = own(&world);
    ask(&world, &serve, 0..160).await;
    let mut ana = Reviewer::new(&serve, "ana").await;
    let mut ben = AtKeys::new(&serve, "ben");
    let mut said = 0;
    let over = async || serve.json(&["status", "chat"]).await["state"] != "STATE_RUNNING";
    until("a pair waits", || async { 100 < ana.clone().progress().await.waiting }).await;
    while !over().await {
        let lease = ana.try_lease().await;
        if lease.lease_id.is_empty() {
            assert!(lease.not_given.contains("not under way"), "{lease:?}");
            break;
        }
        let worse = candidate_first(&own, &lease);
        ana.submit(&lease, if worse { Preference::B } else { Preference::A }).await.unwrap();
        let [first, second] = tokio::select! {
            shown = ben.shown() => shown,
            () = until("it is over", &over) => break,
        };
        let worse = own.contains(&first);
        assert_ne!(worse, own.contains(&second), "{first} {second}");
        ben.press(if worse { "2 the first is rude" } else { "1" }).await;
        said += 2;
        assert!(said < 120, "{}", gate(&serve).await);
    }
    until("it is over", over).await;
    let last = ben.quit().await;
    assert!(last.contains("the candidate wins 0.0% of them"), "{last}");
    let status = serve.json(&["status", "chat"]).await;
    assert_eq!(status["state"], "STATE_ROLLED_BACK");
    assert_eq!(status["reason"]["metric"], "human_win_rate");
    let gate = gate(&serve).await;
    assert_eq!((&gate["candidateValue"], &gate["primaryValue"]), (&0.0.into(), &1.0.into()));
    let lease = ana.try_lease().await;
    // She has one in hands since, or nothing is to be shown.
    assert!(lease.not_given.contains("not under way") || lease.lease_id.len() == 36, "{lease:?}");
    assert!(serve.stop().await.success());
    let again = played(&world.dir.path().join("store"), &[]).await;
    assert_eq!(
        (&again["outcome"], &again["gate"]),
        (&"rolled_back".into(), &"human_win_rate".into())
    );
}

/// INV6
#[tokio::test]
async fn nothing_that_was_answered_is_lost_by_a_kill_and_an_equal_candidate_stays() {
    let world = World::new().await;
    let serve = world.serve(SHADOW).await;
    let own = own(&world);
    ask(&world, &serve, 0..120).await;
    let mut said = 0_i64;
    let answer = async |ana: &mut Reviewer, said: &mut i64| {
        let lease = ana.lease().await;
        // One of two for each side, wherever it stands.
        let first = candidate_first(&own, &lease) == (*said % 2 == 0);
        ana.submit(&lease, if first { Preference::A } else { Preference::B }).await.unwrap();
        *said += 1;
    };
    let mut ana = Reviewer::new(&serve, "ana").await;
    until("its pairs are stored", || async { 90 < ana.clone().progress().await.waiting }).await;
    for _ in 0..25 {
        answer(&mut ana, &mut said).await;
    }
    let held = ana.lease().await;
    serve.kill().await;

    let serve = Serve::start(&world.dir.path().join("crossfade.toml")).await;
    until("the controller is up", || async { serve.cli(&["list"]).await.0 == 0 }).await;
    let mut ana = Reviewer::new(&serve, "ana").await;
    assert_eq!(ana.progress().await.reviewed, said);
    // How many wait besides depends on what was stored meanwhile.
    let again = LeaseReviewResponse { waiting: held.waiting, ..ana.lease().await };
    assert_eq!(again, held, "what she had in hands she still has");
    until("all but the last are evidence", || async { samples(&gate(&serve).await) == 24 }).await;
    ana.submit(&held, Preference::BothGood).await.unwrap();
    said += 1;
    while said < 60 {
        answer(&mut ana, &mut said).await;
    }
    until("all but the last are evidence", || async { samples(&gate(&serve).await) == 59 }).await;
    let status = serve.json(&["status", "chat"]).await;
    assert_eq!(status["state"], "STATE_RUNNING", "{status}");
    let gate = gate(&serve).await;
    assert!((gate["candidateValue"].as_f64().unwrap() - 0.5).abs() < 0.05, "{gate}");
    // Every answer is another pair.
    assert_eq!(ana.progress().await.reviewed, said);
}

#[tokio::test]
async fn nothing_that_is_shown_says_whose_it_is_and_nobody_sees_a_pair_twice() {
    let world = World::new().await;
    let serve = world.serve(SHADOW).await;
    let own = own(&world);
    ask(&world, &serve, 0..40).await;
    let names = serve.json_lines(&["pairs", "chat", "--limit", "1000"]).await;
    let id = |it: &serde_json::Value| {
        it["name"].as_str().unwrap().rsplit('/').next().unwrap().to_owned()
    };
    let ids: Vec<String> = names.iter().map(id).collect();
    let mut ana = Reviewer::new(&serve, "ana").await;
    until("its pairs are stored", || async { 31 < ana.clone().progress().await.waiting }).await;
    let (mut seen, mut first) = (HashSet::new(), 0);
    for number in 0..32 {
        let lease = ana.lease().await;
        assert_eq!(ana.lease().await.lease_id, lease.lease_id, "until it is answered it stays");
        let bytes = String::from_utf8_lossy(&lease.encode_to_vec()).to_lowercase();
        let said = [PRIMARY, CANDIDATE, "primary", "candidate", "provider", "model", "call_"];
        for trace in said.into_iter().chain(ids.iter().map(String::as_str)) {
            assert!(!bytes.contains(trace), "{trace} in {bytes}");
        }
        assert!(lease.question.contains("order"), "{lease:?}");
        assert!(seen.insert(lease.question.clone()), "shown twice: {lease:?}");
        first += usize::from(candidate_first(&own, &lease));
        let skip = if number % 4 == 0 { Preference::Skip } else { Preference::BothBad };
        ana.submit(&lease, skip).await.unwrap();
    }
    assert!((4..=28).contains(&first), "the candidate stood first {first} of 32 times");
    let none = ana.try_lease().await;
    assert!(none.not_given.contains("no pair waits"), "{none:?}");
    let progress = ana.progress().await;
    assert_eq!((progress.reviewed, progress.waiting), (24, 0));
    // What she passed over is for others, and some of what she answered for a second opinion.
    let mut ben = Reviewer::new(&serve, "ben").await;
    let waiting = ben.progress().await.waiting;
    assert!(8 < waiting, "{waiting}");
    let lease = ben.lease().await;
    let failure = ana.submit(&lease, Preference::A).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Forbidden, "{failure}");
    for wrong in [Preference::Unspecified, Preference::A] {
        let unknown = LeaseReviewResponse {
            lease_id: "0192f0c1-2345-7abc-8def-0123456789ab".to_owned(),
            ..Default::default()
        };
        let failure = ana.submit(&unknown, wrong).await.unwrap_err();
        assert!(matches!(failure.kind, FailureKind::Usage | FailureKind::NotFound), "{failure}");
    }
}

#[tokio::test]
async fn the_last_answer_can_be_taken_back_at_the_keys_and_only_the_last() {
    let world = World::new().await;
    let serve = world.serve(SHADOW).await;
    ask(&world, &serve, 0..20).await;
    let mut ana = Reviewer::new(&serve, "ana").await;
    until("its pairs are stored", || async { 15 < ana.clone().progress().await.waiting }).await;
    let mut keys = AtKeys::new(&serve, "ana");
    let first = keys.shown().await;
    keys.press("1").await;
    let second = keys.shown().await;
    assert_ne!(first, second);
    keys.press("u").await;
    assert_eq!(keys.shown().await, first);
    keys.press("3").await;
    assert_eq!(keys.shown().await, second, "and on with the next");
    keys.press("nonsense").await;
    keys.press("4").await;
    keys.shown().await;
    let last = keys.quit().await;
    assert!(last.contains("2 reviewed") && last.contains("wins 50.0% of them"), "{last}");

    let one = ana.lease().await;
    ana.submit(&one, Preference::A).await.unwrap();
    ana.submit(&one, Preference::A).await.unwrap();
    ana.submit(&one, Preference::B).await.unwrap();
    let next = ana.lease().await;
    ana.submit(&next, Preference::Skip).await.unwrap();
    let failure = ana.submit(&one, Preference::A).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Precondition, "{failure}");
    ana.submit(&one, Preference::B).await.unwrap();
}

#[tokio::test]
async fn pairs_whose_texts_may_not_be_kept_are_never_shown() {
    let world = World::new().await;
    let serve = world.serve(&format!("{SHADOW}{CLASSES}")).await;
    ask(&world, &serve, 0..10).await;
    let hidden = |index: usize| {
        let body = String::from_utf8(world.body(index, Delivery::Whole)).unwrap();
        body.replacen("(order", "of ann@example.com (order", 1).into_bytes()
    };
    for index in 10..30 {
        serve.chat(hidden(index), &[]).await;
    }
    ask(&world, &serve, 30..40).await;
    let mut ana = Reviewer::new(&serve, "ana").await;
    until("the last are stored", || async { 16 <= ana.clone().progress().await.waiting }).await;
    assert_eq!(ana.progress().await.waiting, 16);
    for _ in 0..16 {
        let lease = ana.lease().await;
        assert!(!lease.question.contains("ann@") && lease.question.contains("order"), "{lease:?}");
        ana.submit(&lease, Preference::BothGood).await.unwrap();
    }
    assert_eq!(ana.try_lease().await.lease_id, "");
}

#[tokio::test]
async fn the_judge_is_held_against_people() {
    let world = World::new().await;
    let judged = SHADOW
        .replace("judge_share = \"0%\"\n", "")
        .replace("judge_score = \"off\"", "judge_score = \">= 50%\"");
    let serve = world.serve(&judged).await;
    ask(&world, &serve, 0..60).await;
    let mut ana = Reviewer::new(&serve, "ana").await;
    until("they are judged", || async { 40 < ana.clone().progress().await.waiting }).await;
    for _ in 0..30 {
        let lease = ana.lease().await;
        ana.submit(&lease, Preference::A).await.unwrap();
    }
    let progress = ana.progress().await;
    let judge = progress.judge.unwrap();
    assert_eq!((judge.pairs, progress.reviewed), (30, 30));
    // Whoever prefers what stands first agrees with nobody but by chance.
    assert!(judge.kappa.unwrap().abs() < 0.6, "{judge:?}");
    let (code, text) = serve.cli(&["explain", "chat"]).await;
    assert!(code == 0 && text.contains("agreement with the judge: "), "{text}");
    let shown = serve.json(&["review", "chat", "--progress"]).await;
    assert_eq!(shown["reviewed"], "30");
    // What she said stands beside what the judge said.
    let pairs = serve.json_lines(&["pairs", "chat", "--limit", "1000"]).await;
    let judged = |it: &serde_json::Value| it["judgements"][0]["primaryScore"].is_f64();
    assert!(pairs.iter().any(judged), "a list has the marks too: a report names the worst by them");
    let ids = pairs.iter().map(|it| it["name"].as_str().unwrap().rsplit('/').next().unwrap());
    let mut said = 0;
    for id in ids {
        let pair = serve.json(&["pair", id]).await;
        for comparison in pair["comparisons"].as_array().into_iter().flatten() {
            said += 1;
            assert_eq!(
                (&comparison["reviewer"], &comparison["comment"]),
                (&"ana".into(), &"because".into())
            );
            assert!(
                comparison["choice"] == "CHOICE_PRIMARY"
                    || comparison["choice"] == "CHOICE_CANDIDATE"
            );
            let (_, text) = serve.cli(&["pair", id]).await;
            assert!(
                text.contains("answer is better   (ana)") && text.contains("because"),
                "{text}"
            );
            assert!(text.contains("judged "), "{text}");
        }
    }
    assert_eq!(said, 30);
}

#[tokio::test]
async fn two_who_do_not_say_who_they_are_do_not_take_pairs_from_each_other() {
    let world = World::new().await;
    let serve = world.serve(SHADOW).await;
    ask(&world, &serve, 0..60).await;
    let mut waits = Reviewer::new(&serve, "ana").await;
    until("pairs wait", || async { 10 < waits.clone().progress().await.waiting }).await;
    let (mut one, mut other) = (AtKeys::called(&serve, &[]), AtKeys::called(&serve, &[]));
    for _ in 0..3 {
        one.shown().await;
        other.shown().await;
        one.press("1").await;
        other.press("2").await;
    }
    one.quit().await;
    other.quit().await;
    // Some pairs are shown to a second reviewer too; no answer has taken another's place.
    let progress = waits.progress().await;
    assert_eq!(progress.reviewed + progress.second_reviewer.unwrap().pairs, 6);
}
