//! The usage audit: what is asked is counted, governed or not, and told as figures and documents.

use std::collections::BTreeMap;

use crossfade::players::Delivery;

use crate::world::{Answer, PRIMARY, Serve, World, rollout, until};

/// The program, which looks at everything and knows a price.
async fn serve(world: &World, more: &str) -> Serve {
    let price = "[provider.primary.price.\"*\"]\ninput = \"2\"\noutput = \"8\"\n";
    let file = world.dir.path().join("crossfade.toml");
    let text = format!("audit = \"100%\"\n{}{price}", world.config(more));
    std::fs::write(&file, text).unwrap();
    Serve::start(&file).await
}

/// Tokens and cost in billionths of a dollar, added up by hand from what the caller got.
#[derive(Debug, Default, PartialEq, Eq)]
struct Sum {
    requests: i64,
    input: i64,
    output: i64,
    nano_usd: i64,
}

impl Sum {
    fn of(answer: &Answer) -> Self {
        let mut sum = Self::default();
        sum.add(answer);
        sum
    }

    fn add(&mut self, answer: &Answer) {
        let usage = &answer.json()["usage"];
        let tokens = |key: &str| usage[key].as_i64().unwrap();
        let (input, output) = (tokens("prompt_tokens"), tokens("completion_tokens"));
        self.requests += 1;
        self.input += input;
        self.output += output;
        self.nano_usd += 2_000 * input + 8_000 * output;
    }

    /// What the audit tells of the same.
    fn told(usage: &serde_json::Value) -> Self {
        let number = |key: &str| usage[key].as_str().unwrap().parse().unwrap();
        Self {
            requests: number("requests"),
            input: number("inputTokens"),
            output: number("outputTokens"),
            nano_usd: number("costNanoUsd"),
        }
    }
}

async fn told(serve: &Serve, requests: i64) -> serde_json::Value {
    let seen = requests.to_string();
    until("all of it is counted", || async {
        serve.json(&["audit"]).await["total"]["seen"].as_str() == Some(&seen)
    })
    .await;
    serve.json(&["audit"]).await
}

/// What each feature came to, and all together.
fn by_feature(told: &serde_json::Value) -> BTreeMap<String, Sum> {
    let groups = told["groups"].as_array().unwrap().iter();
    let groups = groups.filter(|it| it["by"] == "feature");
    groups
        .map(|it| (it["value"].as_str().unwrap().to_owned(), Sum::told(&it["usage"])))
        .chain([("all".to_owned(), Sum::told(&told["total"]))])
        .collect()
}

#[tokio::test]
async fn what_is_asked_before_any_rollout_is_told_by_kind_and_survives_a_restart() {
    let world = World::new().await;
    let server = serve(&world, "").await;
    let mut sums: BTreeMap<String, Sum> = BTreeMap::new();
    for index in 0..60 {
        // What is asked for search are the same five questions again and again.
        let (feature, question) = [("chat", index), ("search", index % 5)][index % 2];
        let body = world.body(question, Delivery::Whole);
        let answer = server.chat(body, &[("x-crossfade-feature", feature)]).await;
        assert_eq!(answer.status, 200);
        for name in [feature, "all"] {
            sums.entry(name.to_owned()).or_default().add(&answer);
        }
    }
    assert_eq!(by_feature(&told(&server, 60).await), sums);
    let audit = told(&server, 60).await;
    let most = |feature: &str| {
        let kinds = audit["kinds"].as_array().unwrap().iter();
        let seen = |it: &serde_json::Value| it["usage"]["seen"].as_str().unwrap().parse::<i64>();
        let kinds = kinds.filter(|it| it["feature"] == feature);
        let most = kinds.max_by_key(|it| seen(it).unwrap()).unwrap();
        format!("{} {}", most["proposal"], most["reason"])
    };
    assert!(most("search").contains("PROPOSAL_DETERMINISTIC"), "{}", most("search"));
    assert!(!most("chat").contains("PROPOSAL_DETERMINISTIC"), "{}", most("chat"));

    // What came before a restart is told after it, with what comes after.
    assert!(server.stop().await.success());
    let server = serve(&world, "").await;
    let answer =
        server.chat(world.body(70, Delivery::Whole), &[("x-crossfade-feature", "chat")]).await;
    for name in ["chat", "all"] {
        sums.get_mut(name).unwrap().add(&answer);
    }
    assert_eq!(by_feature(&told(&server, 61).await), sums);

    let (code, document) = server.cli(&["audit", "-o", "md"]).await;
    assert_eq!(code, 0, "{document}");
    assert!(document.starts_with("# Usage audit\n"), "{document}");
    assert!(document.contains("## Deterministic") && document.contains(PRIMARY), "{document}");
    let (code, page) = server.cli(&["audit", "-o", "html"]).await;
    assert!(code == 0 && page.starts_with("<!doctype html>"), "{page}");
    let (code, refused) = server.cli(&["list", "-o", "html"]).await;
    assert_eq!(code, 2, "{refused}");
    let (code, refused) = server.cli(&["audit", "--days", "32"]).await;
    assert_eq!(code, 2, "{refused}");
}

