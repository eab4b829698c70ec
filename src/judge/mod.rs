//! The judge: asks a model to mark both answers of a pair, blind and in random order.
//!
//! An answer that is not of the exact form is a judge error, never a score.

mod prompt;

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use reqwest::{Client, Url, header::HeaderMap};
use serde::Deserialize;
use tokio::{
    sync::{Semaphore, mpsc},
    time::sleep,
};

use crate::clock::Clock;
use crate::config;
use crate::domain::{Prices, Score, Seen, Share, Told, Usage};
use crate::patterns::{Keys, Redactor};
use crate::store::{Offered, RecorderHandle};
use crate::tasks::{BoxError, Stop, spawn};
use crate::telemetry::{Loss, Metrics, Spending};
use crate::traffic::{Job, Outbox, Reasons, Reserved};
use crate::upstream::{Resolver, aside, credential, host};

use prompt::{Material, Order};

/// Pause before the first retry; doubled each time.
const RETRY_PAUSE: Duration = Duration::from_millis(200);
/// Longest answer of the judge that is read, in bytes.
const ANSWER_LEN_MAX: usize = 256 * 1024;

/// The judge.
#[derive(Debug)]
pub struct Judge {
    client: Client,
    url: Url,
    model: String,
    retries_max: u32,
    prices: Prices,
    places: Arc<Semaphore>,
    outbox: Outbox,
    recorder: Arc<OnceLock<RecorderHandle>>,
    redactor: Redactor,
    metrics: Arc<Metrics>,
    clock: Clock,
}

/// Where scores go.
#[derive(Debug)]
pub struct Outlets {
    /// To the controller.
    pub outbox: Outbox,
    /// To the store, once it is open.
    pub recorder: Arc<OnceLock<RecorderHandle>>,
    /// Takes out of its reasons what must not be kept.
    pub redactor: Redactor,
    /// What we count.
    pub metrics: Arc<Metrics>,
    /// The clock.
    pub clock: Clock,
}

#[derive(Deserialize)]
struct Completion {
    choices: Vec<Choice>,
    usage: Option<Tokens>,
}

/// Tokens as the judge counts them; those of its cache are taken as fresh.
#[derive(Clone, Copy, Deserialize)]
struct Tokens {
    prompt_tokens: u64,
    completion_tokens: u64,
}

#[derive(Deserialize)]
struct Choice {
    message: Message,
}

#[derive(Deserialize)]
struct Message {
    content: Option<String>,
}

impl Judge {
    /// A judge from its checked configuration.
    ///
    /// # Errors
    /// When its URL or key make no request.
    pub fn new(config: &config::Judge, outlets: Outlets) -> Result<Self, BoxError> {
        let mut headers = HeaderMap::new();
        if let Some((name, value)) =
            config.key.as_ref().and_then(|key| credential(config.auth, key))
        {
            headers.insert(name, value);
        }
        let host = host(&config.base_url);
        let resolver = Resolver::new(host.as_deref().map(|it| (it, config.link_local)));
        let client = aside(resolver, &config.authorities)
            .default_headers(headers)
            .timeout(Duration::from_millis(config.timeout_ms))
            .build()?;
        Ok(Self {
            client,
            url: Url::parse(&format!("{}/chat/completions", config.base_url))?,
            model: config.model.clone(),
            retries_max: config.retries_max,
            prices: config.prices.clone(),
            places: Arc::new(Semaphore::new(config.concurrency_max)),
            outbox: outlets.outbox,
            recorder: outlets.recorder,
            redactor: outlets.redactor,
            metrics: outlets.metrics,
            clock: outlets.clock,
        })
    }

    /// Judges until told to stop.
    ///
    /// # Errors
    /// None of its own: a judge that fails costs scores and nothing else.
    pub async fn run(
        self: Arc<Self>,
        mut jobs: mpsc::Receiver<Job>,
        mut stop: Stop,
    ) -> Result<(), BoxError> {
        loop {
            let next = async {
                let place = Arc::clone(&self.places).acquire_owned().await.ok()?;
                Some((place, jobs.recv().await?))
            };
            let (place, job) = tokio::select! {
                next = next => match next {
                    Some(next) => next,
                    None => break,
                },
                () = stop.wait() => break,
            };
            let judge = Arc::clone(&self);
            spawn("judge", async move {
                let _place = place;
                judge.judge(job).await;
            });
        }
        stop.wait().await;
        Ok(())
    }

