//! Raw images: which are, what addresses they hold, and how the layout is found.
#![cfg(unix)]

mod common;

use std::{fs::File, os::unix::fs::FileExt};

use common::{error_of, file, open_error, pattern, read, smbios};
use memflow_core::memory::{Liveness, RunMap};
use memflow_snapshot::{Container, MemoryLayout, OpenOptions, Snapshot, open, raw_layouts};
use tempfile::TempDir;

const GIB: u64 = 1 << 30;

/// A sparse file of `len` bytes with some bytes at some offsets.
fn sparse(len: u64, pieces: &[(u64, &[u8])]) -> (TempDir, std::path::PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("image");
    let file = File::create(&path).unwrap();
    file.set_len(len).unwrap();
    for (offset, bytes) in pieces {
        file.write_all_at(bytes, *offset).unwrap();
    }
    (dir, path)
}

fn layout_of(snapshot: &Snapshot) -> String {
    MemoryLayout::Runs((*snapshot.memory.metadata().runs).clone()).to_string()
}

fn open_default(path: &std::path::Path) -> Snapshot {
    open(path, &OpenOptions::default()).unwrap()
}

#[test]
fn whole_pages_are_a_raw_image_and_live_unless_promised_otherwise() {
    let bytes = pattern(1, 0x3000);
    let (_dir, path) = file(&bytes);
    let snapshot = open_default(&path);
    assert_eq!((snapshot.format.container, snapshot.format.to_string().as_str()), (Container::Raw, "raw"));
    assert_eq!((snapshot.notes.len(), snapshot.alternatives.len()), (0, 0));
    assert_eq!(snapshot.memory.metadata().liveness, Liveness::Live);
    assert_eq!(read(&*snapshot.memory, 0, 0x3000).unwrap(), bytes);
    assert!(read(&*snapshot.memory, 0x3000, 1).unwrap_err().is_not_in_image());
    let frozen = open(&path, &OpenOptions { live: Some(false), ..OpenOptions::default() }).unwrap();
    assert_eq!(frozen.memory.metadata().liveness, Liveness::Frozen);
    assert!(frozen.memory.direct_map().is_some());
}

#[test]
fn changes_to_the_file_show_in_a_live_image() {
    let (_dir, path) = file(&pattern(1, 0x3000));
    let snapshot = open_default(&path);
    File::options().write(true).open(&path).unwrap().write_all_at(b"new", 0x1000).unwrap();
    assert_eq!(read(&*snapshot.memory, 0x1000, 3).unwrap(), b"new");
}

#[test]
fn writes_go_to_the_file_only_when_asked_for() {
    use memflow_core::{PhysAddr, Reason, memory::PhysWrite};
    let (_dir, path) = file(&pattern(1, 0x3000));
    let write =
        |snapshot: &Snapshot| snapshot.memory.write_batch(&mut [PhysWrite::new(PhysAddr::new(0x1ffe), b"wrote")]);
    assert_eq!(write(&open_default(&path)).unwrap_err().reason(), Some(Reason::ReadOnly));
    let writable = open(&path, &OpenOptions { writable: true, ..OpenOptions::default() }).unwrap();
    assert!(!writable.memory.metadata().read_only);
    write(&writable).unwrap();
    assert_eq!(std::fs::read(&path).unwrap()[0x1ffe..][..5], *b"wrote");
}

#[test]
fn part_of_a_page_is_refused_or_partial_on_request() {
    let bytes = pattern(1, 0x2345);
    assert_eq!(
        error_of(&bytes, &OpenOptions::default()),
        "image: is not a memory image: expected an ELF core, a LiME image, or a raw image of whole pages of 0x1000 bytes, found \
         0x2345 bytes of something else; if it is a raw image that was cut short, open it as a partial image"
    );
    let (_dir, path) = file(&bytes);
    let snapshot = open(&path, &OpenOptions { partial: true, ..OpenOptions::default() }).unwrap();
    assert_eq!(snapshot.notes, ["the image ends 0x345 bytes into a page; it was cut short"]);
    assert_eq!(read(&*snapshot.memory, 0x2300, 0x45).unwrap(), bytes[0x2300..]);
}

