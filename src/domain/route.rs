//! Where a request goes: facts and snapshot in, route and reason out.

use std::sync::Arc;

use super::{
    Caps, Compared, Flags, Metric, Name, Share, Side, Skip, Slice, Watched, Window,
    share::{bucket, hash},
};

/// What sticks to a side: the conversation, else the user, else the request alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Key {
    /// All turns of a conversation together.
    Conversation(String),
    /// All requests of a user together.
    User(String),
    /// Every request by itself.
    Request(String),
}

impl Key {
    fn as_str(&self) -> &str {
        match self {
            Self::Conversation(text) | Self::User(text) | Self::Request(text) => text,
        }
    }

    /// What its lot is drawn for. Texts that are equal draw alike, whatever they name.
    fn lot(&self) -> Lot {
        match self {
            Self::Conversation(text) | Self::User(text) => Lot::Sticky(hash("lot", text)),
            Self::Request(_) => Lot::Once,
        }
    }
}

/// How a lot drew which sides of a request are seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lot {
    /// For this request alone.
    Once,
    /// For all that sticks together, a conversation or a user, by this hash of its key.
    Sticky(u64),
    /// The same while nothing is copied, whichever side it fell to: only who serves was drawn. With
    /// the hash of the key of what sticks together, if anything does.
    Uncopied(Option<u64>),
}

impl Lot {
    /// The hash of the key of what sticks together; none where nothing does.
    pub fn key(self) -> Option<u64> {
        match self {
            Self::Once => None,
            Self::Sticky(key) => Some(key),
            Self::Uncopied(key) => key,
        }
    }

    /// The same lot while nothing is copied.
    #[must_use]
    pub fn uncopied(self) -> Self {
        Self::Uncopied(self.key())
    }
}

/// Where a key fell among 10 000: it is inside every share above its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Places {
    /// Among those that the candidate may serve.
    pub serve: u16,
    /// Among those of which copies are made.
    pub mirror: u16,
}

/// What must be known of a request to route it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// What sticks to a side.
    pub key: Key,
    /// The feature it came from; empty when unmarked.
    pub feature: String,
    /// The segment of its user; empty when unmarked.
    pub segment: String,
    /// The class of task; empty when unmarked.
    pub task: String,
    /// The model asked for; empty when unknown.
    pub model: String,
    /// Its data classes; a provider must be cleared for all of them.
    pub data: Vec<String>,
    /// Why it may not be copied or moved at all, if so.
    pub barred: Option<Skip>,
    /// Whether it may be moved: the primary answers what is tied to it, in every stage.
    pub tie: Tie,
}

/// Whether somebody who is cleared for some data classes may have data of these: of all of them,
/// so that data of no class is everybody's, and a class that nobody knows is nobody's.
pub fn is_cleared(cleared: &[String], data: &[String]) -> bool {
    data.iter().all(|class| cleared.contains(class))
}

/// What a request is bound to by what its answer leaves behind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tie {
    /// Nothing: any cleared provider may answer it.
    #[default]
    None,
    /// The primary. It may be copied, and never moved.
    Primary,
}

/// What a rollout asks of the proxy now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lane {
    /// The rollout's name.
    pub rollout: Name,
    /// Which evidence the traffic belongs to; none while nothing moves.
    pub window: Option<Window>,
    /// Who serves.
    pub primary: Name,
    /// Who is under test.
    pub candidate: Name,
    /// The traffic it governs.
    pub slice: Slice,
    /// Narrows the traffic for the current stage.
    pub stage_slice: Slice,
    /// Parts of it that are watched by themselves.
    pub watched: Option<Watched>,
    /// What some stage has a gate on.
    pub gated: Vec<Metric>,
    /// What answers are compared by, besides the whole of them.
    pub compared: Compared,
    /// Traffic the candidate answers.
    pub serve: Share,
    /// Traffic for which the other side is asked too.
    pub mirror: Share,
    /// Traffic that the primary answers and is asked a second time.
    pub noise: Share,
    /// Data classes the candidate may see.
    pub cleared: Vec<String>,
    /// Share of pairs the judge sees.
    pub judge: Share,
    /// Operators' caps, those that the rollout has to do with.
    pub flags: Flags,
}

