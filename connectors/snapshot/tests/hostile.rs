//! Damaged bytes of every kind: no panic, no run outside the file, and an answer in bounded time.

mod common;

use std::time::{Duration, Instant};

use common::{
    Segment, avml as write_avml, elf as write_elf, gzip_stored, lime as write_lime, note, pattern, prstatus64,
    qemu_note, zstd_raw,
};
use memflow_core::memory::{PhysicalMemoryExt, RunMap};
use memflow_snapshot::{BytesInput, OpenOptions, ParseOptions, ReadAt, crash_dump, elf, lime, open_bytes};

/// What one case may take at most, on a machine that has other things to do too.
const PATIENCE: Duration = Duration::from_secs(5);

/// Deterministic numbers (xorshift64).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }
}

/// Places in `bytes` that are worth changing: those that are not what a header is filled with.
fn telling(bytes: &[u8]) -> Vec<usize> {
    let filling = |at: &usize| bytes[*at] == b"PAGE"[at % 4] || bytes[*at] == 0;
    (0..bytes.len()).filter(|at| !filling(at)).take(600).collect()
}

/// Calls `check` with every byte of `bytes` replaced by each of several values, then with `random` combined mutations.
fn mutate(bytes: &[u8], random: usize, check: impl FnMut(&[u8])) {
    let all: Vec<usize> = (0..bytes.len()).collect();
    mutate_at(bytes, &all, random, check);
}

/// The same with the bytes at some places only, which most of the random mutations hit too.
fn mutate_at(bytes: &[u8], places: &[usize], random: usize, mut check: impl FnMut(&[u8])) {
    let mut cases = 0;
    let mut timed = |bytes: &[u8]| {
        let started = Instant::now();
        check(bytes);
        assert!(started.elapsed() < PATIENCE, "took {:?}", started.elapsed());
        cases += 1;
    };
    let mut work = bytes.to_vec();
    for &at in places {
        for value in [0, 1, 4, 0x7f, 0x80, 0xff, bytes[at].wrapping_add(1), bytes[at].wrapping_sub(1)] {
            work[at] = value;
            timed(&work);
        }
        work[at] = bytes[at];
    }
    let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15);
    let interesting = [0, 1, 0xffff, 0x7fff_ffff, 0xffff_ffff, 1 << 60, i64::MAX as u64, u64::MAX - 0xfff, u64::MAX];
    for _ in 0..random {
        let mut work = bytes.to_vec();
        for _ in 0..=numbers.below(4) {
            let place = places[numbers.below(places.len())];
            let at = if numbers.below(8) == 0 { numbers.below(work.len()) } else { place.min(work.len() - 1) };
            match numbers.below(5) {
                0 => work[at] = numbers.next() as u8,
                1 => work[at] ^= 1 << numbers.below(8),
                2 => work.truncate(at + 1),
                3 => {
                    // A field of some width, at its natural place more often than not.
                    let width = [2, 4, 8][numbers.below(3)];
                    let at = at / width * width;
                    let value = interesting[numbers.below(interesting.len())];
                    if let Some(field) = work.get_mut(at..at + width) {
                        field.copy_from_slice(&value.to_le_bytes()[..width]);
                    }
                }
                _ => {
                    let from = numbers.below(work.len());
                    let piece = work[from..work.len().min(from + 16)].to_vec();
                    work.splice(at..at, piece);
                }
            }
        }
        timed(&work);
    }
    assert!(cases >= 10_000, "{cases} cases");
}

fn input(bytes: &[u8]) -> BytesInput<'_> {
    BytesInput::new("hostile".as_ref(), bytes)
}

fn runs_lie_inside(runs: &RunMap, size: u64) {
    assert!(!runs.is_empty());
    for run in runs.runs() {
        assert!(run.offset.checked_add(run.range.len()).is_some_and(|end| end <= size), "{run:?} in {size:#x} bytes");
    }
    for pair in runs.runs().windows(2) {
        assert!(pair[0].range.intersection(&pair[1].range).is_none());
    }
}

