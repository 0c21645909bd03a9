//! kdump-compressed dumps: what they hold, and what is wrong with damaged ones.

mod common;

use common::{
    error_of, file,
    kdump::{Kdump, Method},
    noise, patched, pattern, prstatus64, qemu_note, read,
};
use memflow_core::{
    PhysAddr,
    error::Reason,
    memory::{Liveness, MachineKind, VcpuRegisters},
};
use memflow_snapshot::{Container, OpenOptions, open, open_bytes};

const PAGE: usize = 4096;

/// Pages 1, 2 and 0x100 are in the file, 3 and 0x101 were left out, all others are no memory.
fn sample() -> Kdump {
    let text: Vec<u8> = b"as compressible as text ".iter().copied().cycle().take(PAGE).collect();
    Kdump {
        pages: vec![
            (1, Some(pattern(1, PAGE))),
            (2, Some(text)),
            (3, None),
            (0x100, Some(noise(3, PAGE))),
            (0x101, None),
        ],
        notes: [prstatus64(0x1111, 0x2222), qemu_note(true)].concat(),
        ..Kdump::default()
    }
}

#[test]
fn every_compression_and_both_word_sizes_hold_the_same() {
    let compressed = Method::ALL.map(|method| Kdump { method, ..sample() });
    let narrow = Kdump { wide: false, machine: "i686", ..sample() };
    let unknown = Kdump { wide: false, machine: "what", ..sample() };
    let large = Kdump {
        block_size: 0x1_0000,
        machine: "aarch64",
        pages: vec![(1, Some(pattern(1, 0x1_0000)))],
        ..Kdump::default()
    };
    for dump in compressed.into_iter().chain([narrow, unknown, large]) {
        let (_dir, path) = file(&dump.write());
        let snapshot = open(&path, &OpenOptions::default()).unwrap();
        assert_eq!((snapshot.format.container, snapshot.format.to_string().as_str()), (Container::Kdump, "kdump"));
        let memory = &*snapshot.memory;
        let metadata = memory.metadata();
        assert_eq!((metadata.liveness, metadata.read_only), (Liveness::Frozen, true));
        for (pfn, bytes) in &dump.pages {
            let at = pfn * dump.block_size;
            match bytes {
                Some(bytes) => {
                    assert_eq!(read(memory, at, bytes.len()).unwrap(), *bytes, "{:?} page {pfn}", dump.method)
                }
                None => {
                    let reason = Reason::Excluded { phys: PhysAddr::new(at) };
                    assert_eq!(read(memory, at, 1).unwrap_err().reason(), Some(reason));
                }
            }
        }
        assert!(read(memory, 0, 1).unwrap_err().is_not_in_image());
        assert!(read(memory, 0x1f0_0000, 1).unwrap_err().is_not_in_image());
    }
}

#[test]
fn facts_are_those_of_the_notes() {
    let snapshot = open_bytes("dump", &sample().write(), &OpenOptions::default()).unwrap();
    let facts = snapshot.memory.facts();
    assert_eq!(facts.machine, Some(MachineKind::X86_64));
    assert_eq!(facts.vmcoreinfo.as_deref(), Some(&b"OSRELEASE=6.1.0\n"[..]));
    let [VcpuRegisters::X86(vcpu)] = &facts.vcpus[..] else { panic!("{facts:?}") };
    assert_eq!((vcpu.rip, vcpu.cr3, vcpu.kernel_gs_base), (Some(0x4000), Some(0x33), Some(0x9000)));
    assert_eq!(snapshot.notes, ["0x2000 bytes of memory were left out when the dump was written: zeros"]);
}

#[test]
fn read_over_all_kinds_of_pages_has_what_is_there_and_names_the_first_that_is_not() {
    let snapshot = open_bytes("dump", &sample().write(), &OpenOptions::default()).unwrap();
    let mut buf = vec![0; 4 * PAGE];
    let mut ops = [memflow_core::memory::PhysRead::new(PhysAddr::new(0x1000), &mut buf)];
    snapshot.memory.read_batch(&mut ops).unwrap_err();
    let reason = Reason::Excluded { phys: PhysAddr::new(0x3000) };
    assert_eq!(ops[0].outcome, memflow_core::memory::Outcome::Failed { offset: 0x2000, reason });
    assert_eq!(buf[..PAGE], pattern(1, PAGE));
}

#[test]
fn older_versions_have_less() {
    for (version, vmcoreinfo, vcpus) in
        [(1, false, 0), (2, false, 0), (3, true, 0), (4, true, 1), (5, true, 1), (6, true, 1)]
    {
        let snapshot = open_bytes("dump", &Kdump { version, ..sample() }.write(), &OpenOptions::default()).unwrap();
        let facts = snapshot.memory.facts();
        assert_eq!((facts.vmcoreinfo.is_some(), facts.vcpus.len()), (vmcoreinfo, vcpus), "version {version}");
        assert_eq!(read(&*snapshot.memory, 0x1000, PAGE).unwrap(), pattern(1, PAGE));
    }
}

