//! Providers behind TLS, as real ones are: callers of one of them do not wait for each other.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use bytes::Bytes;
use crossfade::tasks::spawn;
use http_body_util::{BodyExt, StreamBody, combinators::BoxBody};
use hyper::{Request, Response, body::Frame, body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::watch,
    time::timeout,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        crypto::aws_lc_rs,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    },
};
use tokio_stream::{Stream, StreamExt as _, wrappers::WatchStream};

use crate::world::{Dir, SOON, Serve, http, until};

const FILES: &str = "tests/golden/tls";
/// Streams that a server of its kind allows on one connection.
const STREAMS_MAX: u32 = 100;
/// Callers at the same time.
const CALLERS: usize = 150;

/// A provider that speaks both versions of HTTP by TLS. Its streams begin, and end once they may.
struct Provider {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
    may_end: watch::Sender<bool>,
}

type Answer = Response<BoxBody<Bytes, Infallible>>;

/// Such parts one after the other.
fn answered(parts: impl Stream<Item = Bytes> + Send + Sync + 'static) -> Answer {
    let parts = parts.map(|it| Ok::<_, Infallible>(Frame::data(it)));
    Response::new(BodyExt::boxed(StreamBody::new(parts)))
}

/// A file without end, or a stream of two parts.
fn answer(request: &Request<Incoming>, may_end: watch::Receiver<bool>) -> Answer {
    if request.uri().path().contains("/files/") {
        return answered(tokio_stream::iter(std::iter::repeat(Bytes::from(vec![b'x'; 65_536]))));
    }
    let ends = WatchStream::new(may_end).filter(|it| *it).take(1).map(|_| "end".into());
    answered(tokio_stream::once("begins, ".into()).chain(ends))
}

impl Provider {
    async fn start() -> Self {
        let cert = CertificateDer::from_pem_file(format!("{FILES}/cert.pem")).unwrap();
        let key = PrivateKeyDer::from_pem_file(format!("{FILES}/key.pem")).unwrap();
        let tls = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
        let tls = tls.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
        let mut tls = tls.with_single_cert(vec![cert], key).unwrap();
        tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(tls));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (connections, may_end) = (Arc::<AtomicUsize>::default(), watch::Sender::new(false));
        let (accepted, ends) = (Arc::clone(&connections), may_end.clone());
        spawn("provider", async move {
            while let Ok((stream, _)) = listener.accept().await {
                accepted.fetch_add(1, Relaxed);
                let (acceptor, ends) = (acceptor.clone(), ends.clone());
                spawn("connection", async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let mut server = auto::Builder::new(TokioExecutor::new());
                    server.http2().max_concurrent_streams(STREAMS_MAX);
                    let service = service_fn(|request| {
                        let answer = answer(&request, ends.subscribe());
                        async move { Ok::<_, Infallible>(answer) }
                    });
                    let _ = server.serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        Self { address, connections, may_end }
    }

    /// The program in front of it, with another way to the same behind the primary.
    async fn serve(&self, dir: &Dir, ca: &str) -> Serve {
        let provider = |name: &str| {
            format!(
                "[provider.{name}]\nbase_url = \"https://{}/v1\"\n{ca}\nkey = \"none\"\nhealth = {{ every = \"3s\" }}\n",
                self.address
            )
        };
        let text = format!(
            "listen = \"127.0.0.1:0\"\ncontrol = \"127.0.0.1:0\"\noperations = \"127.0.0.1:0\"\n\
             store = \"{}\"\nprimary = \"first\"\nfailover = [\"second\"]\n{}{}",
            dir.path().join("store").display(),
            provider("first"),
            provider("second"),
        );
        let file = dir.path().join("c.toml");
        std::fs::write(&file, text).unwrap();
        Serve::start(&file).await
    }

    /// Connections to it, and those of them that the system looks after while nothing is said.
    fn looked_after(&self) -> (usize, usize) {
        let to = format!(":{:04X}", self.address.port());
        let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
        let fields = table.lines().map(|it| it.split_whitespace().collect::<Vec<_>>());
        let (mut open, mut after) = (0, 0);
        for it in fields.filter(|it| it[2].ends_with(&to) && it[3] == "01") {
            open += 1;
            after += usize::from(it[5].starts_with("02:"));
        }
        (open, after)
    }
}

fn own() -> String {
    let file = std::fs::canonicalize(format!("{FILES}/cert.pem")).unwrap();
    format!("ca = \"{}\"", file.display())
}

#[tokio::test]
async fn callers_of_a_provider_by_tls_have_connections_of_their_own() {
    let (provider, dir) = (Provider::start().await, Dir::new().await);
    let serve = provider.serve(&dir, &own()).await;
    // These ask for a file each and do not read it.
    let mut stalled = Vec::new();
    for _ in 0..4 {
        let mut caller = TcpStream::connect(serve.data).await.unwrap();
        caller.write_all(b"GET /v1/files/a/content HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        assert_eq!(timeout(SOON, caller.read_u8()).await.unwrap().unwrap(), b'H');
        stalled.push(caller);
    }
    let begun = tokio_stream::iter(0..CALLERS).then(|_| async {
        let request = Request::post(format!("http://{}/v1/chat/completions", serve.data));
        let request = request.header("content-type", "application/json");
        let request = request.body(Bytes::from_static(b"{\"model\":\"m\"}").into()).unwrap();
        let mut answer = timeout(SOON, http().request(request)).await.unwrap().unwrap();
        let frame = timeout(SOON, answer.frame()).await.unwrap().unwrap().unwrap();
        assert_eq!(&frame.data_ref().unwrap()[..], b"begins, ");
        answer
    });
    let begun: Vec<Response<Incoming>> = begun.collect().await;
    assert!(CALLERS + stalled.len() <= provider.connections.load(Relaxed));
    until("the system asks for a sign of life", || async {
        let (open, after) = provider.looked_after();
        CALLERS <= open && CALLERS <= after
    })
    .await;
    provider.may_end.send_replace(true);
    for answer in begun {
        let rest = timeout(SOON, answer.into_body().collect()).await.unwrap().unwrap();
        assert_eq!(&rest.to_bytes()[..], b"end");
    }
    let healthy = async |name: &str| {
        0.5 < serve.metric(&format!("crossfade_healthy{{provider=\"{name}\"}}")).await
    };
    until("checks trust whom callers trust", || async {
        healthy("first").await && healthy("second").await
    })
    .await;
}

#[tokio::test]
async fn a_provider_that_no_known_authority_vouches_for_gets_nothing() {
    let (provider, dir) = (Provider::start().await, Dir::new().await);
    let serve = provider.serve(&dir, "").await;
    let answer = serve.chat(b"{\"model\":\"m\"}".to_vec(), &[]).await;
    assert_eq!((answer.status, answer.header("x-crossfade-provider")), (502, ""));
}