/// Parses both ways; what is accepted must be sound, and what a strict parse accepts a partial one accepts too.
fn check_parser(
    parse: fn(&dyn ReadAt, ParseOptions) -> memflow_core::Result<memflow_snapshot::ParsedImage>,
    bytes: &[u8],
) {
    let strict = parse(&input(bytes), ParseOptions { partial: false });
    let partial = parse(&input(bytes), ParseOptions { partial: true });
    for image in [&strict, &partial].into_iter().flatten() {
        runs_lie_inside(&image.runs, bytes.len() as u64);
        assert!(image.facts.vcpus.len() <= bytes.len() && image.notes.len() <= bytes.len());
    }
    if let Ok(strict) = strict {
        assert_eq!(Some(strict), partial.ok());
    }
}

fn small_elf(wide: bool) -> Vec<u8> {
    let notes = [prstatus64(1, 2), qemu_note(true), note("VMCOREINFO", 0, b"A=1\n")].concat();
    let segments = [
        Segment::new(0, pattern(0, 64)),
        Segment::new(0x1000, pattern(1, 64)),
        Segment::new(0x1020, pattern(1, 64)[32..].to_vec()),
    ];
    write_elf(wide, if wide { 62 } else { 3 }, &notes, &segments)
}

#[test]
fn mutated_elf64_never_panics() {
    mutate(&small_elf(true), 20_000, |bytes| check_parser(elf::parse, bytes));
}

#[test]
fn mutated_elf32_never_panics() {
    mutate(&small_elf(false), 20_000, |bytes| check_parser(elf::parse, bytes));
}

#[test]
fn mutated_lime_never_panics() {
    let ranges: Vec<(u64, Vec<u8>)> = (0..8).map(|index| (index * 0x1000, pattern(index as u8, 40))).collect();
    mutate(&write_lime(&ranges), 20_000, |bytes| check_parser(lime::parse, bytes));
}

/// Opens both ways under a small limit, kept whole and read at random, and reads what is there.
fn check_packed(bytes: &[u8]) {
    const LIMIT: u64 = 1 << 20;
    for (partial, cache) in [(false, None), (true, None), (false, Some(0)), (true, Some(0))] {
        let options =
            OpenOptions { max_unpacked: Some(LIMIT), partial, unpacked_cache: cache, ..OpenOptions::default() };
        let Ok(snapshot) = open_bytes("hostile", bytes, &options) else { continue };
        for run in snapshot.memory.metadata().runs.runs().iter().take(4) {
            // Whatever comes, it comes soon and is an answer.
            let _ = snapshot.memory.read_into(run.range.start(), &mut [0; 64]);
            let _ = snapshot.memory.read_into(run.range.last().unwrap(), &mut [0; 1]);
        }
    }
}

fn compressible() -> Vec<u8> {
    let mut image = write_lime(&[(0x1000, pattern(1, 300)), (0x2000, vec![0; 5000]), (0x8000, pattern(1, 300))]);
    image.extend(vec![0; 100]);
    image
}

#[test]
fn mutated_gzip_never_panics() {
    use std::io::Write;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(&compressible()).unwrap();
    mutate(&[encoder.finish().unwrap(), gzip_stored(&pattern(1, 50))].concat(), 10_000, check_packed);
    mutate(&common::packed::bgzf(&compressible(), 2000), 10_000, check_packed);
}

#[test]
fn mutated_zstd_never_panics() {
    let packed = zstd::encode_all(&compressible()[..], 3).unwrap();
    mutate(&[packed, zstd_raw(&pattern(1, 50))].concat(), 10_000, check_packed);
    mutate(&common::packed::zstd_frames(&compressible(), 2000), 10_000, check_packed);
    mutate(&common::packed::zstd_seekable(&compressible(), 2000, true), 10_000, check_packed);
}

#[test]
fn mutated_lz4_never_panics() {
    for linked in [false, true] {
        mutate(&common::packed::lz4(&compressible(), linked), 10_000, check_packed);
    }
    mutate(&common::packed::lz4_legacy(&[&compressible()[..]]), 10_000, check_packed);
}

#[test]
fn mutated_xz_never_panics() {
    mutate(&common::packed::xz(&compressible(), None), 10_000, check_packed);
    mutate(&common::packed::xz(&compressible(), Some(2000)), 10_000, check_packed);
}

