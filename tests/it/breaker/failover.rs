//! Others behind the primary: who answers when it cannot, for whom, and at what cost.

use crate::world::{Answer, Dir, Serve, until};

use super::{
    NEVER_OPEN, free_since,
    stub::{Says, Stub},
};

/// A primary and two others behind it, which do as they are told.
struct Rig {
    primary: Stub,
    azure: Stub,
    bedrock: Stub,
    serve: Serve,
    _dir: Dir,
}

const CHAT: &str = r#"{"model":"m","messages":[{"role":"user","content":"hi"}]}"#;
const BOTH: &str = "failover = [\"azure\", \"bedrock\"]";

impl Rig {
    /// The file begins with `top`; the primary's table has `lines` besides, and `more` follows.
    async fn start(top: &str, lines: &str, more: &str) -> Self {
        let (primary, azure) = (Stub::start("primary").await, Stub::start("azure").await);
        let bedrock = Stub::start("bedrock").await;
        let dir = Dir::new().await;
        let text = format!(
            "listen = \"127.0.0.1:0\"\ncontrol = \"127.0.0.1:0\"\noperations = \"127.0.0.1:0\"\n\
             store = \"{}\"\nprimary = \"primary\"\n{top}\n\
             [provider.primary]\nbase_url = \"http://{}/v1\"\n{lines}\n\
             [provider.azure]\nbase_url = \"http://{}/v1\"\nmodel_map = {{ \"*\" = \"gpt-eu\" }}\n\
             [provider.bedrock]\nbase_url = \"http://{}/v1\"\ndata = [\"pii\"]\n{more}",
            dir.path().join("store").display(),
            primary.address,
            azure.address,
            bedrock.address,
        );
        let file = dir.path().join("c.toml");
        std::fs::write(&file, text).unwrap();
        Self { primary, azure, bedrock, serve: Serve::start(&file).await, _dir: dir }
    }

    async fn chat(&self, headers: &[(&str, &str)]) -> Answer {
        self.serve.chat(CHAT.into(), headers).await
    }

    /// Who answers a request with these headers; the answer is that provider's own.
    async fn answered_by(&self, headers: &[(&str, &str)]) -> String {
        let answer = self.chat(headers).await;
        let provider = answer.header("x-crossfade-provider").to_owned();
        assert_eq!((answer.status, answer.json()["model"].as_str()), (200, Some(&*provider)));
        provider
    }
}

/// B-15
#[tokio::test]
async fn without_a_failover_callers_get_the_primarys_own_error() {
    let mirrored = crate::world::rollout("0%", "100%").replace("candidate\"", "azure\"");
    let rig = Rig::start("", "", &mirrored).await;
    until("copies are made", || async {
        rig.chat(&[]).await;
        0 < rig.azure.asked()
    })
    .await;
    for status in [500, 503, 529, 404] {
        rig.primary.says(Says::Status(status, "X-Mine: 1\r\n"));
        let answer = rig.chat(&[]).await;
        assert_eq!(
            (answer.status, answer.header("x-mine"), &answer.body[..]),
            (status, "1", &b"{}"[..])
        );
        assert_eq!(answer.header("x-crossfade-provider"), "primary");
    }
    rig.primary.says(Says::Cut(0));
    let answer = rig.chat(&[]).await;
    assert_eq!(
        (answer.status, &answer.json()["error"]["code"]),
        (502, &"primary_unreachable".into())
    );
    let status = rig.serve.json(&["status", "chat"]).await;
    assert_eq!(status["state"], "STATE_RUNNING", "{status}");
}

/// B-15
#[tokio::test]
async fn a_primary_that_cannot_answer_has_another_in_its_place() {
    let rig = Rig::start(BOTH, "", "[limits]\nupstream_timeout = \"5s\"\n").await;
    assert_eq!(rig.answered_by(&[]).await, "primary");
    for says in
        [Says::Status(500, ""), Says::Status(503, ""), Says::Cut(0), Says::Cut(20), Says::Hang]
    {
        rig.primary.says(says);
        assert_eq!(rig.answered_by(&[]).await, "azure", "{says:?}");
    }
    assert!(rig.azure.bodies().iter().all(|it| it.contains("\"model\":\"gpt-eu\"")));
    assert!(
        (rig.serve.metric("crossfade_failovers_total{provider=\"azure\"}").await - 5.0).abs() < 0.1
    );
    // The next one where that fails too.
    rig.azure.says(Says::Status(500, ""));
    let answer = rig.chat(&[]).await;
    assert_eq!((answer.status, answer.header("x-crossfade-provider")), (200, "bedrock"));
    let id = answer.header("x-crossfade-request-id").to_owned();
    let told = rig.serve.json(&["explain", "--request", &id]).await;
    assert_eq!(told["failover"], "bedrock");
    assert!(told["explanation"][0].as_str().unwrap().starts_with("`bedrock` answered in place"));
    // Where nobody answers, the caller gets what the primary said.
    rig.bedrock.says(Says::Status(400, ""));
    rig.primary.says(Says::Status(503, "X-Mine: 1\r\n"));
    let answer = rig.chat(&[]).await;
    assert_eq!((answer.status, answer.header("x-mine")), (503, "1"));
    assert_eq!(answer.header("x-crossfade-provider"), "primary");
}

