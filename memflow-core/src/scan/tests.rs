//! Scans against a search that looks at every place, byte by byte.
use std::{
    collections::BTreeSet,
    ops::ControlFlow,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use proptest::prelude::*;

use super::{
    read::Gap,
    source::{Segment, Source},
    *,
};
use crate::{
    address::{PageSize, PhysAddr, PhysRange, VirtAddr, VirtRange},
    error::{Error, Reason, Result},
    memory::{BufferMemory, Metadata, PhysRead, PhysWrite, PhysicalMemory, Run, RunMap, SourceConfig, TargetFacts},
    testkit::{MachineBuilder, PagingMode, ScriptedMemory, entry_bits::PRESENT},
    view::SpaceView,
};

/// Bytes and the bits of them that count.
type Masked = (Vec<u8>, Vec<u8>);

fn pattern((bytes, mask): &Masked) -> Pattern {
    Pattern::masked(bytes.clone(), mask.clone()).unwrap()
}

/// Every place, every pattern, every byte.
fn naive(patterns: &[Masked], hay: &[u8]) -> Vec<(usize, usize, usize)> {
    let mut found = Vec::new();
    for start in 0..hay.len() {
        for (number, (bytes, mask)) in patterns.iter().enumerate() {
            let fits = start + bytes.len() <= hay.len();
            if fits && (0..bytes.len()).all(|index| (hay[start + index] ^ bytes[index]) & mask[index] == 0) {
                found.push((start, number, bytes.len()));
            }
        }
    }
    found
}

fn found(patterns: &[Masked], hay: &[u8]) -> Vec<(usize, usize, usize)> {
    Scanner::new(patterns.iter().map(pattern)).unwrap().find_in(hay)
}

/// Few different bytes, so that patterns nearly match everywhere.
fn bytes(len: impl Into<prop::collection::SizeRange>) -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(prop::sample::select(&[0u8, 0, 0xff, b'a', b'A', b'b', 0x48][..]), len)
}

fn masked(least: usize, most: usize, masks: &'static [u8]) -> impl Strategy<Value = Masked> {
    bytes(least..=most)
        .prop_flat_map(move |bytes| {
            let len = bytes.len();
            (Just(bytes), prop::collection::vec(prop::sample::select(masks), len))
        })
        .prop_filter("something counts", |(_, mask)| mask.iter().any(|bits| *bits != 0))
}

const EXACT: &[u8] = &[0xff];
const CASE: &[u8] = &[0xff, 0xdf];
const WILD: &[u8] = &[0xff, 0xff, 0xf0, 0x0f, 0, 0xdf];

/// Memory made up for a test: segments, each with its bytes, and addresses that cannot be read.
struct Made {
    segments: Vec<Segment>,
    bytes: Vec<Vec<u8>>,
    broken: BTreeSet<u64>,
    chunk: usize,
}

impl Source for Made {
    fn segments(&self) -> &[Segment] {
        &self.segments
    }

    fn chunk(&self, _: usize) -> usize {
        self.chunk
    }

    fn fetch<'b>(&'b self, start: u64, len: usize, _: &'b mut Vec<u8>, gaps: &mut Vec<Gap>) -> &'b [u8] {
        let nth = self.segments.iter().position(|one| (one.start..one.start + one.len).contains(&start)).unwrap();
        for address in self.broken.range(start..start + len as u64) {
            super::read::add_gap(gaps, Gap { offset: (address - start) as usize, len: 1, reason: Reason::OutOfRange });
        }
        let from = (start - self.segments[nth].start) as usize;
        &self.bytes[nth][from..from + len]
    }
}

impl Made {
    fn new(parts: &[(u64, Vec<u8>)], broken: &[u64], chunk: usize) -> Self {
        let segment = |(start, bytes): &(u64, Vec<u8>)| Segment { start: *start, len: bytes.len() as u64 };
        Self {
            segments: parts.iter().map(segment).collect(),
            bytes: parts.iter().map(|(_, bytes)| bytes.clone()).collect(),
            broken: broken.iter().copied().collect(),
            chunk,
        }
    }