#[test]
fn number_of_pages_is_that_of_64_bits_where_the_version_has_it() {
    // The field of 32 bits is what fits, so it may be anything.
    let dump = patched(sample().write(), 440, &2u32.to_le_bytes());
    let snapshot = open_bytes("dump", &dump, &OpenOptions::default()).unwrap();
    assert_eq!(read(&*snapshot.memory, 0x10_0000, PAGE).unwrap(), noise(3, PAGE));
    // Without the other it counts: pages 0 and 1 are all there are.
    let older = patched(Kdump { version: 5, ..sample() }.write(), 440, &2u32.to_le_bytes());
    let snapshot = open_bytes("dump", &older, &OpenOptions::default()).unwrap();
    assert_eq!(snapshot.memory.metadata().runs.total_bytes(), PAGE as u64);
}

/// The part of the sample with the pages of a range: its bitmaps are those of the whole, its descriptors those of its pages.
fn part(start: u64, end: u64) -> Vec<u8> {
    Kdump { split: Some((start, end)), ..sample() }.write()
}

#[test]
fn part_of_a_split_dump_holds_its_pages_and_says_what_is_missing() {
    let snapshot = open_bytes("dump", &part(0, 3), &OpenOptions::default()).unwrap();
    assert_eq!(read(&*snapshot.memory, 0x1000, PAGE).unwrap(), pattern(1, PAGE));
    assert!(read(&*snapshot.memory, 0x10_0000, 1).unwrap_err().is_not_in_image());
    assert!(
        snapshot.notes[0]
            .starts_with("this is one part of a dump that was split; pages in 0x3000-0x1fffff are in files"),
        "{:?}",
        snapshot.notes
    );
}

#[test]
fn parts_of_a_split_dump_open_together_from_any_of_them() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let parts = [("a.1", part(2, 0x100)), ("zz", part(0, 2)), ("m", part(0x100, 0x200))];
    for (name, bytes) in &parts {
        std::fs::write(path(name), bytes).unwrap();
    }
    // What else lies beside them: a copy, a dump of something else, no dump at all.
    std::fs::write(path("copy"), part(0x100, 0x200)).unwrap();
    let other = Kdump { vmcoreinfo: b"OSRELEASE=6.2.0\n".to_vec(), split: Some((0, 2)), ..sample() };
    std::fs::write(path("0-other"), other.write()).unwrap();
    std::fs::write(path("notes.txt"), "notes").unwrap();
    let whole = open_bytes("whole", &sample().write(), &OpenOptions::default()).unwrap();
    for (name, _) in &parts {
        let named = parts.iter().filter(|(other, _)| other != name).map(|(other, _)| path(other)).collect();
        for parts in [Vec::new(), named] {
            let snapshot = open(&path(name), &OpenOptions { parts, ..OpenOptions::default() }).unwrap();
            assert_eq!(snapshot.notes, whole.notes, "{name}");
            assert_eq!(snapshot.memory.facts(), whole.memory.facts());
            for (pfn, bytes) in sample().pages {
                let found = read(&*snapshot.memory, pfn * PAGE as u64, PAGE);
                match bytes {
                    Some(bytes) => assert_eq!(found.unwrap(), bytes, "page {pfn}"),
                    None => {
                        let reason = Reason::Excluded { phys: PhysAddr::new(pfn * PAGE as u64) };
                        assert_eq!(found.unwrap_err().reason(), Some(reason));
                    }
                }
            }
        }
    }
    // One part is elsewhere.
    std::fs::remove_file(path("zz")).unwrap();
    let snapshot = open(&path("m"), &OpenOptions::default()).unwrap();
    assert!(snapshot.notes[0].contains("pages in 0x0-0x1fff are in files"), "{:?}", snapshot.notes);
}

#[test]
fn parts_that_do_not_belong_together_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let other = Kdump { max_mapnr: 0x180, split: Some((2, 0x100)), ..sample() };
    let whole = sample().write();
    for (name, bytes) in [
        ("first", &part(0, 2)),
        ("again", &part(0, 2)),
        ("other", &other.write()),
        ("whole", &whole),
        ("raw", &pattern(0, PAGE)),
    ] {
        std::fs::write(path(name), bytes).unwrap();
    }
    for (name, text) in [
        ("again", "with other pages, found pages 0x0 to 0x2, and 0x0 to 0x2 there"),
        ("other", "found a part of another dump"),
        ("whole", "found a dump that was not split"),
        ("missing", "opening"),
    ] {
        let options = OpenOptions { parts: vec![path(name)], ..OpenOptions::default() };
        let error = common::open_error(&path("first"), &options);
        assert!(error.contains(text), "{error}");
    }
    let options = OpenOptions { parts: vec![path("first")], ..OpenOptions::default() };
    let error = common::open_error(&path("raw"), &options);
    assert!(error.contains("a kdump file that makedumpfile split"), "{error}");
}

#[test]
fn unfinished_dump_says_so() {
    let snapshot = open_bytes("dump", &Kdump { status: 8, ..sample() }.write(), &OpenOptions::default()).unwrap();
    assert!(snapshot.notes[0].starts_with("the dump was not finished"), "{:?}", snapshot.notes);
}

