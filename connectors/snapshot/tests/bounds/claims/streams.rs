//! gzip, zstd, LZ4 and xz: what headers, tables and blocks of them claim, and what unpacks without end.
//!
//! Owns: one file for each lie, by hand. Must not know: how a compression is read.

use std::io::Write;

use memflow_core::{
    PhysAddr,
    memory::{PhysicalMemoryExt, RunMap},
};
use memflow_snapshot::{MemoryLayout, OpenOptions, open_bytes};

use super::check::LEN;
use crate::{
    common::{
        crash_dump::put,
        noise,
        packed::{bgzf, lz4, lz4_legacy, xz, zstd_seekable},
        zstd_raw,
    },
    measure::{Cost, MEMORY, bounded_with, measured},
    subjects::WINDOW,
};

/// Most bytes that a stream may unpack to here.
const ALLOWED: u64 = 16 << 20;

/// What is unpacked is taken as it is; whoever opens it wants a byte.
fn options(partial: bool) -> OpenOptions<'static> {
    OpenOptions {
        max_unpacked: Some(ALLOWED),
        unpacked_cache: Some(1 << 20),
        layout: MemoryLayout::Runs(RunMap::flat(1)),
        partial,
        ..OpenOptions::default()
    }
}

/// Two pages of noise in gzip with one byte of `at` on changed, and so on.
#[test]
fn lengths_that_headers_and_tables_claim() {
    let image = noise(1, 0x2000);
    let at_end = |bytes: &[u8], back: usize, with: &[u8]| {
        let mut bytes = bytes.to_vec();
        let at = bytes.len() - back;
        put(&mut bytes, at, with);
        bytes
    };
    let member = bgzf(&image, 0x1000);
    // The last member is empty, and its length is 28 bytes.
    let of_member = |len: u32| at_end(&member, 28 + 4, &len.to_le_bytes());
    let table = zstd_seekable(&image, 0x1000, false);
    // Footer 9, entries of 12 bytes: packed length, length, checksum.
    let of_table = |back: usize, value: u32| at_end(&table, back, &value.to_le_bytes());
    // Behind magic number and descriptor: the content of a frame in 4 bytes, or in 8.
    let of_frame = |len: u64| {
        let mut bytes = zstd_raw(&image);
        bytes[4] = 0xe0;
        bytes.splice(5..9, len.to_le_bytes());
        [bytes.clone(), bytes].concat()
    };
    let frame = lz4(&image, false);
    let of_block = |len: u32| {
        let mut bytes = frame.clone();
        put(&mut bytes, 15, &len.to_le_bytes());
        bytes
    };
    let legacy = |len: u32| {
        let mut bytes = lz4_legacy(&[&image]);
        put(&mut bytes, 4, &len.to_le_bytes());
        bytes
    };
    let list = xz(&image, Some(0x1000));
    let cases = [
        ("gzip, a member of 4 GiB", of_member(u32::MAX)),
        ("gzip, a member of 64 MiB", of_member(64 << 20)),
        ("gzip, a member of a byte", of_member(1)),
        ("zstd, a table of 2^32 frames", of_table(9, u32::MAX)),
        ("zstd, a frame of 4 GiB in the table", of_table(9 + 8, u32::MAX)),
        ("zstd, a frame of 64 MiB in the table", of_table(9 + 8, 64 << 20)),
        ("zstd, a frame that takes 4 GiB of the file", of_table(9 + 12, u32::MAX)),
        ("zstd, frames of 2^63 bytes", of_frame(1 << 63)),
        ("zstd, frames of 64 MiB", of_frame(64 << 20)),
        ("zstd, frames of 2^64 - 1 bytes", of_frame(u64::MAX)),
        ("LZ4, a block of 2 GiB", of_block(u32::MAX)),
        ("LZ4, a block of 64 KiB", of_block(0x1_0000)),
        ("LZ4, an older block of 4 GiB", legacy(u32::MAX)),
        ("LZ4, an older block of 8 MiB", legacy(8 << 20)),
        ("xz, a list of 4 GiB", at_end(&list, 8, &u32::MAX.to_le_bytes())),
        ("xz, a list of no bytes", at_end(&list, 8, &[0; 4])),
    ];
    for (name, bytes) in cases {
        for partial in [false, true] {
            // What comes out is what was put in, or nothing.
            let opened = bounded_with(WINDOW, || name.to_owned(), || open_bytes("claims", &bytes, &options(partial)));
            let Ok(snapshot) = opened else { continue };
            let mut byte = [0];
            let read = bounded_with(
                WINDOW,
                || format!("{name}, read"),
                || snapshot.memory.read_into(PhysAddr::new(0), &mut byte),
            );
            assert!(read.is_err() || byte[0] == image[0], "{name}: {byte:x?}");
        }
    }
}

