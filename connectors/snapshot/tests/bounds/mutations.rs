//! Each file changed byte by byte, field by field, at random, and cut short: opened or refused within bounds.

use memflow_core::memory::PhysicalMemoryExt;
use memflow_snapshot::{BytesInput, OpenOptions, Snapshot, vmware};

use crate::{
    measure::bounded_with,
    subjects::{self, Subject},
};

/// Cases of each kind at least.
const CASES: usize = 10_000;
/// Most bytes that a compressed file may unpack to here.
const UNPACKED: u64 = 16 << 20;
/// What a count, a size or an address may be at worst.
const LARGE: [u64; 12] = [
    1 << 63,
    (1 << 63) - 1,
    u64::MAX,
    u64::MAX - 0xfff,
    1 << 62,
    1 << 52,
    1 << 40,
    1 << 32,
    0xffff_ffff,
    0x8000_0000,
    0x7fff_ffff,
    0x0100_0000,
];

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
        (self.next() % limit.max(1) as u64) as usize
    }
}

/// Opens a file as it is and, if it is refused, as a partial image, and reads at the ends of its first runs.
fn opened_or_refused(subject: &Subject, bytes: &[u8]) {
    for partial in [false, true] {
        let options = OpenOptions { partial, max_unpacked: Some(UNPACKED), ..OpenOptions::default() };
        match subject.open(bytes, &options) {
            Ok(snapshot) => return read_some(&snapshot),
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }
    // What is opened from a file only.
    if let Ok(state) = vmware::parse(&BytesInput::new("bounds".as_ref(), bytes)) {
        drop(state.runs(state.memory.map_or(0, |(offset, _)| offset)));
    }
}

fn read_some(snapshot: &Snapshot) {
    let runs = snapshot.memory.metadata().runs;
    for run in runs.runs().iter().take(4) {
        for at in [Some(run.range.start()), run.range.last()].into_iter().flatten() {
            // Whatever comes, it is an answer: bytes, or why there are none.
            if let Err(error) = snapshot.memory.read_into(at, &mut [0; 16]) {
                assert!(!error.to_string().is_empty());
            }
        }
    }
}

fn check(subject: &Subject, how: &str, bytes: &[u8]) {
    subject.put(bytes);
    bounded_with(subject.reserved, || format!("{}, {how}", subject.name), || opened_or_refused(subject, bytes));
}

/// Each byte of a structure in turn.
fn byte_by_byte(subject: &Subject) {
    let places = subject.places();
    let values = CASES.div_ceil(places.len()).clamp(8, 255);
    let mut work = subject.bytes.clone();
    let mut numbers = Numbers(3);
    let mut cases = 0;
    for &at in &places {
        let was = work[at];
        let telling = [0, 0xff, 0x80, 0x7f, 1, was.wrapping_add(1), was.wrapping_sub(1), was ^ 0x20];
        for index in 0..values {
            // All of them, if there are that many; else those that tell most, and others.
            work[at] = match telling.get(index) {
                _ if values == 255 => was.wrapping_add(index as u8 + 1),
                Some(value) => *value,
                None => numbers.next() as u8,
            };
            check(subject, &format!("{:#x} at {at:#x}", work[at]), &work);
            cases += 1;
        }
        work[at] = was;
    }
    assert!(cases >= CASES || places.len() * 255 == cases, "{}: {cases} cases", subject.name);
}

/// Each field in turn, whatever its width and whichever its end.
fn field_by_field(subject: &Subject) {
    let mut work = subject.bytes.clone();
    for at in subject.places().into_iter().step_by(2) {
        for width in [4, 8] {
            let Some(field) = work.get(at..at + width) else { continue };
            let was = field.to_vec();
            for value in LARGE {
                for bytes in [value.to_le_bytes()[..width].to_vec(), value.to_be_bytes()[8 - width..].to_vec()] {
                    work[at..at + width].copy_from_slice(&bytes);
                    check(subject, &format!("{bytes:02x?} at {at:#x}"), &work);
                }
            }
            work[at..at + width].copy_from_slice(&was);
        }
    }
}

/// Several changes at a time: bytes, bits, fields, ends, pieces put in twice or taken out.
fn at_random(subject: &Subject) {
    let places = subject.places();
    let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15);
    for case in 0..CASES {
        let mut work = subject.bytes.clone();
        for _ in 0..=numbers.below(4) {
            let place = places[numbers.below(places.len())];
            let at = if numbers.below(8) == 0 { numbers.below(work.len()) } else { place.min(work.len() - 1) };
            match numbers.below(7) {
                0 => work[at] = numbers.next() as u8,
                1 => work[at] ^= 1 << numbers.below(8),
                2 => work.truncate(at + 1),
                3 | 4 => {
                    let width = [2, 4, 8][numbers.below(3)];
                    let value = LARGE[numbers.below(LARGE.len())].wrapping_sub(numbers.below(3) as u64);
                    if let Some(field) = work.get_mut(at / width * width..at / width * width + width) {
                        field.copy_from_slice(&value.to_le_bytes()[..width]);
                    }
                }
                5 => {
                    let from = numbers.below(work.len());
                    let piece = work[from..work.len().min(from + 64)].to_vec();
                    work.splice(at..at, piece);
                }
                _ => drop(work.drain(at..work.len().min(at + 1 + numbers.below(64)))),
            }
            if work.is_empty() {
                work.push(0);
            }
        }
        check(subject, &format!("case {case}"), &work);
    }
}

