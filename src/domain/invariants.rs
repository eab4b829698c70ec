//! The invariants of the control plane, each as one function over one step of a rollout.
//!
//! They are stated by themselves, from what went in and what came out, and use nothing of the
//! machine but what it shows. INV7 is about the data path, and tested there.

use super::{
    Answer, Approval, Cause, Command, Consent, Event, Evidence, Facts, Flags, Input, Key, Lane,
    OnIdle, Role, Rollout, Share, Side, Slice, Snapshot, State, Tie, Timestamp, Undecided, Verdict,
};

/// One input and what came of it.
pub(crate) struct Step<'a> {
    pub(crate) before: &'a Rollout,
    pub(crate) after: &'a Rollout,
    pub(crate) input: &'a Input<'a>,
    pub(crate) evidence: &'a Evidence,
    pub(crate) event: Option<&'a Event>,
    pub(crate) now: Timestamp,
    /// Milliseconds that truly passed while this visit of the stage ran.
    pub(crate) ran_ms: u64,
}

pub(crate) type Checked = Result<(), String>;

/// Checks all that can be seen in one step.
pub(crate) fn check(step: &Step<'_>) -> Checked {
    inv1_rises_are_proven(step)?;
    inv2_a_rollback_is_final(step)?;
    inv3_nobody_overrides_a_person(step)?;
    inv5_doubt_moves_nothing(step)?;
    inv6_what_was_done_is_not_done_twice(step)?;
    inv8_every_change_is_one_event(step)?;
    inv9_the_end_is_the_end(step)?;
    inv10_harm_goes_back_at_once(step)?;
    inv11_success_is_guarded(step)?;
    inv12_samples_are_nested(step)
}

/// The share of callers that the candidate answers.
pub(crate) fn served(rollout: &Rollout) -> Share {
    rollout.stage().map_or(Share::NONE, |it| it.serve)
}

/// Whether the time in the stage counts.
pub(crate) fn runs(rollout: &Rollout) -> bool {
    matches!(rollout.state(), State::Running | State::Succeeded)
}

/// Breaks the invariant of that id unless it is so.
pub(crate) fn holds(id: &str, what: &str, truth: bool) -> Checked {
    if truth { Ok(()) } else { Err(format!("{id}: {what}")) }
}

/// Every gate that must be proven is, on enough pairs and after enough time, and nothing speaks
/// against it.
fn proven(step: &Step<'_>) -> bool {
    let Some(stage) = step.before.stage() else { return false };
    let gates = stage.gates.iter().all(|gate| {
        let verdict = step.evidence.of(gate.metric()).map(|it| it.verdict);
        match gate.role {
            Role::Prove => verdict == Some(Verdict::Pass),
            Role::Guard => !matches!(verdict, Some(Verdict::Breach | Verdict::Invalid)),
        }
    });
    gates
        && unspoiled(step)
        && step.evidence.outage.is_none()
        && step.evidence.unsettled.is_none()
        && stage.samples_min <= step.evidence.pairs
        && stage.duration_ms_min <= step.ran_ms
        && step.before.thaw(step.now).is_none()
}

/// Nothing is known to be wrong: what a person may pass over is doubt, and no more.
fn unspoiled(step: &Step<'_>) -> bool {
    let spoiled = |it: Verdict| matches!(it, Verdict::Breach | Verdict::Invalid);
    step.evidence.problem.is_none() && !step.evidence.gates.iter().any(|it| spoiled(it.verdict))
}

/// INV1
fn inv1_rises_are_proven(step: &Step<'_>) -> Checked {
    let onward = match step.event {
        Some(Event::StageEntered { attempt, stage, .. }) => {
            *attempt == step.before.attempt() && step.before.stage_index() < *stage
        }
        Some(Event::Succeeded(_)) => true,
        Some(_) | None => false,
    };
    let rises = served(step.before) < served(step.after);
    if !rises && !onward {
        return Ok(());
    }
    let one_on = step.after.stage_index() <= step.before.stage_index() + 1;
    let skips = |undecided: Undecided| undecided == Undecided::Skip;
    let right = match (step.after.cause(), step.input) {
        (Some(Cause::GatesPassed), Input::Tick) => proven(step) && one_on,
        (Some(Cause::Operator), Input::Command(Command::Start | Command::Supersede)) => {
            step.after.stage_index() == 0
        }
        (Some(Cause::Operator), Input::Command(Command::Advance { .. })) => proven(step) && one_on,
        (Some(Cause::Approved), Input::Command(Command::Approve { answer: Answer::Yes, .. })) => {
            let asked = step.before.state() == State::AwaitingApproval;
            return holds(
                "INV1",
                "an approval is not the last gate",
                asked && proven(step) && one_on,
            );
        }
        (Some(Cause::Override), Input::Command(Command::Advance { undecided, .. })) => {
            unspoiled(step) && one_on && skips(*undecided)
        }
        (Some(Cause::Override), Input::Command(Command::Jump { undecided, .. })) => {
            unspoiled(step) && skips(*undecided)
        }
        (Some(Cause::Override), Input::Command(Command::Complete { .. })) => unspoiled(step),
        (_, _) => false,
    };
    holds("INV1", "it went on without proof, and nobody is said to have overridden it", right)?;
    holds("INV1", "it passed a stage that asks for an approval", !onward || agreed(step))
}

