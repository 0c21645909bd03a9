//! Compressed images: what comes out, how much may, and what is wrong with damaged ones.

mod common;

use std::{cell::Cell, ops::ControlFlow};

use common::{
    error_of, file, gzip_stored, open_error,
    packed::{bgzf, gzip, lz4, lz4_legacy, xz, zstd_frames, zstd_seekable},
    patched, pattern, read, sample_elf64, sample_lime, zstd_raw, zstd_skippable,
};
use memflow_core::{Error, memory::Liveness};
use memflow_snapshot::{Compression, Container, OpenOptions, Progress, open, open_bytes};


fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 3).unwrap()
}

fn partial() -> OpenOptions<'static> {
    OpenOptions { partial: true, ..OpenOptions::default() }
}

#[test]
fn every_container_opens_from_every_compression() {
    let raw = pattern(5, 0x4_2000);
    let images = [
        (Container::ElfCore, sample_elf64(), 0x10_0000, pattern(7, 0x1000)),
        (Container::Lime, sample_lime(), 0x10_0000, pattern(2, 0x1000)),
        (Container::Raw, raw.clone(), 0, raw),
    ];
    for (container, image, addr, expected) in images {
        for (compression, name, packed) in [
            (Compression::Gzip, "gzip", gzip(&image)),
            (Compression::Gzip, "gzip", gzip_stored(&image)),
            (Compression::Zstd, "zstd", zstd(&image)),
            (Compression::Zstd, "zstd", zstd_raw(&image)),
        ] {
            let (_dir, path) = file(&packed);
            let snapshot = open(&path, &OpenOptions::default()).unwrap();
            assert_eq!((snapshot.format.container, snapshot.format.compression), (container, Some(compression)));
            assert_eq!(snapshot.format.to_string(), format!("{container}, {name}-compressed"));
            assert_eq!(snapshot.notes, [""; 0]);
            assert_eq!(snapshot.memory.metadata().liveness, Liveness::Frozen);
            assert!(snapshot.memory.direct_map().is_some());
            assert!(read(&*snapshot.memory, addr, expected.len()).unwrap() == expected, "{container} {name}");
            let embedded = open_bytes("embedded", &packed, &OpenOptions::default()).unwrap();
            assert_eq!(embedded.memory.metadata().runs, snapshot.memory.metadata().runs);
            assert_eq!(embedded.memory.facts(), snapshot.memory.facts());
        }
        let embedded = open_bytes("embedded", &image, &OpenOptions::default()).unwrap();
        assert_eq!(read(&*embedded.memory, addr, expected.len()).unwrap(), expected);
    }
}

#[test]
fn members_and_frames_follow_each_other() {
    let image = pattern(5, 0x3000);
    let (first, second) = image.split_at(0x1234);
    let mut named = gzip(second);
    // FEXTRA, FNAME, FCOMMENT and FHCRC in the second member's header.
    named[3] = 0b11110;
    named.splice(10..10, [b"\x03\0abc", &b"name\0"[..], b"comment\0", b"\xab\xcd"].concat());
    let empty = gzip_stored(&[]);
    for packed in [
        [gzip(first), empty.clone(), named, empty, vec![0; 5000]].concat(),
        [zstd_skippable(b"table"), zstd(first), zstd_skippable(&[]), zstd_raw(&[]), zstd(second), vec![0; 5000]]
            .concat(),
    ] {
        let (_dir, path) = file(&packed);
        let snapshot = open(&path, &OpenOptions::default()).unwrap();
        assert_eq!(read(&*snapshot.memory, 0, image.len()).unwrap(), image);
    }
}

#[test]
fn what_follows_the_stream_is_an_error_or_a_note() {
    let image = pattern(5, 0x1000);
    for (packed, name, what) in [(gzip(&image), "gzip", "gzip member"), (zstd(&image), "zstd", "zstd frame")] {
        for tail in [&b"x"[..], b"\0\0\0\0\0\0\0\x01", b"garbage that goes on", b"\x1f\x8b"] {
            let bytes = [packed.clone(), tail.to_vec()].concat();
            let zeros = tail.iter().take_while(|byte| **byte == 0).count();
            let at = packed.len() + zeros;
            let text = error_of(&bytes, &OpenOptions::default());
            assert_eq!(
                text,
                format!("image: {name}: at offset {at:#x}: expected another {what} or the end, found something else")
            );
            let (_dir, path) = file(&bytes);
            let snapshot = open(&path, &partial()).unwrap();
            assert!(
                snapshot.notes[0].starts_with("only the first 0x1000 bytes could be unpacked"),
                "{:?}",
                snapshot.notes
            );
            assert_eq!(read(&*snapshot.memory, 0, 0x1000).unwrap(), image);
        }
    }
}

