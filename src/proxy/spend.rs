//! What a copy may cost, and what it did.

use bytes::Bytes;
use tokio::task::spawn_blocking;

use crate::dialect;
use crate::domain::{Call, Endpoint, Lot, Outcome, Share, Side, Skip, Transcript, Usage};
use crate::telemetry::Spending;
use crate::traffic::{Reserved, provider};
use crate::upstream::Provider;

use super::{Proxy, serve::Exchange};

impl Proxy {
    /// Why nothing is copied now of requests like this one, if so: by what is known before either
    /// side is asked, and whatever its lots drew. What serves is then seen alone, by lot.
    pub(super) fn uncopied(&self, exchange: &Exchange) -> Option<Skip> {
        let Exchange { live, lane, .. } = exchange;
        let (copies, now) = (live.copies(), exchange.at);
        let may_be_due = matches!(exchange.routed.route.mirror, Ok(()) | Err(Skip::Share));
        if lane.mirror.is_none() || !may_be_due {
            return None;
        }
        if copies.purse().is_limited() {
            let sides = [Side::Primary, Side::Candidate];
            let most = |side| self.most_nano_usd(exchange, side, (0, 0));
            let known = sides.map(most).into_iter().min().flatten();
            live.price(known);
            if known.is_none() {
                return Some(Skip::Unpriced);
            }
        }
        if copies.purse().problem(now).is_some() || copies.purse().waits() {
            return Some(Skip::Budget);
        }
        live.is_full(now).then_some(Skip::DailyCap)
    }

    fn most_nano_usd(&self, exchange: &Exchange, side: Side, tokens: (u64, u64)) -> Option<u64> {
        let provider = self.upstream.provider(provider(&exchange.lane, side))?;
        provider.most_nano_usd(sent(exchange, provider, side), tokens, exchange.at)
    }

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
            | Endpoint::Gemini => purse.output_tokens_most(exchange.asked.output_max),
        };
        let most = self.most_nano_usd(exchange, side, (input, output));
        if most.is_none() && purse.is_limited() {
            return Err(Skip::Unpriced);
        }
        purse.reserve(exchange.at, most.unwrap_or(0)).ok_or(Skip::Budget)
    }

    /// Takes note of what a copy cost: nothing where it was turned away, and the most it may have
    /// where that is not known.
    pub(super) fn paid(&self, exchange: &Exchange, reserved: Reserved, call: &Call) {
        if let Some(usage) = call.usage {
            exchange.live.copies().purse().see_output(usage.output);
        }
        let cost = if is_free(call) { Some(0) } else { call.cost_nano_usd };
        let cost = reserved.settle(cost);
        self.metrics.spent(&exchange.lane.rollout, Spending::Mirror, cost);
    }

    /// Estimates the tokens of a call of which the provider told none or not all, where they cost
    /// anything. Also what broke off is paid for as far as it came.
    pub(super) async fn estimate(
        &self,
        (endpoint, body): (Endpoint, &Bytes),
        call: &mut Call,
        said: &mut Option<Transcript>,
    ) {
        let provider = self.upstream.provider(&call.provider);
        let priced = provider.is_some_and(Provider::has_prices);
        let answered = match call.outcome {
            Outcome::Ok | Outcome::Refused | Outcome::Truncated => true,
            Outcome::ProviderError
            | Outcome::Throttled
            | Outcome::Timeout
            | Outcome::Incompatible => call.usage.is_some(),
            Outcome::Abandoned => false,
        };
        if !answered || !priced || is_told(call) {
            return;
        }
        let Some(text) = said.take() else { return };
        let body = body.clone();
        let estimate = move || (dialect::estimate(endpoint, &body, &text), text);
        // It fails where the program ends, and then nobody reads on.
        if let Ok((guess, text)) = spawn_blocking(estimate).await {
            call.usage = Some(at_least(call.usage, guess));
            (call.estimated, *said) = (true, Some(text));
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
        let model = sent(exchange, provider, side);
        // Of an answer that nobody reads the tokens are not known, whatever they cost.
        if (200..300).contains(&call.status) && !provider.is_priced(model, call, exchange.at) {
            self.metrics.unpriced(&call.provider);
        }
        cost
    }
}

