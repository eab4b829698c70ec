//! Messages as canonical protobuf JSON, by the descriptors the program carries.

use std::sync::LazyLock;

use prost::{DecodeError, Message};
use prost_reflect::{
    DescriptorPool, DeserializeOptions, DynamicMessage, MessageDescriptor, SerializeOptions,
};

use super::DESCRIPTORS;

/// Why a message could not be turned to or from JSON.
#[derive(Debug, thiserror::Error)]
pub enum JsonError {
    /// Not of this API.
    #[error("`{0}` is no message of crossfade.v1")]
    Unknown(&'static str),
    /// Not that message.
    #[error("not a {0}")]
    Shape(&'static str, #[source] serde_json::Error),
    /// The bytes do not fit.
    #[error("not a {0}")]
    Bytes(&'static str, #[source] DecodeError),
}

/// A message of `crossfade.v1` as one line of JSON, with every field of it there.
///
/// # Errors
/// When `name` is not the message's name.
pub fn to_json(name: &'static str, message: &impl Message) -> Result<String, JsonError> {
    let mut dynamic = DynamicMessage::new(descriptor(name)?);
    dynamic.transcode_from(message).map_err(|error| JsonError::Bytes(name, error))?;
    let options = SerializeOptions::new().skip_default_fields(false);
    let mut out = Vec::new();
    dynamic
        .serialize_with_options(&mut serde_json::Serializer::new(&mut out), &options)
        .map_err(|error| JsonError::Shape(name, error))?;
    Ok(String::from_utf8_lossy(&out).into_owned())
}

/// A message of `crossfade.v1` from JSON. Unknown fields are errors.
///
/// # Errors
/// When the text is not JSON of that message.
pub fn from_json<T: Message + Default>(name: &'static str, text: &str) -> Result<T, JsonError> {
    let mut reader = serde_json::Deserializer::from_str(text);
    let options = DeserializeOptions::new();
    let read = DynamicMessage::deserialize_with_options(descriptor(name)?, &mut reader, &options);
    let dynamic = read.and_then(|it| reader.end().map(|()| it));
    let dynamic = dynamic.map_err(|error| JsonError::Shape(name, error))?;
    dynamic.transcode_to().map_err(|error| JsonError::Bytes(name, error))
}

fn descriptor(name: &'static str) -> Result<MessageDescriptor, JsonError> {
    #[expect(clippy::expect_used, reason = "a broken build cannot be handled at run time")]
    static POOL: LazyLock<DescriptorPool> = LazyLock::new(|| {
        DescriptorPool::decode(DESCRIPTORS).expect("the build script wrote these descriptors")
    });
    let full = format!("crossfade.v1.{name}");
    POOL.get_message_by_name(&full).ok_or(JsonError::Unknown(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::proto::{Rollout, rollout::State};

    #[test]
    fn a_message_reads_back_from_its_json() {
        let rollout = Rollout {
            name: "rollouts/chat".to_owned(),
            state: State::RolledBack.into(),
            revision: 41,
            ..Rollout::default()
        };
        let json = to_json("Rollout", &rollout).unwrap();
        assert!(json.contains(r#""state":"STATE_ROLLED_BACK""#), "{json}");
        assert!(json.contains(r#""stageIndex":0"#), "{json}");
        assert_eq!(from_json::<Rollout>("Rollout", &json).unwrap(), rollout);
    }

    #[test]
    fn a_misspelt_field_is_an_error_that_names_it() {
        let error = from_json::<Rollout>("Rollout", r#"{"candidte": "x"}"#).unwrap_err();
        let cause = std::error::Error::source(&error).unwrap().to_string();
        assert!(cause.contains("candidte"), "{cause}");
        assert!(matches!(to_json("Nothing", &Rollout::default()), Err(JsonError::Unknown(_))));
    }
}
