//! The real binary as a process, providers on loopback sockets, and what tests do with them.

use std::{
    fmt::Write as _,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use crossfade::players::{
    Fault, JudgePlayer, Latency, Provider, ProviderPlan, Rows, SyntheticModel, synthetic,
};
use http_body_util::{BodyExt as _, Full};
use hyper::{Request, Response, body::Incoming};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
    sync::{RwLock, RwLockReadGuard, RwLockWriteGuard},
    time::{Instant, sleep, timeout},
};

/// A configuration in this folder: two providers at these addresses, a primary and a candidate whose
/// table ends the text, and then `more`.
pub(crate) fn configured(dir: &Path, [primary, candidate]: [SocketAddr; 2], more: &str) -> PathBuf {
    let text = format!(
        "listen = \"127.0.0.1:0\"\ncontrol = \"127.0.0.1:0\"\noperations = \"127.0.0.1:0\"\n\
         store = \"{}\"\nprimary = \"primary\"\n\
         [provider.primary]\nbase_url = \"http://{primary}/v1\"\n\
         [provider.candidate]\nbase_url = \"http://{candidate}/v1\"\n{more}",
        dir.join("store").display(),
    );
    let file = dir.join("c.toml");
    std::fs::write(&file, text).unwrap();
    file
}

/// Longest wait for anything that has to happen, however busy the machine is.
pub(crate) const SOON: Duration = Duration::from_mins(2);
/// Models of the made-up rows.
pub(crate) const PRIMARY: &str = "big-model";
pub(crate) const CANDIDATE: &str = "small-model";

/// A provider for each side, a judge, and rows they all know.
pub(crate) struct World {
    pub(crate) rows: Arc<Rows>,
    pub(crate) primary: Provider,
    pub(crate) candidate: Provider,
    pub(crate) judge: JudgePlayer,
    pub(crate) dir: Dir,
}

/// Whole rehearsals need the machine to themselves; everything else shares it.
static MACHINE: RwLock<()> = RwLock::const_new(());

/// Waits until no other test runs, and keeps them waiting.
pub(crate) async fn alone() -> RwLockWriteGuard<'static, ()> {
    MACHINE.write().await
}

/// A folder of a test, which keeps whoever needs the machine to itself waiting. A test has one at a
/// time: a second one might wait for somebody who waits for the first.
pub(crate) struct Dir {
    dir: TempDir,
    _shared: RwLockReadGuard<'static, ()>,
}

impl Dir {
    pub(crate) async fn new() -> Self {
        Self { _shared: MACHINE.read().await, dir: TempDir::new().unwrap() }
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }
}

/// A running `crossfade serve`.
pub(crate) struct Serve {
    child: Child,
    pub(crate) data: SocketAddr,
    pub(crate) control: String,
    pub(crate) operations: SocketAddr,
}

pub(crate) type Http = Client<HttpConnector, Full<Bytes>>;

pub(crate) fn http() -> Http {
    Client::builder(TokioExecutor::new()).build_http()
}

fn local() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

impl World {
    /// Two good providers and a fair judge.
    pub(crate) async fn new() -> Self {
        Self::with(|_, _| {}).await
    }

    /// Providers as `change` makes them: primary, candidate.
    pub(crate) async fn with(change: impl FnOnce(&mut ProviderPlan, &mut ProviderPlan)) -> Self {
        let models = [(PRIMARY, 0.9), (CANDIDATE, 0.9)]
            .map(|(name, quality)| SyntheticModel { name: name.to_owned(), quality });
        let rows = Arc::new(synthetic(400, 11, &models));
        let (mut primary, mut candidate) =
            (ProviderPlan::new(PRIMARY), ProviderPlan::new(CANDIDATE));
        change(&mut primary, &mut candidate);
        let dir = Dir::new().await;
        Self {
            primary: Provider::start(Arc::clone(&rows), primary, local()).await.unwrap(),
            candidate: Provider::start(Arc::clone(&rows), candidate, local()).await.unwrap(),
            judge: JudgePlayer::start(Arc::clone(&rows), Latency::None, local()).await.unwrap(),
            rows,
            dir,
        }
    }

