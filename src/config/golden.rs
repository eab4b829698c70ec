//! The golden set that has to be answered before a rollout's first stage begins.

use std::path::Path;

use crate::domain::{Golden, golden_digest};

use super::{
    form::{Form, SHARE, SOME, read_bounded},
    table::Table,
};

/// Largest set that is read, in bytes.
const SET_BYTES_MAX: u64 = 64 << 20;

/// `2pp` as basis points.
const POINTS: Form<u32> = Form {
    name: "a number of percentage points",
    remedy: "write it like \"2pp\" or \"0.5pp\", at most two decimals",
    read: |text| {
        let percent = format!("{}%", text.strip_suffix("pp")?);
        Some(u32::from((SHARE.read)(&percent)?.basis_points()))
    },
};

/// What a rollout requires, if anything.
pub(super) fn golden(rollout: &Table<'_>) -> Option<Golden> {
    const REMEDY: &str = "name the file of a golden set, as `crossfade replay` takes it";
    let table = rollout.table("golden")?;
    table.need("set", REMEDY);
    table.need("within", POINTS.remedy);
    let file = table.text("set", &SOME);
    let within_bps = table.text("within", &POINTS);
    table.close();
    let file = file?;
    match read_bounded(Path::new(&file), SET_BYTES_MAX) {
        Ok(text) => {
            let set = Path::new(&file).file_stem().unwrap_or_default();
            let (set, digest) = (set.to_string_lossy().into_owned(), golden_digest(&text));
            Some(Golden { set, file, digest, within_bps: within_bps? })
        }
        Err(error) => {
            table.fault("set", &format!("refers to a file that cannot be read: {error}"), REMEDY);
            None
        }
    }
}