/// What must not be kept of a pair is not kept of this either.
#[tokio::test]
async fn marks_and_models_are_redacted_before_they_are_counted() {
    let world = World::new().await;
    for plan in [String::new(), rollout("0%", "100%")] {
        let server = serve(&world, &plan).await;
        let body =
            |secret: &str| format!("{{\"model\":\"m {secret}\",\"messages\":[]}}").into_bytes();
        let secret = "sk-proj-abcdefghijklmnopqrstuvwxyz0123456789ABCDEFGHIJ";
        let marks = [
            ("authorization", "Bearer callers-own-key"),
            ("x-crossfade-feature", "chat callers-own-key"),
            ("x-crossfade-segment", secret),
        ];
        server.chat(body(secret), &marks).await;
        let audit = told(&server, 1).await.to_string();
        assert!(!audit.contains("sk-proj") && !audit.contains("callers-own-key"), "{audit}");
        assert!(audit.contains("m [redacted:secret]"), "{audit}");
        assert!(audit.contains("chat [redacted:key]"), "{audit}");
        assert!(server.stop().await.success());
        std::fs::remove_dir_all(world.dir.path().join("store")).unwrap();
    }
}

/// A request of a rollout is one request, whoever else was asked, and what callers got counts.
#[tokio::test]
async fn requests_of_a_rollout_are_counted_once_and_streams_and_failures_too() {
    let world = World::new().await;
    let server = serve(&world, &rollout("0%", "100%")).await;
    for index in 0..10 {
        server.chat(world.body(index, Delivery::Whole), &[]).await;
    }
    for index in 10..15 {
        server.chat(world.body(index, Delivery::Stream), &[]).await;
    }
    server.is_quiet().await;
    let audit = told(&server, 15).await;
    assert_eq!(audit["total"]["streamed"], "5");
    assert!(0 < world.candidate.stats().requests, "copies were made");
    let failed = server.chat(b"{\"model\":\"nobody\",\"messages\":[]}".to_vec(), &[]).await;
    assert_eq!(failed.status, 404);
    let audit = told(&server, 16).await;
    let models = audit["groups"].as_array().unwrap().iter().filter(|it| it["by"] == "model");
    let models: BTreeMap<&str, &str> = models
        .map(|it| (it["value"].as_str().unwrap(), it["usage"]["seen"].as_str().unwrap()))
        .collect();
    assert_eq!(models, BTreeMap::from([(PRIMARY, "15"), ("nobody", "1")]));
    assert_eq!(audit["total"]["unpriced"], "1", "nobody told its tokens");
}