    /// A configuration for these players, followed by `more`.
    pub(crate) fn config(&self, more: &str) -> String {
        let mut text = format!(
            "listen = \"127.0.0.1:0\"\ncontrol = \"127.0.0.1:0\"\noperations = \"127.0.0.1:0\"\n\
             store = \"{}\"\nprimary = \"primary\"\n",
            self.dir.path().join("store").display()
        );
        let key = self.dir.path().join("candidate.key");
        std::fs::write(&key, "candidate-key\n").unwrap();
        for (name, address) in
            [("primary", self.primary.address()), ("candidate", self.candidate.address())]
        {
            write!(text, "[provider.{name}]\nbase_url = \"http://{address}/v1\"\n").unwrap();
            if name == "candidate" {
                write!(
                    text,
                    "key = \"file:{}\"\nmodel_map = {{ \"*\" = \"{CANDIDATE}\" }}\n",
                    key.display()
                )
                .unwrap();
                text.push_str("data = [\"eu\"]\n");
            }
        }
        write!(
            text,
            "[judge]\nbase_url = \"http://{}/v1\"\nmodel = \"judge\"\n",
            self.judge.address()
        )
        .unwrap();
        text.push_str(more);
        text
    }

    /// Starts the program with that configuration.
    pub(crate) async fn serve(&self, more: &str) -> Serve {
        let file = self.dir.path().join("crossfade.toml");
        std::fs::write(&file, self.config(more)).unwrap();
        Serve::start(&file).await
    }

    /// Asks until copies are made and none is under way; how many the candidate got.
    pub(crate) async fn copied(&self, serve: &Serve) -> u64 {
        until("requests are copied", || async {
            serve.chat(self.body(0, crossfade::players::Delivery::Whole), &[]).await;
            0 < self.candidate.stats().requests
        })
        .await;
        serve.is_quiet().await;
        self.candidate.stats().requests
    }

    /// The body of a request of which every player knows the answer.
    pub(crate) fn body(&self, index: usize, delivery: crossfade::players::Delivery) -> Vec<u8> {
        let body = self.rows.request(index % self.rows.len(), PRIMARY, delivery);
        body.unwrap().to_string().into_bytes()
    }
}

impl Serve {
    pub(crate) async fn start(config: &Path) -> Self {
        Self::start_logging(config, "warn", Stdio::inherit()).await
    }