#[test]
fn mutated_firmware_tables_never_panic() {
    // A raw image of 1 MiB whose firmware area is noise around mutated entry points of both kinds.
    let mut numbers = Numbers(7);
    let mut image = vec![0u8; 1 << 20];
    for round in 0..500 {
        for at in (0xf_0000..0x10_0000).step_by(16) {
            image[at..at + 16].fill_with(|| [0, 19, 31, 0xff, numbers.next() as u8][numbers.below(5)]);
        }
        let entry: &[u8] = if round % 2 == 0 {
            b"_SM_\0\x1f\x02\x08\0\0\0\0\0\0\0\0_DMI_\0\xff\x7f\x00\x00\x0f\x00\x01\x00\x28"
        } else {
            b"_SM3_\0\x18\x03\0\0\0\0\xff\xff\xff\xff\x00\x00\x0f\x00\0\0\0\0"
        };
        let at = 0xf_0100;
        image[at..at + entry.len()].copy_from_slice(entry);
        let checksum = at + if round % 2 == 0 { 4 } else { 5 };
        let sum = image[at..at + entry.len()].iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
        image[checksum] = image[checksum].wrapping_sub(sum);
        let snapshot = open_bytes("noise", &image, &OpenOptions::default()).unwrap();
        runs_lie_inside(&snapshot.memory.metadata().runs, 1 << 20);
    }
}

#[test]
fn thousands_of_overlapping_segments_end_in_bounded_time() {
    // Each segment names most of the file again, at another offset: compared naively that is gigabytes.
    let started = Instant::now();
    let count = 4000u64;
    let body = 1u64 << 20;
    let mut bytes = write_elf(true, 62, &[], &[Segment::new(0, vec![7; body as usize])]);
    let table = bytes.len() as u64;
    let data = 64 + 2 * 56;
    for index in 0..count {
        let mut header = 1u32.to_le_bytes().to_vec();
        header.extend([0; 4]);
        for value in [data + index, 0, 0x1000 + index, body - count, body - count, 0] {
            header.extend(u64::to_le_bytes(value));
        }
        bytes.extend(header);
    }
    bytes[32..40].copy_from_slice(&table.to_le_bytes());
    bytes[56..58].copy_from_slice(&(count as u16).to_le_bytes());
    check_parser(elf::parse, &bytes);
    assert!(started.elapsed() < Duration::from_secs(60), "took {:?}", started.elapsed());
}

#[test]
fn tiny_members_and_frames_without_number_end_in_bounded_time() {
    for bytes in
        [gzip_stored(&[]).repeat(20_000), zstd_raw(&[]).repeat(20_000), common::zstd_skippable(&[]).repeat(20_000)]
    {
        let started = Instant::now();
        let error = open_bytes("empty", &bytes, &OpenOptions::default()).unwrap_err().to_string();
        assert!(error.ends_with("is empty; was it copied completely?"), "{error}");
        assert!(started.elapsed() < Duration::from_secs(20), "took {:?}", started.elapsed());
    }
}

#[test]
fn ranges_with_padding_between_them_cost_in_proportion() {
    let started = Instant::now();
    let mut bytes = Vec::new();
    for index in 0..50_000 {
        bytes.extend(write_lime(&[(index * 2, vec![1])]));
        bytes.push(0);
    }
    let image = lime::parse(&input(&bytes), ParseOptions::default()).unwrap();
    assert_eq!(image.runs.runs().len(), 50_000);
    assert!(started.elapsed() < Duration::from_secs(20), "took {:?}", started.elapsed());
}

#[test]
fn damaged_avml_images_never_give_wrong_bytes() {
    let ranges = [(0x1000, pattern(1, 100)), (0x2000, pattern(2, 300)), (0x8000, vec![0; 64])];
    let bytes = write_avml(&ranges);
    mutate(&bytes, 12_000, |bytes| {
        for partial in [false, true] {
            let options = OpenOptions { partial, ..OpenOptions::default() };
            let Ok(snapshot) = open_bytes("hostile", bytes, &options) else { continue };
            let metadata = snapshot.memory.metadata();
            for run in metadata.runs.runs() {
                let mut buf = vec![0xaa; run.range.len().min(0x400) as usize];
                // Chunks have checksums, so what is read is what was written, wherever the header now says that it lies.
                if snapshot.memory.read_into(run.range.start(), &mut buf).is_ok() && snapshot.notes.is_empty() {
                    let known = ranges.iter().any(|(_, bytes)| bytes.starts_with(&buf) || buf.starts_with(bytes));
                    assert!(known, "{run:?}");
                }
            }
        }
    });
}

