//! Defects of whatever works beside the data port cost callers nothing.

use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::oneshot,
};

use super::*;
use crate::api::{Caller, Client, proto};
use crate::tasks::{failpoint, panics, spawn};

/// Longest wait for anything that has to happen.
const SOON: Duration = Duration::from_mins(2);

/// The program with a primary, a candidate that serves everybody, and a judge.
struct Program {
    addresses: Addresses,
    stop: oneshot::Sender<()>,
    ended: oneshot::Receiver<Result<(), Ended>>,
}

/// A provider that answers one request on each connection; where it can be reached.
async fn provider() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    spawn("provider", async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut asked = Vec::new();
            while !asked.ends_with(b"}") && 0 < stream.read_buf(&mut asked).await.unwrap_or(0) {}
            let body = r#"{"choices":[{"message":{"content":"yes"},"finish_reason":"stop"}]}"#;
            let answer = format!(
                "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
                 Connection: close\r\n\r\n{body}",
                body.len()
            );
            drop(stream.write_all(answer.as_bytes()).await);
        }
    });
    format!("http://{address}/v1")
}

impl Program {
    async fn start(store: &TempDir) -> Self {
        let (primary, candidate) = (provider().await, provider().await);
        let text = format!(
            "listen = \"127.0.0.1:0\"\ncontrol = \"127.0.0.1:0\"\noperations = \"127.0.0.1:0\"\n\
             store = \"{}\"\nprimary = \"primary\"\n\
             [provider.primary]\nbase_url = \"{primary}\"\n\
             [provider.candidate]\nbase_url = \"{candidate}\"\n\
             [judge]\nbase_url = \"{primary}\"\nmodel = \"judge\"\n\
             [rollout.chat]\ncandidate = \"candidate\"\nautostart = true\n\
             gates = {{ latency_p99 = \"off\" }}\n\
             stage = [{{ name = \"only\", serve = \"100%\", mirror = \"1%\", duration = \"1h\" }}]\n",
            store.path().display(),
        );
        let config = Config::parse(&text, "crossfade.toml").unwrap();
        let app = App::start(config, Passed::default()).await.unwrap();
        let addresses = app.addresses.clone();
        let (stop, stopped) = oneshot::channel();
        let (ends, ended) = oneshot::channel();
        spawn("program", async move {
            drop(ends.send(app.run(async { drop(stopped.await) }).await));
        });
        Self { addresses, stop, ended }
    }

    /// Who answers a caller.
    async fn answers(&self) -> &'static str {
        let body = r#"{"model":"m","messages":[{"role":"user","content":"so?"}]}"#;
        let head = format!("content-type: application/json\r\ncontent-length: {}", body.len());
        let request = format!("POST /v1/chat/completions HTTP/1.1\r\n{head}");
        let answer = ask(self.addresses.data.to_string(), &request, body).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        let by = |it: &&str| answer.contains(&format!("x-crossfade-provider: {it}\r\n"));
        ["primary", "candidate"].into_iter().find(by).unwrap()
    }

    async fn is_answered_by(&self, provider: &str) {
        let answered = async {
            while self.answers().await != provider {
                sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(SOON, answered).await.unwrap();
    }

    async fn ready(&self) -> String {
        ask(self.addresses.operations.to_string(), "GET /readyz HTTP/1.1", "").await
    }

    /// Waits until readiness names a problem.
    async fn is_degraded(&self, why: &str) {
        let named = async {
            loop {
                let ready = self.ready().await;
                if ready.contains("\"degraded\"") && ready.contains(why) {
                    return;
                }
                sleep(Duration::from_millis(10)).await;
            }
        };
        let named = timeout(SOON, named).await;
        assert!(named.is_ok(), "{why}: {}", self.ready().await);
    }

    /// What the API says that is to see, and what it says of going back.
    async fn control(&self) -> (String, String) {
        let caller = Caller { actor: None, timeout: SOON };
        let mut client = Client::connect(&self.addresses.control, caller).await.unwrap();
        let listed = client.list_rollouts(proto::ListRolloutsRequest::default()).await.unwrap();
        assert_eq!(listed.rollouts.len(), 0);
        let name = "rollouts/chat".to_owned();
        let request = proto::RollbackRolloutRequest { name, ..Default::default() };
        let refused = client.rollback_rollout(request).await.unwrap_err();
        (listed.degraded, refused.message)
    }

    async fn stop(self) -> Result<(), Ended> {
        self.stop.send(()).unwrap();
        timeout(SOON, self.ended).await.unwrap().unwrap()
    }
}

async fn ask(address: String, head: &str, body: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("{head}\r\nhost: a\r\nconnection: close\r\n\r\n{body}");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    timeout(SOON, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
    answer
}

#[tokio::test]
async fn b09_whatever_panics_beside_the_data_port_is_counted_and_named_and_callers_are_served() {
    for name in [
        "judge",
        "calibration",
        "health checks",
        "survey",
        "handover",
        "watchdog",
        "api",
        "opening",
    ] {
        let before = panics();
        failpoint::set(name);
        let store = TempDir::new().unwrap();
        let program = Program::start(&store).await;
        program.is_degraded(&format!("`{name}` panicked")).await;
        program.answers().await;
        assert!(before < panics(), "{name}");
        let ended = program.stop().await.unwrap_err();
        assert!(ended.to_string().contains(name), "{ended}");
    }
}

#[tokio::test]
async fn b09_a_controller_that_panics_leaves_everybody_to_the_primary() {
    let store = TempDir::new().unwrap();
    let program = Program::start(&store).await;
    program.is_answered_by("candidate").await;
    failpoint::set("control");
    program.is_degraded("the controller panicked").await;
    assert_eq!(program.answers().await, "primary");
    let (degraded, refused) = program.control().await;
    let why = "the controller panicked; the primary is served, nothing can be controlled";
    assert_eq!(degraded, why);
    assert!(refused.contains(why), "{refused}");
    program.stop().await.unwrap_err();
}

#[tokio::test]
async fn b09_a_journal_that_cannot_be_replayed_is_no_crash_loop() {
    let store = TempDir::new().unwrap();
    let program = Program::start(&store).await;
    program.is_answered_by("candidate").await;
    program.stop().await.unwrap();

    failpoint::set("replay");
    let before = panics();
    let again = Program::start(&store).await;
    again.is_degraded("cannot be replayed").await;
    assert!(before < panics());
    assert_eq!(again.answers().await, "primary");
    let (degraded, refused) = again.control().await;
    assert!(degraded.contains("cannot be replayed") && refused.contains(&degraded), "{refused}");
    again.stop().await.unwrap();

    failpoint::set("");
    let mended = Program::start(&store).await;
    mended.is_answered_by("candidate").await;
    mended.stop().await.unwrap();
}
