//! Forms: how shares, sizes, times, addresses and secrets are written.

use std::{fs::File, io, io::Read, net::SocketAddr, path::Path, time::Duration};

use secrecy::SecretString;
use url::Url;

use crate::domain::{Name, Price, Share, Sticky, Timestamp, read_day, read_usd};

use super::{
    Control,
    egress::{LinkLocal, leads_there},
    table::Table,
};

/// A form a text may have.
pub(super) struct Form<T> {
    /// What it is, after "is not".
    pub(super) name: &'static str,
    /// What would be right.
    pub(super) remedy: &'static str,
    /// Reads it.
    pub(super) read: fn(&str) -> Option<T>,
}

/// `5%` as basis points.
pub(super) const SHARE: Form<Share> = Form {
    name: "a share",
    remedy: "write it like \"5%\" or \"0.25%\", from 0% to 100%, at most two decimals",
    read: share,
};

/// A chance of error, as basis points.
pub(super) const CHANCE: Form<u32> = Form {
    name: "a chance of error",
    remedy: "write it like \"1%\", from 0.01% to 50%",
    read: |text| basis_points(text).filter(|it| (1..=5_000).contains(it)).map(u32::from),
};

/// A whole percentage.
pub(super) const PERCENT: Form<u32> = Form {
    name: "a whole percentage",
    remedy: "write it like \"70%\", from 1% to 100%",
    read: |text| {
        let bps = basis_points(text).filter(|it| (100..=10_000).contains(it) && it % 100 == 0)?;
        Some(u32::from(bps / 100))
    },
};

/// A price of tokens, in millionths of a millionth of a dollar each.
pub(super) const PRICE: Form<u64> = Form {
    name: "a price",
    remedy: "write US dollars for a million tokens like \"2.50\", with at most six decimals",
    read: Price::read,
};

/// An amount of money, in billionths of a dollar.
pub(super) const USD: Form<u64> = Form {
    name: "an amount of US dollars",
    remedy: "write it like \"$25\" or \"$0.50\"",
    read: read_usd,
};

/// The beginning of a day (UTC).
pub(super) const DAY: Form<Timestamp> =
    Form { name: "a day", remedy: "write it like \"2026-11-20\"", read: read_day };

/// An address to listen on.
pub(super) const ADDRESS: Form<SocketAddr> = Form {
    name: "an address",
    remedy: "write it like \"127.0.0.1:8080\": a number and a port, no host name",
    read: |text| text.parse().ok(),
};

/// Where the control API listens.
pub(super) const CONTROL: Form<Control> = Form {
    name: "an address",
    remedy: "write it like \"127.0.0.1:9090\" or \"unix:crossfade.sock\"",
    read: |text| match text.strip_prefix("unix:") {
        Some("") => None,
        Some(path) => Some(Control::Unix(path.into())),
        None => text.parse().ok().map(Control::Tcp),
    },
};

/// The name of a provider.
pub(super) const NAME: Form<Name> = Form {
    name: "a name",
    remedy: "use 1 to 63 of a-z, 0-9 and `-`, a letter or digit first",
    read: |text| text.parse().ok(),
};

/// What the key of a request is made of.
pub(super) const STICKY: Form<Sticky> = Form {
    name: "part of a key",
    remedy: "it is \"conversation\", \"user\", \"first-messages\" or \"header:NAME\"",
    read: |text| match text {
        "conversation" => Some(Sticky::Conversation),
        "user" => Some(Sticky::User),
        "first-messages" => Some(Sticky::Opening),
        _ => {
            let name = text.strip_prefix("header:")?.to_ascii_lowercase();
            let plain = |it: u8| it.is_ascii_alphanumeric() || it == b'-' || it == b'_';
            (!name.is_empty() && name.bytes().all(plain)).then_some(Sticky::Header(name))
        }
    },
};

/// Any text with something in it.
pub(super) const SOME: Form<String> = Form {
    name: "a text with something in it",
    remedy: "write it between quotes",
    read: |text| (!text.trim().is_empty()).then(|| text.to_owned()),
};

/// What an amount counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    /// Things, written as an integer.
    Count,
    /// Bytes, written like `8MiB`.
    Bytes,
    /// Milliseconds, written like `10s`.
    Millis,
}

#[rustfmt::skip]
const SIZES: [(&str, u64); 5] =
    [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];
