//! Names of providers, looked up anew for every connection: an address where nobody is sent is no
//! answer, whatever it was when the configuration was read.

use std::{
    collections::{BTreeSet, HashMap},
    future::Future,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    vec,
};

use hyper_util::client::legacy::connect::dns::{GaiResolver, Name};
use reqwest::dns::{Addrs, Resolve, Resolving};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tower::{Service, ServiceExt as _};

use crate::config::{LinkLocal, is_link_local};
use crate::tasks::{BoxError, spawn};

/// Most look-ups of one name at a time.
const LOOKUPS_MAX: usize = 8;

/// Looks up names, and leaves out link-local addresses and those of metadata services.
#[derive(Clone, Debug)]
pub struct Resolver<R = GaiResolver> {
    inner: R,
    /// Names that may lead there.
    allowed: Arc<BTreeSet<String>>,
    lines: Lines,
}

/// Look-ups under way. Each takes a thread of the system's for as long as its name server likes, and
/// the journal is written by the same threads: one name may not take them all.
#[derive(Clone, Debug, Default)]
struct Lines(Arc<Mutex<HashMap<String, Arc<Semaphore>>>>);

impl Lines {
    /// Waits for a place to look this name up. Only configured hosts are looked up, so there are few.
    async fn enter(&self, host: &str) -> Option<OwnedSemaphorePermit> {
        let places = {
            let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let new = || Arc::new(Semaphore::new(LOOKUPS_MAX));
            Arc::clone(lines.entry(host.to_owned()).or_insert_with(new))
        };
        // It is never closed.
        places.acquire_owned().await.ok()
    }
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
            let place = lines.enter(&host).await;
            let (sender, found) = oneshot::channel();
            // It goes on in its thread when nobody waits for it any more, and keeps its place.
            spawn("lookup", async move {
                let found: Result<Vec<SocketAddr>, BoxError> =
                    inner.oneshot(name).await.map(Iterator::collect).map_err(Into::into);
                drop((place, sender.send(found)));
            });
            let mut found = found.await??;
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
    use std::{convert::Infallible, net::Ipv4Addr};

    use hyper_util::client::legacy::connect::HttpConnector;
    use tokio::net::TcpListener;
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
        let stream = stream.map_err(|error| crate::tasks::describe(&error))?;
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

    #[tokio::test]
    async fn a_name_whose_servers_are_silent_takes_so_many_threads_and_no_more() {
        let (looked_up, here) = std::sync::mpsc::channel();
        let inner = service_fn(move |name: Name| {
            let (slow, looked_up) = (name.as_str() == "slow.example", looked_up.clone());
            async move {
                looked_up.send(()).unwrap();
                if slow {
                    std::future::pending::<()>().await;
                }
                Ok::<_, Infallible>([SocketAddr::from((Ipv4Addr::LOCALHOST, 1))].into_iter())
            }
        });
        let resolver = Resolver { inner, allowed: Arc::default(), lines: Lines::default() };
        for _ in 0..30 {
            let found = resolver.clone().oneshot("slow.example".parse().unwrap());
            let wait = std::time::Duration::from_millis(1);
            assert!(tokio::time::timeout(wait, found).await.is_err(), "nobody answers");
        }
        let found = resolver.oneshot("fast.example".parse().unwrap()).await.unwrap();
        assert_eq!((found.count(), here.try_iter().count()), (1, LOOKUPS_MAX + 1));
    }

    #[tokio::test]
    async fn the_systems_names_are_looked_up() {
        let found = Names(Resolver::new([])).resolve("localhost".parse().unwrap()).await.unwrap();
        assert!(found.into_iter().all(|it| it.ip().is_loopback()));
    }
}
