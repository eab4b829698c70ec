//! Tables of the file: every key is asked for by name, and what nobody asked for is a fault.

use std::{cell::RefCell, collections::BTreeSet, ops::RangeInclusive};

use toml::{
    Spanned,
    de::{DeInteger, DeTable, DeValue},
};

use super::{
    faults::{Report, Shown, Spot},
    form::{Form, Unit},
};

/// One table, and which keys of it have been asked for.
#[derive(Debug)]
pub(super) struct Table<'a> {
    report: &'a Report<'a>,
    entries: &'a DeTable<'a>,
    path: String,
    spot: Option<Spot>,
    known: RefCell<BTreeSet<&'static str>>,
}

/// A text and where it stands.
pub(super) type Text<'a> = (&'a str, Spot);

impl<'a> Table<'a> {
    /// The whole file.
    pub(super) fn top(report: &'a Report<'a>, entries: &'a DeTable<'a>) -> Self {
        Self { report, entries, path: String::new(), spot: None, known: RefCell::default() }
    }

    /// Where the table itself stands.
    pub(super) fn spot(&self) -> Option<&Spot> {
        self.spot.as_ref()
    }

    /// Where the value of a key stands; the table itself when it has no such key.
    pub(super) fn spot_of(&self, key: &str) -> Option<Spot> {
        let entry = self.entries.get_key_value(key);
        entry.map(|(key, value)| spot(key, value)).or_else(|| self.spot.clone())
    }

    /// Line of the table, from 1.
    pub(super) fn line(&self) -> usize {
        self.spot.as_ref().map_or(1, |it| self.report.line(it.span.start))
    }

    /// Whether the key is written.
    pub(super) fn has(&self, key: &str) -> bool {
        self.entries.contains_key(key)
    }

    /// Whether the value of a key is this word, in place of what it may be else.
    pub(super) fn is_word(&self, key: &'static str, word: &str) -> bool {
        self.value(key).and_then(DeValue::as_str) == Some(word)
    }

    /// Adds a fault about the value of a key: `problem` follows the key's name.
    pub(super) fn fault(&self, key: &str, problem: &str, remedy: impl Into<String>) {
        self.fault_at(self.spot_of(key).as_ref(), key, problem, remedy);
    }

    /// Adds a fault about a key at another spot than that of its value.
    pub(super) fn fault_at(
        &self,
        spot: Option<&Spot>,
        key: &str,
        problem: &str,
        remedy: impl Into<String>,
    ) {
        self.report.add(spot, format!("`{key}`{} {problem}", self.within()), remedy);
    }

    /// Adds a fault about a value that must not be shown.
    pub(super) fn fault_masked(&self, key: &str, problem: &str, remedy: impl Into<String>) {
        let spot = self.spot_of(key).map(|it| Spot { shown: Shown::Masked, ..it });
        self.fault_at(spot.as_ref(), key, problem, remedy);
    }

    /// Adds a fault when a key that is needed is not written.
    pub(super) fn need(&self, key: &'static str, remedy: &str) {
        if !self.has(key) {
            self.report.add(self.spot(), format!("`{key}` is missing{}", self.within()), remedy);
        }
    }

    /// Adds a fault for every key nobody asked for. Call it last.
    pub(super) fn close(&self) {
        let known = self.known.borrow();
        for (key, _) in self.entries.iter().filter(|(it, _)| !known.contains(&**it.get_ref())) {
            let remedy = nearest(key.get_ref(), known.iter().copied()).map_or_else(
                || format!("known here: {}", listed(known.iter().copied())),
                |near| format!("did you mean `{near}`?"),
            );
            let problem = format!("unknown key `{}`{}", key.get_ref(), self.within());
            let spot = Spot { span: key.span(), shown: Shown::Plainly };
            self.report.add(Some(&spot), problem, remedy);
        }
    }

    /// A text of a form.
    pub(super) fn text<T>(&self, key: &'static str, form: &Form<T>) -> Option<T> {
        let text = self.raw(key, form.name, form.remedy)?;
        let value = (form.read)(text);
        if value.is_none() {
            self.fault(key, &format!("is not {}", form.name), form.remedy);
        }
        value
    }

