//! Reading what the other side points to.
//!
//! Owns: pointers with counts as slices, texts, and growing structures of which a part may be missing.
//! Must not know: what anything means.
//! Keeps: a null pointer is nothing, whatever its count; a count that no memory can hold is nothing too.

use std::{borrow::Cow, mem::MaybeUninit, ptr, slice};

use memflow_abi::{Growing, Grows, Header, Text};

/// The bytes of a text; `None` for a null pointer.
///
/// # Safety
/// A pointer that is not null leads to `text.len` readable bytes that do not change for `'a`.
pub(crate) unsafe fn bytes<'a>(text: Text) -> Option<&'a [u8]> {
    // SAFETY: the caller's promise, with bytes as items.
    unsafe { items(text.ptr, text.len) }
}

/// Longest text in bytes. Environments of processes are the longest that there are, with at most 128 KiB per string.
const MAX_TEXT: usize = 16 << 20;
/// Most items of a list. Images with holes have the longest, of their runs.
const MAX_ITEMS: usize = 1 << 24;

/// A text with anything that is no UTF-8 replaced; `None` for a null pointer. One that is too long to be true is not looked at, and
/// says so.
///
/// # Safety
/// As [`bytes`], if it is not too long.
pub(crate) unsafe fn text<'a>(text: Text) -> Option<Cow<'a, str>> {
    if text.len > MAX_TEXT && !text.ptr.is_null() {
        return Some(format!("(a text of {} bytes; at most {MAX_TEXT} are taken)", text.len).into());
    }
    // SAFETY: the caller's promise.
    unsafe { bytes(text) }.map(String::from_utf8_lossy)
}

/// A list of the other side; empty when its count is zero, whatever its pointer.
///
/// # Errors
/// In words, when no list can be there.
///
/// # Safety
/// As [`items`], if there are not too many.
pub(crate) unsafe fn list<'a, T>(what: &str, first: *const T, count: usize) -> Result<&'a [T], String> {
    if count == 0 {
        return Ok(&[]);
    }
    if count > MAX_ITEMS || !fits(first, count) {
        return Err(format!("{what}: {count} at address {:#x}, where no such list can be", first.addr()));
    }
    // SAFETY: the caller's promise.
    Ok(unsafe { items(first, count) }.unwrap_or_default())
}

/// As [`text`], owned; empty for a null pointer.
///
/// # Safety
/// As [`bytes`].
pub(crate) unsafe fn string(source: Text) -> String {
    // SAFETY: the caller's promise.
    unsafe { text(source) }.unwrap_or_default().into_owned()
}

/// As [`text`], owned.
///
/// # Safety
/// As [`bytes`].
pub(crate) unsafe fn optional_string(source: Text) -> Option<String> {
    // SAFETY: the caller's promise.
    unsafe { text(source) }.map(Cow::into_owned)
}

/// An array; `None` for a null or misaligned pointer, or a length that no array has.
///
/// # Safety
/// A pointer that is not null leads to `count` readable items that do not change for `'a`.
pub(crate) unsafe fn items<'a, T>(first: *const T, count: usize) -> Option<&'a [T]> {
    if !fits(first, count) {
        return None;
    }
    // SAFETY: not null, aligned and of a possible length (just checked), and readable for `'a` by the caller's promise.
    Some(unsafe { slice::from_raw_parts(first, count) })
}

/// An array to write to; `None` as for [`items`].
///
/// # Safety
/// A pointer that is not null leads to `count` readable and writable items that nobody else touches for `'a`.
pub(crate) unsafe fn items_mut<'a, T>(first: *mut T, count: usize) -> Option<&'a mut [T]> {
    if !fits(first, count) {
        return None;
    }
    // SAFETY: not null, aligned and of a possible length (just checked), and ours alone for `'a` by the caller's promise.
    Some(unsafe { slice::from_raw_parts_mut(first, count) })
}

/// True when a slice can start there and be that long.
fn fits<T>(first: *const T, count: usize) -> bool {
    let bytes = count.checked_mul(size_of::<T>());
    !first.is_null() && first.is_aligned() && bytes.is_some_and(|bytes| isize::try_from(bytes).is_ok())
}

/// A buffer to write to, empty when its length is zero, whatever its pointer; `None` as for [`items`].
///
/// # Safety
/// As [`items_mut`].
pub(crate) unsafe fn buffer_mut<'a>(first: *mut u8, len: usize) -> Option<&'a mut [u8]> {
    if len == 0 {
        return Some(&mut []);
    }
    // SAFETY: the caller's promise.
    unsafe { items_mut(first, len) }
}

/// A buffer to read, empty when its length is zero, whatever its pointer; `None` as for [`items`].
///
/// # Safety
/// As [`items`].
pub(crate) unsafe fn buffer<'a>(first: *const u8, len: usize) -> Option<&'a [u8]> {
    if len == 0 {
        return Some(&[]);
    }
    // SAFETY: the caller's promise.
    unsafe { items(first, len) }
}

/// Largest structure in bytes, with all that later versions may append.
const MAX_STRUCTURE: usize = 64 << 10;