#[test]
fn damaged_kdumps_open_or_are_refused_in_bounded_time() {
    let pages = vec![(1, Some(pattern(1, 4096))), (2, None), (5, Some(vec![7; 4096]))];
    let bytes = common::kdump::Kdump { pages, notes: prstatus64(1, 2), ..Default::default() }.write();
    // Zeros and bits in between are not worth mutating one by one.
    let interesting: Vec<usize> = (0..12)
        .chain(400..470)
        .chain(4096..4096 + 104)
        .chain(2 * 4096..2 * 4096 + 4)
        .chain(4 * 4096..4 * 4096 + 48)
        .collect();
    mutate_at(&bytes, &interesting, 12_000, |bytes| {
        for partial in [false, true] {
            let Ok(snapshot) = open_bytes("hostile", bytes, &OpenOptions { partial, ..OpenOptions::default() }) else {
                continue;
            };
            for run in snapshot.memory.metadata().runs.runs().iter().take(8) {
                // Whatever comes, it comes soon and is an answer.
                let _ = snapshot.memory.read_into(run.range.start(), &mut [0; 64]);
            }
        }
    });
}

#[test]
fn mutated_crash_dumps_never_panic() {
    use common::crash_dump::{bitmap, header32, header64, old_bitmap, ranges};
    let runs = [(1, 1), (4, 1)];
    let pages = [pattern(1, 4096), pattern(2, 4096)].concat();
    for head in [
        header64(0x8664, 1, &runs),
        header32(1, 1, &[(1, 1), (4, 1)]),
        [header64(0x8664, 5, &runs), bitmap(b"FDMP", 0x2000, &[1, 4], 64)].concat(),
        [header32(2, 0, &[]), old_bitmap(0x1000, false, &[1, 4], 64)].concat(),
        [header64(0x8664, 8, &runs), ranges(&runs, None)].concat(),
        [header64(0x8664, 10, &runs), ranges(&runs, Some(2))].concat(),
    ] {
        let bytes = [head, pages.clone()].concat();
        mutate_at(&bytes, &telling(&bytes), 10_000, |bytes| check_parser(crash_dump::parse, bytes));
    }
}

/// Opens both ways; what is accepted answers at the ends of its first runs.
fn check_opened(bytes: &[u8]) {
    for partial in [false, true] {
        let options = OpenOptions { partial, ..OpenOptions::default() };
        let Ok(snapshot) = open_bytes("hostile", bytes, &options) else { continue };
        let metadata = snapshot.memory.metadata();
        assert!(!metadata.runs.is_empty() && snapshot.notes.len() <= bytes.len());
        for run in metadata.runs.runs().iter().take(8) {
            let last = run.range.last().unwrap();
            for at in [run.range.start(), last] {
                let _ = snapshot.memory.read_into(at, &mut [0; 1]);
            }
        }
    }
}

