//! A range of a view as a file: `Read`, `Write` and `Seek` of the standard library.
//!
//! Owns: [`Cursor`]: the position, and what a gap is to a reader. Must not know: what the view is.
//! Keeps: a position is a distance from the range's first address and never wraps; bytes past a gap are neither counted as read nor
//! written.

use std::io::{self, Read, Seek, SeekFrom, Write};

use super::{MemoryView, MemoryViewExt};
use crate::{
    address::{PageSize, VirtAddr, VirtRange},
    error::Error,
    memory::{Outcome, ViewWrite},
};

/// Bytes that one call reads at most.
const STEP: usize = 1 << 20;

/// Reads and writes a range of a view from its start to its end, for code that wants a file: parsers, hashes, compressors.
///
/// Positions count from the range's first address. The range's end is the end of the file: there, reads give 0 bytes, and writes take none.
/// At a gap a read gives the bytes before it; a read that starts in a gap is an error, whose source is the view's [`Error`], and the
/// position stays: whoever wants to go on seeks past it. A write takes bytes up to the end of a page or to the first that is refused.
///
/// ```
/// # use std::{io::{Read, Seek, SeekFrom}, sync::Arc};
/// # use memflow_core::{memory::*, view::{Cursor, PhysicalView}, *};
/// # let config = SourceConfig { name: "example".into(), runs: RunMap::flat(0x2000), facts: TargetFacts::default() };
/// # let mut bytes = vec![0; 0x2000];
/// # bytes[0x1000..0x1005].copy_from_slice(b"hello");
/// # let view = PhysicalView::new(Arc::new(BufferMemory::new(config, bytes)?));
/// let range = VirtRange::new(VirtAddr::new(0x1000), 5).unwrap();
/// let mut file = Cursor::new(&view, range);
/// let mut text = String::new();
/// file.read_to_string(&mut text)?;
/// assert_eq!(text, "hello");
/// assert_eq!(file.seek(SeekFrom::End(-1))?, 4);
/// assert_eq!(file.address(), Some(VirtAddr::new(0x1004)));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Cursor<V> {
    view: V,
    range: VirtRange,
    position: u64,
}

impl<V: MemoryView> Cursor<V> {
    /// A cursor at the start of `range`.
    pub fn new(view: V, range: VirtRange) -> Self {
        Self { view, range, position: 0 }
    }

    /// The address at the position; `None` when the address space ends before it.
    pub fn address(&self) -> Option<VirtAddr> {
        self.range.start().checked_add(self.position)
    }

    /// The range.
    pub fn range(&self) -> VirtRange {
        self.range
    }

    /// The view.
    pub fn view(&self) -> &V {
        &self.view
    }

    /// The view, without the cursor.
    pub fn into_inner(self) -> V {
        self.view
    }

    /// The address at the position and how many bytes of `len` lie before the end.
    fn ahead(&self, len: usize) -> Option<(VirtAddr, usize)> {
        let left = self.range.len().saturating_sub(self.position);
        let len = len.min(usize::try_from(left).unwrap_or(usize::MAX));
        self.address().filter(|_| len > 0).map(|addr| (addr, len))
    }

    fn advance(&mut self, done: usize) -> usize {
        self.position = self.position.saturating_add(done as u64);
        done
    }
}

impl<V: MemoryView> Read for Cursor<V> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let Some((addr, len)) = self.ahead(buf.len().min(STEP)) else { return Ok(0) };
        let Some(buf) = buf.get_mut(..len) else { return Ok(0) };
        let read = self.view.read_partial(addr, buf).map_err(io::Error::other)?;
        let done = match read.gaps.first() {
            None => len,
            Some(gap) if gap.range.start() == addr => {
                // Asked again for its error, which names address and reason.
                let mut byte = [0];
                match self.view.read_into(addr, &mut byte) {
                    Err(error) => return Err(io::Error::other(error)),
                    // The memory is live, and the byte is there now.
                    Ok(()) => {
                        buf.iter_mut().take(1).for_each(|place| [*place] = byte);
                        1
                    }
                }
            }
            Some(gap) => gap.range.start().offset_from(addr).and_then(|done| usize::try_from(done).ok()).unwrap_or(0),
        };
        Ok(self.advance(done))
    }
}

impl<V: MemoryView> Write for Cursor<V> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let Some((addr, len)) = self.ahead(buf.len()) else { return Ok(0) };
        // One page at a time: what lies behind a page that is refused must not be written.
        let to_edge = PageSize::KIB_4.bytes().saturating_sub(addr.page_offset(PageSize::KIB_4));
        let len = len.min(usize::try_from(to_edge).unwrap_or(usize::MAX));
        let mut ops = [ViewWrite::new(addr, buf.get(..len).unwrap_or_default())];
        let written = self.view.write_batch(&mut ops);
        let [op] = ops;
        match (written, op.outcome) {
            (Ok(()), _) => Ok(self.advance(len)),
            (Err(_), Outcome::Failed { offset: offset @ 1.., .. }) => {
                Ok(self.advance(usize::try_from(offset).unwrap_or(len).min(len)))
            }
            (Err(error), _) => Err(io::Error::other(error)),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<V: MemoryView> Seek for Cursor<V> {
    /// Moves the position: also past the end, where nothing is read; before the start is an error.
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let target = match to {
            SeekFrom::Start(position) => Some(position),
            SeekFrom::End(distance) => self.range.len().checked_add_signed(distance),
            SeekFrom::Current(distance) => self.position.checked_add_signed(distance),
        };
        self.position = target.ok_or_else(|| {
            let expected = Error::Argument {
                what: "position".into(),
                expected: "one that is not before the start, and below 2^64".into(),
                found: format!("{to:?} at {}", self.position),
            };
            io::Error::new(io::ErrorKind::InvalidInput, expected)
        })?;
        Ok(self.position)
    }
}
