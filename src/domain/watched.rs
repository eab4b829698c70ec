//! Watched slices: parts of a rollout's traffic that every gate also looks at by themselves.
//!
//! A [`Slice`] says which requests a rollout governs. A *watched* slice is a part of those, told
//! apart by one mark; averages over all traffic hide what is broken in a part of it.

use std::collections::HashSet;

use super::Slice;

/// Most slices of a plan: each takes its part of the chance of a false alarm.
const VALUES_MAX: usize = 8;
/// Most bytes of a value.
const VALUE_LEN_MAX: usize = 128;

/// What tells watched slices apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// The feature of the application.
    Feature,
    /// The segment of its user.
    Segment,
    /// The class of task.
    Task,
}

/// The slices that are watched by themselves. Requests that carry none of the values count in
/// all traffic alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watched {
    /// The mark of a request that says which of them it is in.
    pub by: Mark,
    /// Their values of the mark, which are their names too: 1 to 8, distinct.
    pub values: Vec<String>,
}

impl Mark {
    /// Every mark.
    pub const ALL: [Self; 3] = [Self::Feature, Self::Segment, Self::Task];

    /// The name in plans.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Feature => "feature",
            Self::Segment => "segment",
            Self::Task => "task",
        }
    }

    /// The mark of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|it| it.as_str() == name)
    }
}

impl Watched {
    /// The watched slice of a request with these marks; empty for none.
    pub fn of(&self, feature: &str, segment: &str, task: &str) -> &str {
        let mark = match self.by {
            Mark::Feature => feature,
            Mark::Segment => segment,
            Mark::Task => task,
        };
        self.values.iter().find(|it| *it == mark).map_or("", String::as_str)
    }

    /// What is wrong with it, for a rollout that governs a slice.
    pub(super) fn fault(&self, governed: &Slice) -> Option<String> {
        let by = self.by.as_str();
        if self.values.is_empty() || VALUES_MAX < self.values.len() {
            return Some(format!("watches 1 to {VALUES_MAX} slices, not {}", self.values.len()));
        }
        let fits = |it: &String| {
            (1..=VALUE_LEN_MAX).contains(&it.len()) && !it.chars().any(char::is_control)
        };
        if !self.values.iter().all(fits) {
            return Some(format!("a {by} has 1 to {VALUE_LEN_MAX} printable bytes"));
        }
        let mut seen = HashSet::new();
        if let Some(twice) = self.values.iter().find(|it| !seen.insert(*it)) {
            return Some(format!("names {by} `{twice}` twice"));
        }
        let within = match self.by {
            Mark::Feature => &governed.features,
            Mark::Segment => &governed.segments,
            Mark::Task => &governed.tasks,
        };
        let outside = self.values.iter().find(|it| !within.is_empty() && !within.contains(it));
        outside.map(|it| format!("names {by} `{it}`, which the rollout does not govern"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watched(values: &[&str]) -> Watched {
        Watched { by: Mark::Task, values: values.iter().map(|it| (*it).to_owned()).collect() }
    }

    #[test]
    fn a_request_is_in_the_slice_that_its_mark_names_or_in_none() {
        let watched = watched(&["tools", "text"]);
        assert_eq!(watched.of("text", "text", "tools"), "tools");
        assert_eq!(watched.of("tools", "", "Tools"), "");
        assert_eq!(watched.of("", "", ""), "");
    }

    #[test]
    fn what_cannot_be_watched_is_told_by_its_name() {
        let fault = |it: &[&str], tasks: &[&str]| {
            let tasks = tasks.iter().map(|it| (*it).to_owned()).collect();
            watched(it).fault(&Slice { tasks, ..Slice::default() })
        };
        let long = "x".repeat(129);
        for (values, tasks, part) in [
            (&[][..], &[][..], "1 to 8 slices, not 0"),
            (&["a", "b", "c", "d", "e", "f", "g", "h", "i"], &[], "not 9"),
            (&[""], &[], "1 to 128 printable bytes"),
            (&["a\nb"], &[], "printable"),
            (&[long.as_str()], &[], "printable"),
            (&["a", "b", "a"], &[], "task `a` twice"),
            (&["a", "b"], &["a"], "task `b`, which the rollout does not govern"),
        ] {
            let told = fault(values, tasks).unwrap();
            assert!(told.contains(part), "{told}");
        }
        assert_eq!(fault(&["a", "b"], &[]), None);
        assert_eq!(fault(&["a", "b"], &["b", "a", "c"]), None);
    }
}
