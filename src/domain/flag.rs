//! Flags: operators' caps on what a candidate may see, for some traffic. They only ever lower.

use std::fmt;

use super::{Name, Share, Slice};

/// A cap on what candidates may see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flag {
    /// Its name; another flag of that name takes its place.
    pub name: Name,
    /// The rollout it is about; none is every one.
    pub rollout: Option<Name>,
    /// The feature it is about; empty is every one.
    pub feature: String,
    /// The segment it is about; empty is every one.
    pub segment: String,
    /// Most traffic that a candidate answers; none where it says nothing of that.
    pub serve: Option<Share>,
    /// Most traffic for which the other side is asked too; none where it says nothing of that.
    pub mirror: Option<Share>,
}

/// Most that a candidate may do; no share is off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caps {
    /// Traffic it answers.
    pub serve: Share,
    /// Traffic for which the other side is asked too.
    pub mirror: Share,
}

/// All flags in force, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Flags(Vec<Flag>);

impl Caps {
    /// No cap at all.
    pub const NONE: Self = Self { serve: Share::ALL, mirror: Share::ALL };

    /// The lower of both, for each share.
    fn and(self, other: Self) -> Self {
        Self { serve: self.serve.min(other.serve), mirror: self.mirror.min(other.mirror) }
    }

    fn is_within(self, other: Self) -> bool {
        self.and(other) == self
    }
}

impl Flag {
    fn covers(&self, rollout: &Name, feature: &str, segment: &str) -> bool {
        self.rollout.as_ref().is_none_or(|it| it == rollout)
            && (self.feature.is_empty() || self.feature == feature)
            && (self.segment.is_empty() || self.segment == segment)
    }

    /// How much it says about whom it is about.
    fn narrowness(&self) -> usize {
        usize::from(self.rollout.is_some())
            + usize::from(!self.feature.is_empty())
            + usize::from(!self.segment.is_empty())
    }
}

impl Flags {
    /// Most flags there may be.
    pub const LEN_MAX: usize = 32;

    /// With one more, or another one of its name.
    #[must_use]
    pub fn with(&self, flag: Flag) -> Self {
        let mut flags = self.without(&flag.name).0;
        flags.push(flag);
        flags.sort_by(|a, b| a.name.cmp(&b.name));
        Self(flags)
    }

    /// Without the one of that name.
    #[must_use]
    pub fn without(&self, name: &Name) -> Self {
        Self(self.0.iter().filter(|it| it.name != *name).cloned().collect())
    }

    /// Those that a rollout has to do with.
    #[must_use]
    pub fn of(&self, rollout: &Name) -> Self {
        let concerns = |it: &&Flag| it.rollout.as_ref().is_none_or(|it| it == rollout);
        Self(self.0.iter().filter(concerns).cloned().collect())
    }

    /// What holds for a request. For each share, of the flags that say something of it: off where
    /// any is off, else what the narrowest one says, and among equally narrow ones the lowest.
    pub fn caps(&self, rollout: &Name, feature: &str, segment: &str) -> Caps {
        let cap = |says: fn(&Flag) -> Option<Share>| {
            let about = self.0.iter().filter(|it| it.covers(rollout, feature, segment));
            let said = about.filter_map(|it| Some((it.narrowness(), says(it)?)));
            let narrowest = said.clone().map(|(narrowness, _)| narrowness).max();
            let counts = |(narrowness, share): (usize, Share)| {
                (share.is_none() || Some(narrowness) == narrowest).then_some(share)
            };
            said.filter_map(counts).min().unwrap_or(Share::ALL)
        };
        Caps { serve: cap(|it| it.serve), mirror: cap(|it| it.mirror) }
    }

    /// The most that any request of a rollout may see in a stage that narrows its slice.
    pub fn most(&self, rollout: &Name, slice: &Slice, stage: &Slice) -> Caps {
        let features = marks(&slice.features, &stage.features);
        let segments = marks(&slice.segments, &stage.segments);
        let every = features.iter().flat_map(|it| segments.iter().map(move |other| (*it, *other)));
        let all = every.map(|(feature, segment)| self.caps(rollout, feature, segment));
        all.reduce(|a, b| Caps { serve: a.serve.max(b.serve), mirror: a.mirror.max(b.mirror) })
            .unwrap_or(Caps::NONE)
    }

