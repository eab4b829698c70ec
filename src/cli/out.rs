//! What is printed, and how: data on standard output, all else on standard error.

use std::{
    fmt::{self, Write as _},
    io::{self, IsTerminal, Write},
};

use super::commands::{Color, Format, Global, Output};
use crate::api::{JsonError, Message, to_json};

/// The two streams of the process, and what they can show.
///
/// Everything passes [`harmless`] on its way, so no text of a model or a caller can steer
/// the terminal. Colours are added after that, to our own marks.
pub(super) struct Out {
    data: Box<dyn Write + Send>,
    notes: Box<dyn Write + Send>,
    output: Output,
    data_colour: Colour,
    notes_colour: Colour,
    screen: Screen,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Colour {
    On,
    Off,
}

/// What standard output is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Screen {
    /// A terminal that can be drawn over.
    Terminal,
    /// A file or a pipe.
    Lines,
}

impl fmt::Debug for Out {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Out").field("output", &self.output).finish_non_exhaustive()
    }
}

impl Out {
    pub(super) fn new(global: &Global) -> Self {
        let colour = |terminal: bool| match global.color {
            Color::Always => Colour::On,
            Color::Never => Colour::Off,
            Color::Auto => {
                let refused = global.no_color.as_ref().is_some_and(|it| !it.is_empty());
                if terminal && !refused { Colour::On } else { Colour::Off }
            }
        };
        let terminal = io::stdout().is_terminal();
        Self {
            data: Box::new(io::stdout()),
            notes: Box::new(io::stderr()),
            output: match global.output {
                Format::Json => Output::Json,
                Format::Table | Format::Md | Format::Html => Output::Table,
            },
            data_colour: colour(terminal),
            notes_colour: colour(io::stderr().is_terminal()),
            screen: if terminal { Screen::Terminal } else { Screen::Lines },
        }
    }

    /// How data is wanted.
    pub(super) fn output(&self) -> Output {
        self.output
    }

    /// What standard output is.
    pub(super) fn screen(&self) -> Screen {
        self.screen
    }

    /// Prints lines of data.
    pub(super) fn data(&mut self, text: &str) -> io::Result<()> {
        print(self.data.as_mut(), text, self.data_colour)
    }

    /// Prints a line of JSON.
    pub(super) fn line(&mut self, json: &str) -> io::Result<()> {
        self.data(&escaped(json))
    }

    /// Prints a message as a line of JSON.
    pub(super) fn json(
        &mut self,
        name: &'static str,
        message: &impl Message,
    ) -> Result<(), super::Problem> {
        let line: Result<String, JsonError> = to_json(name, message);
        Ok(self.line(&line?)?)
    }

    /// Prints lines that are no data: what was done, what to do next.
    pub(super) fn note(&mut self, text: &str) -> io::Result<()> {
        print(self.notes.as_mut(), text, self.notes_colour)
    }

    /// Prints an error: what, why, and after an empty line what to do.
    pub(super) fn error(&mut self, what: &str, why: &[String], hint: &str) -> io::Result<()> {
        let why = why.iter().map(|it| format!("  {}", harmless(it)));
        let mut lines: Vec<String> =
            std::iter::once(format!("error: {}", harmless(what))).chain(why).collect();
        if !hint.is_empty() {
            lines.extend([String::new(), format!("hint: {hint}")]);
        }
        self.note(&lines.join("\n"))
    }

    /// Draws over what was drawn before, without flicker: line by line, the rest cleared.
    pub(super) fn redraw(&mut self, text: &str) -> io::Result<()> {
        let mut frame = String::from("\x1b[H");
        for line in text.lines() {
            frame.push_str(&tint(&harmless(line), self.data_colour));
            frame.push_str("\x1b[K\n");
        }
        frame.push_str("\x1b[J");
        self.data.write_all(frame.as_bytes())?;
        self.data.flush()
    }

