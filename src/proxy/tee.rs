//! The tee: a body passes through to the caller, and shared copies of its chunks are kept aside.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::{
    body::Incoming,
    header::{CONTENT_ENCODING, CONTENT_TYPE},
    http::response,
};

use crate::clock::{elapsed_ms, instant};
use crate::dialect::{self, End, Prelude, Received, Tail};
use crate::domain::{Call, Endpoint, Name, Outcome, Transcript};
use crate::memory::Held;
use crate::tasks::BoxError;
use crate::upstream::UNHEARD;

use super::headers;

/// A provider that says nothing for so long has failed, also if the caller left.
const STALL: Duration = Duration::from_secs(10);

/// Most that is kept of the end of a stream of which all of the beginning is kept that may be: it
/// says how the stream ended, and what it used.
const TAIL_LEN_MAX: usize = 64 << 10;

/// What is said of an answer whose caller did not stay.
const LEFT: &str = "the caller left";
const LEFT_SILENT: &str = "the caller left while it was silent";

/// One provider's answer as it was received, before anybody reads it.
#[derive(Clone, Debug)]
pub(super) struct Taken {
    pub(super) provider: Name,
    pub(super) status: u16,
    content_type: String,
    content_encoding: String,
    /// How long it asks to be left alone, in its own words; empty when it does not.
    pub(super) retry_after: String,
    first_byte_ms: Option<u32>,
    pub(super) total_ms: u32,
    body: Bytes,
    /// The end of a stream that is longer than its body, and how much there is between the two.
    tail: Bytes,
    missing: usize,
    /// The memory that both take.
    held: Option<Arc<Held>>,
    pub(super) ended: Ended,
}

/// How the taking of an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// With its last byte, all of it kept.
    Whole,
    /// With its last byte, more than may be kept.
    Cut,
    /// There was no memory left to keep it, and nothing of it is kept.
    Shed,
    /// The connection broke before or inside the answer.
    Broken,
    /// No answer in time.
    Timeout,
    /// The caller left after a silence so long that the provider has failed. Nobody leaves a copy,
    /// so that is no evidence of a pair.
    Silent,
    /// Nothing had come when it was given up for its caller's sake, though it had some seconds.
    Unheard,
    /// We or the caller stopped it.
    Abandoned,
}

impl Ended {
    /// What it means that a caller gave up who had waited so long for an answer to begin.
    pub(super) fn unbegun(silence: Duration) -> Self {
        if STALL <= silence {
            Self::Silent
        } else if UNHEARD <= silence {
            Self::Unheard
        } else {
            Self::Abandoned
        }
    }

    /// Whether somebody stopped it who knew of no fault in it.
    pub(super) fn is_left(self) -> bool {
        match self {
            Self::Silent | Self::Unheard | Self::Abandoned => true,
            Self::Whole | Self::Cut | Self::Shed | Self::Broken | Self::Timeout => false,
        }
    }
}

/// How much of an answer is kept.
#[derive(Debug)]
pub(super) enum Keep {
    /// Times and status only.
    Nothing,
    /// The body, up to so many bytes, as long as there is memory to hold it.
    UpTo(usize, Held),
    /// Nothing any more: there was no memory to hold it.
    Shed,
}

/// Receives the answer when it has ended, one way or another.
pub(super) type Done = Box<dyn FnOnce(Taken) + Send + Sync>;

/// An answer being taken.
pub(super) struct Taking {
    taken: Taken,
    started: Instant,
    prelude: Prelude,
    len: usize,
    body: Vec<u8>,
    /// A ring; without room where the end says nothing by itself.
    tail: VecDeque<u8>,
    keep: Keep,
    done: Done,
}

impl Taken {
    /// An answer that never began.
    pub(super) fn nothing(provider: Name, started: Instant, ended: Ended) -> Self {
        Self {
            provider,
            status: 0,
            content_type: String::new(),
            content_encoding: String::new(),
            retry_after: String::new(),
            first_byte_ms: None,
            total_ms: elapsed_ms(started),
            body: Bytes::new(),
            tail: Bytes::new(),
            missing: 0,
            held: None,
            ended,
        }
    }

    /// An answer of which only the head matters.
    pub(super) fn head_only(provider: Name, head: &response::Parts, started: Instant) -> Self {
        let total_ms = elapsed_ms(started);
        Self { total_ms, ended: Ended::Whole, ..Self::from_head(provider, head) }
    }

    /// The same, with the time measured from an earlier start.
    pub(super) fn with_time(mut self, started: Instant) -> Self {
        self.total_ms = elapsed_ms(started);
        self
    }

