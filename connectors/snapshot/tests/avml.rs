//! AVML images: what they hold, and what is wrong with damaged ones.

mod common;

use std::sync::Arc;

use common::{avml as write_avml, avml_header, error_of, file, noise, patched, pattern, read, sample_avml, snappy};
use memflow_core::{
    error::Reason,
    memory::{Liveness, PhysicalMemory},
};
use memflow_snapshot::{Container, FileInput, OpenOptions, ParseOptions, avml, open, open_bytes};

const MIB: usize = 1 << 20;

#[test]
fn ranges_are_inclusive_and_gaps_are_gaps() {
    let (_dir, path) = file(&sample_avml());
    let snapshot = open(&path, &OpenOptions::default()).unwrap();
    assert_eq!((snapshot.format.container, snapshot.format.to_string().as_str()), (Container::Avml, "AVML"));
    assert_eq!(snapshot.notes, [""; 0]);
    let memory = &*snapshot.memory;
    let metadata = memory.metadata();
    assert_eq!((metadata.liveness, metadata.read_only), (Liveness::Frozen, true));
    assert_eq!(read(memory, 0x1000, 0x2000).unwrap(), pattern(1, 0x2000));
    assert_eq!(read(memory, 0x10_0000, 0x3_1000).unwrap(), noise(2, 0x3_1000));
    assert_eq!(read(memory, 0x10_ffff, 2).unwrap(), noise(2, 0x3_1000)[0xffff..0x1_0001]);
    assert_eq!(read(memory, 0x20_0000, 1).unwrap(), pattern(3, 1));
    assert!(read(memory, 0x20_0001, 1).unwrap_err().is_not_in_image());
    assert!(read(memory, 0xfff, 1).unwrap_err().is_not_in_image());
}

#[test]
fn same_bytes_come_out_of_memory_and_of_another_compression() {
    let plain = sample_avml();
    for bytes in [plain.clone(), common::zstd_raw(&plain), common::gzip_stored(&plain)] {
        let snapshot = open_bytes("image", &bytes, &OpenOptions::default()).unwrap();
        assert_eq!(snapshot.format.container, Container::Avml);
        assert_eq!(read(&*snapshot.memory, 0x10_0000, 0x3_1000).unwrap(), noise(2, 0x3_1000));
    }
}

#[test]
fn ranges_may_come_in_any_order_of_address() {
    let (_dir, path) = file(&write_avml(&[(0x8000, pattern(1, 0x1000)), (0x1000, pattern(2, 0x1000))]));
    let snapshot = open(&path, &OpenOptions::default()).unwrap();
    assert_eq!(read(&*snapshot.memory, 0x8000, 0x1000).unwrap(), pattern(1, 0x1000));
    assert_eq!(read(&*snapshot.memory, 0x1000, 0x1000).unwrap(), pattern(2, 0x1000));
}

#[test]
fn blocks_of_zeros_that_were_left_out_are_zeros_and_other_gaps_are_not() {
    let block = noise(1, 16 * MIB);
    let bytes =
        write_avml(&[(0, block.clone()), (48 << 20, block.clone()), (80 << 20, vec![7; 4096]), (96 << 20, vec![8])]);
    let (_dir, path) = file(&bytes);
    let snapshot = open(&path, &OpenOptions::default()).unwrap();
    let memory = &*snapshot.memory;
    // After whole blocks, and whole blocks long.
    assert_eq!(read(memory, 16 << 20, 32 * MIB).unwrap(), vec![0; 32 * MIB]);
    assert_eq!(read(memory, (64 << 20) + 5, 3).unwrap(), [0; 3]);
    assert_eq!(read(memory, (48 << 20) - 1, 2).unwrap(), [0, block[0]]);
    let populated =
        "0x0-0xffffff@0x0,0x3000000-0x3ffffff@0x3000000,0x5000000-0x5000fff@0x5000000,0x6000000-0x6000000@0x5001000";
    assert_eq!(memory.populated_runs().to_string(), populated);
    // After a part of one.
    assert!(read(memory, 81 << 20, 1).unwrap_err().is_not_in_image());
    assert_eq!(
        snapshot.notes,
        [
            "0x3000000 bytes between blocks are read as zeros: AVML leaves out blocks of 0x1000000 bytes that hold nothing else"
        ]
    );
}

#[test]
fn damaged_chunk_fails_what_it_holds_and_nothing_else() {
    let bytes = write_avml(&[(0, noise(1, 0x3_0000)), (0x10_0000, pattern(2, 0x1000))]);
    // In the data of the second chunk of the first range: behind header, identifier, and a chunk of noise, which is kept as it is.
    let bytes = patched(bytes, 32 + 10 + 8 + 0x1_0000 + 100, &[0, 1, 2, 3]);
    let (_dir, path) = file(&bytes);
    let memory = open(&path, &OpenOptions::default()).unwrap().memory;
    let error = read(&*memory, 0x1_0000, 1).unwrap_err();
    assert!(matches!(error.reason(), Some(Reason::Damaged { .. })), "{error}");
    assert_eq!(read(&*memory, 0, 0x1_0000).unwrap(), noise(1, 0x3_0000)[..0x1_0000]);
    assert_eq!(read(&*memory, 0x2_0000, 0x1_0000).unwrap(), noise(1, 0x3_0000)[0x2_0000..]);
    assert_eq!(read(&*memory, 0x10_0000, 0x1000).unwrap(), pattern(2, 0x1000));
    // A read over all of it names the first byte that is missing, and has the others.
    let mut buf = vec![0; 0x3_0000];
    let mut ops = [memflow_core::memory::PhysRead::new(memflow_core::PhysAddr::new(0), &mut buf)];
    memory.read_batch(&mut ops).unwrap_err();
    let reason = Reason::Damaged { phys: memflow_core::PhysAddr::new(0x1_0000) };
    assert_eq!(ops[0].outcome, memflow_core::memory::Outcome::Failed { offset: 0x1_0000, reason });
}

