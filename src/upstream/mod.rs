//! How we reach providers: a pooled client, a caller's own line, and what each provider wants of a
//! request.
//!
//! What the client costs, as CPU a request of a proxy that does nothing else, with hyper's pooled
//! client as 1: `reqwest` 1.7, a connection for each caller 0.8. So providers are asked by hyper
//! itself, over a caller's own connection where that can be, and `reqwest` asks the judge alone.

mod beside;
mod breaker;
mod guard;
mod health;
mod hearing;
mod honest;
mod line;
mod recent;
mod resolver;
mod timely;
mod trust;

pub use breaker::{Probe, Standing, UNHEARD, Went};
pub use guard::{Guard, retry_after_ms};
pub use health::watch;
pub use honest::Invalid;
pub use line::Line;
pub use resolver::Resolver;
pub use trust::aside;

use std::{
    collections::{BTreeMap, HashMap},
    pin::pin,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use hyper::{
    Request, Response, Uri,
    body::Incoming,
    header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue},
    http::uri::{self, Authority, PathAndQuery, Scheme},
};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use secrecy::{ExposeSecret as _, SecretString};
use tokio_rustls::rustls::RootCertStore;

use crate::config::{Auth, Health, LinkLocal, ModelMap};
use crate::domain::{Call, Name, Prices, RequestRules, Timestamp, is_cleared};
use crate::tasks::BoxError;

use honest::{Before, checked};
use line::Sent;
use timely::Timely;
use trust::Connector;

/// A body on its way, in either direction.
pub type Body = BoxBody<Bytes, BoxError>;

/// Connects by the addresses that providers may have, and no further.
type Plain = HttpConnector<Resolver>;

/// Connections kept for each provider, waiting to be used again.
const IDLE_CONNECTIONS_MAX: usize = 256;
/// How long they are kept: less than the five seconds after which common servers close theirs. A
/// request sent into a connection that is just being closed is lost, and may not be sent twice.
const IDLE_MAX: Duration = Duration::from_secs(4);
/// Most that is read ahead of a provider: the head of an answer has to fit, and a provider that
/// floods us gets no more of our time at once than this takes.
const HEAD_BYTES_MAX: usize = 64 << 10;

/// A provider whose machine or network is gone is asked for a sign of it after so long a silence.
const SILENCE_MAX: Duration = Duration::from_secs(15);
/// And given up when nothing that was sent to it was taken for so long.
const UNTAKEN_MAX: Duration = Duration::from_mins(1);

/// Every provider, and the client that reaches them.
#[derive(Clone, Debug)]
pub struct Upstream {
    client: Client<Timely<Connector>, Body>,
    plain: Timely<Plain>,
    providers: Arc<BTreeMap<Name, Provider>>,
}

/// One provider.
#[derive(Debug)]
pub struct Provider {
    scheme: Scheme,
    authority: Authority,
    link_local: LinkLocal,
    authorities: RootCertStore,
    /// Path of the base URL, without a slash at its end.
    path: String,
    credential: Option<(HeaderName, HeaderValue)>,
    models: ModelMap,
    rules: Option<RequestRules>,
    cleared: Vec<String>,
    prices: Prices,
    guard: Guard,
    health: Option<Health>,
}

/// A base URL that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("provider `{provider}`: `{url}` cannot be called")]
pub struct BadUrl {
    /// The provider.
    pub provider: Name,
    /// Its URL.
    pub url: String,
}

impl Provider {
    /// A provider from its checked configuration.
    fn new(from: &crate::config::Provider) -> Result<Self, BadUrl> {
        let bad = || BadUrl { provider: from.name.clone(), url: from.base_url.clone() };
        let uri: Uri = from.base_url.parse().map_err(|_| bad())?;
        Ok(Self {
            scheme: uri.scheme().ok_or_else(bad)?.clone(),
            authority: uri.authority().ok_or_else(bad)?.clone(),
            link_local: from.link_local,
            authorities: from.authorities.clone(),
            path: uri.path().trim_end_matches('/').to_owned(),
            credential: from.key.as_ref().and_then(|key| credential(from.auth, key)),
            models: from.models.clone(),
            rules: from.rules.clone(),
            cleared: from.cleared.clone(),
            prices: from.prices.clone(),
            guard: Guard::new(from.breaker),
            health: from.health.clone(),
        })
    }

