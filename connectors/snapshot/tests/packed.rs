//! Compressed images: what comes out, how much may, and what is wrong with damaged ones.

mod common;

use std::{cell::Cell, ops::ControlFlow};

use common::{
    error_of, file, gzip_stored, noise, open_error,
    packed::{bgzf, gzip, lz4, lz4_legacy, xz, zstd_frames, zstd_seekable},
    patched, pattern, read, sample_elf64, sample_lime, zstd_raw, zstd_skippable,
};
use memflow_core::{Error, error::Reason, memory::Liveness};
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
    assert!(error_of(&patched(packed, 10, &[7]), &default).contains("expected valid deflate data, found damaged data"));
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

/// Noise, text and zeros, some of each in every 64 KiB.
fn mixed(len: usize) -> Vec<u8> {
    let noise = common::noise(9, 1 << 16);
    let text = b"as compressible as text ";
    (0..len)
        .map(|at| match at >> 13 & 7 {
            0 | 1 => noise[(at * 7 + (at >> 16)) & 0xffff],
            2 | 3 => text[at % text.len()],
            _ => 0,
        })
        .collect()
}

/// `image` in every way that is read at random, with the name of its compression.
fn packings(image: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let (first, second) = image.split_at(image.len() / 2);
    vec![
        ("gzip", gzip(image)),
        ("gzip", [gzip(first), gzip(second)].concat()),
        ("gzip", bgzf(image, 60_000)),
        ("zstd", zstd(image)),
        ("zstd", zstd_frames(image, 100_000)),
        // Frames that do not say how long they are, and one that does.
        ("zstd", image.chunks(200_000).flat_map(zstd).collect()),
        ("zstd", [zstd(first), zstd_frames(second, 70_000)].concat()),
        ("zstd", zstd_seekable(image, 100_000, false)),
        ("zstd", zstd_seekable(image, 100_000, true)),
        (
            "zstd",
            [zstd_frames(first, 50_000), zstd_skippable(b"between"), zstd_frames(second, 70_000), vec![0; 99]].concat(),
        ),
        ("lz4", lz4(image, false)),
        ("lz4", lz4(image, true)),
        ("lz4", lz4_legacy(&[first, second])),
        ("lz4", [lz4(first, false), lz4_legacy(&[second])].concat()),
        ("xz", xz(image, None)),
        ("xz", xz(image, Some(100_000))),
        ("xz", [xz(first, Some(100_000)), vec![0; 8], xz(second, None)].concat()),
    ]
}

#[test]
fn every_packing_reads_the_same_at_random_from_many_threads() {
    let image = mixed(3 << 20);
    for (at, (name, packed)) in packings(&image).into_iter().enumerate() {
        let (_dir, path) = file(&packed);
        // No room to keep anything whole, and little for what was unpacked last.
        for cache in [0, 300_000] {
            let options = OpenOptions { unpacked_cache: Some(cache), ..OpenOptions::default() };
            let snapshot = open(&path, &options).unwrap();
            assert_eq!((snapshot.format.to_string(), snapshot.notes.len()), (format!("raw, {name}-compressed"), 0));
            let memory = &*snapshot.memory;
            assert!(memory.direct_map().is_none(), "{name} {at}");
            assert_eq!(memory.metadata().liveness, Liveness::Frozen);
            std::thread::scope(|scope| {
                for thread in 0..4usize {
                    let image = &image;
                    scope.spawn(move || {
                        for round in 0..25usize {
                            let start = (thread * 700_001 + round * 1_234_567) % (image.len() - 5000);
                            let found = read(memory, start as u64, 5000).unwrap();
                            assert!(found == image[start..start + 5000], "{name} {at}: {start:#x}");
                        }
                    });
                }
            });
            assert!(read(memory, image.len() as u64 - 1, 2).is_err());
        }
        // What fits is kept whole, unless it came in pieces.
        let whole = open(&path, &OpenOptions::default()).unwrap();
        assert!(read(&*whole.memory, 0, image.len()).unwrap() == image, "{name} {at}");
    }
}

#[test]
fn blocks_of_zeros_that_were_compressed_anew_are_known() {
    let image = [noise(1, 0x2_0000), vec![0; 0x10_0000], noise(2, 0x1_0000), vec![0; 0x1_0000]].concat();
    let lime = common::lime(&[(0x10_0000, image.clone())]);
    for (name, packed) in packings(&image).into_iter().chain([("lime", zstd(&lime))]) {
        let options = OpenOptions { unpacked_cache: Some(0), ..OpenOptions::default() };
        let memory = open_bytes("zeros", &packed, &options).unwrap().memory;
        let (runs, populated) = (memory.metadata().runs, memory.populated_runs());
        // The header of 32 bytes moves what is behind it.
        assert!(
            name != "lime" || populated.to_string() == "0x100000-0x12ffdf@0x20,0x21ffe0-0x23ffdf@0x120000",
            "{populated}"
        );
        // What is said to be zeros is.
        let mut known = vec![0; image.len()];
        let start = runs.runs()[0].range.start().as_u64();
        for run in populated.runs() {
            let (at, len) = (run.range.start().as_u64(), run.range.len() as usize);
            let from = (at - start) as usize;
            known[from..from + len].copy_from_slice(&read(&*memory, at, len).unwrap());
        }
        assert!(known == image, "{name}: {populated}");
    }
    let memory = |packed: &[u8]| {
        let options = OpenOptions { unpacked_cache: Some(0), ..OpenOptions::default() };
        open_bytes("zeros", packed, &options).unwrap().memory.populated_runs().to_string()
    };
    assert_eq!(memory(&zstd(&image)), "0x0-0x1ffff@0x0,0x120000-0x12ffff@0x120000");
}

