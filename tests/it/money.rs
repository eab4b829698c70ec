//! Money: what copies and scores cost, and budgets that stop them before they cost more.

use std::fmt::Write as _;

use crossfade::{domain::Share, players::Delivery};

use crate::world::{Serve, World, rollout, slow, until};

/// What a token costs here, in dollars: so much that a dollar is soon spent.
const INPUT_USD: f64 = 100e-6;
const OUTPUT_USD: f64 = 200e-6;
/// Callers who ask at the same time.
const CALLERS: usize = 16;

/// Prices of both providers, then a rollout that copies everything, with these keys of its own.
fn priced(keys: &str) -> String {
    let mut text = String::new();
    for name in ["primary", "candidate"] {
        let price = format!("[provider.{name}.price.\"*\"]\ninput = \"100\"\noutput = \"200\"\n");
        text.push_str(&price);
    }
    write!(text, "{}", rollout("0%", "100%").replace("autostart", &format!("{keys}\nautostart")))
        .unwrap();
    text
}

fn usd(usage: &serde_json::Value) -> f64 {
    let tokens = |key: &str| usage[key].as_str().unwrap().parse::<f64>().unwrap();
    tokens("inputTokens") * INPUT_USD + tokens("outputTokens") * OUTPUT_USD
}

/// What copies and scores cost so far, as the program sees it.
async fn spent(serve: &Serve) -> f64 {
    let nano = &serve.json(&["status", "chat"]).await["spending"]["totalNanoUsd"];
    nano.as_str().unwrap().parse::<f64>().unwrap() * 1e-9
}

/// Callers who ask all at once and again, until the budget stops the copies; each gets the
/// primary's answer.
async fn ask_until_spent(world: &World, serve: &Serve, reason: &str) {
    let (body, series) =
        (world.body(0, Delivery::Whole), "crossfade_mirror_skipped_total{reason=\"budget\"}");
    let right = serve.chat(body.clone(), &[]).await.json()["choices"].clone();
    until("the budget is spent", || async {
        let asks = (0..CALLERS).map(|_| serve.chat(body.clone(), &[]));
        for answer in futures(asks).await {
            assert_eq!(answer.status, 200);
            assert_eq!(answer.header("x-crossfade-provider"), "primary");
            assert_eq!(answer.json()["choices"], right);
        }
        0.5 < serve.metric(series).await && told(serve).await.contains(reason)
    })
    .await;
    serve.is_quiet().await;
}

async fn told(serve: &Serve) -> String {
    serve.cli(&["status", "chat"]).await.1
}