#[test]
fn damage_is_found_where_it_is() {
    let image = pattern(5, 0x3000);
    let default = OpenOptions::default();
    let packed = gzip_stored(&image);
    let sum = packed.len() - 8;
    assert!(
        error_of(&patched(packed.clone(), 20, &[0xff]), &default)
            .contains(&format!("at offset {sum:#x}: expected checksum 0x"))
    );
    let text = error_of(&patched(packed.clone(), sum + 4, &[1, 2, 3, 4]), &default);
    assert_eq!(
        text,
        format!(
            "image: gzip: at offset {:#x}: expected 0x4030201 bytes (modulo 4 GiB), found 0x3000 in the member",
            sum + 4
        )
    );
    assert_eq!(
        error_of(&patched(packed.clone(), 3, &[0x80]), &default),
        "image: gzip: at offset 0x3: expected no reserved flags, found 0x80"
    );
    assert!(
        error_of(&patched(packed, 10, &[7]), &default).contains("expected valid deflate data, found damaged data")
    );
    let text = error_of(&patched(zstd_raw(&image), 9, &[0xff, 0xff, 0xff]), &default);
    assert!(text.contains("expected a valid zstd frame, found damaged data ("), "{text}");
    // A window of 2 GiB in a frame header: not single segment, window descriptor 21 << 3.
    let text = error_of(b"\x28\xb5\x2f\xfd\x00\xa8\x01\x00\x00", &default);
    assert!(text.contains("found a frame with a window above 128 MiB; unpack it with `zstd -d --long=31`"), "{text}");
}

#[test]
fn errors_of_what_is_inside_say_that_it_is_inside() {
    let inside = patched(sample_elf64(), 5, &[9]);
    assert_eq!(
        error_of(&zstd(&inside), &OpenOptions::default()),
        "inside the zstd stream: image: ELF core: at offset 0x5: expected ELF data encoding 1 (little-endian), found 9"
    );
    assert_eq!(
        error_of(&gzip(b""), &OpenOptions::default()),
        "inside the gzip stream: image: is empty; was it copied completely?"
    );
    assert_eq!(
        error_of(&gzip(&zstd(&pattern(0, 0x1000))), &OpenOptions::default()),
        "inside the gzip stream: image: a zstd stream inside another is not supported: one compression is unpacked; unpack the outer one first"
    );
}

#[test]
fn cut_anywhere_it_is_an_error_or_partial_on_request() {
    let image = common::lime(&[(0x1000, pattern(1, 0x300)), (0x4000, pattern(2, 0x300))]);
    for whole in [gzip(&image), gzip_stored(&image), zstd(&image), zstd_raw(&image)] {
        for len in 1..whole.len() {
            let bytes = &whole[..len];
            assert!(open_bytes("cut", bytes, &OpenOptions::default()).is_err(), "{len} of {}", whole.len());
            if let Ok(snapshot) = open_bytes("cut", bytes, &partial()) {
                assert!(!snapshot.notes.is_empty(), "{len} of {}", whole.len());
            }
        }
    }
    let (_dir, path) = file(&gzip_stored(&image)[..0x400]);
    assert_eq!(
        open_error(&path, &OpenOptions::default()),
        format!(
            "{}: gzip: at offset 0x400: expected the rest of the deflate data, found the end of the file; it looks truncated, \
             copy it again",
            path.display()
        )
    );
    let snapshot = open(&path, &partial()).unwrap();
    assert_eq!(read(&*snapshot.memory, 0x1000, 0x300).unwrap(), pattern(1, 0x300));
    assert_eq!(snapshot.notes.len(), 2, "{:?}", snapshot.notes);
}

#[test]
fn limit_is_kept_and_says_the_way_out() {
    let image = vec![0u8; 1 << 20];
    for (packed, tool) in [(gzip(&image), "gzip -d"), (zstd(&image), "zstd -d")] {
        let with = |max| OpenOptions { max_unpacked: Some(max), ..OpenOptions::default() };
        assert_eq!(
            error_of(&packed, &with((1 << 20) - 1)),
            format!(
                "image: unpacks to more than 0xfffff bytes, as many as were allowed; unpack it to a file with `{tool}` and open \
                 that, or allow more"
            )
        );
        let (_dir, path) = file(&packed);
        open(&path, &with(1 << 20)).unwrap();
    }
}

#[test]
fn bomb_of_zeros_stops_at_the_limit_without_taking_memory() {
    // 64 GiB of zeros in some 6 MiB: a frame of 64 MiB, a thousand times.
    let frame = zstd(&vec![0u8; 64 << 20]);
    let bomb = frame.repeat(1000);
    let options = OpenOptions { max_unpacked: Some(1 << 30), ..OpenOptions::default() };
    let error = open_bytes("bomb", &bomb, &options).unwrap_err().to_string();
    assert!(error.starts_with("bomb: unpacks to more than 0x40000000 bytes"), "{error}");
}

#[test]
fn progress_is_told_and_can_cancel() {
    let packed = zstd(&vec![0u8; 64 << 20]);
    let seen = Cell::new(None::<Progress>);
    let on_progress = |progress: Progress| {
        seen.set(Some(progress));
        ControlFlow::Break(())
    };
    let options =
        OpenOptions { max_unpacked: Some(u64::MAX), on_progress: Some(&on_progress), ..OpenOptions::default() };
    // Reports come every tenth of a second, so a fast machine may be done before the first.
    match open_bytes("large", &packed.repeat(256), &options) {
        Err(Error::Cancelled) => {
            let progress = seen.get().unwrap();
            assert_eq!(progress.total, packed.len() as u64 * 256);
            assert!(progress.read <= progress.total && progress.unpacked > 0, "{progress:?}");
        }
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("16 GiB in less than a tenth of a second"),
    }
}

#[test]
fn compressed_files_are_not_written_to() {
    let options = OpenOptions { writable: true, ..OpenOptions::default() };
    assert_eq!(
        error_of(&gzip(&pattern(0, 0x1000)), &options),
        "image: is compressed, so it cannot be written to; open it read-only"
    );
}
