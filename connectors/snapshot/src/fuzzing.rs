//! Entries for fuzz targets into parsers that are not public. With the feature `fuzzing`; no promise of stability.
//!
//! Owns: the way from plain bytes to a parser's arguments. Must not know: how inputs are made, what must be true of what comes out.

use memflow_core::{Result, memory::TargetFacts};

use crate::{
    beside::{self, Beside},
    facts_note::{self, Told},
    image::ParsedImage,
    input::BytesInput,
    raw::MemoryLayout,
};

/// What a state of Cloud Hypervisor says of `len` bytes of memory beside it.
///
/// # Errors
/// As opening the memory.
pub fn cloud_hypervisor(state: &[u8], len: u64) -> Result<Option<ParsedImage>> {
    let beside = beside::cloud_hypervisor(&BytesInput::new("state.json".as_ref(), state), len)?;
    Ok(beside.map(|Beside { image, .. }| image))
}

/// What a state of Firecracker says of `len` bytes of memory beside it, and the layouts that they may have instead.
pub fn firecracker(state: &[u8], len: u64) -> Option<(ParsedImage, Vec<MemoryLayout>)> {
    let Beside { image, alternatives } = beside::firecracker(&BytesInput::new("vmstate".as_ref(), state), len)?;
    Some((image, alternatives))
}

/// Reads the text of the note "MEMFLOW". Returns what it tells, and how many lines were not understood.
pub fn facts_note(text: &[u8]) -> (TargetFacts, u64) {
    let Told { vcpus, directory_table, windows, unread } = facts_note::parse(text);
    let mut facts = TargetFacts::default();
    (facts.vcpus, facts.directory_table, facts.windows) = (vcpus, directory_table, windows);
    (facts, unread)
}

/// The text that tells it.
pub fn facts_text(facts: &TargetFacts) -> Option<String> {
    facts_note::text(facts)
}
