//! Pairs and scores as the store keeps them, about 1 KB of JSON at most.

use serde::{Deserialize, Serialize};

use super::json::{self, DecodeError, float, known, shortened};
use crate::domain::{
    Agreement, Call, Check, Checks, Lot, Order, Outcome, Pair, PairId, Placed, Score, ScorePart,
    Side, Timestamp, Usage, Window,
};

/// Most bytes kept of a text that callers and providers choose, such as a model's name.
pub(super) const TEXT_LEN_MAX: usize = 128;
/// Most bytes kept of a judge's reasons.
const RATIONALE_LEN_MAX: usize = 2_048;
/// Most dimensions kept of a score.
const PARTS_LEN_MAX: usize = 16;

/// The version of records of pairs and scores.
const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
struct PairJson {
    v: u32,
    at: u64,
    window: WindowJson,
    served: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    answered: Option<String>,
    path: String,
    feature: String,
    segment: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    slice: String,
    judgeable: bool,
    primary: CallJson,
    candidate: CallJson,
    agreement: String,
    #[serde(default)]
    lot: Option<LotJson>,
    #[serde(default)]
    order: Option<OrderJson>,
}

/// A lot: for one request, or for the key of this hash.
#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum LotJson {
    Once,
    Sticky(u64),
    Uncopied(Option<u64>),
}

#[derive(Clone, Copy, Serialize, Deserialize)]
pub(super) struct OrderJson {
    seq: u64,
    at: u64,
}

#[derive(Serialize, Deserialize)]
pub(super) struct WindowJson {
    rollout: String,
    attempt: u32,
    stage: u32,
}

#[derive(Serialize, Deserialize)]
pub(super) struct CallJson {
    provider: String,
    model: Option<String>,
    status: u16,
    outcome: String,
    first_byte_ms: Option<u32>,
    total_ms: u32,
    usage: Option<UsageJson>,
    finish_reason: Option<String>,
    #[serde(default)]
    cost_nano_usd: Option<u64>,
    /// What older programs wrote in place of the checks: whether the answer was JSON as asked.
    #[serde(default, skip_serializing)]
    well_formed: Option<bool>,
    /// The bits of what was asked, and of what was kept.
    #[serde(default, skip_serializing_if = "is_nothing")]
    checks: (u16, u16),
    #[serde(default, skip_serializing_if = "Option::is_none")]
    chars: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rouge_l_bps: Option<u16>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    estimated: bool,
}

#[derive(Serialize, Deserialize)]
struct UsageJson {
    input: u64,
    cache_read: u64,
    cache_write: u64,
    output: u64,
}

#[derive(Serialize, Deserialize)]
struct ScoreJson {
    v: u32,
    at: u64,
    #[serde(default)]
    order: Option<OrderJson>,
    window: WindowJson,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    slice: String,
    source: String,
    #[serde(with = "float")]
    primary: f64,
    #[serde(with = "float")]
    candidate: f64,
    parts: Vec<ScorePartJson>,
    rationale: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    first: Option<String>,
    /// Where both orders were asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    orders: Option<OrdersJson>,
}

#[derive(Serialize, Deserialize)]
struct OrdersJson {
    #[serde(with = "float")]
    lead: f64,
    flipped: bool,
}

#[derive(Serialize, Deserialize)]
struct ScorePartJson {
    dimension: String,
    #[serde(with = "float")]
    primary: f64,
    #[serde(with = "float")]
    candidate: f64,
}

/// The bytes of a pair, without its id.
pub(super) fn encode(pair: &Pair) -> Vec<u8> {
    json::encode(&PairJson {
        v: VERSION,
        at: pair.at.0,
        window: WindowJson::from(&pair.window),
        served: pair.served.as_str().to_owned(),
        answered: pair.answered.map(|it| it.as_str().to_owned()),
        path: shortened(&pair.path, TEXT_LEN_MAX),
        feature: shortened(&pair.feature, TEXT_LEN_MAX),
        segment: shortened(&pair.segment, TEXT_LEN_MAX),
        slice: pair.watched.clone(),
        judgeable: pair.judgeable,
        primary: CallJson::from(&pair.primary),
        candidate: CallJson::from(&pair.candidate),
        agreement: pair.agreement.as_str().to_owned(),
        lot: pair.lot.map(LotJson::from),
        order: pair.order.map(OrderJson::from),
    })
}

