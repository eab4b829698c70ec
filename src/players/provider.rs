//! A provider that answers known prompts as a recorded model did.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use hyper::{Method, StatusCode, header::HeaderValue};
use serde_json::json;
use tokio::time::{self, Instant};

use super::{
    Fault, ProviderPlan, Row, Rows, Seen, Stats,
    completion::Completion,
    dice::Dice,
    prompt::Asked,
    reply,
    row::Output,
    server::{CHAT_PATH, Fate, Player, Reply, Server},
};

/// A running provider: an OpenAI-compatible server on a real socket.
///
/// It serves `POST /v1/chat/completions`, whole or streamed, and `GET /v1/models`. Every
/// answer says in the headers `x-replay-id` and `x-replay-model` which row and model it is.
/// Dropped, it closes its address and all connections.
#[derive(Debug)]
pub struct Provider {
    plan: Arc<Mutex<ProviderPlan>>,
    server: Server,
}

struct Recorded {
    rows: Arc<Rows>,
    plan: Arc<Mutex<ProviderPlan>>,
    latency_s_median: Option<f64>,
    /// Requests that some of which are to fail.
    asked: AtomicU64,
}

impl Provider {
    /// Starts a provider; port 0 takes any that is free.
    ///
    /// # Errors
    /// When no row has an answer of the model, or the address cannot be taken.
    pub async fn start(
        rows: Arc<Rows>,
        plan: ProviderPlan,
        address: SocketAddr,
    ) -> io::Result<Self> {
        let models = rows.models();
        if !models.contains(plan.model.as_str()) {
            let message = format!("no row has an answer of `{}`; recorded: {models:?}", plan.model);
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        let latency_s_median = rows.latency_s_median(&plan.model);
        let plan = Arc::new(Mutex::new(plan));
        let asked = AtomicU64::new(0);
        let player = Recorded { rows, plan: Arc::clone(&plan), latency_s_median, asked };
        Ok(Self { plan, server: Server::start(player, address).await? })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.server.address
    }

    /// What became of the requests so far.
    pub fn stats(&self) -> Stats {
        self.server.stats()
    }

    /// The last requests it received, at most 1000, oldest first.
    pub fn seen(&self) -> Vec<Seen> {
        self.server.seen()
    }

    /// Changes what is wrong with it, from the next request on.
    pub fn set_fault(&self, fault: Fault) {
        lock(&self.plan).fault = fault;
    }

    /// Closes its address and all connections, and waits until they are closed.
    pub async fn stop(self) {
        self.server.stop().await;
    }
}

impl Player for Recorded {
    async fn reply(&self, seen: &Seen) -> Reply {
        match (&seen.method, seen.path.as_str()) {
            (&Method::POST, CHAT_PATH) => self.chat(seen).await,
            (&Method::GET, "/v1/models") => self.models(),
            (_, _) => reply::no_such_route(),
        }
    }
}

impl Recorded {
    async fn chat(&self, seen: &Seen) -> Reply {
        let start = Instant::now();
        let plan = lock(&self.plan).clone();
        match plan.fault {
            Fault::Hang => match reply::hang().await {},
            Fault::Dead => return reply::close(),
            Fault::Errors(status) => return reply::failed(status, "the provider is in trouble"),
            Fault::Every(len) if self.asked.fetch_add(1, Relaxed).is_multiple_of(len) => {
                return reply::failed(500, "the provider is in trouble");
            }
            Fault::None | Fault::Every(_) | Fault::CutBody | Fault::StallBody | Fault::BadJson => {}
        }
        let asked: Asked = match serde_json::from_slice(&seen.body) {
            Ok(asked) => asked,
            Err(error) => return reply::failed(400, &format!("not a chat request: {error}")),
        };
        let key = asked.key().unwrap_or_default();
        let Some((row, output)) = self.find(&key, &plan.model) else {
            let message = format!("no row has an answer of `{}` to this prompt", plan.model);
            return reply::unknown(&message);
        };
        let seconds = output.latency_s.or(self.latency_s_median);
        let delays = plan.latency.delays(Dice::new(plan.seed, &key), seconds);
        if let Some(message) = error(&plan, &key, output) {
            time::sleep_until(start + delays.first_byte).await;
            return reply::failed(500, &message);
        }
        let name = format!("{}/{}", row.id, plan.model);
        let texts = Completion::new(&asked, &name, output).texts();
        let mut response = reply::deliver(texts, &asked, plan.fault, (start, delays)).await;
        for (name, value) in [("x-replay-id", &row.id), ("x-replay-model", &plan.model)] {
            if let Ok(value) = HeaderValue::from_str(value) {
                response.headers_mut().insert(name, value);
            }
        }
        Reply { fate: Fate::Answered, response: Some(response) }
    }

