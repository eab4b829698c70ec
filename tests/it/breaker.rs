//! Callers are protected from a provider that serves and fails: breaker, `Retry-After`, budget.

mod failover;
pub(crate) mod stub;
mod waiting;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::Instant,
};

use crate::world::{Answer, Dir, Serve, configured, rollout, until};

use stub::{Says, Stub, good};

/// A breaker that stays closed, whatever comes.
const NEVER_OPEN: &str =
    r#"breaker = { failed = "100%", calls_min = 1_000_000, in_a_row = 1_000_000 }"#;

/// A primary and a candidate that do as they are told, behind the program.
struct Rig {
    primary: Stub,
    candidate: Stub,
    serve: Serve,
    _dir: Dir,
}

impl Rig {
    /// The candidate's table has these lines besides, and `more` follows.
    async fn start(lines: &str, more: &str) -> Self {
        let (primary, candidate) = (Stub::start("primary").await, Stub::start("candidate").await);
        let dir = Dir::new().await;
        let addresses = [primary.address, candidate.address];
        let file = configured(dir.path(), addresses, &format!("{lines}\n{more}"));
        let rig = Self { primary, candidate, serve: Serve::start(&file).await, _dir: dir };
        until("the candidate is asked", || async {
            rig.chat().await;
            0 < rig.candidate.asked()
        })
        .await;
        rig
    }

    async fn chat(&self) -> Answer {
        let body = r#"{"model":"m","messages":[{"role":"user","content":"hi"}]}"#;
        self.serve.chat(body.as_bytes().to_vec(), &[]).await
    }

    /// Asks once, with the candidate as it is told; who answered. Nobody but it may be noticed.
    async fn chat_while(&self, says: Says) -> String {
        self.candidate.says(says);
        let answer = self.chat().await;
        assert_eq!(answer.status, 200);
        let provider = answer.header("x-crossfade-provider").to_owned();
        assert_eq!(answer.json()["model"], provider.as_str(), "never one for another");
        provider
    }

    /// Fails now and then, so that the breaker opens and neither tripwire nor gates have a case.
    async fn open_breaker(&self) {
        until("the breaker opens", || async {
            self.chat_while(Says::Status(500, "")).await;
            self.chat_while(Says::Well).await;
            0.5 < self.serve.metric("crossfade_breaker_opened_total").await
        })
        .await;
    }
}

const TOUCHY: &str = "breaker = { failed = \"30%\", calls_min = 4, cool_down = ";

/// B-11
#[tokio::test]
async fn an_open_breaker_sends_callers_to_the_primary_at_once_and_holds_the_stage() {
    let rig = Rig::start(&format!("{TOUCHY}\"1h\" }}"), &rollout("100%", "1%")).await;
    rig.open_breaker().await;
    let before = rig.candidate.asked();
    for _ in 0..5 {
        // Were it asked, its callers would wait for half a minute.
        assert_eq!(rig.chat_while(Says::Hang).await, "primary");
    }
    assert_eq!(rig.candidate.asked(), before);
    assert!(
        4.5 < rig.serve.metric("crossfade_mirror_skipped_total{reason=\"breaker\"}").await,
        "each of them is counted"
    );
    assert!(1.5 < rig.serve.metric("crossfade_breaker_open{provider=\"candidate\"}").await);
    assert!(rig.serve.page("/readyz").await.contains("\"open_breakers\":[\"candidate\"]"));
    until("the stage holds and says why", || async {
        let status = rig.serve.json(&["status", "chat"]).await;
        assert_eq!(status["state"], "STATE_RUNNING", "{status}");
        status["evidenceProblem"].as_str().unwrap().starts_with("the breaker of the candidate")
    })
    .await;
    let (_, text) = rig.serve.cli(&["explain", "chat"]).await;
    assert!(text.contains("the breaker of the candidate is open"), "{text}");
    let id = rig.chat().await.header("x-crossfade-request-id").to_owned();
    let (_, text) = rig.serve.cli(&["explain", "--request", &id]).await;
    assert!(
        text.contains("The candidate was to answer, and the primary did: the breaker"),
        "{text}"
    );
}

#[tokio::test]
async fn after_its_cool_down_a_candidate_that_answers_again_serves_again() {
    let rig = Rig::start(&format!("{TOUCHY}\"100ms\" }}"), &rollout("100%", "1%")).await;
    rig.open_breaker().await;
    until("it is tried, and serves everybody", || async {
        rig.chat_while(Says::Well).await;
        rig.serve.metric("crossfade_breaker_open{provider=\"candidate\"}").await < 0.5
    })
    .await;
    for _ in 0..5 {
        assert_eq!(rig.chat_while(Says::Well).await, "candidate");
    }
}

