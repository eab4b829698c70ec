//! The ladder that is climbed where nobody says otherwise.

use super::{
    Approval, Gate, Margin, Role, Share,
    gate::Kind,
    plan::{Slice, Stage},
};

const HOUR_MS: u64 = 3_600_000;
const DAY_MS: u64 = 24 * HOUR_MS;

/// The field's own ladder: shadow, read-only, low-stakes, half, full.
///
/// `margins` are the gates of every stage; the 99th percentile has to be proven only
/// from the 20 % stage on, because its proof is slow. `non_critical` features and
/// `migratable` tasks narrow the second and third stage when they are named.
pub fn default_ladder(
    margins: &[Margin],
    non_critical: &[String],
    migratable: &[String],
) -> Vec<Stage> {
    #[rustfmt::skip]
    let rungs = [
        ("shadow",          0,  7, Role::Guard),
        ("read-only",     500, 14, Role::Guard),
        ("low-stakes",  2_000, 14, Role::Prove),
        ("half",        5_000,  7, Role::Prove),
        ("full",       10_000, 14, Role::Prove),
    ];
    let stage = |(name, serve, days, p99): (&str, u16, u64, Role)| Stage {
        name: name.to_owned(),
        serve: Share::from_basis_points(serve).unwrap_or(Share::NONE),
        mirror: Share::from_basis_points(100).unwrap_or(Share::NONE),
        slice: Slice {
            features: if name == "read-only" { non_critical.to_vec() } else { Vec::new() },
            tasks: if name == "low-stakes" { migratable.to_vec() } else { Vec::new() },
            ..Slice::default()
        },
        duration_ms_min: days * DAY_MS,
        duration_ms_max: None,
        delay_ms: 0,
        samples_min: 1_000,
        gates: margins
            .iter()
            .map(|&margin| match margin.metric().kind() {
                Kind::Quantile => Gate { margin, role: p99 },
                Kind::Opinion if [0, 10_000].contains(&serve) => Gate { margin, role: Role::Guard },
                Kind::Rate(_)
                | Kind::Score
                | Kind::Opinion
                | Kind::Likeness
                | Kind::Preference
                | Kind::Ratio
                | Kind::Tiers => Gate { margin, role: Role::Prove },
            })
            .collect(),
        approval: Approval::NotNeeded,
    };
    rungs.map(stage).into()
}