#[test]
fn layouts_follow_the_rules_of_the_machines() {
    // QEMU's pc_q35.c and pc_piix.c, at and around each threshold.
    let runs = |layout: MemoryLayout, len: u64| MemoryLayout::Runs(layout.runs(len).unwrap()).to_string();
    assert_eq!(runs(MemoryLayout::Q35, 0xaffff000), "0x0-0xafffefff@0x0");
    assert_eq!(runs(MemoryLayout::Q35, 0xb0000000), "0x0-0x7fffffff@0x0,0x100000000-0x12fffffff@0x80000000");
    assert_eq!(runs(MemoryLayout::Q35, 5 * GIB), "0x0-0x7fffffff@0x0,0x100000000-0x1bfffffff@0x80000000");
    assert_eq!(runs(MemoryLayout::I440fx, 0xdffff000), "0x0-0xdfffefff@0x0");
    assert_eq!(runs(MemoryLayout::I440fx, 0xe0000000), "0x0-0xbfffffff@0x0,0x100000000-0x11fffffff@0xc0000000");
    let names = |len| raw_layouts(len).iter().map(|(layout, _)| layout.to_string()).collect::<Vec<_>>();
    assert_eq!(names(0), ["flat"]);
    assert_eq!(names(GIB), ["flat"]);
    assert_eq!(names(3 * GIB), ["flat", "q35"]);
    assert_eq!(names(4 * GIB), ["flat", "q35", "i440fx"]);
    for len in [0, 1, 0x1000, 0xb000_0000, 4 * GIB, 1 << 40, u64::MAX - 1, u64::MAX] {
        for (layout, runs) in raw_layouts(len) {
            let end = runs.runs().iter().map(|run| run.offset + run.range.len()).max().unwrap_or(0);
            assert!(end <= len, "{layout} of {len:#x}");
        }
    }
}

#[test]
fn firmware_tables_decide_the_layout() {
    let q35 = smbios(&[(0, 2 * GIB), (4 * GIB, 2 * GIB)]);
    let (_dir, path) = sparse(4 * GIB, &[(0xf_0000, &q35), (2 * GIB, b"above")]);
    let snapshot = open_default(&path);
    assert_eq!(layout_of(&snapshot), "0x0-0x7fffffff@0x0,0x100000000-0x17fffffff@0x80000000");
    assert_eq!(snapshot.notes, ["the memory layout is q35: so say the firmware's SMBIOS tables in the image"]);
    assert_eq!(snapshot.alternatives, []);
    assert_eq!(read(&*snapshot.memory, 4 * GIB, 5).unwrap(), b"above");

    let pc = smbios(&[(0, 3 * GIB), (4 * GIB, GIB)]);
    let (_dir, path) = sparse(4 * GIB, &[(0xf_0000, &pc)]);
    assert_eq!(layout_of(&open_default(&path)), "0x0-0xbfffffff@0x0,0x100000000-0x13fffffff@0xc0000000");

    // A machine of its own: `max-ram-below-4g=1G`, 2 GiB in all.
    let own = smbios(&[(4 * GIB, GIB), (0, GIB)]);
    let (_dir, path) = sparse(2 * GIB, &[(0xf_0000, &own)]);
    let snapshot = open_default(&path);
    assert_eq!(layout_of(&snapshot), "0x0-0x3fffffff@0x0,0x100000000-0x13fffffff@0x40000000");
    assert_eq!(snapshot.notes.len(), 1);

    // The same machine as q35, dumped flat with its hole.
    let (_dir, path) = sparse(6 * GIB, &[(0xf_0000, &q35), (0xe000_0000, b"a device")]);
    assert_eq!(layout_of(&open_default(&path)), "0x0-0x17fffffff@0x0");

    // Very large ranges use the 64-bit fields.
    let large = smbios(&[(0, 2 * GIB), (4 * GIB, 8192 * GIB)]);
    let (_dir, path) = sparse(8194 * GIB, &[(0xf_0000, &large)]);
    assert_eq!(layout_of(&open_default(&path)), "0x0-0x7fffffff@0x0,0x100000000-0x800ffffffff@0x80000000");
}