/// INV10
#[tokio::test]
async fn in_shadow_a_breaker_hides_nothing_from_the_tripwire() {
    let touchy = "breaker = { failed = \"1%\", calls_min = 1, cool_down = \"1h\" }";
    let rig = Rig::start(touchy, &rollout("0%", "100%")).await;
    rig.candidate.says(Says::Status(500, ""));
    until("it is rolled back", || async {
        assert_eq!(rig.chat().await.header("x-crossfade-provider"), "primary");
        rig.serve.json(&["status", "chat"]).await["reason"]["code"] == "TRIPWIRE"
    })
    .await;
    assert!(0.5 < rig.serve.metric("crossfade_breaker_opened_total").await);
    let skipped = rig.serve.metric("crossfade_mirror_skipped_total{reason=\"breaker\"}").await;
    assert!(skipped < 0.5, "{skipped} copies were held back");
}

#[tokio::test]
async fn a_candidate_is_left_alone_as_long_as_it_asks_and_nothing_counts_meanwhile() {
    let rig = Rig::start("", &rollout("100%", "1%")).await;
    assert_eq!(rig.chat_while(Says::Status(429, "Retry-After: 55\r\n")).await, "primary");
    let before = rig.candidate.asked();
    for _ in 0..5 {
        assert_eq!(rig.chat_while(Says::Well).await, "primary");
    }
    assert_eq!(rig.candidate.asked(), before);
    let skipped = "crossfade_mirror_skipped_total{reason=\"retry_after\"}";
    assert!(4.5 < rig.serve.metric(skipped).await);
    let throttled = "crossfade_requests_total{provider=\"candidate\",role=\"serve\",outcome=";
    assert!(0.5 < rig.serve.metric(&format!("{throttled}\"throttled\"")).await);
    assert!(rig.serve.metric(&format!("{throttled}\"provider_error\"")).await < 0.5);
    until("the stage holds and says why", || async {
        let status = rig.serve.json(&["status", "chat"]).await;
        status["evidenceProblem"].as_str().unwrap().contains("asked to be left alone")
    })
    .await;
}

#[tokio::test]
async fn a_candidate_that_asked_for_a_moment_is_asked_again_after_it() {
    let rig = Rig::start("", &rollout("0%", "100%")).await;
    rig.candidate.says(Says::Status(529, "Retry-After: 1\r\n"));
    until("copies pause", || async {
        assert_eq!(rig.chat().await.header("x-crossfade-provider"), "primary");
        let skipped = "crossfade_mirror_skipped_total{reason=\"retry_after\"}";
        0.5 < rig.serve.metric(skipped).await
    })
    .await;
    let before = rig.candidate.asked();
    rig.candidate.says(Says::Well);
    until("they go on", || async {
        rig.chat().await;
        before < rig.candidate.asked()
    })
    .await;
}

#[tokio::test]
async fn what_the_primary_says_of_its_load_is_its_callers_to_read_and_stops_nobody() {
    let rig = Rig::start("", &rollout("0%", "100%")).await;
    rig.primary.says(Says::Status(429, "Retry-After: 7\r\nX-RateLimit: a\r\n"));
    for _ in 0..3 {
        let before = rig.primary.asked();
        let answer = rig.chat().await;
        assert_eq!((answer.status, answer.header("retry-after")), (429, "7"));
        assert_eq!((answer.header("x-ratelimit"), &answer.body[..]), ("a", &b"{}"[..]));
        assert_eq!(rig.primary.asked(), before + 1);
    }
}

#[tokio::test]
async fn a_provider_that_serves_is_checked_and_three_checks_that_fail_open_its_breaker() {
    // A check has half of that time to be answered in.
    let often = "health = { path = \"/health\", every = \"2s\" }";
    let rig = Rig::start(often, &rollout("100%", "1%")).await;
    until("it is found well", || async {
        0.5 < rig.serve.metric("crossfade_healthy{provider=\"candidate\"}").await
    })
    .await;
    let checks = |stub: &Stub| stub.lines().iter().filter(|it| it.contains("/health")).count();
    assert!(rig.candidate.lines().contains(&"get /v1/health http/1.1".to_owned()));
    assert_eq!(rig.chat_while(Says::Well).await, "candidate");
    rig.candidate.says(Says::Status(503, ""));
    until("its breaker opens, though nobody asked it anything", || async {
        1.5 < rig.serve.metric("crossfade_breaker_open{provider=\"candidate\"}").await
    })
    .await;
    assert!(rig.serve.metric("crossfade_healthy{provider=\"candidate\"}").await < 0.5);
    assert_eq!(rig.chat_while(Says::Hang).await, "primary");
    assert_eq!(checks(&rig.primary), 0, "nobody can be kept from the primary");
    assert!(rig.serve.metric("crossfade_fallbacks_total").await < 0.5);
}

