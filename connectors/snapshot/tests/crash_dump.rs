//! Windows crash dumps: what they hold, and what is wrong with damaged ones.

mod common;

use std::{
    os::unix::fs::FileExt,
    time::{Duration, Instant},
};

use common::{
    crash_dump::{PAGE, bitmap, header32, header64, old_bitmap, put, ranges},
    error_of, file, patched, pattern, read,
};
use memflow_core::{
    VirtAddr,
    memory::{BugCheck, MachineKind, VcpuRegisters},
};
use memflow_snapshot::{Container, OpenOptions, open, open_bytes};

const X64: u32 = 0x8664;
const ARM64: u32 = 0xaa64;

/// The bytes of some pages.
fn content(pages: &[u64]) -> Vec<u8> {
    pages.iter().flat_map(|page| pattern(*page as u8, PAGE)).collect()
}

/// Each of `pages` is there and nothing before, between or behind them.
fn holds(dump: &[u8], pages: &[u64], what: &str) {
    let (_dir, path) = file(dump);
    let snapshot = open(&path, &OpenOptions::default()).unwrap_or_else(|error| panic!("{what}: {error}"));
    assert_eq!(snapshot.format.container, Container::CrashDump);
    assert_eq!(snapshot.memory.metadata().runs.total_bytes(), (pages.len() * PAGE) as u64, "{what}");
    for page in pages {
        assert_eq!(
            read(&*snapshot.memory, page * PAGE as u64, PAGE).unwrap(),
            pattern(*page as u8, PAGE),
            "{what}: {page}"
        );
    }
}

#[test]
fn every_kind_of_dump_holds_its_pages() {
    let pages = [1, 2, 3, 0x50, 0x51, 0x1f0];
    let content = content(&pages);
    let runs = [(1, 3), (0x50, 2), (0x1f0, 1)];
    holds(&[header64(X64, 1, &runs), content.clone()].concat(), &pages, "complete");
    holds(&[header64(ARM64, 1, &runs), content.clone()].concat(), &pages, "complete, ARM64");
    for (kind, signature) in [(5, b"FDMP"), (6, b"SDMP"), (2, b"SDMP"), (7, b"SDMP")] {
        let body = bitmap(signature, 0x2000, &pages, 0x200);
        holds(&[header64(X64, kind, &runs), body, content.clone()].concat(), &pages, &format!("bitmap, kind {kind}"));
    }
    let body = old_bitmap(0x2000, true, &pages, 0x200);
    holds(&[header64(X64, 2, &runs), body, content.clone()].concat(), &pages, "old bitmap");
    for kind in [8, 9] {
        holds(&[header64(X64, kind, &runs), ranges(&runs, None), content.clone()].concat(), &pages, "kernel ranges");
    }
    holds(&[header64(X64, 10, &runs), ranges(&runs, Some(6)), content.clone()].concat(), &pages, "complete ranges");
    let narrow = runs.map(|(first, count)| (first as u32, count as u32));
    holds(&[header32(1, 1, &narrow), content.clone()].concat(), &pages, "complete, 32-bit");
    // Windows NT 4 has no kind of dump yet.
    holds(&[header32(0x4547_4150, b'P', &narrow), content.clone()].concat(), &pages, "complete, 32-bit without a kind");
    let body = old_bitmap(0x1000, false, &pages, 0x200);
    holds(&[header32(2, 0, &narrow), body, content.clone()].concat(), &pages, "bitmap, 32-bit");
    let body = bitmap(b"FDMP", 0x1000, &pages, 0x200);
    holds(&[header32(5, 0, &narrow), body, content].concat(), &pages, "new bitmap, 32-bit");
}

#[test]
fn complete_dump_of_ranges_may_begin_with_page_zero() {
    let runs = [(0, 2), (8, 1)];
    holds(&[header64(X64, 10, &runs), ranges(&runs, Some(3)), content(&[0, 1, 8])].concat(), &[0, 1, 8], "page zero");
}

