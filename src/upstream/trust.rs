//! Whom we take for a provider: whom a public authority vouches for, or one that its operator
//! names for it alone.

use std::{
    collections::HashMap,
    sync::Arc,
    task::{Context, Poll},
};

use hyper::{Uri, http::uri::Authority};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use reqwest::{ClientBuilder, redirect::Policy};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs};
use tower::{Service, ServiceExt as _};

use super::{
    Plain,
    resolver::{Names, Resolver},
};

/// Connects to providers, by TLS where they are called so.
///
/// HTTP/1.1 alone is offered there, and each call has a connection of its own. By HTTP/2 all
/// callers of a provider would share one: its limit of streams, its window, of which one slow
/// caller may take all, and its end. They would wait for each other, and for copies.
#[derive(Clone, Debug)]
pub(super) struct Connector {
    public: Tls,
    /// For those that other authorities vouch for.
    own: Arc<HashMap<Authority, Tls>>,
}

type Tls = HttpsConnector<Plain>;

impl Connector {
    /// Over these connections; `own` are authorities of those that are called so.
    pub(super) fn new(plain: &Plain, own: &HashMap<Authority, RootCertStore>) -> Self {
        let over = |own: &RootCertStore| {
            let tls = HttpsConnectorBuilder::new().with_tls_config(trusting(own));
            tls.https_or_http().enable_http1().wrap_connector(plain.clone())
        };
        let public = over(&RootCertStore::empty());
        let own = own.iter().map(|(whose, own)| (whose.clone(), over(own))).collect();
        Self { public, own: Arc::new(own) }
    }
}

impl Service<Uri> for Connector {
    type Response = <Tls as Service<Uri>>::Response;
    type Error = <Tls as Service<Uri>>::Error;
    type Future = <Tls as Service<Uri>>::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.public.poll_ready(context)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let own = uri.authority().and_then(|it| self.own.get(it));
        Box::pin(own.unwrap_or(&self.public).clone().oneshot(uri))
    }
}

/// A client for what no caller waits for: it asks where callers' requests may go, and trusts whom
/// they trust.
pub fn aside(resolver: Resolver, own: &RootCertStore) -> ClientBuilder {
    let client = reqwest::Client::builder().redirect(Policy::none()).no_proxy();
    client.tls_backend_preconfigured(trusting(own)).dns_resolver(Names(resolver))
}

/// TLS with whom the public authorities vouch for, or these.
#[expect(clippy::expect_used, reason = "it depends on nothing that anybody could say")]
fn trusting(own: &RootCertStore) -> ClientConfig {
    let mut roots = own.clone();
    roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("aws-lc speaks TLS 1.2 and 1.3")
        .with_root_certificates(roots)
        .with_no_client_auth()
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
    };
    use tokio_rustls::{
        TlsAcceptor,
        rustls::{
            ServerConfig,
            pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
        },
    };

    use super::*;
    use crate::tasks::{describe, spawn};

    const FILES: &str = "tests/golden/tls";

    fn certificate() -> CertificateDer<'static> {
        CertificateDer::from_pem_file(format!("{FILES}/cert.pem")).unwrap()
    }

    /// The port of a server that answers every request by TLS.
    async fn server() -> u16 {
        let key = PrivateKeyDer::from_pem_file(format!("{FILES}/key.pem")).unwrap();
        let provider = Arc::new(aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider);
        let config = config.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
        let config = config.with_single_cert(vec![certificate()], key).unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        spawn("server", async move {
            while let Ok((stream, _)) = listener.accept().await {
                let Ok(mut stream) = acceptor.accept(stream).await else { continue };
                let _ = stream.read(&mut [0; 1_024]).await;
                let _ = stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await;
                let _ = stream.shutdown().await;
            }
        });
        port
    }

    #[tokio::test]
    async fn who_is_vouched_for_by_authorities_of_ones_own_is_asked_and_nobody_else() {
        let url = format!("https://localhost:{}/", server().await);
        let ask = async |own: &RootCertStore| {
            let client = aside(Resolver::new([]), own).build().unwrap();
            client.get(&url).send().await.map(|it| it.status().as_u16())
        };
        let refused = ask(&RootCertStore::empty()).await.unwrap_err();
        assert!(describe(&refused).contains("UnknownIssuer"), "{}", describe(&refused));
        let mut own = RootCertStore::empty();
        own.add(certificate()).unwrap();
        assert_eq!(ask(&own).await.unwrap(), 204);
    }
}
