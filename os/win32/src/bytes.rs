//! Checked reading of little-endian numbers out of foreign bytes.
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

/// A count or length of this machine as a number of the format.
pub(crate) fn number(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}

/// Foreign bytes, read by offset.
#[derive(Clone, Copy)]
pub(crate) struct Bytes<'a>(pub(crate) &'a [u8]);

impl<'a> Bytes<'a> {
    /// `len` bytes from `at`.
    pub(crate) fn slice(self, at: u64, len: u64) -> Option<&'a [u8]> {
        let start = usize::try_from(at).ok()?;
        let end = start.checked_add(usize::try_from(len).ok()?)?;
        self.0.get(start..end)
    }

    /// `N` bytes from `at`.
    pub(crate) fn array<const N: usize>(self, at: u64) -> Option<[u8; N]> {
        let start = usize::try_from(at).ok()?;
        self.0.get(start..)?.first_chunk::<N>().copied()
    }

    /// The `u16` at `at`.
    pub(crate) fn u16(self, at: u64) -> Option<u16> {
        self.array(at).map(u16::from_le_bytes)
    }

    /// The `u32` at `at`.
    pub(crate) fn u32(self, at: u64) -> Option<u32> {
        self.array(at).map(u32::from_le_bytes)
    }

    /// The `u64` at `at`.
    pub(crate) fn u64(self, at: u64) -> Option<u64> {
        self.array(at).map(u64::from_le_bytes)
    }

    /// The pointer at `at`, of `size` bytes: 4 or 8.
    pub(crate) fn pointer(self, at: u64, size: u8) -> Option<u64> {
        match size {
            4 => self.u32(at).map(u64::from),
            _ => self.u64(at),
        }
    }

    /// The bytes up to, not including, the first zero byte, or all of them.
    pub(crate) fn until_zero(self) -> &'a [u8] {
        self.0.split(|byte| *byte == 0).next().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects,
        clippy::as_conversions,
        clippy::panic,
        reason = "a test fails by panicking"
    )]

    use super::Bytes;

    #[test]
    fn access_past_the_end_is_none() {
        let bytes = Bytes(&[1, 2, 3, 4, 0]);
        assert_eq!(bytes.u32(0), Some(0x0403_0201));
        assert_eq!(bytes.u32(2), None);
        assert_eq!(bytes.u64(0), None);
        assert_eq!(bytes.pointer(0, 4), Some(0x0403_0201));
        assert_eq!(bytes.slice(u64::MAX, 2), None);
        assert_eq!(bytes.slice(5, 0), Some(&[][..]));
        assert_eq!(bytes.slice(6, 0), None);
        assert_eq!(bytes.until_zero(), [1, 2, 3, 4]);
        assert_eq!(Bytes(b"").until_zero(), b"");
    }
}
