//! Looking at a share of what is asked, whoever governs it: beside the callers' path.

use std::sync::Arc;

use bytes::Bytes;

use crate::dialect::Form;
use crate::domain::{Call, Endpoint, Facts, Transcript, hash};
use crate::memory::{Held, Need};
use crate::patterns::Keys;
use crate::tasks;
use crate::telemetry::Role;
use crate::traffic::usage::{PromptSize, Surveyed, UsageKind};

use super::{
    Proxy,
    callers::credentials,
    failover::Whole,
    redact::keys,
    serve::Exchange,
    tee::{Done, Keep, Taken},
};

/// Longest name of a model that is told apart, in bytes.
const MODEL_LEN_MAX: usize = 128;

/// A request that is looked at, until its answer has ended.
pub(super) struct Look {
    endpoint: Endpoint,
    facts: Facts,
    keys: Keys,
    model: String,
    body: Bytes,
    stream: bool,
    json: bool,
    #[expect(dead_code, reason = "held for its drop")]
    held: Held,
}

impl Proxy {
    /// Looks at a request that no rollout governs, if its id drew that.
    pub(super) fn look(&self, whole: Whole<'_>, facts: &Facts, held: Held) -> Option<Look> {
        let Whole { id, endpoint, head, body, asked } = whole;
        self.surveyor.draws(id).then(|| Look {
            endpoint,
            facts: facts.clone(),
            keys: Keys::new(credentials(head)),
            model: asked.model.clone(),
            body: body.clone(),
            stream: asked.stream,
            json: asked.form != Form::Free,
            held,
        })
    }

    /// What is kept of the answer to a request, and what is done with it in the end, that no
    /// rollout governs.
    pub(super) fn looked_at(self: &Arc<Self>, look: Option<Look>) -> (Keep, Done) {
        let Some(look) = look else { return (Keep::Nothing, self.counted()) };
        let held = self.memory.hold(Need::Answer, None);
        let proxy = Arc::clone(self);
        let done: Done = Box::new(move |taken: Taken| {
            if !proxy.failover.is_empty() {
                proxy.seen(&taken);
            }
            tasks::spawn("survey", async move { proxy.survey(&look, &taken).await });
        });
        (Keep::UpTo(self.settings.capture_bytes_max, held), done)
    }

    async fn survey(&self, look: &Look, taken: &Taken) {
        let (mut call, mut reading) = taken.read(look.endpoint);
        self.count(&call, Role::Serve);
        self.estimate((look.endpoint, &look.body), &mut call, &mut reading.transcript).await;
        let (primary, now) = (self.upstream.provider(&self.primary), self.clock.now());
        call.cost_nano_usd = primary.and_then(|it| it.cost_nano_usd(&look.model, &call, now));
        self.surveyor.see(&Surveyed {
            kind: &self.kind(&look.facts, &look.keys),
            question: question(&look.body),
            len: look.body.len(),
            stream: look.stream,
            json: look.json,
            answer: reading.transcript.as_ref(),
            call: &call,
        });
    }

    /// Looks at a request of a rollout and at the answer its caller got, if its id drew that.
    pub(super) fn look_at(&self, exchange: &Exchange, call: &Call, answer: Option<&Transcript>) {
        let Exchange { id, asked, body, .. } = exchange;
        if self.surveyor.draws(*id) {
            self.surveyor.see(&Surveyed {
                kind: &self.kind(&exchange.routed.facts, &keys(exchange)),
                question: question(body),
                len: body.len(),
                stream: asked.stream,
                json: asked.form != Form::Free,
                answer,
                call,
            });
        }
    }

    /// What a request is told apart by, without what must not be kept.
    fn kind(&self, facts: &Facts, keys: &Keys) -> UsageKind {
        let mut kind = UsageKind {
            model: facts.model.clone(),
            feature: facts.feature.clone(),
            segment: facts.segment.clone(),
            task: facts.task.clone(),
            size: PromptSize::default(),
        };
        let UsageKind { model, feature, segment, task, .. } = &mut kind;
        self.redact_texts([&mut *model, feature, segment, task], keys);
        // Cut before, half of what must not be kept might stay.
        model.truncate(model.floor_char_boundary(MODEL_LEN_MAX));
        kind
    }
}

/// What a body comes to.
fn question(body: &[u8]) -> u64 {
    hash("question", &String::from_utf8_lossy(body))
}
