//! The line to the model that judges: one question, one answer of the form asked for.

use std::{sync::Arc, time::Duration};

use reqwest::{Client, Url, header::HeaderMap};
use serde::Deserialize;
use serde_json::Value;
use tokio::time::sleep;

use crate::clock::Clock;
use crate::config;
use crate::domain::{Prices, Usage};
use crate::patterns::{Keys, Redactor};
use crate::tasks::BoxError;
use crate::telemetry::{Metrics, Spending};
use crate::traffic::{Fitness, Job, Reply, Reserved};
use crate::upstream::{Resolver, aside, credential, host};

use super::prompt::{self, Asked, Marked, Wording};

/// Pause before the first retry; doubled each time.
const RETRY_PAUSE: Duration = Duration::from_millis(200);
/// Longest answer of the judge that is read, in bytes.
const ANSWER_LEN_MAX: usize = 256 * 1024;
/// Most letters kept of the name that an answer gives its model.
const MODEL_LEN_MAX: usize = 80;

/// The line, and what is counted of it.
#[derive(Debug)]
pub(super) struct Line {
    client: Client,
    url: Url,
    model: String,
    retries_max: u32,
    wording: Wording,
    redactor: Redactor,
    prices: Prices,
    fitness: Arc<Fitness>,
    metrics: Arc<Metrics>,
    clock: Clock,
}

/// What the judge said, and which judge it was.
#[derive(Debug)]
pub(super) struct Said {
    pub(super) marked: Marked,
    /// `judge:<model>@<wording>`: the model is what the answer names.
    pub(super) source: String,
}

/// Why the judge said nothing of use.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error("the judge took too long")]
    TimedOut,
    #[error("the judge cannot be reached")]
    Unreachable(#[source] reqwest::Error),
    #[error("the judge answered with status {0}")]
    Refused(u16),
    #[error("{0}")]
    Unreadable(String),
    #[error("{0}")]
    Unpaid(&'static str),
}

#[derive(Deserialize)]
struct Completion {
    #[serde(default)]
    model: Option<String>,
    choices: Vec<Choice>,
    #[serde(default)]
    usage: Value,
}

#[derive(Deserialize)]
struct Choice {
    message: Message,
}

#[derive(Deserialize)]
struct Message {
    content: Option<String>,
}

impl Failure {
    /// What it says of the judge; none where that was not asked.
    fn reply(&self) -> Option<Reply> {
        Some(match self {
            Self::TimedOut => Reply::TimedOut,
            Self::Unreachable(_) => Reply::Unreachable,
            Self::Refused(_) => Reply::Refused,
            Self::Unreadable(_) => Reply::Unreadable,
            Self::Unpaid(_) => return None,
        })
    }

    fn of(error: reqwest::Error) -> Self {
        if error.is_timeout() { Self::TimedOut } else { Self::Unreachable(error) }
    }
}

impl Line {
    /// A line as it is configured.
    ///
    /// # Errors
    /// When its URL or key make no request.
    pub(super) fn new(
        config: &config::Judge,
        redactor: Redactor,
        (fitness, metrics, clock): (Arc<Fitness>, Arc<Metrics>, Clock),
    ) -> Result<Self, BoxError> {
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
            wording: Wording::new(&config.rubric, config.asking),
            redactor,
            prices: config.prices.clone(),
            fitness,
            metrics,
            clock,
        })
    }

    pub(super) fn wording(&self) -> &Wording {
        &self.wording
    }

    /// Asks of these answers to a question, and again where it fails. The rollout of `payer` pays
    /// for each time; without one no budget does.
    pub(super) async fn ask(
        &self,
        asked: Asked<'_>,
        answers: &[&str],
        payer: Option<&Job>,
    ) -> Result<Said, Failure> {
        let mut pause = RETRY_PAUSE;
        let mut retries = 0;
        loop {
            let result = self.ask_once(asked, answers, payer).await;
            let reply = result.as_ref().map_or_else(Failure::reply, |_| Some(Reply::Read));
            let Some(reply) = reply else { return result };
            self.fitness.hear(reply);
            self.metrics.judging.reply(reply.as_str());
            if result.is_ok() || retries == self.retries_max {
                return result;
            }
            retries += 1;
            sleep(pause).await;
            pause *= 2;
        }
    }

    async fn ask_once(
        &self,
        asked: Asked<'_>,
        answers: &[&str],
        payer: Option<&Job>,
    ) -> Result<Said, Failure> {
        let body: Value = self.wording.request(&self.model, asked, answers);
        let reserved = payer.map(|it| self.afford(it, &body)).transpose()?;
        let completion = self.send(&body).await;
        if let Some((job, reserved)) = payer.zip(reserved) {
            let cost = self.cost_nano_usd(&completion);
            let told = completion.as_ref().ok().and_then(usage);
            job.purse.see_output(told.map_or(0, |it| it.output));
            self.metrics.spent(&job.window.rollout, Spending::Judge, reserved.settle(cost));
        }
        let completion = completion?;
        let model = completion.model.filter(|it| !it.trim().is_empty());
        let source = self.source(model.as_deref().unwrap_or(&self.model));
        let choice = completion.choices.into_iter().next();
        let content = choice.and_then(|it| it.message.content);
        let content =
            content.ok_or_else(|| Failure::Unreadable("the judge said nothing".to_owned()))?;
        let marked = self.wording.read(&content).map_err(Failure::Unreadable)?;
        self.fitness.speak(&source);
        Ok(Said { marked, source })
    }

    async fn send(&self, body: &Value) -> Result<Completion, Failure> {
        let sent = self.client.post(self.url.clone()).json(body).send().await;
        let mut response = sent.map_err(Failure::of)?;
        let status = response.status();
        let mut text = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(Failure::of)? {
            text.extend_from_slice(&chunk);
            if ANSWER_LEN_MAX < text.len() {
                return Err(Failure::Unreadable("the judge's answer is too long".to_owned()));
            }
        }
        if !status.is_success() {
            return Err(Failure::Refused(status.as_u16()));
        }
        serde_json::from_slice(&text)
            .map_err(|error| Failure::Unreadable(prompt::unreadable(&error)))
    }

    /// Sets aside what asking once may cost: at most a token for each byte, and for the answer the
    /// most that was seen.
    fn afford(&self, job: &Job, body: &Value) -> Result<Reserved, Failure> {
        const UNPRICED: &str = "there is a budget, and the judge's model has no price";
        const SPENT: &str = "the budget for copies and scores is spent or set aside";
        let input = u64::try_from(body.to_string().len()).unwrap_or(u64::MAX);
        let now = self.clock.now();
        let price = self.prices.of(&[&self.model], now);
        let output = job.purse.output_tokens_most(None);
        let most = price.map(|it| it.tariff.most_nano_usd(input, output));
        if most.is_none() && job.purse.is_limited() {
            return Err(Failure::Unpaid(UNPRICED));
        }
        job.purse.reserve(now, most.unwrap_or(0)).ok_or(Failure::Unpaid(SPENT))
    }

    /// What being asked came to, in billionths of a US dollar; none where that is not known.
    fn cost_nano_usd(&self, completion: &Result<Completion, Failure>) -> Option<u64> {
        let usage = match completion {
            Ok(completion) => usage(completion)?,
            // Who turns a question away asks for no money; what took too long may have been billed.
            Err(Failure::Refused(400..=407 | 409..=499 | 503 | 529)) => return Some(0),
            Err(_) => return None,
        };
        let row = self.prices.of(&[&self.model], self.clock.now())?;
        Some(row.tariff.cost_nano_usd(&usage))
    }

    /// Who judges: a model's name is the provider's to choose, and goes where people read.
    fn source(&self, model: &str) -> String {
        let model = self.redactor.text(model, &Keys::default());
        let plain = model.chars().filter(char::is_ascii_graphic).take(MODEL_LEN_MAX);
        format!("judge:{}@{}", plain.collect::<String>(), self.wording.id())
    }
}

