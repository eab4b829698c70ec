//! What the data port shows to applications that speak TLS to it, and whom we believe who we ask.

use std::{path::Path, sync::Arc};

use tokio_rustls::rustls::{
    RootCertStore, ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};

use super::{
    form::{SOME, read_bounded},
    table::Table,
};

/// Largest file of certificates or of a key, in bytes.
const PEM_BYTES_MAX: u64 = 256 << 10;
/// What is spoken over TLS, best first.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// TLS for the data port; none when it speaks plainly.
pub(super) fn tls(top: &Table<'_>) -> Option<Arc<ServerConfig>> {
    const CERT: &str = "name a PEM file: the certificate first, then those between it and its root";
    const KEY: &str = "name a PEM file with the key of the certificate";
    let table = top.table("tls")?;
    table.need("cert", CERT);
    table.need("key", KEY);
    let cert = table.text("cert", &SOME);
    // A key that is written out must not be shown.
    let key = table.raw("key", "a file", KEY);
    table.close();
    let certs = cert.and_then(|file| {
        certificates(&file).map_err(|problem| table.fault("cert", &problem, CERT)).ok()
    });
    let key = key.and_then(|file| {
        let key = read(file).and_then(|pem| {
            PrivateKeyDer::from_pem_slice(pem.as_bytes()).map_err(|_| "has no key in it".to_owned())
        });
        key.map_err(|problem| table.fault_masked("key", &problem, KEY)).ok()
    });
    let provider = Arc::new(aws_lc_rs::default_provider());
    let config =
        ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let (certs, key) = (certs?, key?);
    match config.and_then(|it| it.with_no_client_auth().with_single_cert(certs, key)) {
        Ok(mut config) => {
            config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
            Some(Arc::new(config))
        }
        Err(error) => {
            table.fault_masked("key", &format!("does not fit `cert`: {error}"), KEY);
            None
        }
    }
}

/// The authorities that may vouch for who is asked, besides the public ones.
pub(super) fn authorities(table: &Table<'_>) -> RootCertStore {
    const KEY: &str = "ca";
    const REMEDY: &str = "name a PEM file with the certificates of your own authorities";
    let mut roots = RootCertStore::empty();
    let Some(file) = table.text(KEY, &SOME) else { return roots };
    let added = certificates(&file).and_then(|all| {
        let mut all = all.into_iter();
        all.try_for_each(|it| roots.add(it))
            .map_err(|_| "has a certificate of no use in it".to_owned())
    });
    if let Err(problem) = added {
        table.fault(KEY, &problem, REMEDY);
    }
    roots
}

fn certificates(file: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let pem = read(file)?;
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    all.ok().filter(|it| !it.is_empty()).ok_or("has no certificate in it".to_owned())
}

fn read(file: &str) -> Result<String, String> {
    read_bounded(Path::new(file), PEM_BYTES_MAX)
        .map_err(|error| format!("refers to a file that cannot be read: {error}"))
}

#[cfg(test)]
mod tests {
    use crate::config::tests::{faults, faults_below, parse};

    const FILES: &str = "tests/golden/tls";

    #[test]
    fn a_certificate_and_its_key_are_enough() {
        let tls = |lines: &str| {
            let text = format!("provider.a.base_url = 'http://127.0.0.1:1'\n{lines}");
            parse(&text).unwrap().tls
        };
        assert!(tls("").is_none());
        let files = format!("tls = {{ cert = '{FILES}/cert.pem', key = '{FILES}/key.pem' }}");
        assert_eq!(tls(&files).unwrap().alpn_protocols, [&b"h2"[..], b"http/1.1"]);
    }

    #[test]
    fn a_provider_and_the_judge_may_have_authorities_of_their_own() {
        let with = |ca: &str| {
            format!(
                "[provider.a]\nbase_url = 'https://a'\n{ca}\n\
                 [judge]\nmodel = 'm'\nbase_url = 'https://b'\nkey = 'none'\n{ca}"
            )
        };
        let lens = |ca: &str| {
            let config = parse(&with(ca)).unwrap();
            [config.providers[0].authorities.len(), config.judge.unwrap().authorities.len()]
        };
        assert_eq!(lens(""), [0, 0]);
        assert_eq!(lens(&format!("ca = '{FILES}/cert.pem'")), [1, 1]);
        for (file, problem) in
            [("none.pem", "a file that cannot be read"), ("key.pem", "has no certificate in it")]
        {
            let told = faults(&with(&format!("ca = '{FILES}/{file}'")));
            for place in ["`ca` in [provider.a]", "`ca` in [judge]"] {
                assert!(told.contains(place) && told.contains(problem), "{told}");
            }
        }
    }

    #[test]
    fn what_is_wrong_with_a_certificate_is_told_and_a_key_is_never_shown() {
        let told = |cert: &str, key: &str| {
            faults_below(&format!("tls = {{ cert = '{cert}', key = '{key}' }}"))
        };
        let file = |name: &str| format!("{FILES}/{name}");
        for (cert, key, problem) in [
            ("none.pem", "key.pem", "`cert` in [tls] refers to a file that cannot be read"),
            ("cert.pem", "none.pem", "`key` in [tls] refers to a file that cannot be read"),
            ("key.pem", "key.pem", "`cert` in [tls] has no certificate in it"),
            ("cert.pem", "cert.pem", "`key` in [tls] has no key in it"),
            ("cert.pem", "other_key.pem", "`key` in [tls] does not fit `cert`"),
        ] {
            let told = told(&file(cert), &file(key));
            assert!(told.contains(problem), "{told}");
        }
        let told = told(&file("cert.pem"), "-----BEGIN PRIVATE KEY----- abc");
        assert!(!told.contains("abc"), "{told}");
        let missing = faults_below("tls = {}");
        assert!(missing.contains("`cert` is missing") && missing.contains("`key` is missing"));
    }
}
