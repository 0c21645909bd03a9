//! The letters of page flags.
//!
//! Owns: how rights and state of a page are written. Must not know: which command shows them.

use memflow_core::paging::PageFlags;

/// What a page may be used for: `rwx`, and `u` when user mode may use it, `s` when only the kernel may.
pub(super) fn rights(flags: PageFlags) -> String {
    // Every page that is present can be read on every architecture here.
    let write = if flags.contains(PageFlags::WRITABLE) { 'w' } else { '-' };
    let execute = if flags.contains(PageFlags::NO_EXECUTE) { '-' } else { 'x' };
    let mode = if flags.contains(PageFlags::USER) { 'u' } else { 's' };
    format!("r{write}{execute}{mode}")
}

/// What became of a page: `A` accessed, `D` dirty, `G` global.
pub(super) fn state(flags: PageFlags) -> String {
    let pick = |flag, letter| if flags.contains(flag) { letter } else { '-' };
    [pick(PageFlags::ACCESSED, 'A'), pick(PageFlags::DIRTY, 'D'), pick(PageFlags::GLOBAL, 'G')].iter().collect()
}