    fn find(&self, key: &str, model: &str) -> Option<(&Row, &Output)> {
        let row = self.rows.find(key, model)?;
        Some((row, row.outputs.get(model)?))
    }

    fn models(&self) -> Reply {
        let model = lock(&self.plan).model.clone();
        let model = json!({"id": model, "object": "model", "created": 0, "owned_by": "replay"});
        let list = json!({"object": "list", "data": [model]});
        let response = Some(reply::json_response(StatusCode::OK, &list));
        Reply { fate: Fate::Aside, response }
    }
}

/// Why this prompt gets an error instead of its answer, if it does.
fn error(plan: &ProviderPlan, key: &str, output: &Output) -> Option<String> {
    if output.error.is_some() {
        return output.error.clone();
    }
    let salt = format!("{}/{}", plan.seed, plan.model);
    let message = "The server had an error while processing your request.";
    plan.errors.includes(&salt, key).then(|| message.to_owned())
}

fn lock(plan: &Mutex<ProviderPlan>) -> MutexGuard<'_, ProviderPlan> {
    plan.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;
    use http_body_util::{BodyExt, Full};
    use hyper::{Request, Response, body::Incoming};
    use hyper_util::{
        client::legacy::{Client, Error},
        rt::TokioExecutor,
    };
    use serde_json::Value;

    use super::*;
    use crate::domain::Share;
    use crate::players::Latency;
    use crate::players::{Delivery, rows::tests::two_rows};

    async fn provider(plan: ProviderPlan) -> Provider {
        Provider::start(two_rows(), plan, "127.0.0.1:0".parse().unwrap()).await.unwrap()
    }

    async fn post(provider: &Provider, body: Value) -> Result<Response<Incoming>, Error> {
        let client = Client::builder(TokioExecutor::new()).build_http();
        let request = Request::post(format!("http://{}{CHAT_PATH}?a=1", provider.address()))
            .header("x-user", "7")
            .body(Full::<Bytes>::from(body.to_string()))
            .unwrap();
        client.request(request).await
    }

    async fn ask(provider: &Provider, row: usize, delivery: Delivery) -> Response<Incoming> {
        let body = two_rows().request(row, "gpt-x", delivery).unwrap();
        post(provider, body).await.unwrap()
    }

    async fn text(response: Response<Incoming>) -> String {
        let body = response.into_body().collect().await.unwrap().to_bytes();
        String::from_utf8(body.to_vec()).unwrap()
    }

    async fn json(response: Response<Incoming>) -> Value {
        serde_json::from_str(&text(response).await).unwrap()
    }

    #[tokio::test]
    async fn it_answers_as_recorded_and_echoes_the_model_asked_for() {
        let provider = provider(ProviderPlan::new("big")).await;
        let response = ask(&provider, 1, Delivery::Whole).await;
        assert_eq!(response.headers()["x-replay-id"], "call");
        assert_eq!(response.headers()["x-replay-model"], "big");
        let reply = json(response).await;
        assert_eq!(reply["model"], "gpt-x");
        assert_eq!(reply["choices"][0]["finish_reason"], "tool_calls");
        let call = &reply["choices"][0]["message"]["tool_calls"][0]["function"];
        assert_eq!(call["arguments"], "{\"city\":\"Oslo, Norway\"}");
        assert_eq!(reply["usage"]["total_tokens"], 59);

        let seen = provider.seen();
        assert_eq!((seen.len(), seen[0].path.as_str()), (1, CHAT_PATH));
        assert_eq!(seen[0].headers["x-user"], "7");
    }

    #[tokio::test]
    async fn a_stream_has_role_words_finish_usage_and_done() {
        let provider = provider(ProviderPlan::new("small")).await;
        let response = ask(&provider, 0, Delivery::Stream).await;
        assert_eq!(response.headers()["content-type"], "text/event-stream; charset=utf-8");
        let stream = text(response).await;
        let events: Vec<&str> = stream.split_terminator("\n\n").collect();
        assert_eq!(events.last(), Some(&"data: [DONE]"));
        let chunks: Vec<Value> = events[..events.len() - 1]
            .iter()
            .map(|it| serde_json::from_str(it.strip_prefix("data: ").unwrap()).unwrap())
            .collect();
        assert_eq!(chunks[0]["choices"][0]["delta"]["role"], "assistant");
        let words: Vec<&str> =
            chunks.iter().filter_map(|it| it["choices"][0]["delta"]["content"].as_str()).collect();
        assert!(4 < words.len());
        assert_eq!(words.concat(), "It reflects\n the sea.");
        let [.., finish, usage] = chunks.as_slice() else { panic!("too few chunks") };
        assert_eq!(finish["choices"][0]["finish_reason"], "stop");
        assert_eq!((&usage["choices"], finish["usage"].is_null()), (&json!([]), true));
        assert!(usage["usage"]["completion_tokens"].as_u64() > Some(1));
    }

