//! The least a proxy in Rust costs with a pooled client: hyper on both sides, nothing else.

use std::{
    io::{Write as _, stdout},
    net::SocketAddr,
    str::FromStr,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Either, Full};
use hyper::{
    Request, Response, Uri,
    body::Incoming,
    header::{CONNECTION, HOST, TE, TRANSFER_ENCODING, UPGRADE},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioIo},
};
use tokio::{net::TcpListener, sync::Semaphore};

use crate::Fault;

/// Most copies under way at a time.
const COPIES_MAX: usize = 1_024;

/// Where it sends requests, and how many percent of them it copies; written `P,C,PERCENT`.
#[derive(Clone, Copy)]
pub(crate) struct Ways {
    pub(crate) primary: SocketAddr,
    pub(crate) candidate: SocketAddr,
    pub(crate) percent: u32,
}

struct Floor {
    client: Client<HttpConnector, Body>,
    ways: Ways,
    served: AtomicU32,
    copies: Arc<Semaphore>,
}

type Body = Either<Incoming, Full<Bytes>>;

impl FromStr for Ways {
    type Err = Fault;

    fn from_str(text: &str) -> Result<Self, Fault> {
        let mut parts = text.split(',');
        let mut part = || parts.next().ok_or("three parts are needed");
        let (primary, candidate) = (part()?.parse()?, part()?.parse()?);
        Ok(Self { primary, candidate, percent: part()?.parse()? })
    }
}

impl Ways {
    /// The same as an argument.
    pub(crate) fn text(&self) -> String {
        format!("{},{},{}", self.primary, self.candidate, self.percent)
    }
}

/// Serves until the process is ended; says first where, as Crossfade does.
pub(crate) fn serve(ways: Ways) -> Result<(), Fault> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(async {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        writeln!(stdout(), "data={}", listener.local_addr()?)?;
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let floor = Arc::new(Floor {
            client: Client::builder(TokioExecutor::new()).build(connector),
            ways,
            served: AtomicU32::new(0),
            copies: Arc::new(Semaphore::new(COPIES_MAX)),
        });
        spawn(floor.accept(listener)).await
    })
}

#[expect(clippy::disallowed_methods, reason = "no more than the least")]
async fn spawn(
    task: impl Future<Output = Result<(), Fault>> + Send + 'static,
) -> Result<(), Fault> {
    tokio::spawn(task).await?
}

impl Floor {
    #[expect(clippy::disallowed_methods, reason = "no more than the least")]
    async fn accept(self: Arc<Self>, listener: TcpListener) -> Result<(), Fault> {
        loop {
            let (socket, _) = listener.accept().await?;
            socket.set_nodelay(true)?;
            let floor = Arc::clone(&self);
            let service = service_fn(move |request| {
                let floor = Arc::clone(&floor);
                async move { floor.answer(request).await }
            });
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(socket), service));
        }
    }

    #[expect(clippy::disallowed_methods, reason = "no more than the least")]
    async fn answer(&self, request: Request<Incoming>) -> Result<Response<Incoming>, Fault> {
        let number = self.served.fetch_add(1, Ordering::Relaxed);
        let copied = number.wrapping_mul(61) % 100 < self.ways.percent;
        let Some(permit) = copied.then(|| Arc::clone(&self.copies).try_acquire_owned()) else {
            return send(&self.client, request.map(Either::Left), self.ways.primary).await;
        };
        let (head, body) = request.into_parts();
        let body = Full::new(body.collect().await?.to_bytes());
        let copy = Request::from_parts(head.clone(), Either::Right(body.clone()));
        if let Ok(permit) = permit {
            let (client, candidate) = (self.client.clone(), self.ways.candidate);
            tokio::spawn(async move {
                if let Ok(answer) = send(&client, copy, candidate).await {
                    let mut body = answer.into_body();
                    while let Some(Ok(_)) = body.frame().await {}
                }
                drop(permit);
            });
        }
        send(&self.client, Request::from_parts(head, Either::Right(body)), self.ways.primary).await
    }
}

async fn send(
    client: &Client<HttpConnector, Body>,
    mut request: Request<Body>,
    to: SocketAddr,
) -> Result<Response<Incoming>, Fault> {
    let path = request.uri().path_and_query().map_or("/", |it| it.as_str());
    *request.uri_mut() = format!("http://{to}{path}").parse::<Uri>()?;
    for hop in [HOST, CONNECTION, TRANSFER_ENCODING, UPGRADE, TE] {
        request.headers_mut().remove(hop);
    }
    let mut answer = client.request(request).await?;
    answer.headers_mut().remove(CONNECTION);
    answer.headers_mut().remove(TRANSFER_ENCODING);
    Ok(answer)
}
