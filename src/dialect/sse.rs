//! Server-sent events out of bytes, however the bytes were cut.

/// One event: its name (empty when it has none) and its data lines, joined.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Event {
    pub(super) name: String,
    pub(super) data: Vec<u8>,
}

/// Reads events from pieces of a stream; lines may end in LF, CRLF or CR.
///
/// It holds one event at a time, so it needs no more memory than it is given. An event that
/// was begun but not ended by an empty line is never told.
/// Source: the HTML standard, "Interpreting an event stream".
#[derive(Debug, Default)]
pub(super) struct Reader {
    line: Vec<u8>,
    event: Event,
    has_data: bool,
    after_cr: bool,
}

impl Reader {
    /// Takes the next piece and hands on every event it completes.
    pub(super) fn push(&mut self, piece: &[u8], mut on_event: impl FnMut(Event)) {
        let mut rest = piece;
        if self.after_cr && !rest.is_empty() {
            self.after_cr = false;
            rest = rest.strip_prefix(b"\n").unwrap_or(rest);
        }
        while let Some(end) = rest.iter().position(|byte| matches!(byte, b'\n' | b'\r')) {
            let (line, tail) = rest.split_at(end);
            self.line.extend_from_slice(line);
            self.end_line(&mut on_event);
            rest = match tail {
                [b'\r', b'\n', rest @ ..] => rest,
                [b'\r'] => {
                    // It may be one half of a CRLF.
                    self.after_cr = true;
                    &[]
                }
                tail => tail.get(1..).unwrap_or_default(),
            };
        }
        self.line.extend_from_slice(rest);
    }

    fn end_line(&mut self, on_event: &mut impl FnMut(Event)) {
        if self.line.is_empty() {
            let event = std::mem::take(&mut self.event);
            if std::mem::take(&mut self.has_data) {
                on_event(event);
            }
            return;
        }
        let colon = self.line.iter().position(|byte| *byte == b':').unwrap_or(self.line.len());
        let (field, value) = self.line.split_at(colon);
        let value = value.strip_prefix(b":").unwrap_or(value);
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match field {
            b"event" => self.event.name = String::from_utf8_lossy(value).into_owned(),
            b"data" => {
                if std::mem::replace(&mut self.has_data, true) {
                    self.event.data.push(b'\n');
                }
                self.event.data.extend_from_slice(value);
            }
            // Comments (an empty field), `id`, `retry` and whatever is invented next.
            _ => {}
        }
        self.line.clear();
    }
}

/// What may come before an answer begins: blank lines and comments only keep its connection open.
#[derive(Debug, Default)]
pub struct Prelude {
    in_comment: bool,
}

impl Prelude {
    /// Takes the next piece; true when the answer begins in it.
    pub fn ends(&mut self, piece: &[u8]) -> bool {
        piece.iter().any(|byte| {
            self.in_comment = match byte {
                b'\n' | b'\r' => false,
                _ if self.in_comment => true,
                b':' => true,
                it if it.is_ascii_whitespace() => false,
                _ => return true,
            };
            false
        })
    }
}

/// What follows the first empty line of a piece out of the middle of a stream; nothing without one.
/// Its first line is not whole, so it is not empty.
pub(super) fn after_empty_line(piece: &[u8]) -> &[u8] {
    let (mut rest, mut is_first) = (piece, true);
    while let Some(end) = rest.iter().position(|byte| matches!(byte, b'\n' | b'\r')) {
        let (line, tail) = rest.split_at(end);
        rest = tail.strip_prefix(b"\r\n").or(tail.get(1..)).unwrap_or_default();
        if line.is_empty() && !is_first {
            return rest;
        }
        is_first = false;
    }
    &[]
}

