//! Logs built as the kernel builds them, read back.
//!
//! The builders are written from Linux `kernel/printk/printk_ringbuffer.c` (v5.10 to v6.19) and `kernel/printk/printk.c` (v5.9).

use std::time::Duration;

use memflow_core::{
    VirtAddr,
    os::{Listing, LogRecord},
};

use super::{
    flat::{self, FlatLayout},
    ring::{Ring, RingLayout},
};
use crate::types::Field;

const COMMITTED: u64 = 1 << 62;
const FINALIZED: u64 = 2 << 62;
const REUSABLE: u64 = 3 << 62;
const TEXT: usize = 256;

/// `struct prb_desc` and `struct printk_info` on x86-64.
fn ring_layout() -> RingLayout {
    RingLayout {
        desc_size: 24,
        state: 0,
        begin: 8,
        next: 16,
        info_size: 88,
        seq: 0,
        time: 8,
        text_len: 16,
        facility: 18,
        level: Field { offset: 19, size: 1, bits: Some((5, 3)) },
    }
}

/// A ring under construction: positions in the text count on over all its rounds.
#[derive(Clone)]
struct Written {
    tail: u64,
    descs: Vec<u8>,
    infos: Vec<u8>,
    text: Vec<u8>,
    position: u64,
}

impl Written {
    fn new(tail: u64, position: u64) -> Self {
        Self { tail, descs: Vec::new(), infos: Vec::new(), text: vec![0; TEXT], position }
    }

    fn count(&self) -> u64 {
        (self.descs.len() / 24) as u64
    }

    fn entry(&mut self, state: u64, id: u64, begin: u64, next: u64, text_len: u16) {
        let seq = 1000 + self.count();
        for word in [state | id, begin, next] {
            self.descs.extend(word.to_le_bytes());
        }
        let mut info = vec![0; 88];
        info[..8].copy_from_slice(&seq.to_le_bytes());
        info[8..16].copy_from_slice(&(seq * 1_000_000).to_le_bytes());
        info[16..18].copy_from_slice(&text_len.to_le_bytes());
        info[18] = 3;
        info[19] = 6 << 5 | 2;
        self.infos.extend(info);
    }

    /// A record with its text where the kernel puts it: whole, at the start of the ring when it does not fit at its end.
    fn record(&mut self, state: u64, text: &[u8]) {
        let id = self.tail + self.count();
        let block = (8 + text.len() as u64).next_multiple_of(8);
        let (begin, size) = (self.position, TEXT as u64);
        let fits = begin % size + block <= size;
        let place = if fits { begin % size } else { 0 };
        let next = if fits { begin + block } else { (begin / size + 1) * size + block };
        let place = place as usize;
        self.text[place..place + 8].copy_from_slice(&id.to_le_bytes());
        self.text[place + 8..place + 8 + text.len()].copy_from_slice(text);
        self.position = next;
        self.entry(state, id, begin, next, text.len() as u16);
    }

    fn read_after(&self, after: &[u8]) -> Listing<LogRecord> {
        let text_at = VirtAddr::new(0xffff_ffff_8200_0000);
        Ring {
            tail: self.tail,
            count: self.count(),
            descs: &self.descs,
            descs_after: after,
            infos: &self.infos,
            text: &self.text,
            text_at,
        }
        .records(&ring_layout())
    }

    fn read(&self) -> Listing<LogRecord> {
        self.read_after(&self.descs)
    }
}

fn texts(list: &Listing<LogRecord>) -> Vec<&str> {
    list.items.iter().map(|record| record.text.as_str()).collect()
}

#[test]
fn records_have_time_number_level_and_text() {
    let mut ring = Written::new(5, 0);
    ring.record(FINALIZED, b"first");
    ring.record(COMMITTED, "two\nlines, \u{e9}\n".as_bytes());
    let list = ring.read();
    assert!(list.is_complete());
    let expected = LogRecord::new(Duration::from_millis(1000), 1000, 3, 6, "first");
    assert_eq!(list.items[0], expected);
    assert_eq!(texts(&list), ["first", "two\nlines, \u{e9}"]);
}

