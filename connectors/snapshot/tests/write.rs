//! Memory that is written opens again as it was: every page, every gap, every fact.

mod common;

use std::{
    ops::ControlFlow,
    sync::{Arc, Mutex},
};

use common::{
    crash_dump::{header32, header64},
    file,
    kdump::Kdump,
    noise, pattern, read, sample_elf32, sample_elf64,
};
use memflow_core::{
    Error, PhysAddr, PhysRange, PhysicalMemory, Result,
    memory::{BufferMemory, MachineKind, Run, RunMap, SourceConfig, TargetFacts, VcpuRegisters, X86Registers},
    testkit::ScriptedMemory,
};
use memflow_snapshot::{
    Container, DumpCompression, DumpFormat, Gaps, OpenOptions, Sink, Snapshot, WriteOptions, open, open_bytes, write,
};
use proptest::prelude::*;

const PAGE: u64 = 0x1000;

/// Facts of a machine of which no more is known.
fn of(machine: MachineKind) -> TargetFacts {
    let mut facts = TargetFacts::default();
    facts.machine = Some(machine);
    facts
}

/// A file in memory.
#[derive(Default)]
struct Bytes(Vec<u8>);

impl Sink for Bytes {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }

    fn skip(&mut self, len: u64) -> Result<()> {
        self.0.resize(self.0.len() + len as usize, 0);
        Ok(())
    }

    fn can_patch(&self) -> bool {
        true
    }

    fn patch(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        self.0[offset as usize..][..bytes.len()].copy_from_slice(bytes);
        Ok(())
    }
}

/// A pipe: what is written is gone.
struct Pipe;

impl Sink for Pipe {
    fn write(&mut self, _: &[u8]) -> Result<()> {
        panic!("nothing is written before it is known that it can be");
    }

    fn skip(&mut self, _: u64) -> Result<()> {
        panic!("nothing is written before it is known that it can be");
    }
}

/// A disk with room for so many bytes. Holes take none until they are written over.
struct Disk {
    room: u64,
    written: u64,
    full: bool,
}

impl Disk {
    fn take(&mut self, len: usize) -> Result<()> {
        assert!(!self.full, "written to after it was full");
        self.written += len as u64;
        self.full = self.written > self.room;
        match self.full {
            true => Err(Error::io("writing to the disk", std::io::ErrorKind::StorageFull.into())),
            false => Ok(()),
        }
    }
}

impl Sink for Disk {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.take(bytes.len())
    }

    fn skip(&mut self, _: u64) -> Result<()> {
        self.take(0)
    }

    fn can_patch(&self) -> bool {
        true
    }

    fn patch(&mut self, _: u64, bytes: &[u8]) -> Result<()> {
        self.take(bytes.len())
    }
}

const OF_KDUMP: [DumpCompression; 5] = [
    DumpCompression::None,
    DumpCompression::Zlib,
    DumpCompression::Lzo,
    DumpCompression::Snappy,
    DumpCompression::Zstd,
];

fn written(memory: &dyn PhysicalMemory, options: &WriteOptions<'_>) -> Vec<u8> {
    let mut sink = Bytes::default();
    write(memory, &mut sink, options).unwrap();
    sink.0
}

fn opened(bytes: &[u8]) -> Snapshot {
    open_bytes("dump", bytes, &OpenOptions::default()).unwrap()
}

/// Memory with these pages, all in the same order in the source.
fn memory(pages: &[(u64, Vec<u8>)]) -> BufferMemory {
    memory_of(TargetFacts::default(), pages)
}

/// As [`memory`], with these facts.
fn memory_of(facts: TargetFacts, pages: &[(u64, Vec<u8>)]) -> BufferMemory {
    let runs = pages.iter().scan(0, |offset, (start, bytes)| {
        let range = PhysRange::new(PhysAddr::new(*start), bytes.len() as u64).unwrap();
        let run = Run { range, offset: *offset };
        *offset += bytes.len() as u64;
        Some(run)
    });
    let runs = RunMap::new(runs).unwrap();
    let config = SourceConfig { name: "test".into(), runs, facts };
    BufferMemory::new(config, pages.iter().flat_map(|(_, bytes)| bytes.clone()).collect::<Vec<u8>>()).unwrap()
}

