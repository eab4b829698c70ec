//! Words of a story: how times, shares and numbers are written.

use crate::config;
use crate::domain::{Share, Timestamp};

/// What was read, or what is wrong with it.
pub(super) type Read<T> = Result<T, String>;

/// `key=value`; a word by itself has no value.
pub(super) fn split(word: &str) -> (&str, &str) {
    word.split_once('=').unwrap_or((word, ""))
}

/// Milliseconds of `1h30m`.
pub(super) fn duration_ms(text: &str) -> Read<u64> {
    let read = humantime::parse_duration(text).ok();
    let ms = read.and_then(|it| u64::try_from(it.as_millis()).ok());
    ms.ok_or_else(|| format!("`{text}` is not a time: write it like `30m`"))
}

/// `5%`.
pub(super) fn share(text: &str) -> Read<Share> {
    config::share(text).ok_or_else(|| format!("`{text}` is not a share: write it like `5%`"))
}

/// A whole number.
pub(super) fn count(text: &str) -> Read<u64> {
    text.parse().map_err(|_| format!("`{text}` is not a whole number"))
}

/// `a,b`.
pub(super) fn list(text: &str) -> Vec<String> {
    text.split(',').filter(|it| !it.is_empty()).map(str::to_owned).collect()
}

/// `0.9`, `5%`, `800ms`, `NaN`, `inf`.
pub(super) fn number(text: &str) -> Read<f64> {
    let (digits, part) = match text.strip_suffix('%') {
        Some(digits) => (digits, 0.01),
        None => (text.strip_suffix("ms").unwrap_or(text), 1.0),
    };
    let number = digits.parse::<f64>();
    number.map(|it| it * part).map_err(|_| format!("`{text}` is not a number"))
}

/// `0.9/0.8` for the primary and the candidate, `0.9` for both.
pub(super) fn sides(text: &str) -> Read<[f64; 2]> {
    let (primary, candidate) = text.split_once('/').unwrap_or((text, text));
    Ok([number(primary)?, number(candidate)?])
}

/// How far `now` is from the beginning of the story: `+1h 30m`.
pub(super) fn since(begun: Timestamp, now: Timestamp) -> String {
    let sign = if begun <= now { '+' } else { '-' };
    let ms = now.0.abs_diff(begun.0);
    format!("{sign}{}", humantime::format_duration(std::time::Duration::from_millis(ms)))
}