    /// Empties the screen before the first drawing.
    pub(super) fn clear(&mut self) -> io::Result<()> {
        self.data.write_all(b"\x1b[2J")
    }

    /// Prints nothing.
    #[cfg(test)]
    pub(super) fn nowhere() -> Self {
        Self {
            data: Box::new(io::sink()),
            notes: Box::new(io::sink()),
            output: Output::Table,
            data_colour: Colour::Off,
            notes_colour: Colour::Off,
            screen: Screen::Lines,
        }
    }
}

fn print(stream: &mut dyn Write, text: &str, colour: Colour) -> io::Result<()> {
    for line in text.lines() {
        writeln!(stream, "{}", tint(&harmless(line), colour))?;
    }
    stream.flush()
}

/// Replaces what could steer a terminal or reorder a line by something one can see.
pub(super) fn harmless(line: &str) -> String {
    line.chars().map(seen).collect()
}

/// Writes what could steer a terminal in a line of JSON as JSON does: it says the same.
fn escaped(json: &str) -> String {
    let mut line = String::with_capacity(json.len());
    for it in json.chars() {
        if seen(it) == it {
            line.push(it);
        } else {
            // Writing to a string cannot fail, and all of these have four digits.
            let _ = write!(line, "\\u{:04x}", u32::from(it));
        }
    }
    line
}

/// A character as one can see it.
fn seen(it: char) -> char {
    match it {
        '\t' => ' ',
        '\0'..='\x1f' => char::from_u32(0x2400 + u32::from(it)).unwrap_or('\u{fffd}'),
        '\x7f' => '\u{2421}',
        '\u{80}'..='\u{9f}'
        | '\u{61c}'
        | '\u{200e}'
        | '\u{200f}'
        | '\u{2028}'..='\u{202e}'
        | '\u{2066}'..='\u{2069}' => '\u{fffd}',
        plain => plain,
    }
}

/// Colours our own marks. The text means the same without.
fn tint(line: &str, colour: Colour) -> String {
    if colour == Colour::Off {
        return line.to_owned();
    }
    for (start, code) in [("error:", "1;31"), ("hint:", "36"), ("warning:", "33")] {
        if let Some(rest) = line.strip_prefix(start) {
            return format!("\x1b[{code}m{start}\x1b[0m{rest}");
        }
    }
    let tint = |it: char| match it {
        '✔' => format!("\x1b[32m{it}\x1b[0m"),
        '✖' => format!("\x1b[31m{it}\x1b[0m"),
        '▶' | '●' => format!("\x1b[36m{it}\x1b[0m"),
        '‼' => format!("\x1b[33m{it}\x1b[0m"),
        plain => plain.to_string(),
    };
    line.chars().map(tint).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_steers_the_terminal() {
        assert_eq!(harmless("a\x1b[2Jb\x07"), "a␛[2Jb␇");
        assert_eq!(harmless("\u{9b}31m\u{202e}evil"), "\u{fffd}31m\u{fffd}evil");
        assert_eq!(harmless("tab\there – ok ✔"), "tab here – ok ✔");
        assert_eq!(harmless("\u{61c}a"), "\u{fffd}a");
    }

    #[test]
    fn json_says_the_same_without_steering_the_terminal() {
        let text = "a\u{9b}31m\u{202e}evil\u{61c}\x7f ä ✔";
        let json = serde_json::to_string(text).unwrap();
        let escaped = escaped(&json);
        assert_eq!(escaped, r#""a\u009b31m\u202eevil\u061c\u007f ä ✔""#);
        assert_eq!(serde_json::from_str::<String>(&escaped).unwrap(), text);
    }

    #[test]
    fn colours_are_for_our_own_marks_and_can_be_left_out() {
        assert_eq!(tint("✔ pass", Colour::Off), "✔ pass");
        assert_eq!(tint("✔ pass", Colour::On), "\x1b[32m✔\x1b[0m pass");
        assert!(tint("error: x", Colour::On).starts_with("\x1b[1;31merror:"));
    }
}