/// Drives all at once.
async fn futures<F: Future>(asks: impl Iterator<Item = F>) -> Vec<F::Output> {
    let mut asks: Vec<_> = asks.map(|it| (Box::pin(it), None)).collect();
    std::future::poll_fn(|context| {
        for (ask, answer) in &mut asks {
            if answer.is_none()
                && let std::task::Poll::Ready(it) = ask.as_mut().poll(context)
            {
                *answer = Some(it);
            }
        }
        let done = asks.iter().all(|(_, answer)| answer.is_some());
        if done { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
    asks.into_iter().filter_map(|(_, answer)| answer).collect()
}

#[tokio::test]
async fn a_budget_of_a_dollar_stops_the_mirror_at_a_dollar_to_within_one_call() {
    let world = World::with(|_, candidate| candidate.latency = slow(20)).await;
    let keys = "judge_share = \"0%\"\nbudget = { per_day = \"$1\", total = \"$3\" }";
    let serve = world.serve(&priced(keys)).await;
    ask_until_spent(&world, &serve, "the day's $1 of this rollout are spent").await;
    // What each copy cost, by what the candidate says it used.
    let pairs = serve.json_lines(&["pairs", "chat", "--limit", "1"]).await;
    let each = usd(&pairs[0]["candidate"]["usage"]);
    assert!(0.001 < each && each < 0.1, "{each}");
    let requests = world.candidate.stats().requests;
    let copies = f64::from(u32::try_from(requests).unwrap());
    let cost = copies * each;
    assert!((1.0..1.0 + each).contains(&(cost + 1e-9)), "{copies} copies of {each} are {cost}");
    assert!((spent(&serve).await - cost).abs() < 1e-6, "{} is not {cost}", spent(&serve).await);
    let counted = serve.metric("crossfade_spent_usd_total{rollout=\"chat\",kind=\"mirror\"}").await;
    assert!((counted - cost).abs() < 1e-6, "{counted} is not {cost}");
    // The stage holds, and both say why; and callers still get their answers.
    let (_, explained) = serve.cli(&["explain", "chat"]).await;
    assert!(explained.contains("it goes on tomorrow (UTC)"), "{explained}");
    assert!(told(&serve).await.contains("of $1 today"), "{}", told(&serve).await);

    assert!(serve.stop().await.success());
    let serve = world.serve(&priced(keys)).await;
    until("it is still spent", || async { told(&serve).await.contains("$1 of this rollout") })
        .await;
    for index in 0..20 {
        assert_eq!(serve.chat(world.body(index, Delivery::Whole), &[]).await.status, 200);
    }
    serve.is_quiet().await;
    assert_eq!(world.candidate.stats().requests, requests);
    let answer = serve.chat(world.body(1, Delivery::Whole), &[]).await;
    let id = answer.header("x-crossfade-request-id");
    until("it is told why it is not copied", || async {
        let (_, text) = serve.cli(&["explain", "--request", id]).await;
        text.contains("the budget for copies and scores was spent")
    })
    .await;
}

#[tokio::test]
async fn a_kill_forgets_no_more_than_one_call_of_what_was_spent() {
    const KILLS: usize = 3;
    let world = World::with(|_, candidate| candidate.latency = slow(5)).await;
    let keys = priced("judge_share = \"0%\"\nbudget = { per_day = \"$3\" }");
    let mut body: serde_json::Value =
        serde_json::from_slice(&world.body(0, Delivery::Whole)).unwrap();
    // So little that what is under way at a kill leaves something for the next time.
    body["max_tokens"] = 100.into();
    let body = body.to_string().into_bytes();
    let mut copies = 0;
    for _ in 0..KILLS {
        let serve = world.serve(&keys).await;
        until("something more is copied", || async {
            let asks = (0..4).map(|_| serve.chat(body.clone(), &[]));
            assert!(futures(asks).await.iter().all(|it| it.status == 200));
            copies < world.candidate.stats().requests
        })
        .await;
        copies = world.candidate.stats().requests;
        serve.kill().await;
    }
    let serve = world.serve(&keys).await;
    until("the budget is spent", || async {
        let _ = serve.chat(body.clone(), &[]).await;
        told(&serve).await.contains("the day's $3 of this rollout are spent")
    })
    .await;
    serve.is_quiet().await;
    let pairs = serve.json_lines(&["pairs", "chat", "--limit", "1"]).await;
    let each = usd(&pairs[0]["candidate"]["usage"]);
    let copies = f64::from(u32::try_from(world.candidate.stats().requests).unwrap());
    // Each kill forgets one call at most: that which went beyond what was kept.
    let forgotten = f64::from(u32::try_from(KILLS).unwrap()) * each;
    assert!(copies * each < 3.0 + forgotten + each, "{copies} copies of {each}");
    assert!(copies * each < spent(&serve).await + forgotten + 1e-6, "{copies} copies of {each}");
    assert!(1.0 < copies * each, "{copies} copies of {each}: killed too dear");
}

#[tokio::test]
async fn what_the_judge_costs_is_paid_from_the_same_budget() {
    let world = World::new().await;
    let judge = "[judge.price.judge]\ninput = \"100\"\noutput = \"200\"\n";
    let more = format!("{judge}{}[budget]\nper_day = \"$1\"\n", priced(""));
    let serve = world.serve(&more).await;
    ask_until_spent(&world, &serve, "the day's $1 of all rollouts are spent").await;
    let of = async |kind: &str| {
        serve
            .metric(&format!("crossfade_spent_usd_total{{rollout=\"chat\",kind=\"{kind}\"}}"))
            .await
    };
    until("scores under way have ended", || async {
        (of("mirror").await + of("judge").await - spent(&serve).await).abs() < 1e-6
    })
    .await;
    let (mirror, judge, spent) = (of("mirror").await, of("judge").await, spent(&serve).await);
    assert!(0.0 < mirror && 0.0 < judge, "{mirror} {judge}");
    // A score is the dearest single call here.
    assert!((0.999_999..1.2).contains(&spent), "{mirror} + {judge} = {spent}");
}

#[tokio::test]
async fn with_the_money_spent_a_candidate_that_serves_is_watched_and_sent_back() {
    let failing = Share::from_basis_points(1_500).unwrap();
    let world = World::with(|_, candidate| candidate.errors = failing).await;
    let keys = "judge_share = \"0%\"\nbudget = { per_day = \"$0.001\" }";
    let serve = world.serve(&priced(keys).replace("serve = \"0%\"", "serve = \"50%\"")).await;
    let mut asked = 0;
    until("it is sent back", || {
        let indexes = asked..asked + CALLERS;
        asked += CALLERS;
        let (world, serve) = (&world, &serve);
        async move {
            let asks = indexes.map(|it| serve.chat(world.body(it, Delivery::Whole), &[]));
            assert!(futures(asks).await.iter().all(|it| it.status == 200));
            serve.json(&["status", "chat"]).await["reason"]["code"] == "GATE_BREACHED"
        }
    })
    .await;
    serve.is_quiet().await;
    let status = serve.json(&["status", "chat"]).await;
    let count = |key: &str| status[key].as_str().map_or(0, |it| it.parse::<u64>().unwrap());
    assert!(count("pairs") < 50 && 50 < count("solos"), "{status:#}");
}

#[tokio::test]
async fn copies_that_wait_for_what_is_set_aside_are_missing_and_that_is_told() {
    let world = World::with(|_, candidate| candidate.latency = slow(200)).await;
    let keys = "judge_share = \"0%\"\nbudget = { per_day = \"$5\" }";
    let serve = world.serve(&priced(keys)).await;
    let body = String::from_utf8(world.body(0, Delivery::Whole)).unwrap();
    let body = body.replacen('{', "{\"max_tokens\":1000000000,", 1).into_bytes();
    until("it is told", || async {
        let asks = (0..CALLERS).map(|_| serve.chat(body.clone(), &[]));
        assert!(futures(asks).await.iter().all(|it| it.status == 200));
        told(&serve).await.contains("copies that were due never became a pair")
    })
    .await;
    serve.is_quiet().await;
    let spent = spent(&serve).await;
    assert!(0.0 < spent && spent < 5.0, "{spent}");
}
