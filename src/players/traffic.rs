//! Callers that ask what the rows ask, and count everything that goes wrong for them.

use std::{ops::Range, pin::pin, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::{Request, Response, body::Incoming};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use tokio::{
    task::JoinSet,
    time::{self, Instant, Interval, MissedTickBehavior},
};

use super::{
    Delivery, Row, Rows, TrafficReport,
    dice::Dice,
    traffic_answer::Said,
    traffic_report::{Done, Failure, Matched},
};
use crate::domain::Share;

/// How long a caller waits for the end of an answer.
const ANSWER_WAIT_MAX: Duration = Duration::from_mins(2);
/// Longest answer a caller reads, in bytes.
const ANSWER_LEN_MAX: usize = 16 << 20;
/// Longest pause between two calls.
const PERIOD_MAX: Duration = Duration::from_hours(1);
/// Shortest, so that a rate without bound is not an endless loop of ticks in the past.
const PERIOD_MIN: Duration = Duration::from_micros(1);

/// Callers of an OpenAI-compatible server, over plain HTTP.
#[derive(Clone, Debug)]
pub struct Traffic {
    /// As an SDK wants it: `http://127.0.0.1:8080/v1`.
    pub base_url: String,
    /// The model to ask for.
    pub model: String,
    /// Headers of every call; `{n}` in a value becomes the number of the call.
    pub headers: Vec<(String, String)>,
    /// How fast.
    pub pace: Pace,
    /// The share of calls that ask for a stream.
    pub stream_share: Share,
    /// Chooses the order of the rows and which calls stream.
    pub seed: u64,
}

/// How fast calls follow each other.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pace {
    /// So many at a time, each followed by the next as soon as it is over.
    Closed {
        /// Calls at a time, at least 1.
        in_flight: usize,
    },
    /// So many per second, evenly; late only when too many are in flight.
    Paced {
        /// Calls per second.
        rate: f64,
        /// Most calls at a time, at least 1.
        in_flight_max: usize,
    },
}

/// Why no call can be made.
#[derive(Debug, thiserror::Error)]
#[error("could not make a request to `{base_url}`; write it as http://host:port/v1")]
pub struct TrafficError {
    base_url: String,
    #[source]
    error: hyper::http::Error,
}

type Caller = Client<HttpConnector, Full<Bytes>>;

impl Traffic {
    /// Makes the calls with these numbers, or as many as there is time for before `stop`, and
    /// waits for their answers.
    ///
    /// A pass sends every row once, in an order of its own; call `n` belongs to pass
    /// `n / rows.len()`. So a range goes on where the one before it ended.
    ///
    /// # Errors
    /// When the URL or a header is not one. What happens to calls is in the report.
    pub async fn run(
        &self,
        rows: &Arc<Rows>,
        calls: Range<usize>,
        stop: impl Future<Output = ()>,
    ) -> Result<TrafficReport, TrafficError> {
        let caller = caller();
        let mut report = TrafficReport::default();
        let mut flying: JoinSet<Done> = JoinSet::new();
        let mut turns = self.pace.turns();
        let mut order = Order::new(self.seed, rows.len());
        let mut stop = pin!(stop);
        for n in calls {
            tokio::select! {
                biased;
                () = &mut stop => break,
                () = turn(&mut turns, &mut flying, &mut report, self.pace.in_flight_max()) => {}
            }
            let Some(index) = order.row(n) else { break };
            let delivery = self.delivery(n);
            let request = self.request(rows, (n, index), delivery)?;
            let (caller, rows) = (caller.clone(), Arc::clone(rows));
            flying.spawn(async move { call(&caller, request, rows.get(index), delivery).await });
        }
        while let Some(done) = flying.join_next().await {
            count(&mut report, done);
        }
        Ok(report)
    }

    fn delivery(&self, n: usize) -> Delivery {
        if self.stream_share.includes(&self.seed.to_string(), &n.to_string()) {
            Delivery::Stream
        } else {
            Delivery::Whole
        }
    }

    fn request(
        &self,
        rows: &Rows,
        (n, index): (usize, usize),
        delivery: Delivery,
    ) -> Result<Request<Full<Bytes>>, TrafficError> {
        let body = rows.request(index, &self.model, delivery).unwrap_or_default();
        let url = format!("{}/chat/completions", self.base_url.trim_end_matches('/'));
        let mut request = Request::post(url).header("content-type", "application/json");
        for (name, value) in &self.headers {
            request = request.header(name, value.replace("{n}", &n.to_string()));
        }
        request
            .body(Full::from(body.to_string()))
            .map_err(|error| TrafficError { base_url: self.base_url.clone(), error })
    }
}

