//! Keys: as they are pressed on a terminal, from lines elsewhere.

use std::io::{self, BufRead as _, IsTerminal as _, Read as _};

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use tokio::task::spawn_blocking;

/// What was pressed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pressed {
    pub(super) key: char,
    /// What follows it in its line; on a terminal there is none.
    pub(super) rest: String,
}

/// Where keys come from.
#[derive(Debug)]
pub(super) enum Keys {
    /// A terminal, which is as it was when this is dropped.
    Terminal(#[expect(dead_code, reason = "held for its drop")] Terminal),
    /// A file or a pipe: the first letter of each line.
    Lines,
}

/// A terminal that gives keys as they are pressed, and does not show them.
#[derive(Debug)]
pub(super) struct Terminal {
    before: Termios,
}

impl Keys {
    /// Those of standard input.
    pub(super) fn new() -> Self {
        let stdin = io::stdin();
        let own = || {
            let before = tcgetattr(&stdin).ok()?;
            let mut modes = before.clone();
            // Ctrl-C comes as a key too, so that the terminal is given back.
            modes.local_modes -= LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG;
            tcsetattr(&stdin, OptionalActions::Now, &modes).ok()?;
            Some(Terminal { before })
        };
        if stdin.is_terminal() { own().map_or(Self::Lines, Self::Terminal) } else { Self::Lines }
    }

    /// The next key; none at the end.
    pub(super) async fn next(&self) -> io::Result<Option<Pressed>> {
        let read = match self {
            Self::Terminal(_) => spawn_blocking(pressed),
            Self::Lines => spawn_blocking(line),
        };
        read.await.map_err(io::Error::other)?
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // There is nobody left to tell.
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.before);
    }
}

fn pressed() -> io::Result<Option<Pressed>> {
    let mut byte = [0];
    let len = io::stdin().lock().read(&mut byte)?;
    let ends = len == 0 || [3, 4].contains(&byte[0]);
    Ok((!ends).then(|| Pressed { key: char::from(byte[0]), rest: String::new() }))
}

fn line() -> io::Result<Option<Pressed>> {
    let mut line = String::new();
    if io::stdin().lock().read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut rest = line.trim().chars();
    let key = rest.next().unwrap_or(' ');
    Ok(Some(Pressed { key, rest: rest.as_str().trim().to_owned() }))
}

/// How many columns the terminal has; none where output goes elsewhere.
pub(super) fn columns() -> Option<u16> {
    let stdout = io::stdout();
    let size = stdout.is_terminal().then(|| tcgetwinsize(&stdout).ok())?;
    size.map(|it| it.ws_col)
}
