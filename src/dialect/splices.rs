//! A body with some of its parts replaced: what none of them names stays byte for byte.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    mem,
    ops::Range,
};

use serde_json::value::RawValue;

use super::{
    adapt::Unfit,
    fields::{Fields, Items, span},
};

/// An object or a list of a body: what is in it, and where that stands.
#[derive(Debug)]
pub(super) struct Container<'a> {
    /// Where its bracket opens.
    start: usize,
    pub(super) items: Vec<Item<'a>>,
}

/// A member of an object, or an item of a list.
#[derive(Debug)]
pub(super) struct Item<'a> {
    /// The name of a member; empty in a list.
    pub(super) name: String,
    /// Where that stands, with its quotes.
    pub(super) key: Range<usize>,
    pub(super) value: &'a RawValue,
    /// Where the value stands.
    pub(super) at: Range<usize>,
}

impl<'a> Container<'a> {
    /// The body itself, if it is an object with every name once.
    pub(super) fn top(body: &'a [u8]) -> Option<Self> {
        let start = body.iter().position(|byte| *byte == b'{')?;
        Some(Self::of_members(body, start, Fields::parse(body)?))
    }

    /// What stands there in the body, if it is an object with every name once.
    pub(super) fn object(body: &'a [u8], at: &Range<usize>) -> Option<Self> {
        Some(Self::of_members(body, at.start, Fields::parse(body.get(at.clone())?)?))
    }

    /// What stands there in the body, if it is a list that is not too long.
    pub(super) fn list(body: &'a [u8], at: &Range<usize>) -> Option<Self> {
        let Items(values) = serde_json::from_slice(body.get(at.clone())?).ok()?;
        let items = values.into_iter().map(|value| {
            let at = span(body, value);
            Item { name: String::new(), key: at.start..at.start, value, at }
        });
        Some(Self { start: at.start, items: items.collect() })
    }

    fn of_members(body: &'a [u8], start: usize, fields: Fields<'a>) -> Self {
        let mut end = start + 1;
        let items = fields.into_members().into_iter().map(|(name, value)| {
            let at = span(body, value);
            let key = key(body, end..at.start);
            end = at.end;
            Item { name, key, value, at }
        });
        Self { start, items: items.collect() }
    }

    /// A member by its name.
    pub(super) fn get(&self, name: &str) -> Option<&Item<'a>> {
        self.items.iter().find(|it| it.name == name)
    }

    /// A member that is a text.
    pub(super) fn text(&self, name: &str) -> Option<String> {
        self.get(name)?.text()
    }

    /// Whether there is such a member other than `null`, an empty text or an empty list.
    pub(super) fn says(&self, name: &str) -> bool {
        let empty = |it: &str| {
            matches!(it, "null" | "\"\"")
                || it.strip_prefix('[').is_some_and(|it| it.trim_ascii_start() == "]")
        };
        self.get(name).is_some_and(|it| !empty(it.value.get()))
    }
}

impl Item<'_> {
    /// The value, if it is a text.
    pub(super) fn text(&self) -> Option<String> {
        serde_json::from_str(self.value.get()).ok()
    }
}

/// Where the name of a member stands between the end of the value before it and its own.
fn key(body: &[u8], between: Range<usize>) -> Range<usize> {
    let text = body.get(between.clone()).unwrap_or_default();
    let quote = |byte: &u8| *byte == b'"';
    let start = text.iter().position(quote).unwrap_or(text.len());
    let end = text.iter().rposition(quote).map_or(text.len(), |it| it + 1);
    between.start + start..between.start + end
}

/// What is replaced in a body. A replacement inside another one is void.
#[derive(Debug)]
pub(super) struct Splices<'a> {
    pub(super) body: &'a [u8],
    /// Where the body's own brace opens.
    top: usize,
    replaced: Vec<(Range<usize>, String)>,
    /// By where they open.
    containers: BTreeMap<usize, Changes>,
}

/// What goes out of an object or a list, and what comes in.
#[derive(Debug, Default)]
struct Changes {
    /// Where its items stand, names included; empty as long as none of them goes.
    spans: Vec<Range<usize>>,
    gone: BTreeSet<usize>,
    added: Vec<String>,
}

impl<'a> Splices<'a> {
    pub(super) fn new(body: &'a [u8]) -> Result<Self, Unfit> {
        let top = body.iter().position(|byte| *byte == b'{').ok_or(Unfit::OtherBody)?;
        Ok(Self { body, top, replaced: Vec::new(), containers: BTreeMap::new() })
    }

    /// Gives a member at the top this value, wherever it stands or if it is not there yet.
    pub(super) fn set(&mut self, name: &str, span: Option<Range<usize>>, value: &str) {
        match span {
            Some(span) => self.replace(span, value),
            None => self.add_at(self.top, name, value),
        }
    }

    /// Adds a member that an object does not have.
    pub(super) fn add(&mut self, to: &Container<'_>, name: &str, value: &str) {
        self.add_at(to.start, name, value);
    }

    fn add_at(&mut self, start: usize, name: &str, value: &str) {
        let changes = self.containers.entry(start).or_default();
        changes.added.push(format!("\"{name}\":{value}"));
    }

    /// Takes the item with this position out of an object or a list.
    pub(super) fn take_out(&mut self, of: &Container<'_>, index: usize) {
        let changes = self.containers.entry(of.start).or_default();
        if changes.spans.is_empty() {
            changes.spans = of.items.iter().map(|it| it.key.start..it.at.end).collect();
        }
        changes.gone.insert(index);
    }

    pub(super) fn replace(&mut self, span: Range<usize>, text: impl Into<String>) {
        self.replaced.push((span, text.into()));
    }

    /// The body with all of it replaced.
    pub(super) fn apply(mut self) -> Result<Vec<u8>, Unfit> {
        for (start, changes) in mem::take(&mut self.containers) {
            self.settle(start, &changes);
        }
        // What is put in goes before what is taken out there, and the outer before the inner.
        self.replaced.sort_by_key(|(span, _)| (span.start, !span.is_empty(), Reverse(span.end)));
        let mut adapted = Vec::with_capacity(self.body.len());
        let mut done = 0;
        for (span, text) in &self.replaced {
            if span.start < done {
                continue;
            }
            adapted.extend_from_slice(self.body.get(done..span.start).ok_or(Unfit::OtherBody)?);
            adapted.extend_from_slice(text.as_bytes());
            done = span.end;
        }
        adapted.extend_from_slice(self.body.get(done..).ok_or(Unfit::OtherBody)?);
        Ok(adapted)
    }

    /// Each item goes with the comma before it, and those before the first that stays with the
    /// one behind them.
    fn settle(&mut self, start: usize, Changes { spans, gone, added }: &Changes) {
        let first = (0..spans.len()).find(|it| !gone.contains(it));
        if !added.is_empty() {
            let rest = self.body.get(start + 1..).unwrap_or_default().trim_ascii_start();
            let alone = if spans.is_empty() { rest.starts_with(b"}") } else { first.is_none() };
            let comma = if alone { "" } else { "," };
            self.replace(start + 1..start + 1, added.join(",") + comma);
        }
        let (Some(head), Some(tail)) = (spans.first(), spans.last()) else { return };
        let Some(first) = first else { return self.replace(head.start..tail.end, "") };
        if let Some(stays) = spans.get(first).filter(|_| 0 < first) {
            self.replace(head.start..stays.start, "");
        }
        for (index, pair) in spans.windows(2).enumerate() {
            if let [before, it] = pair
                && first <= index
                && gone.contains(&(index + 1))
            {
                self.replace(before.end..it.end, "");
            }
        }
    }
}
