//! What protects callers from a provider that serves them: its breaker, and its health checks.

use crate::domain::Share;

use super::{
    form::{Form, SHARE, Unit},
    table::Table,
};

/// When a provider is no longer asked for callers, and for how long.
///
/// The defaults are no measure of quality, which gates have: recorded providers fail 1.8 to 7.3 %
/// of their calls in good health, so 10 failures in a row come once in 10¹¹ calls by chance, and
/// half of 20 once in 10⁶ at the worst of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Breaker {
    /// Share of its last calls that opens it when so many fail.
    pub failed: Share,
    /// Fewest calls among them.
    pub calls_min: u64,
    /// Failures in a row that open it.
    pub in_a_row: u64,
    /// How long it is left alone then, in milliseconds.
    pub cool_down_ms: u64,
}

impl Default for Breaker {
    fn default() -> Self {
        let failed = Share::from_basis_points(5_000).unwrap_or(Share::ALL);
        Self { failed, calls_min: 20, in_a_row: 10, cool_down_ms: 30_000 }
    }
}

/// What a provider is asked now and then while it serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// A path below its base URL, with a slash at its beginning.
    pub path: String,
    /// How often, in milliseconds.
    pub every_ms: u64,
}

/// A path below a base URL.
const PATH: Form<String> = Form {
    name: "a path",
    remedy: "write it like \"/models\": it is put behind the `base_url`",
    read: |text| {
        let plain = text.starts_with('/') && text.bytes().all(|it| it.is_ascii_graphic());
        plain.then(|| text.to_owned())
    },
};

/// The health checks of a provider; none where they are switched off.
pub(super) fn health(provider: &Table<'_>) -> Option<Health> {
    if provider.is_word("health", "off") {
        return None;
    }
    let mut health = Health { path: "/models".to_owned(), every_ms: 30_000 };
    let Some(table) = provider.table("health") else { return Some(health) };
    if let Some(path) = table.text("path", &PATH) {
        health.path = path;
    }
    if let Some(every_ms) = table.amount("every", Unit::Millis, 100..=3_600_000) {
        health.every_ms = every_ms;
    }
    table.close();
    Some(health)
}

/// The breaker of a provider; none where it is switched off.
pub(super) fn breaker(provider: &Table<'_>) -> Option<Breaker> {
    if provider.is_word("breaker", "off") {
        return None;
    }
    let mut breaker = Breaker::default();
    let Some(table) = provider.table("breaker") else { return Some(breaker) };
    if let Some(failed) = table.text("failed", &SHARE) {
        breaker.failed = failed;
        if failed.is_none() {
            table.fault("failed", "would open it without a failure", "write a share above 0%");
        }
    }
    let amount = |key, unit, range, value: &mut u64| {
        if let Some(amount) = table.amount(key, unit, range) {
            *value = amount;
        }
    };
    amount("calls_min", Unit::Count, 1..=1_000_000, &mut breaker.calls_min);
    amount("in_a_row", Unit::Count, 1..=1_000_000, &mut breaker.in_a_row);
    amount("cool_down", Unit::Millis, 10..=3_600_000, &mut breaker.cool_down_ms);
    table.close();
    Some(breaker)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::{faults, parse};

    fn with(line: &str) -> String {
        format!("[provider.a]\nbase_url = \"http://127.0.0.1:1\"\n{line}\n")
    }

    #[test]
    fn a_breaker_has_its_defaults_or_is_off() {
        let breaker = |line: &str| parse(&with(line)).unwrap().providers[0].breaker;
        assert_eq!(breaker(""), Some(Breaker::default()));
        assert_eq!(breaker("breaker = \"off\""), None);
        let mine = breaker("breaker = { failed = \"30%\", cool_down = \"1s\" }").unwrap();
        assert_eq!((mine.failed.basis_points(), mine.cool_down_ms), (3_000, 1_000));
        assert_eq!(mine.in_a_row, Breaker::default().in_a_row);
    }

    #[test]
    fn health_checks_have_their_defaults_or_are_off() {
        let health = |line: &str| parse(&with(line)).unwrap().providers[0].health.clone();
        let models = Health { path: "/models".to_owned(), every_ms: 30_000 };
        assert_eq!(health(""), Some(models.clone()));
        assert_eq!(health("health = \"off\""), None);
        let often = Health { every_ms: 500, ..models };
        assert_eq!(health("health = { every = \"500ms\" }"), Some(often));
        let told = faults(&with("health = { path = \"models\" }"));
        assert!(told.contains("`path` in [provider.a.health] is not a path"), "{told}");
    }

    #[test]
    fn a_breaker_that_would_never_close_is_a_fault() {
        let told = faults(&with("breaker = { failed = \"0%\" }"));
        assert!(told.contains("`failed` in [provider.a.breaker] would open it"), "{told}");
        let told = faults(&with("breaker = \"of\""));
        assert!(told.contains("`breaker` in [provider.a] is a string"), "{told}");
    }
}