/// As many zeros as fit into a file of 1 MB, and nothing behind them.
fn zeros(of: impl Fn(&[u8]) -> Vec<u8>, len: usize) -> Vec<u8> {
    let bytes = of(&vec![0; len]);
    assert!(bytes.len() <= LEN && bytes.len() * 100 < len, "{} bytes", bytes.len());
    bytes
}

/// Blocks of zstd that stand for 128 KiB of one byte in four bytes each, in a frame with a window of 128 KiB: 32 GiB in 1 MB.
fn run_lengths(byte: u8) -> Vec<u8> {
    let mut bytes = vec![0x28, 0xb5, 0x2f, 0xfd, 0, 0x38];
    for index in (0..(LEN - 6) / 4).rev() {
        let header = u32::from(index == 0) | 1 << 1 | (128 << 10) << 3;
        bytes.extend(&header.to_le_bytes()[..3]);
        bytes.push(byte);
    }
    bytes
}

/// The same in frames of 32 MiB, which is a block each in a file that is read at random.
fn frames(byte: u8) -> Vec<u8> {
    let frame = |blocks: usize| {
        let mut bytes = vec![0x28, 0xb5, 0x2f, 0xfd, 0, 0x38];
        for index in (0..blocks).rev() {
            let header = u32::from(index == 0) | 1 << 1 | (128 << 10) << 3;
            bytes.extend(&header.to_le_bytes()[..3]);
            bytes.push(byte);
        }
        bytes
    };
    frame(256).repeat(1000)
}

#[test]
fn streams_that_unpack_without_end_end_at_the_limit() {
    let gzip = |bytes: &[u8]| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    };
    let streams = [
        ("gzip", zeros(gzip, 256 << 20)),
        ("gzip, members", zeros(|bytes| gzip(&bytes[..1 << 20]).repeat(256), 256 << 20)),
        ("zstd", zeros(|bytes| zstd::bulk::compress(bytes, 19).unwrap(), 256 << 20)),
        ("zstd, run lengths of zero", run_lengths(0)),
        ("zstd, run lengths", run_lengths(7)),
        ("zstd, frames of run lengths", frames(7)),
        ("LZ4, linked blocks", zeros(|bytes| lz4(bytes, true), 200 << 20)),
        ("xz", zeros(|bytes| xz(bytes, None), 256 << 20)),
    ];
    for (name, bytes) in streams {
        for partial in [false, true] {
            let (opened, cost) = measured(|| open_bytes(name, &bytes, &options(partial)).map(drop));
            let error = opened.unwrap_err().to_string();
            assert!(error.contains("unpacks to more than 0x1000000 bytes"), "{name}: {error}");
            assert!(cost.memory <= MEMORY, "{name}: {cost:?}");
        }
    }
}

/// What has no limit given is bounded by what it holds: pages of zeros take nothing, others what LZ4 makes of them.
#[test]
fn what_unpacks_to_zeros_takes_no_memory() {
    let len = 256u64 << 20;
    for (name, bytes) in [
        ("zstd", zeros(|bytes| zstd::bulk::compress(bytes, 19).unwrap(), len as usize)),
        ("xz", zeros(|bytes| xz(bytes, None), len as usize)),
    ] {
        let options = OpenOptions { max_unpacked: None, layout: MemoryLayout::Auto, ..options(false) };
        let (opened, Cost { memory, .. }) = measured(|| open_bytes(name, &bytes, &options).unwrap());
        assert_eq!(opened.memory.metadata().runs.total_bytes(), len, "{name}");
        assert!(memory <= MEMORY, "{name}: {memory:#x}");
    }
}

/// Pieces that tell their length are not unpacked when the file is opened, and one by one when they are read.
#[test]
fn pieces_that_unpack_to_much_are_unpacked_one_at_a_time() {
    let members = bgzf(&vec![0; 60 << 10], 60 << 10).repeat(4000);
    let blocks = lz4(&vec![0; 200 << 20], false);
    let list = xz(&vec![0; 256 << 20], Some(32 << 20));
    let frames = zstd::bulk::compress(&vec![7; 32 << 20], 1).unwrap().repeat(300);
    for (name, bytes) in [("gzip", members), ("LZ4", blocks), ("xz", list), ("zstd", frames)] {
        assert!(bytes.len() <= LEN, "{name}: {}", bytes.len());
        let (opened, cost) = measured(|| open_bytes(name, &bytes, &options(false)).unwrap());
        assert!(cost.memory <= MEMORY, "{name}: {cost:?}");
        let (read, cost) = measured(|| opened.memory.read_into(PhysAddr::new(0), &mut [0]));
        read.unwrap();
        assert!(cost.memory <= MEMORY + WINDOW, "{name}, read: {cost:?}");
    }
}
