//! What a caller's connection is at: requests under way, and answers that nobody takes.

use std::{
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::Version;
use tokio::time::{Instant, sleep};

use crate::tasks::{self, BoxError, Place};
use crate::upstream::Body;

use super::patience::RATE_MIN;

/// How often answers that wait are looked at, in parts of the longest wait.
const LOOKS: u32 = 4;

/// What one connection is at.
#[derive(Debug, Default)]
pub(super) struct Presence {
    begun: AtomicUsize,
    under_way: AtomicUsize,
    /// Whether requests share it, as in HTTP/2.
    shared: AtomicBool,
    answers: Mutex<Vec<Weak<Answer>>>,
}

/// A request under way, until it is dropped.
#[derive(Debug)]
pub(super) struct Busy {
    presence: Arc<Presence>,
    room: Room,
}

/// What a request under way needs beside what its connection has.
#[derive(Debug)]
enum Room {
    /// Nothing: the connection's place is for one request too.
    Own,
    /// A place for itself.
    Beside(#[expect(dead_code, reason = "held for its drop")] Place),
    /// There is none.
    Full,
}

impl Busy {
    /// Whether there is no place for it.
    pub(super) fn is_refused(&self) -> bool {
        matches!(self.room, Room::Full)
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.presence.under_way.fetch_sub(1, Relaxed);
    }
}

impl Presence {
    /// A request begins; beside another one of its connection it takes a place of these.
    pub(super) fn begin(
        self: &Arc<Self>,
        version: Version,
        places: impl FnOnce() -> Option<Place>,
    ) -> Busy {
        let is_shared = version == Version::HTTP_2;
        self.shared.store(is_shared, Relaxed);
        let beside = self.under_way.fetch_add(1, Relaxed);
        self.begun.fetch_add(1, Relaxed);
        let room = if is_shared && 0 < beside {
            places().map_or(Room::Full, Room::Beside)
        } else {
            Room::Own
        };
        Busy { presence: Arc::clone(self), room }
    }

    /// How many requests have begun.
    pub(super) fn begun(&self) -> usize {
        self.begun.load(Relaxed)
    }

    /// Whether one of them is under way.
    pub(super) fn is_busy(&self) -> bool {
        self.under_way.load(Relaxed) != 0
    }

    /// Whether requests share the connection.
    pub(super) fn is_shared(&self) -> bool {
        self.shared.load(Relaxed)
    }

    /// Keeps an eye on an answer, from its first one on until the connection ends.
    fn watch(self: &Arc<Self>, answer: &Arc<Answer>, wait_max: Duration) {
        let mut answers = self.answers();
        // Whoever looks after them ends with the connection, so there is one from the first on.
        let is_first = answers.capacity() == 0;
        if answers.len() == answers.capacity() {
            answers.retain(|it| 0 < it.strong_count());
        }
        answers.push(Arc::downgrade(answer));
        drop(answers);
        if is_first {
            tasks::spawn("patience", look_after(Arc::downgrade(self), wait_max));
        }
    }

    /// Takes away the answers that nobody has taken a part of for so long.
    fn let_go(&self, wait_max: Duration) {
        let mut late = Vec::new();
        self.answers().retain(|it| {
            let Some(answer) = it.upgrade() else { return false };
            let mut state = answer.state();
            if state.is_late(wait_max) {
                late.push(state.body.take());
            }
            state.body.is_some()
        });
        // Its provider hears of it when the body is dropped.
        if !late.is_empty() {
            tracing::debug!(answers = late.len(), "given up: the caller does not take them");
        }
    }

    fn answers(&self) -> MutexGuard<'_, Vec<Weak<Answer>>> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn look_after(presence: Weak<Presence>, wait_max: Duration) {
    loop {
        sleep(wait_max / LOOKS).await;
        let Some(presence) = presence.upgrade() else { return };
        presence.let_go(wait_max);
    }
}

/// An answer that a caller took nothing of for too long.
#[derive(Debug, thiserror::Error)]
#[error("the caller does not take its answer")]
struct NotTaken;

/// An answer on a connection that others share.
#[derive(Debug)]
pub(super) struct Answer(Mutex<State>);

#[derive(Debug)]
struct State {
    /// None once it was given up.
    body: Option<(Body, Busy)>,
    /// Since when the caller has not asked for more, and how much it has to take before that.
    since: Option<Instant>,
    len: u64,
}

impl State {
    fn is_late(&self, wait_max: Duration) -> bool {
        let allowed = wait_max + Duration::from_secs(self.len / RATE_MIN);
        self.since.is_some_and(|it| allowed <= it.elapsed())
    }
}

impl Answer {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The body of an answer; its request is under way until it is dropped.
pub(super) enum Reply {
    /// Its connection waits for it, and ends with it.
    Alone(Body, #[expect(dead_code, reason = "held for its drop")] Busy),
    /// Others share its connection, so it is given up alone when nobody takes it.
    Watched(Arc<Answer>),
}

impl Reply {
    /// The body of an answer to a request of this connection.
    pub(super) fn new(body: Body, busy: Busy, wait_max: Duration) -> Self {
        let presence = Arc::clone(&busy.presence);
        if !presence.is_shared() {
            return Self::Alone(body, busy);
        }
        let state = State { body: Some((body, busy)), since: Some(Instant::now()), len: 0 };
        let answer = Arc::new(Answer(Mutex::new(state)));
        presence.watch(&answer, wait_max);
        Self::Watched(answer)
    }
}

impl HttpBody for Reply {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let answer = match &mut *self {
            Self::Alone(body, _) => return Pin::new(body).poll_frame(context),
            Self::Watched(answer) => answer,
        };
        let mut state = answer.state();
        let Some((body, _)) = &mut state.body else {
            return Poll::Ready(Some(Err(NotTaken.into())));
        };
        let polled = Pin::new(body).poll_frame(context);
        state.since = polled.is_ready().then(Instant::now);
        if let Poll::Ready(Some(Ok(frame))) = &polled {
            let len = frame.data_ref().map_or(0, Bytes::len);
            state.len = u64::try_from(len).unwrap_or(u64::MAX);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Alone(body, _) => body.is_end_stream(),
            Self::Watched(answer) => {
                answer.state().body.as_ref().is_some_and(|(it, _)| it.is_end_stream())
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Alone(body, _) => body.size_hint(),
            Self::Watched(answer) => answer
                .state()
                .body
                .as_ref()
                .map_or_else(SizeHint::default, |(it, _)| it.size_hint()),
        }
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::{BodyExt as _, StreamBody};

    use super::*;
    use crate::tasks::Pool;

    const WAIT: Duration = Duration::from_mins(1);

    fn begin(presence: &Arc<Presence>) -> Busy {
        presence.begin(Version::HTTP_2, || Pool::new(1).try_enter())
    }

    fn reply(presence: &Arc<Presence>) -> Reply {
        let chunk = || Ok::<_, BoxError>(Frame::data(Bytes::from(vec![0; 5_000])));
        let frames = tokio_stream::iter([chunk(), chunk(), chunk()]);
        Reply::new(StreamBody::new(frames).boxed(), begin(presence), WAIT)
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_nobody_takes_is_given_up_and_those_beside_it_are_not() {
        let presence: Arc<Presence> = Arc::default();
        let (mut never, mut late, mut slow) =
            (reply(&presence), reply(&presence), reply(&presence));
        assert!(late.frame().await.unwrap().is_ok());
        for _ in 0..3 {
            assert!(slow.frame().await.unwrap().is_ok());
            sleep(WAIT).await;
        }
        assert!(slow.frame().await.is_none());
        assert!(never.frame().await.unwrap().is_err());
        assert!(late.frame().await.unwrap().is_err());
        drop(slow);
        assert!(!presence.is_busy(), "what was given up keeps nobody");
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_its_provider_takes_long_for_is_waited_for() {
        let presence: Arc<Presence> = Arc::default();
        let body: Body = StreamBody::new(tokio_stream::pending()).boxed();
        let mut reply = Reply::new(body, begin(&presence), WAIT);
        tokio::time::timeout(WAIT * 100, reply.frame()).await.unwrap_err();
        assert!(presence.is_busy());
    }
}