    /// Where a request goes: the application's path below the provider's base URL.
    ///
    /// Both usually end and begin in the same `/v1`, which is written once.
    ///
    /// # Errors
    /// When the two make no URI.
    pub fn uri(&self, asked: &PathAndQuery) -> Result<Uri, hyper::http::Error> {
        let version = self.path.rsplit_once('/').map_or("", |(_, last)| last);
        let rest = asked.as_str().strip_prefix('/').and_then(|it| it.strip_prefix(version));
        let rest = rest.filter(|it| !version.is_empty() && it.starts_with(['/', '?']));
        let path = rest.unwrap_or(asked.as_str());
        let mut parts = uri::Parts::default();
        parts.scheme = Some(self.scheme.clone());
        parts.authority = Some(self.authority.clone());
        // Mostly both have the same path before the rest, and what was asked is shared.
        parts.path_and_query = Some(match asked.as_str().strip_suffix(path) {
            Some(before) if before == self.path => asked.clone(),
            _ => PathAndQuery::try_from([&self.path, path].concat())?,
        });
        Ok(Uri::from_parts(parts)?)
    }

    /// Puts the provider's own credential on a request, if it has one.
    pub fn authorize(&self, headers: &mut HeaderMap) {
        if let Some((name, value)) = &self.credential {
            headers.insert(name.clone(), value.clone());
        }
    }

    /// What a call for a model cost, in billionths of a US dollar, at the prices of a time; none
    /// when tokens or the price are not known. The model it says it used counts before the one that
    /// was sent.
    pub fn cost_nano_usd(&self, sent: &str, call: &Call, at: Timestamp) -> Option<u64> {
        let models = [call.model.as_deref().unwrap_or(sent), sent];
        Some(self.prices.of(&models, at)?.tariff.cost_nano_usd(call.usage.as_ref()?))
    }

    /// Whether the price of the model of a call is known.
    pub fn is_priced(&self, sent: &str, call: &Call, at: Timestamp) -> bool {
        self.prices.of(&[call.model.as_deref().unwrap_or(sent), sent], at).is_some()
    }

    /// Whether the price of any of its models is known.
    pub fn has_prices(&self) -> bool {
        !self.prices.is_empty()
    }

    /// The most that a call for a model may cost with so many tokens (input, output).
    pub fn most_nano_usd(
        &self,
        sent: &str,
        (input, output): (u64, u64),
        at: Timestamp,
    ) -> Option<u64> {
        Some(self.prices.of(&[sent], at)?.tariff.most_nano_usd(input, output))
    }

    /// What protects callers from it.
    pub fn guard(&self) -> &Guard {
        &self.guard
    }

    /// Whether it may be sent what carries these data classes.
    pub fn is_cleared(&self, data: &[String]) -> bool {
        is_cleared(&self.cleared, data)
    }

    /// What requests must look like for it; none where they need not be changed.
    pub fn rules(&self) -> Option<&RequestRules> {
        self.rules.as_ref()
    }

    /// What this provider calls a model; none when it is called the same.
    pub fn model(&self, asked: &str) -> Option<&str> {
        self.models.get(asked)
    }
}

/// The host of a base URL, as it is looked up.
pub fn host(base_url: &str) -> Option<String> {
    base_url.parse::<Uri>().ok()?.host().map(str::to_owned)
}