const TIMES: [(&str, u64); 5] =
    [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

impl Unit {
    /// What it is, after "is not".
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Count => "a whole number",
            Self::Bytes => "a size",
            Self::Millis => "a time",
        }
    }

    /// How to write one.
    pub(super) fn example(self) -> &'static str {
        match self {
            Self::Count => "100",
            Self::Bytes => "\"8MiB\"",
            Self::Millis => "\"10s\"",
        }
    }

    /// Reads an amount from text; a count is no text.
    pub(super) fn read(self, text: &str) -> Option<u64> {
        match self {
            Self::Count => None,
            Self::Bytes => bytes(text),
            Self::Millis => millis(text),
        }
    }

    /// Writes an amount in its largest whole unit.
    pub(super) fn show(self, amount: u64) -> String {
        let units: &[(&str, u64)] = match self {
            Self::Count => &[("", 1)],
            Self::Bytes => &SIZES,
            Self::Millis => &TIMES,
        };
        let fits = |(_, factor): &&(&str, u64)| amount != 0 && amount.is_multiple_of(*factor);
        let (unit, factor) = units.iter().find(fits).or(units.last()).unwrap_or(&("", 1));
        format!("{}{unit}", amount / factor)
    }
}

/// `64MiB`; powers of two only, so that nobody has to guess.
fn bytes(text: &str) -> Option<u64> {
    let (unit, factor) = SIZES.iter().find(|(unit, _)| text.ends_with(unit))?;
    digits(text.strip_suffix(unit)?.trim_end())?.checked_mul(*factor)
}

/// `10s`, `1h 30m`, `14d`; nothing below a millisecond.
fn millis(text: &str) -> Option<u64> {
    let time = humantime::parse_duration(text).ok()?;
    let ms = u64::try_from(time.as_millis()).ok()?;
    (Duration::from_millis(ms) == time).then_some(ms)
}

/// A share as operators write it: `5%`, `0.25%`; none when it is written otherwise.
pub fn share(text: &str) -> Option<Share> {
    Share::from_basis_points(basis_points(text)?).ok()
}

/// `5%`, `0.25%` as hundredths of a percent, exactly.
fn basis_points(text: &str) -> Option<u16> {
    let number = text.trim().strip_suffix('%')?.trim_end();
    let (whole, decimals) = number.split_once('.').unwrap_or((number, "0"));
    if decimals.is_empty() || 2 < decimals.len() {
        return None;
    }
    let total = digits(whole)?.checked_mul(100)? + digits(&format!("{decimals:0<2}"))?;
    u16::try_from(total).ok().filter(|it| *it <= 10_000)
}

fn digits(text: &str) -> Option<u64> {
    let plain = !text.is_empty() && text.bytes().all(|it| it.is_ascii_digit());
    plain.then(|| text.parse().ok())?
}

/// A prefix of paths, before those of the providers' own.
pub(super) const PREFIX: Form<String> = Form {
    name: "a prefix of your own",
    remedy: "write it like \"/search\"; applications then use …/search/v1 as their base URL",
    read: |text| {
        let plain = |it: u8| it.is_ascii_alphanumeric() || b"-._~".contains(&it);
        let part = |it: &str| !it.is_empty() && it.bytes().all(plain) && !is_version(it);
        text.strip_prefix('/')?.split('/').all(part).then(|| text.to_owned())
    },
};

/// Whether a part of a path is one that providers' paths begin with: `v1`, `v1beta`.
fn is_version(part: &str) -> bool {
    part.strip_prefix('v').is_some_and(|it| it.starts_with(|it: char| it.is_ascii_digit()))
}

/// The base address of a provider, without a slash at its end, and whether it may be a link-local
/// one.
pub(super) fn base_url(table: &Table<'_>) -> Option<(String, LinkLocal)> {
    const KEY: &str = "base_url";
    const REMEDY: &str = "write it like \"https://api.openai.com/v1\"";
    table.need(KEY, REMEDY);
    let link_local = table.choice("allow_link_local", LinkLocal::Allowed, LinkLocal::Refused);
    let link_local = link_local.unwrap_or_default();
    let text = table.raw(KEY, "an address", REMEDY)?;
    let fault = |problem, remedy| {
        table.fault_masked(KEY, problem, remedy);
        None
    };
    let Ok(url) = Url::parse(text) else {
        return fault("is not an absolute address", REMEDY);
    };
    if !["http", "https"].contains(&url.scheme()) {
        return fault("is neither http nor https", REMEDY);
    }
    if !url.username().is_empty() || url.password().is_some() {
        return fault("has a user or password in it", "use `key` and `auth` for credentials");
    }
    if url.query().is_some() || url.fragment().is_some() {
        return fault("has a query or fragment", "end it with the path; use `key` for credentials");
    }
    if link_local == LinkLocal::Refused && leads_there(&url) {
        let problem = "is a link-local or metadata address, where a cloud gives credentials away";
        return fault(problem, "write another one, or `allow_link_local = true` if you mean it");
    }
    Some((url.as_str().trim_end_matches('/').to_owned(), link_local))
}

