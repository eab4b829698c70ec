//! Why a request went where it went, in messages and in words.

use super::{evidence::call, int, time};
use crate::api::proto::{self, ExplainRequestResponse as Told, pair::Served};
use crate::domain::{Facts, Key, Lane, Pair, PairId, Places, Side, Skip, Tie};
use crate::traffic::{Counted, Routed, Trace};

/// What is remembered of a request.
pub(in crate::api) fn trace(trace: &Trace) -> Told {
    match trace {
        Trace::Passed { id, at, why } => Told {
            create_time: Some(time(*at)),
            served: Served::Primary.into(),
            skip_reason: why.as_str().to_owned(),
            explanation: vec![format!("The primary answered: {}.", advice(*why))],
            ..of(*id)
        },
        Trace::Routed(it) => routed(it),
    }
}

/// What a stored pair says of its request.
pub(in crate::api) fn trace_of_pair(pair: &Pair) -> Told {
    let got = match pair.answered {
        Some(answered) => format!("and the caller got the {}'s answer", side(answered)),
        None => format!(
            "and the {} was to answer the caller; whether another did is no longer known",
            side(pair.served)
        ),
    };
    let explanation = vec![
        format!("It was asked of both sides, {got}."),
        "It is a pair; where its key fell is no longer known.".to_owned(),
    ];
    Told {
        create_time: Some(time(pair.at)),
        explanation,
        rollout: format!("rollouts/{}", pair.window.rollout),
        attempt: int(pair.window.attempt),
        stage_index: int(pair.window.stage),
        feature: pair.feature.clone(),
        segment: pair.segment.clone(),
        served: served(pair.answered.unwrap_or(pair.served)).into(),
        counted: proto::explain_request_response::Counted::Pair.into(),
        primary: Some(call(&pair.primary)),
        candidate: Some(call(&pair.candidate)),
        ..of(pair.id)
    }
}

fn of(id: PairId) -> Told {
    Told { request_id: id.to_string(), ..Told::default() }
}

fn routed(it: &Routed) -> Told {
    let Facts { feature, segment, task, model, data, .. } = it.facts.clone();
    let window = it.lane.as_ref().and_then(|it| it.window.as_ref());
    let skip = it.copy.get().copied().unwrap_or(it.route.mirror).err();
    let answered = it.answered.get().copied().unwrap_or(Side::Primary);
    let lots = it.lane.as_ref().zip(it.route.places);
    Told {
        create_time: Some(time(it.at)),
        explanation: explanation(it, skip),
        rollout: it.lane.as_ref().map_or_else(String::new, |it| format!("rollouts/{}", it.rollout)),
        attempt: window.map_or(0, |it| int(it.attempt)),
        stage_index: window.map_or(0, |it| int(it.stage)),
        feature,
        segment,
        task,
        model,
        data_classes: data,
        served: served(answered).into(),
        skip_reason: skip.map_or("", Skip::as_str).to_owned(),
        lots: lots.map(|(lane, places)| proto::Lots {
            key: key(&it.facts.key).to_owned(),
            serve_place: places.serve.into(),
            serve_bps: lane.shares(&it.facts).serve.basis_points().into(),
            mirror_place: places.mirror.into(),
            mirror_bps: lane.shares(&it.facts).mirror.basis_points().into(),
        }),
        counted: counted(it.counted.get().copied()).into(),
        primary: it.primary.get().map(call),
        candidate: it.candidate.get().map(call),
        failover: it.failover.get().map_or_else(String::new, ToString::to_string),
        ..of(it.id)
    }
}

fn explanation(it: &Routed, skip: Option<Skip>) -> Vec<String> {
    let stood_in = it.failover.get().map(|name| {
        format!(
            "`{name}` answered in place of the primary, which failed before its answer began or had \
             its breaker open; that is no evidence of the primary."
        )
    });
    let Some(lane) = &it.lane else {
        let passed = || format!("The primary answered: {}.", advice(Skip::NoRollout));
        return vec![stood_in.unwrap_or_else(passed)];
    };
    let shares = lane.shares(&it.facts);
    let mut told = vec![stood_in.unwrap_or_else(|| serving(it, lane))];
    if (shares.serve, shares.mirror) != (lane.serve, lane.mirror) {
        told.push("A flag caps what the stage allows; see `crossfade flag list`.".to_owned());
    }
    told.push(match (skip, it.route.places) {
        (None, Some(places)) => format!(
            "The {} was asked too, because its key fell at {} of what is copied, and {} is.",
            side(it.route.serve.other()),
            percent(places.mirror),
            shares.mirror
        ),
        (Some(Skip::Share), Some(places)) => format!(
            "No copy was made, because its key fell at {} of what is copied, and {} is; raise the \
             stage's `mirror` to copy more.",
            percent(places.mirror),
            lane.mirror
        ),
        (Some(skip), _) => format!("No copy was made: {}.", advice(skip)),
        (None, None) => "Both sides were asked.".to_owned(),
    });
    told.push(counting(it).to_owned());
    match it.again.get() {
        None => {}
        Some(Ok(())) => told.push(format!(
            "The primary was asked a second time, to know how much it differs from itself: of what \
             it answers, {} is.",
            lane.noise
        )),
        Some(Err(skip)) => {
            told.push(format!("The primary was not asked a second time: {}.", advice(*skip)));
        }
    }
    let slice = lane.watched(&it.facts);
    if !slice.is_empty() {
        told.push(format!("It is in the watched slice `{slice}`."));
    }
    told
}