/// What a report says of pairs is what the pairs say, added up here.
#[tokio::test]
async fn a_report_says_what_its_pairs_say() {
    let world = World::new().await;
    let price = "[provider.candidate.price.\"*\"]\ninput = \"1\"\noutput = \"2\"\n";
    let server = serve(&world, &(rollout("0%", "100%") + price)).await;
    for index in 0..20 {
        server.chat(world.body(index, Delivery::Whole), &[]).await;
    }
    server.is_quiet().await;
    until("all pairs are stored", || async {
        server.json_lines(&["pairs", "chat", "--limit", "100"]).await.len() == 20
    })
    .await;
    let pairs = server.json_lines(&["pairs", "chat", "--limit", "100"]).await;
    let cost = |pair: &serde_json::Value, side: &str| {
        pair[side]["costNanoUsd"].as_str().unwrap().parse::<i64>().unwrap()
    };
    let sum = |side: &str| pairs.iter().map(|it| cost(it, side)).sum::<i64>();
    let report = server.json(&["report", "chat"]).await;
    assert_eq!(report["money"]["pairs"], 20, "{report}");
    assert_eq!(report["money"]["primaryNanoUsd"], sum("primary"), "{report}");
    assert_eq!(report["money"]["candidateNanoUsd"], sum("candidate"), "{report}");
    assert!(
        report["answer"].as_str().unwrap().starts_with("Not yet: gate `error_rate`"),
        "{report}"
    );
    let (code, document) = server.cli(&["report", "chat", "-o", "md"]).await;
    assert!(code == 0 && document.starts_with("# Is \\`chat\\` ready?\n"), "{document}");
    assert!(document.contains("error\\_rate"), "{document}");
    let (code, page) = server.cli(&["report", "chat", "-o", "html"]).await;
    assert!(code == 0 && page.contains("<h2>What is not known</h2>"), "{page}");
    let (code, _) = server.cli(&["report", "nobody"]).await;
    assert_eq!(code, 5);
}

/// What a report says was saved is what callers got, and what pairs cost, added up here; also
/// after a restart.
#[tokio::test]
async fn a_report_says_what_was_saved_so_far() {
    let world = World::new().await;
    let price = "[provider.candidate.price.\"*\"]\ninput = \"1\"\noutput = \"2\"\n";
    let server = serve(&world, &(rollout("50%", "50%") + price)).await;
    let (mut answered, mut served_cost) = (0, 0);
    for index in 0..80 {
        let answer = server.chat(world.body(index, Delivery::Whole), &[]).await;
        if answer.header("x-crossfade-provider") == "candidate" {
            let sum = Sum::of(&answer);
            answered += 1;
            served_cost += 1_000 * sum.input + 2_000 * sum.output;
        }
    }
    assert!((10..70).contains(&answered), "{answered} of 80");
    server.is_quiet().await;
    until("all of it is told", || async {
        server.json(&["report", "chat"]).await["money"]["served"] == answered
    })
    .await;
    let pairs = server.json_lines(&["pairs", "chat", "--limit", "100"]).await;
    let cost = |pair: &serde_json::Value, side: &str| {
        pair[side]["costNanoUsd"].as_str().unwrap().parse::<i64>().unwrap()
    };
    let sum = |side: &str| pairs.iter().map(|it| cost(it, side)).sum::<i64>();
    let copies = pairs.iter().map(|it| {
        let other = if it["served"] == "SERVED_PRIMARY" { "candidate" } else { "primary" };
        cost(it, other)
    });
    let spent: i64 = copies.sum();
    let instead =
        i128::from(served_cost) * i128::from(sum("primary")) / i128::from(sum("candidate"));
    let saved = i64::try_from(instead).unwrap() - served_cost - spent;
    let expected = [answered, served_cost, i64::try_from(instead).unwrap(), spent, saved];
    let told = |report: &serde_json::Value| {
        ["served", "servedNanoUsd", "insteadNanoUsd", "spentNanoUsd", "savedNanoUsd"]
            .map(|it| report["money"][it].as_i64().unwrap())
    };
    assert_eq!(told(&server.json(&["report", "chat"]).await), expected);
    let (_, document) = server.cli(&["report", "chat", "-o", "md"]).await;
    assert!(document.contains(&format!("So far the candidate answered {answered} requests")));
    assert!(server.stop().await.success());
    let server = Serve::start(&world.dir.path().join("crossfade.toml")).await;
    assert_eq!(told(&server.json(&["report", "chat"]).await), expected, "after a restart");
}
