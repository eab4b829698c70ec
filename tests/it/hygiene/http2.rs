//! HTTP/2 on the data port: known by its first bytes, and no way around anything.

use bytes::Bytes;
use http_body_util::{Full, StreamBody};
use hyper::{Request, body::Incoming, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};

use crate::world::whole;

use super::{Provider, before};

pub(crate) type Requests = http2::SendRequest<Full<Bytes>>;

/// Most of an answer that is sent before it is taken, in bytes.
const WINDOW: u32 = 16 << 10;

/// A connection that speaks HTTP/2 from its first byte on.
pub(crate) async fn h2<S>(stream: S) -> Requests
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder.timer(TokioTimer::new()).initial_stream_window_size(WINDOW);
    let (requests, connection) = builder.handshake(TokioIo::new(stream)).await.unwrap();
    crossfade::tasks::spawn("h2", async move { drop(connection.await) });
    requests
}

pub(super) fn get(path: &str) -> Request<Full<Bytes>> {
    Request::get(format!("http://proxy{path}")).body(Full::default()).unwrap()
}

#[tokio::test]
async fn requests_share_a_connection_and_reach_the_provider_by_http_1() {
    let provider = Provider::start().await;
    let (serve, _dir) = before(provider.address, "").await;
    let mut requests = h2(TcpStream::connect(serve.data).await.unwrap()).await;
    let body = Full::new(Bytes::from_static(b"abc"));
    let post = Request::post("http://proxy/v1/chat/completions")
        .header("content-type", "application/json")
        .header("te", "trailers")
        .header("x-crossfade-feature", "chat")
        .body(body)
        .unwrap();
    let both = (requests.send_request(get("/v1/models")), requests.clone().send_request(post));
    let (one, two) = tokio::join!(both.0, both.1);
    for answer in [one, two] {
        let answer = whole(answer.unwrap()).await;
        assert_eq!((answer.status, &answer.body[..]), (200, &b"ok"[..]));
        assert_eq!(answer.header("x-crossfade-provider"), "only");
    }
    let (mut whole, wrong) = provider.take();
    whole.sort();
    assert_eq!(whole, ["GET /v1/models HTTP/1.1", "POST /v1/chat/completions HTTP/1.1"]);
    assert!(wrong.is_empty(), "{wrong:?}");
}

#[tokio::test]
async fn what_is_refused_in_http_1_is_refused_in_http_2() {
    let provider = Provider::start().await;
    let (serve, _dir) = before(provider.address, "[limits]\nbody_max = \"1KiB\"\n").await;
    let mut requests = h2(TcpStream::connect(serve.data).await.unwrap()).await;
    let mut refused = |status: u16, request: Request<Full<Bytes>>| {
        let answer = requests.send_request(request);
        async move { assert_eq!(whole(answer.await.unwrap()).await.status, status) }
    };
    let with = |method: &str, name: &str, value: &str| {
        let request = Request::builder().method(method).uri("http://proxy/v1/x");
        request.header(name, value).body(Full::default()).unwrap()
    };
    refused(400, get("/v1/../admin")).await;
    refused(400, get("/v1/%2e%2e/admin")).await;
    refused(400, with("GET", "host", "other")).await;
    refused(501, with("TRACE", "x-a", "b")).await;
    refused(414, get(&format!("/{}", "x".repeat(20_000)))).await;
    let large = Full::new(Bytes::from(vec![0; 2_000]));
    refused(413, Request::post("http://proxy/v1/x").body(large).unwrap()).await;
    assert!(provider.take().0.is_empty());
    // The connection is as good as before.
    refused(200, with("GET", "host", "proxy")).await;
}

/// A body that stops is told to the provider as one, and an answer that stops to the caller.
#[tokio::test]
async fn what_breaks_off_is_never_whole() {
    let provider = Provider::start().await;
    let (serve, _dir) = before(provider.address, "").await;
    let mut builder = http2::Builder::new(TokioExecutor::new());
    let stream = TokioIo::new(TcpStream::connect(serve.data).await.unwrap());
    let (mut requests, connection) =
        builder.timer(TokioTimer::new()).handshake(stream).await.unwrap();
    crossfade::tasks::spawn("h2", async move { drop(connection.await) });
    let broken = StreamBody::new(tokio_stream::iter([
        Ok(hyper::body::Frame::data(Bytes::from_static(b"abc"))),
        Err(std::io::Error::other("the caller fell over")),
    ]));
    let answer = requests.send_request(Request::post("http://proxy/v1/x").body(broken).unwrap());
    let answered: Result<hyper::Response<Incoming>, _> = answer.await;
    assert!(answered.is_err());
    let (whole, wrong) = provider.take();
    assert!(whole.is_empty() && wrong.is_empty(), "{whole:?} {wrong:?}");
}
