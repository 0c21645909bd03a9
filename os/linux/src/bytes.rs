//! Checked reading of little-endian numbers and strings out of foreign bytes.
//!
//! Owns: [`Bytes`], a byte view whose every access says whether the bytes were there.
//! Must not know: what the bytes mean, where they came from.
//! Keeps: offsets are `u64` as in the formats; an access that leaves the view is `None`, never a panic and never a wrap.
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

/// A length as an index of this machine, as large as it gets.
pub(crate) fn index(len: u64) -> usize {
    usize::try_from(len).unwrap_or(usize::MAX)
}

/// Foreign bytes, read by offset.
#[derive(Clone, Copy)]
pub(crate) struct Bytes<'a>(pub(crate) &'a [u8]);

impl<'a> Bytes<'a> {
    /// Number of bytes.
    pub(crate) fn len(self) -> u64 {
        u64::try_from(self.0.len()).unwrap_or(u64::MAX)
    }

    /// `len` bytes from `at`.
    pub(crate) fn slice(self, at: u64, len: u64) -> Option<&'a [u8]> {
        let start = usize::try_from(at).ok()?;
        let end = start.checked_add(usize::try_from(len).ok()?)?;
        self.0.get(start..end)
    }

    fn array<const N: usize>(self, at: u64) -> Option<[u8; N]> {
        let start = usize::try_from(at).ok()?;
        self.0.get(start..)?.first_chunk::<N>().copied()
    }

    /// The byte at `at`.
    pub(crate) fn u8(self, at: u64) -> Option<u8> {
        self.array::<1>(at).map(|[byte]| byte)
    }

    /// The `u16` at `at`.
    pub(crate) fn u16(self, at: u64) -> Option<u16> {
        self.array(at).map(u16::from_le_bytes)
    }

    /// The `u32` at `at`.
    pub(crate) fn u32(self, at: u64) -> Option<u32> {
        self.array(at).map(u32::from_le_bytes)
    }

    /// The `i32` at `at`.
    pub(crate) fn i32(self, at: u64) -> Option<i32> {
        self.array(at).map(i32::from_le_bytes)
    }

    /// The `u64` at `at`.
    pub(crate) fn u64(self, at: u64) -> Option<u64> {
        self.array(at).map(u64::from_le_bytes)
    }

    /// The bytes from `at` up to, not including, the next zero byte; `None` when there is none.
    pub(crate) fn c_string(self, at: u64) -> Option<&'a [u8]> {
        let rest = self.0.get(usize::try_from(at).ok()?..)?;
        let end = memchr::memchr(0, rest)?;
        rest.get(..end)
    }

    /// As [`c_string`](Self::c_string), of at most `max` bytes: many names that share one long string cost no more than they may be long.
    pub(crate) fn short_string(self, at: u64, max: usize) -> Option<&'a [u8]> {
        let rest = self.0.get(usize::try_from(at).ok()?..)?;
        let rest = rest.get(..max.checked_add(1)?).unwrap_or(rest);
        rest.get(..memchr::memchr(0, rest)?)
    }
}

#[cfg(test)]
mod tests {
    use super::Bytes;

    #[test]
    fn access_past_the_end_is_none() {
        let bytes = Bytes(&[1, 2, 3, 4, 0]);
        assert_eq!(bytes.u32(0), Some(0x0403_0201));
        assert_eq!(bytes.u32(2), None);
        assert_eq!(bytes.u64(0), None);
        assert_eq!(bytes.u8(u64::MAX), None);
        assert_eq!(bytes.slice(u64::MAX, 2), None);
        assert_eq!(bytes.slice(5, 0), Some(&[][..]));
        assert_eq!(bytes.slice(6, 0), None);
    }

    #[test]
    fn string_without_terminator_is_none() {
        assert_eq!(Bytes(b"ab\0c").c_string(0), Some(&b"ab"[..]));
        assert_eq!(Bytes(b"ab\0c").c_string(3), None);
        assert_eq!(Bytes(b"ab\0c").c_string(9), None);
    }

    #[test]
    fn string_longer_than_the_limit_is_none() {
        assert_eq!(Bytes(b"abc\0d").short_string(0, 3), Some(&b"abc"[..]));
        assert_eq!(Bytes(b"abc\0d").short_string(0, 2), None);
        assert_eq!(Bytes(b"abc\0d").short_string(4, 9), None);
        assert_eq!(Bytes(b"abc\0d").short_string(0, usize::MAX), None);
        assert_eq!(Bytes(b"abc\0d").short_string(6, 1), None);
    }
}