/// All that the proxy obeys. Never changed, only replaced.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// One for each rollout.
    pub lanes: Vec<Arc<Lane>>,
}

/// Where one request goes, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Position of the governing lane in the snapshot, if any.
    pub lane: Option<usize>,
    /// Who answers the caller.
    pub serve: Side,
    /// Whether the other side is asked too, or why not.
    pub mirror: Result<(), Skip>,
    /// Where its key fell, if lots were drawn at all.
    pub places: Option<Places>,
    /// The lot that drew its sides; none when they were no chance.
    pub lot: Option<Lot>,
    /// Whether the primary, which answers it, is asked a second time.
    pub again: bool,
    /// The smaller share under which its conversation began, where that decided.
    pub began: Option<Share>,
}

impl Snapshot {
    /// Whether any lane moves traffic, so that bodies have to be looked at.
    pub fn is_idle(&self) -> bool {
        self.lanes.iter().all(|lane| lane.window.is_none())
    }

    /// Lanes that move traffic.
    pub fn moving(&self) -> usize {
        self.lanes.iter().filter(|lane| lane.window.is_some()).count()
    }

    /// Routes one request: compliance first, then flags, then the stage's shares.
    ///
    /// Where a flag lowers a share no lot is drawn: the bets reckon with the stage's shares, and one
    /// side alone would be seen otherwise than they think. A pair is a pair whatever it was drawn by.
    pub fn route(&self, facts: &Facts) -> Route {
        let governs = |lane: &Arc<Lane>| {
            lane.slice.matches(&facts.feature, &facts.segment, &facts.task, &facts.model)
        };
        // A rollout that moves nothing stands in nobody's way.
        let moves = |lane: &Arc<Lane>| lane.window.is_some() && governs(lane);
        let index = self.lanes.iter().position(moves);
        let index = index.or_else(|| self.lanes.iter().position(governs));
        let no = |skip| Route {
            lane: index,
            serve: Side::Primary,
            mirror: Err(skip),
            places: None,
            lot: None,
            again: false,
            began: None,
        };
        let Some(lane) = index.and_then(|it| self.lanes.get(it)) else {
            return no(Skip::NoRollout);
        };
        let in_stage =
            lane.stage_slice.matches(&facts.feature, &facts.segment, &facts.task, &facts.model);
        if lane.window.is_none() || !in_stage {
            return no(Skip::NoRollout);
        }
        if let Some(skip) = facts.barred {
            return no(skip);
        }
        if !is_cleared(&lane.cleared, &facts.data) {
            return no(Skip::DataClass);
        }
        let places = lane.places(&facts.key);
        let free = facts.tie == Tie::None;
        let Caps { serve, mirror } = lane.shares(facts);
        let is_capped = (serve, mirror) != (lane.serve, lane.mirror);
        let served = free && places.serve < serve.basis_points();
        let mirror = match places.mirror {
            place if place < mirror.basis_points() => Ok(()),
            place if place < lane.mirror.basis_points() => Err(Skip::Flag),
            _ => Err(Skip::Share),
        };
        Route {
            lane: index,
            serve: if served { Side::Candidate } else { Side::Primary },
            mirror,
            places: Some(places),
            // Who answers what is tied was no chance, so what it shows stands for nobody else.
            lot: (free && !is_capped).then(|| facts.key.lot()),
            // What is tied to its answer must not leave another one behind.
            again: free && !is_capped && !served && lane.asks_again(&facts.key),
            began: None,
        }
    }
}

impl Lane {
    /// The stage's shares for a request, or what flags leave of them.
    pub fn shares(&self, facts: &Facts) -> Caps {
        let Caps { serve, mirror } = self.flags.caps(&self.rollout, &facts.feature, &facts.segment);
        Caps { serve: self.serve.min(serve), mirror: self.mirror.min(mirror) }
    }