#[test]
fn header_facts_reach_whoever_opens_the_dump() {
    let dump = [header64(X64, 1, &[(1, 1)]), content(&[1])].concat();
    let snapshot = open_bytes("dump", &dump, &OpenOptions::default()).unwrap();
    let facts = snapshot.memory.facts();
    let windows = facts.windows.unwrap();
    assert_eq!((facts.machine, facts.directory_table), (Some(MachineKind::X86_64), Some(0x1a_d000)));
    assert_eq!((windows.build, windows.processors, windows.pae), (19041, Some(4), None));
    let address = |value: u64| Some(VirtAddr::new(value));
    assert_eq!(windows.debugger_data, address(0xffff_f800_3333_3330));
    assert_eq!(windows.loaded_modules, address(0xffff_f800_1111_1110));
    assert_eq!(windows.active_processes, address(0xffff_f800_2222_2220));
    assert_eq!(windows.pfn_database, address(0xffff_fa80_0000_0000));
    assert_eq!(windows.bug_check, Some(BugCheck { code: 0xd1, parameters: [7, 8, 9, 10] }));
    assert_eq!(windows.system_time, Some(0x1d9_0000_0000_0000));
    let [VcpuRegisters::X86(vcpu)] = &facts.vcpus[..] else { panic!("{facts:?}") };
    let expected = (Some(0x1a_d000), Some(0xffff_f800_5555_5550), Some(0xffff_f800_4444_4440));
    assert_eq!((vcpu.cr3, vcpu.rip, vcpu.rsp), expected);
    assert_eq!(snapshot.notes, ["a complete dump"]);

    let dump = [header32(1, 1, &[(1, 1)]), content(&[1])].concat();
    let snapshot = open_bytes("dump", &dump, &OpenOptions::default()).unwrap();
    let facts = snapshot.memory.facts();
    let windows = facts.windows.unwrap();
    assert_eq!((facts.machine, facts.directory_table), (Some(MachineKind::X86), Some(0x72_8000)));
    assert_eq!((windows.build, windows.pae, windows.debugger_data), (2600, Some(true), address(0x8054_5be0)));
    let [VcpuRegisters::X86(vcpu)] = &facts.vcpus[..] else { panic!("{facts:?}") };
    assert_eq!((vcpu.cr3, vcpu.rip, vcpu.rsp), (Some(0x72_8000), Some(0x8052_1111), Some(0x8054_2222)));
}

#[test]
fn what_was_not_filled_in_is_absent() {
    let mut dump = [header64(X64, 1, &[(1, 1)]), content(&[1])].concat();
    for at in [0x20, 0x28, 0x80] {
        put(&mut dump, at, b"PAGEPAGE");
    }
    put(&mut dump, 0x18, &[0; 8]);
    put(&mut dump, 0x38, b"PAGE");
    let snapshot = open_bytes("dump", &dump, &OpenOptions::default()).unwrap();
    let windows = snapshot.memory.facts().windows.unwrap();
    assert_eq!((windows.loaded_modules, windows.active_processes, windows.debugger_data), (None, None, None));
    assert_eq!((windows.pfn_database, windows.bug_check), (None, None));
}

#[test]
fn dump_without_physical_memory_says_what_it_does_hold() {
    let error = error_of(&[header64(X64, 4, &[]), vec![0; 0x1000]].concat(), &OpenOptions::default());
    assert_eq!(
        error,
        "image: a triage dump (small memory dump) of Windows build 19041, stop code 0xd1 is not supported: it holds the header, the \
         stack of one thread, lists of processes and drivers, and what drivers added, and no physical memory; a debugger opens it. Set \
         the machine to write kernel or complete dumps for the next time"
    );
    let error = error_of(&header64(X64, 0x77, &[]), &OpenOptions::default());
    assert!(error.contains("a Windows crash dump of type 0x77 is not supported"), "{error}");
    let error = error_of(&header64(0x1c4, 1, &[]), &OpenOptions::default());
    assert!(error.contains("a Windows crash dump of machine 0x1c4 is not supported: x86 (0x14c)"), "{error}");
}