/// B-15
#[tokio::test]
async fn what_the_primary_says_to_a_caller_is_never_anothers_to_answer() {
    let rig = Rig::start(BOTH, "", "").await;
    for status in [400, 401, 404, 429, 529] {
        rig.primary.says(Says::Status(status, "Retry-After: 9\r\n"));
        let answer = rig.chat(&[]).await;
        assert_eq!((answer.status, answer.header("retry-after")), (status, "9"));
    }
    rig.primary.says(Says::Status(503, ""));
    // Vectors of another model, stored answers, what must not run twice, and what is no question.
    let vectors = r#"{"model":"m","input":"a"}"#;
    assert_eq!(rig.serve.post("/v1/embeddings", vectors.into(), &[]).await.status, 503);
    assert_eq!(rig.serve.post("/v1/responses", vectors.into(), &[]).await.status, 503);
    assert_eq!(rig.chat(&[("idempotency-key", "a")]).await.status, 503);
    assert_eq!(rig.serve.post("/v1/files", CHAT.into(), &[]).await.status, 503);
    assert_eq!((rig.azure.asked(), rig.bedrock.asked()), (0, 0));
    // After the first byte the failure is delivered as it is.
    rig.primary.says(Says::Cut(150));
    let uri = format!("http://{}/v1/chat/completions", rig.serve.data);
    let request = hyper::Request::post(uri).header("content-type", "application/json");
    let body = http_body_util::Full::new(CHAT.into());
    let response = crate::world::http().request(request.body(body).unwrap()).await.unwrap();
    assert_eq!(response.headers()["x-crossfade-provider"], "primary");
    assert!(http_body_util::BodyExt::collect(response.into_body()).await.is_err());
    assert_eq!((rig.azure.asked(), rig.bedrock.asked()), (0, 0));
}

/// B-15
#[tokio::test]
async fn nobody_stands_in_for_data_it_is_not_cleared_for() {
    let rig = Rig::start(BOTH, "", "").await;
    rig.primary.says(Says::Status(503, ""));
    assert_eq!(rig.answered_by(&[("x-crossfade-data", "pii")]).await, "bedrock");
    assert_eq!(rig.chat(&[("x-crossfade-data", "pii, secret")]).await.status, 503);
    assert_eq!((rig.azure.asked(), rig.bedrock.asked()), (0, 1));
}

/// B-15
#[tokio::test]
async fn an_open_breaker_of_the_primary_sends_callers_on_at_once_and_closes_again() {
    let touchy = "breaker = { failed = \"50%\", calls_min = 4, cool_down = \"200ms\" }";
    let rig = Rig::start(BOTH, touchy, "").await;
    rig.primary.says(Says::Status(500, ""));
    until("its breaker opens", || async {
        assert_eq!(rig.answered_by(&[]).await, "azure");
        1.5 < rig.serve.metric("crossfade_breaker_open{provider=\"primary\"}").await
    })
    .await;
    rig.primary.says(Says::Well);
    until("it answers again", || async {
        let _ = rig.answered_by(&[]).await;
        rig.serve.metric("crossfade_breaker_open{provider=\"primary\"}").await < 0.5
    })
    .await;
    assert_eq!(rig.answered_by(&[]).await, "primary");
}

/// B-17
#[tokio::test]
async fn each_in_the_chain_leaves_the_next_one_half_of_its_callers_time() {
    let rig = Rig::start(BOTH, "", "").await;
    rig.primary.says(Says::Hang);
    rig.azure.says(Says::Hang);
    let began = tokio::time::Instant::now();
    // The last one has two seconds, which is enough on a busy machine.
    assert_eq!(rig.answered_by(&[("x-stainless-timeout", "16")]).await, "bedrock");
    let took = began.elapsed().as_millis();
    assert!((12_000..16_000).contains(&took), "{took} ms");
}

