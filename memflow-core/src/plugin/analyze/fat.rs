//! Mach-O files that hold a shared object for each of several architectures.
//!
//! Owns: picking one. Must not know: what is in it.
//! Source: `mach-o/fat.h`; `mach/machine.h`.
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use goblin::mach::fat::{FAT_MAGIC, FatArch, FatHeader, SIZEOF_FAT_ARCH, SIZEOF_FAT_HEADER};
use scroll::BE;

use super::{
    Machine, Rejection,
    machine::macho_architecture,
    reader::{Reader, wide},
};

/// As `FAT_MAGIC`, with offsets and sizes of 64 bits.
const FAT_MAGIC_64: u32 = 0xcafe_babf;
/// Size of a slice's description with 64-bit fields.
const FAT_ARCH_64: usize = 32;
/// Most slices. Class files of Java begin with the same number, and where the count lies they have a version above 40.
const MAX_SLICES: u32 = 40;

/// The part for the architecture of `host`, or else the first, so that there is something to tell. Nothing if the file is of
/// another kind.
pub(super) fn slice<'a>(reader: Reader<'a>, host: Option<&Machine>) -> Result<Option<Reader<'a>>, Rejection> {
    let Ok(header) = reader.record::<FatHeader, _, _>("the fat header", 0, SIZEOF_FAT_HEADER, BE) else {
        return Ok(None);
    };
    let wide_fields = match header.magic {
        FAT_MAGIC => false,
        FAT_MAGIC_64 => true,
        _ => return Ok(None),
    };
    if header.nfat_arch > MAX_SLICES {
        return Err(Rejection::NotSharedObject { found: "a class file of Java".into() });
    }
    let record = if wide_fields { FAT_ARCH_64 } else { SIZEOF_FAT_ARCH };
    let table = reader.table("the list of slices", wide(SIZEOF_FAT_HEADER), header.nfat_arch.into(), record)?;
    let mut picked = None;
    for index in 0..table.count {
        let start = index.saturating_mul(table.record).saturating_add(table.offset);
        let (cpu, offset, len) = if wide_fields {
            let field = |at| start.saturating_add(at);
            (
                reader.record(table.what, start, 4, BE)?,
                reader.record(table.what, field(8), 8, BE)?,
                reader.record(table.what, field(16), 8, BE)?,
            )
        } else {
            let arch: FatArch = reader.record(table.what, start, SIZEOF_FAT_ARCH, BE)?;
            (arch.cputype, arch.offset.into(), arch.size.into())
        };
        let fits = host.is_some_and(|host| host.architecture == macho_architecture(cpu));
        if fits || picked.is_none() {
            picked = Some((offset, len));
        }
        if fits {
            break;
        }
    }
    let Some((offset, len)) = picked else {
        return Err(reader.malformed("the list of slices", 0, "at least one", "none"));
    };
    let slice = reader.part("a slice", offset, len)?;
    let magic: u32 = slice.record("the magic number of a slice", 0, 4, BE)?;
    if !matches!(magic, 0xfeed_face | 0xfeed_facf | 0xcefa_edfe | 0xcffa_edfe) {
        return Err(reader.malformed("a slice", offset, "a Mach-O file", format!("magic number {magic:#x}")));
    }
    Ok(Some(slice))
}