    /// The same, with so much of a log, to somewhere else.
    pub(crate) async fn start_logging(config: &Path, filter: &str, log: Stdio) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_crossfade"));
        command.args(["serve", "-c"]).arg(config).env("RUST_LOG", filter).stderr(log);
        Self::launch(command).await
    }

    /// The same by a command line of one's own.
    pub(crate) async fn launch(command: Command) -> Self {
        let serve = Self::begin(command).await;
        until("the controller is up, or cannot be", || async {
            !serve.page("/readyz").await.contains("the controller is not up yet")
        })
        .await;
        serve
    }

    /// The same as soon as callers are served.
    pub(crate) async fn begin(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let line = timeout(SOON, lines.next_line()).await.unwrap().unwrap().unwrap();
        let part = |key: &str| {
            let word = line.split_whitespace().find_map(|it| it.strip_prefix(key));
            word.unwrap_or_else(|| panic!("no `{key}` in: {line}")).to_owned()
        };
        Self {
            child,
            data: part("data=").parse().unwrap(),
            control: part("control="),
            operations: part("operations=").parse().unwrap(),
        }
    }

    /// Ends it as a power cut would.
    pub(crate) async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }

    /// Asks it to stop, and waits until it has.
    pub(crate) async fn stop(self) -> std::process::ExitStatus {
        self.signal("TERM");
        self.ended().await
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, name: &str) {
        let (name, pid) = (format!("-{name}"), self.pid().to_string());
        assert!(std::process::Command::new("kill").args([name, pid]).status().unwrap().success());
    }

    /// Waits until it has ended by itself.
    pub(crate) async fn ended(mut self) -> std::process::ExitStatus {
        timeout(SOON, self.child.wait()).await.unwrap().unwrap()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id().unwrap()
    }

    /// One chat request with these headers; status, headers and body of the answer.
    pub(crate) async fn chat(&self, body: Vec<u8>, headers: &[(&str, &str)]) -> Answer {
        self.post("/v1/chat/completions", body, headers).await
    }

    pub(crate) async fn post(&self, path: &str, body: Vec<u8>, headers: &[(&str, &str)]) -> Answer {
        let mut request = Request::post(format!("http://{}{path}", self.data))
            .header("content-type", "application/json")
            .header("authorization", "Bearer caller-key");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(Bytes::from(body))).unwrap();
        whole(timeout(SOON, http().request(request)).await.unwrap().unwrap()).await
    }

    /// A client verb of the same binary against this server: exit code and standard output.
    pub(crate) async fn cli(&self, args: &[&str]) -> (i32, String) {
        let output = Command::new(env!("CARGO_BIN_EXE_crossfade"))
            .args(["--server", &self.control])
            .args(args)
            .output()
            .await
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned()
            + &String::from_utf8_lossy(&output.stderr);
        (output.status.code().unwrap_or(-1), text)
    }

    /// The same as JSON; the verb must succeed.
    pub(crate) async fn json(&self, args: &[&str]) -> serde_json::Value {
        let args: Vec<&str> = args.iter().copied().chain(["-o", "json"]).collect();
        let (code, text) = self.cli(&args).await;
        assert_eq!(code, 0, "{args:?}: {text}");
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{args:?}: {error}: {text}"))
    }

    /// The same for verbs that list: one message on each line.
    pub(crate) async fn json_lines(&self, args: &[&str]) -> Vec<serde_json::Value> {
        let args: Vec<&str> = args.iter().copied().chain(["-o", "json"]).collect();
        let (code, text) = self.cli(&args).await;
        assert_eq!(code, 0, "{args:?}: {text}");
        text.lines().map(|it| serde_json::from_str(it).unwrap()).collect()
    }

    /// A page of the operations port.
    pub(crate) async fn page(&self, path: &str) -> String {
        let uri = format!("http://{}{path}", self.operations).parse().unwrap();
        let answer = whole(http().get(uri).await.unwrap()).await;
        String::from_utf8(answer.body.to_vec()).unwrap()
    }

    /// Waits until no copy is under way.
    pub(crate) async fn is_quiet(&self) {
        until("no copy is under way", || async {
            self.metric("crossfade_mirror_in_flight ").await < 0.5
        })
        .await;
    }

    /// The value of a metric, 0 where it has none; all series whose name and labels begin so, added.
    pub(crate) async fn metric(&self, series: &str) -> f64 {
        let page = self.page("/metrics").await;
        let values = page.lines().filter(|it| it.starts_with(series));
        values.filter_map(|it| it.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }
}

/// An answer, whole.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: hyper::HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |it| it.to_str().unwrap())
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

pub(crate) async fn whole(response: Response<Incoming>) -> Answer {
    let (head, body) = response.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    Answer { status: head.status.as_u16(), headers: head.headers, body }
}

/// Says that a test was skipped where the harness cannot swallow it.
pub(crate) fn skipped(why: &str) {
    use std::io::Write as _;
    std::io::stderr().write_all(format!("\nSKIPPED {why}\n").as_bytes()).unwrap();
}

/// How often something is tried: so often on every run, or as a variable says for a longer one.
pub(crate) fn times(variable: &str, usual: usize) -> usize {
    let asked = std::env::var_os(variable);
    asked.map_or(usual, |it| it.to_str().unwrap().parse().unwrap())
}

/// Waits until something holds, by looking again and again; fails after [`SOON`].
pub(crate) async fn until<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let ends = Instant::now() + SOON;
    while !holds().await {
        assert!(Instant::now() < ends, "never came true: {what}");
        sleep(Duration::from_millis(20)).await;
    }
}

/// A rollout of one stage that mirrors and serves so much, and proves nothing for an hour.
pub(crate) fn rollout(serve: &str, mirror: &str) -> String {
    format!(
        "[rollout.chat]\ncandidate = \"candidate\"\nautostart = true\n\
         gates = {{ latency_p99 = \"off\", judge_score = \"off\" }}\n\
         stage = [{{ name = \"only\", serve = \"{serve}\", mirror = \"{mirror}\", duration = \"1h\", samples = 100 }}]\n"
    )
}

/// A provider that hangs, is dead, or fails.
pub(crate) fn faulty(fault: Fault) -> impl FnOnce(&mut ProviderPlan, &mut ProviderPlan) {
    move |_, candidate| candidate.fault = fault
}

/// Answers that take so long.
pub(crate) fn slow(ms: u32) -> Latency {
    Latency::Fixed { first_byte_ms: ms, total_ms: ms }
}