impl Pace {
    fn in_flight_max(self) -> usize {
        match self {
            Self::Closed { in_flight } => in_flight.max(1),
            Self::Paced { in_flight_max, .. } => in_flight_max.max(1),
        }
    }

    /// The ticks to wait for, if any.
    fn turns(self) -> Option<Interval> {
        match self {
            Self::Closed { .. } => None,
            Self::Paced { rate, .. } => {
                let period = Duration::try_from_secs_f64(1.0 / rate).unwrap_or(PERIOD_MAX);
                let mut turns = time::interval(period.clamp(PERIOD_MIN, PERIOD_MAX));
                turns.set_missed_tick_behavior(MissedTickBehavior::Burst);
                Some(turns)
            }
        }
    }
}

/// The rows in the order of a pass.
struct Order {
    seed: u64,
    pass: Option<usize>,
    rows: Vec<usize>,
}

impl Order {
    fn new(seed: u64, len: usize) -> Self {
        Self { seed, pass: None, rows: (0..len).collect() }
    }

    /// The row of this call; none when there are no rows.
    fn row(&mut self, n: usize) -> Option<usize> {
        let pass = n.checked_div(self.rows.len())?;
        if self.pass != Some(pass) {
            self.pass = Some(pass);
            let place = |row: &usize| Dice::new(self.seed, &format!("{pass}/{row}")).roll();
            self.rows.sort_by_cached_key(place);
        }
        self.rows.get(n % self.rows.len()).copied()
    }
}

/// Waits until the next call may be made. May be dropped while it waits.
async fn turn(
    turns: &mut Option<Interval>,
    flying: &mut JoinSet<Done>,
    report: &mut TrafficReport,
    in_flight_max: usize,
) {
    if let Some(turns) = turns {
        turns.tick().await;
    }
    while let Some(done) = flying.try_join_next() {
        count(report, done);
    }
    while in_flight_max <= flying.len() {
        match flying.join_next().await {
            Some(done) => count(report, done),
            None => return,
        }
    }
}

fn count(report: &mut TrafficReport, done: Result<Done, tokio::task::JoinError>) {
    match done {
        Ok(done) => report.add(&done),
        Err(error) => tracing::error!(%error, "a call of the traffic panicked"),
    }
}

fn caller() -> Caller {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    Client::builder(TokioExecutor::new()).build(connector)
}

async fn call(
    caller: &Caller,
    request: Request<Full<Bytes>>,
    row: Option<&Row>,
    delivery: Delivery,
) -> Done {
    let start = Instant::now();
    let mut first_byte = Duration::ZERO;
    let asking = ask(caller, request, &mut first_byte, start);
    let body = time::timeout(ANSWER_WAIT_MAX, asking).await.unwrap_or(Err(Failure::Late));
    let total = start.elapsed();
    let said = body.and_then(|body| match delivery {
        Delivery::Whole => Said::whole(&body),
        Delivery::Stream => Said::stream(&body),
    });
    let result = said.map(|said| row.map_or(Matched::Foreign, |row| said.matched(row)));
    Done { result, first_byte, total }
}

/// The body of the answer, and when it began.
async fn ask(
    caller: &Caller,
    request: Request<Full<Bytes>>,
    first_byte: &mut Duration,
    start: Instant,
) -> Result<Bytes, Failure> {
    let response = caller.request(request).await.map_err(|_| Failure::Unreachable)?;
    let status = response.status();
    let body = read(response, first_byte, start).await;
    if status.is_success() { body } else { Err(Failure::Status(status.as_u16())) }
}