#[tokio::test]
async fn what_nobody_else_may_answer_closes_the_breaker_of_the_primary_too() {
    let touchy = "breaker = { failed = \"50%\", calls_min = 4, cool_down = \"100ms\" }";
    let rig = Rig::start(BOTH, touchy, "").await;
    rig.primary.says(Says::Status(500, ""));
    until("its breaker opens", || async {
        rig.chat(&[]).await;
        1.5 < rig.serve.metric("crossfade_breaker_open{provider=\"primary\"}").await
    })
    .await;
    rig.primary.says(Says::Well);
    until("it is found well", || async {
        assert_eq!(rig.answered_by(&[("x-crossfade-data", "nobodys")]).await, "primary");
        rig.serve.metric("crossfade_breaker_open{provider=\"primary\"}").await < 0.5
    })
    .await;
}

#[tokio::test]
async fn checks_open_and_close_the_breaker_of_a_primary_that_nobody_asks() {
    let served = crate::world::rollout("100%", "1%").replace("candidate\"", "azure\"");
    let often = "health = { path = \"/health\", every = \"1s\" }\n\
                 breaker = { cool_down = \"200ms\" }";
    let rig = Rig::start("failover = [\"bedrock\"]", often, &served).await;
    until("another serves", || async {
        rig.chat(&[]).await.header("x-crossfade-provider") == "azure"
    })
    .await;
    let series = "crossfade_breaker_open{provider=\"primary\"}";
    rig.primary.says(Says::Status(503, ""));
    until("checks open it", || async { 1.5 < rig.serve.metric(series).await }).await;
    let asked = rig.primary.asked();
    rig.primary.says(Says::Well);
    until("checks close it", || async { rig.serve.metric(series).await < 0.5 }).await;
    assert_eq!(rig.primary.asked(), asked, "no caller had to try it");
}

/// B-15
#[tokio::test]
async fn where_all_breakers_are_open_the_primary_is_asked_all_the_same() {
    let touchy = "breaker = { failed = \"50%\", calls_min = 1, cool_down = \"1h\" }";
    let rig = Rig::start("failover = [\"azure\"]", touchy, "").await;
    rig.azure.says(Says::Status(500, ""));
    rig.primary.says(Says::Status(503, ""));
    until("its breaker is open", || async {
        assert_eq!(rig.chat(&[]).await.status, 503);
        1.5 < rig.serve.metric("crossfade_breaker_open{provider=\"primary\"}").await
    })
    .await;
    rig.primary.says(Says::Well);
    assert_eq!(rig.answered_by(&[]).await, "primary");
}

/// B-17
#[tokio::test]
async fn at_most_one_call_in_ten_of_the_primary_is_asked_again_elsewhere() {
    let rig = Rig::start(BOTH, NEVER_OPEN, "").await;
    rig.primary.says(Says::EverySecond);
    let (requests, began, mut failed) = (200, tokio::time::Instant::now(), 0);
    for _ in 0..requests {
        failed += usize::from(rig.chat(&[]).await.status == 500);
    }
    let elsewhere = rig.azure.asked() + rig.bedrock.asked();
    assert_eq!(rig.primary.asked(), requests, "never twice");
    assert!((10..=requests / 10 + free_since(began)).contains(&elsewhere), "{elsewhere}");
    assert_eq!(failed + elsewhere, requests / 2, "the others get what the primary says");
}

/// B-17
#[tokio::test]
async fn a_connection_that_the_primary_closed_meanwhile_costs_nobody_an_answer_nor_asks_twice() {
    let rig = Rig::start("", "", "").await;
    rig.primary.says(Says::ThenClose);
    let client = crate::world::http();
    for index in 0..100 {
        let uri = format!("http://{}/v1/chat/completions?n={index}", rig.serve.data);
        let request = hyper::Request::post(uri).header("content-type", "application/json");
        let body = http_body_util::Full::new(CHAT.into());
        let answer = client.request(request.body(body).unwrap()).await.unwrap();
        assert_eq!(crate::world::whole(answer).await.status, 200, "request {index}");
        // From here on every connection to it is one that it has closed.
        until("it has closed the connection", || async {
            rig.primary.closed() == rig.primary.asked()
        })
        .await;
    }
    let mut lines = rig.primary.lines();
    lines.sort();
    lines.dedup();
    assert_eq!((lines.len(), rig.primary.asked()), (100, 100), "each was asked once");
}
