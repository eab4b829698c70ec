//! One side of a pair, read: as the judge is shown it, and as it is stored.

use std::fmt::Write as _;

use bytes::Bytes;
use serde::Serialize;

use crate::domain::{Call, Outcome, Transcript};

use super::tee::Reading;

/// Most of a conversation and of an answer that the judge reads, in bytes.
pub(super) const JUDGED_LEN_MAX: usize = 24_000;

/// One side of a pair, read.
pub(super) struct Half {
    pub(super) call: Call,
    pub(super) reading: Reading,
}

/// An answer as the judge reads it; none where there is nothing to compare.
pub(super) fn judged(half: &Half) -> Option<String> {
    let comparable = match half.call.outcome {
        Outcome::Ok | Outcome::Refused => true,
        Outcome::ProviderError
        | Outcome::Throttled
        | Outcome::Timeout
        | Outcome::Truncated
        | Outcome::Incompatible
        | Outcome::Abandoned => false,
    };
    let transcript = half.reading.transcript.as_ref().filter(|_| comparable)?;
    let mut text = transcript.text.clone();
    if let Some(refusal) = &transcript.refusal {
        text.push_str(refusal);
    }
    for call in &transcript.tool_calls {
        // Writing to a string cannot fail.
        let _ = write!(text, "\ntool_call {} {}", call.name, call.arguments);
    }
    let end = text.floor_char_boundary(JUDGED_LEN_MAX);
    text.truncate(end);
    Some(text.trim().to_owned())
}

/// An answer as it is stored.
pub(super) fn stored(half: &Half) -> Bytes {
    #[derive(Serialize)]
    #[serde(untagged)]
    enum Stored<'a> {
        Answer { text: &'a str, tool_calls: Vec<Called<'a>>, refusal: Option<&'a str> },
        Trouble { trouble: Option<&'a str> },
    }
    #[derive(Serialize)]
    struct Called<'a> {
        id: &'a str,
        name: &'a str,
        arguments: &'a str,
    }
    let stored = match &half.reading.transcript {
        Some(Transcript { text, tool_calls, refusal }) => Stored::Answer {
            text,
            tool_calls: tool_calls
                .iter()
                .map(|it| Called { id: &it.id, name: &it.name, arguments: &it.arguments })
                .collect(),
            refusal: refusal.as_deref(),
        },
        None => Stored::Trouble { trouble: half.reading.trouble.as_deref() },
    };
    // Texts become JSON whatever they say.
    serde_json::to_vec(&stored).map(Bytes::from).unwrap_or_default()
}
