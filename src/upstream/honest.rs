//! Answers that say two things at once about where they end are no answers.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use hyper::{
    Request, Response, StatusCode,
    ext::on_informational,
    header::{CONTENT_LENGTH, HeaderValue, TRANSFER_ENCODING},
};
use tokio::sync::Notify;

use crate::tasks::BoxError;

/// Most that a provider may say before its answer (100, 103 and the like).
const BEFORE_MAX: usize = 16;

/// What is wrong with an answer, or what comes instead of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// What came does not follow the grammar, or is too large.
    #[error("the provider's answer is not HTTP, or its head is too large")]
    Form,
    /// Not one plain length, or not chunks alone.
    #[error("the provider's answer says in two ways where it ends")]
    Framing,
    /// 101 without having been asked.
    #[error("the provider wants to speak another protocol, unasked")]
    Switch,
    /// Too much before the answer.
    #[error("the provider sends interim answers without end")]
    Flood,
}

impl Invalid {
    /// The fault that an error comes from, if it is one of the answer itself.
    pub fn of(error: &BoxError) -> Option<Self> {
        let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error.as_ref());
        while let Some(it) = cause {
            if let Some(invalid) = it.downcast_ref::<Self>() {
                return Some(*invalid);
            }
            if it.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_parse) {
                return Some(Self::Form);
            }
            cause = it.source();
        }
        None
    }
}

/// Sees what a provider says before its answer.
#[derive(Debug, Default)]
pub(super) struct Before {
    said: AtomicUsize,
    flood: Notify,
}

impl Before {
    /// Looks at what comes before the answer to a request.
    pub(super) fn of<B>(request: &mut Request<B>) -> Arc<Self> {
        let before = Arc::new(Self::default());
        let seen = Arc::clone(&before);
        on_informational(request, move |_| {
            if seen.said.fetch_add(1, Relaxed) == BEFORE_MAX {
                seen.flood.notify_one();
            }
        });
        before
    }

    /// Waits until it is too much, which may be never.
    pub(super) async fn flood(&self) -> Invalid {
        self.flood.notified().await;
        Invalid::Flood
    }
}

/// An answer of which there is only one reading. hyper has checked its grammar, and for an answer
/// with a body that there is one length.
pub(super) fn checked<B>(response: Response<B>) -> Result<Response<B>, Invalid> {
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        return Err(Invalid::Switch);
    }
    let headers = response.headers();
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter().map(HeaderValue::as_bytes);
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter().map(HeaderValue::as_bytes);
    let framing = [lengths.next(), lengths.next(), codings.next(), codings.next()];
    let is_plain = match framing {
        [None, _, None, _] => true,
        [Some(length), None, None, _] => length.iter().all(u8::is_ascii_digit),
        [None, _, Some(coding), None] => coding.eq_ignore_ascii_case(b"chunked"),
        _ => false,
    };
    if is_plain { Ok(response) } else { Err(Invalid::Framing) }
}