    /// A text of any form; `name` and `remedy` are for a value that is none.
    pub(super) fn raw(&self, key: &'static str, name: &str, remedy: &str) -> Option<&'a str> {
        let value = self.value(key)?;
        let text = value.as_str();
        if text.is_none() {
            self.wrong_type(key, value, name, remedy);
        }
        text
    }

    /// One of a few words.
    pub(super) fn word<T: Copy>(
        &self,
        key: &'static str,
        words: &[(&'static str, T)],
    ) -> Option<T> {
        let names = || words.iter().map(|(name, _)| *name);
        let remedy = format!("it is one of {}", listed(names()));
        let text = self.raw(key, "a text", &remedy)?;
        let found = words.iter().find(|(name, _)| *name == text).map(|(_, value)| *value);
        if found.is_none() {
            let near = nearest(text, names());
            let remedy = near.map_or(remedy, |it| format!("did you mean `{it}`?"));
            self.fault_masked(key, "is none of its words", remedy);
        }
        found
    }

    /// `true` or `false`, as the two things they stand for.
    pub(super) fn choice<T>(&self, key: &'static str, yes: T, no: T) -> Option<T> {
        let value = self.value(key)?;
        let flag = value.as_bool();
        if flag.is_none() {
            self.wrong_type(key, value, "true or false", "write `true` or `false`");
        }
        flag.map(|it| if it { yes } else { no })
    }

    /// A number of a unit within a range.
    pub(super) fn amount<T: TryFrom<u64>>(
        &self,
        key: &'static str,
        unit: Unit,
        range: RangeInclusive<u64>,
    ) -> Option<T> {
        let value = self.value(key)?;
        let (low, high) = (unit.show(*range.start()), unit.show(*range.end()));
        let remedy = format!("write it like {}, from {low} to {high}", unit.example());
        let amount = match (unit, value) {
            (Unit::Count, DeValue::Integer(number)) => whole(number),
            (Unit::Bytes | Unit::Millis, DeValue::String(text)) => unit.read(text),
            (Unit::Count | Unit::Bytes | Unit::Millis, other) => {
                self.wrong_type(key, other, unit.name(), &remedy);
                return None;
            }
        };
        let amount = amount.filter(|it| range.contains(it)).and_then(|it| T::try_from(it).ok());
        if amount.is_none() {
            self.fault(key, &format!("is not {} in its range", unit.name()), remedy);
        }
        amount
    }

    /// A list of texts, none of them empty; no key is an empty list.
    pub(super) fn list(&self, key: &'static str) -> Vec<String> {
        self.texts(key).into_iter().flatten().map(|(text, _)| text.to_owned()).collect()
    }

    /// A list of texts and where they stand, none of them empty.
    pub(super) fn texts(&self, key: &'static str) -> Option<Vec<Text<'a>>> {
        const REMEDY: &str = "write it like [\"a\", \"b\"]";
        let value = self.value(key)?;
        let Some(items) = value.as_array() else {
            self.wrong_type(key, value, "a list of texts", REMEDY);
            return None;
        };
        let mut texts = Vec::new();
        for item in items {
            let at = |shown| Spot { span: item.span(), shown };
            if let Some(text) = item.get_ref().as_str().filter(|it| !it.trim().is_empty()) {
                texts.push((text, at(Shown::Plainly)));
                continue;
            }
            let spot = at(Shown::Masked);
            self.fault_at(Some(&spot), key, "has an item that is no text", REMEDY);
        }
        Some(texts)
    }

    /// A table below this one.
    pub(super) fn table(&self, key: &'static str) -> Option<Self> {
        let (name, value) = self.find(key)?;
        let remedy = format!("write it like [{}]", self.below(key));
        self.child(name.get_ref(), spot(name, value), value, &remedy)
    }

    /// The tables below one of this table, each with its own name, in the order of the file.
    pub(super) fn named(&self, key: &'static str) -> Vec<(Text<'a>, Self)> {
        let Some(parent) = self.table(key) else { return Vec::new() };
        let remedy = format!("write it like [{}.NAME]", parent.path);
        let mut tables = Vec::new();
        for (name, value) in parent.entries {
            let at = Spot { span: name.span(), shown: Shown::Plainly };
            if let Some(table) = parent.child(name.get_ref(), spot(name, value), value, &remedy) {
                tables.push(((&**name.get_ref(), at), table));
            }
        }
        tables.sort_by_key(|((_, at), _)| at.span.start);
        tables
    }

    /// The texts of a table whose keys are free, in the order of their keys.
    pub(super) fn pairs(&self, key: &'static str) -> Vec<(String, String)> {
        const REMEDY: &str = "write it like { \"asked\" = \"sent\" }";
        let Some(table) = self.table(key) else { return Vec::new() };
        let mut pairs = Vec::new();
        for (name, value) in table.entries {
            match value.get_ref().as_str().filter(|it| !it.is_empty()) {
                Some(text) => pairs.push((name.get_ref().clone().into_owned(), text.to_owned())),
                None => table.fault(name.get_ref(), "is not a text", REMEDY),
            }
        }
        pairs
    }

    /// Ranges of numbers in a table whose keys are free, in the order of their keys.
    pub(super) fn ranges(&self, key: &'static str) -> Vec<(String, RangeInclusive<f64>)> {
        const REMEDY: &str = "write the least and the most like [0.0, 1.0]";
        let Some(table) = self.table(key) else { return Vec::new() };
        let mut ranges = Vec::new();
        for (name, value) in table.entries {
            let items = value.get_ref().as_array().into_iter().flat_map(|it| it.iter());
            let numbers: Vec<Option<f64>> = items.map(|it| number(it.get_ref())).collect();
            match numbers.as_slice() {
                [Some(low), Some(high)] if low <= high => {
                    ranges.push((name.get_ref().clone().into_owned(), *low..=*high));
                }
                _ => table.fault(name.get_ref(), "is not a range of numbers", REMEDY),
            }
        }
        ranges
    }

    /// The tables of an array.
    pub(super) fn array(&self, key: &'static str) -> Vec<Self> {
        let Some((name, value)) = self.find(key) else { return Vec::new() };
        let remedy = format!("write it like [[{}]]", self.below(key));
        let Some(items) = value.get_ref().as_array() else {
            self.wrong_type(key, value.get_ref(), "an array of tables", &remedy);
            return Vec::new();
        };
        let child = |item| self.child(name.get_ref(), spot(name, item), item, &remedy);
        items.iter().filter_map(child).collect()
    }

    fn child(
        &self,
        key: &str,
        at: Spot,
        value: &'a Spanned<DeValue<'a>>,
        remedy: &str,
    ) -> Option<Self> {
        let Some(entries) = value.get_ref().as_table() else {
            self.wrong_type(key, value.get_ref(), "a table", remedy);
            return None;
        };
        // A header says more than the last word of it.
        let header = self.report.slice(value.span()).starts_with('[');
        let spot = if header { Spot { span: value.span(), shown: Shown::Plainly } } else { at };
        let path = self.below(key);
        Some(Self {
            report: self.report,
            entries,
            path,
            spot: Some(spot),
            known: RefCell::default(),
        })
    }

    fn wrong_type(&self, key: &str, value: &DeValue<'_>, name: &str, remedy: &str) {
        let found = match value.type_str() {
            found @ ("integer" | "array") => format!("an {found}"),
            found => format!("a {found}"),
        };
        let problem = format!("is {found}, not {name}");
        if is_long(value) {
            return self.fault(key, &problem, remedy);
        }
        self.fault_masked(key, &problem, remedy);
    }

    fn value(&self, key: &'static str) -> Option<&'a DeValue<'a>> {
        self.find(key).map(|(_, value)| value.get_ref())
    }

    fn find(
        &self,
        key: &'static str,
    ) -> Option<(&'a Spanned<toml::de::DeString<'a>>, &'a Spanned<DeValue<'a>>)> {
        self.known.borrow_mut().insert(key);
        self.entries.get_key_value(key)
    }

    fn below(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    fn within(&self) -> String {
        let header = self.spot.as_ref().map(|it| self.report.slice(it.span.clone()));
        match (self.path.as_str(), header) {
            ("", _) => String::new(),
            (path, Some(header)) if header.starts_with("[[") => format!(" in [[{path}]]"),
            (path, _) => format!(" in [{path}]"),
        }
    }
}

/// Where to point at for a value: at itself, or at its key when it is long.
fn spot(key: &Spanned<toml::de::DeString<'_>>, value: &Spanned<DeValue<'_>>) -> Spot {
    let span = if is_long(value.get_ref()) { key.span() } else { value.span() };
    Spot { span, shown: Shown::Plainly }
}

fn is_long(value: &DeValue<'_>) -> bool {
    value.is_table() || value.is_array()
}

fn whole(number: &DeInteger<'_>) -> Option<u64> {
    u64::from_str_radix(number.as_str(), number.radix()).ok()
}

fn number(value: &DeValue<'_>) -> Option<f64> {
    let text = match value {
        DeValue::Integer(number) if number.radix() == 10 => number.as_str(),
        DeValue::Float(number) => number.as_str(),
        _ => return None,
    };
    text.parse().ok().filter(|it: &f64| it.is_finite())
}

/// The name a mistyped one was probably meant to be.
pub(super) fn nearest<'n>(wrong: &str, names: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    let slips_max = (wrong.chars().count() / 3).clamp(1, 3);
    names
        .map(|name| (strsim::damerau_levenshtein(wrong, name), name))
        .filter(|(slips, _)| *slips <= slips_max)
        .min()
        .map(|(_, name)| name)
}

/// Names as a sentence lists them.
pub(super) fn listed<'n>(names: impl Iterator<Item = &'n str>) -> String {
    names.map(|it| format!("`{it}`")).collect::<Vec<_>>().join(", ")
}
