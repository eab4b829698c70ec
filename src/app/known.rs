//! What the configuration knows of callers and secrets, as the proxy takes it.

use secrecy::ExposeSecret;

use crate::config::{Config, KnownBy};
use crate::patterns::{Keys, Redactor};
use crate::proxy::{Callers, Marks};

/// The marks of applications, by whatever they are known.
pub(super) fn callers(config: &Config) -> Callers {
    let mut callers = Callers {
        fields: config.mark_fields.clone(),
        detector: config.detector.clone(),
        sticky: config.sticky.clone(),
        data_default: config.data_default.clone(),
        ..Callers::default()
    };
    for caller in &config.callers {
        let marks = Marks {
            feature: caller.feature.clone(),
            segment: caller.segment.clone(),
            data: caller.data.clone(),
        };
        match &caller.known_by {
            KnownBy::Key(key) => drop(callers.by_key.insert(key.expose_secret().to_owned(), marks)),
            KnownBy::Path(prefix) => callers.by_path.push((prefix.clone(), marks)),
        }
    }
    callers
}

/// Takes out of texts what is configured, and every key that this process knows.
pub fn redactor(config: &Config) -> Redactor {
    let providers = config.providers.iter().filter_map(|it| it.key.as_ref());
    let judge = config.judge.iter().filter_map(|it| it.key.as_ref());
    let callers = config.callers.iter().filter_map(|it| match &it.known_by {
        KnownBy::Key(key) => Some(key),
        KnownBy::Path(_) => None,
    });
    let keys = providers.chain(judge).chain(callers).map(ExposeSecret::expose_secret);
    Redactor::new(config.redacted.clone(), Keys::new(keys))
}