/// The pair of an id and some bytes.
pub(super) fn decode(id: PairId, bytes: &[u8]) -> Result<Pair, DecodeError> {
    let json: PairJson = json::decode(bytes)?;
    let side = |name: &str| known("side", name, side(name));
    let agreement = Agreement::from_name(&json.agreement);
    Ok(Pair {
        id,
        at: Timestamp(json.at),
        window: json.window.window()?,
        served: side(&json.served)?,
        answered: json.answered.as_deref().map(side).transpose()?,
        path: json.path,
        feature: json.feature,
        segment: json.segment,
        watched: json.slice,
        judgeable: json.judgeable,
        primary: json.primary.call()?,
        candidate: json.candidate.call()?,
        agreement: known("agreement", &json.agreement, agreement)?,
        lot: json.lot.map(Lot::from),
        order: json.order.map(Order::from),
    })
}

/// The bytes of a score, without its pair's id.
pub(super) fn encode_score(score: &Score) -> Vec<u8> {
    let (first, orders) = match score.placed {
        None => (None, None),
        Some(Placed::Once(side)) => (Some(side.as_str().to_owned()), None),
        Some(Placed::Both { lead, flipped }) => (None, Some(OrdersJson { lead, flipped })),
    };
    json::encode(&ScoreJson {
        v: VERSION,
        at: score.at.0,
        order: score.order.map(OrderJson::from),
        window: WindowJson::from(&score.window),
        slice: score.watched.clone(),
        source: shortened(&score.source, TEXT_LEN_MAX),
        primary: score.primary,
        candidate: score.candidate,
        parts: score.parts.iter().take(PARTS_LEN_MAX).map(ScorePartJson::from).collect(),
        rationale: shortened(&score.rationale, RATIONALE_LEN_MAX),
        first,
        orders,
    })
}

/// The score of a pair's id and some bytes.
pub(super) fn decode_score(pair: PairId, bytes: &[u8]) -> Result<Score, DecodeError> {
    let json: ScoreJson = json::decode(bytes)?;
    let once = |name: &str| known("first", name, side(name)).map(Placed::Once);
    let both = json.orders.map(|it| Placed::Both { lead: it.lead, flipped: it.flipped });
    Ok(Score {
        pair,
        window: json.window.window()?,
        watched: json.slice,
        at: Timestamp(json.at),
        order: json.order.map(Order::from),
        source: json.source,
        primary: json.primary,
        candidate: json.candidate,
        parts: json.parts.into_iter().map(ScorePartJson::part).collect(),
        rationale: json.rationale,
        placed: json.first.as_deref().map(once).transpose()?.or(both),
    })
}

fn side(name: &str) -> Option<Side> {
    [Side::Primary, Side::Candidate].into_iter().find(|it| it.as_str() == name)
}

impl From<Lot> for LotJson {
    fn from(lot: Lot) -> Self {
        match lot {
            Lot::Once => Self::Once,
            Lot::Sticky(key) => Self::Sticky(key),
            Lot::Uncopied(key) => Self::Uncopied(key),
        }
    }
}

impl From<LotJson> for Lot {
    fn from(lot: LotJson) -> Self {
        match lot {
            LotJson::Once => Self::Once,
            LotJson::Sticky(key) => Self::Sticky(key),
            LotJson::Uncopied(key) => Self::Uncopied(key),
        }
    }
}

impl From<Order> for OrderJson {
    fn from(order: Order) -> Self {
        Self { seq: order.seq, at: order.at.0 }
    }
}

impl From<OrderJson> for Order {
    fn from(order: OrderJson) -> Self {
        Self { seq: order.seq, at: Timestamp(order.at) }
    }
}

impl From<&Window> for WindowJson {
    fn from(window: &Window) -> Self {
        let rollout = window.rollout.as_str().to_owned();
        Self { rollout, attempt: window.attempt, stage: window.stage }
    }
}

impl WindowJson {
    pub(super) fn window(&self) -> Result<Window, DecodeError> {
        let rollout = json::name("rollout", &self.rollout)?;
        Ok(Window { rollout, attempt: self.attempt, stage: self.stage })
    }
}

