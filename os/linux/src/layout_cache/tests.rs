//! Entries read back whole, refused in every other state, and folders in every state.

use std::{collections::BTreeMap, fs};

use super::{
    Store,
    entry::{Entry, Part, TablePlace},
    material::Material,
};
use crate::{
    symbols::Encoding,
    types::{Answer, Field},
};

/// An entry with every kind of answer.
fn sample(build_id: u8) -> Entry {
    let field = |bits| Answer::Field(Some(Field { offset: 8, size: 4, bits }));
    Entry {
        build_id: vec![build_id; 20],
        material: Material { section: [0x5a; 32], table: [0xa5; 32] },
        image_len: 0x10_0000,
        section: Part { offset: 0x8000, len: 0x1000 },
        table: TablePlace {
            symbols: 77,
            encoding: Encoding::PlaceRelative,
            names: Part { offset: 0x1000, len: 0x2000 },
            texts: Part { offset: 0x3000, len: 0x100 },
            index: 0x4000,
            values: 0x5000,
            base: Some(0x6000),
        },
        symbols: BTreeMap::from([("init_task".to_owned(), Some(0x7000)), ("log_buf".to_owned(), None)]),
        types: BTreeMap::from([
            ("field\ta\tb".to_owned(), field(None)),
            ("field\ta\tc".to_owned(), field(Some((3, 5)))),
            ("field\ta\td".to_owned(), Answer::Field(None)),
            ("size\ta".to_owned(), Answer::Size(Some(64))),
            ("has\tz".to_owned(), Answer::Exists(false)),
            ("constant\te\tf".to_owned(), Answer::Constant(Some(-1))),
        ]),
    }
}

/// The bytes with the hash that they would have if somebody had made them so.
fn with_right_hash(mut bytes: Vec<u8>) -> Vec<u8> {
    let hash = blake3::hash(&bytes[40..]);
    bytes[8..40].copy_from_slice(hash.as_bytes());
    bytes
}

/// Deterministic pseudo-random numbers (xorshift64).
fn next(state: &mut u64) -> usize {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    (*state >> 16) as usize
}

#[test]
fn entry_is_read_back_as_it_was_written() {
    let entry = sample(1);
    let bytes = entry.to_bytes().unwrap();
    assert_eq!(Entry::parse(&bytes), Ok(entry));
    assert_eq!(with_right_hash(bytes.clone()), bytes);
}

#[test]
fn every_truncation_and_every_flipped_bit_is_refused() {
    let bytes = sample(1).to_bytes().unwrap();
    for len in 0..bytes.len() {
        assert!(Entry::parse(&bytes[..len]).is_err(), "{len}");
    }
    for bit in 0..bytes.len() * 8 {
        let mut damaged = bytes.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        assert!(Entry::parse(&damaged).is_err(), "{bit}");
    }
    let mut longer = bytes;
    longer.push(0);
    assert!(Entry::parse(&longer).is_err());
    assert_eq!(Entry::parse(&with_right_hash(longer)), Err("has more bytes than an entry"));
}

#[test]
fn forged_entries_with_a_right_hash_are_refused_or_stay_within_limits() {
    let bytes = sample(1).to_bytes().unwrap();
    let mut state = 0x9e37_79b9_7f4a_7c15;
    let mut read = 0;
    for _ in 0..20_000 {
        let mut forged = bytes.clone();
        for _ in 0..=next(&mut state) % 3 {
            let at = 40 + next(&mut state) % (forged.len() - 40);
            forged[at] = next(&mut state) as u8;
        }
        forged.truncate(if next(&mut state).is_multiple_of(4) {
            40 + next(&mut state) % (bytes.len() - 40)
        } else {
            bytes.len()
        });
        let Ok(entry) = Entry::parse(&with_right_hash(forged)) else { continue };
        read += 1;
        assert!(entry.section.offset + entry.section.len <= entry.image_len);
        assert!(entry.symbols.values().flatten().all(|offset| *offset < entry.image_len));
        // What was read can be written and read again.
        assert_eq!(Entry::parse(&entry.to_bytes().unwrap()), Ok(entry));
    }
    assert!(read > 100, "{read}");
}

#[test]
fn entry_of_another_version_is_refused() {
    let mut bytes = sample(1).to_bytes().unwrap();
    // The hash of the code.
    bytes[44] ^= 1;
    assert_eq!(Entry::parse(&with_right_hash(bytes)), Err("was written by another version"));
}

#[test]
fn entry_of_another_kernel_under_this_ones_name_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::new(folder.path());
    store.save(&sample(1));
    assert_eq!(store.load(&[1; 20]), Some(sample(1)));
    assert_eq!(store.load(&[2; 20]), None);
    let name = |byte: &str| folder.path().join(format!("linux-{}.layout", byte.repeat(20)));
    fs::copy(name("01"), name("02")).unwrap();
    assert_eq!(store.load(&[2; 20]), None);
}

#[test]
fn folder_that_cannot_be_used_is_as_good_as_empty() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, b"").unwrap();
    for unusable in [file.join("below"), folder.path().join("\0"), file] {
        let store = Store::new(&unusable);
        store.save(&sample(1));
        assert_eq!(store.load(&[1; 20]), None);
        assert_eq!(store.all().count(), 0);
    }
}

#[test]
fn folder_in_place_of_an_entry_is_ignored() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join(format!("linux-{}.layout", "01".repeat(20)))).unwrap();
    let store = Store::new(folder.path());
    store.save(&sample(1));
    assert_eq!(store.load(&[1; 20]), None);
}

#[test]
fn folder_does_not_grow_without_limit() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::new(folder.path());
    fs::write(folder.path().join("linux-of-nobody.part"), b"").unwrap();
    fs::write(folder.path().join("something else"), b"").unwrap();
    for number in 0..100 {
        store.save(&sample(number));
    }
    assert_eq!(store.all().count(), 64);
    assert_eq!(store.load(&[99; 20]), Some(sample(99)));
    let names: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|file| file.unwrap().file_name()).collect();
    assert_eq!(names.len(), 65);
    assert!(names.contains(&"something else".into()));
}