    fn from_head(provider: Name, head: &response::Parts) -> Self {
        Self {
            provider,
            status: head.status.as_u16(),
            content_type: headers::text(&head.headers, CONTENT_TYPE).to_owned(),
            content_encoding: headers::text(&head.headers, CONTENT_ENCODING).to_owned(),
            retry_after: match head.status.as_u16() {
                429 | 529 => headers::retry_after(&head.headers),
                _ => String::new(),
            },
            first_byte_ms: None,
            total_ms: 0,
            body: Bytes::new(),
            tail: Bytes::new(),
            missing: 0,
            held: None,
            ended: Ended::Abandoned,
        }
    }

    /// Whether its caller gave up before it began.
    pub(super) fn is_in_vain(&self) -> bool {
        self.ended.is_left() && self.first_byte_ms.is_none()
    }

    /// What the answer comes to.
    pub(super) fn read(&self, endpoint: Endpoint) -> (Call, Reading) {
        let mut call = Call {
            provider: self.provider.clone(),
            model: None,
            status: self.status,
            outcome: Outcome::Abandoned,
            first_byte_ms: self.first_byte_ms,
            total_ms: self.total_ms,
            usage: None,
            finish_reason: None,
            cost_nano_usd: None,
            checks: crate::domain::Checks::default(),
            answer_chars: None,
            rouge_l_bps: None,
            estimated: false,
        };
        let ended = match self.ended {
            Ended::Whole => End::Whole,
            Ended::Cut => End::Cut,
            Ended::Broken if self.status != 0 => End::Broken,
            Ended::Broken => {
                call.outcome = Outcome::ProviderError;
                return (call, Reading::trouble("the connection failed"));
            }
            Ended::Silent if self.first_byte_ms.is_some() => {
                return (self.left(call, endpoint), Reading::trouble(LEFT_SILENT));
            }
            Ended::Timeout | Ended::Silent => {
                call.outcome = Outcome::Timeout;
                return (call, Reading::trouble("no answer in time"));
            }
            Ended::Abandoned | Ended::Unheard => {
                return (self.left(call, endpoint), Reading::trouble(LEFT));
            }
            Ended::Shed => return (call, Reading::trouble("there was no memory to keep it")),
        };
        let reading = self.reading(endpoint, ended);
        call.outcome = reading.outcome;
        call.model = reading.model;
        call.usage = reading.usage;
        call.finish_reason = reading.finish_reason;
        (call, Reading { transcript: reading.transcript, trouble: reading.trouble })
    }

    /// What was told of a call by the time its caller left: what it had used is paid for.
    fn left(&self, mut call: Call, endpoint: Endpoint) -> Call {
        if !self.body.is_empty() {
            let reading = self.reading(endpoint, End::Broken);
            (call.model, call.usage) = (reading.model, reading.usage);
        }
        call
    }

    fn reading(&self, endpoint: Endpoint, ended: End) -> dialect::Reading {
        dialect::read(&Received {
            endpoint,
            status: self.status,
            content_type: &self.content_type,
            content_encoding: &self.content_encoding,
            body: &self.body,
            tail: Tail { bytes: &self.tail, missing: self.missing },
            ended,
        })
    }

    /// Whether it is a stream of which every part can be read by itself.
    fn is_stream(&self, beginning: &[u8]) -> bool {
        self.content_encoding.is_empty() && dialect::is_stream(&self.content_type, beginning)
    }
}

/// The part of an answer that is not in its [`Call`].
#[derive(Debug)]
pub(super) struct Reading {
    pub(super) transcript: Option<Transcript>,
    pub(super) trouble: Option<String>,
}

impl Reading {
    fn trouble(text: &str) -> Self {
        Self { transcript: None, trouble: Some(text.to_owned()) }
    }
}

impl Taking {
    /// Begins with the head of an answer.
    pub(super) fn new(
        provider: Name,
        head: &response::Parts,
        started: Instant,
        keep: Keep,
        done: Done,
    ) -> Self {
        let taken = Taken::from_head(provider, head);
        let prelude = Prelude::default();
        let (body, tail) = (Vec::new(), VecDeque::new());
        Self { taken, started, prelude, len: 0, body, tail, keep, done }
    }

    fn chunk(&mut self, chunk: &Bytes) {
        if self.taken.first_byte_ms.is_none() && self.prelude.ends(chunk) {
            self.taken.first_byte_ms = Some(elapsed_ms(self.started));
        }
        self.len = self.len.saturating_add(chunk.len());
        let Keep::UpTo(len_max, held) = &mut self.keep else { return };
        let body = &mut self.body;
        let kept = chunk.len().min(len_max.saturating_sub(body.len()));
        // What is allocated is held, and grows as a `Vec` does.
        let (room, len) = (body.capacity(), body.len() + kept);
        let wanted = if len <= room { room } else { len.max((2 * room).min(*len_max)) };
        if held.try_grow(wanted - room).is_ok() {
            body.reserve_exact(wanted - body.len());
            // Copied, because small chunks that are shared hold many times their bytes.
            body.extend_from_slice(&chunk[..kept]);
        } else {
            return self.shed();
        }
        let (rest, is_first) = (&chunk[kept..], self.len - chunk.len() <= *len_max);
        if !rest.is_empty() {
            if is_first && self.taken.is_stream(&self.body) {
                if held.try_grow(TAIL_LEN_MAX).is_err() {
                    return self.shed();
                }
                self.tail.reserve_exact(TAIL_LEN_MAX);
            }
            self.turn(rest);
        }
    }

