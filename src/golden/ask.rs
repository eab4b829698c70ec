//! Asks a provider a case as a copy would be asked: the same rewriting, credential and limits.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt as _, Full};
use hyper::{
    Method, Request, Response, StatusCode,
    body::Incoming,
    header::{
        ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER,
    },
};
use tokio::time::{sleep, timeout};

use crate::clock::{self, Clock};
use crate::config::Config;
use crate::dialect::{self, Edits, End, Purpose, Received, Tail};
use crate::domain::{Call, Checks, Endpoint, Name, Outcome, Transcript};
use crate::patterns::{Keys, Redactor};
use crate::store::Answered;
use crate::upstream::{BadUrl, Body, Upstream, retry_after_ms};

use super::Case;

/// How often a case is asked at most, until there is an answer.
const TRIES_MAX: u32 = 3;
/// Pause before the second try, doubled for the next; a provider may ask for a longer one.
const PAUSE: Duration = Duration::from_millis(500);
/// Longest pause that a provider is granted.
const PAUSE_MAX: Duration = Duration::from_mins(1);
/// What providers of this dialect want to be told.
const ANTHROPIC_VERSION: (HeaderName, HeaderValue) =
    (HeaderName::from_static("anthropic-version"), HeaderValue::from_static("2023-06-01"));

/// Asks providers.
#[derive(Debug)]
pub struct Asker {
    upstream: Upstream,
    /// Who gets requests as applications write them.
    primary: Name,
    time_max: Duration,
    bytes_max: usize,
    redactor: Redactor,
    clock: Clock,
}

/// Why there is no answer, though it was asked for more than once.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{provider}`: {outcome}, {trouble}")]
pub struct Failed {
    /// The provider.
    pub provider: Name,
    /// How the last call ended.
    pub outcome: &'static str,
    /// What was wrong.
    pub trouble: String,
}

/// A call that was made.
struct Tried {
    call: Call,
    transcript: Option<Transcript>,
    trouble: String,
    retry_after: String,
}

impl Asker {
    /// Asks the providers of a configuration; what must not be kept is taken out of answers.
    ///
    /// # Errors
    /// When a base URL cannot be called.
    pub fn new(config: &Config, redactor: Redactor) -> Result<Self, BadUrl> {
        let limits = config.limits;
        let connect = Duration::from_millis(limits.upstream_connect_timeout_ms);
        Ok(Self {
            upstream: Upstream::new(&config.providers, connect)?,
            primary: config.primary.clone(),
            time_max: Duration::from_millis(limits.mirror_timeout_ms),
            bytes_max: limits.capture_bytes_max,
            redactor,
            clock: Clock::start(),
        })
    }

    /// A provider's answer to a case: also that it declines, or cannot take the request.
    ///
    /// # Errors
    /// When it fails, is throttled or too slow every time.
    pub async fn ask(&self, case: &Case, provider: &Name) -> Result<Answered, Failed> {
        let mut pause = PAUSE;
        for _ in 1..TRIES_MAX {
            let tried = self.try_once(case, provider).await;
            if let Some(answered) = tried.answered() {
                return Ok(self.redacted(answered));
            }
            let asked = retry_after_ms(&tried.retry_after, self.clock.now());
            let asked = asked.map_or(Duration::ZERO, Duration::from_millis).min(PAUSE_MAX);
            sleep(pause.max(asked)).await;
            pause *= 2;
        }
        let tried = self.try_once(case, provider).await;
        let (outcome, trouble) = (tried.call.outcome.as_str(), tried.trouble.clone());
        let failed = || Failed { provider: provider.clone(), outcome, trouble };
        tried.answered().map(|it| self.redacted(it)).ok_or_else(failed)
    }

    async fn try_once(&self, case: &Case, name: &Name) -> Tried {
        let started = clock::instant();
        let Some(request) = self.request(case, name) else {
            return Tried::nothing(name, Outcome::Incompatible, "the request cannot be written");
        };
        let mut tried = match timeout(self.time_max, self.taken(case, name, request)).await {
            Ok(tried) => tried,
            Err(_) => Tried::nothing(name, Outcome::Timeout, "no answer in time"),
        };
        tried.call.total_ms = clock::elapsed_ms(started);
        tried
    }

    /// The request as the proxy makes one of a copy: the primary's own model and form stay.
    fn request(&self, case: &Case, name: &Name) -> Option<Request<Body>> {
        let provider = self.upstream.provider(name)?;
        let is_primary = *name == self.primary;
        let edits = Edits {
            model: provider.model(&case.asked.model).filter(|_| !is_primary),
            purpose: Purpose::Copy,
            rules: provider.rules().filter(|_| !is_primary),
        };
        let adapted = dialect::adapt(case.endpoint, &case.path, &case.body, &case.asked, &edits);
        let (path, body) = adapted.ok()?;
        let body = Full::new(Bytes::from(body)).map_err(|never| match never {}).boxed();
        let mut request = Request::new(body);
        *request.method_mut() = Method::POST;
        *request.uri_mut() = provider.uri(&path.parse().ok()?).ok()?;
        let headers = request.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        if case.endpoint == Endpoint::Messages {
            let (name, value) = ANTHROPIC_VERSION;
            headers.insert(name, value);
        }
        provider.authorize(headers);
        Some(request)
    }