/// Tokens as the judge counts them, if it does; those of its cache are taken as fresh, and what it
/// thinks may be in the total alone.
fn usage(completion: &Completion) -> Option<Usage> {
    let count = |name: &str| completion.usage.get(name).and_then(Value::as_u64);
    let input = count("prompt_tokens").filter(|it| 0 < *it)?;
    let beyond = count("total_tokens").unwrap_or(0).saturating_sub(input);
    let output = count("completion_tokens").unwrap_or(0).max(beyond);
    (0 < output).then(|| Usage { input, output, ..Usage::default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn however_a_judge_tells_its_tokens_its_answer_is_read() {
        let said = |usage: &str| {
            let text = format!(r#"{{"choices":[]{usage}}}"#);
            let completion: Completion = serde_json::from_str(&text).unwrap();
            super::usage(&completion).map(|it| (it.input, it.output))
        };
        let told = |usage: &str| said(&format!(r#","usage":{usage}"#));
        for nothing in ["null", "{}", "7", r#"{"prompt_tokens":500}"#] {
            assert_eq!(told(nothing), None, "{nothing}");
        }
        assert_eq!(told(r#"{"prompt_tokens":0,"completion_tokens":0}"#), None);
        assert_eq!(told(r#"{"prompt_tokens":1.5,"completion_tokens":2}"#), None);
        assert_eq!(told(r#"{"prompt_tokens":500,"total_tokens":900}"#), Some((500, 400)));
        let all = r#"{"prompt_tokens":500,"completion_tokens":40,"total_tokens":540}"#;
        assert_eq!((told(all), said("")), (Some((500, 40)), None));
    }
}
