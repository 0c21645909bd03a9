//! What a process keeps of itself in its own memory: parameters and the loader's lists (`_PEB`, 64 and 32 bits).
//!
//! Owns: where members lie. Must not know: the kernel.
//! Keeps: everything here can be written by the process: lengths and lists are limited, and what is no text is told.
//! Source: `_PEB`, `_PEB_LDR_DATA`, `_RTL_USER_PROCESS_PARAMETERS` in the symbols of `ntdll`; the same since Windows Vista as far as
//! they are used here.
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use memflow_core::{
    MemoryViewExt, VirtAddr,
    error::{Error, Result, ResultExt},
    os::Listing,
};

use crate::{
    modules::{self, LoadedModule, Origin},
    reader::Reader,
};

/// Largest environment that is read.
const MAX_ENVIRONMENT: u64 = 4 << 20;

/// A process' block, read with pointers of its width.
#[derive(Clone, Copy)]
pub(crate) struct Peb<'a> {
    reader: Reader<'a>,
    at: VirtAddr,
}

impl<'a> Peb<'a> {
    /// The block at an address of the process.
    pub(crate) fn new(reader: Reader<'a>, at: VirtAddr) -> Self {
        Self { reader, at }
    }

    fn parameters(&self) -> Result<VirtAddr> {
        let at = self.reader.pointer(self.at, self.reader.either(0x20, 0x10))?;
        if self.reader.is_user(at) {
            return Ok(at);
        }
        Err(Error::Corrupt {
            what: "process block",
            address: self.at.into(),
            expected: "the address of the process' parameters".into(),
            found: at.to_string().into(),
        })
    }

    /// Path of the executable.
    pub(crate) fn image_path(&self) -> Result<String> {
        self.reader.unicode_string(self.parameters()?, self.reader.either(0x60, 0x38)).context(|| "image path".into())
    }

    /// The command line, in one piece as Windows has it.
    pub(crate) fn command_line(&self) -> Result<String> {
        self.reader.unicode_string(self.parameters()?, self.reader.either(0x70, 0x40))
    }

    /// The current directory.
    pub(crate) fn current_directory(&self) -> Result<String> {
        self.reader.unicode_string(self.parameters()?, self.reader.either(0x38, 0x24))
    }

    /// The environment.
    pub(crate) fn environment(&self) -> Result<Vec<String>> {
        let parameters = self.parameters()?;
        let at = self.reader.pointer(parameters, self.reader.either(0x80, 0x48))?;
        let size = self.reader.either(0x3f0, 0x290);
        // Older systems do not tell the size; it ends with an empty string all the same.
        let size = self.reader.pointer(parameters, size)?.as_u64().min(MAX_ENVIRONMENT);
        if at.is_null() || size == 0 {
            return Ok(Vec::new());
        }
        let bytes = self.reader.view().read_bytes(at, size)?;
        let units: Vec<u16> = bytes.as_chunks::<2>().0.iter().map(|unit| u16::from_le_bytes(*unit)).collect();
        let strings = units.split(|unit| *unit == 0).take_while(|string| !string.is_empty());
        Ok(strings.map(String::from_utf16_lossy).collect())
    }

    /// The modules that the loader lists, in the order in which they were loaded.
    pub(crate) fn modules(&self, origin: Origin) -> Result<Listing<LoadedModule>> {
        let loader = self.reader.pointer(self.at, self.reader.either(0x18, 0xc))?;
        if !self.reader.is_user(loader) {
            return Err(Error::Corrupt {
                what: "process block",
                address: self.at.into(),
                expected: "the address of the loader's lists".into(),
                found: loader.to_string().into(),
            });
        }
        let head = loader.wrapping_add(self.reader.either(0x10, 0xc));
        Ok(modules::modules(self.reader, "the loader's list of modules", head, origin))
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

    const PEB: u64 = 0x7ff0_0000;
    const PARAMETERS: u64 = 0x12_0000;

    fn memory() -> Memory {
        let mut memory = Memory::default();
        memory.put_u64(PEB + 0x20, PARAMETERS).put_u64(PEB + 0x18, 0x13_0000);
        memory.put_string(PARAMETERS + 0x60, 0x12_1000, "C:\\a b.exe");
        memory.put_string(PARAMETERS + 0x70, 0x12_2000, "\"C:\\a b.exe\" -x \u{1f600}");
        let text: Vec<u8> = "A=1\0B=\u{e4}\0\0garbage".encode_utf16().flat_map(u16::to_le_bytes).collect();
        memory.put_u64(PARAMETERS + 0x80, 0x12_3000).put_u64(PARAMETERS + 0x3f0, text.len() as u64);
        memory.put(0x12_3000, &text);
        memory.put_u64(0x14_0030, 0x40_0000).put_u64(0x14_0040, 0x1000);
        memory.put_string(0x14_0048, 0x14_0100, "C:\\a b.exe").put_string(0x14_0058, 0x14_0200, "a b.exe");
        memory.ring(&[0x13_0010, 0x14_0000]);
        memory
    }

    #[test]
    fn parameters_and_modules_are_those_of_the_process() {
        let memory = memory();
        let peb = Peb::new(Reader::new(&memory), VirtAddr::new(PEB));
        assert_eq!(peb.image_path().unwrap(), "C:\\a b.exe");
        assert_eq!(peb.command_line().unwrap(), "\"C:\\a b.exe\" -x \u{1f600}");
        assert_eq!(peb.environment().unwrap(), ["A=1", "B=\u{e4}"]);
        let modules = peb.modules(Origin::Loader).unwrap().into_complete().unwrap();
        assert_eq!((&*modules[0].info.name, modules[0].info.base), ("a b.exe", VirtAddr::new(0x40_0000)));
    }

    #[test]
    fn hostile_block_ends_in_an_error() {
        let mut memory = memory();
        memory.put_u64(PARAMETERS + 0x3f0, u64::MAX);
        let peb = |memory: &Memory| Peb::new(Reader::new(memory), VirtAddr::new(PEB)).environment();
        assert!(peb(&memory).is_err());
        memory.put_u64(PEB + 0x20, 0xffff_8000_0000_0000);
        assert!(matches!(peb(&memory), Err(Error::Corrupt { .. })));
    }
}