/// Whoever passed over stages that ask for an approval gave one.
fn agreed(step: &Step<'_>) -> bool {
    let consent = match step.input {
        Input::Command(Command::Jump { consent, .. } | Command::Complete { consent }) => *consent,
        Input::Command(_)
        | Input::Tick
        | Input::Tripped
        | Input::Idle
        | Input::Superseded
        | Input::Stopped => Consent::Withheld,
    };
    let end = match step.event {
        Some(Event::StageEntered { stage, .. }) => *stage,
        Some(_) | None => step.before.plan().stages.len(),
    };
    let passed = step.before.plan().stages.iter().take(end).skip(step.before.stage_index());
    consent == Consent::Given || !passed.into_iter().any(|it| it.approval == Approval::Needed)
}

/// INV2
fn inv2_a_rollback_is_final(step: &Step<'_>) -> Checked {
    let gone = step.before.state() == State::RolledBack;
    let back = matches!(step.event, Some(Event::RolledBack(_)));
    let nothing = served(step.after) == Share::NONE;
    holds("INV2", "something is served after a rollback", !back || nothing)?;
    if !gone || nothing && step.after.state() == State::RolledBack {
        return Ok(());
    }
    let started = matches!(step.input, Input::Command(Command::Start | Command::Supersede))
        && step.after.attempt() == step.before.attempt() + 1
        && step.after.stage_index() == 0;
    holds("INV2", "it left a rollback otherwise than by a new attempt", started)
}

fn is_automatic(input: &Input<'_>) -> bool {
    match input {
        Input::Command(_) | Input::Superseded | Input::Stopped => false,
        Input::Tick | Input::Tripped | Input::Idle => true,
    }
}

/// INV3
fn inv3_nobody_overrides_a_person(step: &Step<'_>) -> Checked {
    if !is_automatic(step.input) || step.before.state() != State::Paused {
        return Ok(());
    }
    let back = matches!(step.event, None | Some(Event::RolledBack(_)));
    holds("INV3", "a pause was ended by nobody", back)
}

/// INV4
///
/// A step back on the ladder, or an edit that lowers a share, is written first as well; until
/// then what was served before is served.
pub(crate) fn inv4_a_rise_is_written_first(
    live: &Rollout,
    durable: &Rollout,
    before: &Rollout,
) -> Checked {
    let most = served(durable).max(served(before));
    holds("INV4", "more is served than was written", served(live) <= most)
}

/// INV4
pub(crate) fn inv4_a_rollback_waits_for_nothing(live: &Rollout, event: &Event) -> Checked {
    let back = matches!(event, Event::RolledBack(_));
    let gone = live.state() == State::RolledBack;
    holds("INV4", "a rollback is not in force yet", !back || gone)
}

/// INV4
pub(crate) fn inv4_before_or_after(now: &Rollout, before: &Rollout, after: &Rollout) -> Checked {
    let stands = |it: &Rollout| format!("{it:?}");
    let known = stands(now) == stands(before) || stands(now) == stands(after);
    holds("INV4", "after a crash it stands between two states", known)
}

/// INV5
fn inv5_doubt_moves_nothing(step: &Step<'_>) -> Checked {
    let Some(event) = step.event else { return Ok(()) };
    let right = match (event, step.input) {
        (Event::RolledBack(Cause::Breach(metric)), _) => step
            .evidence
            .gates
            .iter()
            .any(|it| (it.metric, it.verdict) == (*metric, Verdict::Breach)),
        (Event::RolledBack(Cause::Idle), Input::Idle) => {
            step.before.plan().times.on_idle == OnIdle::Rollback
        }
        (Event::RolledBack(_), Input::Tick | Input::Idle) => false,
        (Event::ApprovalRequested, Input::Tick) => proven(step),
        (Event::Baked, _) => {
            let bake_ms = step.before.plan().times.bake_ms;
            unspoiled(step) && bake_ms.is_some_and(|it| it <= step.ran_ms)
        }
        (_, _) => true,
    };
    holds("INV5", "it moved on evidence that says nothing", right)
}

