//! What a copy may cost, and what it did.

use bytes::Bytes;
use tokio::task::spawn_blocking;

use crate::dialect;
use crate::domain::{Call, Endpoint, Outcome, Side, Skip, Transcript};
use crate::telemetry::Spending;
use crate::traffic::{Reserved, provider};
use crate::upstream::Provider;

use super::{Proxy, serve::Exchange};

impl Proxy {
    /// Sets aside what asking a side too may cost, before it is asked. Its input has at most a
    /// token for each byte; its output what the request allows, or the most that was seen.
    pub(super) fn afford(&self, exchange: &Exchange, side: Side) -> Result<Reserved, Skip> {
        let purse = exchange.live.copies().purse();
        let input = u64::try_from(exchange.body.len()).unwrap_or(u64::MAX);
        let output = match exchange.endpoint {
            Endpoint::Embeddings => 0,
            Endpoint::Chat
            | Endpoint::Completions
            | Endpoint::Responses
            | Endpoint::Messages
            | Endpoint::Gemini => {
                exchange.asked.output_max.unwrap_or_else(|| purse.output_tokens_most())
            }
        };
        let provider = self.upstream.provider(provider(&exchange.lane, side));
        let most = provider.and_then(|it| {
            it.most_nano_usd(sent(exchange, it, side), (input, output), exchange.at)
        });
        if most.is_none() && purse.is_limited() {
            return Err(Skip::Unpriced);
        }
        purse.reserve(exchange.at, most.unwrap_or(0)).ok_or(Skip::Budget)
    }

    /// Takes note of what a copy cost: nothing where it was refused, and the most it may have
    /// where that is not known.
    pub(super) fn paid(&self, exchange: &Exchange, reserved: Reserved, call: &Call) {
        if let Some(usage) = call.usage {
            exchange.live.copies().purse().see_output(usage.output);
        }
        let refused = call.status != 0 && !(200..300).contains(&call.status);
        let cost = reserved.settle(if refused { Some(0) } else { call.cost_nano_usd });
        self.metrics.spent(&exchange.lane.rollout, Spending::Mirror, cost);
    }

    /// Estimates the tokens of a call of which the provider told none, where they cost anything.
    /// Also what broke off is paid for as far as it came.
    pub(super) async fn estimate(
        &self,
        (endpoint, body): (Endpoint, &Bytes),
        call: &mut Call,
        said: &mut Option<Transcript>,
    ) {
        let answered = match call.outcome {
            Outcome::Ok | Outcome::Refused | Outcome::Truncated => true,
            Outcome::ProviderError
            | Outcome::Throttled
            | Outcome::Timeout
            | Outcome::Incompatible
            | Outcome::Abandoned => false,
        };
        let provider = self.upstream.provider(&call.provider);
        let priced = provider.is_some_and(Provider::has_prices);
        if !answered || !priced || call.usage.is_some() {
            return;
        }
        let Some(text) = said.take() else { return };
        let body = body.clone();
        let estimate = move || (dialect::estimate(endpoint, &body, &text), text);
        // It fails where the program ends, and then nobody reads on.
        if let Ok((usage, text)) = spawn_blocking(estimate).await {
            (call.usage, call.estimated, *said) = (Some(usage), true, Some(text));
        }
    }

    /// What a call cost, in billionths of a US dollar; none when tokens or the price are not known.
    pub(super) fn cost_nano_usd(
        &self,
        exchange: &Exchange,
        side: Side,
        call: &Call,
    ) -> Option<u64> {
        let provider = self.upstream.provider(&call.provider)?;
        let cost = provider.cost_nano_usd(sent(exchange, provider, side), call, exchange.at);
        if cost.is_none() && (200..300).contains(&call.status) {
            self.metrics.unpriced(&call.provider);
        }
        cost
    }
}

/// The model that a side is asked for.
fn sent<'a>(exchange: &'a Exchange, provider: &'a Provider, side: Side) -> &'a str {
    let asked = exchange.asked.model.as_str();
    match side {
        Side::Primary => asked,
        Side::Candidate => provider.model(asked).unwrap_or(asked),
    }
}
