//! A share of traffic.

use std::fmt;

/// A share of traffic in basis points: 0 is none, 10 000 is all.
///
/// Basis points and not a float, so that 1% means the same requests everywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Share(u16);

/// A share above 100%.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} basis points is more than all traffic (10000)")]
pub struct ShareError(u16);

impl Share {
    /// No traffic.
    pub const NONE: Self = Self(0);
    /// All traffic.
    pub const ALL: Self = Self(10_000);

    /// A share from basis points.
    ///
    /// # Errors
    /// Refuses more than 10 000.
    pub fn from_basis_points(basis_points: u16) -> Result<Self, ShareError> {
        if Self::ALL.0 < basis_points {
            return Err(ShareError(basis_points));
        }
        Ok(Self(basis_points))
    }

    /// The share in basis points, 0 to 10 000.
    pub fn basis_points(self) -> u16 {
        self.0
    }

    /// Whether this is no traffic at all.
    pub fn is_none(self) -> bool {
        self == Self::NONE
    }

    /// Whether the request with this key falls inside the share.
    ///
    /// The answer depends on the two arguments alone, and raising the share only
    /// ever adds keys: a user who got the candidate at 5% still gets it at 20%.
    pub fn includes(self, salt: &str, key: &str) -> bool {
        bucket(salt, key) < self.0
    }
}

impl fmt::Display for Share {
    /// `5%`, `0.1%`: as few digits as say it exactly.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, rest) = (self.0 / 100, self.0 % 100);
        match (rest, rest % 10) {
            (0, _) => write!(f, "{whole}%"),
            (_, 0) => write!(f, "{whole}.{}%", rest / 10),
            (_, _) => write!(f, "{whole}.{rest:02}%"),
        }
    }
}

/// The place of a key among 10 000, as good as random for each salt: below a share is inside.
pub(super) fn bucket(salt: &str, key: &str) -> u16 {
    u16::try_from(hash(salt, key) % 10_000).unwrap_or(0)
}

/// A hash that stays the same for ever.
///
/// FNV-1a, 64 bit, with the splitmix64 finaliser, written out because the
/// standard library's hasher may change between Rust releases and a rollout may not.
pub fn hash(salt: &str, key: &str) -> u64 {
    let bytes = salt.bytes().chain([0]).chain(key.bytes());
    let mut hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share(basis_points: u16) -> Share {
        Share::from_basis_points(basis_points).unwrap()
    }

    /// F6 INV12
    #[test]
    fn raising_a_share_only_adds_keys() {
        for user in 0..2_000 {
            let key = user.to_string();
            if share(500).includes("chat", &key) {
                assert!(share(2_000).includes("chat", &key));
            }
        }
    }

    /// Values of another program: were they to change, a new release would move users about.
    #[test]
    fn a_key_has_the_same_place_in_every_release() {
        assert_eq!(hash("chat", "user-1"), 0x6fc0_016d_a893_9933);
        assert_eq!(hash("", ""), 0x25fc_6dd3_6ce0_4b20);
        assert_eq!(bucket("chat", "user-1"), 5_187);
        assert!(share(5_188).includes("chat", "user-1"));
        assert!(!share(5_187).includes("chat", "user-1"));
    }

    #[test]
    fn a_share_takes_about_its_part_of_keys() {
        let hits =
            (0..100_000).filter(|n: &u32| share(500).includes("chat", &n.to_string())).count();
        assert!((4_700..5_300).contains(&hits), "{hits} of 100000 at 5%");
    }

    /// A million keys, for two rollouts: within five standard deviations of dice, everywhere.
    #[test]
    fn b12_shares_are_as_exact_as_dice_and_rising_they_only_add_keys() {
        let mut places = vec![0_i64; 10_000];
        for salt in ["serve/chat", "serve/search"] {
            places.fill(0);
            for key in 0..1_000_000 {
                places[usize::from(bucket(salt, &format!("user-{key}")))] += 1;
            }
            let mut inside = 0;
            for (basis_points, hits) in (1_i64..).zip(&places) {
                inside += hits;
                let off = inside - 100 * basis_points;
                let variance = basis_points * (10_000 - basis_points) / 100;
                assert!(off * off <= 25 * variance, "{off} of a million off at {basis_points}");
            }
            // Chi-squared of 9,999 degrees of freedom.
            let spread: i64 = places.iter().map(|it| (it - 100) * (it - 100)).sum::<i64>() / 100;
            assert!((9_999 - 707..9_999 + 707).contains(&spread), "{spread}");
        }
        for key in 0..10_000 {
            let key = key.to_string();
            let ladder = [0, 1, 100, 500, 2_000, 5_000, 10_000];
            let sides = ladder.map(|it| share(it).includes("serve/chat", &key));
            assert!(sides.is_sorted() && !sides[0] && sides[6]);
        }
    }

    #[test]
    fn a_share_reads_as_percent() {
        let shown = [0, 1, 10, 100, 550, 10_000].map(|it| share(it).to_string());
        assert_eq!(shown, ["0%", "0.01%", "0.1%", "1%", "5.5%", "100%"]);
    }

    #[test]
    fn none_takes_nobody_and_all_takes_everybody() {
        assert!(!Share::NONE.includes("chat", "anyone"));
        assert!(Share::ALL.includes("chat", "anyone"));
        assert_eq!(Share::from_basis_points(10_001), Err(ShareError(10_001)));
    }
}