fn ranges(memory: &dyn PhysicalMemory) -> Vec<PhysRange> {
    let mut joined: Vec<PhysRange> = Vec::new();
    for run in memory.metadata().runs.runs() {
        match joined.last_mut() {
            Some(last) if last.end() == Some(run.range.start()) => {
                *last = PhysRange::new(last.start(), last.len() + run.range.len()).unwrap();
            }
            _ => joined.push(run.range),
        }
    }
    joined
}

#[track_caller]
fn assert_same(first: &dyn PhysicalMemory, second: &dyn PhysicalMemory) {
    assert_eq!(ranges(first), ranges(second));
    for range in ranges(first) {
        let [a, b] = [first, second].map(|memory| read(memory, range.start().as_u64(), range.len() as usize).unwrap());
        assert!(a == b, "bytes of {range} differ");
    }
}

#[test]
fn core_is_written_with_all_its_facts() {
    for core in [sample_elf64(), sample_elf32()] {
        let before = opened(&core);
        for compression in [None, Some(DumpCompression::Zstd)] {
            let options = WriteOptions { compression, ..WriteOptions::new(DumpFormat::Elf) };
            let after = opened(&written(&*before.memory, &options));
            assert_same(&*before.memory, &*after.memory);
            assert_eq!(after.memory.facts(), before.memory.facts());
            assert!(after.notes.is_empty(), "{:?}", after.notes);
        }
    }
}

/// makedumpfile 1.7.2 reads as many bytes behind the ELF header as the program headers take, wherever the header says that they lie.
#[test]
fn program_headers_lie_behind_the_elf_header_and_memory_at_a_page() {
    let bytes = written(
        &memory(&[(0x1000, pattern(1, 0x2000)), (0x8000, pattern(2, 0x1000))]),
        &WriteOptions::new(DumpFormat::Elf),
    );
    let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
    assert_eq!(word(0x20), 64);
    // The second header's offset and address, the third's.
    assert_eq!((word(64 + 56 + 8), word(64 + 56 + 24)), (0x1000, 0x1000));
    assert_eq!((word(64 + 2 * 56 + 8), word(64 + 2 * 56 + 24)), (0x3000, 0x8000));
    assert_eq!(bytes.len(), 0x4000);
}

#[test]
fn more_segments_than_the_elf_header_can_count() {
    let pages: Vec<(u64, Vec<u8>)> = (0..0x1_0001u64).map(|page| (page * 32, vec![page as u8; 16])).collect();
    let before = memory(&pages);
    let after = opened(&written(&before, &WriteOptions::new(DumpFormat::Elf)));
    assert_same(&before, &*after.memory);
}

#[test]
fn raw_image_has_no_gaps_unless_zeros_are_wanted() {
    let before = memory(&[(0x1000, noise(1, 0x1000)), (0x3000, noise(2, 0x1000))]);
    let mut options = WriteOptions::new(DumpFormat::Raw);
    let error = write(&before, &mut Bytes::default(), &options).unwrap_err();
    assert!(
        error.to_string().starts_with("a raw image of memory with a gap at 0x0 (0x1000 bytes) is not supported: "),
        "{error}"
    );
    options.gaps = Some(Gaps::Zero);
    let mut sink = Bytes::default();
    let result = write(&before, &mut sink, &options).unwrap();
    assert_eq!(result.filled, 0x2000);
    assert_eq!(sink.0, [vec![0; 0x1000], noise(1, 0x1000), vec![0; 0x1000], noise(2, 0x1000)].concat());
}

#[test]
fn what_the_source_left_out_is_refused_or_becomes_what_was_asked_for() {
    let source =
        Kdump { pages: vec![(1, Some(noise(1, 4096))), (2, None), (3, Some(noise(3, 4096)))], ..Kdump::default() };
    let before = opened(&source.write());
    for format in [DumpFormat::Lime, DumpFormat::Elf] {
        let mut options = WriteOptions::new(format);
        let error = write(&*before.memory, &mut Bytes::default(), &options).unwrap_err();
        assert!(error.to_string().starts_with("0x1000 bytes of memory that the source left out, as "), "{error}");
        options.gaps = Some(Gaps::Gap);
        let mut sink = Bytes::default();
        let result = write(&*before.memory, &mut sink, &options).unwrap();
        assert_eq!((result.filled, result.left_out), (0, 0x1000));
        assert_same(&*before.memory, &*opened(&sink.0).memory);
        options.gaps = Some(Gaps::Zero);
        let mut sink = Bytes::default();
        let result = write(&*before.memory, &mut sink, &options).unwrap();
        assert_eq!((result.filled, result.left_out), (0x1000, 0));
        let bytes = read(&*opened(&sink.0).memory, 0x1000, 0x3000).unwrap();
        assert!(bytes == [noise(1, 4096), vec![0; 4096], noise(3, 4096)].concat());
    }
}

