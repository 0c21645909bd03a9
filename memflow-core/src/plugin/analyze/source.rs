//! Where the bytes of a file come from: a buffer, or the file itself, of which only what is asked for is read.
//!
//! Must not know: what the bytes mean.
//! Keeps: a file that changes meanwhile gives other bytes or an error, never a fault: nothing is mapped. What is kept of it is bounded.
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use std::{cell::RefCell, collections::HashMap, fs::File, io};

/// Something that bytes can be read from.
pub(super) trait Source {
    /// Number of bytes.
    fn size(&self) -> u64;

    /// Fills the buffer with the bytes at `offset`.
    ///
    /// # Errors
    /// Why they cannot be read, in words.
    fn read(&self, offset: u64, buf: &mut [u8]) -> Result<(), String>;
}

impl Source for &[u8] {
    fn size(&self) -> u64 {
        u64::try_from(self.len()).unwrap_or(u64::MAX)
    }

    fn read(&self, offset: u64, buf: &mut [u8]) -> Result<(), String> {
        let part = usize::try_from(offset).ok().and_then(|offset| self.get(offset..)?.get(..buf.len()));
        buf.copy_from_slice(part.ok_or("it is past the end")?);
        Ok(())
    }
}

/// Bytes that are read at once: headers and tables are asked for record by record.
const BLOCK: u64 = 4096;
/// Most blocks that are kept: 16 MiB, more than the symbol table and names of any plugin.
const MAX_BLOCKS: usize = 4096;

/// A file, read where it is asked for.
#[derive(Debug)]
pub(super) struct FileSource<'f> {
    file: &'f File,
    size: u64,
    blocks: RefCell<HashMap<u64, Box<[u8]>>>,
}

impl<'f> FileSource<'f> {
    /// The file as large as it is now.
    pub(super) fn new(file: &'f File) -> io::Result<Self> {
        Ok(Self { file, size: file.metadata()?.len(), blocks: RefCell::default() })
    }

    /// The bytes of a block; the last of the file is shorter.
    fn block(&self, start: u64) -> Result<Box<[u8]>, String> {
        let len = self.size.saturating_sub(start).min(BLOCK);
        let mut block = vec![0; usize::try_from(len).unwrap_or_default()];
        self.fetch(start, &mut block)?;
        Ok(block.into())
    }

    fn fetch(&self, offset: u64, buf: &mut [u8]) -> Result<(), String> {
        read_exact_at(self.file, offset, buf).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => "the file was cut short meanwhile".to_owned(),
            _ => error.to_string(),
        })
    }
}

impl Source for FileSource<'_> {
    fn size(&self) -> u64 {
        self.size
    }

    fn read(&self, offset: u64, buf: &mut [u8]) -> Result<(), String> {
        if u64::try_from(buf.len()).unwrap_or(u64::MAX) > BLOCK {
            return self.fetch(offset, buf);
        }
        let (mut at, mut rest) = (offset, buf);
        let mut blocks = self.blocks.borrow_mut();
        while !rest.is_empty() {
            let within = at.checked_rem(BLOCK).unwrap_or_default();
            let start = at.saturating_sub(within);
            if blocks.len() >= MAX_BLOCKS && !blocks.contains_key(&start) {
                blocks.clear();
            }
            let block = match blocks.entry(start) {
                std::collections::hash_map::Entry::Occupied(there) => there.into_mut(),
                std::collections::hash_map::Entry::Vacant(place) => place.insert(self.block(start)?),
            };
            let found = usize::try_from(within).ok().and_then(|within| block.get(within..)).unwrap_or_default();
            let len = found.len().min(rest.len());
            let (Some(part), Some((to, after))) =
                (found.get(..len).filter(|part| !part.is_empty()), rest.split_at_mut_checked(len))
            else {
                return Err("it is past the end".to_owned());
            };
            to.copy_from_slice(part);
            at = at.saturating_add(u64::try_from(len).unwrap_or(u64::MAX));
            rest = after;
        }
        Ok(())
    }
}

#[cfg(unix)]
fn read_exact_at(file: &File, offset: u64, buf: &mut [u8]) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, buf, offset)
}

#[cfg(windows)]
fn read_exact_at(file: &File, mut offset: u64, mut buf: &mut [u8]) -> io::Result<()> {
    while !buf.is_empty() {
        match std::os::windows::fs::FileExt::seek_read(file, buf, offset) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => {
                buf = buf.get_mut(read..).unwrap_or_default();
                offset = offset.saturating_add(u64::try_from(read).unwrap_or(u64::MAX));
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