    /// What can be read in one piece.
    fn spans(&self) -> Vec<(u64, Vec<u8>)> {
        let mut spans: Vec<(u64, Vec<u8>)> = Vec::new();
        for (segment, bytes) in self.segments.iter().zip(&self.bytes) {
            let mut open = false;
            for (address, byte) in (segment.start..).zip(bytes) {
                if self.broken.contains(&address) {
                    open = false;
                    continue;
                }
                if !open {
                    spans.push((address, Vec::new()));
                    open = true;
                }
                spans.last_mut().unwrap().1.push(*byte);
            }
        }
        spans
    }

    /// Address, pattern and length of every match, the addresses that could not be read, and how many bytes were seen.
    fn scan(&self, scanner: &Scanner, window: u64, threads: usize) -> (Vec<(u64, usize, usize)>, Vec<u64>, u64) {
        let mut scan = scanner.scan().threads(threads);
        scan.window = window;
        let mut hits = Vec::new();
        let sum = scan.run(self, &mut |address, pattern, bytes: &[u8]| {
            let (_, span) = self.spans().into_iter().rev().find(|(start, _)| *start <= address).unwrap();
            let from = (address - self.spans().iter().rev().find(|(start, _)| *start <= address).unwrap().0) as usize;
            assert_eq!(&span[from..from + bytes.len()], bytes);
            hits.push((address, pattern as usize, bytes.len()));
            ControlFlow::Continue(())
        });
        let gaps = sum.gaps.iter().flat_map(|(start, len, _)| *start..*start + *len).collect();
        (hits, gaps, sum.seen)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn one_exact_pattern_is_found_everywhere(pattern in masked(1, 9, EXACT), hay in bytes(0..200)) {
        prop_assert_eq!(found(std::slice::from_ref(&pattern), &hay), naive(&[pattern], &hay));
    }

    #[test]
    fn one_pattern_with_wildcards_is_found_everywhere(pattern in masked(1, 9, WILD), hay in bytes(0..200)) {
        prop_assert_eq!(found(std::slice::from_ref(&pattern), &hay), naive(&[pattern], &hay));
    }

    #[test]
    fn text_without_case_is_found_everywhere(pattern in masked(4, 9, CASE), hay in bytes(0..200)) {
        prop_assert_eq!(found(std::slice::from_ref(&pattern), &hay), naive(&[pattern], &hay));
    }

    #[test]
    fn few_patterns_are_found_everywhere(
        patterns in prop::collection::vec(masked(1, 9, WILD), 2..12), hay in bytes(0..200),
    ) {
        prop_assert_eq!(found(&patterns, &hay), naive(&patterns, &hay));
    }

    #[test]
    fn many_patterns_are_found_everywhere(
        patterns in prop::collection::vec(masked(4, 20, CASE), 33..120), hay in bytes(0..300),
    ) {
        prop_assert_eq!(found(&patterns, &hay), naive(&patterns, &hay));
    }

    #[test]
    fn many_patterns_of_any_bytes_are_found_everywhere(
        hay in prop::collection::vec(any::<u8>(), 400..600),
        places in prop::collection::vec((0usize..380, 4usize..20), 40..80),
        others in prop::collection::vec(prop::collection::vec(any::<u8>(), 4..20), 10),
    ) {
        let inside = places.iter().map(|(at, len)| hay[*at..at + len].to_vec());
        let patterns: Vec<Masked> = inside.chain(others).map(|bytes| { let len = bytes.len(); (bytes, vec![0xff; len]) }).collect();
        let scanner = Scanner::new(patterns.iter().map(pattern)).unwrap();
        prop_assert!(scanner.engines().contains("looked up every"), "{}", scanner.engines());
        prop_assert_eq!(scanner.find_in(&hay), naive(&patterns, &hay));
    }

    /// Beginnings and ends that all patterns share, which memory is full of.
    #[test]
    fn crowds_are_found_everywhere(
        before in bytes(0..14), after in bytes(0..14),
        middles in prop::collection::vec((bytes(1..4), prop::collection::vec(prop::sample::select(WILD), 3)), 33..90),
        pieces in prop::collection::vec((0usize..90, 0usize..3), 1..40),
    ) {
        let patterns: Vec<Masked> = middles.iter().map(|(middle, mask)| {
            let bits = |len| std::iter::repeat_n(0xff, len);
            let mask = bits(before.len()).chain(mask.iter().copied().take(middle.len())).chain(bits(after.len())).collect();
            ([&*before, middle, &*after].concat(), mask)
        }).filter(|(_, mask): &Masked| mask.iter().any(|bits| *bits != 0)).collect();
        prop_assume!(!patterns.is_empty());
        let hay: Vec<u8> = pieces.iter().flat_map(|(nth, kind)| match kind {
            0 => [&*before, &*middles[nth % middles.len()].0, &*after].concat(),
            1 => after.clone(),
            _ => vec![0; *nth],
        }).collect();
        prop_assert_eq!(found(&patterns, &hay), naive(&patterns, &hay));
    }

    /// Every width of a gram and every stride, over all edges of blocks.
    #[test]
    fn every_shape_finds_everything(
        len in 1usize..26, zeros in 0usize..200, noise in prop::collection::vec(any::<u8>(), 64..260),
        places in prop::collection::vec(any::<prop::sample::Index>(), 40..60),
    ) {
        let hay = [&*noise, &*vec![0; zeros], &*noise].concat();
        let inside = places.iter().map(|place| place.index(hay.len() - len)).map(|at| hay[at..at + len].to_vec());
        let patterns: Vec<Masked> = inside.map(|bytes| (bytes, vec![0xff; len])).collect();
        prop_assert_eq!(found(&patterns, &hay), naive(&patterns, &hay));
        prop_assert_eq!(found(&patterns, &hay[3..]), naive(&patterns, &hay[3..]));
    }

    /// Segments, gaps, windows, chunks and threads change nothing.
    #[test]
    fn windows_change_nothing(
        patterns in prop::collection::vec(masked(1, 7, WILD), 1..6),
        parts in prop::collection::vec(bytes(1..150), 1..4),
        broken in prop::collection::vec(0u64..600, 0..6),
        window in 1u64..60, chunk in 1usize..40, threads in 1usize..4,
    ) {
        let parts: Vec<(u64, Vec<u8>)> = parts.into_iter().enumerate().map(|(nth, part)| (nth as u64 * 200 + 7, part)).collect();
        let made = Made::new(&parts, &broken, chunk);
        let expected: Vec<(u64, usize, usize)> = made.spans().iter().flat_map(|(start, bytes)| {
            naive(&patterns, bytes).into_iter().map(|(at, number, len)| (start + at as u64, number, len)).collect::<Vec<_>>()
        }).collect();
        let scanner = Scanner::new(patterns.iter().map(pattern)).unwrap();
        let (hits, gaps, seen) = made.scan(&scanner, window, threads);
        prop_assert_eq!(hits, expected);
        let held = |address: &u64| parts.iter().any(|(start, bytes)| (*start..start + bytes.len() as u64).contains(address));
        let lost: Vec<u64> = made.broken.iter().copied().filter(held).collect();
        let all: u64 = parts.iter().map(|(_, bytes)| bytes.len() as u64).sum();
        prop_assert_eq!(seen, all - lost.len() as u64);
        prop_assert_eq!(gaps, lost);
    }

    /// Matches of an expression follow each other, whatever the windows: a run of letters is cut into pieces from its start.
    #[test]
    fn expressions_do_not_depend_on_windows(
        hay in prop::collection::vec(prop::sample::select(&b"ab1 "[..]), 1..400),
        window in 1u64..50, chunk in 1usize..40, threads in 1usize..4,
    ) {
        let (least, most) = (3, 8);
        let mut expected = Vec::new();
        let mut at = 0;
        while at < hay.len() {
            let run = hay[at..].iter().take_while(|byte| byte.is_ascii_alphabetic()).count().min(most);
            if run >= least {
                expected.push((at as u64 + 7, 0, run));
            }
            at += if run >= least { run } else { 1 };
        }
        let regex = Pattern::regex("[a-z]{3,}", RegexOptions { max_len: most, case: Case::Sensitive }).unwrap();
        let made = Made::new(&[(7, hay)], &[], chunk);
        prop_assert_eq!(made.scan(&Scanner::new([regex]).unwrap(), window, threads).0, expected);
    }
}

#[test]
fn engines_are_chosen_by_what_the_patterns_are() {
    let engines = |patterns: &[&str]| {
        Scanner::new(patterns.iter().map(|text| text.parse::<Pattern>().unwrap())).unwrap().engines()
    };
    assert_eq!(engines(&["text:needle"]), "substring");
    assert_eq!(engines(&["hex:48 8b ?? 4? 00 11 22 33"]), "substring of 4 bytes, then the rest");
    assert_eq!(engines(&["hex:48 8b ?? 4? 00"]), "substring of 2 bytes, then the rest");
    assert_eq!(engines(&["itext:pass"]), "16 pieces of 4 bytes side by side");
    assert_eq!(engines(&["hex:4? ?? 5?"]), "one byte, then the rest");
    assert_eq!(engines(&["text:one one", "text:two two"]), "2 pieces of 4 bytes side by side");
    assert_eq!(engines(&["u8:1", "u16:2"]), "2 patterns by 2 pieces of 1 byte, looked up every byte");
    assert_eq!(engines(&["regex:a[0-9]"]), "regular expression, matches of at most 2 bytes");
    let many: Vec<String> =
        (0..1000u64).map(|number| format!("u64:{:#x}", number.wrapping_mul(0x9e37_79b9_7f4a_7c15))).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    assert_eq!(engines(&many[1..]), "999 patterns by 4995 pieces of 4 bytes, looked up every 5 bytes");
    // What is common in memory is left out of the pieces.
    let texts = |numbers: std::ops::Range<u32>, form: fn(u32) -> String| -> Vec<String> { numbers.map(form).collect() };
    let engines_of = |texts: &[String]| engines(&texts.iter().map(String::as_str).collect::<Vec<_>>());
    let tails = texts(0..200, |number| format!("hex:00000000{number:02x}"));
    assert_eq!(engines_of(&tails), "200 patterns by 200 pieces of 5 bytes, looked up every byte");
    let pointers = texts(0..200, |number| format!("u64:{:#x}", 0xffff_ffff_8112_0000u64 + u64::from(number) * 0x1230));
    assert_eq!(engines_of(&pointers), "200 patterns by 400 pieces of 7 bytes, looked up every 2 bytes");
    // Patterns that are the same are one.
    assert_eq!(engines(&["text:one", "hex:6f6e65"]), "substring");
    // Few that are short or common do not make all others slow.
    let mut mixed = texts(1..600, |number| format!("u64:{:#x}", u64::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15)));
    mixed.extend(["text:four".to_owned(), "u64:0".to_owned()]);
    assert!(
        engines_of(&mixed).ends_with("looked up every 5 bytes; 2 pieces of 4 bytes side by side"),
        "{}",
        engines_of(&mixed)
    );
    // Only patterns that have no bytes for themselves are left to an automaton, whose time does not depend on them.
    let digits = |number: u32| (0..24).map(|bit| if number >> bit & 1 == 1 { "61" } else { "62" }).collect::<String>();
    let crowd = (1..9000u32).map(|number| format!("hex:{}", digits(number.wrapping_mul(0x9e37_79b1))));
    let crowd: Vec<String> = crowd.chain(mixed).collect();
    let chosen = engines_of(&crowd);
    assert!(chosen.contains("looked up every byte") && chosen.contains("automaton of "), "{chosen}");
}

