//! TLS on the data port.

use std::{net::SocketAddr, sync::Arc};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{
        ClientConfig, RootCertStore,
        crypto::aws_lc_rs,
        pki_types::{CertificateDer, pem::PemObject},
    },
};

use crate::world::{SOON, whole};

use super::{
    Provider, Reader, before,
    http2::{get, h2},
};

/// A connection that offers these protocols.
pub(crate) async fn connect(address: SocketAddr, protocols: &[&[u8]]) -> TlsStream<TcpStream> {
    let mut roots = RootCertStore::empty();
    let pem = std::fs::read("tests/golden/tls/cert.pem").unwrap();
    roots.add(CertificateDer::from_pem_slice(&pem).unwrap()).unwrap();
    let provider = Arc::new(aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider);
    let config = config.with_safe_default_protocol_versions().unwrap();
    let mut config = config.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|it| it.to_vec()).collect();
    let stream = TcpStream::connect(address).await.unwrap();
    let name = "localhost".try_into().unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap()
}

/// Where the files of the tests are, seen from the configuration.
pub(crate) fn tls() -> String {
    let file = |name: &str| {
        std::fs::canonicalize(format!("tests/golden/tls/{name}")).unwrap().display().to_string()
    };
    format!("[tls]\ncert = \"{}\"\nkey = \"{}\"\n", file("cert.pem"), file("key.pem"))
}

#[tokio::test]
async fn both_versions_of_http_are_spoken_over_tls() {
    let provider = Provider::start().await;
    let (serve, _dir) = before(provider.address, &tls()).await;
    for protocols in [&[][..], &[&b"http/1.1"[..]]] {
        let stream = connect(serve.data, protocols).await;
        assert_eq!(stream.get_ref().1.alpn_protocol(), protocols.first().copied());
        let mut caller = Reader::new(stream);
        for _ in 0..3 {
            caller.stream.write_all(b"GET /v1/x HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
            let answer = timeout(SOON, caller.answer()).await.unwrap().unwrap();
            assert_eq!((answer.status(), &answer.body[..]), (200, &b"ok"[..]));
        }
    }
    let stream = connect(serve.data, &[b"h2", b"http/1.1"]).await;
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let answer = h2(stream).await.send_request(get("/v1/x")).await.unwrap();
    assert_eq!(whole(answer).await.status, 200);
    let (whole, wrong) = provider.take();
    assert_eq!((whole.len(), wrong.len()), (7, 0));
}

#[tokio::test]
async fn who_agreed_on_http_2_is_answered_in_nothing_else() {
    let provider = Provider::start().await;
    let (serve, _dir) = before(provider.address, &tls()).await;
    let mut caller = connect(serve.data, &[b"h2"]).await;
    caller.write_all(b"GET /v1/x HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    let _ = timeout(SOON, caller.read_to_end(&mut answer)).await.unwrap();
    assert!(!answer.starts_with(b"HTTP"), "{}", answer.escape_ascii());
    assert!(provider.take().0.is_empty());
}

#[tokio::test]
async fn who_does_not_speak_tls_or_never_finishes_its_greeting_is_let_go() {
    let provider = Provider::start().await;
    let limits = "[limits]\nheader_read_timeout = \"300ms\"\n";
    let (serve, _dir) = before(provider.address, &format!("{}{limits}", tls())).await;
    let plain = &b"GET /v1/x HTTP/1.1\r\nHost: a\r\n\r\n"[..];
    for says in [plain, b"\x16\x03\x01\x02\x00\x01\x00", b""] {
        let mut caller = TcpStream::connect(serve.data).await.unwrap();
        caller.write_all(says).await.unwrap();
        let mut answer = Vec::new();
        let _ = timeout(SOON, caller.read_to_end(&mut answer)).await.unwrap();
        assert!(!answer.starts_with(b"HTTP"), "{}", answer.escape_ascii());
    }
    assert!(provider.take().0.is_empty());
}