async fn read(
    mut response: Response<Incoming>,
    first_byte: &mut Duration,
    start: Instant,
) -> Result<Bytes, Failure> {
    let mut body = BytesMut::new();
    while let Some(frame) = response.frame().await {
        let Ok(data) = frame.map_err(|_| Failure::Broken)?.into_data() else { continue };
        if body.is_empty() {
            *first_byte = start.elapsed();
        }
        if ANSWER_LEN_MAX < body.len() + data.len() {
            return Err(Failure::Broken);
        }
        body.extend_from_slice(&data);
    }
    Ok(body.freeze())
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, future::pending};

    use super::*;
    use crate::players::{
        Fault, Provider, ProviderPlan, SyntheticModel, rows::tests::recorded, synthetic,
    };

    fn rows() -> Arc<Rows> {
        let model = |name: &str| SyntheticModel { name: name.to_owned(), quality: 0.8 };
        Arc::new(synthetic(60, 3, &[model("big"), model("small")]))
    }

    async fn provider(rows: &Arc<Rows>, plan: ProviderPlan) -> Provider {
        let free = "127.0.0.1:0".parse().unwrap();
        Provider::start(Arc::clone(rows), plan, free).await.unwrap()
    }

    fn traffic(provider: &Provider) -> Traffic {
        Traffic {
            base_url: format!("http://{}/v1", provider.address()),
            model: "gpt-x".to_owned(),
            headers: vec![("x-user".to_owned(), "user-{n}".to_owned())],
            pace: Pace::Closed { in_flight: 8 },
            stream_share: Share::from_basis_points(5_000).unwrap(),
            seed: 1,
        }
    }

    #[tokio::test]
    async fn each_row_is_sent_once_per_pass_and_every_answer_is_checked() {
        let rows = rows();
        let provider = provider(&rows, ProviderPlan::new("small")).await;
        let traffic = traffic(&provider);
        let report = traffic.run(&rows, 0..60, pending()).await.unwrap();
        assert_eq!((report.sent, report.ok, report.mismatches, report.failed()), (60, 60, 0, 0));
        let seen = provider.seen();
        let mut bodies: Vec<_> = seen.iter().map(|it| it.body.clone()).collect();
        let streams = bodies.iter().filter(|it| it.ends_with(b"}}")).count();
        bodies.sort();
        bodies.dedup();
        assert_eq!(bodies.len(), 60);
        assert!((15..45).contains(&streams), "{streams} streams");
        assert!(seen.iter().any(|it| it.headers["x-user"] == "user-59"));
        assert!(report.first_byte.permille(500) <= report.total.permille(500));
    }

    #[tokio::test]
    async fn every_failure_a_caller_sees_is_counted() {
        let rows = rows();
        let provider = provider(&rows, ProviderPlan::new("small")).await;
        let traffic = traffic(&provider);
        let broken = [
            (Fault::Errors(503), vec![Failure::Status(503)]),
            (Fault::CutBody, vec![Failure::Broken]),
            (Fault::BadJson, vec![Failure::Broken]),
            (Fault::Dead, vec![Failure::Unreachable]),
        ];
        for (fault, failures) in broken {
            provider.set_fault(fault);
            let report = traffic.run(&rows, 0..10, pending()).await.unwrap();
            let wanted: BTreeMap<Failure, u64> = failures.into_iter().map(|it| (it, 10)).collect();
            assert_eq!((report.failures, report.sent), (wanted, 10), "{fault:?}");
        }
    }

    #[tokio::test]
    async fn an_answer_nobody_gave_is_a_mismatch() {
        let known = rows();
        let other = SyntheticModel { name: "other".to_owned(), quality: 0.8 };
        let provider =
            provider(&Arc::new(synthetic(60, 3, &[other])), ProviderPlan::new("other")).await;
        let report = traffic(&provider).run(&known, 0..60, pending()).await.unwrap();
        assert_eq!(report.ok, 60);
        assert!(48 <= report.mismatches, "{report:?}");
    }

    #[tokio::test]
    async fn paced_calls_take_their_time_and_stop_ends_them() {
        let rows = rows();
        let provider = provider(&rows, ProviderPlan::new("small")).await;
        let pace = Pace::Paced { rate: 200.0, in_flight_max: 4 };
        let traffic = Traffic { pace, ..traffic(&provider) };
        let start = Instant::now();
        let report = traffic.run(&rows, 0..21, pending()).await.unwrap();
        assert!(Duration::from_millis(100) <= start.elapsed());
        assert_eq!(report.ok, 21);
        let stop = time::sleep(Duration::from_millis(500));
        let report = traffic.run(&rows, 21..usize::MAX, stop).await.unwrap();
        assert!(0 < report.sent && report.sent == report.ok, "{report:?}");
        let wrong = Traffic { base_url: "not a url".to_owned(), ..traffic };
        assert!(wrong.run(&rows, 0..1, pending()).await.is_err());
    }

    #[tokio::test]
    async fn recorded_answers_come_back_as_they_were() {
        let Some(rows) = recorded("tools/bfcl.jsonl") else { return };
        let plan = ProviderPlan::new("gpt-4o-2024-08-06-FC");
        let provider = provider(&rows, plan).await;
        let report = traffic(&provider).run(&rows, 0..rows.len(), pending()).await.unwrap();
        assert_eq!((report.sent, report.mismatches), (687, 0));
        assert_eq!(provider.stats().unknown, 0);
    }
}