#[test]
fn sets_have_limits() {
    let one = || Pattern::bytes(*b"abcd").unwrap();
    assert!(matches!(Scanner::new([]), Err(Error::Argument { .. })));
    assert!(matches!(Scanner::new(std::iter::repeat_with(one)), Err(Error::Argument { .. })));
    let long = || Pattern::bytes(vec![1; MAX_PATTERN]).unwrap();
    assert!(matches!(Scanner::new(std::iter::repeat_with(long).take(65)), Err(Error::Argument { .. })));
    let regex = || Pattern::regex("ab+", RegexOptions::default()).unwrap();
    assert!(matches!(Scanner::new(std::iter::repeat_with(regex).take(65)), Err(Error::Argument { .. })));
    // As many as there may be, all the same: every one is found.
    let scanner = Scanner::new(std::iter::repeat_with(one).take(MAX_PATTERNS)).unwrap();
    assert_eq!(scanner.find_in(b"abcd").len(), MAX_PATTERNS);
}

fn config(runs: RunMap) -> SourceConfig {
    SourceConfig { name: "test".into(), runs, facts: TargetFacts::default() }
}

fn flat(bytes: Vec<u8>) -> BufferMemory {
    BufferMemory::new(config(RunMap::flat(bytes.len() as u64)), bytes).unwrap()
}