/// Finds the value of an environment variable.
pub(super) type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Largest secret in a file, in bytes.
const SECRET_BYTES_MAX: u64 = 64 << 10;

/// The secret that `key` refers to.
///
/// The value itself never reaches a fault: it ends up in front of people and in logs.
pub(super) fn secret(table: &Table<'_>, environment: Environment<'_>) -> Option<SecretString> {
    const KEY: &str = "key";
    const REMEDY: &str = "refer to it by \"file:/path\" or \"env:NAME\"";
    let text = table.raw(KEY, "a reference to a secret", REMEDY)?;
    let found = match text.split_once(':') {
        Some(("file", path)) => read_bounded(Path::new(path), SECRET_BYTES_MAX)
            .map_err(|error| format!("refers to a file that cannot be read: {error}")),
        Some(("env", name)) if is_variable(name) => environment(name)
            .ok_or_else(|| format!("refers to the variable {name}, which is not set")),
        Some(_) | None => {
            table.fault_masked(KEY, "is written out", REMEDY);
            return None;
        }
    };
    let usable = found.and_then(|secret| {
        let secret = secret.trim();
        let fits = !secret.is_empty() && secret.bytes().all(|it| it.is_ascii_graphic());
        let problem = "refers to a secret that is empty or has blanks or other strange characters";
        if fits { Ok(SecretString::from(secret)) } else { Err(problem.to_owned()) }
    });
    usable.map_err(|problem| table.fault(KEY, &problem, REMEDY)).ok()
}

fn is_variable(name: &str) -> bool {
    let plain = |it: u8| it.is_ascii_alphanumeric() || it == b'_';
    name.bytes().all(plain) && name.bytes().next().is_some_and(|it| !it.is_ascii_digit())
}

/// Reads a file of at most so many bytes.
pub(super) fn read_bounded(path: &Path, bytes_max: u64) -> io::Result<String> {
    let mut text = String::new();
    let read = File::open(path)?.take(bytes_max + 1).read_to_string(&mut text)?;
    if u64::try_from(read).is_ok_and(|it| it <= bytes_max) {
        return Ok(text);
    }
    Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("more than {bytes_max} bytes")))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// F6
    #[test]
    fn a_share_is_read_exactly_or_not_at_all() {
        let read = |text| (SHARE.read)(text).map(Share::basis_points);
        assert_eq!(
            ["0%", "5%", "0.1%", "0.25%", "1.5 %", "100%"].map(read),
            [0, 500, 10, 25, 150, 10_000].map(Some)
        );
        for text in ["5", "0.001%", "100.01%", "-1%", "5.%", ".5%", "%", "+5%", "1e1%", ""] {
            assert_eq!(read(text), None, "{text}");
        }
    }

    #[test]
    fn an_amount_reads_back_as_it_is_shown() {
        for (unit, text) in [
            (Unit::Bytes, "64MiB"),
            (Unit::Bytes, "10GiB"),
            (Unit::Bytes, "1000B"),
            (Unit::Bytes, "0B"),
            (Unit::Millis, "10s"),
            (Unit::Millis, "14d"),
            (Unit::Millis, "90m"),
            (Unit::Millis, "1ms"),
        ] {
            assert_eq!(unit.show(unit.read(text).unwrap()), text);
        }
        assert_eq!(millis("1h 30m"), Some(5_400_000));
        for text in ["8MB", "8", "MiB", "-1MiB", "99999999999TiB"] {
            assert_eq!(bytes(text), None, "{text}");
        }
        for text in ["10", "1us", "s", "-1s", ""] {
            assert_eq!(millis(text), None, "{text}");
        }
    }

    #[test]
    fn a_secret_file_larger_than_its_limit_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "12345").unwrap();
        assert_eq!(read_bounded(file.path(), 5).unwrap(), "12345");
        assert_eq!(read_bounded(file.path(), 4).unwrap_err().to_string(), "more than 4 bytes");
    }
}