/// INV6
fn inv6_what_was_done_is_not_done_twice(step: &Step<'_>) -> Checked {
    let (Input::Command(command), Some(_)) = (step.input, step.event) else { return Ok(()) };
    let named = match command {
        Command::Start
        | Command::Supersede
        | Command::Complete { .. }
        | Command::Pause
        | Command::Resume
        | Command::Rollback
        | Command::Revise(_) => true,
        Command::Advance { from_stage: stage, .. } | Command::Approve { stage, .. } => {
            !stage.is_empty()
        }
        // Going back to a stage begins it again, each time it is asked for.
        Command::Jump { .. } => false,
    };
    let again = step.after.decide(step.now, step.input, step.evidence);
    let moved = matches!(again, Ok(Some(_)));
    holds("INV6", "the same command moved it a second time", !named || !moved)
}

/// INV8
fn inv8_every_change_is_one_event(step: &Step<'_>) -> Checked {
    let steps = step.after.revision() - step.before.revision();
    let right = match step.event {
        None => steps == 0 && format!("{:?}", step.before) == format!("{:?}", step.after),
        Some(_) => steps == 1,
    };
    holds("INV8", "a change and its event do not match", right)
}

/// INV8
pub(crate) fn inv8_written_is_what_happened(
    again: &Rollout,
    durable: &Rollout,
    written: usize,
) -> Checked {
    let revision = 1 + u64::try_from(written).unwrap_or(u64::MAX);
    let same = format!("{again:?}") == format!("{durable:?}") && again.revision() == revision;
    holds("INV8", "what was written gives another state", same)
}

/// INV9
fn inv9_the_end_is_the_end(step: &Step<'_>) -> Checked {
    let ended = matches!(step.before.state(), State::RolledBack | State::Pending);
    let moved = step.event.is_some() && is_automatic(step.input);
    holds("INV9", "something moved what has ended", !ended || !moved)
}

/// INV10
fn inv10_harm_goes_back_at_once(step: &Step<'_>) -> Checked {
    let breach = || step.evidence.breach().map(|it| Cause::Breach(it.metric));
    let due = match step.input {
        Input::Tripped => Some(Cause::Tripwire),
        Input::Superseded => Some(Cause::Superseded),
        Input::Stopped => Some(Cause::Stopped),
        Input::Tick | Input::Idle => step.before.guarded().and_then(|_| breach()),
        Input::Command(Command::Rollback) => Some(Cause::Operator),
        Input::Command(_) => None,
    };
    let due = due.filter(|_| step.before.stage().is_some());
    let Some(cause) = due else { return Ok(()) };
    holds("INV10", "harm was seen and it stayed", step.event == Some(&Event::RolledBack(cause)))
}

/// INV11
fn inv11_success_is_guarded(step: &Step<'_>) -> Checked {
    if step.after.state() != State::Succeeded {
        return Ok(());
    }
    let last = step.after.plan().stages.last();
    let mirrored = last.is_some_and(|it| it.mirror == step.after.mirror());
    let stands = step.after.guarded() == last && step.after.window().is_some() && mirrored;
    holds("INV11", "nothing guards after success", stands)
}

/// INV12
fn inv12_samples_are_nested(step: &Step<'_>) -> Checked {
    let (less, more) = (served(step.before), served(step.after));
    if more <= less {
        return Ok(());
    }
    let kept = (0..8).all(|key| {
        let key = format!("user-{key}");
        !takes(step.before, &key) || takes(step.after, &key)
    });
    holds("INV12", "somebody lost the candidate when its share rose", kept)
}

/// Whether the candidate answers who has this key.
fn takes(rollout: &Rollout, key: &str) -> bool {
    let (plan, stage) = (rollout.plan(), rollout.stage());
    let lane = Lane {
        rollout: rollout.name().clone(),
        window: rollout.window(),
        primary: plan.primary.clone(),
        candidate: plan.candidate.clone(),
        slice: plan.slice.clone(),
        stage_slice: Slice::default(),
        watched: None,
        gated: Vec::new(),
        compared: crate::domain::Compared::default(),
        serve: stage.map_or(Share::NONE, |it| it.serve),
        mirror: stage.map_or(Share::NONE, |it| it.mirror),
        noise: plan.noise,
        cleared: Vec::new(),
        judge: plan.judge_share,
        flags: Flags::default(),
    };
    let facts = Facts {
        key: Key::User(key.to_owned()),
        feature: String::new(),
        segment: String::new(),
        task: String::new(),
        model: String::new(),
        data: Vec::new(),
        barred: None,
        tie: Tie::None,
    };
    Snapshot { lanes: vec![lane.into()] }.route(&facts).serve == Side::Candidate
}