#[test]
fn text_that_does_not_fit_at_the_end_lies_at_the_start() {
    // Three rounds on, 40 bytes before the end.
    let mut ring = Written::new(900, 3 * TEXT as u64 + TEXT as u64 - 40);
    ring.record(FINALIZED, b"fits exactly, 32 bytes of text..");
    ring.record(FINALIZED, b"next round");
    assert_eq!(texts(&ring.read()), ["fits exactly, 32 bytes of text..", "next round"]);
    let mut ring = Written::new(900, 3 * TEXT as u64 + TEXT as u64 - 40);
    ring.record(FINALIZED, b"this one has more than thirty-two bytes");
    ring.record(FINALIZED, b"after it");
    assert_eq!(texts(&ring.read()), ["this one has more than thirty-two bytes", "after it"]);
}

#[test]
fn descriptors_without_a_record_are_left_out() {
    let mut ring = Written::new(5, 0);
    ring.record(FINALIZED, b"kept");
    ring.record(0, b"reserved: being written");
    ring.record(REUSABLE, b"old");
    // An empty line, a text that had no room, a descriptor that another record has taken over.
    ring.entry(FINALIZED, 8, 3, 3, 0);
    ring.entry(FINALIZED, 9, 1, 1, 20);
    ring.entry(FINALIZED, 777, 0, 16, 3);
    let list = ring.read();
    assert!(list.is_complete());
    assert_eq!(texts(&list), ["kept", ""]);
}

#[test]
fn record_that_was_reused_meanwhile_is_left_out() {
    let mut ring = Written::new(5, 0);
    ring.record(FINALIZED, b"gone");
    ring.record(FINALIZED, b"kept");
    let mut after = ring.descs.clone();
    after[..8].copy_from_slice(&(FINALIZED | (5 + 4096)).to_le_bytes());
    // Its text is already somebody else's, which is no damage.
    ring.text[..8].fill(0xff);
    let list = ring.read_after(&after);
    assert!(list.is_complete());
    assert_eq!(texts(&list), ["kept"]);
}

#[test]
fn text_of_another_record_is_a_problem() {
    let mut ring = Written::new(5, 0);
    ring.record(FINALIZED, b"damaged");
    ring.record(FINALIZED, b"good");
    ring.text[0] ^= 0x55;
    ring.entry(FINALIZED, 7, 0x40, 0x10_0040, 5);
    let list = ring.read();
    assert_eq!(texts(&list), ["good"]);
    let problems: Vec<String> = list.problems.iter().map(ToString::to_string).collect();
    assert_eq!(problems.len(), 2);
    assert!(problems[0].contains("expected record 0x5 between positions 0x0 and 0x10"), "{}", problems[0]);
}

#[test]
fn number_of_a_record_wraps_with_its_bits() {
    let mut ring = Written::new((1 << 62) - 1, 0);
    ring.record(FINALIZED, b"last");
    // The next number is zero.
    ring.entry(FINALIZED, 0, 16, 32, 4);
    ring.text[16..24].fill(0);
    ring.text[24..28].copy_from_slice(b"zero");
    assert_eq!(texts(&ring.read()), ["last", "zero"]);
}

#[test]
fn mutated_rings_end_in_an_answer() {
    let mut good = Written::new(5, 3 * TEXT as u64 + 100);
    for number in 0..9 {
        good.record(FINALIZED, format!("record number {number}").as_bytes());
    }
    let mut state = 3u64;
    let mut random = move |limit: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % limit as u64) as usize
    };
    for _ in 0..10_000 {
        let mut ring = good.clone();
        for _ in 0..=random(4) {
            let byte = random(256) as u8;
            match random(3) {
                0 => ring.descs[random(9 * 24)] = byte,
                1 => ring.infos[random(9 * 88)] = byte,
                _ => ring.text[random(TEXT)] = byte,
            }
        }
        let list = ring.read();
        assert!(list.items.len() + list.problems.len() <= 9);
    }
}

/// `struct printk_log` on x86-64 with `CONFIG_PRINTK_CALLER` off.
fn flat_layout() -> FlatLayout {
    FlatLayout {
        header: 16,
        time: 0,
        len: 8,
        text_len: 10,
        facility: 14,
        level: Field { offset: 15, size: 1, bits: Some((5, 3)) },
    }
}

fn flat_record(time: u64, text: &[u8]) -> Vec<u8> {
    let mut bytes = time.to_le_bytes().to_vec();
    let len = (16 + text.len()).next_multiple_of(4);
    bytes.extend((len as u16).to_le_bytes());
    bytes.extend((text.len() as u16).to_le_bytes());
    bytes.extend([0, 0, 1, 4 << 5]);
    bytes.extend(text);
    bytes.resize(len, 0);
    bytes
}

