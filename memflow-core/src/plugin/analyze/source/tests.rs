//! Files and buffers as sources of bytes.
#![allow(clippy::arithmetic_side_effects, clippy::as_conversions, clippy::unwrap_used, reason = "tests")]

use std::{fs, io::Write};

use proptest::prelude::*;

use super::*;

fn file_of(bytes: &[u8]) -> fs::File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file
}

proptest! {
    #[test]
    fn file_reads_as_its_bytes(reads in prop::collection::vec((0u64..20_000, 0usize..9000), 0..40)) {
        let bytes: Vec<u8> = (0..17_000u32).map(|index| (index * 7 + index / 256) as u8).collect();
        let file = file_of(&bytes);
        let source = FileSource::new(&file).unwrap();
        prop_assert_eq!(source.size(), 17_000);
        for (offset, len) in reads {
            let (mut one, mut other) = (vec![0; len], vec![0; len]);
            let results = [source.read(offset, &mut one).is_ok(), (&bytes[..]).read(offset, &mut other).is_ok()];
            // Nothing is nowhere past the end.
            if len != 0 {
                prop_assert_eq!(results[0], results[1], "{} at {}", len, offset);
            }
            if results[0] && results[1] {
                prop_assert_eq!(one, other);
            }
        }
    }
}

#[test]
fn file_that_shrinks_is_an_error_and_one_that_grows_stays_as_large_as_it_was() {
    let file = file_of(&[7; 3 * 4096]);
    let source = FileSource::new(&file).unwrap();
    let mut bytes = [0; 16];
    source.read(0, &mut bytes).unwrap();
    file.set_len(100).unwrap();
    assert_eq!(source.read(8192, &mut bytes).unwrap_err(), "the file was cut short meanwhile");
    // What was read before is known still.
    source.read(4000, &mut bytes).unwrap();
    let mut large = vec![0; 5000];
    assert_eq!(source.read(4096, &mut large).unwrap_err(), "the file was cut short meanwhile");
    file.set_len(1 << 20).unwrap();
    assert_eq!(source.size(), 3 * 4096);
    assert!(source.read(3 * 4096, &mut bytes).is_err());
}

#[test]
fn blocks_that_are_kept_are_bounded_and_those_that_share_a_place_are_told_apart() {
    let mut file = tempfile::tempfile().unwrap();
    file.set_len(64 << 20).unwrap();
    file.write_all(b"first").unwrap();
    let source = FileSource::new(&file).unwrap();
    for _ in 0..2 {
        for block in [0, MAX_BLOCKS, 1, 2 * MAX_BLOCKS + 1] {
            let mut bytes = [1; 5];
            source.read(block * BLOCK, &mut bytes).unwrap();
            assert_eq!(&bytes, if block == 0 { b"first" } else { &[0; 5] });
        }
    }
    for block in 0..10_000 {
        source.read(block * BLOCK, &mut [0]).unwrap();
    }
    assert_eq!(source.blocks.borrow().len() as u64, MAX_BLOCKS);
}
