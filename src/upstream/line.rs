//! A caller's own connection to a provider: it lives and runs with the caller's connection.
//!
//! A pool hands every request from task to task, and its answer back. Here the task that serves the
//! caller drives the provider's connection too.

use std::{
    fmt,
    future::Future,
    mem,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use hyper::{
    Request, Response, Uri,
    body::Incoming,
    client::conn::http1::{Builder, SendRequest},
    header::{HOST, HeaderValue},
    http::uri::{Authority, Scheme},
};
use tokio::time::Instant;
use tower::ServiceExt as _;

use crate::clock::Alarm;
use crate::tasks::BoxError;

use super::{Body, HEAD_BYTES_MAX, IDLE_MAX, Plain, beside::beside, timely::Timely};

/// A way to one provider for one caller alone, who asks one thing at a time.
#[derive(Debug, Default)]
pub struct Line(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    caller: Caller,
    /// Rings when an answer is late.
    alarm: Alarm,
    open: Option<Open>,
    /// Wakes whoever drives the connection, while there is none.
    driver: Option<Waker>,
}

/// Whether the caller has asked before: one that never asks again needs no line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Caller {
    #[default]
    New,
    Known,
}

struct Open {
    to: Authority,
    host: HeaderValue,
    connection: Driven,
    /// None while a request waits for the head of its answer.
    sender: Option<SendRequest<Body>>,
    used: Used,
    look: Alarm,
    look_at: Instant,
}

type Driven = Pin<Box<dyn Future<Output = hyper::Result<()>> + Send>>;

/// Whether it was used since it was looked at last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Used {
    Yes,
    No,
}

/// What became of a request.
pub(super) enum Sent {
    /// The head of its answer is here.
    Answered(Response<Incoming>),
    /// Nothing of it was sent: it may go another way.
    Back(Request<Body>),
}

impl Line {
    /// Serves a caller to the end of its connection, and drives the line meanwhile.
    pub fn along<F>(self: Arc<Self>, caller: F) -> Pin<Box<dyn Future<Output = F::Output> + Send>>
    where
        F: Future + Send + 'static,
    {
        Box::pin(beside(caller, move |context| self.drive(context)))
    }

    /// Sends a request to a provider without TLS; gives back what it cannot send. A greeting by TLS
    /// costs more than a line saves, where the pool has a connection that is greeted already.
    ///
    /// # Errors
    /// When the provider cannot be reached, or breaks off when it may have seen the request.
    pub(super) async fn send(
        &self,
        connector: &Timely<Plain>,
        mut request: Request<Body>,
    ) -> Result<Sent, BoxError> {
        let is_known = mem::replace(&mut self.state().caller, Caller::Known) == Caller::Known;
        if !is_known || request.uri().scheme() != Some(&Scheme::HTTP) {
            return Ok(Sent::Back(request));
        }
        if self.state().open.is_none() {
            self.open(connector, request.uri()).await?;
        }
        let Some((mut sender, host)) = self.take(request.uri()) else {
            return Ok(Sent::Back(request));
        };
        let path = request.uri().path_and_query().cloned().map_or_else(Uri::default, Uri::from);
        let whole = mem::replace(request.uri_mut(), path);
        request.headers_mut().insert(HOST, host);
        let sent = sender.try_send_request(request).await;
        if let Some(open) = &mut self.state().open {
            open.sender = Some(sender);
        }
        match sent {
            Ok(response) => Ok(Sent::Answered(response)),
            Err(mut error) => match error.take_message() {
                Some(mut request) => {
                    *request.uri_mut() = whole;
                    request.headers_mut().remove(HOST);
                    Ok(Sent::Back(request))
                }
                None => Err(error.into_error().into()),
            },
        }
    }

    /// Whether a time has come while it is waited for an answer, by a timer that is kept from one
    /// request to the next.
    pub fn poll_until(&self, at: Instant, context: &mut Context<'_>) -> Poll<()> {
        self.state().alarm.poll(at, context)
    }

    async fn open(&self, connector: &Timely<Plain>, uri: &Uri) -> Result<(), BoxError> {
        let Some(to) = uri.authority().cloned() else { return Ok(()) };
        let host = match to.port_u16().filter(|it| *it != 80) {
            Some(port) => HeaderValue::try_from(format!("{}:{port}", to.host()))?,
            None => HeaderValue::from_str(to.host())?,
        };
        let stream = connector.clone().oneshot(uri.clone()).await?;
        let mut builder = Builder::new();
        builder.max_buf_size(HEAD_BYTES_MAX);
        let (sender, connection) = builder.handshake(stream).await?;
        let mut state = self.state();
        state.open = Some(Open {
            to,
            host,
            connection: Box::pin(connection),
            sender: Some(sender),
            used: Used::Yes,
            look: Alarm::default(),
            look_at: Instant::now() + IDLE_MAX / 2,
        });
        if let Some(driver) = state.driver.take() {
            driver.wake();
        }
        Ok(())
    }

    /// What sends, if it is free and leads there.
    fn take(&self, uri: &Uri) -> Option<(SendRequest<Body>, HeaderValue)> {
        let mut state = self.state();
        let open = state.open.as_mut().filter(|it| Some(&it.to) == uri.authority())?;
        open.used = Used::Yes;
        Some((open.sender.take()?, open.host.clone()))
    }

    fn drive(&self, context: &mut Context<'_>) {
        let mut state = self.state();
        let Some(open) = &mut state.open else {
            state.driver = Some(context.waker().clone());
            return;
        };
        // Who waits for an answer is told by the connection itself why there is none.
        if open.connection.as_mut().poll(context).is_ready() || open.is_idle(context) {
            state.open = None;
            state.driver = Some(context.waker().clone());
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Open {
    /// Whether nobody used it from one look to the next, and nobody does now.
    fn is_idle(&mut self, context: &mut Context<'_>) -> bool {
        while self.look.poll(self.look_at, context).is_ready() {
            let is_free = self.sender.as_ref().is_some_and(SendRequest::is_ready);
            if is_free && self.used == Used::No {
                return true;
            }
            self.used = if is_free { Used::No } else { Used::Yes };
            self.look_at = Instant::now() + IDLE_MAX / 2;
        }
        false
    }
}

impl fmt::Debug for Open {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Open").field("to", &self.to).finish_non_exhaustive()
    }
}
