//! Flattened dumps: what makedumpfile writes into a pipe, a list of pieces with the places where they belong in the real file.
//!
//! Owns: the index of pieces, and the real file's bytes by position. Must not know: what the real file is.
//! Keeps: one entry for each piece at most two more; a piece that comes later replaces what it overlaps; what no piece holds is zeros, as
//! in a file that was written with seeks.
//!
//! Source: makedumpfile, `makedumpfile.h` (`makedumpfile_header`, `makedumpfile_data_header`) and the manual page, option `-F`: all numbers
//! big-endian, the first piece at offset 4096, an end mark of -1.
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use std::{
    collections::BTreeMap,
    io,
    ops::Bound,
    path::{Path, PathBuf},
    sync::Arc,
};

use memflow_core::{Error, Result};
use zerocopy::{
    FromBytes, Immutable, IntoBytes, KnownLayout,
    big_endian::{I64, U64},
};

use crate::{
    image::ParseOptions,
    input::{ReadAt, View},
};

/// The first bytes.
pub(crate) const MAGIC: &[u8] = b"makedumpfile\0\0\0\0";
/// Where the first piece begins.
const FIRST: u64 = 4096;
/// Type and version that are known.
const KNOWN: (u64, u64) = (1, 1);

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Header {
    signature: [u8; 16],
    kind: U64,
    version: U64,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct PieceHeader {
    offset: I64,
    len: I64,
}

/// Where bytes of the real file lie in the flattened one.
#[derive(Clone, Copy, Debug)]
struct Piece {
    len: u64,
    at: u64,
}

/// The real file.
pub(crate) struct Flattened {
    path: PathBuf,
    input: Arc<dyn ReadAt>,
    /// By offset in the real file; none overlaps the next.
    pieces: BTreeMap<u64, Piece>,
    size: u64,
}

impl Flattened {
    /// Reads the places of all pieces, and what a person should know.
    ///
    /// # Errors
    /// [`Error::Format`] for pieces that leave the file or a missing end, unless `options` allow partial images.
    pub(crate) fn read(input: Arc<dyn ReadAt>, options: ParseOptions) -> Result<(Self, Vec<String>)> {
        let view = View::new(&*input, "flattened dump");
        let header: Header = view.read(0, "the header")?;
        let found = (header.kind.get(), header.version.get());
        if found != KNOWN {
            return Err(Error::Unsupported {
                what: format!(
                    "{}: a flattened dump of type {} and version {}",
                    input.path().display(),
                    found.0,
                    found.1
                ),
                why: "type 1 and version 1 are known".to_owned(),
            });
        }
        let mut flattened =
            Self { path: input.path().to_owned(), input: input.clone(), pieces: BTreeMap::new(), size: 0 };
        let mut notes = Vec::new();
        let mut at = FIRST;
        loop {
            match flattened.piece(&view, at) {
                Ok(Some(next)) => at = next,
                Ok(None) => break,
                Err(error @ Error::Format { .. }) if options.partial && !flattened.pieces.is_empty() => {
                    notes.push(format!("what came after the first {at:#x} bytes of the file is missing: {error}"));
                    break;
                }
                Err(error) => return Err(error),
            }
        }
        Ok((flattened, notes))
    }

    /// Takes the piece whose header is at `at`, and says where the next one is; `None` at the end mark.
    fn piece(&mut self, view: &View<'_>, at: u64) -> Result<Option<u64>> {
        let header: PieceHeader = view.read(at, "a piece, or the end mark of the dump")?;
        if (header.offset.get(), header.len.get()) == (-1, -1) {
            return Ok(None);
        }
        let body = at.saturating_add(16);
        let bad = |found: String| view.bad(at, "a piece with a place and a length", found);
        let offset = u64::try_from(header.offset.get()).map_err(|_| bad(format!("offset {}", header.offset)))?;
        let len = u64::try_from(header.len.get()).ok().filter(|len| *len > 0);
        let len = len.ok_or_else(|| bad(format!("length {}", header.len)))?;
        let next = body.checked_add(len).filter(|next| *next <= view.size());
        let next = next.ok_or_else(|| view.ends_early(body, len, "a piece"))?;
        let end = offset.checked_add(len).ok_or_else(|| bad(format!("offset {offset:#x} and length {len:#x}")))?;
        self.put(offset, end, body);
        self.size = self.size.max(end);
        Ok(Some(next))
    }

    /// Puts `start..end` where the file has it at `at`, in place of what was there.
    fn put(&mut self, start: u64, end: u64, at: u64) {
        // What begins before and reaches into it keeps its first part, and the part behind, if any.
        if let Some((&first, piece)) = self.pieces.range_mut(..start).next_back() {
            let old = *piece;
            let reaches = first.saturating_add(old.len);
            if reaches > start {
                piece.len = start.saturating_sub(first);
                self.keep_behind(first, old, end);
            }
        }
        while let Some((&first, &old)) = self.pieces.range(start..).next()
            && first < end
        {
            self.pieces.remove(&first);
            self.keep_behind(first, old, end);
        }
        self.pieces.insert(start, Piece { len: end.saturating_sub(start), at });
    }

    /// Keeps what a piece holds from `end` on.
    fn keep_behind(&mut self, first: u64, old: Piece, end: u64) {
        let skipped = end.saturating_sub(first);
        if let Some(len) = old.len.checked_sub(skipped).filter(|len| *len > 0) {
            self.pieces.insert(end, Piece { len, at: old.at.saturating_add(skipped) });
        }
    }
}

impl ReadAt for Flattened {
    fn path(&self) -> &Path {
        &self.path
    }

    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.size.saturating_sub(offset)).unwrap_or(usize::MAX);
        let Some(buf) = buf.get_mut(..left.min(buf.len())).filter(|buf| !buf.is_empty()) else { return Ok(0) };
        let cut = |len: u64| usize::try_from(len).unwrap_or(usize::MAX);
        if let Some((first, piece)) = self.pieces.range(..=offset).next_back()
            && let Some(inside) = offset.checked_sub(*first).filter(|inside| *inside < piece.len)
        {
            let len = cut(piece.len.saturating_sub(inside)).min(buf.len());
            return self.input.read_at(piece.at.saturating_add(inside), buf.get_mut(..len).unwrap_or_default());
        }
        let next = self.pieces.range((Bound::Excluded(offset), Bound::Unbounded)).next();
        let len = next.map_or(usize::MAX, |(next, _)| cut(next.saturating_sub(offset))).min(buf.len());
        buf.get_mut(..len).unwrap_or_default().fill(0);
        Ok(len)
    }
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::arithmetic_side_effects,
        clippy::as_conversions,
        clippy::indexing_slicing,
        reason = "tests"
    )]
    use proptest::prelude::*;

    use super::*;
    use crate::input::OwnedInput;

    fn flattened(pieces: &[(u64, Vec<u8>)]) -> Result<(Flattened, Vec<String>)> {
        let mut file = MAGIC.to_vec();
        file.extend([1u64.to_be_bytes(), 1u64.to_be_bytes()].concat());
        file.resize(4096, 0);
        for (offset, bytes) in pieces {
            file.extend([offset.to_be_bytes(), (bytes.len() as u64).to_be_bytes()].concat());
            file.extend(bytes);
        }
        file.extend([0xff; 16]);
        let mut bytes = memflow_core::memory::PageBuffer::new();
        bytes.append(&file)?;
        Flattened::read(Arc::new(OwnedInput::new("flat".as_ref(), bytes)), ParseOptions::default())
    }

    proptest! {
        #[test]
        fn bytes_are_those_of_a_file_written_with_seeks(
            pieces in proptest::collection::vec((0u64..200, proptest::collection::vec(1u8.., 1..60)), 0..20),
        ) {
            let mut expected: Vec<u8> = Vec::new();
            for (offset, bytes) in &pieces {
                let end = *offset as usize + bytes.len();
                expected.resize(expected.len().max(end), 0);
                expected[*offset as usize..end].copy_from_slice(bytes);
            }
            let (flat, notes) = flattened(&pieces).unwrap();
            prop_assert!(notes.is_empty());
            let read = View::new(&flat, "test").bytes(0, flat.size(), "all").unwrap();
            prop_assert_eq!(read, expected);
        }
    }

    #[test]
    fn pieces_that_cannot_be_are_refused() {
        for (offset, text) in [(u64::MAX - 5, "offset -6"), (i64::MAX as u64, "")] {
            let error = flattened(&[(offset, vec![1; 10])]).map(|_| ());
            match text {
                "" => assert!(error.is_ok()),
                text => assert!(error.unwrap_err().to_string().contains(text)),
            }
        }
    }
}