#[test]
fn what_cannot_be_read_fails_or_is_zeros_that_are_counted() {
    let bad = PhysRange::new(PhysAddr::new(0x3000), 0x1000).unwrap();
    let before = ScriptedMemory::new(memory_of(of(MachineKind::X86_64), &[(0x1000, vec![7; 0x4000])]))
        .with_failing_addresses(bad);
    for format in [DumpFormat::Lime, DumpFormat::Elf, DumpFormat::Windows] {
        let mut options = WriteOptions::new(format);
        let error = write(&before, &mut Bytes::default(), &options).unwrap_err();
        assert!(error.to_string().starts_with("read of 4096 bytes at physical 0x3000: "), "{error}");
        options.gaps = Some(Gaps::Zero);
        let mut sink = Bytes::default();
        assert_eq!(write(&before, &mut sink, &options).unwrap().filled, 0x1000);
        let bytes = read(&*opened(&sink.0).memory, 0x1000, 0x4000).unwrap();
        assert!(bytes == [vec![7; 0x2000], vec![0; 0x1000], vec![7; 0x1000]].concat());
    }
}

/// The layout of Zstandard's seekable format, read from the end as its document says.
#[test]
fn seek_table_lists_every_frame() {
    let before = memory(&[(0, noise(1, 0x28_0000))]);
    let options = WriteOptions { compression: Some(DumpCompression::Zstd), ..WriteOptions::new(DumpFormat::Lime) };
    let bytes = written(&before, &options);
    let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
    let end = bytes.len();
    let frames = word(end - 9) as usize;
    assert_eq!((word(end - 4), bytes[end - 5], frames), (0x8f92_eab1, 0, 3));
    let table = end - 9 - 8 * frames;
    assert_eq!((word(table - 8), word(table - 4) as usize), (0x184d_2a5e, 8 * frames + 9));
    let sizes: Vec<(usize, usize)> =
        (0..frames).map(|frame| (word(table + 8 * frame) as usize, word(table + 8 * frame + 4) as usize)).collect();
    assert_eq!(sizes.iter().map(|(packed, _)| packed).sum::<usize>(), table - 8);
    assert_eq!(sizes.iter().map(|(_, unpacked)| *unpacked).collect::<Vec<_>>(), [1 << 20, 1 << 20, (1 << 19) + 32]);
    // Each by itself.
    let second = zstd::bulk::decompress(&bytes[sizes[0].0..sizes[0].0 + sizes[1].0], 1 << 20).unwrap();
    assert!(second == noise(1, 0x28_0000)[(1 << 20) - 32..(2 << 20) - 32]);
}

