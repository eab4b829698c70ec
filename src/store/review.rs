//! Reviews as the store keeps them.

use serde::{Deserialize, Serialize};

use super::{
    json::{self, DecodeError, known, shortened},
    pair::{OrderJson, WindowJson},
};
use crate::domain::{Choice, Counted, Lease, Order, PairId, Review, Side, Timestamp};

/// Most bytes kept of a comment, and of who made it.
const COMMENT_LEN_MAX: usize = 1_024;
const REVIEWER_LEN_MAX: usize = 128;

#[derive(Serialize, Deserialize)]
struct ReviewJson {
    v: u32,
    window: WindowJson,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    slice: String,
    weight_millionths: u32,
    leases: Vec<LeaseJson>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    counted: Option<CountedJson>,
}

#[derive(Serialize, Deserialize)]
struct LeaseJson {
    /// As text: few readers of JSON have so many bits.
    id: String,
    reviewer: String,
    until: u64,
    first: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    said: Option<SaidJson>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    comment: String,
}

#[derive(Serialize, Deserialize)]
struct SaidJson {
    choice: String,
    at: u64,
}

#[derive(Serialize, Deserialize)]
struct CountedJson {
    lease: String,
    order: OrderJson,
}

/// The bytes of a review, without its pair's id.
pub(super) fn encode(review: &Review) -> Vec<u8> {
    json::encode(&ReviewJson {
        v: 1,
        window: WindowJson::from(&review.window),
        slice: review.watched.clone(),
        weight_millionths: review.weight_millionths,
        leases: review.leases.iter().map(LeaseJson::from).collect(),
        counted: review
            .counted
            .map(|it| CountedJson { lease: hex(it.lease), order: OrderJson::from(it.order) }),
    })
}

/// The review of a pair's id and some bytes.
pub(super) fn decode(pair: PairId, bytes: &[u8]) -> Result<Review, DecodeError> {
    let json: ReviewJson = json::decode(bytes)?;
    let counted = |it: CountedJson| {
        Ok::<_, DecodeError>(Counted { lease: id(&it.lease)?, order: Order::from(it.order) })
    };
    Ok(Review {
        pair,
        window: json.window.window()?,
        watched: json.slice,
        weight_millionths: json.weight_millionths,
        leases: json.leases.into_iter().map(LeaseJson::lease).collect::<Result<_, _>>()?,
        counted: json.counted.map(counted).transpose()?,
    })
}

impl From<&Lease> for LeaseJson {
    fn from(lease: &Lease) -> Self {
        Self {
            id: hex(lease.id),
            reviewer: shortened(&lease.reviewer, REVIEWER_LEN_MAX),
            until: lease.until.0,
            first: lease.first.as_str().to_owned(),
            said: lease.said.map(|(it, at)| SaidJson { choice: it.as_str().to_owned(), at: at.0 }),
            comment: shortened(&lease.comment, COMMENT_LEN_MAX),
        }
    }
}

impl LeaseJson {
    fn lease(self) -> Result<Lease, DecodeError> {
        let sides = [Side::Primary, Side::Candidate];
        let first = sides.into_iter().find(|it| it.as_str() == self.first);
        let said = |it: SaidJson| {
            let choice = Choice::ALL.into_iter().find(|choice| choice.as_str() == it.choice);
            Ok::<_, DecodeError>((known("choice", &it.choice, choice)?, Timestamp(it.at)))
        };
        Ok(Lease {
            id: id(&self.id)?,
            reviewer: self.reviewer,
            until: Timestamp(self.until),
            first: known("first", &self.first, first)?,
            said: self.said.map(said).transpose()?,
            comment: self.comment,
        })
    }
}

fn hex(id: u128) -> String {
    format!("{id:032x}")
}

fn id(text: &str) -> Result<u128, DecodeError> {
    known("lease", text, u128::from_str_radix(text, 16).ok())
}

#[cfg(test)]
#[path = "review_tests.rs"]
mod tests;
