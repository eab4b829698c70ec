//! The real program between two evil providers, and callers who look at every byte.

use std::{fmt::Write as _, net::SocketAddr, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{Request, Response, body::Incoming};
use tokio::{
    net::TcpListener,
    time::{Instant, timeout},
};

use super::Evil;
use crate::world::{Dir, Http, SOON, Serve, http, rollout, until};

/// The program, a primary that is good until told otherwise, and a candidate.
pub(crate) struct Rig {
    pub(crate) serve: Serve,
    pub(crate) primary: Evil,
    pub(crate) candidate: Evil,
    pub(crate) http: Http,
    _dir: Dir,
}

/// How an answer is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Whole,
    Stream,
}

pub(crate) const WAYS: [Way; 2] = [Way::Whole, Way::Stream];

/// What a caller got, also of an answer that broke off.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Got {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) provider: String,
    pub(crate) body: Vec<u8>,
    pub(crate) ended: End,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Whole,
    Broken,
}

impl Rig {
    /// Both providers good, with this rollout between them or other keys.
    pub(crate) async fn new(more: &str) -> Self {
        let candidate = Evil::start("candidate").await;
        let url = candidate.url();
        Self::to(&url, candidate, more).await
    }

    /// The same with another way to the candidate.
    pub(crate) async fn to(url: &str, candidate: Evil, more: &str) -> Self {
        let primary = Evil::start("primary").await;
        let dir = Dir::new().await;
        let mut text = format!(
            "listen = \"127.0.0.1:0\"\ncontrol = \"127.0.0.1:0\"\noperations = \"127.0.0.1:0\"\n\
             store = \"{}\"\nprimary = \"primary\"\n",
            dir.path().join("store").display()
        );
        for (name, url) in [("primary", primary.url().as_str()), ("candidate", url)] {
            // Callers are not kept from it, so that they meet its faults.
            write!(
                text,
                "[provider.{name}]\nbase_url = \"{url}\"\nkey = \"none\"\nbreaker = \"off\"\n"
            )
            .unwrap();
        }
        text.push_str(more);
        let file = dir.path().join("crossfade.toml");
        std::fs::write(&file, text).unwrap();
        let serve = Serve::start(&file).await;
        Self { serve, primary, candidate, http: http(), _dir: dir }
    }

    /// Waits until requests are copied or moved, and nothing is under way.
    pub(crate) async fn is_open(&self) {
        until("the candidate is asked", || async {
            self.ask("probe", Way::Whole).await;
            0.5 < self.serve.metric("crossfade_requests_total{provider=\"candidate\"").await
        })
        .await;
        self.is_quiet().await;
    }

    /// Waits until no copy is under way.
    pub(crate) async fn is_quiet(&self) {
        self.serve.is_quiet().await;
    }

    /// Asks the program.
    pub(crate) async fn ask(&self, user: &str, way: Way) -> Got {
        self.ask_as(&[], user, way).await
    }

    /// The same; none when the connection ends before an answer begins.
    pub(crate) async fn ask_or_none(&self, user: &str, way: Way) -> Option<Got> {
        Some(read(try_begin(&self.http, self.serve.data, &[], &body(user, way)).await.ok()?).await)
    }

    /// The same with these headers.
    pub(crate) async fn ask_as(&self, headers: &[(&str, &str)], user: &str, way: Way) -> Got {
        read(begin_as(&self.http, self.serve.data, headers, &body(user, way)).await).await
    }

    /// The body of a question.
    pub(crate) fn question(user: &str) -> String {
        body(user, Way::Whole)
    }

    /// Sends any body.
    pub(crate) async fn send(&self, body: &str) -> Got {
        read(begin(&self.http, self.serve.data, body).await).await
    }

    /// Asks the primary itself.
    pub(crate) async fn direct(&self, user: &str, way: Way) -> Got {
        read(begin(&self.http, self.primary.address, &body(user, way)).await).await
    }

    /// Copies that were due, as far as they are accounted for: asked, under way, or dropped.
    pub(crate) async fn accounted(&self) -> f64 {
        let page = self.serve.page("/metrics").await;
        let dropped = ["busy", "memory", "daily_cap"]
            .map(|it| format!("crossfade_mirror_skipped_total{{reason=\"{it}\"}}"));
        let asked = ["primary", "candidate"]
            .map(|it| format!("crossfade_requests_total{{provider=\"{it}\",role=\"mirror\""));
        let under_way = "crossfade_mirror_in_flight ".to_owned();
        let series: Vec<String> = dropped.into_iter().chain(asked).chain([under_way]).collect();
        let lines = page.lines().filter(|line| series.iter().any(|it| line.starts_with(it)));
        lines.map(|it| it.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
    }

    /// Waits until every copy that was due since then is accounted for, and no more than those.
    pub(crate) async fn accounts_for(&self, due: usize, since: f64) {
        let due = f64::from(u32::try_from(due).unwrap());
        self.is_quiet().await;
        until("every copy is accounted for", || async {
            (self.accounted().await - since - due).abs() < 0.5
        })
        .await;
    }

    /// What the process holds in memory, in KiB.
    pub(crate) fn memory(&self) -> u64 {
        status(&self.serve, "VmRSS")
    }

    /// The most that it ever held, in KiB.
    pub(crate) fn memory_peak(&self) -> u64 {
        status(&self.serve, "VmHWM")
    }

    /// Files and sockets that the process has open.
    pub(crate) fn files(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.serve.pid())).unwrap().count()
    }
}

