//! LiME images: what they hold, and what is wrong with damaged ones.

mod common;

use common::{error_of, file, lime as write_lime, lime_header, patched, pattern, read, sample_lime};
use memflow_core::memory::Liveness;
use memflow_snapshot::{BytesInput, Container, OpenOptions, ParseOptions, lime, open};

#[test]
fn ranges_are_inclusive_and_gaps_are_gaps() {
    let (_dir, path) = file(&sample_lime());
    let snapshot = open(&path, &OpenOptions::default()).unwrap();
    assert_eq!((snapshot.format.container, snapshot.format.to_string().as_str()), (Container::Lime, "LiME"));
    assert_eq!(snapshot.notes, [""; 0]);
    let memory = &*snapshot.memory;
    assert_eq!(memory.metadata().liveness, Liveness::Frozen);
    assert_eq!(read(memory, 0x1000, 0x2000).unwrap(), pattern(1, 0x2000));
    assert_eq!(read(memory, 0x10_0000, 0x1000).unwrap(), pattern(2, 0x1000));
    assert_eq!(read(memory, 0x20_0000, 1).unwrap(), pattern(3, 1));
    assert!(read(memory, 0x20_0001, 1).unwrap_err().is_not_in_image());
    assert!(read(memory, 0xfff, 1).unwrap_err().is_not_in_image());
}

#[test]
fn range_may_end_with_the_last_address() {
    let (_dir, path) = file(&[lime_header(u64::MAX - 3, u64::MAX), vec![1, 2, 3, 4]].concat());
    let snapshot = open(&path, &OpenOptions::default()).unwrap();
    assert_eq!(read(&*snapshot.memory, u64::MAX - 1, 2).unwrap(), [3, 4]);
}

#[test]
fn zeros_between_ranges_and_at_the_end_are_padding() {
    for zeros in [1, 31, 32, 33, 4096, 100_000] {
        let padding = vec![0; zeros];
        let bytes = [
            write_lime(&[(0x1000, pattern(1, 0x1000))]),
            padding.clone(),
            write_lime(&[(0x4000, pattern(2, 0x1000))]),
            padding,
        ];
        let (_dir, path) = file(&bytes.concat());
        let snapshot = open(&path, &OpenOptions::default()).unwrap();
        assert_eq!(read(&*snapshot.memory, 0x4000, 0x1000).unwrap(), pattern(2, 0x1000), "{zeros} zeros");
    }
}

#[test]
fn every_refusal_says_what_and_where() {
    let default = OpenOptions::default();
    let whole = sample_lime();
    let second = 32 + 0x2000;
    let of = |at: usize, with: &[u8]| error_of(&patched(whole.clone(), at, with), &default);
    assert_eq!(
        of(second, b"what"),
        "image: LiME: at offset 0x2020: expected the LiME magic 0x4c694d45, found 0x74616877"
    );
    assert_eq!(
        of(second + 4, &[2]),
        "image: LiME version 2 at offset 0x2020 is not supported: version 1 is known here"
    );
    assert_eq!(
        of(second + 16, &[0; 8]),
        "image: LiME: at offset 0x2028: expected a range whose last address is not below its first, found 0x100000 to 0x0"
    );
    assert_eq!(
        of(second + 16, &(1u64 << 60).to_le_bytes()),
        "image: LiME: at offset 0x2020: expected the 0xffffffffff00001 bytes of 0x100000-0x1000000000000000 after the \
         header, found the end of the file at 0x3061; it looks truncated, copy it again or open it as a partial image"
    );
    // All 2^64 addresses have no length in 64 bits.
    assert!(error_of(&lime_header(0, u64::MAX), &default).contains("expected a range whose last address"));
    let overlapping = write_lime(&[(0x1000, pattern(1, 0x2000)), (0x2000, pattern(2, 0x1000))]);
    assert_eq!(
        error_of(&overlapping, &default),
        "image: LiME: at offset 0x2020: expected each physical address once, found 0x2000-0x2fff although 0x1000-0x2fff came before"
    );
    let padded = [sample_lime(), vec![0; 2 << 20]].concat();
    assert_eq!(
        error_of(&padded, &default),
        "image: LiME: at offset 0x3061: expected a range's header within 0x100000 bytes, found zeros"
    );
    let mixed = [whole.clone(), b"AVML\x02\0\0\0".to_vec(), vec![0; 24]].concat();
    assert_eq!(
        error_of(&mixed, &default),
        "image: an AVML range (LiME version 2, compressed) at offset 0x3061, behind ranges of version 1 is not supported: a file has \
         one version; convert it with `avml-convert --source-format lime_compressed --format lime IN OUT`"
    );
}

#[test]
fn cut_anywhere_but_between_ranges_it_is_an_error_or_partial_on_request() {
    let whole = sample_lime();
    let between = [32 + 0x2000, 32 + 0x2000 + 32 + 0x1000];
    for len in 0..whole.len() {
        let input = BytesInput::new("image".as_ref(), &whole[..len]);
        let parsed = lime::parse(&input, ParseOptions { partial: false });
        // Nothing in the format says how many ranges there are.
        assert_eq!(parsed.is_ok(), between.contains(&len), "{len} bytes");
        if let Ok(image) = lime::parse(&input, ParseOptions { partial: true }) {
            assert_eq!(image.notes.is_empty(), between.contains(&len), "{len} bytes");
        }
    }
}

#[test]
fn cut_range_opens_partially_and_says_what_is_missing() {
    let partial = OpenOptions { partial: true, ..OpenOptions::default() };
    let (_dir, path) = file(&sample_lime()[..32 + 0x2000 + 32 + 0x100]);
    let snapshot = open(&path, &partial).unwrap();
    assert_eq!(
        snapshot.notes,
        ["the file ends at 0x2140: the last 0xf00 of 0x1000 bytes of 0x100000-0x100fff are missing"]
    );
    assert_eq!(read(&*snapshot.memory, 0x10_0000, 0x100).unwrap(), pattern(2, 0x1000)[..0x100]);
    assert!(read(&*snapshot.memory, 0x10_0100, 1).unwrap_err().is_not_in_image());
    let (_dir, path) = file(&sample_lime()[..32 + 0x2000 + 7]);
    let notes = open(&path, &partial).unwrap().notes;
    assert_eq!(
        notes,
        [format!(
            "memory after the first 0x2020 bytes of the file is missing: {}: LiME: at offset 0x2020: expected 0x20 bytes \
             of a range's header, found the end of the file at 0x2027; it looks truncated, copy it again",
            path.display()
        )]
    );
}
