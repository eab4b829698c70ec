//! Names of providers, looked up again and again: an address where nobody is sent is no answer,
//! whatever it was when the configuration was read.

use std::{
    collections::{BTreeSet, HashMap},
    future::Future,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::Duration,
    vec,
};

use hyper_util::client::legacy::connect::dns::{GaiResolver, Name};
use reqwest::dns::{Addrs, Resolve, Resolving};
use tokio::{
    sync::watch,
    time::{Instant, timeout},
};
use tower::{Service, ServiceExt as _};

use crate::config::{LinkLocal, is_link_local};
use crate::tasks::{BoxError, describe, spawn};

/// How long an answer is taken without asking again.
const FRESH: Duration = Duration::from_secs(5);
/// How old an answer may be that is taken where no newer one comes.
const KEPT: Duration = Duration::from_mins(5);
/// How long a newer answer is waited for.
const NEWER_WAIT: Duration = Duration::from_millis(250);
/// How long the first answer is waited for. A system whose first name server is silent asks the
/// second one after five seconds.
const FIRST_WAIT: Duration = Duration::from_secs(10);

/// Looks up names, and leaves out link-local addresses and those of metadata services.
#[derive(Clone, Debug)]
pub struct Resolver<R = GaiResolver> {
    inner: R,
    /// Names that may lead there.
    allowed: Arc<BTreeSet<String>>,
    lines: Lines,
}

/// What is known of each name. Only configured hosts are looked up, so there are few.
///
/// A look-up takes a thread of the system's for as long as its name server likes, and the journal
/// is written by the same threads: there is one at a time of a name, and all who wait share what it
/// finds.
#[derive(Clone, Debug, Default)]
struct Lines(Arc<Mutex<HashMap<String, Line>>>);

#[derive(Debug, Default)]
struct Line {
    /// The last answer that was one, and when it came.
    known: Option<(Instant, Vec<SocketAddr>)>,
    under_way: Option<watch::Receiver<Found>>,
}

/// What a look-up has found, or why it has nothing; none while it is under way.
type Found = Option<Result<Vec<SocketAddr>, Arc<str>>>;

impl Lines {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Line>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What this name leads to: an answer of a moment ago, or that of the look-up under way, or an
    /// older one where that takes long or fails.
    async fn find<R>(&self, inner: R, name: Name) -> Result<Vec<SocketAddr>, BoxError>
    where
        R: Service<Name, Response: Iterator<Item = SocketAddr>, Error: Into<BoxError>>,
        R: Send + 'static,
        R::Future: Send,
    {
        let host = name.as_str().to_owned();
        let (known, mut under_way) = {
            let mut lines = self.lock();
            let line = lines.entry(host.clone()).or_default();
            let age = |it: &(Instant, Vec<SocketAddr>)| it.0.elapsed();
            if let Some((_, found)) = line.known.as_ref().filter(|it| age(it) < FRESH) {
                return Ok(found.clone());
            }
            let known = line.known.clone().filter(|it| age(it) < KEPT).map(|(_, found)| found);
            // One that panicked has left its line.
            let under_way = line.under_way.take().filter(|it| it.has_changed().is_ok());
            let under_way = under_way.unwrap_or_else(|| self.look_up(inner, name));
            line.under_way = Some(under_way.clone());
            (known, under_way)
        };
        let wait = if known.is_some() { NEWER_WAIT } else { FIRST_WAIT };
        let found = match timeout(wait, under_way.wait_for(Option::is_some)).await {
            Ok(Ok(found)) => found.clone().unwrap_or_else(|| Err("it was given up".into())),
            Ok(Err(_)) => Err("it was given up".into()),
            Err(_) => Err(format!("no name server answered within {wait:?}").into()),
        };
        match (found, known) {
            (Ok(found), _) | (Err(_), Some(found)) => Ok(found),
            (Err(why), None) => Err(Unfound { host, why: why.to_string() }.into()),
        }
    }