    /// The watched slice that a request is in; empty for none.
    pub fn watched(&self, facts: &Facts) -> &str {
        let Facts { feature, segment, task, .. } = facts;
        self.watched.as_ref().map_or("", |it| it.of(feature, segment, task))
    }

    /// Whether the primary's noise is measured by a key. A salt of its own, so that this says
    /// nothing about who is served or copied.
    fn asks_again(&self, key: &Key) -> bool {
        !self.noise.is_none() && self.noise.includes("noise", key.as_str())
    }

    /// Where a key falls.
    ///
    /// Two salts, so that who is served says nothing about who is copied. All rollouts share
    /// the salt of copies: 1 % of one is inside 5 % of another.
    fn places(&self, key: &Key) -> Places {
        let serve = bucket(&format!("serve/{}", self.rollout), key.as_str());
        Places { serve, mirror: bucket("mirror", key.as_str()) }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::{prelude::*, sample::subsequence};

    use super::*;
    use crate::domain::Flag;

    fn share(basis_points: u16) -> Share {
        Share::from_basis_points(basis_points).unwrap()
    }

    fn snapshot(serve: u16, mirror: u16) -> Snapshot {
        let rollout: Name = "chat".parse().unwrap();
        let lane = Lane {
            window: Some(Window { rollout: rollout.clone(), attempt: 1, stage: 0 }),
            rollout,
            primary: "gpt".parse().unwrap(),
            candidate: "cheap".parse().unwrap(),
            slice: Slice { features: vec!["chat".to_owned()], ..Slice::default() },
            stage_slice: Slice::default(),
            watched: None,
            gated: Vec::new(),
            compared: Compared::default(),
            serve: share(serve),
            mirror: share(mirror),
            noise: Share::NONE,
            cleared: vec!["eu".to_owned()],
            judge: Share::ALL,
            flags: Flags::default(),
        };
        Snapshot { lanes: vec![Arc::new(lane)] }
    }

    fn facts(key: &str) -> Facts {
        Facts {
            key: Key::Request(key.to_owned()),
            feature: "chat".to_owned(),
            segment: String::new(),
            task: String::new(),
            model: String::new(),
            data: vec![],
            barred: None,
            tie: Tie::None,
        }
    }

    /// M8
    #[test]
    fn compliance_comes_before_every_share() {
        let all = snapshot(10_000, 10_000);
        let mut pii = facts("1");
        pii.data = vec!["eu".to_owned(), "pii".to_owned()];
        let route = all.route(&pii);
        assert_eq!((route.serve, route.mirror), (Side::Primary, Err(Skip::DataClass)));
        pii.data.pop();
        assert_eq!(all.route(&pii).serve, Side::Candidate);
    }

    proptest! {
        /// B-74: over all sets of classes, those that nobody lists among them.
        #[test]
        fn only_who_is_cleared_for_every_class_is_ever_asked(
            data in subsequence(vec!["eu", "pii", "internal", "unknown", ""], 0..=5),
            cleared in subsequence(vec!["eu", "pii", "internal", "pi", "EU"], 0..=5),
            (serve, mirror) in (0_u16..=10_000, 0_u16..=10_000),
            more in prop::sample::select(vec!["eu", "pii", "unknown"]),
        ) {
            let texts = |it: &[&str]| it.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>();
            let lane = (*snapshot(serve, mirror).lanes[0]).clone();
            let lane = Lane { cleared: texts(&cleared), ..lane };
            let snapshot = Snapshot { lanes: vec![Arc::new(lane)] };
            let route = |data: Vec<String>| snapshot.route(&Facts { data, ..facts("1") });
            let (with, without) = (route(texts(&data)), route(Vec::new()));
            let may = data.iter().all(|it| cleared.contains(it));
            let expected = if may { without.mirror } else { Err(Skip::DataClass) };
            prop_assert_eq!(with.mirror, expected);
            prop_assert!(may || (with.serve == Side::Primary && with.lot.is_none()));
            // One class more never lets anything pass that did not before.
            let larger = route(texts(&[data.as_slice(), &[more]].concat()));
            prop_assert!(larger.mirror.is_err() || with.mirror.is_ok());
        }
    }

    #[test]
    fn traffic_outside_the_slice_and_barred_requests_stay_on_the_primary() {
        let all = snapshot(10_000, 10_000);
        let mut other = facts("1");
        other.feature = "search".to_owned();
        assert_eq!(all.route(&other).mirror, Err(Skip::NoRollout));
        let mut barred = facts("1");
        barred.barred = Some(Skip::HostedTool);
        let route = all.route(&barred);
        assert_eq!((route.serve, route.mirror), (Side::Primary, Err(Skip::HostedTool)));
    }

    #[test]
    fn what_is_tied_to_the_primary_is_copied_and_never_moved() {
        let mut tied = facts("1");
        tied.tie = Tie::Primary;
        let route = snapshot(10_000, 10_000).route(&tied);
        assert_eq!((route.serve, route.mirror, route.lot), (Side::Primary, Ok(()), None));
    }

    #[test]
    fn a_lot_sticks_to_a_conversation_and_to_nothing_else() {
        let all = snapshot(5_000, 100);
        let lot = |key: Key| all.route(&Facts { key, ..facts("") }).lot;
        let [one, same, other] =
            ["c-1", "c-1", "c-2"].map(|it| lot(Key::Conversation(it.to_owned())));
        assert!(one == same && one != other && matches!(one, Some(Lot::Sticky(_))));
        assert_eq!(lot(Key::Request("c-1".to_owned())), Some(Lot::Once));
        let barred = Facts { barred: Some(Skip::Retry), ..facts("1") };
        assert_eq!(all.route(&barred).lot, None);
    }

    #[test]
    fn a_flag_lowers_what_a_request_sees_and_its_lot_stands_for_nothing() {
        let lane = (*snapshot(5_000, 1_000).lanes[0]).clone();
        let (serve, mirror) = (Some(share(1_000)), Some(share(100)));
        let (feature, segment) = (String::new(), "paid".to_owned());
        let name: Name = "paid".parse().unwrap();
        let flags =
            Flags::default().with(Flag { name, rollout: None, feature, segment, serve, mirror });
        let flagged = Snapshot { lanes: vec![Arc::new(Lane { flags, ..lane.clone() })] };
        let (plain, lower) = (Snapshot { lanes: vec![Arc::new(lane)] }, snapshot(1_000, 100));
        let mut skipped = 0;
        for key in 0..2_000 {
            let free = facts(&key.to_string());
            assert_eq!(flagged.route(&free), plain.route(&free));
            let paid = Facts { segment: "paid".to_owned(), ..free };
            let (is, would) = (flagged.route(&paid), lower.route(&paid));
            assert_eq!((is.serve, is.mirror.is_ok()), (would.serve, would.mirror.is_ok()));
            assert_eq!(is.lot, None);
            skipped += u32::from(is.mirror == Err(Skip::Flag));
        }
        assert!((100..300).contains(&skipped), "{skipped} of 2000 copies at 10% less 1%");
    }

    #[test]
    fn a_stage_narrows_the_slice_of_its_rollout() {
        let lane = (*snapshot(10_000, 10_000).lanes[0]).clone();
        let stage_slice = Slice { segments: vec!["free".to_owned()], ..Slice::default() };
        let narrow = Snapshot { lanes: vec![Arc::new(Lane { stage_slice, ..lane.clone() })] };
        let free = Facts { segment: "free".to_owned(), ..facts("1") };
        assert_eq!(narrow.route(&free).serve, Side::Candidate);
        let route = narrow.route(&facts("1"));
        assert_eq!((route.serve, route.mirror), (Side::Primary, Err(Skip::NoRollout)));
        let still = Snapshot { lanes: vec![Arc::new(Lane { window: None, ..lane })] };
        let route = still.route(&facts("1"));
        assert_eq!((route.serve, route.mirror), (Side::Primary, Err(Skip::NoRollout)));
    }

    #[test]
    fn a_key_is_inside_every_share_above_its_place_and_no_other() {
        let Places { serve, mirror } = snapshot(0, 0).route(&facts("1")).places.unwrap();
        let at = snapshot(serve, mirror).route(&facts("1"));
        assert_eq!((at.serve, at.mirror), (Side::Primary, Err(Skip::Share)));
        let above = snapshot(serve + 1, mirror + 1).route(&facts("1"));
        assert_eq!((above.serve, above.mirror), (Side::Candidate, Ok(())));
    }

    /// M16
    #[test]
    fn the_primary_is_asked_twice_by_a_lot_of_its_own_where_it_answers_what_is_not_tied() {
        let lane =
            |noise| Lane { noise: share(noise), ..(*snapshot(5_000, 5_000).lanes[0]).clone() };
        let [low, high] = [1_000, 4_000].map(|it| Snapshot { lanes: vec![Arc::new(lane(it))] });
        let (mut asked, mut copied) = (0, 0);
        for key in 0..20_000 {
            let facts = facts(&key.to_string());
            let (a, b) = (low.route(&facts), high.route(&facts));
            assert!(!a.again || b.again, "raising it only adds keys");
            assert!(!b.again || b.serve == Side::Primary);
            assert!(!high.route(&Facts { tie: Tie::Primary, ..facts }).again);
            asked += u32::from(b.again);
            copied += u32::from(b.again && b.mirror.is_ok());
        }
        for (count, expected) in [(asked, 4_000), (copied, 2_000)] {
            assert!(u32::abs_diff(count, expected) < 300, "{count} of {expected}");
        }
        let barred = Facts { barred: Some(Skip::Retry), ..facts("1") };
        assert!(!Snapshot { lanes: vec![Arc::new(lane(10_000))] }.route(&barred).again);
    }

    #[test]
    fn nothing_has_to_be_looked_at_while_no_rollout_moves() {
        let moving = snapshot(0, 100);
        let still = Arc::new(Lane { window: None, ..(*moving.lanes[0]).clone() });
        assert!(Snapshot::default().is_idle() && Snapshot { lanes: vec![still] }.is_idle());
        assert!(!moving.is_idle());
    }

    #[test]
    fn every_reason_for_no_copy_has_a_name_of_its_own() {
        let names: BTreeSet<&str> = Skip::ALL.into_iter().map(Skip::as_str).collect();
        assert_eq!(names.len(), Skip::ALL.len());
        assert_eq!([Skip::Share, Skip::DataClass].map(Skip::as_str), ["share", "data_class"]);
    }

    /// V21
    #[test]
    fn a_rollout_that_went_back_stands_in_nobodys_way() {
        let (old, new) = (snapshot(10_000, 10_000), snapshot(10_000, 10_000));
        let still = Arc::new(Lane { window: None, ..(*old.lanes[0]).clone() });
        let both = Snapshot { lanes: vec![still, Arc::clone(&new.lanes[0])] };
        let route = both.route(&facts("1"));
        assert_eq!((route.lane, route.serve, route.mirror), (Some(1), Side::Candidate, Ok(())));
    }

    #[test]
    fn serving_and_copying_are_independent_and_nested() {
        let (low, high) = (snapshot(2_000, 1_000), snapshot(5_000, 5_000));
        let (mut served, mut copied, mut both) = (0, 0, 0);
        for key in 0..20_000 {
            let facts = facts(&key.to_string());
            let (a, b) = (low.route(&facts), high.route(&facts));
            assert!(a.serve == Side::Primary || b.serve == Side::Candidate);
            assert!(a.mirror.is_err() || b.mirror.is_ok());
            served += u32::from(b.serve == Side::Candidate);
            copied += u32::from(b.mirror.is_ok());
            both += u32::from(b.serve == Side::Candidate && b.mirror.is_ok());
        }
        for (count, expected) in [(served, 10_000), (copied, 10_000), (both, 5_000)] {
            assert!(u32::abs_diff(count, expected) < 400, "{count} of {expected}");
        }
    }
}
