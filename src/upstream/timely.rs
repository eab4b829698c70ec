//! Connections that are open in time: address and greeting together, once the name is known.

use std::{
    net::IpAddr,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use hyper::Uri;
use tokio::time::timeout;
use tower::{Service, ServiceExt as _};

use crate::tasks::BoxError;

use super::{Resolver, hearing::Hearing};

/// Opens connections as another connector does, and gives up those that take too long, also where
/// nobody waits for them any more. Names have a time of their own. On each the provider is heard out.
#[derive(Clone, Debug)]
pub(super) struct Timely<S> {
    inner: S,
    names: Resolver,
    time: Duration,
}

/// A connection that was not open in time.
#[derive(Debug, thiserror::Error)]
#[error("`{host}` did not take a connection within {time:?} (`upstream_connect_timeout`)")]
struct Late {
    host: String,
    time: Duration,
}

impl<S> Timely<S> {
    /// `names` are those by which `inner` finds addresses.
    pub(super) fn new(inner: S, names: Resolver, time: Duration) -> Self {
        Self { inner, names, time }
    }
}

impl<S> Service<Uri> for Timely<S>
where
    S: Service<Uri, Error: Into<BoxError>> + Clone + Send + 'static,
    S::Future: Send,
    S::Response: Send,
{
    type Response = Hearing<S::Response>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let (inner, names, time) = (self.inner.clone(), self.names.clone(), self.time);
        Box::pin(async move {
            let host = uri.host().unwrap_or_default().to_owned();
            if host.trim_matches(['[', ']']).parse::<IpAddr>().is_err() {
                // Found here, it is at hand there.
                names.oneshot(host.parse()?).await?;
            }
            let opened = timeout(time, inner.oneshot(uri)).await;
            let stream = opened.map_err(|_| Late { host, time })?.map_err(Into::into)?;
            Ok(Hearing::new(stream))
        })
    }
}

#[cfg(test)]
mod tests {
    use tower::service_fn;

    use super::*;
    use crate::tasks::describe;

    #[tokio::test(start_paused = true)]
    async fn who_never_greets_is_given_up() {
        let deaf = service_fn(|_: Uri| std::future::pending::<Result<(), BoxError>>());
        let timely = Timely::new(deaf, Resolver::new([]), Duration::from_secs(5));
        let error = timely.oneshot("https://127.0.0.1/v1".parse().unwrap()).await.unwrap_err();
        let told = describe(error.as_ref());
        assert!(told.starts_with("`127.0.0.1` did not take a connection within 5s"), "{told}");
        let well = service_fn(|_: Uri| async { Ok::<_, BoxError>(()) });
        let timely = Timely::new(well, Resolver::new([]), Duration::from_secs(5));
        timely.oneshot("http://[::1]/v1".parse().unwrap()).await.unwrap();
    }
}