#[test]
fn progress_is_told_and_can_end_it() {
    let before = memory(&[(0, noise(1, 0x40_0000))]);
    let told = Mutex::new(Vec::new());
    let on_progress = |copied: memflow_snapshot::Copied| {
        told.lock().unwrap().push(copied.done);
        assert_eq!(copied.total, 0x40_0000);
        if copied.done >= 0x20_0000 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let options = WriteOptions { on_progress: Some(&on_progress), ..WriteOptions::new(DumpFormat::Raw) };
    assert!(matches!(write(&before, &mut Bytes::default(), &options), Err(Error::Cancelled)));
    assert_eq!(*told.lock().unwrap(), [0x10_0000, 0x20_0000]);
}

/// Wherever it ends, its error is the one that is told, and nothing is written after it.
#[test]
fn disk_that_is_full_ends_writing_at_any_byte() {
    let before = memory(&[(0, noise(1, 0x11_0000)), (0x20_0000, vec![0; 0x10_0000]), (0x40_0000, pattern(3, 0x3000))]);
    let plain = [DumpFormat::Raw, DumpFormat::Lime, DumpFormat::Elf].map(|format| (format, None));
    let frames = plain.map(|(format, _)| (format, Some(DumpCompression::Zstd)));
    let kdumps = OF_KDUMP.map(|compression| (DumpFormat::Kdump, Some(compression)));
    for (format, compression) in [&plain[..], &frames, &kdumps].concat() {
        for threads in 1..=2 {
            let mut options = WriteOptions { compression, gaps: Some(Gaps::Zero), ..WriteOptions::new(format) };
            options.threads = std::num::NonZero::new(threads);
            let onto = |room| {
                let mut disk = Disk { room, written: 0, full: false };
                (write(&before, &mut disk, &options), disk.written)
            };
            let (done, all) = onto(u64::MAX);
            done.unwrap();
            onto(all).0.unwrap();
            let steps = (0..all).step_by(all as usize / 12);
            for room in steps.chain([1, 15, 63, 0x1000, all - 1]) {
                let (ended, _) = onto(room);
                let Err(Error::Io { source, .. }) = ended else { panic!("{format:?}, {compression:?}: {ended:?}") };
                assert_eq!(source.kind(), std::io::ErrorKind::StorageFull);
            }
        }
    }
}

#[test]
fn kdump_keeps_what_was_left_out_and_all_facts() {
    let notes = [common::prstatus64(0x4000, 0x5000), common::qemu_note(true)].concat();
    let pages =
        vec![(1, Some(noise(1, 4096))), (2, None), (3, Some(vec![0; 4096])), (0x1_0005, Some(pattern(3, 4096)))];
    let source = Kdump { pages, notes, max_mapnr: 0x2_0000, ..Kdump::default() };
    let before = opened(&source.write());
    for compression in OF_KDUMP {
        let options = WriteOptions { compression: Some(compression), ..WriteOptions::new(DumpFormat::Kdump) };
        let after = opened(&written(&*before.memory, &options));
        assert_eq!(after.format.to_string(), "kdump");
        assert_same(&*before.memory, &*after.memory);
        assert_eq!(after.memory.facts(), before.memory.facts());
        assert_eq!(after.memory.excluded_runs().to_string(), before.memory.excluded_runs().to_string());
        assert!(!after.memory.excluded_runs().is_empty());
    }
    let core = opened(&sample_elf32());
    let after = opened(&written(&*core.memory, &WriteOptions::new(DumpFormat::Kdump)));
    assert_same(&*core.memory, &*after.memory);
    assert_eq!(after.memory.facts(), core.memory.facts());
}

/// libkdumpfile, which drgn and others read with, takes the machine from the header if none of the first five names is empty.
#[test]
fn kdump_of_linux_has_a_text_for_each_name() {
    let before = opened(&Kdump { pages: vec![(1, Some(noise(1, 4096)))], ..Kdump::default() }.write());
    let dump = written(&*before.memory, &WriteOptions::new(DumpFormat::Kdump));
    let names: Vec<&str> =
        (0..6).map(|name| std::str::from_utf8(&dump[12 + 65 * name..][..65]).unwrap().trim_end_matches('\0')).collect();
    assert_eq!(names, ["Linux", "(none)", "6.1.0", "(none)", "x86_64", "(none)"]);
}

#[test]
fn kdump_refuses_what_it_cannot_say_before_it_writes() {
    let options = WriteOptions::new(DumpFormat::Kdump);
    let whole = memory(&[(0x1000, noise(1, 0x1000))]);
    let odd = memory(&[(0x1000, noise(1, 0x1001))]);
    let far = memory(&[(1 << 60, noise(1, 0x1000))]);
    for (memory, expected) in [
        (&whole, "kdump of anything to a pipe or a device is not supported: "),
        (&odd, "kdump of 0x1000-0x2000 is not supported: the format has whole pages"),
    ] {
        let error = write(memory, &mut Pipe, &options).unwrap_err().to_string();
        assert!(error.starts_with(expected), "{error}");
    }
    let error = write(&far, &mut Bytes::default(), &options).unwrap_err().to_string();
    assert!(error.starts_with("kdump of memory up to 0x1000000000000fff is not supported: "), "{error}");
    let zlib = WriteOptions { compression: Some(DumpCompression::Zlib), ..WriteOptions::new(DumpFormat::Elf) };
    let error = write(&whole, &mut Pipe, &zlib).unwrap_err().to_string();
    assert!(error.starts_with("ELF core with compression other than zstd is not supported: "), "{error}");
}

#[test]
fn crash_dump_is_written_with_all_that_a_header_tells() {
    let pages = [pattern(1, 0x3000), pattern(2, 0x1000)].concat();
    let runs = [(1, 3), (0x10_0000, 1)];
    let narrow = [(1, 3), (0x8_0000, 1)];
    for dump in [
        [header64(0x8664, 1, &runs), pages.clone()].concat(),
        [header32(1, 1, &narrow), pages.clone()].concat(),
        [header32(1, 0, &narrow), pages].concat(),
    ] {
        let before = opened(&dump);
        let windows = before.memory.facts().windows.unwrap();
        for compression in [None, Some(DumpCompression::Zstd)] {
            let options = WriteOptions { compression, ..WriteOptions::new(DumpFormat::Windows) };
            let mut sink = Bytes::default();
            let told = write(&*before.memory, &mut sink, &options).unwrap();
            let unknown: &[&str] = if windows.system_time.is_none() { &["SystemTime"] } else { &[] };
            assert_eq!((told.filled, told.left_out, &told.unknown[..]), (0, 0, unknown));
            let after = opened(&sink.0);
            assert_eq!(after.format.container, Container::CrashDump);
            assert_same(&*before.memory, &*after.memory);
            assert_eq!(after.memory.facts(), before.memory.facts());
            assert_eq!(after.notes, ["a complete dump"]);
        }
        // Field by field as whoever wrote the first one has them, but for what Windows says of itself and a length that it did not set.
        let after = written(&*before.memory, &WriteOptions::new(DumpFormat::Windows));
        let wide = dump[4..8] == *b"DU64";
        let (body, context, len) = if wide { (0x2000, 0x348, 0x4d0) } else { (0x1000, 0x320, 0x2cc) };
        for at in (0..body).filter(|at| !(context..context + len).contains(at) && !(0xfa0..0xfa8).contains(at)) {
            assert_eq!(after[at], dump[at], "{at:#x}");
        }
        assert_eq!(after[0xfa0..0xfa8], (after.len() as u64).to_le_bytes());
        assert!(after[body..] == dump[body..]);
        let (flags, value) = if wide { (0x30, 0x10_0001u32) } else { (0, 0x1_0001) };
        assert_eq!(after[context + flags..][..4], value.to_le_bytes());
    }
}

/// As others have the fields: the sources in `crash_dump/raw.rs`.
#[test]
fn what_a_crash_dump_cannot_know_stays_unset_and_is_told() {
    let pages = [(0, noise(1, 0x2000)), (0x10_0000, noise(2, 0x1000))];
    for (machine, unknown, fields) in [
        (
            MachineKind::X86_64,
            &[][..],
            &[0x8, 0xc, 0x10, 0x18, 0x20, 0x28, 0x34, 0x38, 0x80, 0x348, 0x3e0, 0x440, 0xfa8][..],
        ),
        (
            MachineKind::X86,
            &["PaeEnabled"],
            &[0x8, 0xc, 0x10, 0x14, 0x18, 0x1c, 0x24, 0x28, 0x5c, 0x60, 0x320, 0x3d8, 0x3e4, 0xfc0],
        ),
    ] {
        let before = memory_of(of(machine), &pages);
        let mut sink = Bytes::default();
        let mut told = write(&before, &mut sink, &WriteOptions::new(DumpFormat::Windows)).unwrap().unknown;
        let mut expected = vec![
            "DirectoryTableBase",
            "MinorVersion",
            "PfnDataBase",
            "PsLoadedModuleList",
            "PsActiveProcessHead",
            "NumberProcessors",
            "BugCheckCode",
            "KdDebuggerDataBlock",
            "Rip",
            "Rsp",
            "SystemTime",
        ];
        expected.extend(unknown);
        expected.sort_unstable();
        told.sort_unstable();
        assert_eq!(told, expected);
        for at in fields {
            assert_eq!(sink.0[*at..][..4], *b"PAGE", "{at:#x} of {machine:?}");
        }
        let after = opened(&sink.0);
        assert_same(&before, &*after.memory);
        assert_eq!(after.memory.facts(), &of(machine));
    }
}

/// Of several vCPUs the header has one: one in the kernel, as user memory's page tables may lack that.
#[test]
fn crash_dump_has_the_registers_of_a_vcpu_in_the_kernel() {
    let vcpu = |rip: u64, cr3: u64| {
        let mut registers = X86Registers::default();
        (registers.rip, registers.rsp, registers.cr3) = (Some(rip), Some(rip + 8), Some(cr3));
        registers.cr4 = Some(0x20);
        registers
    };
    for (machine, user, kernel) in
        [(MachineKind::X86_64, 0x7fff_0000_1000, 0xffff_8000_0000_1000), (MachineKind::X86, 0x40_1000, 0xc010_1000)]
    {
        let mut facts = of(machine);
        facts.vcpus = [vcpu(user, 0x1000), vcpu(kernel, 0x2000)].map(VcpuRegisters::X86).to_vec();
        let after =
            opened(&written(&memory_of(facts, &[(0, noise(1, 0x1000))]), &WriteOptions::new(DumpFormat::Windows)));
        let mut expected = vcpu(kernel, 0x2000);
        expected.cr4 = None;
        assert_eq!(after.memory.facts().vcpus, [VcpuRegisters::X86(expected)]);
        assert_eq!(after.memory.facts().directory_table, Some(0x2000));
    }
}

#[test]
fn crash_dump_of_many_runs_has_a_bitmap() {
    // As many as LeechCore takes in the header; more; more than the header of either width has room for.
    for (count, kind) in [(32, 1u32), (33, 5), (42, 5), (43, 5), (86, 5), (500, 5)] {
        let pages: Vec<(u64, Vec<u8>)> = (0..count).map(|page| (page * 0x3000, noise(page + 1, 0x1000))).collect();
        for (machine, at, most) in [(MachineKind::X86_64, 0xf98, 42), (MachineKind::X86, 0xf88, 86)] {
            let before = memory_of(of(machine), &pages);
            let dump = written(&before, &WriteOptions::new(DumpFormat::Windows));
            assert_eq!(dump[at..at + 4], kind.to_le_bytes(), "{count}");
            let list = if machine == MachineKind::X86 { 0x64 } else { 0x88 };
            let listed = if count <= most { (count as u32).to_le_bytes() } else { *b"PAGE" };
            assert_eq!(dump[list..list + 4], listed, "{count}");
            let after = opened(&dump);
            assert_same(&before, &*after.memory);
            assert_eq!(after.notes.len(), 1, "{:?}", after.notes);
        }
    }
}

#[test]
fn crash_dump_lists_what_was_left_out_and_does_not_hold_it() {
    let pages = vec![(1, Some(noise(1, 4096))), (2, None), (3, Some(noise(3, 4096))), (9, Some(noise(9, 4096)))];
    let before = opened(&Kdump { pages, ..Kdump::default() }.write());
    let mut sink = Bytes::default();
    let mut options = WriteOptions::new(DumpFormat::Windows);
    let told = write(&*before.memory, &mut sink, &options).unwrap();
    assert_eq!((told.filled, told.left_out), (0, 0));
    // Two runs of four pages and one, and a bitmap without the third page.
    let word = |at: usize| u64::from_le_bytes(sink.0[at..at + 8].try_into().unwrap());
    assert_eq!((word(0x88) as u32, word(0x90)), (2, 4));
    assert_eq!([word(0x98), word(0xa0), word(0xa8), word(0xb0)], [1, 3, 9, 1]);
    assert_eq!(sink.0[0x2000..0x2008], *b"FDMPDUMP");
    assert_eq!([word(0x2020), word(0x2028), word(0x2030)], [0x3000, 3, 10]);
    assert_eq!(sink.0[0x2038..0x203a], [0b1010, 0b10]);
    assert_eq!(sink.0.len(), 0x6000);
    let after = opened(&sink.0);
    assert_same(&*before.memory, &*after.memory);
    assert_eq!(
        after.notes,
        ["a complete dump of what was in use", "0x1000 bytes of the memory that the header lists were left out"]
    );
    for (gaps, filled, left_out, runs) in [(Gaps::Gap, 0, 0x1000, 3u32), (Gaps::Zero, 0x1000, 0, 2)] {
        options.gaps = Some(gaps);
        let mut sink = Bytes::default();
        let told = write(&*before.memory, &mut sink, &options).unwrap();
        assert_eq!((told.filled, told.left_out), (filled, left_out));
        // Complete: what the header lists is there.
        assert_eq!((&sink.0[0xf98..0xf9c], &sink.0[0x88..0x8c]), (&1u32.to_le_bytes()[..], &runs.to_le_bytes()[..]));
        let after = opened(&sink.0);
        assert_eq!(after.notes, ["a complete dump"]);
        assert!(read(&*after.memory, 0x3000, 4096).unwrap() == noise(3, 4096));
        assert_eq!(read(&*after.memory, 0x2000, 4096).ok(), (gaps == Gaps::Zero).then(|| vec![0; 4096]));
    }
}

#[test]
fn crash_dump_refuses_what_it_cannot_say_before_it_writes() {
    let options = WriteOptions::new(DumpFormat::Windows);
    let x64 = of(MachineKind::X86_64);
    for (memory, expected) in [
        (
            memory(&[(0x1000, noise(1, 0x1000))]),
            "a Windows crash dump of a machine that the target does not tell is not supported: ",
        ),
        (
            memory_of(of(MachineKind::AArch64), &[(0, noise(1, 0x1000))]),
            "a Windows crash dump of AArch64 is not supported: ",
        ),
        (
            memory_of(x64.clone(), &[(0x1000, noise(1, 0x1001))]),
            "a Windows crash dump of 0x1000-0x2000 is not supported: the format has",
        ),
        (
            memory_of(x64, &[(1 << 60, noise(1, 0x1000))]),
            "a Windows crash dump of memory up to 0x1000000000000fff is not supported: ",
        ),
    ] {
        let error = write(&memory, &mut Pipe, &options).unwrap_err().to_string();
        assert!(error.starts_with(expected), "{error}");
    }
    // More runs than the header lists, so that it cannot tell what was left out.
    let pages = (0..50).map(|page| (page * 2, (page % 2 == 0).then(|| noise(page + 1, 4096)))).collect();
    let before = opened(&Kdump { pages, ..Kdump::default() }.write());
    let error = write(&*before.memory, &mut Pipe, &options).unwrap_err().to_string();
    assert!(
        error.starts_with("0x19000 bytes of memory that the source left out, as Windows crash dump is not supported: "),
        "{error}"
    );
}

#[test]
fn no_memory_is_no_dump() {
    let none = Arc::new(memory(&[]));
    let error = write(&none, &mut Bytes::default(), &WriteOptions::new(DumpFormat::Elf)).unwrap_err();
    assert_eq!(error.to_string(), "a dump of no memory is not supported: the target holds none");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_layout_survives(
        pages in proptest::collection::btree_map(0u64..400, 0u8..4, 1..60),
        threads in 1usize..4,
        compressed in any::<bool>(),
    ) {
        let pages: Vec<(u64, Vec<u8>)> = pages
            .into_iter()
            .map(|(page, kind)| (page * PAGE, match kind {
                0 => vec![0; PAGE as usize],
                1 => noise(page + 1, PAGE as usize),
                _ => pattern(page as u8, PAGE as usize),
            }))
            .collect();
        let before = memory_of(of(MachineKind::X86_64), &pages);
        for format in [DumpFormat::Lime, DumpFormat::Elf, DumpFormat::Kdump, DumpFormat::Windows] {
            let mut options = WriteOptions::new(format);
            options.threads = threads.try_into().ok();
            options.compression = match format {
                DumpFormat::Kdump if !compressed => Some(DumpCompression::Lzo),
                _ => compressed.then_some(DumpCompression::Zstd),
            };
            let (_dir, path) = file(&written(&before, &options));
            let after = open(&path, &OpenOptions::default()).unwrap();
            assert_same(&before, &*after.memory);
        }
    }
}
