//! Content codings undone, within a bound.

use std::{borrow::Cow, io::Read};

use brotli_decompressor::Decompressor;
use flate2::read::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};

use super::End;

/// The most that is kept of a decoded body: as JSON it may take ten times that, for a moment.
const DECODED_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// Codings one body may have on top of each other.
const CODINGS_MAX: usize = 2;

/// Bytes read ahead of a brotli stream.
const BROTLI_BUFFER_LEN: usize = 4_096;

/// The largest window a zstd stream may ask for: 8 MiB. Source: RFC 9659.
const ZSTD_WINDOW_LOG_MAX: u32 = 23;

/// A body in plain bytes, and how it ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Decoded<'a> {
    pub(super) bytes: Cow<'a, [u8]>,
    pub(super) end: End,
}

/// Undoes a `content-encoding`; none when it has a coding we do not know.
///
/// A body that was cut gives what its beginning holds.
pub(super) fn decode<'a>(encoding: &str, body: &'a [u8], end: End) -> Option<Decoded<'a>> {
    let named = |it: &&str| !it.is_empty() && !it.eq_ignore_ascii_case("identity");
    let codings: Vec<&str> = encoding.split(',').map(str::trim).filter(named).collect();
    if codings.len() > CODINGS_MAX {
        return None;
    }
    let mut decoded = Decoded { bytes: Cow::Borrowed(body), end };
    for coding in codings.iter().rev() {
        if decoded.bytes.is_empty() {
            break;
        }
        decoded = undo(&coding.to_ascii_lowercase(), &decoded)?;
    }
    Some(decoded)
}

fn undo<'a>(coding: &str, from: &Decoded<'_>) -> Option<Decoded<'a>> {
    let bytes = &*from.bytes;
    let (bytes, complete) = match coding {
        "gzip" | "x-gzip" => bounded(MultiGzDecoder::new(bytes)),
        "deflate" if is_zlib(bytes) => bounded(ZlibDecoder::new(bytes)),
        "deflate" => bounded(DeflateDecoder::new(bytes)),
        "br" if has_large_window(bytes) => (Vec::new(), End::Broken),
        "br" => bounded(Decompressor::new(bytes, BROTLI_BUFFER_LEN)),
        "zstd" => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(bytes).ok()?;
            decoder.window_log_max(ZSTD_WINDOW_LOG_MAX).ok()?;
            bounded(decoder)
        }
        _ => return None,
    };
    let end = match (from.end, complete) {
        (End::Whole, complete) => complete,
        (End::Broken, _) => End::Broken,
        (End::Cut, _) => End::Cut,
    };
    Some(Decoded { bytes: Cow::Owned(bytes), end })
}

fn bounded(decoder: impl Read) -> (Vec<u8>, End) {
    let mut bytes = Vec::new();
    let mut decoder = decoder.take(DECODED_BYTES_MAX);
    match decoder.read_to_end(&mut bytes) {
        // A body that fills the bound to the byte counts as cut: nobody can tell.
        Ok(_) if decoder.limit() == 0 => (bytes, End::Cut),
        Ok(_) => (bytes, End::Whole),
        // What was decoded before the error is in `bytes`.
        Err(_) => (bytes, End::Broken),
    }
}

/// Whether a brotli stream asks for a window of up to 1 GiB, as RFC 7932 does not let it: with that,
/// it is at most 16 MiB.
fn has_large_window(bytes: &[u8]) -> bool {
    bytes.first().is_some_and(|it| it & 0x7f == 0x11)
}

/// Whether the "deflate" is in a zlib frame, as the standard wants and not everybody does.
fn is_zlib(bytes: &[u8]) -> bool {
    match bytes {
        [first, second, ..] => {
            first & 0x0f == 8 && u16::from_be_bytes([*first, *second]).is_multiple_of(31)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::{
        Compression,
        write::{DeflateEncoder, GzEncoder, ZlibEncoder},
    };

    use super::*;

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    fn decoded(encoding: &str, body: &[u8]) -> (Vec<u8>, End) {
        let decoded = decode(encoding, body, End::Whole).unwrap();
        (decoded.bytes.into_owned(), decoded.end)
    }

    #[test]
    fn known_codings_are_undone() {
        let text = b"a plain text, a plain text".to_vec();
        let whole = (text.clone(), End::Whole);
        assert_eq!(decoded("", &text), whole);
        assert_eq!(decoded("identity", &text), whole);
        assert_eq!(decoded("GZIP", &gzip(&text)), whole);
        assert_eq!(decoded("gzip, gzip", &gzip(&gzip(&text))), whole);
        assert_eq!(decoded("zstd", &zstd::encode_all(&text[..], 3).unwrap()), whole);
        let mut zlib = ZlibEncoder::new(Vec::new(), Compression::default());
        zlib.write_all(&text).unwrap();
        assert_eq!(decoded("deflate", &zlib.finish().unwrap()), whole);
        let mut raw = DeflateEncoder::new(Vec::new(), Compression::default());
        raw.write_all(&text).unwrap();
        assert_eq!(decoded("deflate", &raw.finish().unwrap()), whole);
        assert_eq!(decoded("br", &BROTLI), whole);
        assert_eq!(decoded("gzip", b""), (Vec::new(), End::Whole));
    }

    /// `a plain text, a plain text`.
    const BROTLI: [u8; 20] =
        [27, 25, 0, 248, 37, 65, 88, 194, 82, 144, 69, 162, 201, 7, 80, 72, 167, 87, 105, 1];

    /// Zeros, 17 MiB of them.
    const BROTLI_BOMB: [u8; 40] = [
        203, 255, 255, 63, 248, 39, 0, 226, 177, 64, 32, 247, 254, 143, 255, 255, 127, 240, 79, 0,
        196, 97, 17, 128, 238, 253, 95, 253, 255, 63, 254, 9, 128, 56, 44, 0, 208, 189, 127, 0,
    ];

    #[test]
    fn unknown_or_endless_codings_are_not() {
        assert_eq!(decode("sdch", b"x", End::Whole), None);
        assert_eq!(decoded("br", b"\x11\x9e").1, End::Broken);
        assert_eq!(decode("gzip, gzip, gzip", b"x", End::Whole), None);
    }

    #[test]
    fn half_a_body_gives_its_beginning() {
        let noise: Vec<u8> =
            (0_u32..60_000).flat_map(|it| it.wrapping_mul(2_654_435_761).to_be_bytes()).collect();
        let zipped = gzip(&noise);
        let half = &zipped[..zipped.len() / 2];
        let (bytes, end) = decoded("gzip", half);
        assert_eq!(end, End::Broken);
        assert!(!bytes.is_empty() && noise.starts_with(&bytes));
        assert_eq!(decode("gzip", half, End::Cut).unwrap().end, End::Cut);
        let (bytes, end) = decoded("br", &BROTLI[..17]);
        assert!(b"a plain text, a plain text".starts_with(&bytes) && end == End::Broken);
    }

    #[test]
    fn a_bomb_is_cut_at_the_bound() {
        let bomb = gzip(&vec![0; 17 * 1024 * 1024]);
        for (coding, bomb) in [("gzip", &bomb[..]), ("br", &BROTLI_BOMB)] {
            let (bytes, end) = decoded(coding, bomb);
            assert_eq!(u64::try_from(bytes.len()).unwrap(), DECODED_BYTES_MAX, "{coding}");
            assert_eq!(end, End::Cut, "{coding}");
        }
    }
}