#[test]
fn every_refusal_says_what_and_where() {
    let default = OpenOptions::default();
    let whole = write_avml(&[(0x1000, pattern(1, 0x100)), (0x4000, pattern(2, 0x100))]);
    let of = |at: usize, with: &[u8]| error_of(&patched(whole.clone(), at, with), &default);
    let second = whole.len() / 2;
    assert_eq!(
        of(second, b"what"),
        "image: AVML: at offset 0x13a: expected the magic 0x4c4d5641 and version 2, found 0x74616877 and 2"
    );
    assert_eq!(
        of(second + 8, &[0xff; 8]),
        "image: AVML: at offset 0x142: expected a range whose last address is not below its first, found 0xffffffffffffffff to 0x40ff"
    );
    assert_eq!(
        of(second + 8, &[0x1080u64.to_le_bytes(), 0x117fu64.to_le_bytes()].concat()),
        "image: AVML: at offset 0x0: expected each physical address once, found \
         runs 0x1000-0x10ff and 0x1080-0x117f overlap"
    );
    assert_eq!(
        of(whole.len() - 8, &[0xff; 8]),
        "image: AVML: at offset 0x26c: expected the length of the stream before it, at most 0x26c, found 0xffffffffffffffff; the file \
         looks truncated, copy it again or open it as a partial image"
    );
    let claims = [avml_header(0, (1 << 40) - 1), snappy(b"a"), 19u64.to_le_bytes().to_vec()].concat();
    assert_eq!(
        error_of(&claims, &default),
        "image: AVML: at offset 0x20: expected a stream that unpacks to 0x10000000000 bytes, found one of 0x13 bytes, which can hold \
         0x195 at most"
    );
}

#[test]
fn ranges_before_the_cut_are_there_in_a_partial_image() {
    let whole = sample_avml();
    let partial = OpenOptions { partial: true, ..OpenOptions::default() };
    let third = whole.len() - avml_part(&[3]).len();
    let (_dir, path) = file(&whole[..third - 20]);
    assert!(open(&path, &OpenOptions::default()).is_err());
    let snapshot = open(&path, &partial).unwrap();
    assert_eq!(read(&*snapshot.memory, 0x1000, 0x2000).unwrap(), pattern(1, 0x2000));
    assert!(read(&*snapshot.memory, 0x10_0000, 1).unwrap_err().is_not_in_image());
    assert!(snapshot.notes[0].starts_with("memory after the first 0x"), "{:?}", snapshot.notes);
}

/// A range of one byte.
fn avml_part(byte: &[u8]) -> Vec<u8> {
    write_avml(&[(0x20_0000, byte.to_vec())])
}

#[test]
fn opening_reads_nothing_of_the_memory_itself() {
    // The stream of the second range is nonsense from end to end; its length is right.
    let nonsense = vec![0xee; 0x1000];
    let mut bytes = write_avml(&[(0, pattern(1, 0x1000))]);
    bytes.extend(avml_header(0x10_0000, 0x10_0fff));
    bytes.extend(&nonsense);
    bytes.extend((nonsense.len() as u64).to_le_bytes());
    let (_dir, path) = file(&bytes);
    let memory = open(&path, &OpenOptions::default()).unwrap().memory;
    assert_eq!(read(&*memory, 0, 0x1000).unwrap(), pattern(1, 0x1000));
    let error = read(&*memory, 0x10_0000, 1).unwrap_err();
    assert!(matches!(error.reason(), Some(Reason::Damaged { .. })), "{error}");
}

#[test]
fn many_threads_read_the_same_bytes() {
    let (_dir, path) = file(&sample_avml());
    let memory = open(&path, &OpenOptions { unpacked_cache: Some(0x2_0000), ..OpenOptions::default() }).unwrap().memory;
    let expected = noise(2, 0x3_1000);
    std::thread::scope(|scope| {
        for thread in 0..4usize {
            let (memory, expected) = (&memory, &expected);
            scope.spawn(move || {
                for round in 0..200usize {
                    let at = (round * 7919 + thread * 104_729) % 0x3_0000;
                    assert_eq!(read(&**memory, 0x10_0000 + at as u64, 0x1000).unwrap(), expected[at..at + 0x1000]);
                }
            });
        }
    });
}

#[test]
fn index_is_a_plain_function_of_bytes() {
    let (_dir, path) = file(&sample_avml());
    let input = Arc::new(FileInput::open(&path, false).unwrap());
    let image = avml::parse(input, ParseOptions::default()).unwrap();
    assert_eq!(image.image.runs.total_bytes(), 0x2000 + 0x3_1000 + 1);
}
