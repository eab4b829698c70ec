//! The answer of a report: whether it is ready, by what was proven and by what people said.

use super::{Problem, ladder, look::full, out::harmless};
use crate::api::{Client, proto};
use proto::{evaluate_rollout_response::Decision, event::Type, rollout::State};

/// Events asked for at a time, and pages of them at most.
const PAGE_LEN: i32 = 1_000;
const PAGES_MAX: usize = 10;
/// The code of a step that somebody took without proof.
const OVERRIDE: &str = "OPERATOR_OVERRIDE";

/// How the stages of an attempt were left.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Climb {
    /// Those that somebody left without proof, and who, in the order of the ladder.
    pub(super) skipped: Vec<(String, String)>,
    /// Whether all of it is told of.
    whole: bool,
}

/// How the stages of the attempt that goes on were left, by the log.
pub(super) async fn climb(client: &mut Client, rollout: &proto::Rollout) -> Result<Climb, Problem> {
    let name = ladder::short(&rollout.name);
    let mut request =
        proto::ListEventsRequest { parent: full(name), page_size: PAGE_LEN, ..Default::default() };
    let mut events = Vec::new();
    for _ in 0..PAGES_MAX {
        let page = client.list_events(request.clone()).await?;
        events.extend(page.events);
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    Ok(Climb::of(rollout, &events))
}

impl Climb {
    /// By events, the newest first.
    pub(super) fn of(rollout: &proto::Rollout, events: &[proto::Event]) -> Self {
        let place = |it: &str| rollout.stages.iter().position(|stage| stage.stage_id == it);
        // By stage, whoever left it last without proof; none where it was proven.
        let mut left: Vec<Option<String>> = vec![None; rollout.stages.len()];
        let (mut whole, mut at) = (false, None);
        for event in events.iter().rev() {
            let to = match event.r#type() {
                Type::StageEntered if event.attempt != rollout.attempt => {
                    (whole, at) = (true, None);
                    continue;
                }
                Type::StageEntered => place(&event.stage_id),
                Type::Succeeded => Some(rollout.stages.len()),
                // The first attempt begins behind it.
                Type::Created => {
                    whole = true;
                    continue;
                }
                _ => continue,
            };
            let (Some(from), Some(to)) = (at, to) else {
                at = to;
                continue;
            };
            let reason = event.reason.clone().unwrap_or_default();
            let who = (reason.code == OVERRIDE).then(|| match reason.comment.as_str() {
                "" => reason.actor.clone(),
                why => format!("{}: {why}", reason.actor),
            });
            for stage in left.iter_mut().take(to).skip(from) {
                stage.clone_from(&who);
            }
            at = Some(to);
        }
        let names = rollout.stages.iter().map(|it| it.stage_id.clone());
        let skipped = names.zip(left).filter_map(|(name, who)| Some((name, who?))).collect();
        Self { skipped, whole }
    }

    /// By whose word it came so far; none where every stage was proven.
    pub(super) fn word(&self) -> Option<String> {
        if self.skipped.is_empty() {
            let unknown = "how its first stages were left is in the log no more".to_owned();
            return (!self.whole).then_some(unknown);
        }
        let stages = self.skipped.iter().map(|(stage, who)| format!("`{stage}` ({who})"));
        let stages = stages.collect::<Vec<_>>().join(", ");
        Some(harmless(&format!("left without proof, by a person's word: {stages}")))
    }
}

/// The answer, in a sentence.
pub(super) fn answer(rollout: &proto::Rollout, decision: Decision, climb: &Climb) -> String {
    let stage = ladder::current(rollout).map_or("", |it| it.stage_id.as_str());
    let word = climb.word();
    let but = word.as_ref().map_or_else(String::new, |it| format!(" But: {it}."));
    match rollout.state() {
        State::RolledBack => format!("No: it was rolled back. {}", rollout.status_message),
        State::Succeeded | State::Baked => match word {
            None => "Yes: every stage was proven, and it serves.".to_owned(),
            Some(word) => format!("It serves, but not every stage was proven: {word}."),
        },
        State::Pending | State::Unspecified => "Not known: it has not started.".to_owned(),
        State::Running | State::Paused | State::AwaitingApproval => match decision {
            Decision::RollBack => format!("No: it would go back now from `{stage}`."),
            Decision::Advance => {
                format!("So far: `{stage}` is proven, and it would go on now.{but}")
            }
            Decision::Hold | Decision::Unspecified => format!("{}{but}", held(rollout, stage)),
        },
    }
}

