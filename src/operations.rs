//! The operations port: metrics for Prometheus, liveness and readiness, and feedback.

use std::{
    convert::Infallible,
    pin::pin,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{
    Method, Request, Response, StatusCode,
    body::Incoming,
    header::{CONNECTION, CONTENT_TYPE, HeaderValue},
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::json;
use tokio::{net::TcpListener, time::timeout};

use crate::api;
use crate::controller::Handle;
use crate::domain::Name;
use crate::listeners::Arrivals;
use crate::memory::Memory;
use crate::store::{Pairs, RecorderHandle};
use crate::tasks::{self, BoxError, Losses, Pool, Stop};
use crate::telemetry::Metrics;
use crate::upstream::{Standing, Upstream};

/// Connections at the same time.
const CONNECTIONS_MAX: usize = 64;

/// How long a connection may stay silent: one that says nothing takes nobody's place for long.
const HEADER_WAIT: Duration = Duration::from_secs(10);

/// How long at the end it is waited for what has been asked.
const LAST_WAIT: Duration = Duration::from_millis(500);

/// Most bytes of one feedback.
const FEEDBACK_LEN_MAX: usize = 16 << 10;

/// What the port shows. The parts come up after the port does.
#[derive(Debug, Default)]
pub struct Operations {
    /// What we count.
    pub metrics: Arc<Metrics>,
    /// Copies until they are pairs.
    pub copies: Option<Pool>,
    /// Every provider.
    pub upstream: Option<Upstream>,
    /// What copies and answers hold.
    pub memory: Option<Memory>,
    /// The controller, once it stands.
    pub controller: OnceLock<Handle>,
    /// The store, once it is open.
    pub pairs: Arc<OnceLock<Pairs>>,
    /// Who writes to it, once it is open.
    pub recorder: Arc<OnceLock<RecorderHandle>>,
    /// Who takes feedback, once it can be.
    pub people: OnceLock<Arc<api::Pairs>>,
    /// Why there is no store, if so.
    pub problem: Mutex<Option<String>>,
    /// What has ended before its time.
    pub losses: Losses,
}

/// Answers until told to stop, which is after everybody else; `life` is theirs.
///
/// # Errors
/// None of its own.
pub async fn serve(
    operations: Arc<Operations>,
    listener: TcpListener,
    mut life: Stop,
    mut stop: Stop,
) -> Result<(), BoxError> {
    let places = Pool::new(CONNECTIONS_MAX);
    let mut arrivals = Arrivals::tcp("operations", listener);
    loop {
        let stream = tokio::select! {
            stream = arrivals.next() => stream,
            () = stop.wait() => break,
            () = life.left() => break,
        };
        let Some(place) = places.try_enter() else { continue };
        let (operations, mut life, mut stop) =
            (Arc::clone(&operations), life.clone(), stop.clone());
        Pool::run(place, "operations", async move {
            let phase = life.clone();
            let service = service_fn(async |request: Request<Incoming>| {
                let mut answer = match (request.method(), request.uri().path()) {
                    (&Method::POST, "/feedback") => operations.feedback(request).await,
                    _ => operations.answer(&request, &phase),
                };
                if phase.has_left() {
                    // What is asked next is for the other process.
                    answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                }
                Ok::<_, Infallible>(answer)
            });
            let mut builder = hyper::server::conn::http1::Builder::new();
            builder.timer(TokioTimer::new()).header_read_timeout(HEADER_WAIT);
            let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
            tokio::select! {
                ended = connection.as_mut() => return drop(ended),
                () = stop.wait() => {}
                () = life.left() => {}
            }
            // Who has just come may yet ask; hyper's graceful end would close on them.
            drop(timeout(LAST_WAIT, connection).await);
        });
    }
    drop(arrivals);
    stop.wait().await;
    drop(timeout(LAST_WAIT, places.emptied()).await);
    Ok(())
}

impl Operations {
    /// Shows why there is no store; says whether that is new.
    pub fn lacks_store(&self, why: Option<String>) -> bool {
        let mut problem = self.problem.lock().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut *problem, why);
        before != *problem
    }

    /// Takes what an application says of an answer. A page in a browser cannot: without asking
    /// first it may not send JSON.
    async fn feedback(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let told = |status: StatusCode, reason: &str, message: &str| {
            let error = json!({ "reason": reason, "message": message, "hint": "" });
            let body = json!({ "error": error });
            text(status, "application/json", format!("{body}\n"))
        };
        let kind = request.headers().get(CONTENT_TYPE).and_then(|it| it.to_str().ok());
        if !kind.is_some_and(|it| it.starts_with("application/json")) {
            let message = "send it as `content-type: application/json`";
            return told(StatusCode::UNSUPPORTED_MEDIA_TYPE, "NOT_JSON", message);
        }
        let Some(people) = self.people.get() else {
            let message = "the controller is not up yet; try again in a moment";
            return told(StatusCode::SERVICE_UNAVAILABLE, "STARTING", message);
        };
        let body = Limited::new(request.into_body(), FEEDBACK_LEN_MAX).collect();
        let Ok(Ok(body)) = timeout(HEADER_WAIT, body).await else {
            let message = format!("feedback is at most {FEEDBACK_LEN_MAX} bytes, sent at once");
            return told(StatusCode::PAYLOAD_TOO_LARGE, "TOO_LONG", &message);
        };
        let (status, body) = people.feedback_json(&body.to_bytes()).await;
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        text(status, "application/json", format!("{body}\n"))
    }

    fn answer(&self, request: &Request<Incoming>, life: &Stop) -> Response<Full<Bytes>> {
        if request.method() != Method::GET && request.method() != Method::HEAD {
            return text(
                StatusCode::METHOD_NOT_ALLOWED,
                "text/plain",
                "only GET, and POST of /feedback\n".to_owned(),
            );
        }
        match request.uri().path() {
            "/metrics" => {
                let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
                text(StatusCode::OK, kind, self.page())
            }
            "/healthz" => text(StatusCode::OK, "text/plain", "ok\n".to_owned()),
            "/readyz" if life.is_draining() => draining(),
            "/readyz" => self.ready(),
            _ => {
                let help =
                    "there is /metrics, /healthz and /readyz, and POST /feedback\n".to_owned();
                text(StatusCode::NOT_FOUND, "text/plain", help)
            }
        }
    }

    fn page(&self) -> String {
        self.metrics.copying(self.copies.as_ref().map_or(0, Pool::busy));
        for (name, standing) in self.breakers() {
            let open = match standing {
                Standing::Closed => 0,
                Standing::HalfOpen => 1,
                Standing::Open => 2,
            };
            self.metrics.breaker(name, open);
        }
        let counters = self.pairs.get().map(Pairs::counters).unwrap_or_default();
        let held = self.memory.as_ref().map_or(0, Memory::bytes);
        let held = u64::try_from(held).unwrap_or(u64::MAX);
        self.metrics.page(&[
            ("crossfade_side_memory_bytes", "Held by copies and kept answers", held),
            ("crossfade_panics", "Panics since the start; each cost one task", tasks::panics()),
            ("crossfade_store_pairs", "Pairs in the store", counters.pairs),
            ("crossfade_store_bytes", "Bytes of the store on disk", counters.bytes),
            (
                "crossfade_store_failed",
                "Pairs the store could not write since the start",
                counters.failed,
            ),
            (
                "crossfade_store_dropped",
                "Pairs dropped before the store since the start",
                counters.dropped,
            ),
        ])
    }

    /// How the breaker of each provider stands, if it has one.
    fn breakers(&self) -> impl Iterator<Item = (&Name, Standing)> {
        let providers = self.upstream.iter().flat_map(Upstream::providers);
        providers.filter_map(|(name, it)| Some((name, it.guard().standing()?)))
    }

    /// Ready as soon as the primary is served; what else is missing is named, with status 200,
    /// because taking a proxy that serves out of service helps nobody.
    fn ready(&self) -> Response<Full<Bytes>> {
        let problem = self.problem.lock().unwrap_or_else(PoisonError::into_inner);
        let mut missing: Vec<String> = problem.clone().into_iter().collect();
        drop(problem);
        missing.extend(self.losses.list());
        match self.controller.get() {
            Some(handle) => missing.extend(handle.views().degraded.clone()),
            None => missing.push("the controller is not up yet".to_owned()),
        }
        if self.recorder.get().is_some_and(RecorderHandle::has_ended) {
            missing.push("the recorder has ended, no pair is stored; see the log".to_owned());
        }
        missing.dedup();
        let status = if missing.is_empty() { "ready" } else { "degraded" };
        let open = self.breakers().filter(|(_, standing)| *standing != Standing::Closed);
        let open: Vec<&str> = open.map(|(name, _)| name.as_str()).collect();
        let body = json!({
            "status": status, "serving": "primary", "problems": missing, "open_breakers": open
        });
        text(StatusCode::OK, "application/json", format!("{body}\n"))
    }
}

/// Others are to come no more; whoever comes is served until the port closes.
fn draining() -> Response<Full<Bytes>> {
    let body = json!({ "status": "draining", "serving": "primary", "problems": [] });
    text(StatusCode::SERVICE_UNAVAILABLE, "application/json", format!("{body}\n"))
}

fn text(status: StatusCode, kind: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;
    use crate::domain::Timestamp;
    use crate::store::{Limits, Recorder};

    #[tokio::test]
    async fn a_recorder_that_has_ended_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let limits =
            Limits { bytes_max: 1 << 30, age_ms_max: 1_000, free_bytes_min: 0, queue_len_max: 1 };
        let operations = Operations::default();
        let problems = async || {
            let body = operations.ready().into_body().collect().await.unwrap().to_bytes();
            String::from_utf8(body.to_vec()).unwrap()
        };
        let pairs = Pairs::open(dir.path(), limits).unwrap();
        let (handle, thread) = Recorder::start(pairs, || Timestamp(0)).unwrap();
        operations.recorder.set(handle).unwrap();
        assert!(!problems().await.contains("recorder"));
        thread.join().unwrap();
        assert!(problems().await.contains("the recorder has ended"));
    }
}
