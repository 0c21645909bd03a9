//! The headers of a kcore file.
//!
//! Owns: [`Headers`]: which segments there are, what the machine is, what the notes say.
//! Must not know: which segments are physical memory, how the file is opened.
//! Keeps: the file's size says nothing (`/proc/kcore` claims the size of an address space), so what is allocated grows with bytes
//! that arrived and has a limit.
//! Source: `elf_kcore_store_hdr` in `fs/proc/kcore.c` of Linux: one `PT_NOTE`, then one `PT_LOAD` for each area.
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use std::{borrow::Cow, io, path::Path};

use memflow_core::{Error, Result, memory::MachineKind};
use zerocopy::FromBytes;

use crate::{
    notes,
    raw::{self, Header, ProgramHeader},
};

/// What errors call the format.
pub(crate) const FORMAT: &str = "kcore";
/// Most bytes of notes. The kernel writes the registers and the task of whoever reads, some 10 KiB, and VMCOREINFO, at most a page.
const MAX_NOTES: u64 = 1 << 20;
/// Bytes asked for at a time while headers are read.
const STEP: usize = 64 << 10;

/// Bytes by position.
pub trait ReadAt {
    /// Reads some bytes from `offset` on; zero when there are none.
    ///
    /// # Errors
    /// What the system says.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize>;
}

/// Bytes in memory.
impl ReadAt for [u8] {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut rest = usize::try_from(offset).ok().and_then(|offset| self.get(offset..)).unwrap_or_default();
        io::Read::read(&mut rest, buf)
    }
}

/// One area of the kernel's address space.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Segment {
    /// Its place in the table of segments.
    pub index: u64,
    /// Where its bytes begin in the file.
    pub offset: u64,
    /// The kernel's virtual address of its first byte.
    pub vaddr: u64,
    /// The physical address of its first byte; all ones when it has none.
    pub paddr: u64,
    /// Length in bytes, in the file as in memory.
    pub len: u64,
}

/// What the headers say.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Headers {
    /// The kind of machine.
    pub machine: MachineKind,
    /// All areas that have bytes.
    pub segments: Vec<Segment>,
    /// The text of the note VMCOREINFO (Linux 4.19 and later).
    pub vmcoreinfo: Option<Vec<u8>>,
}

