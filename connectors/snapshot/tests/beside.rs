//! Memory whose layout a file beside it tells: Firecracker and Cloud Hypervisor.
#![cfg(unix)]

mod common;

use std::{fs::File, os::unix::fs::FileExt, path::Path};

use common::{
    beside::{FIRECRACKER_ARM, FIRECRACKER_X86, json_ranges, state_json, vmstate},
    open_error, read,
};
use memflow_core::memory::MachineKind;
use memflow_snapshot::{Container, MemoryLayout, OpenOptions, Snapshot, open};
use tempfile::TempDir;

const GIB: u64 = 1 << 30;

/// Memory of `len` bytes in which each of `places` holds itself, in a file of this name.
fn memory(name: &str, len: u64, places: &[u64]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let file = File::create(dir.path().join(name)).unwrap();
    file.set_len(len).unwrap();
    for place in places {
        file.write_all_at(&place.to_le_bytes(), *place).unwrap();
    }
    dir
}

fn opened(path: &Path) -> Snapshot {
    let snapshot = open(path, &OpenOptions::default()).unwrap();
    assert_eq!(snapshot.format.container, Container::Raw);
    snapshot
}

fn word(snapshot: &Snapshot, addr: u64) -> Option<u64> {
    read(&*snapshot.memory, addr, 8).ok().map(|bytes| u64::from_le_bytes(bytes.try_into().unwrap()))
}

#[test]
fn firecracker_on_a_pc_has_the_hole_where_its_state_says() {
    for (hole, others) in [(0xd000_0000, 0xc000_0000), (0xc000_0000u64, 0xd000_0000u64)] {
        let dir = memory("mem_file", 6 * GIB, &[hole - 0x1000, hole, 6 * GIB - 0x1000]);
        let path = dir.path().join("mem_file");
        let state = vmstate(FIRECRACKER_X86, &[(0, hole), (4 * GIB, 6 * GIB - hole)]);
        std::fs::write(dir.path().join("snapshot_file"), state).unwrap();
        let snapshot = opened(&path);
        assert_eq!(
            (word(&snapshot, hole - 0x1000), word(&snapshot, hole), word(&snapshot, 4 * GIB)),
            (Some(hole - 0x1000), None, Some(hole))
        );
        assert_eq!(word(&snapshot, 4 * GIB + 6 * GIB - hole - 0x1000), Some(6 * GIB - 0x1000));
        assert!(snapshot.notes[0].contains("Firecracker's, as snapshot_file beside it"), "{:?}", snapshot.notes);
        assert_eq!((snapshot.notes.len(), snapshot.alternatives.len()), (1, 0));
        assert_eq!(snapshot.memory.facts().machine, Some(MachineKind::X86_64));

        // A state that packs its numbers says the architecture alone; then it is assumed, and the other way is named.
        std::fs::write(dir.path().join("snapshot_file"), vmstate(FIRECRACKER_X86, &[])).unwrap();
        let snapshot = opened(&path);
        assert_eq!(word(&snapshot, 0xc000_0000), None);
        assert!(snapshot.notes[1].contains("is assumed"), "{:?}", snapshot.notes);
        let [MemoryLayout::Runs(other)] = &snapshot.alternatives[..] else { panic!("{:?}", snapshot.alternatives) };
        assert_eq!(other.runs()[1].offset, hole.max(others));
        // Whoever gives a layout knows better.
        let flat = OpenOptions { layout: MemoryLayout::Flat, ..OpenOptions::default() };
        assert_eq!(word(&open(&path, &flat).unwrap(), hole), Some(hole));
    }
    // Below both holes there is nothing to choose.
    let dir = memory("m", GIB, &[0x5000]);
    std::fs::write(dir.path().join("s"), vmstate(FIRECRACKER_X86 | 3, &[])).unwrap();
    let snapshot = opened(&dir.path().join("m"));
    assert_eq!((word(&snapshot, 0x5000), snapshot.notes.len(), snapshot.alternatives.len()), (Some(0x5000), 1, 0));
}

#[test]
fn firecracker_on_arm_has_memory_from_two_gibibytes_on() {
    let dir = memory("m", 5 * GIB, &[0x5000, 4 * GIB]);
    std::fs::write(dir.path().join("s"), vmstate(FIRECRACKER_ARM, &[])).unwrap();
    let snapshot = opened(&dir.path().join("m"));
    assert_eq!(
        (word(&snapshot, 0), word(&snapshot, 2 * GIB + 0x5000), word(&snapshot, 6 * GIB)),
        (None, Some(0x5000), Some(4 * GIB))
    );
    assert_eq!(snapshot.memory.facts().machine, Some(MachineKind::AArch64));
}

#[test]
fn other_files_beside_memory_say_nothing() {
    let dir = memory("m", GIB, &[0x5000]);
    std::fs::write(dir.path().join("empty"), []).unwrap();
    std::fs::write(dir.path().join("short"), [1, 2, 3]).unwrap();
    std::fs::create_dir(dir.path().join("folder")).unwrap();
    File::create(dir.path().join("large")).unwrap().set_len(1 << 40).unwrap();
    std::os::unix::net::UnixListener::bind(dir.path().join("socket")).unwrap();
    std::os::unix::fs::symlink("m", dir.path().join("link")).unwrap();
    let snapshot = opened(&dir.path().join("m"));
    assert_eq!((word(&snapshot, 0x5000), snapshot.notes.len()), (Some(0x5000), 0));
}

#[test]
fn cloud_hypervisor_lists_the_ranges_of_its_file() {
    let dir = memory("memory-ranges", 4 * GIB, &[0x5000, 3 * GIB, 4 * GIB - 0x1000]);
    let path = dir.path().join("memory-ranges");
    let state = dir.path().join("state.json");
    let ranges = json_ranges(&[(0, 3 * GIB), (4 * GIB, GIB)]);
    std::fs::write(&state, state_json(&ranges)).unwrap();
    let snapshot = opened(&path);
    assert_eq!(
        (word(&snapshot, 0x5000), word(&snapshot, 3 * GIB), word(&snapshot, 4 * GIB)),
        (Some(0x5000), None, Some(3 * GIB))
    );
    assert_eq!(word(&snapshot, 5 * GIB - 0x1000), Some(4 * GIB - 0x1000));
    assert_eq!(snapshot.notes, ["the memory layout is that of state.json, which Cloud Hypervisor wrote beside it"]);

    let refused = |ranges: &[(u64, u64)]| {
        std::fs::write(&state, state_json(&json_ranges(ranges))).unwrap();
        open_error(&path, &OpenOptions::default())
    };
    let error = refused(&[(0, GIB)]);
    assert!(
        error.contains("expected ranges of the 0x100000000 bytes of memory-ranges, found ranges of 0x40000000"),
        "{error}"
    );
    let error = refused(&[(0, 3 * GIB), (0, GIB)]);
    assert!(error.contains("each physical address once"), "{error}");
    let error = refused(&[(u64::MAX, 4 * GIB)]);
    assert!(error.contains("below 2^64"), "{error}");
    std::fs::write(&state, "{").unwrap();
    assert!(open_error(&path, &OpenOptions::default()).contains("expected JSON"), "broken");
    // A version that lists no ranges, and deep nonsense.
    for text in ["{\"snapshots\":[1,2,3]}".to_owned(), format!("{{\"memory_ranges\":{}1", "[".repeat(100_000))] {
        std::fs::write(&state, text).unwrap();
        let _ = open(&path, &OpenOptions::default());
    }
}
