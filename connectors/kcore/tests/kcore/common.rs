//! Files in the form of `/proc/kcore`. Written from the ELF specification; shares no code with the parser.

use std::path::PathBuf;

use memflow_core::{PhysAddr, PhysicalMemory, Result, memory::PhysicalMemoryExt};
use tempfile::TempDir;

pub(crate) const X86: u16 = 62;
pub(crate) const ARM64: u16 = 183;

/// A segment header, and the byte that fills it.
#[derive(Clone)]
pub(crate) struct Area {
    pub(crate) kind: u32,
    pub(crate) vaddr: u64,
    pub(crate) paddr: u64,
    pub(crate) filesz: u64,
    pub(crate) memsz: u64,
    pub(crate) offset: Option<u64>,
    pub(crate) fill: Option<u8>,
}

/// A file under construction.
#[derive(Clone)]
pub(crate) struct Kcore {
    pub(crate) machine: u16,
    pub(crate) notes: Vec<u8>,
    pub(crate) areas: Vec<Area>,
}

impl Kcore {
    pub(crate) fn new(machine: u16) -> Self {
        Self { machine, notes: Vec::new(), areas: Vec::new() }
    }

    pub(crate) fn note(mut self, name: &str, kind: u32, desc: &[u8]) -> Self {
        for number in [name.len() as u32 + 1, desc.len() as u32, kind] {
            self.notes.extend(number.to_le_bytes());
        }
        for bytes in [[name.as_bytes(), b"\0"].concat(), desc.to_vec()] {
            self.notes.extend(&bytes);
            self.notes.resize(self.notes.len().next_multiple_of(4), 0);
        }
        self
    }

    /// An area with bytes in the file.
    pub(crate) fn area(mut self, vaddr: u64, paddr: u64, fill: u8, len: u64) -> Self {
        self.areas.push(Area { kind: 1, vaddr, paddr, filesz: len, memsz: len, offset: None, fill: Some(fill) });
        self
    }

    /// An area of virtual addresses only, such as vmalloc: it has no bytes in a copy, and more than any file holds.
    pub(crate) fn virtual_only(mut self, vaddr: u64, len: u64) -> Self {
        let offset = Some(vaddr & ((1 << 47) - 1));
        self.areas.push(Area { kind: 1, vaddr, paddr: u64::MAX, filesz: len, memsz: len, offset, fill: None });
        self
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let table = 64 + 56 * (self.areas.len() as u64 + 1);
        let mut end = (table + self.notes.len() as u64).next_multiple_of(0x1000);
        let mut out = b"\x7fELF\x02\x01\x01".to_vec();
        out.resize(16, 0);
        out.extend([4_u16, self.machine].map(u16::to_le_bytes).concat());
        out.extend(1_u32.to_le_bytes());
        out.extend([0_u64, 64, 0].map(u64::to_le_bytes).concat());
        out.extend(0_u32.to_le_bytes());
        out.extend([64_u16, 56, self.areas.len() as u16 + 1, 0, 0, 0].map(u16::to_le_bytes).concat());
        let mut header = |kind: u32, words: [u64; 6]| {
            out.extend([kind, 7].map(u32::to_le_bytes).concat());
            out.extend(words.map(u64::to_le_bytes).concat());
        };
        header(4, [table, 0, 0, self.notes.len() as u64, 0, 0]);
        let mut fills = Vec::new();
        for area in &self.areas {
            let offset = area.offset.unwrap_or(end);
            if let Some(fill) = area.fill {
                fills.push((end, area.filesz, fill));
                end += area.filesz.next_multiple_of(0x1000);
            }
            header(area.kind, [offset, area.vaddr, area.paddr, area.filesz, area.memsz, 0x1000]);
        }
        out.extend(&self.notes);
        out.resize(end as usize, 0);
        for (start, len, fill) in fills {
            out[start as usize..(start + len) as usize].fill(fill);
        }
        out
    }
}

/// The file in a folder of its own.
pub(crate) fn file(kcore: &Kcore) -> (TempDir, PathBuf) {
    bytes_file(&kcore.bytes())
}

pub(crate) fn bytes_file(bytes: &[u8]) -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("kcore");
    std::fs::write(&path, bytes).unwrap();
    (dir, path)
}

pub(crate) fn read(memory: &dyn PhysicalMemory, address: u64, len: usize) -> Result<Vec<u8>> {
    let mut bytes = vec![0xee; len];
    memory.read_into(PhysAddr::new(address), &mut bytes)?;
    Ok(bytes)
}
