//! Faults: what is wrong with a configuration, where, and what would be right.

use std::{cell::RefCell, fmt, ops::Range};

use toml::{Spanned, de::DeTable};

/// Everything that is wrong with a configuration, in the order of the file.
///
/// Printed as a person can act on it; no value that may be a secret is ever shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Faults(Vec<Fault>);

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// What is wrong, with the key and its table.
    pub problem: String,
    /// What would be right.
    pub remedy: String,
    /// Where; none when it is about the file as a whole.
    pub place: Option<Place>,
}

/// A place in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file as it was named.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    excerpt: Option<Excerpt>,
}

/// A line as far as it may be shown, and the marks under it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Excerpt {
    line: String,
    marks: String,
}

/// Whether the marked text itself may be shown.
#[derive(Clone, Copy, Debug)]
pub(super) enum Shown {
    /// It is no secret.
    Plainly,
    /// It may be a secret.
    Masked,
}

/// What a fault points at.
#[derive(Clone, Debug)]
pub(super) struct Spot {
    /// Bytes of the file.
    pub(super) span: Range<usize>,
    /// Whether they may be shown.
    pub(super) shown: Shown,
}

impl Faults {
    /// The only fault of a file that could not be read.
    pub(super) fn unreadable(file: &str, error: &std::io::Error) -> Self {
        Self(vec![Fault {
            problem: format!("cannot read the configuration {file}: {error}"),
            remedy: "give the path of a TOML file that this user may read".to_owned(),
            place: None,
        }])
    }

    /// Each fault, in the order of the file.
    pub fn iter(&self) -> impl Iterator<Item = &Fault> {
        self.0.iter()
    }
}

impl std::error::Error for Faults {}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, fault) in self.0.iter().enumerate() {
            f.write_str(if index == 0 { "" } else { "\n\n" })?;
            fault.fmt(f)?;
        }
        Ok(())
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", self.problem)?;
        let Some(Place { file, line, column, excerpt }) = &self.place else {
            return write!(f, "\n\nhint: {}", self.remedy);
        };
        write!(f, " at {file}:{line}:{column}")?;
        let Some(excerpt) = excerpt else {
            return write!(f, "\n\nhint: {}", self.remedy);
        };
        write!(f, "\n{line:>5} | {}\n      | {} {}", excerpt.line, excerpt.marks, self.remedy)
    }
}

/// Collects the faults of one text.
#[derive(Debug)]
pub(super) struct Report<'a> {
    text: &'a str,
    file: &'a str,
    faults: RefCell<Vec<(usize, Fault)>>,
}

impl<'a> Report<'a> {
    pub(super) fn new(text: &'a str, file: &'a str) -> Self {
        Self { text, file, faults: RefCell::default() }
    }