    #[tokio::test]
    async fn tool_calls_stream_in_fragments() {
        let provider = provider(ProviderPlan::new("big")).await;
        let stream = text(ask(&provider, 1, Delivery::Stream).await).await;
        assert_eq!(stream.matches("\"name\":\"weather\"").count(), 1);
        assert!(2 < stream.matches("\"tool_calls\"").count());
    }

    #[tokio::test]
    async fn what_it_cannot_answer_is_said_in_the_words_of_openai() {
        let provider = provider(ProviderPlan::new("broken")).await;
        let recorded = json(ask(&provider, 0, Delivery::Stream).await).await;
        assert_eq!(recorded["error"]["message"], "Internal error occurred.");
        let unknown = ask(&provider, 1, Delivery::Whole).await;
        assert_eq!(unknown.status(), StatusCode::NOT_FOUND);
        assert_eq!(json(unknown).await["error"]["type"], "replay_unknown");
        let senseless = post(&provider, json!({"prompt": "hi"})).await.unwrap();
        assert_eq!(senseless.status(), StatusCode::BAD_REQUEST);
        let expected = Stats { requests: 3, answered: 0, errors: 2, unknown: 1 };
        assert_eq!(provider.stats(), expected);

        let nobody = ProviderPlan::new("nobody");
        let refused = Provider::start(two_rows(), nobody, provider.address()).await;
        assert!(refused.unwrap_err().to_string().contains("recorded: {\"big\""));
    }

    #[tokio::test]
    async fn faults_can_be_switched_while_it_runs() {
        let provider = provider(ProviderPlan::new("big")).await;
        provider.set_fault(Fault::Errors(429));
        let throttled = ask(&provider, 0, Delivery::Whole).await;
        assert_eq!(throttled.status(), StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(json(throttled).await["error"]["type"], "rate_limit_error");

        provider.set_fault(Fault::CutBody);
        for delivery in [Delivery::Whole, Delivery::Stream] {
            let cut = ask(&provider, 0, delivery).await;
            assert!(cut.into_body().collect().await.is_err(), "{delivery:?}");
        }
        provider.set_fault(Fault::BadJson);
        let bad = text(ask(&provider, 0, Delivery::Whole).await).await;
        assert!(serde_json::from_str::<Value>(&bad).is_err());

        provider.set_fault(Fault::Dead);
        let body = two_rows().request(0, "gpt-x", Delivery::Whole).unwrap();
        assert!(post(&provider, body).await.is_err());
        provider.set_fault(Fault::None);
        assert_eq!(ask(&provider, 0, Delivery::Whole).await.status(), StatusCode::OK);
    }

    #[tokio::test]
    async fn a_hanging_or_stalled_answer_never_ends() {
        let provider = provider(ProviderPlan::new("big")).await;
        let brief = Duration::from_millis(50);
        provider.set_fault(Fault::Hang);
        assert!(time::timeout(brief, ask(&provider, 0, Delivery::Whole)).await.is_err());
        provider.set_fault(Fault::StallBody);
        let stalled = ask(&provider, 0, Delivery::Stream).await;
        assert!(time::timeout(brief, stalled.into_body().collect()).await.is_err());
    }

    #[tokio::test]
    async fn whether_a_prompt_fails_depends_on_seed_and_prompt_alone() {
        let half = Share::from_basis_points(5_000).unwrap();
        let mut statuses = Vec::new();
        for seed in 0..20 {
            let plan = ProviderPlan { errors: half, seed, ..ProviderPlan::new("big") };
            let provider = provider(plan).await;
            let whole = ask(&provider, 0, Delivery::Whole).await.status();
            assert_eq!(whole, ask(&provider, 0, Delivery::Stream).await.status());
            statuses.push(whole);
        }
        assert!(statuses.contains(&StatusCode::OK));
        assert!(statuses.contains(&StatusCode::INTERNAL_SERVER_ERROR));
    }

    #[tokio::test]
    async fn delays_are_kept_whole_and_streamed() {
        let latency = Latency::Fixed { first_byte_ms: 40, total_ms: 80 };
        let provider = provider(ProviderPlan { latency, ..ProviderPlan::new("big") }).await;
        for delivery in [Delivery::Whole, Delivery::Stream] {
            let start = Instant::now();
            let response = ask(&provider, 0, delivery).await;
            let head = start.elapsed().as_millis();
            text(response).await;
            let end = start.elapsed().as_millis();
            assert!(40 <= head && 80 <= end, "{delivery:?}: {head} and {end} ms");
        }
    }

    #[tokio::test]
    async fn a_stopped_provider_gives_its_address_back() {
        let provider = provider(ProviderPlan::new("big")).await;
        let address = provider.address();
        ask(&provider, 0, Delivery::Whole).await;
        provider.stop().await;
        Provider::start(two_rows(), ProviderPlan::new("big"), address).await.unwrap();
    }
}