    async fn judge(&self, job: Job) {
        if job.purse.problem(self.clock.now()).is_some() {
            self.metrics.loss(Loss::Budget);
            let _ = self.outbox.send(Seen::note(&job.window, Told::ScoreLost)).await;
            return;
        }
        let mut score = match self.ask(&job).await {
            Ok(score) => score,
            Err(error) => {
                tracing::warn!(pair = %job.pair, error = %error, "a pair could not be judged");
                self.metrics.loss(Loss::JudgeFailed);
                let _ = self.outbox.send(Seen::note(&job.window, Told::ScoreLost)).await;
                return;
            }
        };
        score.order = self.outbox.send(Seen::Score(Box::new(score.clone()))).await;
        if score.order.is_some()
            && let Some(recorder) = self.recorder.get()
            && recorder.offer_score(score) == Offered::Dropped
        {
            self.metrics.loss(Loss::RecorderFull);
        }
    }

    async fn ask(&self, job: &Job) -> Result<Score, BoxError> {
        let mut pause = RETRY_PAUSE;
        let mut last: BoxError = "it was never asked".into();
        for attempt in 0..=self.retries_max {
            if 0 < attempt {
                sleep(pause).await;
                pause *= 2;
            }
            match self.ask_once(job).await {
                Ok(score) => return Ok(score),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    async fn ask_once(&self, job: &Job) -> Result<Score, BoxError> {
        let first = half().includes("judge-order", &job.pair.to_string());
        let order = if first { Order::PrimaryFirst } else { Order::CandidateFirst };
        let nonce = uuid::Uuid::now_v7().simple().to_string();
        let material = Material {
            nonce: &nonce,
            question: &job.question,
            primary: &job.primary,
            candidate: &job.candidate,
            order,
        };
        let body = prompt::request(&self.model, &material);
        let reserved = self.afford(job, &body)?;
        let response = self.client.post(self.url.clone()).json(&body).send().await?;
        let status = response.status();
        let mut response = response;
        let mut text = Vec::new();
        while let Some(chunk) = response.chunk().await? {
            text.extend_from_slice(&chunk);
            if ANSWER_LEN_MAX < text.len() {
                return Err("the judge's answer is too long".into());
            }
        }
        if !status.is_success() {
            // Who refuses asks for no money.
            reserved.settle(Some(0));
            return Err(format!("the judge answered with status {status}").into());
        }
        let completion: Completion =
            serde_json::from_slice(&text).map_err(|error| prompt::unreadable(&error))?;
        let cost = completion.usage.and_then(|it| self.cost_nano_usd(it));
        self.metrics.spent(&job.window.rollout, Spending::Judge, reserved.settle(cost));
        let choice = completion.choices.into_iter().next();
        let content = choice.and_then(|it| it.message.content).ok_or("the judge said nothing")?;
        let marked = prompt::read(&content, order)?;
        let rationale = match job.reasons {
            Reasons::Kept => self.redactor.text(&marked.reason, &Keys::default()).into_owned(),
            Reasons::Withheld => String::new(),
        };
        Ok(Score {
            pair: job.pair,
            window: job.window.clone(),
            watched: job.watched.clone(),
            at: self.clock.now(),
            order: None,
            source: format!("judge:{}@{}", self.model, prompt::RUBRIC),
            primary: marked.primary,
            candidate: marked.candidate,
            parts: marked.parts,
            rationale,
            first: Some(order.first()),
        })
    }
}

impl Judge {
    /// Sets aside what a score may cost: at most a token for each byte, and for its answer the
    /// most that was seen.
    fn afford(&self, job: &Job, body: &serde_json::Value) -> Result<Reserved, BoxError> {
        let (now, input) = (self.clock.now(), u64::try_from(body.to_string().len())?);
        let price = self.prices.of(&[&self.model], now);
        let output = job.purse.output_tokens_most();
        let most = price.map(|it| it.tariff.most_nano_usd(input, output));
        if most.is_none() && job.purse.is_limited() {
            return Err("there is a budget, and the judge's model has no price".into());
        }
        let reserved = job.purse.reserve(now, most.unwrap_or(0));
        reserved.ok_or_else(|| "the budget for copies and scores is spent or set aside".into())
    }

    fn cost_nano_usd(&self, tokens: Tokens) -> Option<u64> {
        let row = self.prices.of(&[&self.model], self.clock.now())?;
        let Tokens { prompt_tokens: input, completion_tokens: output } = tokens;
        Some(row.tariff.cost_nano_usd(&Usage { input, output, ..Usage::default() }))
    }
}

fn half() -> Share {
    Share::from_basis_points(5_000).unwrap_or(Share::NONE)
}