    /// The text between two bytes.
    pub(super) fn slice(&self, span: Range<usize>) -> &'a str {
        self.text.get(span).unwrap_or_default()
    }

    /// Line of a byte, from 1.
    pub(super) fn line(&self, offset: usize) -> usize {
        Cut::new(self.text, &(offset..offset)).line
    }

    /// Adds a fault; one without a spot is about the whole file.
    pub(super) fn add(&self, spot: Option<&Spot>, problem: String, remedy: impl Into<String>) {
        let place = spot.map(|it| self.place(&it.span, |cut| Some(cut.excerpt(it.shown))));
        let problem = if place.is_some() { problem } else { format!("{problem} in {}", self.file) };
        let fault = Fault { problem, remedy: remedy.into(), place };
        let order = spot.map_or(0, |it| it.span.start);
        let mut faults = self.faults.borrow_mut();
        if !faults.iter().any(|(_, it)| *it == fault) {
            faults.push((order, fault));
        }
    }

    /// The text as TOML; none where it is not, of which all faults are added.
    pub(super) fn document(&self) -> Option<Spanned<DeTable<'a>>> {
        let (document, errors) = DeTable::parse_recoverable(self.text);
        for error in &errors {
            self.add_syntax(error);
        }
        errors.is_empty().then_some(document)
    }

    /// Adds what the parser says about a text that is not TOML.
    fn add_syntax(&self, error: &toml::de::Error) {
        let span = error.span().unwrap_or(self.text.len()..self.text.len());
        let place = self.place(&span, |cut| {
            // Inside a text over several lines nothing tells a key from a secret.
            let plain = !self.text.contains("\"\"\"") && !self.text.contains("'''");
            plain.then(|| cut.syntax_excerpt()).flatten()
        });
        let (problem, remedy) = match error.message() {
            "duplicate key" => ("duplicate key".to_owned(), "write each key once"),
            other => (format!("not TOML: {other}"), "see https://toml.io for how to write it"),
        };
        let fault = Fault { problem, remedy: remedy.to_owned(), place: Some(place) };
        self.faults.borrow_mut().push((span.start, fault));
    }

    /// The value, or every fault found on the way.
    pub(super) fn finish<T>(self, value: Option<T>) -> Result<T, Faults> {
        let mut faults = self.faults.into_inner();
        match value {
            Some(value) if faults.is_empty() => Ok(value),
            Some(_) | None => {
                faults.sort_by_key(|(order, _)| *order);
                Err(Faults(faults.into_iter().map(|(_, fault)| fault).collect()))
            }
        }
    }

    fn place(
        &self,
        span: &Range<usize>,
        excerpt: impl FnOnce(&Cut<'a>) -> Option<Excerpt>,
    ) -> Place {
        let cut = Cut::new(self.text, span);
        let column = cut.before.chars().count() + 1;
        let excerpt = excerpt(&cut);
        Place { file: self.file.to_owned(), line: cut.line, column, excerpt }
    }
}

/// The line a span begins in, cut into what is before, inside and after it.
struct Cut<'a> {
    line: usize,
    before: &'a str,
    inside: &'a str,
    after: &'a str,
}

impl<'a> Cut<'a> {
    fn new(text: &'a str, span: &Range<usize>) -> Self {
        let (head, tail) = text.split_at_checked(span.start).unwrap_or((text, ""));
        let before = head.rsplit('\n').next().unwrap_or_default();
        let rest = tail.lines().next().unwrap_or_default();
        let length = span.len().min(rest.len());
        let (inside, after) = rest.split_at_checked(length).unwrap_or((rest, ""));
        Self { line: head.matches('\n').count() + 1, before, inside, after }
    }

    /// The line without any other value on it, for it may be a secret.
    fn excerpt(&self, shown: Shown) -> Excerpt {
        let indent = self.before.trim_start();
        let before = if may_hide_secrets(indent) { "… " } else { indent };
        let inside = match shown {
            Shown::Plainly => self.inside,
            Shown::Masked => "…",
        };
        let after = match self.after.trim_start() {
            rest if rest.starts_with('=') => " = …",
            rest if may_hide_secrets(rest) => "",
            _ => self.after.trim_end(),
        };
        Excerpt::new(&format!("{before}{inside}{after}"), before, inside)
    }

    /// Only the header or key of a line that cannot be read.
    fn syntax_excerpt(&self) -> Option<Excerpt> {
        let line = format!("{}{}{}", self.before, self.inside, self.after);
        let key = line.split('=').next().unwrap_or_default();
        let is_header = line.trim_start().starts_with('[');
        if may_hide_secrets(key) || (key == line && !is_header) {
            return None;
        }
        let shown = if key == line { line.clone() } else { format!("{key}= …") };
        let ahead: String = shown.chars().take(self.before.chars().count()).collect();
        let before = if key.len() < self.before.len() { format!("{key}= ") } else { ahead };
        Some(Excerpt::new(&shown, &before, ""))
    }
}

/// Whether a piece of a line has a text or a remark in it.
fn may_hide_secrets(piece: &str) -> bool {
    piece.contains(['"', '\'', '#'])
}

impl Excerpt {
    fn new(line: &str, before: &str, marked: &str) -> Self {
        let clean = |it: char| if it.is_control() { ' ' } else { it };
        let indent = " ".repeat(before.chars().count());
        let marks = "^".repeat(marked.chars().count().max(1));
        Self { line: line.chars().map(clean).collect(), marks: indent + &marks }
    }
}
