//! What all records share: JSON that carries a version, exact floats, values that are checked.

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::domain::{Name, Share};

/// The latest version of any record, up to which everything is read.
///
/// Fields are only added, with a default; a reader ignores those it does not know. What an
/// older program must not overlook, such as a new kind of event, raises the version.
pub(super) const VERSION: u32 = 2;

/// Why a stored record cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// It is not JSON of the expected form.
    #[error("it is not the JSON that was expected")]
    Json(#[from] serde_json::Error),
    /// A later version wrote it.
    #[error("it has version {found}, this program reads up to {VERSION}: use a newer program")]
    Newer {
        /// Its version.
        found: u32,
    },
    /// A field holds what no version wrote.
    #[error("`{field}` cannot be `{value}`")]
    Value {
        /// The field.
        field: &'static str,
        /// What it holds.
        value: String,
    },
    /// The parts of a pair do not add up.
    #[error("its parts do not add up")]
    Parts,
    /// It cannot be unpacked.
    #[error("it cannot be unpacked")]
    Unpack(#[source] std::io::Error),
}

#[derive(Deserialize)]
struct Versioned {
    v: u32,
}

/// A record as JSON.
#[expect(clippy::expect_used, reason = "our records have no maps and no fallible fields")]
pub(super) fn encode<T: Serialize>(record: &T) -> Vec<u8> {
    serde_json::to_vec(record).expect("plain structs of texts and numbers become JSON")
}

/// A record from JSON, unless a later version wrote it.
pub(super) fn decode<T: DeserializeOwned>(json: &[u8]) -> Result<T, DecodeError> {
    let Versioned { v } = serde_json::from_slice(json)?;
    if VERSION < v {
        return Err(DecodeError::Newer { found: v });
    }
    Ok(serde_json::from_slice(json)?)
}

/// A field's checked value, or what is wrong with the field.
pub(super) fn known<T>(
    field: &'static str,
    text: &str,
    value: Option<T>,
) -> Result<T, DecodeError> {
    value.ok_or_else(|| DecodeError::Value { field, value: text.to_owned() })
}

/// A field that holds a name.
pub(super) fn name(field: &'static str, text: &str) -> Result<Name, DecodeError> {
    known(field, text, text.parse().ok())
}

/// A field that holds a share in basis points.
pub(super) fn share(field: &'static str, basis_points: u16) -> Result<Share, DecodeError> {
    known(field, &basis_points.to_string(), Share::from_basis_points(basis_points).ok())
}

/// A text as it is, or its beginning when it is longer than `len_max` bytes.
pub(super) fn shortened(text: &str, len_max: usize) -> String {
    text[..text.floor_char_boundary(len_max)].to_owned()
}

/// Floats as text: JSON has no infinity and its readers round; evidence needs both right.
pub(super) mod float {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for this form")]
    pub(in crate::store) fn serialize<S: Serializer>(
        float: &f64,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&format!("{float:?}"))
    }

    pub(in crate::store) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<f64, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Serialize, Deserialize)]
    struct Sample {
        v: u32,
        #[serde(with = "float")]
        value: f64,
    }

    #[test]
    fn floats_read_back_to_the_last_bit() {
        for value in [0.1 + 0.2, -0.0, f64::INFINITY, f64::NEG_INFINITY, f64::MAX, 5e-324] {
            let back: Sample = decode(&encode(&Sample { v: 1, value })).unwrap();
            assert_eq!(back.value.to_bits(), value.to_bits());
        }
        let back: Sample = decode(&encode(&Sample { v: 1, value: f64::NAN })).unwrap();
        assert!(back.value.is_nan());
    }

    #[test]
    fn unknown_fields_are_ignored_and_later_versions_refused() {
        assert!(decode::<Sample>(br#"{"v":1,"value":"1.5","new":[]}"#).is_ok());
        let newer = decode::<Sample>(br#"{"v":3,"other":"shape"}"#).unwrap_err();
        assert!(matches!(newer, DecodeError::Newer { found: 3 }));
    }

    #[test]
    fn a_long_text_is_cut_between_characters() {
        assert_eq!(shortened("naïve", 3), "na");
        assert_eq!(shortened("short", 9), "short");
    }
}
