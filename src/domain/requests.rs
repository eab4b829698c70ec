//! Idempotency keys: what was asked once is not done twice.

use std::collections::{BTreeMap, VecDeque};

use super::Event;

/// Keys one rollout remembers. The oldest is forgotten for the next one, however young it is: a
/// pipeline that asks again does so within minutes and a few steps.
const KEYS_LEN_MAX: usize = 1_000;

/// Keys that were used, each with what it did.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Requests {
    events: BTreeMap<String, Event>,
    /// Oldest first; the same keys.
    order: VecDeque<String>,
}

impl Requests {
    /// Remembers what a key did. The empty key is none.
    pub fn insert(&mut self, key: &str, event: &Event) {
        if key.is_empty() {
            return;
        }
        if self.events.insert(key.to_owned(), event.clone()).is_none() {
            self.order.push_back(key.to_owned());
        }
        if KEYS_LEN_MAX < self.order.len()
            && let Some(oldest) = self.order.pop_front()
        {
            self.events.remove(&oldest);
        }
    }

    /// What a key did.
    pub fn get(&self, key: &str) -> Option<&Event> {
        self.events.get(key)
    }

    /// Every key with what it did, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Event)> {
        self.order.iter().filter_map(|key| Some((key.as_str(), self.events.get(key)?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_thousand_keys_are_remembered() {
        let mut requests = Requests::default();
        requests.insert("", &Event::Overdue);
        for number in 0..=KEYS_LEN_MAX {
            requests.insert(&number.to_string(), &Event::Overdue);
        }
        assert_eq!(requests.iter().count(), KEYS_LEN_MAX);
        assert_eq!((requests.get("0"), requests.get("")), (None, None));
        assert_eq!(requests.get("1"), Some(&Event::Overdue));
        assert_eq!(requests.iter().next(), Some(("1", &Event::Overdue)));
    }

    #[test]
    fn a_key_used_again_keeps_its_place_and_takes_the_newer_meaning() {
        let mut requests = Requests::default();
        for (key, event) in [("a", Event::Overdue), ("b", Event::Overdue), ("a", Event::Resumed)] {
            requests.insert(key, &event);
        }
        let all: Vec<_> = requests.iter().collect();
        assert_eq!(all, [("a", &Event::Resumed), ("b", &Event::Overdue)]);
    }
}
