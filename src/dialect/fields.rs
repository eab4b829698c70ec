//! The top level of a JSON object: names, and values as they stand in the text.

use std::{fmt, ops::Range};

use serde::{
    Deserialize, Deserializer,
    de::{self, MapAccess, SeqAccess, Visitor},
};
use serde_json::value::RawValue;

/// Names one object may have. Real requests have under fifty; finding duplicates is quadratic.
const NAMES_MAX: usize = 256;

/// The members of one JSON object. A name that comes twice is an error: readers differ on it.
#[derive(Debug)]
pub(super) struct Fields<'a>(Vec<(String, &'a RawValue)>);

impl<'a> Fields<'a> {
    /// The members of a text that is one JSON object.
    pub(super) fn parse(text: &'a [u8]) -> Option<Self> {
        serde_json::from_slice(text).ok()
    }

    /// The value as it stands, `null` included.
    pub(super) fn raw(&self, name: &str) -> Option<&'a RawValue> {
        self.0.iter().find(|(it, _)| it == name).map(|(_, value)| *value)
    }

    /// The value as text; `null` is the same as absent.
    pub(super) fn get(&self, name: &str) -> Option<&'a str> {
        self.raw(name).map(RawValue::get).filter(|it| *it != "null")
    }

    /// Whether there is a value other than `null`.
    pub(super) fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// Whether the value is `true`.
    pub(super) fn is_true(&self, name: &str) -> bool {
        self.get(name) == Some("true")
    }

    /// The value if it can be read as this type.
    pub(super) fn read<T: Deserialize<'a>>(&self, name: &str) -> Option<T> {
        serde_json::from_str(self.get(name)?).ok()
    }

    /// A text that is not empty.
    pub(super) fn text(&self, name: &str) -> Option<String> {
        self.read::<String>(name).filter(|it| !it.is_empty())
    }

    /// The value at a place: that of a name, or of a name in the object below another.
    fn at(&self, place: &str) -> Option<&'a RawValue> {
        match place.split_once('.') {
            Some((name, rest)) => self.read::<Fields<'a>>(name)?.at(rest),
            None => self.raw(place),
        }
    }

    /// Every name with its value, in order.
    pub(super) fn into_members(self) -> Vec<(String, &'a RawValue)> {
        self.0
    }

    /// The names, in order.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(name, _)| name.as_str())
    }
}

/// Items a list may have that is looked into. Real conversations have some hundred messages.
const ITEMS_MAX: usize = 16_384;

/// The items of one JSON list; one that is too long is an error.
#[derive(Debug)]
pub(super) struct Items<'a>(pub(super) Vec<&'a RawValue>);

/// What stands at places of a JSON object, written as names with dots between: a text, the texts
/// of a list, and of anything else its JSON. Nothing where there is none, or where nobody asks.
pub fn at<const N: usize>(body: &[u8], places: [&str; N]) -> [Vec<String>; N] {
    let fields = Fields::parse(body);
    places.map(|place| {
        let value = fields.as_ref().and_then(|it| it.at(place)).map(RawValue::get);
        value.filter(|it| *it != "null").map_or_else(Vec::new, texts)
    })
}

/// A text, or a list of what may be texts; of anything else its JSON.
fn texts(json: &str) -> Vec<String> {
    let one = || serde_json::from_str(json).unwrap_or_else(|_| json.to_owned());
    let list = serde_json::from_str::<Vec<&RawValue>>(json);
    list.map_or_else(|_| vec![one()], |list| list.iter().flat_map(|it| texts(it.get())).collect())
}

/// Where a value stands in the bytes it was borrowed from.
pub(super) fn span(bytes: &[u8], value: &RawValue) -> Range<usize> {
    let start = value.get().as_ptr().addr().saturating_sub(bytes.as_ptr().addr());
    start..start + value.get().len()
}

impl<'de> Deserialize<'de> for Fields<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Members)
    }
}

struct Members;

impl<'de> Visitor<'de> for Members {
    type Value = Fields<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object with every name once")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members: Vec<(String, &'de RawValue)> = Vec::new();
        while let Some((name, value)) = map.next_entry::<String, &'de RawValue>()? {
            if members.len() >= NAMES_MAX {
                return Err(de::Error::custom("too many names"));
            }
            if members.iter().any(|(it, _)| *it == name) {
                return Err(de::Error::custom("a name comes twice"));
            }
            members.push((name, value));
        }
        Ok(Fields(members))
    }
}

impl<'de> Deserialize<'de> for Items<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(Listed)
    }
}

struct Listed;

impl<'de> Visitor<'de> for Listed {
    type Value = Items<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON list that is not too long")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = list.next_element()? {
            if items.len() >= ITEMS_MAX {
                return Err(de::Error::custom("too many items"));
            }
            items.push(item);
        }
        Ok(Items(items))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_stand_where_their_span_says() {
        let body = br#" { "a" : [1, {"b":2}] , "mod\u0065l": "x" , "n": null } "#;
        let fields = Fields::parse(body).unwrap();
        let at = |name: &str| &body[span(body, fields.raw(name).unwrap())];
        assert_eq!(at("a"), br#"[1, {"b":2}]"#);
        assert_eq!(at("model"), br#""x""#);
        assert_eq!(at("n"), b"null");
        assert!(!fields.has("n"));
    }

    #[test]
    fn a_place_holds_a_text_a_list_or_something_else() {
        let body = br#"{"metadata":{"a":{"b":"c\u0040"},"list":["x",["y"],7],"n":12},"nil":null}"#;
        let places =
            ["metadata.a.b", "metadata.list", "metadata.n", "metadata.a", "nil", "x.y", ""];
        let [text, list, number, object, nil, missing, nowhere] = at(body, places);
        assert_eq!((text, list), (vec!["c@".to_owned()], ["x", "y", "7"].map(String::from).into()));
        assert_eq!(
            (number, object),
            (vec!["12".to_owned()], vec![r#"{"b":"c\u0040"}"#.to_owned()])
        );
        assert!(nil.is_empty() && missing.is_empty() && nowhere.is_empty());
        assert_eq!(at(b"[1]", ["a"]), [Vec::<String>::new()]);
    }

    #[test]
    fn what_two_readers_could_take_differently_is_refused() {
        assert!(Fields::parse(br#"{"model":"a","model":"b"}"#).is_none());
        assert!(Fields::parse(br#"{"model":"a","mod\u0065l":"b"}"#).is_none());
        assert!(Fields::parse(br#"{"a":1} {}"#).is_none());
        assert!(Fields::parse(br"[1]").is_none());
        assert!(Fields::parse(b"{\"a\":\"\xff\"}").is_none());
        let many: Vec<String> = (0..=NAMES_MAX).map(|it| format!("\"{it}\":0")).collect();
        assert!(Fields::parse(format!("{{{}}}", many.join(",")).as_bytes()).is_none());
    }

    #[test]
    fn a_list_that_is_too_long_is_not_looked_into() {
        let list = |len: usize| format!("[{}]", vec!["{}"; len].join(","));
        let len = |text: &str| serde_json::from_str(text).ok().map(|Items(items)| items.len());
        assert_eq!(len(&list(ITEMS_MAX)), Some(ITEMS_MAX));
        assert_eq!([list(ITEMS_MAX + 1), "{}".to_owned()].map(|it| len(&it)), [None, None]);
    }
}
