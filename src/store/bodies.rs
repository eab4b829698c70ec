//! What was asked and what both sides said, as it is kept with a pair.

use bytes::Bytes;

use super::{entry::take, json::DecodeError};

/// Most bytes kept of each body.
pub(super) const BODY_LEN_MAX: usize = 256 << 10;
/// What ends a body that was longer.
pub(super) const CUT_MARK: &[u8] = b"\n[cut here: longer than what is kept]";

/// What was asked and what both sides said.
///
/// A body longer than 256 KiB is kept up to there, and then ends with a mark that says so.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bodies {
    /// The request as the caller sent it.
    pub request: Bytes,
    /// The primary's answer as JSON: `text`, `tool_calls`, `refusal`.
    pub primary: Bytes,
    /// The candidate's answer, in the same form.
    pub candidate: Bytes,
}

impl Bodies {
    /// Whether one of them is only its beginning.
    pub fn is_cut(&self) -> bool {
        [&self.request, &self.primary, &self.candidate].iter().any(|it| it.ends_with(CUT_MARK))
    }

    /// Whether there are none: whoever keeps the pair is not cleared for its data.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bodies as they are kept. One that is cut lets go of the memory of the whole.
    pub(super) fn cut(self) -> Self {
        let Self { request, primary, candidate } = self;
        Self { request: cut(request), primary: cut(primary), candidate: cut(candidate) }
    }

    /// The bodies that stand first in these parts.
    pub(super) fn take(parts: &mut &[u8]) -> Result<Self, DecodeError> {
        let mut next = || take(parts).map(Bytes::copy_from_slice);
        Ok(Self { request: next()?, primary: next()?, candidate: next()? })
    }

    /// Bytes in all.
    pub(super) fn len(&self) -> usize {
        self.request.len() + self.primary.len() + self.candidate.len()
    }
}

fn cut(body: Bytes) -> Bytes {
    if body.len() <= BODY_LEN_MAX {
        return body;
    }
    let room = BODY_LEN_MAX - CUT_MARK.len();
    let continues = |at: &usize| body.get(*at).is_some_and(|byte| byte & 0xC0 == 0x80);
    // At most three bytes back lies the beginning of a character, if this is UTF-8 at all.
    let end = (room - 3..=room).rev().find(|at| !continues(at)).unwrap_or(room);
    [&body[..end], CUT_MARK].concat().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_bodies_are_cut_between_characters_and_marked() {
        let request = Bytes::from("€".repeat(BODY_LEN_MAX));
        let bodies = Bodies { request, ..Bodies::default() };
        assert!(!bodies.is_cut());
        let kept = bodies.cut();
        assert!(kept.is_cut() && kept.request.len() <= BODY_LEN_MAX);
        assert!(std::str::from_utf8(&kept.request).is_ok());
        assert!(kept.primary.is_empty());
    }
}
