//! The pages of a kdump-compressed dump, unpacked one at a time.
//!
//! Owns: descriptors and the four compressions. Must not know: bitmaps, addresses.
//! Keeps: a page unpacks to exactly its size or is damaged; nothing is read on the word of a descriptor beyond a page's worth and what
//! the compressions add to it at worst.
//!
//! Source: makedumpfile, `diskdump_mod.h` (`page_desc`, `DUMP_DH_COMPRESSED_*`).
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use std::{cell::RefCell, io, sync::Arc};

use flate2::{Decompress, FlushDecompress, Status};
use memflow_core::Error;
use zerocopy::{
    FromBytes, Immutable, IntoBytes, KnownLayout,
    little_endian::{U32, U64},
};

use super::header::DESCRIPTOR;
use crate::{
    blocks::{Block, Blocks, damaged},
    input::{ReadAt, View},
};

/// Bits of `flags`: how the page is compressed.
const ZLIB: u32 = 1;
const LZO: u32 = 2;
const SNAPPY: u32 = 4;
const ZSTD: u32 = 0x20;

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Descriptor {
    offset: U64,
    size: U32,
    flags: U32,
    page_flags: U64,
}

thread_local! {
    /// Setting up a decoder costs as much as a page.
    static ZLIB_DECODER: RefCell<Decompress> = RefCell::new(Decompress::new(true));
    static ZSTD_DECODER: RefCell<Option<zstd::bulk::Decompressor<'static>>> = const { RefCell::new(None) };
}

/// The pages in the file, in the order of their descriptors.
pub(super) struct Pages {
    input: Arc<dyn ReadAt>,
    descriptors: u64,
    page_size: u64,
    count: u64,
}

impl Pages {
    /// `count` pages of `page_size` bytes, whose descriptors begin at an offset.
    pub(super) fn new(input: Arc<dyn ReadAt>, descriptors: u64, page_size: u64, count: u64) -> Self {
        Self { input, descriptors, page_size, count }
    }

    fn packed(&self, number: u64) -> Result<(Descriptor, Vec<u8>), Error> {
        let view = View::new(&*self.input, "kdump");
        let at = self.descriptors.saturating_add(number.saturating_mul(DESCRIPTOR));
        let descriptor: Descriptor = view.read(at, "a page descriptor")?;
        let size = u64::from(descriptor.size.get());
        // What no compression adds to a page that does not compress.
        let most = self.page_size.saturating_mul(2);
        if size > most {
            return Err(view.bad(
                at.saturating_add(8),
                format!("a page of {most:#x} bytes at most"),
                format!("{size:#x}"),
            ));
        }
        let bytes = view.bytes(descriptor.offset.get(), size, "a page")?;
        Ok((descriptor, bytes))
    }
}

impl Blocks for Pages {
    fn size(&self) -> u64 {
        self.count.saturating_mul(self.page_size)
    }

    fn find(&self, offset: u64) -> io::Result<Block> {
        let id = offset.checked_div(self.page_size).unwrap_or(0);
        let len = usize::try_from(self.page_size).unwrap_or(0);
        Ok(Block { id, start: id.saturating_mul(self.page_size), len })
    }

    fn unpack(&self, block: &Block, page: &mut [u8]) -> io::Result<()> {
        let (descriptor, packed) = self.packed(block.id).map_err(|error| match error {
            Error::Io { source, .. } => source,
            error => damaged(error.to_string()),
        })?;
        let unpacked = match descriptor.flags.get() & (ZLIB | LZO | SNAPPY | ZSTD) {
            0 => copy(&packed, page),
            ZLIB => zlib(&packed, page),
            LZO => lzokay::decompress::decompress(&packed, page).map_err(|error| error.to_string()),
            SNAPPY => snap::raw::Decoder::new().decompress(&packed, page).map_err(|error| error.to_string()),
            ZSTD => zstandard(&packed, page).map_err(|error| error.to_string()),
            flags => Err(format!("compressed in several ways ({flags:#x})")),
        };
        match unpacked {
            Ok(len) if len == page.len() => Ok(()),
            Ok(len) => Err(damaged(format!("page {}: {len:#x} bytes instead of {:#x}", block.id, page.len()))),
            Err(problem) => Err(damaged(format!("page {}: {problem}", block.id))),
        }
    }
}

fn copy(packed: &[u8], page: &mut [u8]) -> Result<usize, String> {
    if let Some(from) = packed.get(..page.len()) {
        page.copy_from_slice(from);
    }
    Ok(packed.len())
}

fn zlib(packed: &[u8], page: &mut [u8]) -> Result<usize, String> {
    ZLIB_DECODER.with_borrow_mut(|decoder| {
        decoder.reset(true);
        match decoder.decompress(packed, page, FlushDecompress::Finish) {
            Ok(Status::StreamEnd) => usize::try_from(decoder.total_out()).map_err(|error| error.to_string()),
            Ok(_) => Err("a zlib stream without an end".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    })
}

fn zstandard(packed: &[u8], page: &mut [u8]) -> io::Result<usize> {
    ZSTD_DECODER.with_borrow_mut(|decoder| {
        let decoder = match decoder {
            Some(decoder) => decoder,
            None => decoder.insert(zstd::bulk::Decompressor::new()?),
        };
        decoder.decompress_to_buffer(packed, page)
    })
}
