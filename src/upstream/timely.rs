//! Connections that are open in time, name, address and greeting together.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use hyper::Uri;
use tokio::time::timeout;
use tower::{Service, ServiceExt as _};

use crate::tasks::BoxError;

use super::hearing::Hearing;

/// Opens connections as another connector does, and gives up those that take too long, also where
/// nobody waits for them any more. On each the provider is heard out.
#[derive(Clone, Debug)]
pub(super) struct Timely<S> {
    inner: S,
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
    pub(super) fn new(inner: S, time: Duration) -> Self {
        Self { inner, time }
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
        let (inner, time) = (self.inner.clone(), self.time);
        Box::pin(async move {
            let host = uri.host().unwrap_or_default().to_owned();
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
        let timely = Timely::new(deaf, Duration::from_secs(5));
        let error = timely.oneshot("https://deaf.example/v1".parse().unwrap()).await.unwrap_err();
        assert!(
            describe(error.as_ref())
                .starts_with("`deaf.example` did not take a connection within 5s")
        );
        let well = service_fn(|_: Uri| async { Ok::<_, BoxError>(()) });
        Timely::new(well, Duration::from_secs(5)).oneshot(Uri::default()).await.unwrap();
    }
}