/// Every event of a stream that is here already.
#[cfg(test)]
pub(super) fn events(stream: &[u8]) -> Vec<Event> {
    let mut events = Vec::new();
    Reader::default().push(stream, |event| events.push(event));
    events
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const STREAM: &str = ": keep-alive\r\n\r\nevent: a\r\ndata: {\"x\":\"ä€\"}\r\n\r\n\
        data:no space\ndata:  two\n\nevent: b\rdata: bare cr\r\rdata\n\ndata: last\n";

    fn event(name: &str, data: &str) -> Event {
        Event { name: name.to_owned(), data: data.as_bytes().to_vec() }
    }

    fn expected() -> Vec<Event> {
        vec![
            event("a", "{\"x\":\"ä€\"}"),
            event("", "no space\n two"),
            event("b", "bare cr"),
            event("", ""),
        ]
    }

    fn in_pieces(pieces: &[&[u8]]) -> Vec<Event> {
        let mut reader = Reader::default();
        let mut events = Vec::new();
        for piece in pieces {
            reader.push(piece, |event| events.push(event));
        }
        events
    }

    #[test]
    fn line_ends_comments_and_spaces_are_read_as_the_standard_says() {
        assert_eq!(events(STREAM.as_bytes()), expected());
    }

    #[test]
    fn an_answer_begins_after_comments_and_blank_lines_however_they_are_cut() {
        for (prelude, answer) in [
            (": OPENROUTER PROCESSING\n\n: a: b\r\n\r\n", "data: {}\n\n"),
            ("\n\n \t\r\n", "{\"id\":1}"),
            (":\r: x\r", "event: a\n"),
            ("", "data"),
        ] {
            let bytes = [prelude, answer].concat();
            let mut all = Prelude::default();
            let begins = bytes.bytes().position(|it| all.ends(&[it]));
            assert_eq!(begins, Some(prelude.len()), "{bytes:?}");
            for cut in 0..=prelude.len() {
                let (head, tail) = bytes.as_bytes().split_at(cut);
                let mut in_two = Prelude::default();
                assert!(!in_two.ends(head) && in_two.ends(tail), "{bytes:?} cut at {cut}");
            }
        }
        assert!(!Prelude::default().ends(b": data: {}"));
    }

    #[test]
    fn an_event_without_its_empty_line_is_dropped() {
        assert!(events(b"data: half\n").is_empty());
        assert!(events(b"event: ping\n\n").is_empty());
    }

    #[test]
    fn events_are_found_again_after_the_first_empty_line() {
        for (piece, rest) in [
            ("\n\r\ndata: a\n\n", "data: a\n\n"),
            ("\ndata: a\n\nb", "b"),
            ("x\r\rb", "b"),
            ("x\r\n\r\nb", "b"),
            ("x\ny\nz", ""),
            ("\n", ""),
            ("", ""),
        ] {
            assert_eq!(after_empty_line(piece.as_bytes()), rest.as_bytes(), "{piece:?}");
        }
    }

    #[test]
    fn a_cut_at_any_byte_changes_nothing() {
        for cut in 0..=STREAM.len() {
            let (head, tail) = STREAM.as_bytes().split_at(cut);
            assert_eq!(in_pieces(&[head, tail]), expected(), "cut at {cut}");
            assert_eq!(in_pieces(&[head, b"", tail]), expected(), "empty piece at {cut}");
        }
        let bytes: Vec<&[u8]> = STREAM.as_bytes().chunks(1).collect();
        assert_eq!(in_pieces(&bytes), expected());
    }

    proptest! {
        #[test]
        fn random_streams_read_the_same_in_random_pieces(
            parts in prop::collection::vec(
                prop::sample::select(vec!["data", ":", " ", "\n", "\r", "\r\n", "x", "event", "é"]),
                0..60,
            ),
            size in 1_usize..7,
        ) {
            let stream = parts.concat();
            let pieces: Vec<&[u8]> = stream.as_bytes().chunks(size).collect();
            prop_assert_eq!(in_pieces(&pieces), events(stream.as_bytes()));
        }
    }
}