impl From<&Call> for CallJson {
    fn from(call: &Call) -> Self {
        let short = |text: &String| shortened(text, TEXT_LEN_MAX);
        Self {
            provider: call.provider.as_str().to_owned(),
            model: call.model.as_ref().map(short),
            status: call.status,
            outcome: call.outcome.as_str().to_owned(),
            first_byte_ms: call.first_byte_ms,
            total_ms: call.total_ms,
            usage: call.usage.map(|it| UsageJson {
                input: it.input,
                cache_read: it.cache_read,
                cache_write: it.cache_write,
                output: it.output,
            }),
            finish_reason: call.finish_reason.as_ref().map(short),
            cost_nano_usd: call.cost_nano_usd,
            well_formed: None,
            checks: call.checks.bits(),
            chars: call.answer_chars,
            rouge_l_bps: call.rouge_l_bps,
            estimated: call.estimated,
        }
    }
}

impl CallJson {
    pub(super) fn call(self) -> Result<Call, DecodeError> {
        Ok(Call {
            provider: json::name("provider", &self.provider)?,
            model: self.model,
            status: self.status,
            outcome: known("outcome", &self.outcome, Outcome::from_name(&self.outcome))?,
            first_byte_ms: self.first_byte_ms,
            total_ms: self.total_ms,
            usage: self.usage.map(|it| Usage {
                input: it.input,
                cache_read: it.cache_read,
                cache_write: it.cache_write,
                output: it.output,
            }),
            finish_reason: self.finish_reason,
            cost_nano_usd: self.cost_nano_usd,
            checks: Checks::from_bits(self.checks).with(Check::Json, self.well_formed),
            answer_chars: self.chars,
            rouge_l_bps: self.rouge_l_bps,
            estimated: self.estimated,
        })
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_nothing(checks: &(u16, u16)) -> bool {
    checks.0 == 0
}

impl From<&ScorePart> for ScorePartJson {
    fn from(part: &ScorePart) -> Self {
        Self {
            dimension: shortened(&part.dimension, TEXT_LEN_MAX),
            primary: part.primary,
            candidate: part.candidate,
        }
    }
}

impl ScorePartJson {
    fn part(self) -> ScorePart {
        let Self { dimension, primary, candidate } = self;
        ScorePart { dimension, primary, candidate }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::samples;

    #[test]
    fn pairs_and_scores_read_back() {
        let mut pair = samples::pair("chat", 1_000, 1);
        for outcome in Outcome::ALL {
            pair.candidate.outcome = outcome;
            assert_eq!(decode(pair.id, &encode(&pair)).unwrap(), pair);
        }
        let score = samples::score(&pair, "judge:m@r");
        let both = Some(Placed::Both { lead: -0.125, flipped: true });
        for placed in [score.placed, both, None] {
            let score = Score { placed, ..score.clone() };
            assert_eq!(decode_score(pair.id, &encode_score(&score)).unwrap(), score);
        }
    }

    #[test]
    fn a_pair_of_an_older_program_has_no_lot_and_no_order() {
        let pair = samples::pair("chat", 1_000, 1);
        let mut json: serde_json::Value = serde_json::from_slice(&encode(&pair)).unwrap();
        for added in ["lot", "order", "slice", "answered"] {
            json.as_object_mut().unwrap().remove(added);
        }
        for side in ["primary", "candidate"] {
            for added in ["cost_nano_usd", "estimated", "checks", "chars", "rouge_l_bps"] {
                assert!(json[side].as_object_mut().unwrap().remove(added).is_some(), "{added}");
            }
        }
        json["candidate"]["well_formed"] = false.into();
        let old = decode(pair.id, json.to_string().as_bytes()).unwrap();
        assert_eq!(old.primary.checks, Checks::default());
        assert_eq!(old.candidate.checks, Checks::default().with(Check::Json, Some(false)));
        assert_eq!((old.lot, old.order, old.watched.as_str()), (None, None, ""));
        assert_eq!(old.answered, None);
        assert_eq!((old.primary.cost_nano_usd, old.primary.estimated), (None, false));
        assert_eq!((old.window, old.agreement), (pair.window, pair.agreement));
    }

    #[test]
    fn a_hostile_provider_cannot_make_a_record_long() {
        let mut pair = samples::pair("chat", 1_000, 1);
        pair.candidate.model = Some("m".repeat(1 << 20));
        pair.candidate.finish_reason = Some("é".repeat(1 << 20));
        pair.path = "/".repeat(1 << 20);
        assert!(encode(&pair).len() < 1_280);
    }
}