#[test]
fn every_refusal_says_what_and_where() {
    let default = OpenOptions::default();
    let runs = [(1, 3)];
    let whole = [header64(X64, 1, &runs), content(&[1, 2, 3])].concat();
    let cut = &whole[..whole.len() - 1];
    assert_eq!(
        error_of(cut, &default),
        "image: Windows crash dump: at offset 0x2000: expected the 0x3000 bytes of 0x1000-0x3fff, found the end of the file at 0x4fff; it \
         looks truncated, copy it again or open it as a partial image"
    );
    let partial = OpenOptions { partial: true, ..OpenOptions::default() };
    let snapshot = open_bytes("dump", cut, &partial).unwrap();
    assert_eq!(snapshot.memory.metadata().runs.total_bytes(), 0x2fff);
    assert_eq!(snapshot.notes[1], "the file ends at 0x4fff: 0x1 bytes of memory are missing");

    assert_eq!(
        error_of(&patched(whole.clone(), 0x88, &43u32.to_le_bytes()), &default),
        "image: Windows crash dump: at offset 0x88: expected runs of memory in the header, found none"
    );
    assert_eq!(
        error_of(&patched(whole, 0xa0, &[0xff; 8]), &default),
        "image: Windows crash dump: at offset 0x88: expected runs inside 2^64 bytes, found 0xffffffffffffffff pages from page 0x1 on"
    );
    assert_eq!(
        error_of(&header64(X64, 1, &runs)[..0x1fff], &default),
        "image: Windows crash dump: at offset 0x0: expected 0x2000 bytes of the header, found the end of the file at 0x1fff; it looks \
         truncated, copy it again"
    );
    let overlapping = [header64(X64, 1, &[(1, 2), (2, 1)]), content(&[1, 2, 3])].concat();
    assert_eq!(
        error_of(&overlapping, &default),
        "image: Windows crash dump: at offset 0x2000: expected each page once, found runs 0x1000-0x2fff and 0x2000-0x2fff overlap"
    );
    let bits = [header64(X64, 5, &runs), bitmap(b"FDMP", 0x2000, &[1, 2, 3], 0x100), content(&[1, 2, 3])].concat();
    assert_eq!(
        error_of(&patched(bits.clone(), 0x2000, b"what"), &default),
        "image: Windows crash dump: at offset 0x2000: expected SDMPDUMP or FDMPDUMP, found whatDUMP"
    );
    assert_eq!(
        error_of(&patched(bits, 0x2030, &[0xff; 8]), &default),
        "image: Windows crash dump: at offset 0x2000: expected a bitmap that ends before the first page, both in the file, found sizes \
         that fit neither the layout of Windows 8 and later nor the one before"
    );
    let listed = [header64(X64, 10, &runs), ranges(&runs, Some(4)), content(&[1, 2, 3])].concat();
    assert_eq!(
        error_of(&listed, &default),
        "image: Windows crash dump: at offset 0x2030: expected ranges of 0x4 pages, found 0x3 pages"
    );
    assert_eq!(
        error_of(&patched(listed, 0x2010, &[0xff; 8]), &default),
        "image: Windows crash dump: at offset 0x2010: expected ranges that end where the pages begin, found 0xffffffffffffffff bytes of \
         them, and pages from 0x3000 on"
    );
}

#[test]
fn bitmap_dump_of_64_gib_opens_at_once() {
    // Half of 2^24 pages in groups, as memory in use lies; the file is sparse.
    let (count, group) = (1u64 << 24, 512u64);
    let bits: Vec<u8> = (0..count / 8).map(|byte| if byte / (group / 8) % 2 == 0 { 0xff } else { 0 }).collect();
    let first_page = (0x2038 + bits.len() as u64).next_multiple_of(PAGE as u64);
    let mut head = header64(X64, 5, &[(0, count)]);
    head.extend(b"FDMPDUMP");
    head.extend([0; 0x18]);
    for field in [first_page, count / 2, count] {
        head.extend(field.to_le_bytes());
    }
    head.extend(bits);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("dump");
    let out = std::fs::File::create(&path).unwrap();
    out.write_all_at(&head, 0).unwrap();
    out.set_len(first_page + count / 2 * PAGE as u64).unwrap();
    // The second page of the third group is the 514th but one in the file.
    out.write_all_at(&pattern(9, PAGE), first_page + (group + 1) * PAGE as u64).unwrap();
    let best = (0..5)
        .map(|_| {
            let started = Instant::now();
            let snapshot = open(&path, &OpenOptions::default()).unwrap();
            let took = started.elapsed();
            assert_eq!(read(&*snapshot.memory, (2 * group + 1) * PAGE as u64, PAGE).unwrap(), pattern(9, PAGE));
            took
        })
        .min();
    // The goal is 50 ms; tests are not optimised and share the machine.
    assert!(best < Some(Duration::from_secs(2)), "{best:?}");
}
