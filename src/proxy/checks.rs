//! What answers keep to by rule: looked at beside the callers' path, once they are here.

use tokio::{
    runtime::{Handle, RuntimeFlavor},
    sync::Mutex,
    task::block_in_place,
};

use crate::dialect::{Answer, Prompt, Schemas, check, compare, rouge_l};
use crate::domain::{Call, Check, Checks, Metric, Outcome, Transcript};

use super::{Proxy, half::Half, mirror::side, serve::Exchange};

/// What checks remember.
#[derive(Debug, Default)]
pub struct Checker {
    schemas: Schemas,
    turn: Mutex<()>,
}

impl Checker {
    /// Reads an answer that may be held against its caller's schemas: apart from what serves
    /// callers, and one at a time, so that no more than a core and one answer's memory go to it.
    pub(super) async fn in_turn<T>(&self, read: impl FnOnce() -> T) -> T {
        let _turn = self.turn.lock().await;
        match Handle::current().runtime_flavor() {
            // Another thread goes on with the other tasks of this one's worker.
            RuntimeFlavor::MultiThread => block_in_place(read),
            // There is no other thread.
            _ => read(),
        }
    }
}

impl Proxy {
    /// Whether the judge is asked of some of the pairs like this one.
    pub(super) fn is_judged(&self, exchange: &Exchange) -> bool {
        self.judge.is_some() && !exchange.lane.judge.is_none()
    }

    /// Puts on a call what its answer keeps to by itself, where it is a whole one.
    pub(super) fn check_answer(
        &self,
        exchange: &Exchange,
        call: &mut Call,
        whole: Option<&Transcript>,
    ) {
        let Some(transcript) = whole.filter(|_| call.outcome == Outcome::Ok) else { return };
        let Exchange { endpoint, body, lane, .. } = exchange;
        let prompt = Prompt { endpoint: *endpoint, body, form: exchange.asked.form };
        let answer = Answer { transcript, finish_reason: call.finish_reason.as_deref() };
        let is_asked = lane.gated.contains(&Metric::RepeatedRate) || self.is_judged(exchange);
        let repeated = is_asked.then(|| {
            // A tool may be called alike and a label given to many questions.
            let text = &transcript.text;
            transcript.tool_calls.is_empty()
                && lane.compared.label(text).is_none()
                && exchange.live.is_repeated(side(exchange, call), prompt.conversation(), text)
        });
        let chars = answer.chars();
        call.checks = check(prompt, answer, &lane.gated, &self.checker.schemas)
            .with(Check::NotRepeated, repeated.map(|it| !it));
        call.answer_chars = Some(chars);
    }
}

/// Whether several other questions lately got this answer too.
pub(super) fn is_repeated(half: &Half) -> bool {
    half.call.checks.kept(Check::NotRepeated) == Some(false)
}

/// Puts on both calls of a request what comes of comparing their answers, where both are whole: the
/// primary's, or the one of it that a caller saw, is the measure of the other.
pub(super) fn compare_halves(exchange: &Exchange, primary: &mut Half, other: &mut Half) {
    let (Some(ours), Some(theirs)) = (whole(primary), whole(other)) else { return };
    let checks = compare(ours, theirs, &exchange.lane.compared);
    let is_gated = exchange.lane.gated.contains(&Metric::RougeL);
    let rouge_l_bps = is_gated.then(|| rouge_l(&ours.text, &theirs.text)).flatten();
    primary.call.checks = primary.call.checks.and(checks.all_kept());
    other.call.checks = other.call.checks.and(checks);
    // Where one side calls what nobody offered, the other is right not to.
    let [one, another] = [&*primary, &*other].map(|it| it.call.checks.kept(Check::ToolCalls));
    if one.is_some() != another.is_some() {
        let right = Checks::default().with(Check::ToolCalls, Some(true));
        for half in [&mut *primary, &mut *other] {
            half.call.checks = half.call.checks.and(right);
        }
    }
    other.call.rouge_l_bps = rouge_l_bps;
}

/// An answer that is here to its end.
fn whole(half: &Half) -> Option<&Transcript> {
    half.reading.transcript.as_ref().filter(|_| half.call.answer_chars.is_some())
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{Arc, mpsc},
        time::Duration,
    };

    use super::*;
    use crate::tasks;

    /// There is one worker, and what is waited for comes from another task.
    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn what_takes_long_keeps_nobody_else_from_a_worker() {
        let ((sender, receiver), checker) = (mpsc::channel(), Arc::new(Checker::default()));
        let (told, heard) = tokio::sync::oneshot::channel();
        tasks::spawn("long", async move {
            let read = move || {
                tasks::spawn("other", async move { sender.send(()).unwrap() });
                receiver.recv_timeout(Duration::from_secs(20))
            };
            told.send(checker.in_turn(read).await).unwrap();
        });
        assert_eq!(heard.await.unwrap(), Ok(()));
    }
}