fn status(serve: &Serve, field: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", serve.pid())).unwrap();
    let line = status.lines().find(|it| it.starts_with(field)).unwrap().to_owned();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// In which callers say how many seconds they wait: half of them are the candidate's.
const PATIENCE: &str = "x-crossfade-deadline";
/// Of those who meet a candidate that says nothing.
pub(crate) const HASTY: (&str, &str) = (PATIENCE, "2");
/// Of all others, who are not kept waiting by a busy machine.
const PATIENT: (&str, &str) = (PATIENCE, "60");

/// A rollout on all traffic that no gate ends.
pub(crate) fn patient(serve: &str, mirror: &str) -> String {
    rollout(serve, mirror).replace("gates = { ", "gates = { error_rate = \"+99pp\", ")
}

/// A chat request of a user, who is named in its answer.
pub(crate) fn body(user: &str, way: Way) -> String {
    serde_json::json!({
        "model": "m", "user": &user[..user.len().min(40)], "stream": way == Way::Stream,
        "messages": [{"role": "user", "content": user}],
    })
    .to_string()
}

/// Sends a request and waits for the head of its answer.
pub(crate) async fn begin(http: &Http, address: SocketAddr, body: &str) -> Response<Incoming> {
    begin_as(http, address, &[], body).await
}

async fn begin_as(
    http: &Http,
    address: SocketAddr,
    headers: &[(&str, &str)],
    body: &str,
) -> Response<Incoming> {
    try_begin(http, address, headers, body).await.unwrap()
}

async fn try_begin(
    http: &Http,
    address: SocketAddr,
    headers: &[(&str, &str)],
    body: &str,
) -> Result<Response<Incoming>, hyper_util::client::legacy::Error> {
    let mut request = Request::post(format!("http://{address}/v1/chat/completions"))
        .header("content-type", "application/json");
    let says = headers.iter().any(|(name, _)| *name == PATIENCE);
    for (name, value) in headers.iter().chain((!says).then_some(&PATIENT)) {
        request = request.header(*name, *value);
    }
    let request = request.body(Full::new(Bytes::from(body.to_owned())));
    timeout(SOON, http.request(request.unwrap())).await.unwrap()
}

/// Reads an answer as far as it comes.
pub(crate) async fn read(response: Response<Incoming>) -> Got {
    let (head, mut incoming) = response.into_parts();
    let (mut body, mut ended) = (Vec::new(), End::Whole);
    let ends = Instant::now() + SOON;
    loop {
        let Ok(frame) = tokio::time::timeout_at(ends, incoming.frame()).await else {
            panic!("no end in time of {head:?}: {}", String::from_utf8_lossy(&body));
        };
        let Some(frame) = frame else { break };
        let Ok(frame) = frame else {
            ended = End::Broken;
            break;
        };
        body.extend_from_slice(frame.data_ref().unwrap());
    }
    let text =
        |it: &hyper::header::HeaderValue| String::from_utf8_lossy(it.as_bytes()).into_owned();
    let provider = head.headers.get("x-crossfade-provider").map(text).unwrap_or_default();
    let mut headers: Vec<_> =
        head.headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect();
    // Ours, and the one that every server of HTTP adds.
    headers.retain(|(name, _)| !name.starts_with("x-crossfade-") && name != "date");
    headers.sort();
    Got { status: head.status.as_u16(), headers, provider, body, ended }
}

impl Got {
    /// The same answer, whoever it came by.
    pub(crate) fn same(&self, other: &Self) {
        assert_eq!((self.status, &self.headers), (other.status, &other.headers));
        assert_eq!(String::from_utf8_lossy(&self.body), String::from_utf8_lossy(&other.body));
        assert_eq!((self.ended, other.ended), (End::Whole, End::Whole));
    }

    /// Whole, and from this provider to this user alone.
    pub(crate) fn is_from(&self, provider: &str, user: &str) {
        let text = String::from_utf8_lossy(&self.body);
        assert_eq!((self.status, self.ended), (200, End::Whole), "{text}");
        assert_eq!(self.provider, provider, "{text}");
        let said: String = if text.starts_with("data: ") {
            let events = text.split("data: ").filter_map(|it| serde_json::from_str(it).ok());
            let part = |it: serde_json::Value| {
                Some(it["choices"][0]["delta"]["content"].as_str()?.to_owned())
            };
            assert!(text.ends_with("data: [DONE]\n\n"), "{text}");
            events.filter_map(part).collect()
        } else {
            let value: serde_json::Value = serde_json::from_str(&text).unwrap();
            value["choices"][0]["message"]["content"].as_str().unwrap().to_owned()
        };
        assert_eq!(said, format!("{provider} answers {user}"));
    }
}

/// A port on which connections are accepted by the system, and by nobody else.
pub(crate) async fn deaf() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.unwrap()
}

/// How long something may take that has to happen at once, on a busy machine.
pub(crate) const AT_ONCE: Duration = Duration::from_secs(15);