#[test]
fn containers_that_compress_themselves_open_inside_of_every_packing() {
    let pages =
        (0..64u64).map(|pfn| (pfn * 3, Some(mixed(4096 * 40)[pfn as usize * 2000..][..4096].to_vec()))).collect();
    let kdump = common::kdump::Kdump { pages, ..Default::default() };
    let avml = common::avml(&[(0x1000, mixed(300_000)), (0x20_0000, vec![7; 0x800])]);
    for (container, image) in [(Container::Kdump, kdump.write()), (Container::Avml, avml)] {
        let plain = open_bytes("plain", &image, &OpenOptions::default()).unwrap();
        for (name, packed) in packings(&image) {
            for cache in [None, Some(0)] {
                let options = OpenOptions { unpacked_cache: cache, ..OpenOptions::default() };
                let snapshot = open_bytes("packed", &packed, &options).unwrap();
                assert_eq!(snapshot.format.to_string(), format!("{container}, {name}-compressed"));
                assert_eq!(snapshot.memory.facts(), plain.memory.facts());
                for run in plain.memory.metadata().runs.runs() {
                    let (start, len) = (run.range.start().as_u64(), run.range.len() as usize);
                    assert!(read(&*snapshot.memory, start, len).unwrap() == read(&*plain.memory, start, len).unwrap());
                }
            }
        }
    }
}

#[test]
fn damage_in_a_piece_fails_the_reads_that_touch_it_and_no_other() {
    let image = mixed(1 << 20);
    let packings = [
        bgzf(&image, 60_000),
        zstd_frames(&image, 100_000),
        zstd_seekable(&image, 100_000, false),
        xz(&image, Some(100_000)),
    ];
    for (at, packed) in packings.into_iter().enumerate() {
        // Inside of the noise at the front of a piece near the middle: whatever the compression, that is data.
        let middle = packed.len() / 2;
        let damaged = patched(packed.clone(), middle, &[packed[middle] ^ 0x55, packed[middle + 1] ^ 0xaa]);
        let snapshot = open_bytes("damaged", &damaged, &OpenOptions::default()).unwrap();
        let mut failed = 0;
        for start in (0..image.len()).step_by(4096) {
            match read(&*snapshot.memory, start as u64, 4096) {
                Ok(found) => assert!(found == image[start..start + 4096], "{at}: {start:#x}"),
                Err(error) => {
                    assert!(matches!(error.reason(), Some(Reason::Damaged { .. })), "{error}");
                    failed += 1;
                }
            }
        }
        assert!((1..=52).contains(&failed), "{at}: {failed} pages");
    }
    // How long a block of LZ4 is, only its bytes tell: behind a damaged one nothing has a place any more.
    let packed = lz4(&image, false);
    let middle = packed.len() / 2;
    let damaged = patched(packed.clone(), middle, &[packed[middle] ^ 0x55]);
    let error = error_of(&damaged, &OpenOptions::default());
    assert!(error.contains("expected an lz4 block, found checksum 0x"), "{error}");
    let snapshot = open_bytes("damaged", &damaged, &partial()).unwrap();
    assert!(snapshot.notes[0].starts_with("only the first 0x"), "{:?}", snapshot.notes);
    assert!(read(&*snapshot.memory, 0, 0x4_0000).unwrap() == image[..0x4_0000]);
}

#[test]
fn table_of_frames_that_is_wrong_is_not_used() {
    let image = mixed(0x7a000);
    let whole = zstd_seekable(&image, 100_000, false);
    let table = whole.len() - 9 - 5 * 12;
    // Lengths that do not add up, and lengths that do and lead nowhere.
    let (first, second) = (whole[table], whole[table + 12]);
    for (at, with) in [
        (table, vec![first ^ 1]),
        (table + 4, vec![1]),
        (table + 4, vec![0xff; 4]),
        (whole.len() - 9, vec![4]),
        (whole.len() - 9, vec![0xff; 4]),
    ] {
        let snapshot = open_bytes("table", &patched(whole.clone(), at, &with), &OpenOptions::default()).unwrap();
        assert!(read(&*snapshot.memory, 0, image.len()).unwrap() == image);
    }
    let shifted = patched(patched(whole, table, &[first.wrapping_add(1)]), table + 12, &[second.wrapping_sub(1)]);
    let snapshot = open_bytes("table", &shifted, &OpenOptions::default()).unwrap();
    assert!(read(&*snapshot.memory, 0, 4096).unwrap() == image[..4096]);
}

