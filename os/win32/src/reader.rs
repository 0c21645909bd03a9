//! Structures of Windows, read by offset: numbers, pointers of the target's width, strings.
//!
//! Owns: [`Reader`]. Must not know: which structures there are, where members lie.
//! Keeps: a string is no longer than its structure says and than anybody allows; text that is not UTF-16 has replacement characters.
//! Source: `UNICODE_STRING` and `LIST_ENTRY` of the Windows SDK.
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use memflow_core::{MemoryView, MemoryViewExt, Pod, Result, VirtAddr, error::Error};

/// Longest text, in bytes: what a length of 16 bits says at most.
pub(crate) const MAX_TEXT: u64 = 0xfffe;
/// The first address of the kernel on x64.
const WIDE_KERNEL: u64 = 0xffff_8000_0000_0000;
/// The first address of the kernel on x86, where it has 2 GiB.
const NARROW_KERNEL: u64 = 0x8000_0000;
/// Behind the last address of user space on x64.
const WIDE_USER: u64 = 0x8000_0000_0000;
/// The lowest address that a process may map.
const LOWEST_USER: u64 = 0x1_0000;

/// Reads structures through a view.
#[derive(Clone, Copy)]
pub(crate) struct Reader<'a> {
    view: &'a dyn MemoryView,
    pointer_size: u8,
}

impl<'a> Reader<'a> {
    /// A reader for structures with the view's size of pointers.
    pub(crate) fn new(view: &'a dyn MemoryView) -> Self {
        Self { view, pointer_size: view.metadata().pointer_size }
    }

    /// The same for structures with pointers of 32 bits, as those of 32-bit code on x64.
    pub(crate) fn narrow(self) -> Self {
        Self { pointer_size: 4, ..self }
    }

    /// The view.
    pub(crate) fn view(&self) -> &'a dyn MemoryView {
        self.view
    }

    /// Whether pointers have 64 bits.
    pub(crate) fn is_wide(&self) -> bool {
        self.pointer_size == 8
    }

    /// Size of a pointer, in bytes.
    pub(crate) fn pointer_size(&self) -> u64 {
        self.pointer_size.into()
    }

    /// One of two offsets: of the structure with 64-bit pointers, or of that with 32-bit ones.
    pub(crate) fn either(&self, wide: u64, narrow: u64) -> u64 {
        if self.is_wide() { wide } else { narrow }
    }

    /// The value at `offset` of the structure at `at`.
    pub(crate) fn value<T: Pod>(&self, at: VirtAddr, offset: u64) -> Result<T> {
        let at = at.checked_add(offset).ok_or(Error::Range { address: at.into(), len: offset })?;
        self.view.read(at)
    }

    /// The pointer at `offset` of the structure at `at`.
    pub(crate) fn pointer(&self, at: VirtAddr, offset: u64) -> Result<VirtAddr> {
        let value = if self.is_wide() { self.value(at, offset)? } else { u64::from(self.value::<u32>(at, offset)?) };
        Ok(VirtAddr::new(value))
    }

    /// Both pointers of the `LIST_ENTRY` at `at`: forwards, backwards.
    pub(crate) fn links(&self, at: VirtAddr) -> Result<(VirtAddr, VirtAddr)> {
        if self.is_wide() {
            let [next, previous]: [u64; 2] = self.view.read(at)?;
            return Ok((VirtAddr::new(next), VirtAddr::new(previous)));
        }
        let [next, previous]: [u32; 2] = self.view.read(at)?;
        Ok((VirtAddr::new(next.into()), VirtAddr::new(previous.into())))
    }

    /// The text of the `UNICODE_STRING` at `offset` of the structure at `at`.
    pub(crate) fn unicode_string(&self, at: VirtAddr, offset: u64) -> Result<String> {
        let [len, room]: [u16; 2] = self.value(at, offset)?;
        let at = at.wrapping_add(offset);
        if len > room || len % 2 != 0 {
            return Err(Error::Corrupt {
                what: "UNICODE_STRING",
                address: at.into(),
                expected: "an even length within its room".into(),
                found: format!("{len} bytes in room for {room}").into(),
            });
        }
        let text = self.pointer(at, self.pointer_size())?;
        self.utf16(text, len.into())
    }

    /// Text of `len` bytes.
    pub(crate) fn utf16(&self, at: VirtAddr, len: u64) -> Result<String> {
        if len == 0 {
            return Ok(String::new());
        }
        let bytes = self.view.read_bytes(at, len.min(MAX_TEXT))?;
        let units = bytes.as_chunks::<2>().0.iter().map(|unit| u16::from_le_bytes(*unit));
        Ok(char::decode_utf16(units).map(|unit| unit.unwrap_or(char::REPLACEMENT_CHARACTER)).collect())
    }

    /// Whether an address is one of the kernel, at which a structure may lie.
    pub(crate) fn is_kernel(&self, address: VirtAddr) -> bool {
        let first = self.either(WIDE_KERNEL, NARROW_KERNEL);
        address.as_u64() >= first && address <= self.view.metadata().last_address && address.as_u64().is_multiple_of(4)
    }

    /// Whether an address is one of the kernel, at which code may lie: at any byte.
    pub(crate) fn is_code(&self, address: VirtAddr) -> bool {
        let first = self.either(WIDE_KERNEL, NARROW_KERNEL);
        address.as_u64() >= first && address <= self.view.metadata().last_address
    }

    /// Behind the last address that a process may map.
    pub(crate) fn behind_user(&self) -> u64 {
        self.either(WIDE_USER, NARROW_KERNEL)
    }

    /// Whether an address is one that a process may map.
    pub(crate) fn is_user(&self, address: VirtAddr) -> bool {
        (LOWEST_USER..self.behind_user()).contains(&address.as_u64())
    }
}