/// A copy of a growing structure, zero where the other side has no such field; `None` for a null or misaligned pointer, a size that no
/// version of it can have, or another major version.
///
/// # Safety
/// A pointer that is not null leads to a header, and that many bytes of the structure as its `size` says are readable.
pub(crate) unsafe fn structure<T: Growing>(source: Grows<T>) -> Option<T> {
    if !fits(source.ptr, 1) {
        return None;
    }
    // SAFETY: not null and aligned (just checked), and a header is there by the caller's promise.
    let header = unsafe { source.ptr.cast::<Header>().read() };
    let there = usize::try_from(header.size).ok()?;
    // The size of a structure is a multiple of its alignment; any other would cut a pointer in half.
    let possible = (size_of::<Header>()..=MAX_STRUCTURE).contains(&there) && there.is_multiple_of(align_of::<T>());
    if !possible || header.major != memflow_abi::MAJOR {
        return None;
    }
    let mut copy = MaybeUninit::<T>::zeroed();
    let (from, to) = (source.ptr.cast::<u8>(), copy.as_mut_ptr().cast::<u8>());
    // SAFETY: `size` bytes are readable by the caller's promise, no more than the copy has are taken, and the copy is ours.
    unsafe { ptr::copy_nonoverlapping(from, to, there.min(size_of::<T>())) };
    // SAFETY: what was not copied is zero, which is valid for every field (contract of `Growing`), and so is what the other side made.
    Some(unsafe { copy.assume_init() })
}

#[cfg(test)]
mod tests {
    use memflow_abi::{MemoryInfo, TextRecord};

    use super::*;

    #[test]
    fn what_an_earlier_version_does_not_have_is_zero() {
        let mut info = MemoryInfo::empty();
        info.name = Text::new("name");
        info.ideal_batch = 7;
        info.header.size = std::mem::offset_of!(MemoryInfo, ideal_batch) as u32;
        // SAFETY: the structure is whole, and says that it is shorter.
        let copy = unsafe { structure(Grows::new(&info)) }.unwrap();
        assert_eq!(copy.ideal_batch, 0);
        // SAFETY: the text is a literal.
        assert_eq!(unsafe { string(copy.name) }, "name");
    }

    #[test]
    fn what_a_later_version_has_is_left_aside() {
        #[repr(C)]
        struct Later {
            record: TextRecord,
            more: [u64; 4],
        }
        let mut later = Later { record: TextRecord::empty(), more: [u64::MAX; 4] };
        later.record.text = Text::new("text");
        later.record.header.size = size_of::<Later>() as u32;
        later.record.header.minor = 99;
        let source = Grows { ptr: (&raw const later).cast::<TextRecord>() };
        // SAFETY: `later` is as long as its header says and starts with a record.
        let copy = unsafe { structure(source) }.unwrap();
        // SAFETY: the text is a literal.
        assert_eq!(unsafe { string(copy.text) }, "text");
        assert_eq!(later.more, [u64::MAX; 4]);
    }

    #[test]
    fn lists_and_texts_that_cannot_be_are_told_and_not_looked_at() {
        // SAFETY: what is too long is not looked at.
        let text = unsafe { text(Text { ptr: ptr::dangling(), len: 1 << 62 }) }.unwrap();
        assert_eq!(text, "(a text of 4611686018427387904 bytes; at most 16777216 are taken)");
        for (first, count) in [(0, 1), (8, 1 << 63), (8, usize::MAX), (8, (1 << 24) + 1), (3, 1)] {
            // SAFETY: what cannot be a list is not looked at.
            let list = unsafe { list("runs", ptr::without_provenance::<u64>(first), count) };
            assert_eq!(list, Err(format!("runs: {count} at address {first:#x}, where no such list can be")));
        }
        // SAFETY: nothing is read.
        assert_eq!(unsafe { list::<u64>("runs", ptr::null(), 0) }, Ok(&[][..]));
    }

    #[test]
    fn nonsense_is_nothing() {
        // SAFETY: null is allowed.
        assert!(unsafe { structure::<TextRecord>(Grows::NULL) }.is_none());
        for (first, count) in [(0, 5), (8, usize::MAX), (3, 1)] {
            // SAFETY: null is allowed, and what cannot be an array is not looked at.
            assert!(unsafe { items(ptr::without_provenance::<u64>(first), count) }.is_none());
        }
        // SAFETY: nothing is read.
        assert_eq!(unsafe { buffer(ptr::null(), 0) }, Some(&[][..]));
        let mut record = TextRecord::empty();
        record.header.size = 4;
        // SAFETY: the record is whole.
        assert!(unsafe { structure(Grows::new(&record)) }.is_none());
        for size in [0, 20, (64 << 10) + 8, u32::MAX] {
            record.header.size = size;
            // SAFETY: as above.
            assert!(unsafe { structure(Grows::new(&record)) }.is_none(), "{size}");
        }
        record.header = Header { major: memflow_abi::MAJOR + 1, ..Header::of::<TextRecord>() };
        // SAFETY: the record is whole.
        assert!(unsafe { structure(Grows::new(&record)) }.is_none());
    }
}