/// Why it goes no further, by the first thing that stands in its way.
fn held(rollout: &proto::Rollout, stage: &str) -> String {
    let Some(obstacle) = &rollout.obstacle else {
        return format!("So far: `{stage}` is proven. {}.", capital(&rollout.status_message));
    };
    let message = &obstacle.message;
    match obstacle.code.as_str() {
        // What comes behind all gates.
        "TOO_EARLY" | "FROZEN" | "NEEDS_APPROVAL" => {
            format!("So far: the gates of `{stage}` are proven. {}.", capital(message))
        }
        "GATE_INVALID" | "EVIDENCE_UNTRUSTED" | "PRIMARY_OUTAGE" => {
            format!("Not known: {message}.")
        }
        _ => format!("Not yet: {message}."),
    }
}

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |it| it.to_uppercase().chain(letters).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rollout(state: State) -> proto::Rollout {
        let step = |id: &str| proto::Stage { stage_id: id.to_owned(), ..Default::default() };
        proto::Rollout {
            name: "rollouts/chat".to_owned(),
            stages: ["shadow", "half", "full"].map(step).to_vec(),
            state: state.into(),
            attempt: 2,
            stage_index: 1,
            status_message: "held by ana".to_owned(),
            stage_elapsed: Some(proto::Duration { seconds: 60, nanos: 0 }),
            ..Default::default()
        }
    }

    fn entered(stage: &str, attempt: i32, code: &str) -> proto::Event {
        let kind = if stage.is_empty() { Type::Succeeded } else { Type::StageEntered };
        let reason = proto::Reason {
            code: code.to_owned(),
            actor: "ana".to_owned(),
            comment: "no time".to_owned(),
            ..Default::default()
        };
        proto::Event {
            r#type: kind.into(),
            stage_id: stage.to_owned(),
            attempt,
            reason: Some(reason),
            ..Default::default()
        }
    }

    /// The newest first, as they are told.
    fn climbed(steps: &[(&str, &str)]) -> Climb {
        let mut events = vec![proto::Event { r#type: Type::Created.into(), ..Default::default() }];
        // Of what an earlier attempt passed over nothing is left.
        events.extend([entered("shadow", 1, "OPERATOR"), entered("full", 1, OVERRIDE)]);
        events.extend(steps.iter().map(|(stage, code)| entered(stage, 2, code)));
        events.reverse();
        Climb::of(&rollout(State::Running), &events)
    }

    #[test]
    fn every_stage_was_proven_only_where_nobody_passed_over_one() {
        let yes = |climb: &Climb| answer(&rollout(State::Succeeded), Decision::Hold, climb);
        let proven = "ALL_GATES_PASSED";
        let begin = ("shadow", "OPERATOR");
        let all = climbed(&[begin, ("half", proven), ("full", "APPROVED"), ("", proven)]);
        assert_eq!(yes(&all), "Yes: every stage was proven, and it serves.");
        let some = climbed(&[begin, ("full", OVERRIDE), ("", proven)]);
        assert_eq!(
            yes(&some),
            "It serves, but not every stage was proven: left without proof, by a person's word: \
             `shadow` (ana: no time), `half` (ana: no time)."
        );
        // Whoever goes back and proves it then has proven it.
        let back = [begin, ("half", OVERRIDE), ("shadow", "OPERATOR_JUMP"), ("half", proven)];
        let back = climbed(&[&back[..], &[("full", proven), ("", proven)]].concat());
        assert_eq!(yes(&back), "Yes: every stage was proven, and it serves.");
        assert!(yes(&climbed(&[begin, ("", OVERRIDE)])).contains("`full` (ana: no time)"));
        let going = climbed(&[begin, ("half", OVERRIDE)]);
        let told = answer(&rollout(State::Running), Decision::Advance, &going);
        assert!(
            told.ends_with("But: left without proof, by a person's word: `shadow` (ana: no time).")
        );
        let lost = Climb::of(&rollout(State::Running), &[entered("full", 2, proven)]);
        assert!(yes(&lost).contains("is in the log no more"));
    }

    #[test]
    fn what_holds_it_is_told_by_its_kind() {
        let climb = climbed(&[("shadow", "OPERATOR"), ("half", "ALL_GATES_PASSED")]);
        let told = |code: &str, message: &str| {
            let mut rollout = rollout(State::Running);
            let (code, message, metric) = (code.to_owned(), message.to_owned(), String::new());
            rollout.obstacle = Some(proto::Obstacle { code, message, metric });
            answer(&rollout, Decision::Hold, &climb)
        };
        let early = told("TOO_EARLY", "stage `half` has to last 3h more");
        assert_eq!(
            early,
            "So far: the gates of `half` are proven. Stage `half` has to last 3h more."
        );
        assert_eq!(told("GATE_UNDECIDED", "gate x is undecided"), "Not yet: gate x is undecided.");
        assert_eq!(told("GATE_INVALID", "gate x is invalid"), "Not known: gate x is invalid.");
        let waits = answer(&rollout(State::AwaitingApproval), Decision::Hold, &climb);
        assert_eq!(waits, "So far: `half` is proven. Held by ana.");
    }
}