#[test]
fn mutated_migration_streams_never_panic() {
    use common::migration::{Record, Stream, libvirt, section};
    let stream = Stream {
        blocks: vec![("pc.ram", 0x8000), ("pc.bios", 0x2000), ("ram-node1", 0x4000)],
        records: vec![
            Record::Page("pc.ram", 0x1000, pattern(1, 4096)),
            Record::Page("pc.ram", 0x2000, pattern(2, 4096)),
            Record::NextSection,
            Record::Zlib("pc.bios", 0, pattern(3, 4096)),
            Record::Fill("ram-node1", 0x3000, 7),
            Record::Page("pc.ram", 0x2000, pattern(4, 4096)),
        ],
        postcopy: Some((0x20_1000, vec![("pc.bios", 0x20_0000)])),
        capabilities: vec!["x-ignore-shared"],
        stranger: true,
        devices: section(4, 3, "cpu", 0, 12, &[1; 40], true),
        ..Stream::default()
    };
    let bytes = stream.write();
    // The headers; pages are any bytes.
    let page = |at: usize| bytes[at..].starts_with(&pattern(1, 64)) || bytes[at..].starts_with(&pattern(2, 64));
    let mut places = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        if page(at) || bytes[at..].starts_with(&pattern(4, 64)) {
            at += 4096;
        } else {
            places.push(at);
            at += 1;
        }
    }
    mutate_at(&bytes, &places, 12_000, check_opened);
    let mapped = Stream { capabilities: vec!["mapped-ram"], postcopy: None, ..stream };
    let bytes = mapped.write_mapped(&[("pc.ram", 0x1000, pattern(1, 4096)), ("pc.ram", 0x3000, pattern(1, 4096))]);
    let places: Vec<usize> = (0..bytes.len()).filter(|at| *at < 0x130 || bytes[*at] == 0x7e).collect();
    mutate_at(&bytes, &places, 10_000, check_opened);
    let saved = [
        libvirt(b"LibvirtQemudSave", 2, 0, b"<domain/>"),
        Stream { records: vec![Record::Page("pc.ram", 0, pattern(1, 4096))], ..Stream::default() }.write(),
    ]
    .concat();
    let places: Vec<usize> = (0..0x170).collect();
    mutate_at(&saved, &places, 10_000, check_opened);
}

#[test]
fn mutated_cores_of_hypervisors_never_panic() {
    use common::xen::Core;
    let pages = vec![(1, 9, pattern(1, 4096)), (2, 10, pattern(2, 4096)), (7, 3, pattern(3, 4096))];
    for paravirtual in [false, true] {
        let core = Core { paravirtual, pages: pages.clone(), vcpus: vec![(0x1000, 2)], ..Core::default() };
        let bytes = core.write();
        let places: Vec<usize> = (0..bytes.len() - 3 * 4096).filter(|at| bytes[*at] != 0 || at % 8 == 7).collect();
        mutate_at(&bytes, &places, 10_000, |bytes| check_parser(elf::parse, bytes));
    }
    let words: Vec<u8> = (0..80u64).flat_map(u64::to_le_bytes).collect();
    let mut descriptor = 0xc01a_c0deu32.to_le_bytes().to_vec();
    descriptor.extend(0x1_0006u32.to_le_bytes());
    descriptor.extend([0; 16]);
    let notes = [
        note("VBCORE", 0xb00, &descriptor),
        note("VBCPU", 0xb01, &words),
        prstatus64(1, 2),
        note("Xen", 0x100_0002, &words[..32]),
    ];
    let bytes = write_elf(true, 62, &notes.concat(), &[Segment::new(0, pattern(0, 64))]);
    mutate(&bytes, 10_000, |bytes| check_parser(elf::parse, bytes));
}

#[cfg(unix)]
#[test]
fn mutated_states_beside_memory_never_panic() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("memory-ranges");
    std::fs::File::create(&path).unwrap().set_len(0x6000).unwrap();
    // A new file each time: some file systems wait for the disk when one is written over.
    let put = |name: &str, bytes: &[u8]| {
        let _ = std::fs::remove_file(dir.path().join(name));
        std::fs::write(dir.path().join(name), bytes).unwrap();
    };
    let check = || {
        if let Ok(snapshot) = memflow_snapshot::open(&path, &OpenOptions::default()) {
            runs_lie_inside(&snapshot.memory.metadata().runs, 0x6000);
        }
    };
    let json = br#"{"a":{"state":"{\"memory_ranges\":{\"data\":[{\"gpa\":0,\"length\":16384},{\"gpa\":4294967296,\"length\":8192}]}}"}}"#;
    mutate(json, 10_000, |bytes| {
        put("state.json", bytes);
        check();
    });
    std::fs::remove_file(dir.path().join("state.json")).unwrap();
    let words = [0x0710_1984_8664_0000u64, 1, 0, 0x6000, 0];
    let state: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    mutate(&state, 10_000, |bytes| {
        put("vmstate", bytes);
        check();
    });
}
