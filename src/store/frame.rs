//! The log format: a header, then frames of `len u32 | crc32 u32 | payload`, little endian.
//!
//! The checksum covers the length too. A frame that does not add up is a *torn tail* when
//! nothing good follows it: the write that a crash cut short. With a good frame behind it,
//! it is *damage*: it was once whole, and something has changed it since.

/// Longest payload. Small, so that a search for the next good frame is fast.
pub(super) const PAYLOAD_LEN_MAX: usize = 1 << 20;
/// Bytes of a header: magic and format version.
pub(super) const HEADER_LEN: usize = 12;
/// Bytes before each payload.
const HEAD_LEN: usize = 8;

/// What a log file is, as its first bytes say.
#[derive(Clone, Copy, Debug)]
pub(super) struct Format {
    /// The kind of log.
    pub magic: [u8; 8],
    /// Goes up when older programs can no longer read what follows.
    pub version: u32,
}

/// Why a file is not a log we can read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HeaderFault {
    /// Its first bytes are not ours.
    Foreign,
    /// A later version wrote it.
    Newer(u32),
}

/// A payload longer than [`PAYLOAD_LEN_MAX`], or empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct WrongLen(pub usize);

/// What a scan comes across.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found<'a> {
    /// A good frame.
    Frame {
        /// Where it begins.
        offset: usize,
        /// Where the next one begins.
        end: usize,
        /// What it carries.
        payload: &'a [u8],
    },
    /// Bytes that add up to nothing, with good frames behind them.
    Damage {
        /// Where they begin.
        offset: usize,
    },
    /// Bytes that add up to nothing, up to the end.
    Torn {
        /// Where they begin.
        offset: usize,
    },
}

impl Format {
    /// The first bytes of a log.
    pub(super) fn header(self) -> [u8; HEADER_LEN] {
        let mut header = [0; HEADER_LEN];
        header[..8].copy_from_slice(&self.magic);
        header[8..].copy_from_slice(&self.version.to_le_bytes());
        header
    }

    /// Whether these are the first bytes of a log of this kind.
    pub(super) fn check(self, log: &[u8]) -> Result<(), HeaderFault> {
        if !log.starts_with(&self.magic) {
            return Err(HeaderFault::Foreign);
        }
        match number(log, 8) {
            Some(version) if self.version < version => Err(HeaderFault::Newer(version)),
            Some(version) if 0 < version => Ok(()),
            Some(_) | None => Err(HeaderFault::Foreign),
        }
    }
}

/// Adds a frame to a log.
pub(super) fn push(log: &mut Vec<u8>, payload: &[u8]) -> Result<(), WrongLen> {
    let wrong = WrongLen(payload.len());
    let len = u32::try_from(payload.len()).map_err(|_| wrong)?;
    if payload.is_empty() || PAYLOAD_LEN_MAX < payload.len() {
        return Err(wrong);
    }
    log.extend(len.to_le_bytes());
    log.extend(checksum(len, payload).to_le_bytes());
    log.extend(payload);
    Ok(())
}

/// The payload of the frame that begins at `offset`, if it adds up.
pub(super) fn payload(log: &[u8], offset: usize) -> Option<&[u8]> {
    let (len, crc) = (number(log, offset)?, number(log, offset + 4)?);
    let size = usize::try_from(len).ok()?;
    if size == 0 || PAYLOAD_LEN_MAX < size {
        return None;
    }
    let start = offset + HEAD_LEN;
    let payload = log.get(start..start + size)?;
    (checksum(len, payload) == crc).then_some(payload)
}

/// Everything in a log from `offset` on.
pub(super) fn scan(log: &[u8], mut offset: usize) -> impl Iterator<Item = Found<'_>> {
    std::iter::from_fn(move || {
        if log.len() <= offset {
            return None;
        }
        let from = offset;
        if let Some(payload) = payload(log, from) {
            offset += HEAD_LEN + payload.len();
            return Some(Found::Frame { offset: from, end: offset, payload });
        }
        let next = (from + 1..log.len()).find(|at| payload(log, *at).is_some());
        offset = next.unwrap_or(log.len());
        Some(next.map_or(Found::Torn { offset: from }, |_| Found::Damage { offset: from }))
    })
}

fn number(log: &[u8], offset: usize) -> Option<u32> {
    let bytes = log.get(offset..)?.first_chunk()?;
    Some(u32::from_le_bytes(*bytes))
}

fn checksum(len: u32, payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&len.to_le_bytes());
    hasher.update(payload);
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(payloads: &[&[u8]]) -> Vec<u8> {
        let mut log = Vec::new();
        for payload in payloads {
            push(&mut log, payload).unwrap();
        }
        log
    }

    #[test]
    fn frames_read_back_in_order() {
        let log = log(&[b"one", b"two"]);
        let found: Vec<_> = scan(&log, 0).collect();
        let one = Found::Frame { offset: 0, end: 11, payload: b"one" };
        assert_eq!(found, [one, Found::Frame { offset: 11, end: 22, payload: b"two" }]);
    }

    #[test]
    fn a_cut_anywhere_in_the_last_frame_is_a_torn_tail() {
        let log = log(&[b"one", b"two"]);
        for end in 12..log.len() {
            let last = scan(&log[..end], 0).last().unwrap();
            assert_eq!(last, Found::Torn { offset: 11 }, "cut at {end}");
        }
    }

    #[test]
    fn a_tail_of_zeros_is_torn_and_not_a_frame() {
        let mut log = log(&[b"one"]);
        log.extend([0; 100]);
        assert_eq!(scan(&log, 0).last(), Some(Found::Torn { offset: 11 }));
    }

    #[test]
    fn damage_is_passed_over_and_told() {
        let mut log = log(&[b"one", b"two", b"three"]);
        log[20] ^= 1;
        let found: Vec<_> = scan(&log, 0).collect();
        assert_eq!(found[1], Found::Damage { offset: 11 });
        assert_eq!(found[2], Found::Frame { offset: 22, end: 35, payload: b"three" });
    }

    #[test]
    fn a_payload_is_neither_empty_nor_endless() {
        assert_eq!(push(&mut Vec::new(), b""), Err(WrongLen(0)));
        let long = vec![1; PAYLOAD_LEN_MAX + 1];
        assert_eq!(push(&mut Vec::new(), &long), Err(WrongLen(long.len())));
    }

    #[test]
    fn a_header_tells_kind_and_version() {
        let format = Format { magic: *b"xf-tests", version: 2 };
        assert_eq!(format.check(&format.header()), Ok(()));
        let newer = Format { version: 3, ..format };
        assert_eq!(format.check(&newer.header()), Err(HeaderFault::Newer(3)));
        assert_eq!(format.check(b"xf-tests"), Err(HeaderFault::Foreign));
        assert_eq!(format.check(&[0; 12]), Err(HeaderFault::Foreign));
    }
}
