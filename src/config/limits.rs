//! Limits: every queue, body, wait and connection by name, with a default and a range.

use std::ops::RangeInclusive;

use super::{form::Unit, table::Table};

/// One row for each limit: field and type, key in the file, unit, default, range.
macro_rules! limits {
    ($(
        $(#[$doc:meta])*
        $field:ident: $type:ty = $key:literal $unit:ident $default:expr, $range:expr;
    )+) => {
        /// What may be used at most. Ranges are checked when a file is read.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct Limits {
            $($(#[$doc])* pub $field: $type,)+
        }

        impl Default for Limits {
            fn default() -> Self {
                Self { $($field: $default,)+ }
            }
        }

        impl Limits {
            pub(super) fn read(table: &Table<'_>) -> Self {
                let mut limits = Self::default();
                $(
                    let range: RangeInclusive<u64> = $range;
                    if let Some(amount) = table.amount($key, Unit::$unit, range) {
                        limits.$field = amount;
                    }
                )+
                limits
            }
        }

        #[cfg(test)]
        const ROWS: &[(&str, Unit, u64)] = &[$(($key, Unit::$unit, $default)),+];
    };
}

limits! {
    /// Largest request body accepted, in bytes.
    body_bytes_max: usize = "body_max" Bytes 64 << 20, 1 << 10..=1 << 30;
    /// Largest request body that is copied to the other side, in bytes.
    mirror_body_bytes_max: usize = "mirror_body_max" Bytes 8 << 20, 1 << 10..=1 << 30;
    /// Most of one answer that is kept with a pair, in bytes.
    capture_bytes_max: usize = "capture_max" Bytes 1 << 20, 1 << 10..=64 << 20;
    /// Copies under way at a time; more are dropped and counted.
    mirror_concurrency_max: usize = "mirror_concurrency_max" Count 256, 1..=65_536;
    /// Most memory that copies, answers that are kept, requests that are looked at and texts for
    /// the judge may hold together, in bytes; copies are dropped first, and counted.
    side_memory_bytes_max: usize = "side_memory_max" Bytes 256 << 20, 1 << 20..=1 << 40;
    /// Longest a copy may take as a whole, in milliseconds.
    mirror_timeout_ms: u64 = "mirror_timeout" Millis 120_000, 100..=3_600_000;
    /// Longest a stream may take to its first byte before another provider that may answer is
    /// asked, in milliseconds.
    first_byte_timeout_ms: u64 = "first_byte_timeout" Millis 30_000, 10..=3_600_000;
    /// Longest a connection to a provider may take to open, in milliseconds.
    upstream_connect_timeout_ms: u64 = "upstream_connect_timeout" Millis 5_000, 10..=60_000;
    /// Longest a provider may take to the head of its answer, in milliseconds.
    upstream_timeout_ms: u64 = "upstream_timeout" Millis 600_000, 100..=3_600_000;
    /// Longest a caller may take to send the head of a request, in milliseconds.
    header_read_timeout_ms: u64 = "header_read_timeout" Millis 10_000, 100..=600_000;
    /// Longest a caller may pause inside the body of a request, and longest it may be slower than
    /// 500 bytes a second in all, in milliseconds.
    body_read_timeout_ms: u64 = "body_read_timeout" Millis 30_000, 100..=3_600_000;
    /// Longest a caller may take nothing of an answer, in milliseconds.
    write_timeout_ms: u64 = "write_timeout" Millis 60_000, 100..=3_600_000;
    /// Longest a caller's connection may be without a request, in milliseconds.
    idle_timeout_ms: u64 = "idle_timeout" Millis 75_000, 100..=3_600_000;
    /// Connections of callers open at a time; where descriptors are scarce, up to half of them for
    /// requests beside others of a connection.
    connections_max: usize = "connections_max" Count 10_000, 1..=1_000_000;
    /// Observations waiting for the controller; more are dropped and counted.
    observation_queue_len_max: usize = "observation_queue_len_max" Count 8_192, 1..=1_048_576;
    /// Pairs waiting for the store; more are dropped and counted.
    recorder_queue_len_max: usize = "recorder_queue_len_max" Count 4_096, 1..=1_048_576;
    /// Pairs waiting for the judge; more are dropped and counted.
    judge_queue_len_max: usize = "judge_queue_len_max" Count 1_024, 1..=1_048_576;
    /// Most the store may take on disk, in bytes; the oldest pairs go first.
    store_bytes_max: u64 = "store_max" Bytes 10 << 30, 16 << 20..=1 << 50;
    /// Longest a pair is kept, in milliseconds.
    store_age_ms_max: u64 = "store_age_max" Millis 30 * 86_400_000, 60_000..=3_650 * 86_400_000;
    /// How long readiness is false, while callers are served as ever, before a stop begins, in
    /// milliseconds.
    drain_delay_ms: u64 = "drain_delay" Millis 0, 0..=600_000;
    /// Longest that work under way may take to end after a stop is asked for, in milliseconds.
    grace_ms: u64 = "grace" Millis 10_000, 0..=600_000;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn every_default_is_inside_its_range() {
        let rows = ROWS.iter().map(|(key, unit, amount)| match unit {
            Unit::Count => format!("{key} = {amount}\n"),
            Unit::Bytes | Unit::Millis => format!("{key} = \"{}\"\n", unit.show(*amount)),
        });
        let limits: String = rows.collect();
        let text = format!("[provider.a]\nbase_url = \"http://[::1]:1\"\n[limits]\n{limits}");
        assert_eq!(Config::parse(&text, "x.toml").unwrap().limits, Limits::default());
    }

    #[test]
    fn a_limit_outside_its_range_is_answered_with_the_range() {
        let text = "[provider.a]\nbase_url = \"http://[::1]:1\"\n[limits]\nbody_max = \"1B\"\n";
        let faults = Config::parse(text, "x.toml").unwrap_err();
        assert_eq!(
            faults.to_string(),
            "error: `body_max` in [limits] is not a size in its range at x.toml:4:12\n    4 | \
             body_max = \"1B\"\n      |            ^^^^ write it like \"8MiB\", from 1KiB to 1GiB"
        );
    }
}