/// The lot by which the side that serves is seen alone, where no copy is made for this reason; none
/// where it was no chance, or shows one side for ever while nothing is copied.
pub(super) fn alone(exchange: &Exchange, skip: Skip, uncopied: Option<Skip>) -> Option<Lot> {
    let (lot, serve) = (exchange.routed.route.lot, exchange.lane.serve);
    match uncopied {
        None => lot.filter(|_| skip == Skip::Share),
        Some(_) if serve.is_none() || serve == Share::ALL => None,
        Some(why) => lot.filter(|_| skip == Skip::Share || skip == why).map(Lot::uncopied),
    }
}

/// Whether a provider turned a call away before it worked on it. A filter has read the request, and
/// what took too long or broke may have been generated and be billed.
fn is_free(call: &Call) -> bool {
    match call.status {
        408 => false,
        400..=499 => call.outcome != Outcome::Refused,
        503 | 529 => true,
        _ => false,
    }
}

/// Whether what a provider tells of a call's tokens is all of them: a stream that breaks off tells
/// what it has by its beginning.
fn is_told(call: &Call) -> bool {
    let ended = match call.outcome {
        Outcome::Ok | Outcome::Refused => true,
        Outcome::ProviderError
        | Outcome::Throttled
        | Outcome::Timeout
        | Outcome::Truncated
        | Outcome::Incompatible
        | Outcome::Abandoned => call.finish_reason.is_some(),
    };
    ended && call.usage.is_some()
}

/// The model that a side is asked for.
fn sent<'a>(exchange: &'a Exchange, provider: &'a Provider, side: Side) -> &'a str {
    let asked = exchange.asked.model.as_str();
    match side {
        Side::Primary => asked,
        Side::Candidate => provider.model(asked).unwrap_or(asked),
    }
}

/// What was told of tokens before the end, with no less output than what was said comes to.
fn at_least(told: Option<Usage>, guess: Usage) -> Usage {
    let told = told.unwrap_or(guess);
    Usage { output: told.output.max(guess.output), ..told }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Checks;

    fn call(status: u16, outcome: Outcome, finish_reason: Option<&str>) -> Call {
        Call {
            provider: "a".parse().unwrap(),
            model: None,
            status,
            outcome,
            first_byte_ms: None,
            total_ms: 0,
            usage: Some(Usage { input: 9, output: 1, ..Usage::default() }),
            finish_reason: finish_reason.map(str::to_owned),
            cost_nano_usd: None,
            checks: Checks::default(),
            answer_chars: None,
            rouge_l_bps: None,
            estimated: false,
        }
    }

    #[test]
    fn only_what_is_turned_away_unread_costs_nothing() {
        for status in [400, 401, 403, 404, 413, 422, 429, 503, 529] {
            assert!(is_free(&call(status, Outcome::Incompatible, None)), "{status}");
        }
        for status in [0, 200, 408, 500, 502, 504, 524] {
            assert!(!is_free(&call(status, Outcome::Timeout, None)), "{status}");
        }
        assert!(!is_free(&call(400, Outcome::Refused, None)), "a filter has read it");
    }

    #[test]
    fn what_broke_off_has_told_the_tokens_of_its_beginning() {
        assert!(is_told(&call(200, Outcome::Ok, None)));
        assert!(is_told(&call(200, Outcome::Truncated, Some("end_turn"))));
        assert!(!is_told(&call(200, Outcome::Truncated, None)));
        assert!(!is_told(&call(200, Outcome::ProviderError, None)));
        let unsaid = Call { usage: None, ..call(200, Outcome::Ok, Some("stop")) };
        assert!(!is_told(&unsaid));
        let told = unsaid.usage.or(call(200, Outcome::Truncated, None).usage);
        let guess = Usage { input: 7, output: 300, ..Usage::default() };
        assert_eq!(at_least(told, guess), Usage { input: 9, output: 300, ..Usage::default() });
        assert_eq!(at_least(None, guess), guess);
    }
}
