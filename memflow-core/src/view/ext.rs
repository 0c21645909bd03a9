//! What users call on a view: typed reads, buffers, strings, partial reads.
//!
//! Owns: [`MemoryViewExt`], one blanket implementation over every [`MemoryView`].
//! Must not know: translation. Keeps: every length is capped by what could be read; a string ends at its terminator.

use dataview::Pod;

use super::{CountSize, MemoryView, MissingValue, pointer, text};
use crate::{
    address::{PageSize, VirtAddr, VirtRange},
    error::{Error, Reason, Result},
    memory::{Outcome, ViewRead, ViewWrite},
};

/// Long reads are made in steps of this many bytes, so that a hostile length fails before it is allocated.
const STEP: usize = 1 << 20;

/// Addresses that could not be read, and why.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Gap {
    /// The addresses.
    pub range: VirtRange,
    /// Why the first of them could not be read.
    pub reason: Reason,
}

/// What [`MemoryViewExt::read_partial`] could and could not read.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[must_use = "bytes in gaps were not read"]
pub struct PartialRead {
    /// What is missing, in order, as few ranges as possible.
    pub gaps: Vec<Gap>,
}

impl PartialRead {
    /// True when every byte arrived.
    pub fn is_complete(&self) -> bool {
        self.gaps.is_empty()
    }

    /// Bytes that are missing.
    pub fn missing(&self) -> u64 {
        self.gaps.iter().fold(0, |sum: u64, gap| sum.saturating_add(gap.range.len()))
    }
}

/// What [`MemoryViewExt::read_values`] could not read.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[must_use = "values that are missing were not read"]
pub struct ValuesRead {
    /// What is missing, in order.
    pub missing: Vec<MissingValue>,
}

impl ValuesRead {
    /// True when every value arrived.
    pub fn is_complete(&self) -> bool {
        self.missing.is_empty()
    }
}

/// A whole number that lies in memory in one order of bytes or the other.
pub trait Integer: Pod + Copy {
    /// The number, when this one was read from bytes in little-endian order.
    #[must_use]
    fn of_le(self) -> Self;
    /// The number, when this one was read from bytes in big-endian order.
    #[must_use]
    fn of_be(self) -> Self;
}

macro_rules! integer {
    ($($type:ty),*) => {$(
        impl Integer for $type {
            fn of_le(self) -> Self {
                <$type>::from_le(self)
            }

            fn of_be(self) -> Self {
                <$type>::from_be(self)
            }
        }
    )*};
}

integer!(u8, u16, u32, u64, u128, i8, i16, i32, i64, i128);

/// Conveniences over [`MemoryView`].
pub trait MemoryViewExt: MemoryView {
    /// Reads a value.
    ///
    /// # Errors
    /// [`Error::Access`] unless every byte arrived.
    fn read<T: Pod>(&self, addr: VirtAddr) -> Result<T> {
        let mut value = dataview::zeroed::<T>();
        self.read_batch(&mut [ViewRead::new(addr, dataview::bytes_mut(&mut value))])?;
        Ok(value)
    }

