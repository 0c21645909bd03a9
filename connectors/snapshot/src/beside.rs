//! Memory files of microVM monitors: plain memory, whose addresses are told by a file beside it.
//!
//! Owns: which file beside tells, and what it tells. Must not know: how memory is read.
//! Keeps: only regular files of some MiB are opened, and not more of them than a folder of snapshots has; what they say is checked
//! against the length of the memory.
//!
//! Sources: Cloud Hypervisor, `docs/snapshot_restore.md` (the three files), `vmm/src/memory_manager.rs` (`MemoryManagerSnapshotData`: the
//! file `memory-ranges` holds the ranges of `memory_ranges` one after the other). Firecracker,
//! `docs/snapshotting/versioning.md` (the magic of a state), `src/vmm/src/arch/x86_64` and `aarch64` (`arch_memory_regions`,
//! `layout.rs`), `src/vmm/src/vstate/memory.rs` (regions: base, size; memory is dumped region after region).
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use std::{
    fs,
    path::{Path, PathBuf},
};

use memflow_core::{
    PhysAddr, PhysRange, Result,
    address::GIB,
    memory::{MachineKind, Run, RunMap},
};
use serde_json::Value;

use crate::{
    image::ParsedImage,
    input::{FileInput, ReadAt, View},
    raw::{MemoryLayout, split},
};

/// Longest state that is read: Firecracker's own limit is 10 MiB.
const MAX_STATE: u64 = 16 << 20;
/// Most files of a folder that are looked at.
const MAX_FILES: usize = 256;
/// Most texts inside texts in Cloud Hypervisor's state.
const MAX_NESTING: u32 = 3;

/// Cloud Hypervisor's files.
const CLOUD_MEMORY: &str = "memory-ranges";
const CLOUD_STATE: &str = "state.json";

/// The first eight bytes of Firecracker's states, without the lowest sixteen bits, which were a version once.
const FIRECRACKER_X86: u64 = 0x0710_1984_8664_0000;
const FIRECRACKER_ARM: u64 = 0x0710_1984_aaaa_0000;
/// Where the hole of a PC begins: with room for PCI devices, as newer versions have it, and without.
const HOLES: [u64; 2] = [0xc000_0000, 0xd000_0000];
/// Where memory begins on Arm, and the most that lies below newer versions' room for devices.
const ARM_START: u64 = 2 * GIB;
const ARM_MOST: u64 = 254 * GIB;

/// What a file beside says about memory.
pub(crate) struct Beside {
    pub(crate) image: ParsedImage,
    pub(crate) alternatives: Vec<MemoryLayout>,
}

/// What lies beside `memory`, of `len` bytes, and tells its layout.
///
/// # Errors
/// [`Error::Format`](memflow_core::Error::Format) for a state of Cloud Hypervisor that does not fit the memory.
pub(crate) fn find(memory: &Path, len: u64) -> Result<Option<Beside>> {
    if memory.file_name().is_some_and(|name| name == CLOUD_MEMORY) {
        let state = memory.with_file_name(CLOUD_STATE);
        if is_small_file(&state) {
            return cloud_hypervisor(&FileInput::open(&state, false)?, len);
        }
    }
    Ok(firecracker_state(memory).and_then(|state| firecracker(&state, len)))
}

fn is_small_file(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|metadata| metadata.is_file() && metadata.len() <= MAX_STATE)
}

/// The ranges of a state of Cloud Hypervisor; none when it is of a version that lists none.
pub(crate) fn cloud_hypervisor(state: &dyn ReadAt, len: u64) -> Result<Option<Beside>> {
    let view = View::new(state, "state of Cloud Hypervisor");
    let bytes = view.bytes(0, view.size(), "the state")?;
    let state: Value =
        serde_json::from_slice(&bytes).map_err(|error| view.bad(0, "JSON", format!("something else: {error}")))?;
    let Some(ranges) = memory_ranges(&state, 0) else { return Ok(None) };
    let mut offset: u64 = 0;
    let mut runs = Vec::new();
    for (gpa, length) in ranges {
        let range = PhysRange::new(PhysAddr::new(gpa), length);
        let next = offset.checked_add(length);
        let (Some(range), Some(next)) = (range, next) else {
            return Err(view.bad(0, "ranges of memory below 2^64", format!("{length:#x} bytes at {gpa:#x}")));
        };
        runs.push(Run { range, offset });
        offset = next;
    }
    if offset != len {
        let expected = format!("ranges of the {len:#x} bytes of {CLOUD_MEMORY}");
        return Err(view.bad(
            0,
            expected,
            format!("ranges of {offset:#x} bytes; are both of one snapshot, and whole?"),
        ));
    }
    let runs = RunMap::new(runs).map_err(|error| view.bad(0, "each physical address once", error.to_string()))?;
    let notes = vec![format!("the memory layout is that of {CLOUD_STATE}, which Cloud Hypervisor wrote beside it")];
    Ok(Some(Beside { image: ParsedImage { runs, notes, ..ParsedImage::default() }, alternatives: Vec::new() }))
}