    /// Keeps the last of what comes after the beginning.
    fn turn(&mut self, rest: &[u8]) {
        if self.tail.capacity() == 0 {
            return;
        }
        let rest = &rest[rest.len().saturating_sub(TAIL_LEN_MAX)..];
        let over = (self.tail.len() + rest.len()).saturating_sub(TAIL_LEN_MAX);
        drop(self.tail.drain(..over));
        self.tail.extend(rest);
    }

    fn shed(&mut self) {
        (self.body, self.tail, self.keep) = (Vec::new(), VecDeque::new(), Keep::Shed);
    }

    fn finish(self, ended: Ended) {
        let Self { mut taken, started, prelude: _, len, body, tail, keep, done } = self;
        taken.total_ms = elapsed_ms(started);
        taken.ended = match (ended, &keep) {
            (Ended::Abandoned | Ended::Silent | Ended::Unheard, _) => ended,
            (_, Keep::Shed) => Ended::Shed,
            (Ended::Whole, Keep::Nothing) => Ended::Cut,
            (Ended::Whole, Keep::UpTo(len_max, _)) if *len_max < len => Ended::Cut,
            (_, Keep::Nothing | Keep::UpTo(..)) => ended,
        };
        if let Keep::UpTo(_, held) = keep {
            taken.missing = len.saturating_sub(body.len()).saturating_sub(tail.len());
            taken.tail = Bytes::from(Vec::from(tail));
            (taken.body, taken.held) = (Bytes::from(body), Some(Arc::new(held)));
        }
        done(taken);
    }
}

/// A body on its way to the caller.
pub(super) struct Tee {
    /// A chunk that was read ahead, to see that an answer begins.
    first: Option<Bytes>,
    inner: Incoming,
    taking: Option<Box<Taking>>,
    /// Since when the provider is silent though it was asked for more.
    silent: Option<Instant>,
    /// How long it may be.
    stall: Duration,
}

impl Tee {
    /// Passes `first` and then `inner` through.
    pub(super) fn new(first: Option<Bytes>, inner: Incoming, taking: Taking) -> Self {
        let mut taking = Box::new(taking);
        if let Some(chunk) = &first {
            taking.chunk(chunk);
        }
        Self { first, inner, taking: Some(taking), silent: None, stall: STALL }
    }

    /// The same for an answer that may take so long in all: half of that in silence is a stall.
    pub(super) fn within(mut self, time: Duration) -> Self {
        self.stall = STALL.min(time / 2);
        self
    }

    /// Ends the taking, if it has not ended.
    pub(super) fn finish(&mut self, ended: Ended) {
        if let Some(taking) = self.taking.take() {
            taking.finish(ended);
        }
    }
}

impl HttpBody for Tee {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if let Some(first) = self.first.take() {
            if self.inner.is_end_stream() {
                self.finish(Ended::Whole);
            }
            return Poll::Ready(Some(Ok(Frame::data(first))));
        }
        let Poll::Ready(frame) = Pin::new(&mut self.inner).poll_frame(context) else {
            self.silent.get_or_insert_with(instant);
            return Poll::Pending;
        };
        self.silent = None;
        match &frame {
            Some(Ok(frame)) => {
                if let (Some(chunk), Some(taking)) = (frame.data_ref(), &mut self.taking) {
                    taking.chunk(chunk);
                }
                // The server stops asking once it has the promised length.
                if self.inner.is_end_stream() {
                    self.finish(Ended::Whole);
                }
            }
            Some(Err(_)) => self.finish(Ended::Broken),
            None => self.finish(Ended::Whole),
        }
        Poll::Ready(frame.map(|it| it.map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_none() && self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let first = self.first.as_ref().map_or(0, |it| u64::try_from(it.len()).unwrap_or(0));
        let inner = self.inner.size_hint();
        let mut hint = SizeHint::new();
        if let Some(upper) = inner.upper() {
            hint.set_upper(upper + first);
        }
        hint.set_lower(inner.lower() + first);
        hint
    }
}

impl Drop for Tee {
    fn drop(&mut self) {
        // A caller who leaves says nothing about the provider, unless it had fallen silent before.
        let stalled = self.silent.is_some_and(|since| self.stall <= since.elapsed());
        let ended = match (self.is_end_stream(), stalled) {
            (true, _) => Ended::Whole,
            (false, true) => Ended::Silent,
            (false, false) => Ended::Abandoned,
        };
        self.finish(ended);
    }
}

#[cfg(test)]
#[path = "tee_tests.rs"]
mod tests;