/// Who answered, and why.
fn serving(it: &Routed, lane: &Lane) -> String {
    let asked = it.route.serve;
    match (asked, it.answered.get().copied().unwrap_or(asked), it.route.places) {
        (Side::Candidate, Side::Primary, _) if it.kept().is_some() => {
            let why = it.kept().map_or("", advice);
            format!("The candidate was to answer, and the primary did: {why}.")
        }
        (Side::Candidate, Side::Primary, _) => {
            "The candidate was to answer and failed before its first byte, or was given up because \
             of a rollback, so the primary answered."
                .to_owned()
        }
        (_, _, Some(_)) if it.facts.tie == Tie::Primary => {
            "The primary answered, as it always does for requests whose answers bind what follows \
             to a provider (embeddings, stored responses)."
                .to_owned()
        }
        (_, answered, Some(Places { serve, .. })) if it.route.began.is_some() => format!(
            "The {} answered, because the conversation's key fell at {} of the traffic, and the \
             candidate served {} when it began, or since: it keeps its side, and draws \
             no lot.",
            side(answered),
            percent(serve),
            it.route.began.unwrap_or_default()
        ),
        (_, answered, Some(Places { serve, .. })) => format!(
            "The {} answered, because the {} fell at {} of the traffic, and the candidate serves {}.",
            side(answered),
            match it.facts.key {
                Key::Conversation(_) => "conversation's key",
                Key::User(_) => "user's key",
                Key::Request(_) => "request's own key",
            },
            percent(serve),
            lane.shares(&it.facts).serve
        ),
        (_, answered, None) => format!("The {} answered.", side(answered)),
    }
}

fn counting(it: &Routed) -> &'static str {
    match (it.counted.get(), it.route.lot) {
        (Some(Counted::Pair), _) => "It counts as a pair.",
        (Some(Counted::Solo), _) => {
            "It counts by the side that was seen alone, once for all that shares its key."
        }
        (Some(Counted::Lost), _) => {
            "It does not count: the controller's queue was full; raise \
             `limits.observation_queue_len_max`."
        }
        (None, Some(_)) => {
            "It does not count, or not yet: its calls have not ended, its caller left, its copy was \
             given up or lost, or the side that answered was not drawn by lot."
        }
        (None, None) => "It does not count: its sides were no chance.",
    }
}

/// What a reason means, and what would change it.
fn advice(skip: Skip) -> &'static str {
    match skip {
        Skip::NoRollout => {
            "no rollout moved such traffic then; start one, or widen the slice of the rollout or of \
             its stage"
        }
        Skip::Share => "its key is outside the share; raise the stage's `mirror`",
        Skip::Endpoint => "requests of this path and method are never copied",
        Skip::NotJson => "its body is no JSON object, or does not call itself JSON",
        Skip::Size => "its body is larger than `limits.mirror_body_max`",
        Skip::Stateful => {
            "it reads or leaves state at the provider (`store`, `previous_response_id`, files); send \
             it without"
        }
        Skip::HostedTool => "the provider itself would run a tool, and it must not run twice",
        Skip::Multiple => "it asks for more than one answer; send it with `n` of 1",
        Skip::Modality => "it asks for audio",
        Skip::Retry => "it is the caller's own retry of a request that was copied before",
        Skip::Idempotent => "the caller marked it idempotent, so it must not run twice",
        Skip::Loop => "it is a copy itself; point the providers elsewhere than to this proxy",
        Skip::DataClass => {
            "the candidate is not cleared for its data classes; add them to `data` of the provider \
             if they may go there"
        }
        Skip::Flag => "a flag keeps it from being copied; `crossfade flag clear` lifts it",
        Skip::DailyCap => "the day's copies were used up; raise `copies_per_day`",
        Skip::Budget => {
            "the budget for copies and scores was spent, or set aside for copies under way; \
             `crossfade status` says of what it is"
        }
        Skip::Unpriced => {
            "there is a budget, and no price is known of the model it would be asked of: add it to \
             `price` of the provider"
        }
        Skip::Busy => {
            "too many copies were under way; raise `limits.mirror_concurrency_max` or lower `mirror`"
        }
        Skip::Breaker => {
            "the breaker of one of its providers was open, because too many of its calls had failed; \
             it is tried again after `breaker.cool_down` of that provider"
        }
        Skip::RetryAfter => {
            "one of its providers had asked to be left alone for a while (429 or 529 with \
             Retry-After); raise its quota, or lower the shares"
        }
        Skip::RetryBudget => {
            "more than one in ten calls of the candidate had to be asked again of the primary, so \
             it was asked less"
        }
        Skip::Memory => {
            "copies and answers held too much memory; raise `limits.side_memory_max` or lower `mirror`"
        }
    }
}

