//! Bytes from a file to the parts of operations.
//!
//! Owns: how many parts one system call fills, and what an error costs: the page it is about, not the rest.
//! Must not know: physical addresses, runs.
//! Keeps: every byte of every part is read or its part says that it was not.
//! Source: readv(2). A call that fails after it has read something does not say how much of it (`read_kcore_iter` in `fs/proc/kcore.c` of
//! Linux returns the error alone), so what it asked for is asked for again, page by page.
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use std::{
    fs::File,
    io::{self, IoSliceMut},
};

/// What the kernel copies at a time; a page that it cannot copy fails alone.
const PAGE: u64 = 4096;
/// Buffers of one call (`IOV_MAX`, which is `UIO_MAXIOV` of Linux).
const MOST_BUFFERS: usize = 1024;

/// A part of an operation: where its bytes lie in the file, and where they go.
pub(crate) struct Part<'a> {
    /// Index of the operation in its batch.
    pub(crate) op: usize,
    /// Bytes from the start of the operation.
    pub(crate) from: u64,
    /// Where its bytes begin in the file.
    pub(crate) offset: u64,
    /// Where they go.
    pub(crate) buf: &'a mut [u8],
    /// Its first byte that could not be read, and the system's error, or `None` for the end of the file.
    pub(crate) failed: Option<(u64, Option<i32>)>,
}

impl Part<'_> {
    fn len(&self) -> u64 {
        u64::try_from(self.buf.len()).unwrap_or(u64::MAX)
    }

    fn end(&self) -> u64 {
        self.offset.saturating_add(self.len())
    }

    /// Notes that the byte at `offset` of the file could not be read.
    fn fail(&mut self, offset: u64, error: Option<i32>) {
        let inside = offset.saturating_sub(self.offset);
        if self.failed.is_none_or(|(earlier, _)| inside < earlier) {
            self.failed = Some((inside, error));
        }
    }
}

/// Something that is read by position into several buffers at once.
pub(crate) trait Source {
    /// Fills the buffers with the bytes from `offset` on, as far as it gets in one go.
    fn read(&self, bufs: &mut [IoSliceMut<'_>], offset: u64) -> io::Result<usize>;
}

impl Source for File {
    #[cfg(target_os = "linux")]
    fn read(&self, bufs: &mut [IoSliceMut<'_>], offset: u64) -> io::Result<usize> {
        Ok(rustix::io::preadv(self, bufs, offset)?)
    }

    #[cfg(all(unix, not(target_os = "linux")))]
    fn read(&self, bufs: &mut [IoSliceMut<'_>], offset: u64) -> io::Result<usize> {
        bufs.first_mut().map_or(Ok(0), |buf| std::os::unix::fs::FileExt::read_at(self, buf, offset))
    }

    #[cfg(windows)]
    fn read(&self, bufs: &mut [IoSliceMut<'_>], offset: u64) -> io::Result<usize> {
        bufs.first_mut().map_or(Ok(0), |buf| std::os::windows::fs::FileExt::seek_read(self, buf, offset))
    }
}

/// Reads all parts. They are put in the order of the file, and neighbours share a call.
pub(crate) fn read(source: &impl Source, parts: &mut [Part<'_>]) {
    parts.sort_by_key(|part| part.offset);
    let mut rest = parts;
    while !rest.is_empty() {
        let count = 1_usize.saturating_add(
            rest.windows(2)
                .take(MOST_BUFFERS.saturating_sub(1))
                .take_while(|pair| matches!(pair, [first, second] if first.end() == second.offset))
                .count(),
        );
        let Some((group, after)) = rest.split_at_mut_checked(count) else { return };
        read_group(source, group);
        rest = after;
    }
}

/// Reads parts that follow each other in the file.
fn read_group(source: &impl Source, group: &mut [Part<'_>]) {
    let Some(start) = group.first().map(|part| part.offset) else { return };
    let mut at = start;
    let error = {
        let mut bufs: Vec<IoSliceMut<'_>> = group.iter_mut().map(|part| IoSliceMut::new(part.buf)).collect();
        let mut bufs = bufs.as_mut_slice();
        // Takes away what is empty from the start.
        IoSliceMut::advance_slices(&mut bufs, 0);
        loop {
            if bufs.is_empty() {
                return;
            }
            match source.read(bufs, at) {
                Ok(0) => break None,
                Ok(count) => {
                    at = at.saturating_add(u64::try_from(count).unwrap_or(u64::MAX));
                    IoSliceMut::advance_slices(&mut bufs, count);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => break Some(error),
            }
        }
    };
    for part in group.iter_mut().filter(|part| part.end() > at) {
        let from = at.max(part.offset);
        match &error {
            None => part.fail(from, None),
            Some(_) => read_pages(source, part, from),
        }
    }
}

/// Reads what a part has from `from` on, each page with a call of its own.
fn read_pages(source: &impl Source, part: &mut Part<'_>, from: u64) {
    let (end, mut at) = (part.end(), from);
    while at < end {
        let page_end = at.checked_next_multiple_of(PAGE).filter(|next| *next > at).unwrap_or(at.saturating_add(PAGE));
        let stop = page_end.min(end);
        let inside = |offset: u64| usize::try_from(offset.saturating_sub(part.offset)).unwrap_or(usize::MAX);
        let Some(buf) = part.buf.get_mut(inside(at)..inside(stop)) else { return };
        match source.read(&mut [IoSliceMut::new(buf)], at) {
            Ok(0) => return part.fail(at, None),
            Ok(count) => at = at.saturating_add(u64::try_from(count).unwrap_or(u64::MAX)),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => {
                part.fail(at, Some(error.raw_os_error().unwrap_or(0)));
                at = stop;
            }
        }
    }
}

#[cfg(test)]
mod tests;
