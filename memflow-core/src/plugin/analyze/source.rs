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

use std::{cell::RefCell, fs::File, io};

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
        buf.copy_from_slice(part.ok_or(PAST_THE_END)?);
        Ok(())
    }
}

/// What is said of bytes that are not there.
const PAST_THE_END: &str = "it is past the end";
/// Bytes that are read at once: headers and tables are asked for record by record.
const BLOCK: u64 = 4096;
/// Most blocks that are kept: 16 MiB, more than the symbol table and names of any plugin.
const MAX_BLOCKS: u64 = 4096;

/// A file, read where it is asked for.
#[derive(Debug)]
pub(super) struct FileSource<'f> {
    file: &'f File,
    size: u64,
    /// Each block has one place, which it shares with those that lie a multiple of `MAX_BLOCKS` further on.
    blocks: RefCell<Vec<Block>>,
}

/// Bytes of the file, and where they start; none yet where there are none.
#[derive(Clone, Default, Debug)]
struct Block {
    start: u64,
    bytes: Vec<u8>,
}

impl<'f> FileSource<'f> {
    /// The file as large as it is now.
    pub(super) fn new(file: &'f File) -> io::Result<Self> {
        let size = file.metadata()?.len();
        let places = size.div_ceil(BLOCK).min(MAX_BLOCKS);
        let blocks = vec![Block::default(); usize::try_from(places).unwrap_or_default()];
        Ok(Self { file, size, blocks: RefCell::new(blocks) })
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
            let (number, within) = (at / BLOCK, at % BLOCK);
            let start = at.saturating_sub(within);
            let place = usize::try_from(number % MAX_BLOCKS).ok().and_then(|place| blocks.get_mut(place));
            let block = place.ok_or(PAST_THE_END)?;
            if block.start != start || block.bytes.is_empty() {
                // The last of the file is shorter.
                let len = self.size.saturating_sub(start).min(BLOCK);
                let mut bytes = vec![0; usize::try_from(len).unwrap_or_default()];
                self.fetch(start, &mut bytes)?;
                *block = Block { start, bytes };
            }
            let found = usize::try_from(within).ok().and_then(|within| block.bytes.get(within..)).unwrap_or_default();
            let len = found.len().min(rest.len());
            let Some((to, after)) = rest.split_at_mut_checked(len) else { return Err(PAST_THE_END.to_owned()) };
            if len == 0 {
                return Err(PAST_THE_END.to_owned());
            }
            to.copy_from_slice(found.get(..len).unwrap_or_default());
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