    /// Begins a look-up, which goes on in its thread also when nobody waits for it any more.
    fn look_up<R>(&self, inner: R, name: Name) -> watch::Receiver<Found>
    where
        R: Service<Name, Response: Iterator<Item = SocketAddr>, Error: Into<BoxError>>,
        R: Send + 'static,
        R::Future: Send,
    {
        let (sender, receiver) = watch::channel(None);
        let lines = self.clone();
        spawn("lookup", async move {
            let host = name.as_str().to_owned();
            let found = inner.oneshot(name).await.map(Iterator::collect::<Vec<SocketAddr>>);
            let found = found.map_err(|error| Arc::from(describe(error.into().as_ref())));
            if let Some(line) = lines.lock().get_mut(&host) {
                line.under_way = None;
                line.known =
                    found.clone().ok().map(|it| (Instant::now(), it)).or(line.known.take());
            }
            sender.send_replace(Some(found));
        });
        receiver
    }
}

/// A name that leads nowhere now.
#[derive(Debug, thiserror::Error)]
#[error("`{host}` cannot be looked up: {why}")]
struct Unfound {
    host: String,
    why: String,
}

/// A name that leads only where nobody is sent.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` leads to link-local or metadata addresses alone, and has no `allow_link_local`")]
struct Barred(String);

impl Resolver {
    /// Asks the system, for any name; some of these hosts may be link-local.
    pub fn new<'a>(hosts: impl IntoIterator<Item = (&'a str, LinkLocal)>) -> Self {
        let allowed = hosts.into_iter().filter(|(_, it)| *it == LinkLocal::Allowed);
        let allowed = allowed.map(|(host, _)| host.to_owned()).collect();
        Self { inner: GaiResolver::new(), allowed: Arc::new(allowed), lines: Lines::default() }
    }
}

/// The same for clients that look names up in another way.
pub(super) struct Names(pub(super) Resolver);

impl Resolve for Names {
    fn resolve(&self, name: reqwest::dns::Name) -> Resolving {
        let resolver = self.0.clone();
        Box::pin(async move {
            let found: Addrs = Box::new(resolver.oneshot(name.as_str().parse()?).await?);
            Ok(found)
        })
    }
}

impl<R> Service<Name> for Resolver<R>
where
    R: Service<Name, Response: Iterator<Item = SocketAddr>, Error: Into<BoxError>>,
    R: Clone + Send + 'static,
    R::Future: Send,
{
    type Response = vec::IntoIter<SocketAddr>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let (host, allowed) = (name.as_str().to_owned(), Arc::clone(&self.allowed));
        let (inner, lines) = (self.inner.clone(), self.lines.clone());
        Box::pin(async move {
            let mut found = lines.find(inner, name).await?;
            if !allowed.contains(&host) {
                found.retain(|it| !is_link_local(it.ip()));
                if found.is_empty() {
                    return Err(Barred(host).into());
                }
            }
            Ok(found.into_iter())
        })
    }
}

#[cfg(test)]
mod tests {
    use std::{convert::Infallible, net::Ipv4Addr, sync::atomic::Ordering::Relaxed};

    use hyper_util::client::legacy::connect::HttpConnector;
    use tokio::{
        net::TcpListener,
        task::{JoinSet, LocalSet},
    };
    use tower::service_fn;

    use super::*;

    /// A connection to `provider.example`, whose name servers answer so; all on one port.
    async fn connect(found: &[SocketAddr], allowed: &[&str]) -> Result<SocketAddr, String> {
        let uri = format!("http://provider.example:{}", found[0].port());
        let found = found.to_vec();
        let inner = service_fn(move |_: Name| {
            let found = found.clone();
            async move { Ok::<_, Infallible>(found.into_iter()) }
        });
        let allowed = Arc::new(allowed.iter().map(|it| (*it).to_owned()).collect());
        let connector =
            HttpConnector::new_with_resolver(Resolver { inner, allowed, lines: Lines::default() });
        let stream = connector.oneshot(uri.parse().unwrap()).await;
        let stream = stream.map_err(|error| describe(&error))?;
        Ok(stream.into_inner().peer_addr().unwrap())
    }

