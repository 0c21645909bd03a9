//! One structure of the target, read at once, of which parts may be missing.
//!
//! Owns: [`Structure`]. Must not know: which structures there are, where members lie.
//! Keeps: one read for each structure; a member in a page that is not there is an error, never zero.
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use memflow_core::{
    MemoryView, MemoryViewExt, Result, VirtAddr,
    error::{AccessKind, Error},
    view::Gap,
};

use crate::bytes::{Bytes, index};

/// No structure that is read here is larger.
const MAX_LEN: u64 = 0x4000;

/// The bytes of a structure.
#[derive(Clone, Debug)]
pub(crate) struct Structure {
    at: VirtAddr,
    bytes: Vec<u8>,
    gaps: Vec<Gap>,
    pointer_size: u8,
}

impl Structure {
    /// Reads `len` bytes at `at`, as far as they are there.
    ///
    /// # Errors
    /// When the structure leaves the address space, or is larger than any.
    pub(crate) fn read(view: &dyn MemoryView, at: VirtAddr, len: u64) -> Result<Self> {
        if len > MAX_LEN {
            return Err(Error::Limit { what: "structure", address: at.into(), limit: MAX_LEN });
        }
        let mut bytes = vec![0; index(len)];
        let read = view.read_partial(at, &mut bytes)?;
        Ok(Self { at, bytes, gaps: read.gaps, pointer_size: view.metadata().pointer_size })
    }

    /// Where it lies.
    pub(crate) fn at(&self) -> VirtAddr {
        self.at
    }

    /// `len` bytes of it.
    pub(crate) fn slice(&self, offset: u64, len: u64) -> Result<&[u8]> {
        let address = self.at.wrapping_add(offset);
        let bytes = Bytes(&self.bytes).slice(offset, len).ok_or(Error::Range { address: address.into(), len })?;
        let end = offset.saturating_add(len);
        let missing = self.gaps.iter().find(|gap| {
            let start = gap.range.start().offset_from(self.at).unwrap_or_default();
            start < end && offset < start.saturating_add(gap.range.len())
        });
        match missing {
            None => Ok(bytes),
            Some(gap) => {
                Err(Error::Access { kind: AccessKind::Read, address: address.into(), len, reason: gap.reason })
            }
        }
    }

    /// Why not all of it could be read.
    pub(crate) fn missing(&self) -> Option<Error> {
        let gap = self.gaps.first()?;
        let (address, len) = (gap.range.start().into(), gap.range.len());
        Some(Error::Access { kind: AccessKind::Read, address, len, reason: gap.reason })
    }

    /// The number of 32 bits.
    pub(crate) fn u32(&self, offset: u64) -> Result<u32> {
        self.slice(offset, 4).map(|bytes| Bytes(bytes).u32(0).unwrap_or_default())
    }

    /// The number of 64 bits.
    pub(crate) fn u64(&self, offset: u64) -> Result<u64> {
        self.slice(offset, 8).map(|bytes| Bytes(bytes).u64(0).unwrap_or_default())
    }

    /// The number as wide as a pointer.
    pub(crate) fn word(&self, offset: u64) -> Result<u64> {
        let bytes = self.slice(offset, self.pointer_size.into())?;
        Ok(Bytes(bytes).pointer(0, self.pointer_size).unwrap_or_default())
    }

    /// The pointer.
    pub(crate) fn pointer(&self, offset: u64) -> Result<VirtAddr> {
        self.word(offset).map(VirtAddr::new)
    }

    /// The text of single bytes in a field of `len` bytes, if it is one that can be shown.
    pub(crate) fn text(&self, offset: u64, len: u64) -> Result<String> {
        let bytes = Bytes(self.slice(offset, len)?).until_zero();
        if bytes.is_empty() || bytes.iter().any(|byte| *byte < 0x20 || *byte == 0x7f) {
            return Err(Error::Corrupt {
                what: "name",
                address: self.at.wrapping_add(offset).into(),
                expected: "text".into(),
                found: format!("{bytes:02x?}").into(),
            });
        }
        Ok(String::from_utf8_lossy(bytes).into_owned())
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

    use super::*;
    use crate::testing::Memory;

    #[test]
    fn member_in_a_missing_page_is_an_error_and_others_are_read() {
        let mut memory = Memory::default();
        memory.put_u64(0x1ff0, 7).put(0x1ff8, b"name\0\x01\x02\x03");
        let structure = Structure::read(&memory, VirtAddr::new(0x1ff0), 0x20).unwrap();
        assert_eq!(structure.u64(0).unwrap(), 7);
        assert!(matches!(structure.missing(), Some(Error::Access { len: 0x10, .. })));
        assert_eq!(structure.text(8, 8).unwrap(), "name");
        assert!(structure.text(0, 1).is_err());
        assert!(matches!(structure.u32(0x10), Err(Error::Access { .. })));
        assert!(matches!(structure.u64(0xc), Err(Error::Access { .. })));
        assert!(matches!(structure.u64(u64::MAX), Err(Error::Range { .. })));
        assert!(matches!(Structure::read(&memory, VirtAddr::new(0), 1 << 40), Err(Error::Limit { .. })));
    }
}
