//! What providers really sent, through the whole program. Skipped, saying so, where it is absent.

use std::{
    collections::VecDeque,
    convert::Infallible,
    fs,
    net::SocketAddr,
    path::Path,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use crossfade::tasks::spawn;
use http_body_util::{BodyExt as _, Full};
use hyper::{
    Request, Response,
    body::{Body, Frame, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::{net::TcpListener, time::timeout};

use crate::world::{Answer, Dir, SOON, Serve, http, rollout, skipped, until, whole};

const FILES: [&str; 5] =
    ["openai_chat", "openai_responses", "anthropic_messages", "gemini_generate", "gemini_stream"];
/// Headers of the recorded transfer, which are of the connection or of an encoding that the
/// recording has undone.
const OF_THE_TRANSFER: [&str; 5] =
    ["content-encoding", "content-length", "transfer-encoding", "connection", "keep-alive"];

struct Exchange {
    id: String,
    path: String,
    request: Vec<u8>,
    request_headers: Vec<(String, String)>,
    status: u16,
    headers: Vec<(String, String)>,
    body: Bytes,
}

fn headers(of: &Value) -> Vec<(String, String)> {
    let text = |it: &Value| it.as_str().unwrap().to_owned();
    let of = of.as_object().unwrap().iter().map(|(name, value)| (name.clone(), text(value)));
    of.filter(|(name, _)| !OF_THE_TRANSFER.contains(&name.as_str())).collect()
}

/// Every recorded exchange, or none where there are no recordings.
fn exchanges() -> Vec<Exchange> {
    let data = std::env::var_os("CROSSFADE_DATA").unwrap_or_else(|| "../shared/data".into());
    let mut all = Vec::new();
    for file in FILES {
        let path = Path::new(&data).join("wire").join(file).with_extension("jsonl");
        let Ok(text) = fs::read_to_string(&path) else {
            skipped(&format!("no {}; CROSSFADE_DATA says where it is", path.display()));
            return Vec::new();
        };
        all.extend(text.lines().map(|line| {
            let row: Value = serde_json::from_str(line).unwrap();
            Exchange {
                id: row["id"].as_str().unwrap().to_owned(),
                // Projects are recorded as `<GOOGLE_CLOUD_PROJECT>`, which no path may hold.
                path: row["path"].as_str().unwrap().replace(['<', '>'], ""),
                request: row["request"].to_string().into_bytes(),
                request_headers: headers(&row["request_headers"]),
                status: u16::try_from(row["status"].as_u64().unwrap()).unwrap(),
                headers: headers(&row["response_headers"]),
                body: Bytes::from(row["response_body"].as_str().unwrap().to_owned()),
            }
        }));
    }
    all
}

/// Cuts a body into pieces of 1 to 700 bytes, anywhere, the same for the same seed.
fn pieces(body: &Bytes, mut seed: u64) -> Vec<Bytes> {
    let mut pieces = Vec::new();
    let mut rest = body.clone();
    while !rest.is_empty() {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let len = 1 + usize::try_from((seed >> 33) % 700).unwrap();
        pieces.push(rest.split_to(len.min(rest.len())));
    }
    pieces
}

/// A provider that answers with the exchange whose number is in the trace context.
async fn provider(exchanges: Arc<Vec<Exchange>>, seed: u64) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    spawn("provider", async move {
        while let Ok((stream, _)) = listener.accept().await {
            let exchanges = Arc::clone(&exchanges);
            let service = service_fn(move |request: Request<Incoming>| {
                let exchanges = Arc::clone(&exchanges);
                async move { Ok::<_, Infallible>(answer(&exchanges, request, seed).await) }
            });
            spawn("connection", async move {
                let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    address
}

/// A body of these pieces, each a frame of its own.
struct Pieces(VecDeque<Bytes>);

impl Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.pop_front().map(|it| Ok(Frame::data(it))))
    }
}

async fn answer(exchanges: &[Exchange], request: Request<Incoming>, seed: u64) -> Response<Pieces> {
    let trace = request.headers()["traceparent"].to_str().unwrap().to_owned();
    let index = usize::from_str_radix(&trace[3..35], 16).unwrap() - 1;
    let exchange = &exchanges[index];
    let _ = request.into_body().collect().await;
    let pieces = pieces(&exchange.body, seed + u64::try_from(index).unwrap());
    let mut response = Response::new(Pieces(pieces.into()));
    *response.status_mut() = exchange.status.try_into().unwrap();
    for (name, value) in &exchange.headers {
        let name: hyper::header::HeaderName = name.parse().unwrap();
        response.headers_mut().append(name, value.parse().unwrap());
    }
    response
}

async fn ask(serve: &Serve, index: usize, exchange: &Exchange) -> Answer {
    let mut request = Request::post(format!("http://{}{}", serve.data, exchange.path))
        .header("traceparent", format!("00-{:032x}-00000000000000aa-01", index + 1));
    for (name, value) in &exchange.request_headers {
        request = request.header(name, value);
    }
    let request = request.body(Full::new(Bytes::from(exchange.request.clone()))).unwrap();
    whole(timeout(SOON, http().request(request)).await.unwrap().unwrap()).await
}

/// The program between these two providers.
async fn between(providers: [SocketAddr; 2], more: &str) -> (Serve, Dir) {
    let dir = Dir::new().await;
    let [primary, candidate] = providers;
    let text = format!(
        "listen = \"127.0.0.1:0\"\ncontrol = \"127.0.0.1:0\"\noperations = \"127.0.0.1:0\"\n\
         store = \"{}\"\nprimary = \"primary\"\n[provider.primary]\nbase_url = \"http://{primary}\"\n\
         [provider.candidate]\nbase_url = \"http://{candidate}\"\n{more}",
        dir.path().join("store").display()
    );
    let file = dir.path().join("c.toml");
    fs::write(&file, text).unwrap();
    (Serve::start(&file).await, dir)
}

/// Sends every exchange and compares what the caller gets with what the provider sent.
async fn compare(serve: &Serve, exchanges: &[Exchange]) {
    for (index, exchange) in exchanges.iter().enumerate() {
        let answer = ask(serve, index, exchange).await;
        let Exchange { id, status, body, .. } = exchange;
        assert_eq!(answer.status, *status, "{id}");
        assert!(answer.body == *body, "{id}: {} bytes of {}", answer.body.len(), body.len());
        for (name, value) in &exchange.headers {
            assert_eq!(answer.header(name), value, "{id} {name}");
        }
    }
}

/// M7 B-06
#[tokio::test]
async fn recorded_exchanges_pass_byte_for_byte_alone_and_mirrored() {
    let exchanges = Arc::new(exchanges());
    if exchanges.is_empty() {
        return;
    }
    let providers =
        [provider(Arc::clone(&exchanges), 1).await, provider(Arc::clone(&exchanges), 2).await];
    let (serve, dir) = between(providers, "").await;
    compare(&serve, &exchanges).await;
    assert!(serve.stop().await.success());
    drop(dir);

    // So many fail that a rollout would go back: the gate is as wide as it can be.
    let more = rollout("0%", "100%").replace("gates = { ", "gates = { error_rate = \"+99pp\", ");
    let (serve, _dir) = between(providers, &more).await;
    compare(&serve, &exchanges).await;
    serve.is_quiet().await;
    let kept = || serve.json_lines(&["pairs", "chat", "--limit", "1000"]);
    until("most of them are pairs", || async { exchanges.len() / 2 < kept().await.len() }).await;
    // Both sides said the same, so whatever they said is read the same.
    let pairs = kept().await;
    let mut answered = 0;
    for pair in &pairs {
        let [primary, candidate] = ["primary", "candidate"].map(|it| &pair[it]);
        assert_eq!(primary["outcome"], candidate["outcome"], "{pair}");
        assert_eq!(primary["usage"], candidate["usage"], "{pair}");
        answered += usize::from(primary["outcome"] == "OUTCOME_OK");
    }
    assert!(exchanges.len() / 2 < answered, "{answered} of {} pairs are answers", pairs.len());
}
