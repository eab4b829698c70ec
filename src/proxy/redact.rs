//! What both sides said, without what must not be kept: off the caller's path, before any of it
//! goes to the store or the judge.

use std::borrow::Cow;

use bytes::Bytes;

use crate::dialect;
use crate::domain::{Call, Transcript, is_cleared};
use crate::patterns::Keys;
use crate::telemetry::Withheld;

use super::{
    Proxy,
    callers::credentials,
    half::{Half, stored},
    serve::Exchange,
    tee::Reading,
};

/// Longest text kept of what went wrong, in bytes.
const TROUBLE_LEN_MAX: usize = 300;

/// Longest name of a model, or word for why it stopped, that is kept of an answer, in bytes: calls
/// are remembered by the ten thousand, and a provider may call itself what it likes.
const NAME_LEN_MAX: usize = 200;

/// Who may have the texts of a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cleared {
    pub(super) judge: bool,
    pub(super) store: bool,
}

impl Proxy {
    /// Who is cleared for the data of a request and of what was answered; who is not is counted.
    pub(super) fn cleared(&self, exchange: &Exchange, answers: [&Half; 2]) -> Cleared {
        let mut data = exchange.routed.facts.data.clone();
        let detector = &self.callers.detector;
        if !detector.is_empty() {
            data.extend(answers.iter().flat_map(|it| detector.classes(&stored(it))));
        }
        let judge = self.judge.as_ref().map(|it| is_cleared(&it.cleared, &data));
        let store = is_cleared(&self.store_cleared, &data);
        if judge == Some(false) {
            self.metrics.withheld(Withheld::Judge);
        }
        if !store {
            self.metrics.withheld(Withheld::Store);
        }
        Cleared { judge: judge == Some(true), store }
    }

    /// Takes out of both answers what must not be kept, and out of the request, which is returned.
    pub(super) fn redact(
        &self,
        exchange: &Exchange,
        answers: [&mut Reading; 2],
        keys: &Keys,
    ) -> Bytes {
        for Reading { transcript, trouble } in answers {
            self.redact_texts(trouble.iter_mut(), keys);
            if let Some(trouble) = trouble {
                shorten(trouble, TROUBLE_LEN_MAX);
            }
            let Some(Transcript { text, tool_calls, refusal }) = transcript else { continue };
            self.redact_texts(std::iter::once(text).chain(refusal), keys);
            for call in tool_calls {
                self.redact_texts([&mut call.id, &mut call.name, &mut call.arguments], keys);
            }
        }
        match self.redactor.document(&exchange.body, keys) {
            Cow::Borrowed(_) => exchange.body.clone(),
            Cow::Owned(redacted) => redacted.into(),
        }
    }

    /// The same for what a call says of itself, in the words of its provider.
    pub(super) fn redact_call(&self, call: &mut Call, keys: &Keys) {
        for text in [&mut call.model, &mut call.finish_reason].into_iter().flatten() {
            self.redact_texts([&mut *text], keys);
            shorten(text, NAME_LEN_MAX);
        }
    }

    /// Takes out of texts what must not be kept.
    pub(super) fn redact_texts<'t>(
        &self,
        texts: impl IntoIterator<Item = &'t mut String>,
        keys: &Keys,
    ) {
        for text in texts {
            if let Cow::Owned(redacted) = self.redactor.text(text, keys) {
                *text = redacted;
            }
        }
    }
}

/// The keys that a request brought, which nobody may keep of it or of its answers.
pub(super) fn keys(exchange: &Exchange) -> Keys {
    Keys::new(credentials(&exchange.head))
}

/// The path of a request as it is kept: the caller's own words in it only where those are.
pub(super) fn shown_path(exchange: &Exchange, cleared: Cleared) -> String {
    let own = exchange.head.uri.path();
    if cleared.store { own } else { dialect::path(exchange.endpoint) }.to_owned()
}

/// Cuts a text once nothing is in it that must not be kept: cut before, half of it might stay.
fn shorten(text: &mut String, len_max: usize) {
    text.truncate(text.floor_char_boundary(len_max));
    text.shrink_to_fit();
}