fn percent(place: u16) -> String {
    format!("{}.{:02}%", place / 100, place % 100)
}

fn key(key: &Key) -> &'static str {
    match key {
        Key::Conversation(_) => "conversation",
        Key::User(_) => "user",
        Key::Request(_) => "request",
    }
}

fn side(side: Side) -> &'static str {
    side.as_str()
}

fn served(side: Side) -> Served {
    match side {
        Side::Primary => Served::Primary,
        Side::Candidate => Served::Candidate,
    }
}

fn counted(counted: Option<Counted>) -> proto::explain_request_response::Counted {
    use proto::explain_request_response::Counted as As;
    match counted {
        None => As::Unspecified,
        Some(Counted::Pair) => As::Pair,
        Some(Counted::Solo) => As::Solo,
        Some(Counted::Lost) => As::Lost,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::domain::{Flags, Share, Slice, Snapshot, Timestamp, Window};

    fn told(change: impl Fn(&mut Lane, &mut Facts), copy: Result<(), Skip>) -> Told {
        trace(&Trace::Routed(Arc::new(routed_of(change, copy))))
    }

    fn routed_of(change: impl Fn(&mut Lane, &mut Facts), copy: Result<(), Skip>) -> Routed {
        let rollout = "chat".parse::<crate::domain::Name>().unwrap();
        let mut lane = Lane {
            window: Some(Window { rollout: rollout.clone(), attempt: 2, stage: 1 }),
            rollout,
            primary: "gpt".parse().unwrap(),
            candidate: "cheap".parse().unwrap(),
            slice: Slice::default(),
            stage_slice: Slice::default(),
            watched: None,
            gated: Vec::new(),
            compared: crate::domain::Compared::default(),
            serve: Share::from_basis_points(500).unwrap(),
            mirror: Share::ALL,
            noise: Share::NONE,
            cleared: vec![],
            judge: Share::ALL,
            flags: Flags::default(),
        };
        let mut facts = Facts {
            key: Key::User("ana@example.org".to_owned()),
            feature: "search".to_owned(),
            segment: String::new(),
            task: String::new(),
            model: "gpt-4o".to_owned(),
            data: vec![],
            barred: None,
            tie: Tie::None,
        };
        change(&mut lane, &mut facts);
        let lane = Arc::new(lane);
        let route = Snapshot { lanes: vec![Arc::clone(&lane)] }.route(&facts);
        let routed = Routed::new(PairId(7), Timestamp(1_000), facts, route);
        let routed = routed.governed(lane);
        routed.copy.set(copy).unwrap();
        routed
    }

    #[test]
    fn a_copied_request_tells_its_lots_and_never_who_it_came_from() {
        let told = told(|_, _| {}, Ok(()));
        let lots = told.lots.clone().unwrap();
        assert_eq!((lots.key.as_str(), lots.serve_bps, lots.mirror_bps), ("user", 500, 10_000));
        assert_eq!(
            (told.rollout.as_str(), told.attempt, told.stage_index),
            ("rollouts/chat", 2, 1)
        );
        assert!(told.explanation[1].contains("asked too"), "{told:?}");
        assert!(!format!("{told:?}").contains("ana@"), "{told:?}");
    }

    #[test]
    fn every_reason_not_to_copy_is_told_in_words() {
        for skip in Skip::ALL {
            let told = told(|_, _| {}, Err(skip));
            assert_eq!(told.skip_reason, skip.as_str());
            assert!(told.explanation[1].starts_with("No copy was made"), "{told:?}");
        }
        let routed = |again| {
            let routed = routed_of(|_, _| {}, Ok(()));
            routed.again.set(again).unwrap();
            trace(&Trace::Routed(Arc::new(routed))).explanation.pop().unwrap()
        };
        assert!(routed(Ok(())).starts_with("The primary was asked a second time"));
        assert!(routed(Err(Skip::DailyCap)).starts_with("The primary was not asked a second time"));
        let tied = told(|_, facts| facts.tie = Tie::Primary, Ok(()));
        assert!(tied.explanation[0].contains("bind what follows"), "{tied:?}");
        assert!(tied.explanation[2].contains("no chance"), "{tied:?}");
    }
}
