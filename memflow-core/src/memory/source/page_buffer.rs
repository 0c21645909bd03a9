//! Bytes that grow at their end, in anonymous memory: where unpacked memory goes.
//!
//! Owns: the mapping and its growth. Must not know: where the bytes come from.
//! Keeps: pages that were only ever zero are never touched, so they take no memory; growth follows the bytes that arrive.

use std::fmt;

use memmap2::MmapMut;
#[cfg(not(target_os = "linux"))]
use memmap2::MmapOptions;

use crate::error::{Error, Result};

/// The piece that is skipped when it is zero.
const PAGE: usize = 4096;
static ZEROS: [u8; PAGE] = [0; PAGE];
/// Size of the first mapping.
const FIRST: usize = 1 << 20;

/// Bytes that grow at their end; pages of zeros take no memory.
#[derive(Default)]
pub struct PageBuffer {
    // INVARIANT: bytes of the mapping from `len` on are zero; they were never written.
    pages: Option<MmapMut>,
    len: usize,
}

impl fmt::Debug for PageBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PageBuffer({} bytes)", self.len)
    }
}

impl PageBuffer {
    /// An empty buffer; nothing is allocated.
    pub fn new() -> Self {
        Self::default()
    }

    /// The bytes so far.
    pub fn bytes(&self) -> &[u8] {
        self.pages.as_deref().and_then(|pages| pages.get(..self.len)).unwrap_or_default()
    }

    /// Adds bytes at the end.
    ///
    /// # Errors
    /// [`Error::Io`] when the system has no memory left; the buffer is then as it was.
    pub fn append(&mut self, bytes: &[u8]) -> Result<()> {
        let end = self.len.checked_add(bytes.len()).ok_or_else(too_long)?;
        self.reserve(end)?;
        let Some(target) = self.pages.as_mut().and_then(|pages| pages.get_mut(self.len..end)) else { return Ok(()) };
        // Cut at page boundaries of the buffer, so that a page of zeros is one piece.
        let head = self.len.next_multiple_of(PAGE).saturating_sub(self.len).min(bytes.len());
        let (head_target, target) = target.split_at_mut(head);
        let (head_bytes, bytes) = bytes.split_at(head);
        copy_unless_zero(head_target, head_bytes);
        for (target, bytes) in target.chunks_mut(PAGE).zip(bytes.chunks(PAGE)) {
            copy_unless_zero(target, bytes);
        }
        self.len = end;
        Ok(())
    }

    /// The mapping and how many bytes of it hold something, for keeps; `None` when nothing was added.
    pub(super) fn into_pages(self) -> Option<(MmapMut, usize)> {
        let len = self.len;
        self.pages.map(|pages| (pages, len))
    }

    /// Makes room for `end` bytes.
    fn reserve(&mut self, end: usize) -> Result<()> {
        let have = self.pages.as_ref().map_or(0, |pages| pages.len());
        if end <= have {
            return Ok(());
        }
        // Half as much again, so that growing costs in proportion to what arrives; untouched pages are only addresses.
        let wanted =
            end.max(have.saturating_add(have / 2)).max(FIRST).checked_next_multiple_of(FIRST).ok_or_else(too_long)?;
        let grown = match self.pages.take() {
            None => MmapMut::map_anon(wanted).map_err(|error| (None, error)),
            Some(pages) => grow(pages, wanted).map_err(|(pages, error)| (Some(pages), error)),
        };
        match grown {
            Ok(pages) => {
                self.pages = Some(pages);
                Ok(())
            }
            Err((pages, error)) => {
                self.pages = pages;
                Err(Error::io(format!("reserving {wanted:#x} bytes of memory"), error))
            }
        }
    }
}

/// Copies `bytes` to fresh memory, which is zero already.
fn copy_unless_zero(target: &mut [u8], bytes: &[u8]) {
    // A comparison of slices is the library's, which is fast in every build.
    let zero = ZEROS.get(..bytes.len()).is_some_and(|zeros| zeros == bytes);
    if !zero {
        target.copy_from_slice(bytes);
    }
}

fn too_long() -> Error {
    Error::io("reserving memory", std::io::ErrorKind::OutOfMemory.into())
}

/// Grows a mapping; no byte is copied.
#[cfg(target_os = "linux")]
fn grow(mut pages: MmapMut, len: usize) -> Result<MmapMut, (MmapMut, std::io::Error)> {
    // SAFETY: the mapping is anonymous, so there is no file that could be too short; we own it, and no reference into it is
    // alive, so it may move.
    match unsafe { pages.remap(len, memmap2::RemapOptions::new().may_move(true)) } {
        Ok(()) => Ok(pages),
        Err(error) => Err((pages, error)),
    }
}

/// Grows a mapping by copying what is not zero into a new one.
#[cfg(not(target_os = "linux"))]
fn grow(pages: MmapMut, len: usize) -> Result<MmapMut, (MmapMut, std::io::Error)> {
    let mut grown = match MmapOptions::new().len(len).map_anon() {
        Ok(grown) => grown,
        Err(error) => return Err((pages, error)),
    };
    for (target, bytes) in grown.chunks_mut(PAGE).zip(pages.chunks(PAGE)) {
        copy_unless_zero(target, bytes);
    }
    Ok(grown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_back_whatever_the_pieces() {
        let source: Vec<u8> = (0..5 * FIRST / 2)
            .map(|index| if (index / PAGE).is_multiple_of(3) { 0 } else { (index / 7) as u8 })
            .collect();
        for piece in [1000, PAGE, PAGE + 1, 1 << 16, 3 * FIRST] {
            let mut buffer = PageBuffer::new();
            for bytes in source.chunks(piece) {
                buffer.append(bytes).unwrap();
            }
            assert!(buffer.bytes() == source, "pieces of {piece}");
        }
    }

    #[test]
    fn empty_buffer_holds_nothing() {
        let mut buffer = PageBuffer::new();
        buffer.append(&[]).unwrap();
        assert_eq!(buffer.bytes(), [0; 0]);
        assert_eq!(format!("{buffer:?}"), "PageBuffer(0 bytes)");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn pages_of_zeros_take_no_memory() {
        let mut buffer = PageBuffer::new();
        let zeros = vec![0; FIRST];
        for _ in 0..512 {
            buffer.append(&zeros).unwrap();
        }
        buffer.append(&[1]).unwrap();
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find(|line| line.starts_with("RssAnon:")).unwrap();
        let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
        assert!(kib < 256 << 10, "{line} after 512 MiB of zeros");
        assert_eq!(buffer.bytes().len(), (512 << 20) + 1);
    }
}
