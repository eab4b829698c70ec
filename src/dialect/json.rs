//! JSON as answers have it, read once and looked at in few places: its texts stay where they were
//! read, unless an escape has to be undone.

use std::{borrow::Cow, fmt, ops::Index};

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{Error, MapAccess, SeqAccess, Visitor},
};
use serde_json::Number;

/// Any JSON value. What is not there is [`Json::Null`].
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Json<'a> {
    Null,
    Bool(bool),
    Number(Number),
    Text(Cow<'a, str>),
    List(Vec<Self>),
    /// Members in their order. Of those of one name the last one counts, as for most readers.
    Object(Vec<(Cow<'a, str>, Self)>),
}

static NULL: Json<'static> = Json::Null;

impl<'a> Json<'a> {
    /// The value of some bytes.
    pub(super) fn read(bytes: &'a [u8]) -> serde_json::Result<Self> {
        // All at once it costs less to see that they are UTF-8 than text by text.
        str::from_utf8(bytes).map_or_else(|_| serde_json::from_slice(bytes), serde_json::from_str)
    }

    pub(super) fn is_null(&self) -> bool {
        *self == Self::Null
    }

    pub(super) fn is_object(&self) -> bool {
        matches!(self, Self::Object(_))
    }

    /// A list's items; none in anything else.
    pub(super) fn items(&self) -> &[Self] {
        match self {
            Self::List(items) => items,
            Self::Null | Self::Bool(_) | Self::Number(_) | Self::Text(_) | Self::Object(_) => &[],
        }
    }

    pub(super) fn as_str(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Null | Self::Bool(_) | Self::Number(_) | Self::List(_) | Self::Object(_) => None,
        }
    }

    pub(super) fn as_u64(&self) -> Option<u64> {
        match self {
            Self::Number(number) => number.as_u64(),
            Self::Null | Self::Bool(_) | Self::Text(_) | Self::List(_) | Self::Object(_) => None,
        }
    }
}

impl Index<&str> for Json<'_> {
    type Output = Self;

    fn index(&self, name: &str) -> &Self {
        match self {
            Self::Object(members) => {
                members.iter().rev().find(|it| it.0 == name).map_or(&NULL, |it| &it.1)
            }
            Self::Null | Self::Bool(_) | Self::Number(_) | Self::Text(_) | Self::List(_) => &NULL,
        }
    }
}

/// Its JSON, without spaces.
impl fmt::Display for Json<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&serde_json::to_string(self).map_err(|_| fmt::Error)?)
    }
}

impl Serialize for Json<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null => serializer.serialize_unit(),
            Self::Bool(value) => serializer.serialize_bool(*value),
            Self::Number(number) => number.serialize(serializer),
            Self::Text(text) => serializer.serialize_str(text),
            Self::List(items) => serializer.collect_seq(items),
            Self::Object(members) => {
                serializer.collect_map(members.iter().map(|it| (&it.0, &it.1)))
            }
        }
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Json<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reader)
    }
}

/// A member's name, which stays where it was read too.
#[derive(Deserialize)]
struct Key<'a>(#[serde(borrow)] Cow<'a, str>);

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Json<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_unit<E: Error>(self) -> Result<Json<'de>, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Json<'de>, E> {
        Ok(Json::Bool(value))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Json<'de>, E> {
        Ok(Json::Number(value.into()))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Json<'de>, E> {
        Ok(Json::Number(value.into()))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Json<'de>, E> {
        Ok(Number::from_f64(value).map_or(Json::Null, Json::Number))
    }

    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Json<'de>, E> {
        Ok(Json::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Json<'de>, E> {
        Ok(Json::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Json<'de>, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = list.next_element()? {
            items.push(item);
        }
        Ok(Json::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Json<'de>, A::Error> {
        let mut members = Vec::new();
        while let Some((Key(name), value)) = map.next_entry()? {
            members.push((name, value));
        }
        Ok(Json::Object(members))
    }
}

/// What a value of `serde_json` is here, for tests that write theirs down with its macro.
#[cfg(test)]
impl From<&serde_json::Value> for Json<'static> {
    fn from(value: &serde_json::Value) -> Self {
        let text: &'static str = Box::leak(value.to_string().into_boxed_str());
        Self::read(text.as_bytes()).unwrap()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn it_is_what_another_reader_makes_of_it() {
        let value = json!({
            "z": [1, -2, 3.5, 1e300, true, null, "a\"\\\u{1F980}\u{7}", {}],
            "a": {"b": {"c": u64::MAX}},
        });
        let json = Json::from(&value);
        assert_eq!(serde_json::from_str::<Value>(&json.to_string()).unwrap(), value);
        assert_eq!(json.to_string(), value.to_string(), "in the same order");
        assert_eq!(json["a"]["b"]["c"].as_u64(), Some(u64::MAX));
        assert!(json["a"].is_object() && json["x"]["y"].is_null() && json["z"]["y"].is_null());
        assert_eq!((json["z"].items().len(), json["a"].items().len()), (8, 0));
    }

    #[test]
    fn texts_without_escapes_stay_where_they_are() {
        let read = Json::read(br#"{"plain":"a b","escaped":"a\tb"}"#).unwrap();
        assert!(matches!(&read["plain"], Json::Text(Cow::Borrowed("a b"))));
        assert!(matches!(&read["escaped"], Json::Text(Cow::Owned(text)) if text == "a\tb"));
        let Json::Object(members) = &read else { panic!("not an object") };
        assert!(matches!(members[0].0, Cow::Borrowed("plain")));
    }

    #[test]
    fn of_members_of_one_name_the_last_counts() {
        let read = Json::read(br#"{"a":1,"b":2,"a":3}"#).unwrap();
        assert_eq!(read["a"].as_u64(), Some(3));
    }

    #[test]
    fn nothing_is_too_deep() {
        let deep = "[".repeat(100_000);
        assert!(Json::read(deep.as_bytes()).is_err());
    }
}