/// The header that carries a key, marked so that nobody prints it; none where the key makes no header.
pub fn credential(auth: Auth, key: &SecretString) -> Option<(HeaderName, HeaderValue)> {
    let key = key.expose_secret();
    let (name, text) = match auth {
        Auth::Bearer => (AUTHORIZATION, format!("Bearer {key}")),
        Auth::XApiKey => (HeaderName::from_static("x-api-key"), key.to_owned()),
        Auth::ApiKey => (HeaderName::from_static("api-key"), key.to_owned()),
        Auth::XGoogApiKey => (HeaderName::from_static("x-goog-api-key"), key.to_owned()),
    };
    let mut value = HeaderValue::from_str(&text).ok()?;
    value.set_sensitive(true);
    Some((name, value))
}

impl Upstream {
    /// A client for these providers.
    ///
    /// # Errors
    /// When a base URL cannot be called.
    pub fn new(providers: &[crate::config::Provider], connect: Duration) -> Result<Self, BadUrl> {
        let providers: Result<BTreeMap<_, _>, BadUrl> =
            providers.iter().map(|it| Ok((it.name.clone(), Provider::new(it)?))).collect();
        let providers = providers?;
        let hosts = providers.values().map(|it| (it.authority.host(), it.link_local));
        let names = Resolver::new(hosts);
        let mut plain = HttpConnector::new_with_resolver(names.clone());
        plain.set_connect_timeout(Some(connect));
        plain.set_nodelay(true);
        plain.set_keepalive(Some(SILENCE_MAX));
        plain.set_keepalive_interval(Some(SILENCE_MAX));
        plain.set_tcp_user_timeout(Some(UNTAKEN_MAX));
        plain.enforce_http(false);
        let mut own: HashMap<Authority, RootCertStore> = HashMap::new();
        for it in providers.values().filter(|it| !it.authorities.is_empty()) {
            let roots = it.authorities.roots.iter().cloned();
            own.entry(it.authority.clone()).or_insert_with(RootCertStore::empty).extend(roots);
        }
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_max_idle_per_host(IDLE_CONNECTIONS_MAX)
            .pool_idle_timeout(IDLE_MAX)
            .http1_max_buf_size(HEAD_BYTES_MAX)
            .build(Timely::new(Connector::new(&plain, &own), names.clone(), connect));
        let plain = Timely::new(plain, names, connect);
        Ok(Self { client, plain, providers: Arc::new(providers) })
    }

    /// The provider of that name.
    pub fn provider(&self, name: &Name) -> Option<&Provider> {
        self.providers.get(name)
    }

    /// Every provider by its name.
    pub fn providers(&self) -> impl Iterator<Item = (&Name, &Provider)> {
        self.providers.iter()
    }

    /// Sends a request and waits for the head of its answer. Redirects are not followed,
    /// nothing is decoded. Dropping the future or the answer's body cancels the call.
    ///
    /// # Errors
    /// When the provider cannot be reached or breaks off before its answer begins, or with
    /// [`Invalid`] when that is none.
    pub async fn send(&self, mut request: Request<Body>) -> Result<Response<Incoming>, BoxError> {
        let before = Before::of(&mut request);
        tokio::select! {
            biased;
            response = self.client.request(request) => Ok(checked(response?)?),
            flood = before.flood() => Err(flood.into()),
        }
    }

    /// The same for a caller that has a line of its own: it goes there if it can.
    ///
    /// # Errors
    /// When the provider cannot be reached or breaks off before its answer begins, or with
    /// [`Invalid`] when that is none.
    pub async fn send_along(
        &self,
        line: &Line,
        mut request: Request<Body>,
    ) -> Result<Response<Incoming>, BoxError> {
        let before = Before::of(&mut request);
        let sending = pin!(line.send(&self.plain, request));
        let sent = tokio::select! {
            biased;
            sent = sending => sent?,
            flood = before.flood() => return Err(flood.into()),
        };
        match sent {
            Sent::Answered(response) => Ok(checked(response)?),
            Sent::Back(request) => self.send(request).await,
        }
    }
}