#[test]
fn firmware_tables_behind_the_64_bit_entry_point_count_too() {
    let mut tables = smbios(&[(0, 3 * GIB), (4 * GIB, GIB)]);
    let mut entry = b"_SM3_\0\x18\x03\x07\0\x01\0".to_vec();
    entry.extend(((tables.len() - 0x1000) as u32).to_le_bytes());
    entry.extend(0xf_1000u64.to_le_bytes());
    entry[5] = 0u8.wrapping_sub(entry.iter().fold(0, |sum: u8, byte| sum.wrapping_add(*byte)));
    tables[..0x1000].fill(0);
    tables[0x40..0x40 + entry.len()].copy_from_slice(&entry);
    let (_dir, path) = sparse(4 * GIB, &[(0xf_0000, &tables)]);
    assert_eq!(layout_of(&open_default(&path)), "0x0-0xbfffffff@0x0,0x100000000-0x13fffffff@0xc0000000");
}

#[test]
fn small_image_needs_no_word_about_its_layout() {
    let (_dir, path) = sparse(GIB, &[(0xf_0000, &smbios(&[(0, GIB)]))]);
    assert_eq!(open_default(&path).notes, [""; 0]);
}

#[test]
fn image_cut_in_half_is_said_when_the_firmware_knows() {
    let (_dir, path) = sparse(GIB, &[(0xf_0000, &smbios(&[(0, 2 * GIB)]))]);
    assert_eq!(
        open_default(&path).notes,
        [
            "the image holds 0x40000000 bytes, the firmware's SMBIOS tables in it list 0x80000000 bytes of RAM: it looks cut short"
        ]
    );
}

#[test]
fn firmware_tables_that_make_no_sense_decide_nothing() {
    let good = smbios(&[(0, 2 * GIB), (4 * GIB, 2 * GIB)]);
    let mut bad_checksum = good.clone();
    bad_checksum[4] ^= 1;
    // A hypervisor that forgets the hole; overlapping ranges; a table that is not in the image; a cut structure.
    let no_hole = smbios(&[(0, 4 * GIB)]);
    let overlap = smbios(&[(0, 3 * GIB), (GIB, GIB)]);
    let mut cut = good.clone();
    cut.truncate(0x1000 + 30);
    for (name, tables) in [("checksum", bad_checksum), ("no hole", no_hole), ("overlap", overlap), ("cut", cut)] {
        let (_dir, path) = sparse(4 * GIB, &[(0xf_0000, &tables)]);
        let snapshot = open_default(&path);
        assert_eq!(
            snapshot.notes,
            ["the memory layout q35 is assumed; by its size the image may also be i440fx or flat"],
            "{name}"
        );
        assert_eq!(snapshot.alternatives, [MemoryLayout::I440fx, MemoryLayout::Flat], "{name}");
    }
}

#[test]
fn without_firmware_tables_an_empty_hole_means_flat() {
    let (_dir, path) = sparse(6 * GIB, &[(0, b"\x01"), (4 * GIB, b"\x01")]);
    let snapshot = open_default(&path);
    assert_eq!(layout_of(&snapshot), "0x0-0x17fffffff@0x0");
    assert_eq!(snapshot.alternatives, [MemoryLayout::Q35, MemoryLayout::I440fx]);
    let (_dir, path) = sparse(6 * GIB, &[(0xe400_0000, b"\x01")]);
    let snapshot = open_default(&path);
    assert_eq!(layout_of(&snapshot), "0x0-0x7fffffff@0x0,0x100000000-0x1ffffffff@0x80000000");
    assert_eq!(snapshot.alternatives, [MemoryLayout::I440fx, MemoryLayout::Flat]);
}