    /// Whether nobody may see more than under the other ones.
    ///
    /// Tried for everybody whom any flag tells apart, and one whom none does.
    pub fn are_within(&self, before: &Self) -> bool {
        let every = || self.0.iter().chain(&before.0);
        let nobody = Name::every();
        let rollouts = || every().filter_map(|it| it.rollout.as_ref()).chain([&nobody]);
        let features = || every().map(|it| it.feature.as_str()).chain([""]);
        let segments = || every().map(|it| it.segment.as_str()).chain([""]);
        rollouts().all(|rollout| {
            features().all(|feature| {
                segments().all(|segment| {
                    let caps = |flags: &Self| flags.caps(rollout, feature, segment);
                    caps(self).is_within(caps(before))
                })
            })
        })
    }
}

/// The marks that both lists let in, an empty one all of them: then one that no flag names is there
/// for those that none does.
fn marks<'a>(slice: &'a [String], stage: &'a [String]) -> Vec<&'a str> {
    let (list, other) = if stage.is_empty() { (slice, stage) } else { (stage, slice) };
    if list.is_empty() {
        return vec![""];
    }
    let fits = |it: &&String| other.is_empty() || other.contains(*it);
    list.iter().filter(fits).map(String::as_str).collect()
}

impl fmt::Display for Flag {
    /// Whom it is about, and what they may see.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, rollout, feature, segment, serve, mirror } = self;
        write!(f, "{name}: ")?;
        match rollout {
            Some(rollout) => write!(f, "`{rollout}`")?,
            None => f.write_str("every rollout")?,
        }
        for (mark, value) in [("feature", feature), ("segment", segment)] {
            if !value.is_empty() {
                write!(f, ", {mark} `{value}`")?;
            }
        }
        let caps = [("serves", serve), ("mirrors", mirror)];
        let said = caps.iter().filter_map(|(verb, cap)| Some((verb, cap.as_ref()?)));
        for (index, (verb, share)) in said.enumerate() {
            write!(f, "{} {verb} at most {share}", if index == 0 { ':' } else { ',' })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn share(basis_points: u16) -> Share {
        Share::from_basis_points(basis_points).unwrap()
    }

    fn name(text: &str) -> Name {
        text.parse().unwrap()
    }

    fn flag(called: &str, (rollout, feature, segment): (&str, &str, &str), serve: u16) -> Flag {
        Flag {
            name: name(called),
            rollout: Some(rollout).filter(|it| !it.is_empty()).map(name),
            feature: feature.to_owned(),
            segment: segment.to_owned(),
            serve: Some(share(serve)),
            mirror: None,
        }
    }

    fn flags(of: impl IntoIterator<Item = Flag>) -> Flags {
        of.into_iter().fold(Flags::default(), |flags, it| flags.with(it))
    }

    fn serves(flags: &Flags, (rollout, feature, segment): (&str, &str, &str)) -> u16 {
        flags.caps(&name(rollout), feature, segment).serve.basis_points()
    }

    #[test]
    fn the_narrowest_one_wins_and_off_always_wins() {
        let wide = [flag("all", ("", "", ""), 1_000), flag("chat", ("chat", "", ""), 5_000)];
        let narrow =
            [flag("paid", ("chat", "", "paid"), 200), flag("help", ("", "help", ""), 7_000)];
        let set = flags(wide.clone().into_iter().chain(narrow));
        assert_eq!(serves(&set, ("other", "", "free")), 1_000);
        assert_eq!(serves(&set, ("chat", "", "free")), 5_000);
        assert_eq!(serves(&set, ("chat", "", "paid")), 200);
        assert_eq!(serves(&set, ("chat", "help", "free")), 5_000, "equally narrow: the lower one");
        assert_eq!(serves(&set, ("chat", "help", "paid")), 200);
        let off = set.with(flag("stop", ("", "", ""), 0));
        assert_eq!(serves(&off, ("chat", "", "paid")), 0);
        assert_eq!(off.without(&name("stop")), set);
        assert_eq!(flags([]).caps(&name("chat"), "", ""), Caps::NONE);
    }

    #[test]
    fn one_share_may_be_off_while_the_other_is_not() {
        let mut only = flag("no-copies", ("", "", ""), 10_000);
        only.mirror = Some(Share::NONE);
        let set = flags([only, flag("chat", ("chat", "", ""), 300)]);
        let caps = set.caps(&name("chat"), "", "");
        assert_eq!((caps.serve, caps.mirror), (share(300), Share::NONE));
    }

    #[test]
    fn a_flag_that_says_nothing_of_a_share_lifts_no_other() {
        let calm = flag("calm", ("", "", ""), 100);
        let mut quiet = flag("quiet", ("", "search", ""), 0);
        (quiet.serve, quiet.mirror) = (None, Some(share(500)));
        let caps = |set: &Flags| set.caps(&name("chat"), "search", "");
        let both = flags([calm.clone(), quiet.clone()]);
        assert_eq!(caps(&both), Caps { serve: share(100), mirror: share(500) });
        assert!(both.are_within(&flags([calm.clone()])));
        assert_eq!(calm.to_string(), "calm: every rollout: serves at most 1%");
        assert_eq!(quiet.to_string(), "quiet: every rollout, feature `search`: mirrors at most 5%");
        quiet.serve = Some(Share::ALL);
        assert_eq!(caps(&flags([calm, quiet])).serve, Share::ALL, "said, it is what counts");
    }

    #[test]
    fn the_most_is_what_the_least_capped_of_its_traffic_may_see() {
        let set =
            flags([flag("search", ("", "search", ""), 0), flag("paid", ("", "", "paid"), 100)]);
        let list = |of: &[&str]| of.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>();
        let slice = |features: &[&str], segments: &[&str]| {
            let (features, segments) = (list(features), list(segments));
            Slice { features, segments, ..Slice::default() }
        };
        let most =
            |all: Slice, stage: Slice| set.most(&name("chat"), &all, &stage).serve.basis_points();
        let any = || slice(&[], &[]);
        assert_eq!([most(any(), any()), most(slice(&["search"], &[]), any())], [10_000, 0]);
        assert_eq!(most(slice(&["search", "help"], &[]), any()), 10_000);
        assert_eq!(most(slice(&["search", "help"], &[]), slice(&["search"], &[])), 0);
        assert_eq!(most(slice(&["help"], &[]), slice(&[], &["paid"])), 100);
    }

    #[test]
    fn lower_is_lower_for_everybody() {
        let before = flags([flag("all", ("", "", ""), 1_000)]);
        let with = |it: Flag| before.with(it);
        assert!(with(flag("all", ("", "", ""), 999)).are_within(&before));
        assert!(with(flag("paid", ("", "", "paid"), 500)).are_within(&before));
        assert!(with(flag("stop", ("x", "", ""), 0)).are_within(&before));
        assert!(!with(flag("paid", ("", "", "paid"), 2_000)).are_within(&before));
        assert!(!with(flag("all", ("", "", "paid"), 10)).are_within(&before), "others lost a cap");
        assert!(!Flags::default().are_within(&before) && before.are_within(&Flags::default()));
        assert!(before.are_within(&before));
    }

    fn any_flag() -> impl Strategy<Value = Flag> {
        let mark = || prop::sample::select(vec!["", "a", "b"]);
        let caps = || prop::option::of(prop::sample::select(vec![0, 100, 5_000, 10_000]));
        let called = prop::sample::select(vec!["w", "x", "y", "z"]);
        (called, mark(), mark(), mark(), caps(), caps()).prop_map(|it| {
            let (called, rollout, feature, segment, serve, mirror) = it;
            let flag = flag(called, (rollout, feature, segment), 0);
            Flag { serve: serve.map(share), mirror: mirror.map(share), ..flag }
        })
    }

    proptest! {
        #[test]
        fn a_set_is_within_another_exactly_where_no_request_sees_more(
            before in prop::collection::vec(any_flag(), 0..5),
            after in prop::collection::vec(any_flag(), 0..5),
        ) {
            let (before, after) = (flags(before), flags(after));
            let marks = ["-", "a", "b"];
            let within = marks.iter().all(|rollout| marks.iter().all(|feature| {
                marks.iter().all(|segment| {
                    let rollout = if *rollout == "-" { Name::every() } else { name(rollout) };
                    let caps = |it: &Flags| it.caps(&rollout, feature, segment);
                    caps(&after).is_within(caps(&before))
                })
            }));
            prop_assert_eq!(after.are_within(&before), within);
            for rollout in ["a", "b"] {
                let caps = |it: &Flags| it.caps(&name(rollout), "a", "b");
                prop_assert_eq!(caps(&after.of(&name(rollout))), caps(&after));
            }
        }
    }
}
