//! Files cut short, with bits flipped and with numbers put where others were.
//!
//! Keeps: whatever the bytes, there is an answer; what was cut short is refused.

use std::{
    io::Write,
    time::{Duration, Instant},
};

use memflow_core::plugin::analyze::{AnalyzedFile, HostAbi, Rejection, analyze, analyze_file};

use super::{FIXTURES, LINUX, build::Elf64, fixture, host, linux, plugins};

/// Longest time for one file, on a machine that has other things to do: each takes some microseconds.
const TIME_LIMIT: Duration = Duration::from_secs(2);

/// The answer to a file that holds these bytes, if it came soon and is that to the bytes.
fn answer_to_file(bytes: &[u8], host: &HostAbi<'_>) -> Result<AnalyzedFile, Rejection> {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    let start = Instant::now();
    let of_file = analyze_file(&file, host);
    assert!(start.elapsed() < TIME_LIMIT);
    assert_eq!(of_file, answer(bytes, host));
    of_file
}

/// The answer, if it can be told and came soon.
fn answer(bytes: &[u8], host: &HostAbi<'_>) -> Result<AnalyzedFile, Rejection> {
    let start = Instant::now();
    let answer = analyze(bytes, host);
    assert!(start.elapsed() < TIME_LIMIT);
    let texts = match &answer {
        Ok(file) => plugins(file).into_iter().filter_map(Result::err).collect(),
        Err(rejection) => vec![rejection.to_string()],
    };
    for text in texts {
        assert!(!text.is_empty() && text.len() < 4096 && !text.contains(char::is_control), "{text}");
    }
    answer
}

/// The offsets of a file at which there is something: not in the zeros between its parts.
fn interesting(bytes: &[u8]) -> Vec<usize> {
    let near = |at: usize| bytes[at.saturating_sub(8)..(at + 9).min(bytes.len())].iter().any(|byte| *byte != 0);
    (0..bytes.len()).filter(|at| near(*at)).collect()
}

#[test]
fn file_cut_short_anywhere_is_refused() {
    for (name, target) in FIXTURES {
        let bytes = fixture(name);
        let whole = interesting(&bytes);
        // The end of the file is the end of its last part.
        for len in whole.into_iter().chain([bytes.len() - 1]) {
            let answer = answer(&bytes[..len], &host(target));
            assert!(answer.is_err(), "{name} cut to {len}: {answer:?}");
        }
        assert_eq!(plugins(&answer(&bytes, &host(target)).unwrap()), [Ok("one"), Ok("two")]);
        let longer = [&bytes[..], &[0xa5; 1000]].concat();
        assert!(answer(&longer, &host(target)).is_ok(), "{name}");
    }
}

#[test]
fn every_flipped_bit_has_an_answer() {
    for (name, target) in FIXTURES {
        let good = fixture(name);
        let host = host(target);
        let mut bytes = good.clone();
        for at in interesting(&good) {
            for bit in 0..8 {
                bytes[at] ^= 1 << bit;
                drop(answer(&bytes, &host));
                bytes[at] ^= 1 << bit;
            }
        }
        assert_eq!(bytes, good);
    }
}

/// Numbers that count, measure and point too far.
const NUMBERS: [u64; 12] =
    [0, 1, 0x7f, 0xff, 0x7fff, 0xffff, 0x7fff_ffff, 0xffff_fff0, 0xffff_ffff, 1 << 33, i64::MAX as u64, u64::MAX];

#[test]
fn every_number_in_place_of_another_has_an_answer() {
    for (name, target) in FIXTURES {
        let good = fixture(name);
        let host = host(target);
        let mut bytes = good.clone();
        for at in interesting(&good).into_iter().filter(|at| at % 2 == 0) {
            for width in [2, 4, 8] {
                let Some(end) = Some(at + width).filter(|end| *end <= good.len()) else { continue };
                for number in NUMBERS {
                    bytes[at..end].copy_from_slice(&number.to_le_bytes()[..width]);
                    drop(answer(&bytes, &host));
                    bytes[at..end].copy_from_slice(&number.to_be_bytes()[8 - width..]);
                    drop(answer(&bytes, &host));
                }
                bytes[at..end].copy_from_slice(&good[at..end]);
            }
        }
    }
}

/// A sequence of numbers without order, the same on every run (Marsaglia, "Xorshift RNGs").
fn random(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

#[test]
fn random_bytes_in_random_places_have_an_answer() {
    let mut state = 0x1234_5678_9abc_def1;
    for (name, target) in FIXTURES {
        let good = fixture(name);
        let places = interesting(&good);
        for round in 0..4000 {
            let mut bytes = good.clone();
            for _ in 0..1 + random(&mut state) % 16 {
                let at = places[random(&mut state) as usize % places.len()];
                bytes[at] = random(&mut state) as u8;
            }
            let look = if round % 8 == 0 { answer_to_file } else { answer };
            drop(look(&bytes, &host(target)));
        }
        let cut = &good[..good.len() / 2];
        assert!(answer_to_file(&good, &host(target)).is_ok() && answer_to_file(cut, &host(target)).is_err());
    }
}

#[test]
fn beginnings_of_formats_without_the_rest_have_an_answer() {
    let mut state = 0xfeed;
    let magics: [&[u8]; 8] = [
        b"\x7fELF\x02\x01\x01",
        b"\x7fELF\x01\x02\x01",
        b"MZ",
        b"\xcf\xfa\xed\xfe",
        b"\xce\xfa\xed\xfe",
        b"\xfe\xed\xfa\xcf",
        b"\xca\xfe\xba\xbe\0\0\0\x02",
        b"\xca\xfe\xba\xbf\0\0\0\x02",
    ];
    for magic in magics {
        for len in 0..600 {
            let mut bytes: Vec<u8> = (0..len).map(|_| random(&mut state) as u8).collect();
            let start = magic.len().min(len);
            bytes[..start].copy_from_slice(&magic[..start]);
            assert!(answer(&bytes, &super::LINUX).is_err());
        }
    }
}

/// As many symbols as are looked at, each with the longest name.
#[test]
fn file_of_nothing_but_symbols_is_answered_soon() {
    const SYMBOLS: u64 = 1 << 20;
    let mut elf = Elf64(linux());
    let (names, symbols) = (elf.0.len() as u64, elf.0.len() as u64 + 4096);
    elf.0.resize(symbols as usize, b'a');
    // Bound globally, data, in section 1, one byte.
    let symbol: [u8; 24] = std::array::from_fn(|at| if at == 4 { 0x11 } else { u8::from(at == 6 || at == 16) });
    elf.0.extend(symbol.repeat(SYMBOLS as usize));
    let (table, strings) = (elf.section(".dynsym"), elf.section(".dynstr"));
    let elf = elf.set(table + 0x18, 8, symbols).set(table + 0x20, 8, 24 * SYMBOLS);
    let elf = elf.set(strings + 0x18, 8, names).set(strings + 0x20, 8, 4096);
    let file = answer_to_file(&elf.0, &LINUX).unwrap();
    assert!(plugins(&file).iter().all(|plugin| plugin.as_ref().is_err_and(|text| text.contains("is not exported"))));
}
