//! What texts give away: patterns found in them, and texts with what was found taken out.
//!
//! A JSON document is looked at text by text, as its reader would see them: an escape hides
//! nothing, and neither does a document inside a text, as the arguments of a tool are. Everything
//! takes time in proportion to the text.

mod keys;
mod pattern;
mod texts;

pub use keys::Keys;
pub use pattern::{BadPattern, Pattern};

use std::{borrow::Cow, ops::Range};

use texts::{Place, outward, snap, texts, unescaped};

/// How deep a document is looked for inside a text: a text of JSON, in JSON, in JSON.
const DEPTH_MAX: usize = 3;

/// What stands for a key that is known, as `[redacted:key]`.
const KEY: &str = "key";

/// Classes of data by the patterns that give them away.
#[derive(Clone, Debug, Default)]
pub struct Detector(Vec<(String, Vec<Pattern>)>);

impl Detector {
    /// A detector of these classes.
    pub fn new(classes: Vec<(String, Vec<Pattern>)>) -> Self {
        Self(classes)
    }

    /// Whether there are no classes.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The classes that a JSON document shows by what it says, in names, texts and long numbers.
    pub fn classes(&self, document: &[u8]) -> Vec<String> {
        let mut missing: Vec<_> = self.0.iter().collect();
        if missing.is_empty() {
            return Vec::new();
        }
        let document = read(document);
        for place in texts(&document) {
            let (text, depth) = match place {
                Place::Quoted(range) => (&document[range], 0),
                Place::Bare(range) => (&document[range], DEPTH_MAX),
            };
            missing.retain(|(_, patterns)| !shows(text, patterns, depth));
            if missing.is_empty() {
                break;
            }
        }
        let found = |class: &&(String, _)| !missing.iter().any(|it| it.0 == class.0);
        self.0.iter().filter(found).map(|(class, _)| class.clone()).collect()
    }
}

/// Whether any of the patterns is in a text, or in what it says once its escapes are undone.
fn shows(text: &str, patterns: &[Pattern], depth: usize) -> bool {
    patterns.iter().any(|it| it.is_in(text))
        || depth < DEPTH_MAX
            && unescaped(text).is_some_and(|inner| shows(&inner, patterns, depth + 1))
}

/// Takes out of texts what must not be kept: what patterns find, and keys that are known.
///
/// `[redacted:NAME]` takes their place, with the name of the pattern, or `key`.
#[derive(Clone, Debug, Default)]
pub struct Redactor {
    patterns: Vec<Pattern>,
    keys: Keys,
}

/// What is taken out.
struct Span<'r> {
    range: Range<usize>,
    name: &'r str,
}

impl Redactor {
    /// A redactor of these patterns and keys.
    pub fn new(patterns: Vec<Pattern>, keys: Keys) -> Self {
        Self { patterns, keys }
    }

    /// A JSON document without what must not be kept, `keys` included. JSON stays JSON.
    pub fn document<'d>(&self, document: &'d [u8], keys: &Keys) -> Cow<'d, [u8]> {
        let text = read(document);
        let (mut redacted, mut from) = (String::new(), 0);
        for place in texts(&text) {
            match place {
                Place::Quoted(at) => {
                    let inside = &text[at.clone()];
                    let spans = match unescaped(inside) {
                        Some(plain) => outer(inside, self.spans(&plain, keys, 1)),
                        None => self.spans(inside, keys, DEPTH_MAX),
                    };
                    for Span { range, name } in spans {
                        redacted.push_str(&text[from..at.start + range.start]);
                        redacted.push_str(&mark(name));
                        from = at.start + range.end;
                    }
                }
                Place::Bare(at) => {
                    if let Some(span) = self.spans(&text[at.clone()], keys, DEPTH_MAX).first() {
                        redacted.push_str(&text[from..at.start]);
                        redacted.push('"');
                        redacted.push_str(&mark(span.name));
                        redacted.push('"');
                        from = at.end;
                    }
                }
            }
        }
        if from == 0 {
            return Cow::Borrowed(document);
        }
        redacted.push_str(&text[from..]);
        Cow::Owned(redacted.into_bytes())
    }

    /// A text without what must not be kept, `keys` included.
    pub fn text<'t>(&self, text: &'t str, keys: &Keys) -> Cow<'t, str> {
        let (mut redacted, mut from) = (String::new(), 0);
        for Span { range, name } in self.spans(text, keys, 0) {
            redacted.push_str(&text[from..range.start]);
            redacted.push_str(&mark(name));
            from = range.end;
        }
        if from == 0 {
            return Cow::Borrowed(text);
        }
        redacted.push_str(&text[from..]);
        Cow::Owned(redacted)
    }

    /// What to take out of a text and of what it says once its escapes are undone: in order, none
    /// empty, and none overlaps the next.
    fn spans(&self, text: &str, keys: &Keys, depth: usize) -> Vec<Span<'_>> {
        let mut spans = merged(self.spans_as_is(text, keys));
        let inner = if depth < DEPTH_MAX { unescaped(text) } else { None };
        if let Some(inner) = inner {
            snap(text, spans.iter_mut().map(|it| &mut it.range));
            spans.extend(outer(text, self.spans(&inner, keys, depth + 1)));
            spans = merged(spans);
        }
        spans
    }

    fn spans_as_is(&self, text: &str, keys: &Keys) -> Vec<Span<'_>> {
        let mut spans = Vec::new();
        self.keys.each(text, |range| spans.push(Span { range, name: KEY }));
        keys.each(text, |range| spans.push(Span { range, name: KEY }));
        for pattern in &self.patterns {
            spans.extend(pattern.all(text).map(|range| Span { range, name: pattern.name() }));
        }
        spans
    }
}

/// A document as text. Nearly all are UTF-8, which is seen faster than what is not is mended.
fn read(document: &[u8]) -> Cow<'_, str> {
    str::from_utf8(document).map_or_else(|_| String::from_utf8_lossy(document), Cow::Borrowed)
}

/// Spans of the unescaped text, where they stand in the text itself.
fn outer<'r>(text: &str, mut spans: Vec<Span<'r>>) -> Vec<Span<'r>> {
    outward(text, spans.iter_mut().map(|it| &mut it.range));
    spans
}

/// In order, those that overlap made one, by the name of the first.
fn merged(mut spans: Vec<Span<'_>>) -> Vec<Span<'_>> {
    spans.sort_by_key(|it| it.range.start);
    spans.dedup_by(|next, last| {
        let overlaps = next.range.start < last.range.end;
        if overlaps {
            last.range.end = last.range.end.max(next.range.end);
        }
        overlaps
    });
    spans
}

fn mark(name: &str) -> String {
    format!("[redacted:{name}]")
}

#[cfg(test)]
mod tests;