/// First address and length of each range, wherever they are in a state. Parts of it are JSON inside texts.
fn memory_ranges(value: &Value, nesting: u32) -> Option<Vec<(u64, u64)>> {
    match value {
        Value::Object(fields) => {
            let listed = fields.get("memory_ranges").and_then(|ranges| ranges.get("data")).and_then(Value::as_array);
            let number = |range: &Value, key: &str| range.get(key).and_then(Value::as_u64);
            let ranges = listed.and_then(|list| {
                list.iter().map(|range| number(range, "gpa").zip(number(range, "length"))).collect::<Option<Vec<_>>>()
            });
            ranges
                .filter(|ranges| !ranges.is_empty())
                .or_else(|| fields.values().find_map(|field| memory_ranges(field, nesting)))
        }
        Value::Array(values) => values.iter().find_map(|value| memory_ranges(value, nesting)),
        Value::String(text) if nesting < MAX_NESTING && text.contains("memory_ranges") => {
            memory_ranges(&serde_json::from_str(text).ok()?, nesting.saturating_add(1))
        }
        _ => None,
    }
}

/// A state of Firecracker in the folder of `memory`, by its first bytes.
fn firecracker_state(memory: &Path) -> Option<FileInput> {
    let folder = memory.parent().map(|folder| if folder.as_os_str().is_empty() { Path::new(".") } else { folder })?;
    let mut paths: Vec<PathBuf> =
        fs::read_dir(folder).ok()?.take(MAX_FILES).flatten().map(|entry| entry.path()).collect();
    paths.sort();
    paths.into_iter().filter(|path| path.file_name() != memory.file_name() && is_small_file(path)).find_map(|path| {
        let input = FileInput::open(&path, false).ok()?;
        firecracker_magic(&input).map(|_| input)
    })
}

/// The magic of a state of Firecracker; `None` for anything else.
fn firecracker_magic(state: &dyn ReadAt) -> Option<u64> {
    let magic: [u8; 8] = View::new(state, "state of Firecracker").read(0, "the magic").ok()?;
    let magic = u64::from_le_bytes(magic) & !0xffff;
    [FIRECRACKER_X86, FIRECRACKER_ARM].contains(&magic).then_some(magic)
}

/// The layout of `len` bytes that Firecracker dumped, with the state for evidence of where the hole is.
pub(crate) fn firecracker(state: &dyn ReadAt, len: u64) -> Option<Beside> {
    let magic = firecracker_magic(state)?;
    let name = state.path().file_name().unwrap_or_default().to_string_lossy();
    let mut image = ParsedImage::default();
    let mut alternatives = Vec::new();
    if magic == FIRECRACKER_ARM {
        let range = PhysRange::new(PhysAddr::new(ARM_START), len).filter(|_| len <= ARM_MOST)?;
        image.facts.machine = Some(MachineKind::AArch64);
        image.runs = RunMap::new([Run { range, offset: 0 }]).ok()?;
    } else {
        image.facts.machine = Some(MachineKind::X86_64);
        let state = View::new(state, "state of Firecracker").bytes(0, state.size(), "the state").ok()?;
        let mut layouts: Vec<RunMap> = HOLES.iter().map(|hole| split(len, *hole)).collect();
        layouts.dedup();
        let told = layouts.iter().position(|layout| names_last_region(&state, layout));
        match told {
            Some(told) => layouts.swap(0, told),
            None if layouts.len() > 1 => image.notes.push(format!(
                "where the hole below 4 GiB begins is assumed, as {name} does not say it in a form known here: it may also be the other place"
            )),
            None => {}
        }
        let mut layouts = layouts.into_iter();
        image.runs = layouts.next()?;
        if told.is_none() {
            alternatives.extend(layouts.map(MemoryLayout::Runs));
        }
    }
    image.notes.insert(
        0,
        format!("the memory layout is Firecracker's, as {name} beside it is its state; of a diff snapshot, what did not change reads as zeros"),
    );
    Some(Beside { image, alternatives })
}

/// True when a state lists the last region of a layout: its base and, right behind it, its size.
fn names_last_region(state: &[u8], layout: &RunMap) -> bool {
    layout.runs().last().is_some_and(|run| {
        let [base, size] = [run.range.start().as_u64(), run.range.len()].map(u64::to_le_bytes);
        let pair = [base, size].concat();
        state.windows(pair.len()).any(|window| window == pair)
    })
}