/// Cut short inside each structure, at its ends, and everywhere in steps.
fn cut_short(subject: &Subject) {
    let ends = subject.structures.iter().flat_map(|part| [part.start, part.end]);
    let around = ends.flat_map(|end| [end.saturating_sub(1), end, end + 1]);
    let steps = (0..subject.bytes.len()).step_by(97);
    for len in subject.places().into_iter().chain(around).chain(steps).filter(|len| *len < subject.bytes.len()) {
        check(subject, &format!("cut to {len:#x}"), &subject.bytes[..len]);
    }
}

fn suffer(subjects: Vec<Subject>) {
    for subject in &subjects {
        // What is changed is worth nothing if it cannot be opened unchanged.
        check(subject, "as it is", &subject.bytes);
        byte_by_byte(subject);
        field_by_field(subject);
        at_random(subject);
        cut_short(subject);
    }
}

#[test]
fn plain_files() {
    suffer(subjects::plain());
}

#[test]
fn kdumps() {
    suffer(subjects::kdumps());
}

#[test]
fn compressed_files() {
    suffer(subjects::compressed());
}

#[test]
fn crash_dumps() {
    suffer(subjects::crash_dumps());
}

#[test]
fn vmware_states() {
    suffer(subjects::vmware());
}

#[test]
fn migration_streams() {
    suffer(subjects::migrations());
}

#[test]
fn cores_of_hypervisors() {
    suffer(subjects::cores());
}

#[test]
fn states_beside_memory() {
    suffer(subjects::beside());
}

#[test]
fn what_suffers_can_be_opened_when_it_is_whole() {
    let options = OpenOptions::default();
    let subjects = [
        subjects::plain(),
        subjects::kdumps(),
        subjects::compressed(),
        subjects::crash_dumps(),
        subjects::migrations(),
        subjects::cores(),
        subjects::beside(),
    ];
    for subject in subjects.into_iter().flatten().filter(|subject| subject.name != "crash dump, x64 type 4") {
        subject.put(&subject.bytes);
        if let Err(error) = subject.open(&subject.bytes, &options) {
            panic!("{}: {error}", subject.name);
        }
    }
    for subject in subjects::vmware() {
        let state = vmware::parse(&BytesInput::new("whole".as_ref(), &subject.bytes)).unwrap();
        assert_eq!(state.runs(0).unwrap().unwrap().runs().len(), 2, "{}", subject.name);
    }
}