#[test]
fn lz4_blocks_may_be_shorter_than_their_frame_allows() {
    let image = mixed(0x5_0000);
    let mut packed = 0x184d_2204u32.to_le_bytes().to_vec();
    // Version 1, independent blocks of 64 KiB at most, and the checksum of these two bytes.
    packed.extend([0x60, 0x40, 0x82]);
    for (part, plain) in [(&image[..100], false), (&image[100..0x8000], true), (&image[0x8000..0x1_0000], false)] {
        let block = if plain { part.to_vec() } else { lz4_flex::block::compress(part) };
        packed.extend((block.len() as u32 | u32::from(plain) << 31).to_le_bytes());
        packed.extend(block);
    }
    packed.extend([0; 4]);
    let snapshot = open_bytes("short", &packed, &OpenOptions::default()).unwrap();
    assert!(read(&*snapshot.memory, 0, 0x1_0000).unwrap() == image[..0x1_0000]);
}

#[test]
fn claims_without_bytes_are_refused_at_once() {
    // A frame of zstd that claims 2^63 bytes in one segment.
    let frame = [&b"\x28\xb5\x2f\xfd\xe0"[..], &(1u64 << 63).to_le_bytes(), &[1, 0, 0]].concat();
    // Frames of run-length blocks: 128 KiB from three bytes, a million pages from 1.6 MB. They open, and hold no memory.
    let run = [&b"\x28\xb5\x2f\xfd\xa0"[..], &0x1_0000u32.to_le_bytes(), &[3, 0, 8, 0]].concat();
    let started = std::time::Instant::now();
    for bytes in [frame.clone(), frame.repeat(1000)] {
        assert!(open_bytes("claims", &bytes, &OpenOptions::default()).is_err());
    }
    let snapshot = open_bytes(
        "runs",
        &run.repeat(100_000),
        &OpenOptions { layout: "flat".parse().unwrap(), ..OpenOptions::default() },
    )
    .unwrap();
    assert_eq!(snapshot.memory.metadata().runs.total_bytes(), 100_000 << 16);
    assert_eq!(read(&*snapshot.memory, 0xffff, 2).unwrap(), [0, 0]);
    assert!(started.elapsed() < std::time::Duration::from_secs(20), "took {:?}", started.elapsed());
}

#[test]
fn hole_behind_the_first_bytes_ends_in_an_error_soon() {
    let (_dir, path) = file(b"\xfd7zXZ\0");
    let hole = std::fs::File::options().write(true).open(&path).unwrap();
    hole.set_len(1 << 30).unwrap();
    let started = std::time::Instant::now();
    assert!(open_error(&path, &OpenOptions::default()).contains("with 1 MiB of padding at most"));
    std::fs::write(&path, xz(&pattern(1, 0x2000), Some(0x1000))).unwrap();
    let end = std::fs::metadata(&path).unwrap().len();
    for (padding, good) in [(4, true), (400, true), (0xf_fff0, true), (2, false), (0x10_0000, false)] {
        hole.set_len(end).unwrap();
        hole.set_len(end + padding).unwrap();
        assert_eq!(open(&path, &OpenOptions::default()).is_ok(), good, "{padding:#x}");
    }
    assert!(started.elapsed() < std::time::Duration::from_secs(20), "took {:?}", started.elapsed());
}

#[test]
fn cut_file_of_frames_has_its_first_bytes_in_their_places() {
    let image = mixed(0x10_0000);
    let silent: Vec<u8> = image[..0x4_0000].chunks(0x8000).flat_map(zstd).collect();
    let mixture =
        [zstd_frames(&image[..0x2_0000], 0x8000), silent.clone(), zstd_frames(&image[0x2_0000..], 0x8000)].concat();
    let expected = [&image[..0x2_0000], &image[..0x4_0000], &image[0x2_0000..]].concat();
    for (packed, expected) in [
        (zstd_frames(&image, 0x8000), &image),
        (mixture, &expected),
        (bgzf(&image, 0x8000), &image),
        (lz4(&image, false), &image),
        (gzip(&image), &image),
        (xz(&image, Some(0x8000)), &image),
    ] {
        // Not at the end of a piece, where nothing would be missing.
        for len in [packed.len() / 3 - 7, packed.len() / 2 - 7, packed.len() - 3] {
            for cache in [None, Some(0)] {
                assert!(open_bytes("cut", &packed[..len], &OpenOptions::default()).is_err());
                let options = OpenOptions { unpacked_cache: cache, ..partial() };
                let snapshot = open_bytes("cut", &packed[..len], &options).unwrap();
                assert!(snapshot.notes[0].starts_with("only the first 0x"), "{:?}", snapshot.notes);
                let there = snapshot.memory.metadata().runs.total_bytes() as usize;
                assert!(
                    there > 0x1000 && read(&*snapshot.memory, 0, there).unwrap() == expected[..there],
                    "{there:#x}"
                );
            }
        }
    }
}