impl Headers {
    /// Reads the headers; `path` names the file in messages.
    ///
    /// # Errors
    /// [`Error::Format`] when the bytes are no headers of a kcore, [`Error::Unsupported`] for a machine that is not known,
    /// [`Error::Io`] when the system refuses to read.
    pub fn read(input: &(impl ReadAt + ?Sized), path: &Path) -> Result<Self> {
        let bad = |offset: u64, expected: Cow<'static, str>, found: String| Error::Format {
            path: path.to_owned(),
            format: FORMAT,
            offset,
            expected,
            found: found.into(),
        };
        let at = |offset: u64, len: u64, what: &'static str| {
            let bytes = fill(input, offset, len)
                .map_err(|error| Error::io(format!("reading {what} of {}", path.display()), error))?;
            if u64::try_from(bytes.len()) == Ok(len) {
                return Ok(bytes);
            }
            Err(bad(offset, format!("{len:#x} bytes of {what}").into(), format!("{:#x} bytes", bytes.len())))
        };
        let size = |bytes: usize| u64::try_from(bytes).unwrap_or(u64::MAX);

        let bytes = at(0, size(size_of::<Header>()), "the ELF header")?;
        let (header, _) = Header::read_from_prefix(&bytes)
            .map_err(|_| bad(0, "an ELF header".into(), format!("{:#x} bytes", bytes.len())))?;
        if header.magic != raw::MAGIC {
            return Err(bad(0, "an ELF header, as the kernel writes it".into(), format!("{:02x?}", header.magic)));
        }
        if (header.class, header.data) != (raw::CLASS_64, raw::LITTLE_ENDIAN) {
            return Err(Error::Unsupported {
                what: format!("{}: ELF class {}, byte order {}", path.display(), header.class, header.data),
                why: "the kernels of 64-bit little-endian machines are known; 32-bit kernels map only part of their memory"
                    .to_owned(),
            });
        }
        if header.kind.get() != raw::TYPE_CORE {
            return Err(bad(16, "a core (type 4)".into(), format!("type {}", header.kind)));
        }
        let machine = match header.machine.get() {
            raw::MACHINE_X86_64 => MachineKind::X86_64,
            raw::MACHINE_AARCH64 => MachineKind::AArch64,
            other => {
                return Err(Error::Unsupported {
                    what: format!("{}: machine {other} of the ELF header", path.display()),
                    why: "62 (x86-64) and 183 (arm64) are known".to_owned(),
                });
            }
        };
        let entry = size(size_of::<ProgramHeader>());
        if u64::from(header.phentsize.get()) != entry {
            return Err(bad(54, format!("segment headers of {entry} bytes").into(), header.phentsize.to_string()));
        }
        if header.phnum.get() == raw::MANY_SEGMENTS {
            return Err(bad(56, "fewer than 65535 segments, as the kernel writes".into(), "more".to_owned()));
        }

        let table = at(header.phoff.get(), entry.saturating_mul(header.phnum.get().into()), "the table of segments")?;
        let mut headers = Self { machine, segments: Vec::new(), vmcoreinfo: None };
        let mut rest: &[u8] = &table;
        let mut index: u64 = 0;
        while let Ok((segment, after)) = ProgramHeader::read_from_prefix(rest) {
            let place = header.phoff.get().saturating_add(index.saturating_mul(entry));
            match segment.kind.get() {
                raw::SEGMENT_LOAD => {
                    if segment.filesz != segment.memsz {
                        let expected = format!("all {:#x} bytes of segment {index} in the file", segment.memsz);
                        return Err(bad(place, expected.into(), format!("{:#x}", segment.filesz)));
                    }
                    headers.segments.push(Segment {
                        index,
                        offset: segment.offset.get(),
                        vaddr: segment.vaddr.get(),
                        paddr: segment.paddr.get(),
                        len: segment.filesz.get(),
                    });
                }
                raw::SEGMENT_NOTE => {
                    let len = segment.filesz.get();
                    if len > MAX_NOTES {
                        return Err(bad(
                            place,
                            format!("at most {MAX_NOTES:#x} bytes of notes").into(),
                            format!("{len:#x}"),
                        ));
                    }
                    let bytes = at(segment.offset.get(), len, "the notes")?;
                    let found = notes::vmcoreinfo(&bytes).map_err(|inside| {
                        let offset = segment.offset.get().saturating_add(inside);
                        bad(offset, "a note inside its segment".into(), "one that leaves it".to_owned())
                    })?;
                    // The first counts; nobody writes two.
                    headers.vmcoreinfo = headers.vmcoreinfo.or(found);
                }
                _ => {}
            }
            rest = after;
            index = index.saturating_add(1);
        }
        headers.segments.retain(|segment| segment.len > 0);
        Ok(headers)
    }
}

/// Up to `len` bytes from `offset` on; fewer where the file ends.
fn fill(input: &(impl ReadAt + ?Sized), offset: u64, len: u64) -> io::Result<Vec<u8>> {
    let len = usize::try_from(len).unwrap_or(usize::MAX);
    let mut bytes = Vec::new();
    while bytes.len() < len {
        let done = bytes.len();
        bytes.resize(done.saturating_add(STEP).min(len), 0);
        let step = bytes.get_mut(done..).unwrap_or_default();
        let at = offset.saturating_add(u64::try_from(done).unwrap_or(u64::MAX));
        let count = loop {
            match input.read_at(step, at) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => break other?,
            }
        };
        bytes.truncate(done.saturating_add(count));
        if count == 0 {
            break;
        }
    }
    Ok(bytes)
}