    async fn taken(&self, case: &Case, name: &Name, request: Request<Body>) -> Tried {
        let started = clock::instant();
        let response = match self.upstream.send(request).await {
            Ok(response) => response,
            Err(error) => {
                return Tried::nothing(name, Outcome::ProviderError, &root(error.as_ref()));
            }
        };
        let (head, mut body) = Response::into_parts(response);
        let (bytes, ended, first_byte_ms) = self.collect(&mut body, started).await;
        let text = |name: HeaderName| {
            head.headers.get(name).and_then(|it| it.to_str().ok()).unwrap_or_default().to_owned()
        };
        let (content_type, content_encoding) = (text(CONTENT_TYPE), text(CONTENT_ENCODING));
        let reading = dialect::read(&Received {
            endpoint: case.endpoint,
            status: head.status.as_u16(),
            content_type: &content_type,
            content_encoding: &content_encoding,
            body: &bytes,
            tail: Tail::default(),
            ended,
        });
        let mut call = Call {
            model: reading.model,
            status: head.status.as_u16(),
            first_byte_ms,
            usage: reading.usage,
            finish_reason: reading.finish_reason,
            ..nothing(name, reading.outcome)
        };
        if let Some(provider) = self.upstream.provider(name) {
            let said = reading.transcript.as_ref().filter(|_| call.usage.is_none());
            if let Some(said) = said.filter(|_| provider.has_prices()) {
                call.usage = Some(dialect::estimate(case.endpoint, &case.body, said));
                call.estimated = true;
            }
            let asked = case.asked.model.as_str();
            let is_primary = *name == self.primary;
            let sent = provider.model(asked).filter(|_| !is_primary).unwrap_or(asked);
            call.cost_nano_usd = provider.cost_nano_usd(sent, &call, self.clock.now());
        }
        let missing = || StatusCode::as_str(&head.status).to_owned();
        Tried {
            call,
            transcript: reading.transcript,
            trouble: reading.trouble.unwrap_or_else(missing),
            retry_after: text(RETRY_AFTER),
        }
    }

    /// The bytes of an answer as far as they are kept, how they ended, and when they began.
    async fn collect(
        &self,
        body: &mut Incoming,
        started: std::time::Instant,
    ) -> (BytesMut, End, Option<u32>) {
        let (mut bytes, mut first_byte_ms) = (BytesMut::new(), None);
        while let Some(frame) = body.frame().await {
            let Ok(frame) = frame else { return (bytes, End::Broken, first_byte_ms) };
            let Ok(chunk) = frame.into_data() else { continue };
            first_byte_ms.get_or_insert_with(|| clock::elapsed_ms(started));
            if self.bytes_max < bytes.len() + chunk.len() {
                return (bytes, End::Cut, first_byte_ms);
            }
            bytes.extend_from_slice(&chunk);
        }
        (bytes, End::Whole, first_byte_ms)
    }

    /// An answer without what must not be kept.
    fn redacted(&self, mut answered: Answered) -> Answered {
        let clean = |text: &mut String| {
            *text = self.redactor.text(text, &Keys::default()).into_owned();
        };
        if let Some(it) = &mut answered.transcript {
            clean(&mut it.text);
            it.refusal.as_mut().map(clean);
            it.tool_calls.iter_mut().for_each(|it| clean(&mut it.arguments));
        }
        answered
    }
}

impl Tried {
    fn nothing(name: &Name, outcome: Outcome, trouble: &str) -> Self {
        Self {
            call: nothing(name, outcome),
            transcript: None,
            trouble: trouble.to_owned(),
            retry_after: String::new(),
        }
    }

    /// What it comes to for good; none where another try may come to something else.
    fn answered(&self) -> Option<Answered> {
        match self.call.outcome {
            Outcome::Ok | Outcome::Refused | Outcome::Incompatible => {
                Some(Answered { call: self.call.clone(), transcript: self.transcript.clone() })
            }
            Outcome::ProviderError
            | Outcome::Throttled
            | Outcome::Timeout
            | Outcome::Truncated
            | Outcome::Abandoned => None,
        }
    }
}

/// What lies at the bottom of an error.
fn root(error: &(dyn std::error::Error + 'static)) -> String {
    let chain = std::iter::successors(Some(error), |it| it.source());
    chain.last().unwrap_or(error).to_string()
}

fn nothing(name: &Name, outcome: Outcome) -> Call {
    Call {
        provider: name.clone(),
        model: None,
        status: 0,
        outcome,
        first_byte_ms: None,
        total_ms: 0,
        usage: None,
        finish_reason: None,
        cost_nano_usd: None,
        checks: Checks::default(),
        answer_chars: None,
        rouge_l_bps: None,
        estimated: false,
    }
}