fn scanner(texts: &[&str]) -> Scanner {
    Scanner::new(texts.iter().map(|text| text.parse().unwrap())).unwrap()
}

#[test]
fn more_matches_than_are_kept_are_all_told_in_order() {
    let memory = flat(vec![0; 3 << 20]);
    let scanner = scanner(&["hex:0000", "hex:00"]);
    let mut next = (0, 0);
    let scanned = scanner
        .scan()
        .threads(3)
        .physical(&memory, &[], &mut |hit| {
            assert_eq!((hit.addr.as_u64(), hit.pattern), next);
            assert_eq!(hit.bytes, &[0, 0][..2 - hit.pattern]);
            let last = hit.addr.as_u64() == (3 << 20) - 2;
            next = if hit.pattern == 0 { (next.0, 1) } else { (next.0 + 1, usize::from(last)) };
            ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!((scanned.hits, scanned.bytes, scanned.is_complete()), ((6 << 20) - 1, 3 << 20, true));
}

#[test]
fn many_matches_of_an_expression_are_all_told_in_order() {
    let memory = flat(b"ab".repeat(1 << 20));
    let scanner = scanner(&["regex:ab"]);
    let mut next = 0;
    let scanned = scanner.scan().threads(3).physical(&memory, &[], &mut |hit| {
        assert_eq!(hit.addr.as_u64(), next);
        next += 2;
        ControlFlow::Continue(())
    });
    assert_eq!((next, scanned.unwrap().hits), (2 << 20, 1 << 20));
}

#[test]
fn limit_caller_and_progress_end_a_scan_and_say_so() {
    let memory = flat(b"needle..".repeat(1 << 19));
    let scanner = scanner(&["text:needle"]);
    let limited = scanner.scan().limit(3).physical_matches(&memory, &[]).unwrap();
    let places: Vec<u64> = limited.hits.iter().map(|hit| hit.addr.as_u64()).collect();
    assert_eq!((places, limited.scanned.ended), (vec![0, 8, 16], Ended::Limit));
    assert_eq!(scanner.scan().limit(0).physical_matches(&memory, &[]).unwrap().hits, []);

    let mut left = 5;
    let stopped = scanner.scan().physical(&memory, &[], &mut |_| {
        left -= 1;
        if left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    assert_eq!((left, stopped.unwrap().ended), (0, Ended::Stopped));

    let calls = AtomicU64::new(0);
    let progress = |done, total| {
        assert!(done <= total && total == 4 << 20);
        if calls.fetch_add(1, Ordering::Relaxed) == 1 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let cancelled = scanner.scan().progress(&progress).physical_matches(&memory, &[]).unwrap();
    assert_eq!(cancelled.scanned.ended, Ended::Cancelled);
    // What was found until then is there, and without a hole.
    assert_eq!(cancelled.hits.len() as u64, cancelled.scanned.hits);
    assert!(cancelled.hits.iter().zip(0..).all(|(hit, nth)| hit.addr.as_u64() == nth * 8));
    assert!(!cancelled.scanned.is_complete());
}

#[test]
fn panic_of_the_caller_reaches_the_caller() {
    let memory = flat(b"needle..".repeat(1 << 20));
    let scanner = scanner(&["text:needle"]);
    let scan = || {
        scanner.scan().threads(4).physical(&memory, &[], &mut |hit| {
            assert!(hit.addr.as_u64() < 3 << 20, "enough");
            ControlFlow::Continue(())
        })
    };
    assert!(catch_unwind(AssertUnwindSafe(scan)).is_err());
}

#[test]
fn alignment_is_that_of_the_address() {
    let memory = BufferMemory::new(
        config(RunMap::new([Run { range: PhysRange::new(PhysAddr::new(0x1003), 0x100).unwrap(), offset: 0 }]).unwrap()),
        b"xy".repeat(0x80),
    );
    let matches = scanner(&["text:x"]).scan().align(3).physical_matches(&memory.unwrap(), &[]).unwrap();
    assert_eq!(matches.hits.len(), (0..0x80).filter(|nth| (0x1003 + 2 * nth) % 3 == 0).count());
    assert!(matches.hits.iter().all(|hit| hit.addr.as_u64() % 3 == 0));
    let nothing = flat(vec![0; 16]);
    assert!(matches!(
        scanner(&["text:x"]).scan().align(0).physical_matches(&nothing, &[]),
        Err(Error::Argument { .. })
    ));
}

#[test]
fn ranges_are_searched_and_what_is_no_memory_in_them_is_counted() {
    let run = |start, offset| Run { range: PhysRange::new(PhysAddr::new(start), 0x1000).unwrap(), offset };
    let runs = RunMap::new([run(0x1000, 0x2000), run(0x2000, 0), run(0x5000, 0x1000)]).unwrap();
    let mut bytes = vec![b'.'; 0x3000];
    // Two runs that touch lie apart in the buffer: a match over their edge is one.
    bytes[0x2ffd..].copy_from_slice(b"nee");
    bytes[..3].copy_from_slice(b"dle");
    bytes[0x1000..0x1006].copy_from_slice(b"needle");
    let memory = BufferMemory::new(config(runs), bytes).unwrap();
    let scanner = scanner(&["text:needle"]);
    let all = scanner.scan().physical_matches(&memory, &[]).unwrap();
    assert_eq!(all.hits.iter().map(|hit| hit.addr.as_u64()).collect::<Vec<_>>(), [0x1ffd, 0x5000]);
    assert_eq!((all.scanned.bytes, all.scanned.absent, all.scanned.is_complete()), (0x3000, 0, true));
    let range = |start, len| PhysRange::new(PhysAddr::new(start), len).unwrap();
    let part = scanner.scan().physical_matches(&memory, &[range(0x1800, 0x1000), range(0x2700, 0x2903)]).unwrap();
    // The end of a range cuts what lies over it.
    assert_eq!(part.hits.iter().map(|hit| hit.addr.as_u64()).collect::<Vec<_>>(), [0x1ffd]);
    assert_eq!((part.scanned.bytes, part.scanned.absent), (0x1803, 0x2000));
}

#[test]
fn what_cannot_be_read_is_told_and_the_rest_is_searched() {
    let mut bytes = vec![b'.'; 0x6000];
    for at in [0x0ffa, 0x1ffd, 0x4000] {
        bytes[at..at + 6].copy_from_slice(b"needle");
    }
    let broken = PhysRange::new(PhysAddr::new(0x2000), 0x2000).unwrap();
    let memory = ScriptedMemory::new(flat(bytes)).with_failing_addresses(broken);
    let matches = scanner(&["text:needle"]).scan().physical_matches(&memory, &[]).unwrap();
    // The second reaches into what cannot be read: whether it is there is not known.
    assert_eq!(matches.hits.iter().map(|hit| hit.addr.as_u64()).collect::<Vec<_>>(), [0xffa, 0x4000]);
    let scanned = matches.scanned;
    assert_eq!((scanned.bytes, scanned.missing, scanned.ended), (0x4000, 0x2000, Ended::Complete));
    assert_eq!(scanned.unread, [Unread { range: broken, reason: Reason::Io { errno: 5 } }]);
    assert!(!scanned.is_complete());
    // One call for the window, one for the pages of it.
    assert_eq!(memory.call_count(), 2);
}

/// Memory of which a part is known to be zero; reads of that part are counted.
struct Sparse {
    inner: BufferMemory,
    populated: Arc<RunMap>,
    reads_of_zeros: AtomicU64,
}

impl PhysicalMemory for Sparse {
    fn read_batch(&self, ops: &mut [PhysRead<'_>]) -> Result<()> {
        let known = ops.iter().filter(|op| self.populated.find(op.addr).is_none()).count();
        self.reads_of_zeros.fetch_add(known as u64, Ordering::Relaxed);
        self.inner.read_batch(ops)
    }

    fn write_batch(&self, ops: &mut [PhysWrite<'_>]) -> Result<()> {
        self.inner.write_batch(ops)
    }

    fn metadata(&self) -> Metadata {
        self.inner.metadata()
    }

    fn populated_runs(&self) -> Arc<RunMap> {
        self.populated.clone()
    }

    fn facts(&self) -> &TargetFacts {
        self.inner.facts()
    }
}

#[test]
fn zeros_are_not_read_unless_they_may_match() {
    let mut bytes = vec![0; 8 << 20];
    bytes[(1 << 20) - 3..1 << 20].copy_from_slice(b"abc");
    let memory =
        Sparse { inner: flat(bytes), populated: Arc::new(RunMap::flat(1 << 20)), reads_of_zeros: AtomicU64::new(0) };
    let count = |text: &str| {
        let matches = scanner(&[text]).scan().physical_matches(&memory, &[]).unwrap();
        assert!(matches.scanned.is_complete() && matches.scanned.bytes == 8 << 20);
        (matches.hits.len(), memory.reads_of_zeros.swap(0, Ordering::Relaxed))
    };
    assert_eq!(count("text:needle"), (0, 0));
    // A match that begins before the zeros goes on in them.
    assert_eq!(count("hex:6263 0000 0000"), (1, 0));
    assert_eq!(count(r"regex:c\x00{9}"), (1, 0));
    assert!(count(r"regex:(?s)^\x00{64}").1 > 0);
    let zeros = scanner(&["hex:00000000"]).scan().align(0x1000).physical_matches(&memory, &[]).unwrap();
    assert_eq!(zeros.hits.len(), 0x800);
}

#[test]
fn matches_cross_pages_that_lie_scattered() {
    let mut builder = MachineBuilder::new(PagingMode::X64, 0x40_0000).unwrap();
    let frames: Vec<PhysAddr> = (0..3).map(|_| builder.frame().unwrap()).collect();
    // Backwards in physical memory, and the middle one twice.
    for (page, frame) in [(0x7000u64, frames[2]), (0x8000, frames[1]), (0x9000, frames[0]), (0xa000, frames[1])] {
        builder.map(VirtAddr::new(page), frame, PageSize::KIB_4, PRESENT).unwrap();
    }
    builder.write(frames[2].wrapping_add(0xffc), b"need").unwrap();
    builder.write(frames[1], b"le").unwrap();
    builder.write(frames[0].wrapping_add(0x10), b"needle").unwrap();
    // What the target does not hold.
    builder.map(VirtAddr::new(0x9_0000), PhysAddr::new(0x100_0000), PageSize::KIB_4, PRESENT).unwrap();
    let machine = builder.build().unwrap();
    let scanner = scanner(&["text:needle", "hex:6e ?? 65 6? 6c", "regex:n[de]+le"]);
    let called = ScriptedMemory::new(machine.memory.clone());
    for memory in [&*machine.memory as &dyn PhysicalMemory, &called] {
        let matches = scanner.scan().space_matches(&machine.space, memory, &[]).unwrap();
        let hits: Vec<_> = matches.hits.iter().map(|hit| (hit.addr.as_u64(), hit.pattern)).collect();
        let expected = [0x7ffc, 0x9010].into_iter().flat_map(|at| (0..3).map(move |pattern| (at, pattern)));
        assert_eq!(hits, expected.collect::<Vec<_>>());
        let missing = VirtRange::new(VirtAddr::new(0x9_0000), 0x1000).unwrap();
        let reason = Reason::NotInImage { phys: PhysAddr::new(0x100_0000) };
        assert_eq!(matches.scanned.unread, [Unread { range: missing, reason }]);
        assert_eq!((matches.scanned.bytes, matches.scanned.missing), (0x4000, 0x1000));
    }
    let range = VirtRange::new(VirtAddr::new(0x6000), 0x2000).unwrap();
    let part = scanner.scan().space_matches(&machine.space, &*machine.memory, &[range]).unwrap();
    assert_eq!((part.hits.len(), part.scanned.bytes, part.scanned.absent), (0, 0x1000, 0x1000));

    let view: SpaceView = machine.view();
    let mut hits = Vec::new();
    let range = VirtRange::new(VirtAddr::new(0x6000), 0x4000).unwrap();
    let scanned = scanner.scan().view(&view, &[range], &mut |hit| {
        hits.push(hit.addr.as_u64());
        ControlFlow::Continue(())
    });
    let scanned = scanned.unwrap();
    assert_eq!((hits, scanned.missing), (vec![0x7ffc, 0x7ffc, 0x7ffc, 0x9010, 0x9010, 0x9010], 0x1000));
}

#[test]
fn tables_that_cannot_be_read_are_missing() {
    let mut builder = MachineBuilder::new(PagingMode::X64, 0x10_0000).unwrap();
    let frame = builder.frame().unwrap();
    let page = builder.map(VirtAddr::new(0x1000), frame, PageSize::KIB_4, PRESENT).unwrap();
    let machine = builder.build().unwrap();
    let table = PhysRange::new(page.entries[3].table, 0x1000).unwrap();
    let memory = ScriptedMemory::new(machine.memory.clone()).with_failing_addresses(table);
    let matches = scanner(&["text:a"]).scan().space_matches(&machine.space, &memory, &[]).unwrap();
    assert_eq!((matches.scanned.bytes, matches.scanned.missing, matches.scanned.unread.len()), (0, 0x20_0000, 1));
}

#[test]
fn strings_are_those_of_a_slow_look() {
    let mut bytes = b"\0\x01abc\0abcd\tef\x7f\0w\0i\0d\0e\0\0\0\xffx y z\n".to_vec();
    bytes.extend(vec![b'q'; 21]);
    let scanner = Scanner::new([
        Pattern::strings(TextEncoding::Utf8, 4, 10).unwrap(),
        Pattern::strings(TextEncoding::Utf16Le, 4, 10).unwrap(),
    ]);
    let scanner = scanner.unwrap();
    let found: Vec<(usize, &[u8])> =
        scanner.find_in(&bytes).into_iter().map(|(at, number, len)| (number, &bytes[at..at + len])).collect();
    assert_eq!(
        found,
        [(0, &b"abcd\tef"[..]), (1, b"w\0i\0d\0e\0"), (0, b"x y z"), (0, b"qqqqqqqqqq"), (0, b"qqqqqqqqqq"),]
    );
}

#[test]
fn expression_that_backtracks_without_end_can_be_cancelled() {
    // Nearly each place begins a match that is too long, so nearly each is looked at again.
    let mut bytes = vec![b'a'; 4 << 20];
    bytes.iter_mut().step_by(100_000).for_each(|byte| *byte = b'z');
    let memory = flat(bytes);
    let regex = Pattern::regex("a[^z]*z", RegexOptions { max_len: 1 << 16, case: Case::Sensitive }).unwrap();
    let started = std::time::Instant::now();
    let progress =
        |_, _| if started.elapsed().as_millis() > 50 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) };
    let matches = Scanner::new([regex]).unwrap().scan().progress(&progress).physical_matches(&memory, &[]).unwrap();
    assert_eq!(matches.scanned.ended, Ended::Cancelled);
    assert!(started.elapsed().as_secs() < 60, "{:?}", started.elapsed());
}

#[test]
fn handles_are_shared_by_threads() {
    fn shared<T: Send + Sync>() {}
    shared::<Pattern>();
    shared::<Scanner>();
    shared::<Scan<'_>>();
}