#[tokio::test]
async fn checks_that_are_refused_close_no_breaker_and_those_that_close_it_are_logged() {
    let (primary, candidate) = (Stub::start("primary").await, Stub::start("candidate").await);
    let dir = Dir::new().await;
    let (key, log) = (dir.path().join("key"), dir.path().join("log"));
    std::fs::write(&key, "our-key").unwrap();
    let often = "health = { path = \"/health\", every = \"600ms\" }";
    let lines = format!(
        "key = \"file:{}\"\n{often}\nbreaker = {{ cool_down = \"100ms\" }}\n",
        key.display()
    );
    let addresses = [primary.address, candidate.address];
    let file = configured(dir.path(), addresses, &(lines + &rollout("100%", "1%")));
    let to = std::fs::File::create(&log).unwrap();
    let serve = Serve::start_logging(&file, "info", to.into()).await;
    let series = "crossfade_breaker_open{provider=\"candidate\"}";
    candidate.says(Says::Status(503, ""));
    until("checks open it", || async { 1.5 < serve.metric(series).await }).await;
    candidate.says(Says::Status(401, ""));
    let checks = || candidate.lines().iter().filter(|it| it.contains("/health")).count();
    let before = checks();
    until("it is checked again and again", || async { before + 6 < checks() }).await;
    assert!(1.5 < serve.metric(series).await, "callers would be refused too");
    candidate.says(Says::Well);
    until("checks close it", || async { serve.metric(series).await < 0.5 }).await;
    assert!(serve.stop().await.success());
    let log = std::fs::read_to_string(&log).unwrap();
    for said in
        ["its breaker opened: health checks failed", "its breaker closed: it answers health"]
    {
        assert_eq!(log.matches(said).count(), 1, "{log}");
    }
}

#[tokio::test]
async fn a_provider_that_only_gets_copies_is_not_checked() {
    let often = "health = { path = \"/health\", every = \"100ms\" }";
    let rig = Rig::start(often, &rollout("0%", "100%")).await;
    // Many checks would have come while so many callers are answered.
    for _ in 0..300 {
        rig.chat().await;
    }
    assert!(rig.candidate.lines().iter().all(|it| it.contains("/chat/")));
}

/// Calls that may be asked again besides one in ten: so many each half a minute.
fn free_since(began: Instant) -> usize {
    10 * (1 + usize::try_from(began.elapsed().as_secs() / 30).unwrap())
}

/// B-17
#[tokio::test]
async fn at_most_one_call_in_ten_is_asked_again_of_the_primary() {
    let rig = Rig::start(NEVER_OPEN, &rollout("100%", "1%")).await;
    let before = rig.primary.asked() + rig.candidate.asked();
    let (requests, began) = (300, Instant::now());
    for _ in 0..requests {
        rig.chat_while(Says::EverySecond).await;
    }
    let calls = rig.primary.asked() + rig.candidate.asked() - before;
    // Ten are free, and one request in a hundred is copied, whichever key falls there.
    let most = requests + requests / 10 + free_since(began) + requests / 20;
    assert!((requests + 20..=most).contains(&calls), "{calls} calls for {requests} requests");
    let status = rig.serve.json(&["status", "chat"]).await;
    assert_eq!(status["state"], "STATE_RUNNING", "{status}");
}

/// B-11
#[tokio::test]
async fn wherever_a_candidate_breaks_off_its_caller_gets_one_answer_of_one_provider() {
    let rig = Rig::start(NEVER_OPEN, &rollout("100%", "1%")).await;
    let (head, body) = good("candidate");
    for cut in [0, 1, 12, 17, head.len() - 2, head.len() - 1, head.len()] {
        assert_eq!(rig.chat_while(Says::Cut(cut)).await, "primary", "cut after {cut}");
        assert_eq!(rig.chat_while(Says::Well).await, "candidate");
    }
    for kept in [1, body.len() / 2, body.len() - 1] {
        rig.candidate.says(Says::Cut(head.len() + kept));
        let mut caller = TcpStream::connect(rig.serve.data).await.unwrap();
        let asked = r#"{"model":"m","messages":[]}"#;
        let request = format!(
            "POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{asked}",
            asked.len()
        );
        caller.write_all(request.as_bytes()).await.unwrap();
        let mut got = Vec::new();
        let ended = caller.read_to_end(&mut got);
        let _ = tokio::time::timeout(crate::world::SOON, ended).await.unwrap();
        let got = String::from_utf8(got).unwrap();
        let (got_head, got_body) = got.split_once("\r\n\r\n").unwrap();
        assert!(got_head.contains("x-crossfade-provider: candidate"), "{got_head}");
        assert!(got_head.contains(&format!("content-length: {}", body.len())), "{got_head}");
        assert_eq!(got_body, &body[..kept], "what it sent, and nothing of anybody else");
        assert_eq!(rig.chat_while(Says::Well).await, "candidate");
    }
}

#[tokio::test]
async fn copies_to_either_side_say_what_they_are_and_answers_are_asked_for_without() {
    for (serve, served) in [("0%", "primary"), ("100%", "candidate")] {
        let rig = Rig::start("", &rollout(serve, "100%")).await;
        until("both sides are asked", || async {
            rig.chat().await.header("x-crossfade-provider") == served
                && 0 < rig.primary.asked().min(rig.candidate.asked())
        })
        .await;
        let marked = |stub: &Stub| stub.heads().iter().any(|it| it.contains("x-crossfade-copy: 1"));
        let (copied, asked) = if served == "primary" {
            (&rig.candidate, &rig.primary)
        } else {
            (&rig.primary, &rig.candidate)
        };
        until("a copy is marked", || async { marked(copied) }).await;
        assert!(!marked(asked), "{:?}", asked.heads());
    }
}