#[test]
fn layout_asked_for_is_taken() {
    let (_dir, path) = sparse(4 * GIB, &[(0xf_0000, &smbios(&[(0, 2 * GIB), (4 * GIB, 2 * GIB)]))]);
    for (text, runs) in [
        ("flat", "0x0-0xffffffff@0x0"),
        ("q35", "0x0-0x7fffffff@0x0,0x100000000-0x17fffffff@0x80000000"),
        ("i440fx", "0x0-0xbfffffff@0x0,0x100000000-0x13fffffff@0xc0000000"),
        ("0x1000-0x1fff@0x3000,0-4095@0x1000", "0x0-0xfff@0x1000,0x1000-0x1fff@0x3000"),
    ] {
        let options = OpenOptions { layout: text.parse().unwrap(), ..OpenOptions::default() };
        let snapshot = open(&path, &options).unwrap();
        assert_eq!((layout_of(&snapshot).as_str(), snapshot.notes.len()), (runs, 0), "{text}");
    }
}

#[test]
fn runs_by_hand_serve_files_of_any_length_but_only_what_is_in_them() {
    let (_dir, path) = file(b"\x01\x02\x03");
    let with = |text: &str| OpenOptions { layout: text.parse().unwrap(), ..OpenOptions::default() };
    let snapshot = open(&path, &with("0x7000-0x7001@1")).unwrap();
    assert_eq!(read(&*snapshot.memory, 0x7000, 2).unwrap(), [2, 3]);
    let text = open_error(&path, &with("0x7000-0x7003@0"));
    assert_eq!(
        text,
        format!("memory layout: expected runs inside the 0x3 bytes of {}, found `0x7000-0x7003@0x0`", path.display())
    );
    open_error(&path, &with("0-1@0xffffffffffffff00"));
}

#[test]
fn runs_by_hand_are_checked() {
    let parsed = |text: &str| text.parse::<RunMap>();
    assert_eq!(parsed(" 0 - 0xfff @ 0x10 ").unwrap(), parsed("0-4095@16").unwrap());
    let whole = parsed("0-0xfffffffffffffffe@0").unwrap();
    assert_eq!(whole.total_bytes(), u64::MAX);
    let text = |runs: &str| parsed(runs).unwrap_err().to_string();
    let form = "expected FIRST-LAST@OFFSET, such as 0x100000000-0x13fffffff@0xc0000000, found";
    for bad in ["", "0", "0-1", "0@1", "a-b@c", "0x-1@0", "+1-2@0", "-1-2@0", "0-0x10000000000000000@0", "0-1@0@0"] {
        assert_eq!(text(bad), format!("run of memory: {form} `{bad}`"));
    }
    assert_eq!(text("0-1@0,"), format!("run of memory: {form} ``"));
    assert_eq!(text("2-1@0"), "run of memory: expected a last address that is not below the first, found `2-1@0`");
    assert_eq!(text("0-0x1fff@0,0x1000-0x2fff@0x2000"), "runs 0x0-0x1fff and 0x1000-0x2fff overlap");
    text("0-0xffffffffffffffff@0");
    text("0-0xff@0xffffffffffffffff");
    assert_eq!(
        "q36".parse::<MemoryLayout>().unwrap_err().to_string(),
        "memory layout: expected auto, flat, q35, i440fx, or runs such as 0-0xbfffffff@0, found `q36`"
    );
    let runs: MemoryLayout = "0x0-0xfff@0x10,0x2000-0x2fff@0x0".parse().unwrap();
    assert_eq!(runs.to_string().parse::<MemoryLayout>().unwrap(), runs);
    assert_eq!(MemoryLayout::Flat.runs(0), Some(RunMap::default()));
}

#[test]
fn layout_is_refused_where_the_file_says_it_itself() {
    let options = OpenOptions { layout: MemoryLayout::Q35, ..OpenOptions::default() };
    let text = error_of(&common::sample_lime(), &options);
    assert_eq!(
        text,
        "memory layout: expected auto, as image is a LiME file, which says where its memory lies, found `q35`"
    );
}
