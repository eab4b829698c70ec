//! Keys that are known, and where they stand in a text.

use std::{fmt, ops::Range};

use memchr::memmem::Finder;

/// A shorter key is found in innocent words.
const KEY_LEN_MIN: usize = 8;

/// Keys that nobody may keep. Made ready to be looked for, so it is worth keeping for many texts.
#[derive(Clone, Default)]
pub struct Keys(Vec<Finder<'static>>);

impl Keys {
    /// These keys, less those of under eight bytes.
    pub fn new(keys: impl IntoIterator<Item: AsRef<str>>) -> Self {
        let long = keys.into_iter().filter(|it| KEY_LEN_MIN <= it.as_ref().len());
        Self(long.map(|it| Finder::new(it.as_ref()).into_owned()).collect())
    }

    /// Tells where each of them stands in a text.
    pub(super) fn each(&self, text: &str, mut tell: impl FnMut(Range<usize>)) {
        for key in &self.0 {
            let len = key.needle().len();
            key.find_iter(text.as_bytes()).for_each(|at| tell(at..at + len));
        }
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Keys").field(&self.0.len()).finish()
    }
}