    /// Reads a value at each address, as many as there are places: the quickest way to many values in many places, such as what a list
    /// of pointers points to. Values that could not be read are told in the result, and are not to be used: they are left as they
    /// were, but for bytes that could be read.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use memflow_core::{memory::*, view::PhysicalView, *};
    /// # let config = SourceConfig { name: "example".into(), runs: RunMap::flat(0x2000), facts: TargetFacts::default() };
    /// # let mut bytes = vec![0; 0x2000];
    /// # bytes[0x10] = 7;
    /// # bytes[0x1000] = 9;
    /// # let view = PhysicalView::new(Arc::new(BufferMemory::new(config, bytes)?));
    /// let addresses = [0x10, 0x7000, 0x1000].map(VirtAddr::new);
    /// let mut values = [0_u32; 3];
    /// let read = view.read_values(&addresses, &mut values)?;
    /// assert_eq!((values[0], values[2]), (7, 9));
    /// assert_eq!(read.missing.iter().map(|missing| missing.index).collect::<Vec<_>>(), [1]);
    /// assert!(matches!(read.missing[0].reason, Reason::NotInImage { .. }));
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Argument`] unless there are as many places as addresses; [`Error::Unanswered`] when the view left a read without an
    /// outcome. What cannot be read is in the result.
    fn read_values<T: Pod>(&self, addresses: &[VirtAddr], values: &mut [T]) -> Result<ValuesRead> {
        if addresses.len() != values.len() {
            return Err(Error::Argument {
                what: "places for values".into(),
                expected: format!("{}, one for each address", addresses.len()).into(),
                found: values.len().to_string(),
            });
        }
        let mut missing = Vec::new();
        self.read_sized(addresses, size_of::<T>(), dataview::bytes_mut(values), &mut missing)?;
        Ok(ValuesRead { missing })
    }

    /// Fills `buf` from `addr`.
    ///
    /// # Errors
    /// [`Error::Access`] unless every byte arrived.
    fn read_into(&self, addr: VirtAddr, buf: &mut [u8]) -> Result<()> {
        self.read_batch(&mut [ViewRead::new(addr, buf)])
    }

    /// Reads `len` bytes. Memory is allocated as bytes arrive, so a hostile length costs nothing.
    ///
    /// # Errors
    /// [`Error::Access`] unless every byte arrived.
    fn read_bytes(&self, addr: VirtAddr, len: u64) -> Result<Vec<u8>> {
        let range = VirtRange::new(addr, len).ok_or(Error::Range { address: addr.into(), len })?;
        let mut bytes = Vec::new();
        while (bytes.len() as u64) < range.len() {
            let done = bytes.len();
            let step = range.len().saturating_sub(done as u64).min(STEP as u64) as usize;
            bytes.resize(done.saturating_add(step), 0);
            self.read_into(addr.wrapping_add(done as u64), bytes.get_mut(done..).unwrap_or_default())?;
        }
        Ok(bytes)
    }

    /// Reads what can be read of `buf.len()` bytes at `addr` and says what could not, page by page. Bytes in gaps are left as they were.
    ///
    /// # Errors
    /// Only when the range leaves the address space; what cannot be read is in the result.
    fn read_partial(&self, addr: VirtAddr, buf: &mut [u8]) -> Result<PartialRead> {
        let len = buf.len() as u64;
        VirtRange::new(addr, len).ok_or(Error::Range { address: addr.into(), len })?;
        // 4 KiB is the smallest page of every supported architecture: within one, either all bytes are mapped or none.
        let to_edge = PageSize::KIB_4.bytes().saturating_sub(addr.page_offset(PageSize::KIB_4)) as usize;
        let (first, rest) = buf.split_at_mut(to_edge.min(buf.len()));
        let mut at = addr;
        let mut ops = Vec::with_capacity((len / PageSize::KIB_4.bytes()).saturating_add(2) as usize);
        for page in std::iter::once(first).chain(rest.chunks_mut(PageSize::KIB_4.bytes() as usize)) {
            let step = page.len() as u64;
            ops.push(ViewRead::new(at, page));
            at = at.wrapping_add(step);
        }
        // Failures are in the outcomes, and the fold below reports them.
        let unanswered = match self.read_batch(&mut ops) {
            Err(error @ Error::Unanswered { .. }) => return Err(error),
            other => other.err(),
        };
        let mut gaps: Vec<Gap> = Vec::new();
        for op in &ops {
            let (offset, reason) = match (op.outcome, &unanswered) {
                (Outcome::Done, _) => continue,
                (Outcome::Failed { offset, reason }, _) => (offset, reason),
                (Outcome::NotAttempted, _) => {
                    return Err(unanswered.unwrap_or(Error::Unanswered { who: "view".to_owned(), index: 0 }));
                }
            };
            let rest = (op.buf.len() as u64).saturating_sub(offset);
            let Some(range) = VirtRange::new(op.addr.wrapping_add(offset), rest) else { continue };
            match gaps.last_mut() {
                Some(last) if last.range.end() == Some(range.start()) && same_kind(last.reason, reason) => {
                    last.range = VirtRange::new(last.range.start(), last.range.len().saturating_add(range.len()))
                        .unwrap_or(last.range);
                }
                _ => gaps.push(Gap { range, reason }),
            }
        }
        Ok(PartialRead { gaps })
    }

    /// Reads a pointer of the view's size.
    ///
    /// # Errors
    /// [`Error::Access`] unless every byte arrived.
    fn read_pointer(&self, addr: VirtAddr) -> Result<VirtAddr> {
        match self.metadata().pointer_size {
            4 => self.read::<u32>(addr).map(|value| VirtAddr::new(u32::from_le(value).into())),
            _ => self.read::<u64>(addr).map(|value| VirtAddr::new(u64::from_le(value))),
        }
    }

    /// Reads an integer in little-endian order, whatever the order of this machine.
    ///
    /// # Errors
    /// [`Error::Access`] unless every byte arrived.
    fn read_le<T: Integer>(&self, addr: VirtAddr) -> Result<T> {
        self.read::<T>(addr).map(T::of_le)
    }

    /// Reads an integer in big-endian order: network packets, file formats, device trees.
    ///
    /// # Errors
    /// [`Error::Access`] unless every byte arrived.
    fn read_be<T: Integer>(&self, addr: VirtAddr) -> Result<T> {
        self.read::<T>(addr).map(T::of_be)
    }

    /// Follows a chain of pointers of the view's size: a pointer is read at `base` plus the first offset, the next at that pointer plus
    /// the second, and so on. The last offset is only added: the address that the chain leads to. Without offsets it is `base`.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use memflow_core::{memory::*, view::PhysicalView, *};
    /// # let config = SourceConfig { name: "example".into(), runs: RunMap::flat(0x1000), facts: TargetFacts::default() };
    /// # let mut bytes = vec![0; 0x1000];
    /// # (bytes[0x19], bytes[0x121]) = (1, 2);
    /// # let view = PhysicalView::new(Arc::new(BufferMemory::new(config, bytes)?));
    /// // *(*(0x10 + 0x8) + 0x20) + 0x4
    /// assert_eq!(view.follow(VirtAddr::new(0x10), &[0x8, 0x20, 0x4])?, VirtAddr::new(0x204));
    /// let error = view.follow(VirtAddr::new(0x10), &[0x8, 0x30, 0]).unwrap_err();
    /// assert!(error.to_string().starts_with("pointer 2 of 2, at 0x130: "));
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// Names the pointer that cannot be read ([`Error::Access`]) or is null ([`Error::Corrupt`]).
    fn follow(&self, base: VirtAddr, offsets: &[u64]) -> Result<VirtAddr> {
        pointer::follow(self, base, offsets)
    }

    /// Reads up to and without the first zero byte, at most `max` bytes; a string without terminator in `max` bytes is cut there.
    ///
    /// Pages past the terminator are not touched.
    ///
    /// # Errors
    /// [`Error::Access`] when a page before the terminator cannot be read.
    fn read_c_string(&self, addr: VirtAddr, max: usize) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let mut at = addr;
        while bytes.len() < max {
            let to_edge = PageSize::KIB_4.bytes().saturating_sub(at.page_offset(PageSize::KIB_4)) as usize;
            // Most strings are short: a first small step saves copying a page for them.
            let step = to_edge.min(max.saturating_sub(bytes.len())).min(if bytes.is_empty() { 64 } else { usize::MAX });
            let done = bytes.len();
            bytes.resize(done.saturating_add(step), 0);
            self.read_into(at, bytes.get_mut(done..).unwrap_or_default())?;
            let new = bytes.get(done..).unwrap_or_default();
            if let Some(end) = new.iter().position(|byte| *byte == 0) {
                bytes.truncate(done.saturating_add(end));
                break;
            }
            at = at.checked_add(step as u64).ok_or(Error::Range { address: addr.into(), len: max as u64 })?;
        }
        Ok(bytes)
    }

    /// As [`read_c_string`](Self::read_c_string), as text; bytes that are not UTF-8 become replacement characters.
    ///
    /// # Errors
    /// As [`read_c_string`](Self::read_c_string).
    fn read_utf8_lossy(&self, addr: VirtAddr, max: usize) -> Result<String> {
        self.read_c_string(addr, max).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
    }

    /// As [`read_c_string`](Self::read_c_string), as text.
    ///
    /// # Errors
    /// As [`read_c_string`](Self::read_c_string); [`Error::Corrupt`] for bytes that are not UTF-8.
    fn read_utf8(&self, addr: VirtAddr, max: usize) -> Result<String> {
        text::from_bytes(addr, self.read_c_string(addr, max)?)
    }

    /// Reads little-endian UTF-16 up to and without the first zero, at most `max` units of two bytes; a string without terminator in
    /// `max` units is cut there. Pages past the terminator are not touched.
    ///
    /// # Errors
    /// [`Error::Access`] when a page before the terminator cannot be read; [`Error::Corrupt`] for what is not UTF-16.
    fn read_utf16(&self, addr: VirtAddr, max: usize) -> Result<String> {
        text::from_units(addr, &text::utf16_units(self, addr, max)?)
    }

    /// As [`read_utf16`](Self::read_utf16); units that are not UTF-16 become replacement characters.
    ///
    /// # Errors
    /// [`Error::Access`] when a page before the terminator cannot be read.
    fn read_utf16_lossy(&self, addr: VirtAddr, max: usize) -> Result<String> {
        text::utf16_units(self, addr, max).map(|units| String::from_utf16_lossy(&units))
    }

    /// Reads bytes whose number stands before them, at most `max`.
    ///
    /// # Errors
    /// [`Error::Access`] unless every byte arrived; [`Error::Limit`] when there are more than `max`.
    fn read_counted(&self, addr: VirtAddr, size: CountSize, max: u64) -> Result<Vec<u8>> {
        text::counted(self, addr, size, max)
    }

    /// Reads the text of Windows' `UNICODE_STRING` at `addr`, at most `max` units of two bytes, by the view's size of pointers; units
    /// that are not UTF-16 become replacement characters.
    ///
    /// # Errors
    /// [`Error::Access`] unless every byte arrived; [`Error::Corrupt`] for a length that is odd or above the room; [`Error::Limit`]
    /// for more than `max` units.
    fn read_unicode_string(&self, addr: VirtAddr, max: usize) -> Result<String> {
        text::unicode_string(self, addr, max).map(|units| String::from_utf16_lossy(&units))
    }

    /// Writes a value.
    ///
    /// # Errors
    /// [`Error::Access`] unless every byte was written.
    fn write<T: Pod>(&self, addr: VirtAddr, value: &T) -> Result<()> {
        self.write_from(addr, dataview::bytes(value))
    }

    /// Writes `bytes` to `addr`.
    ///
    /// # Errors
    /// [`Error::Access`] unless every byte was written.
    fn write_from(&self, addr: VirtAddr, bytes: &[u8]) -> Result<()> {
        self.write_batch(&mut [ViewWrite::new(addr, bytes)])
    }
}

impl<V: MemoryView + ?Sized> MemoryViewExt for V {}

/// True when two gaps can be told as one: the same reason, whatever the addresses in it.
fn same_kind(a: Reason, b: Reason) -> bool {
    match (a, b) {
        (Reason::NotMapped(a), Reason::NotMapped(b)) => a.cause == b.cause && a.level == b.level,
        _ => std::mem::discriminant(&a) == std::mem::discriminant(&b),
    }
}
