//! VMware snapshots: memory in the state and beside it, by the public layout.

mod common;

use common::{
    open_error, pattern, read,
    vmware::{Value, cpus, number, regions, state, tag},
};
use memflow_core::memory::VcpuRegisters;
use memflow_snapshot::{Container, MemoryLayout, OpenOptions, open};

fn memory() -> Vec<u8> {
    pattern(7, 4 * 0x1000)
}

fn check(snapshot: &memflow_snapshot::Snapshot) {
    assert_eq!(snapshot.format.container, Container::Vmware);
    let memory = memory();
    assert_eq!(read(&*snapshot.memory, 0x1000, 0x1000).unwrap(), memory[0x1000..0x2000]);
    assert_eq!(read(&*snapshot.memory, 0x1_0000_0000, 0x2000).unwrap(), memory[0x2000..]);
    assert!(read(&*snapshot.memory, 0, 1).unwrap_err().is_not_in_image());
    let [VcpuRegisters::X86(first), VcpuRegisters::X86(second)] = &snapshot.memory.facts().vcpus[..] else {
        panic!("{:?}", snapshot.memory.facts())
    };
    assert_eq!((first.cr3, first.rip, second.cr3), (Some(0x1a_d000), Some(0xffff_f800_1234_5678), Some(0x1_2345_6000)));
}

#[test]
fn memory_in_the_state_is_found() {
    for (magic, padding) in [(0xbed2_bed2u32, 0), (0xbad1_bad1, 77), (0xbed3_bed3, 0xffff)] {
        let memory = tag(false, "Memory", &[0, 0], &Value::Block(&memory(), padding));
        let bytes =
            state(magic, &[("other", vec![0xff; 9]), ("cpu", cpus()), ("memory", [regions(), memory].concat())]);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("guest.vmss");
        std::fs::write(&path, bytes).unwrap();
        check(&open(&path, &OpenOptions::default()).unwrap());
    }
    let narrow = tag(true, "Memory", &[0, 0], &Value::Block(&memory(), 3));
    let bytes = state(0xbed0_bed0, &[("cpu", cpus()), ("memory", [regions(), narrow].concat())]);
    let (_dir, path) = common::file(&bytes);
    check(&open(&path, &OpenOptions::default()).unwrap());
}

#[test]
fn memory_beside_the_state_is_found_from_either() {
    for extension in ["vmss", "vmsn"] {
        let dir = tempfile::tempdir().unwrap();
        let (state_path, memory_path) = (dir.path().join(format!("guest.{extension}")), dir.path().join("guest.vmem"));
        std::fs::write(&state_path, state(0xbed2_bed2, &[("cpu", cpus()), ("memory", regions())])).unwrap();
        let error = open_error(&state_path, &OpenOptions::default());
        assert!(error.contains("holds no memory, and guest.vmem is not beside it; copy that file too"), "{error}");
        std::fs::write(&memory_path, memory()).unwrap();
        check(&open(&state_path, &OpenOptions::default()).unwrap());
        check(&open(&memory_path, &OpenOptions::default()).unwrap());
        // Whoever gives a layout knows better.
        let flat = OpenOptions { layout: MemoryLayout::Flat, ..OpenOptions::default() };
        let snapshot = open(&memory_path, &flat).unwrap();
        assert_eq!(read(&*snapshot.memory, 0, 0x4000).unwrap(), memory());
        assert_eq!(snapshot.format.container, Container::Raw);
    }
}

#[test]
fn without_regions_the_memory_is_in_one_piece_and_a_note_says_so() {
    let block = tag(false, "Memory", &[], &Value::Block(&memory(), 5));
    let (_dir, path) = common::file(&state(0xbed2_bed2, &[("memory", block)]));
    let snapshot = open(&path, &OpenOptions::default()).unwrap();
    assert_eq!(read(&*snapshot.memory, 0, 0x4000).unwrap(), memory());
    assert_eq!(snapshot.notes, ["the state lists no regions, so memory is taken to be that of a PC of VMware"]);
}

#[test]
fn damaged_states_are_refused_with_what_and_where() {
    let refused = |bytes: &[u8]| common::error_of(bytes, &OpenOptions::default());
    let whole =
        state(0xbed2_bed2, &[("memory", [regions(), tag(false, "Memory", &[], &Value::Block(&memory(), 0))].concat())]);
    let error = refused(&common::patched(whole.clone(), 8, &[0xff; 4]));
    assert_eq!(error, "image: VMware state: at offset 0x8: expected 4096 groups at most, found 4294967295");
    let error = refused(&common::patched(whole.clone(), 12 + 72, &[0xff; 8]));
    assert_eq!(
        error,
        "image: VMware state: at offset 0x4c: expected a group inside the file, found 0xffffffffffffffff bytes at 0x5c"
    );
    let error = refused(&whole[..whole.len() - 1]);
    assert!(error.contains("expected a group inside the file"), "{error}");
    let missing = state(0xbed2_bed2, &[("memory", number("regionsCount", &[], 2))]);
    assert_eq!(refused(&missing), "image: VMware state: at offset 0x0: expected 2 regions of memory, found 0");
    let half = [number("regionsCount", &[], 1), number("regionPPN", &[0], 1)].concat();
    let error = refused(&state(0xbed2_bed2, &[("memory", half)]));
    assert!(error.contains("found region 0 without one of them"), "{error}");
    let far = [regions(), tag(false, "Memory", &[], &Value::Block(&memory()[..0x3fff], 0))].concat();
    let error = refused(&state(0xbed2_bed2, &[("memory", far)]));
    assert!(
        error.contains("expected the 0x2000 bytes of 0x100000000-0x100001fff, found the end of the memory"),
        "{error}"
    );
    let packed = state(0xbed2_bed2, &[("memory", tag(false, "Memory", &[], &Value::Compressed(b"1234")))]);
    assert!(refused(&packed).starts_with("image: a VMware state with compressed memory is not supported: "));
}

#[test]
fn mutated_states_never_panic() {
    let block = tag(false, "Memory", &[0, 0], &Value::Block(&memory()[..64], 3));
    let whole = state(0xbed2_bed2, &[("cpu", cpus()), ("memory", [regions(), block].concat())]);
    let mut cases = 0;
    for at in 0..whole.len() {
        for value in [0, 1, 0x3e, 0x3f, 0x40, 0x7f, 0x80, 0xc0, 0xff, whole[at] ^ 1, whole[at] ^ 0x40] {
            let bytes = common::patched(whole.clone(), at, &[value]);
            let input = memflow_snapshot::BytesInput::new("state".as_ref(), &bytes);
            if let Ok(state) = memflow_snapshot::vmware::parse(&input) {
                let (offset, len) = state.memory.unwrap_or((0, 0));
                assert!(offset + len <= bytes.len() as u64);
                assert!(state.regions.len() <= bytes.len() && state.vcpus.len() <= bytes.len());
                let _ = state.runs(offset);
            }
            cases += 1;
        }
        let input = memflow_snapshot::BytesInput::new("state".as_ref(), &whole[..at]);
        let _ = memflow_snapshot::vmware::parse(&input);
    }
    assert!(cases >= 5_000, "{cases} cases");
}