#[test]
fn damaged_page_fails_alone() {
    for method in Method::ALL {
        let dump = Kdump { method, ..sample() }.write();
        // The descriptor of page 2: leads past the end, is too long, says two compressions.
        let second = dump.len() - descriptor_distance(&dump);
        for (at, with) in [(second, vec![0xff; 8]), (second + 8, vec![0xff; 4]), (second + 12, vec![3, 0, 0, 0])] {
            let snapshot = open_bytes("dump", &patched(dump.clone(), at, &with), &OpenOptions::default()).unwrap();
            let reason = Some(Reason::Damaged { phys: PhysAddr::new(0x2000) });
            assert_eq!(read(&*snapshot.memory, 0x2000, 8).unwrap_err().reason(), reason, "{method:?}");
            assert_eq!(read(&*snapshot.memory, 0x1000, PAGE).unwrap(), pattern(1, PAGE));
        }
    }
}

/// Bytes from the second descriptor to the end: header, sub-header and bitmaps are four blocks.
fn descriptor_distance(dump: &[u8]) -> usize {
    dump.len() - 4 * PAGE - 24
}

#[test]
fn every_refusal_says_what_and_where() {
    let default = OpenOptions::default();
    let whole = sample().write();
    let of = |at: usize, with: &[u8]| error_of(&patched(whole.clone(), at, with), &default);
    assert_eq!(
        of(428, &[1, 2, 3, 4]),
        "image: kdump: at offset 0x1ac: expected a block size of 4 to 64 KiB and a sub-header of 0x1000 blocks at most, found \
         0x4030201 and 0x1"
    );
    assert_eq!(
        of(428, &[0, 0, 0x10, 0, 0, 0, 0, 1]),
        "image: a kdump of a big-endian machine (x86_64) is not supported: little-endian machines are known"
    );
    assert_eq!(
        of(436, &[0xff; 4]),
        "image: kdump: at offset 0x2000: expected 0xffffffff000 bytes of bitmaps, found the end of the file at 0x5c89; it looks \
         truncated, copy it again"
    );
    // The number of pages in the sub-header.
    assert_eq!(
        of(4096 + 96, &[0xff; 8]),
        "image: kdump: at offset 0x1b4: expected bitmaps for 0xffffffffffffffff pages, found 0x2 blocks of 0x1000 bytes"
    );
    // VMCOREINFO that cannot be.
    assert_eq!(
        of(4096 + 40, &[0xff; 8]),
        "image: kdump: at offset 0x1200: expected 0x1000000 bytes of VMCOREINFO at most, found 0xffffffffffffffff"
    );
    let cut = &whole[..4 * PAGE + 24];
    assert_eq!(
        error_of(cut, &default),
        "image: kdump: at offset 0x4000: expected descriptors of 0x3 pages, found room for 0x1 before the end of the file; it looks \
         truncated, copy it again"
    );
    let partial = open_bytes("dump", cut, &OpenOptions { partial: true, ..OpenOptions::default() }).unwrap();
    assert_eq!(partial.memory.metadata().runs.total_bytes(), PAGE as u64);
}

#[test]
fn flattened_dumps_are_the_same_in_any_order_of_pieces() {
    let core = common::sample_elf64();
    for (bytes, format) in [(sample().write(), Container::Kdump), (core, Container::ElfCore)] {
        let mut flat = b"makedumpfile\0\0\0\0".to_vec();
        flat.extend([1u64.to_be_bytes(), 1u64.to_be_bytes()].concat());
        flat.resize(4096, 0);
        // Backwards, and the first piece twice: the later one counts, as makedumpfile writes the header again at the end.
        let mut pieces: Vec<(usize, Vec<u8>)> =
            bytes.chunks(1000).enumerate().map(|(at, piece)| (at * 1000, piece.to_vec())).collect();
        pieces.reverse();
        pieces.insert(0, (0, vec![0xee; 1500]));
        for (at, piece) in &pieces {
            flat.extend([(*at as u64).to_be_bytes(), (piece.len() as u64).to_be_bytes()].concat());
            flat.extend(piece);
        }
        let without_end = flat.clone();
        flat.extend([0xff; 16]);
        let plain = open_bytes("plain", &bytes, &OpenOptions::default()).unwrap();
        for packed in [flat.clone(), common::zstd_raw(&flat)] {
            let (_dir, path) = file(&packed);
            let snapshot = open(&path, &OpenOptions::default()).unwrap();
            assert_eq!(snapshot.format.container, format);
            assert_eq!(snapshot.memory.facts(), plain.memory.facts());
            for run in plain.memory.metadata().runs.runs() {
                let (start, len) = (run.range.start().as_u64(), run.range.len() as usize);
                assert_eq!(read(&*snapshot.memory, start, len).unwrap(), read(&*plain.memory, start, len).unwrap());
            }
        }
        let error = error_of(&without_end, &OpenOptions::default());
        assert!(error.contains("expected 0x10 bytes of a piece, or the end mark of the dump"), "{error}");
    }
}