/// Two records before the end of a buffer of 128 bytes, one at its start; the place of the first.
fn flat_buffer() -> (Vec<u8>, u64) {
    let mut bytes = flat_record(3000, b"wrapped");
    let first = 60;
    bytes.resize(first, 0xaa);
    bytes.extend(flat_record(1000, b"one"));
    bytes.extend(flat_record(2000, b"two\n"));
    // A header of length zero says that the next record is at the start.
    bytes.resize(bytes.len() + 16, 0);
    bytes.resize(128, 0xaa);
    (bytes, first as u64)
}

fn read_flat(bytes: &[u8], first: u64, count: u64) -> Listing<LogRecord> {
    flat::records(&flat_layout(), VirtAddr::new(0xffff_8880_0000_0000), bytes, first, 40, 40 + count)
}

#[test]
fn records_of_old_kernels_wrap_at_the_marker() {
    let (bytes, first) = flat_buffer();
    let list = read_flat(&bytes, first, 3);
    assert!(list.is_complete(), "{:?}", list.problems);
    let expected = [(1000, 40, "one"), (2000, 41, "two"), (3000, 42, "wrapped")]
        .map(|(time, sequence, text)| LogRecord::new(Duration::from_nanos(time), sequence, 1, 4, text));
    assert_eq!(list.items, expected);
}

#[test]
fn damaged_record_of_an_old_kernel_ends_the_list_with_a_problem() {
    let (mut bytes, first) = flat_buffer();
    bytes[68] = 4;
    let list = read_flat(&bytes, first, 3);
    assert!(list.items.is_empty());
    assert!(list.problems[0].to_string().contains("found length 4"), "{}", list.problems[0]);
    let (bytes, _) = flat_buffer();
    let list = read_flat(&bytes, 500, 3);
    assert!(list.items.is_empty());
    assert!(list.problems[0].to_string().contains("found the end of the buffer"), "{}", list.problems[0]);
    let list = read_flat(&bytes[..16], 0, u64::MAX - 40);
    assert!(list.problems[0].to_string().contains("16 bytes"), "{}", list.problems[0]);
}

#[test]
fn mutated_old_logs_end_in_an_answer() {
    let (good, first) = flat_buffer();
    let mut state = 5u64;
    let mut random = move |limit: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % limit as u64) as usize
    };
    for _ in 0..10_000 {
        let mut bytes = good.clone();
        for _ in 0..=random(4) {
            let at = random(bytes.len());
            bytes[at] = random(256) as u8;
        }
        let list = read_flat(&bytes, first + random(3) as u64, 1 + random(9) as u64);
        assert!(list.items.len() <= bytes.len() / 16);
    }
}

/// Every descriptor's text reaches to the end of the ring, where all the others' numbers lie.
#[test]
fn texts_that_overlap_are_not_given_out_over_and_over() {
    let mut ring = Written::new(5, 0);
    let size = TEXT as u64;
    for number in 0..size / 8 {
        let place = number as usize * 8;
        ring.text[place..place + 8].copy_from_slice(&(5 + number).to_le_bytes());
        ring.entry(FINALIZED, 5 + number, number * 8, size, u16::MAX);
    }
    let list = ring.read();
    let texts: usize = list.items.iter().map(|record| record.text.len()).sum();
    assert!(texts <= TEXT * 3, "{texts}");
    let problem = list.problems[0].to_string();
    assert!(problem.contains("256 bytes of text at most") && problem.ends_with("they overlap"), "{problem}");
}

/// Records of old kernels that claim more text than they have room for, or that come round again.
#[test]
fn text_longer_than_its_record_is_a_problem() {
    let mut bytes = flat_record(1, b"");
    bytes[10..12].copy_from_slice(&200u16.to_le_bytes());
    let list = read_flat(&bytes.repeat(40), 0, 30);
    assert!(list.items.is_empty());
    assert!(list.problems[0].to_string().contains("a record of at least 216 bytes"), "{}", list.problems[0]);
    // 104 of 128 bytes, then the marker: the second round has no room.
    let mut bytes = flat_record(1, &[b'x'; 88]);
    bytes.resize(128, 0);
    let list = read_flat(&bytes, 0, 8);
    assert_eq!(list.items.len(), 1);
    assert!(list.problems[0].to_string().contains("inside 24 of 128 bytes, found length 104"), "{}", list.problems[0]);
}