    /// B-77
    #[tokio::test]
    async fn a_name_that_comes_to_lead_to_a_metadata_service_is_not_called() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let good = listener.local_addr().unwrap();
        let bad: Vec<SocketAddr> = ["169.254.169.254", "fe80::1", "fd00:ec2::254"]
            .iter()
            .map(|it| SocketAddr::new(it.parse().unwrap(), good.port()))
            .collect();
        let refused = connect(&bad, &["other.example"]).await.unwrap_err();
        assert!(refused.contains("`provider.example` leads to link-local"), "{refused}");
        let both = [bad.as_slice(), &[good]].concat();
        assert_eq!(connect(&both, &[]).await, Ok(good));
        // Allowed, it is called there, and says what the system says.
        let local = [SocketAddr::from((Ipv4Addr::LOCALHOST, good.port()))];
        assert_eq!(connect(&local, &["provider.example"]).await, Ok(good));
    }

    /// A name server that takes so long for `slow.example`, and how often it was asked.
    fn names(wait: impl Fn() -> Option<Duration> + Clone + Send + Sync + 'static) -> (Slow, Asked) {
        let asked = Asked::default();
        let counted = Arc::clone(&asked);
        let inner = service_fn(move |name: Name| {
            counted.fetch_add(1, Relaxed);
            let wait = if name.as_str() == "slow.example" { wait() } else { Some(Duration::ZERO) };
            let found: Answer = Box::pin(async move {
                let wait = wait.ok_or("nobody answers")?;
                tokio::time::sleep(wait).await;
                Ok([SocketAddr::from((Ipv4Addr::LOCALHOST, 1))].into_iter())
            });
            found
        });
        let inner = tower::util::BoxCloneSyncService::new(inner);
        (Resolver { inner, allowed: Arc::default(), lines: Lines::default() }, asked)
    }

    type Asked = Arc<std::sync::atomic::AtomicUsize>;
    type Addresses = std::array::IntoIter<SocketAddr, 1>;
    type Answer = Pin<Box<dyn Future<Output = Result<Addresses, BoxError>> + Send>>;
    type Slow = Resolver<tower::util::BoxCloneSyncService<Name, Addresses, BoxError>>;

    fn found(resolver: &Slow, name: &str) -> impl Future<Output = Result<usize, BoxError>> + use<> {
        let found = resolver.clone().oneshot(name.parse().unwrap());
        async { found.await.map(Iterator::count) }
    }

    #[tokio::test(start_paused = true)]
    async fn all_who_wait_for_a_name_share_one_look_up() {
        let (resolver, asked) = names(|| Some(Duration::from_millis(5_100)));
        let (together, mut callers) = (LocalSet::new(), JoinSet::new());
        for _ in 0..800 {
            callers.spawn_local_on(found(&resolver, "slow.example"), &together);
        }
        let began = Instant::now();
        let all = async {
            assert_eq!(found(&resolver, "fast.example").await.unwrap(), 1);
            assert!(began.elapsed() < Duration::from_secs(1), "another name waits for nobody");
            while let Some(found) = callers.join_next().await {
                assert_eq!(found.unwrap().unwrap(), 1);
            }
        };
        together.run_until(all).await;
        assert_eq!((asked.load(Relaxed), began.elapsed().as_millis()), (2, 5_100));
        assert_eq!(found(&resolver, "slow.example").await.unwrap(), 1);
        assert_eq!(asked.load(Relaxed), 2, "it was found a moment ago");
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_name_led_to_holds_while_its_servers_are_silent_and_not_for_ever() {
        let wait = Arc::new(Mutex::new(Some(Duration::ZERO)));
        let (resolver, _) = names({
            let wait = Arc::clone(&wait);
            move || *wait.lock().unwrap()
        });
        let say = |it: Option<Duration>| *wait.lock().unwrap() = it;
        assert_eq!(found(&resolver, "slow.example").await.unwrap(), 1);
        for silence in [None, Some(Duration::from_hours(1))] {
            say(silence);
            tokio::time::advance(FRESH).await;
            let began = Instant::now();
            assert_eq!(found(&resolver, "slow.example").await.unwrap(), 1);
            assert!(began.elapsed() <= NEWER_WAIT + Duration::from_millis(2));
        }
        tokio::time::advance(KEPT).await;
        let why = found(&resolver, "slow.example").await.unwrap_err().to_string();
        assert_eq!(why, "`slow.example` cannot be looked up: no name server answered within 10s");
    }

    #[tokio::test]
    async fn the_systems_names_are_looked_up() {
        let found = Names(Resolver::new([])).resolve("localhost".parse().unwrap()).await.unwrap();
        assert!(found.into_iter().all(|it| it.ip().is_loopback()));
    }
}
