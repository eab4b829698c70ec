//! Looking at a share of what is asked, whoever governs it: beside the callers' path.

use std::sync::Arc;

use bytes::Bytes;

use crate::dialect::Form;
use crate::domain::{Call, Endpoint, Facts, Transcript, hash};
use crate::memory::{Held, Need};
use crate::tasks;
use crate::telemetry::Role;
use crate::traffic::usage::{PromptSize, Surveyed, UsageKind};

use super::{
    Proxy,
    failover::Whole,
    serve::Exchange,
    tee::{Done, Keep, Taken},
};

/// Longest name of a model that is told apart, in bytes.
const MODEL_LEN_MAX: usize = 128;

/// A request that is looked at, until its answer has ended.
pub(super) struct Look {
    endpoint: Endpoint,
    kind: UsageKind,
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
        let Whole { id, endpoint, body, asked, .. } = whole;
        self.surveyor.draws(id).then(|| Look {
            endpoint,
            kind: kind(facts),
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
            tasks::spawn("survey", async move { proxy.survey(&look, &taken) });
        });
        (Keep::UpTo(self.settings.capture_bytes_max, held), done)
    }

    fn survey(&self, look: &Look, taken: &Taken) {
        let (mut call, reading) = taken.read(look.endpoint);
        self.count(&call, Role::Serve);
        let (primary, now) = (self.upstream.provider(&self.primary), self.clock.now());
        call.cost_nano_usd = primary.and_then(|it| it.cost_nano_usd(&look.model, &call, now));
        self.surveyor.see(&Surveyed {
            kind: &look.kind,
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
                kind: &kind(&exchange.routed.facts),
                question: question(body),
                len: body.len(),
                stream: asked.stream,
                json: asked.form != Form::Free,
                answer,
                call,
            });
        }
    }
}

fn kind(facts: &Facts) -> UsageKind {
    let model = &facts.model[..facts.model.floor_char_boundary(MODEL_LEN_MAX)];
    UsageKind {
        model: model.to_owned(),
        feature: facts.feature.clone(),
        segment: facts.segment.clone(),
        task: facts.task.clone(),
        size: PromptSize::default(),
    }
}

/// What a body comes to.
fn question(body: &[u8]) -> u64 {
    hash("question", &String::from_utf8_lossy(body))
}
