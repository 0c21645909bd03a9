//! Symbol tables built as the kernel's build builds them, read back.
//!
//! The builder is written from Linux `scripts/kallsyms.c` and shares nothing with the reader; what it was given is what must come out.

use memflow_core::{
    MemoryView, Result, VirtAddr,
    error::Reason,
    memory::{Outcome, ViewRead, ViewWrite, finish_reads, finish_writes},
    view::ViewMetadata,
};

use super::{Addresses, Known, LANDMARK, Symbols};
use crate::vmcoreinfo::VmcoreInfo;

/// Where the image of the tests lies.
const BASE: u64 = 0xffff_ffff_9a00_0000;
/// Where the tables start in it.
const TABLES: u64 = BASE + 0x1000;
/// The end of the image.
const END: u64 = BASE + 0x40_0000;

/// Bytes at an address.
struct Flat {
    base: u64,
    bytes: Vec<u8>,
}

impl MemoryView for Flat {
    fn read_batch(&self, ops: &mut [ViewRead<'_>]) -> Result<()> {
        for op in &mut *ops {
            let from = op.addr.as_u64().checked_sub(self.base).map(|from| from as usize);
            let bytes = from.and_then(|from| self.bytes.get(from..from.checked_add(op.buf.len())?));
            op.outcome = match bytes {
                Some(bytes) => {
                    op.buf.copy_from_slice(bytes);
                    Outcome::Done
                }
                None => Outcome::Failed { offset: 0, reason: Reason::OutOfRange },
            };
        }
        finish_reads("test", ops)
    }

    fn write_batch(&self, ops: &mut [ViewWrite<'_>]) -> Result<()> {
        finish_writes("test", ops)
    }

    fn metadata(&self) -> ViewMetadata {
        ViewMetadata { last_address: VirtAddr::new(u64::MAX), pointer_size: 8, read_only: true }
    }
}

/// The order of the tables.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Order {
    /// Until v6.3: values first.
    Old,
    /// v6.2 and v6.3, and v6.1 as distributions have it: sequence numbers between markers and tokens.
    OldWithSequence,
    /// Since v6.4: values last.
    New,
    /// Since v7.0: aligned to 4 bytes.
    Packed,
}

/// How values are written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Absolute,
    Relative,
    Percpu,
    Place,
}

type Symbol = (u64, char, String);

/// Tokens: characters stand for themselves, unused codes for frequent pieces.
fn tokens(symbols: &[Symbol]) -> Vec<Vec<u8>> {
    let mut tokens = vec![Vec::new(); 256];
    for (_, kind, name) in symbols {
        for byte in std::iter::once(*kind as u8).chain(name.bytes()) {
            tokens[usize::from(byte)] = vec![byte];
        }
    }
    let pieces = ["Tsys_", "_init", "t__", "perf_", "_struct", "Dinit", "ab", "cd"];
    for (code, piece) in (0..256).rev().filter(|code| !(0x20..0x7f).contains(code)).zip(pieces) {
        tokens[code] = piece.as_bytes().to_vec();
    }
    tokens
}

fn compress(text: &[u8], tokens: &[Vec<u8>]) -> Vec<u8> {
    let mut codes = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let fits = |code: &usize| !tokens[*code].is_empty() && rest.starts_with(&tokens[*code]);
        let best = (0..256).filter(fits).max_by_key(|code| tokens[*code].len()).unwrap();
        codes.push(best as u8);
        rest = &rest[tokens[best].len()..];
    }
    codes
}

/// Addresses of the tables, by label.
#[derive(Default)]
struct Labels(Vec<(&'static str, u64)>);

struct Output {
    bytes: Vec<u8>,
    labels: Labels,
    align: usize,
}

impl Output {
    fn label(&mut self, name: &'static str) {
        while !self.bytes.len().is_multiple_of(self.align) {
            self.bytes.push(0);
        }
        self.labels.0.push((name, BASE + self.bytes.len() as u64));
    }

    fn values(&mut self, kind: Kind, symbols: &[Symbol]) {
        self.label(if kind == Kind::Absolute { "kallsyms_addresses" } else { "kallsyms_offsets" });
        for (address, _, _) in symbols {
            let here = BASE + self.bytes.len() as u64;
            match kind {
                Kind::Absolute => self.bytes.extend(address.to_le_bytes()),
                Kind::Relative => self.bytes.extend(((address - BASE) as u32).to_le_bytes()),
                Kind::Percpu if *address < BASE => self.bytes.extend((*address as u32).to_le_bytes()),
                Kind::Percpu => self.bytes.extend((-1 - (address - BASE) as i64).to_le_bytes()[..4].iter()),
                Kind::Place => self.bytes.extend(address.wrapping_sub(here).to_le_bytes()[..4].iter()),
            }
        }
        if matches!(kind, Kind::Relative | Kind::Percpu) {
            self.label("kallsyms_relative_base");
            self.bytes.extend(BASE.to_le_bytes());
        }
    }
}

/// An image with tables, and where they lie.
fn build(order: Order, kind: Kind, symbols: &[Symbol]) -> (Flat, Labels) {
    let tokens = tokens(symbols);
    let mut output = Output {
        bytes: vec![0xcc; (TABLES - BASE) as usize],
        labels: Labels::default(),
        align: if order == Order::Packed { 4 } else { 8 },
    };
    if matches!(order, Order::Old | Order::OldWithSequence) {
        output.values(kind, symbols);
    }
    output.label("kallsyms_num_syms");
    output.bytes.extend((symbols.len() as u32).to_le_bytes());
    output.label("kallsyms_names");
    let start = output.bytes.len();
    let mut markers = Vec::new();
    for (index, (_, kind, name)) in symbols.iter().enumerate() {
        if index % 256 == 0 {
            markers.push((output.bytes.len() - start) as u32);
        }
        let codes = compress(format!("{kind}{name}").as_bytes(), &tokens);
        match codes.len() {
            short @ ..0x80 => output.bytes.push(short as u8),
            long => output.bytes.extend([(long & 0x7f | 0x80) as u8, (long >> 7) as u8]),
        }
        output.bytes.extend(codes);
    }
    output.label("kallsyms_markers");
    output.bytes.extend(markers.iter().flat_map(|marker| marker.to_le_bytes()));
    if order == Order::OldWithSequence {
        output.label("kallsyms_seqs_of_names");
        // Any numbers: big-endian, three bytes each.
        output.bytes.extend((0..symbols.len()).flat_map(|index| [0, (index >> 8) as u8, index as u8]));
    }
    output.label("kallsyms_token_table");
    let table = output.bytes.len();
    let mut index = Vec::new();
    for token in &tokens {
        index.extend(((output.bytes.len() - table) as u16).to_le_bytes());
        output.bytes.extend(token);
        output.bytes.push(0);
    }
    output.label("kallsyms_token_index");
    output.bytes.extend(index);
    if matches!(order, Order::New | Order::Packed) {
        output.values(kind, symbols);
    }
    output.bytes.resize((END - BASE) as usize, 0);
    (Flat { base: BASE, bytes: output.bytes }, output.labels)
}

/// Symbols as a kernel has them: the per-CPU ones at small addresses where the encoding allows, the rest in the image.
fn symbols(kind: Kind) -> Vec<Symbol> {
    let mut symbols: Vec<Symbol> = Vec::new();
    if kind == Kind::Percpu {
        symbols.push((0, 'A', "fixed_percpu_data".to_owned()));
        symbols.push((0x1000, 'A', "cpu_debug_store".to_owned()));
    }
    symbols.push((BASE, 'T', "_text".to_owned()));
    symbols.push((BASE, 'T', "_stext".to_owned()));
    for number in 0..700u64 {
        let kind = if number % 3 == 0 { 'T' } else { 't' };
        symbols.push((BASE + 0x100 + number * 0x20, kind, format!("sys_number_{number}_init")));
    }
    symbols.push((BASE + 0x6000, 't', "twice".to_owned()));
    symbols.push((BASE + 0x6010, 'T', "twice".to_owned()));
    symbols.push((BASE + 0x6020, 't', format!("long_{}", "x0".repeat(150))));
    symbols.push((BASE + 0x9000, 'D', "linux_banner".to_owned()));
    symbols.push((END, 'B', "_end".to_owned()));
    symbols
}

const CASES: &[(Order, Kind)] = &[
    (Order::Old, Kind::Absolute),
    (Order::Old, Kind::Relative),
    (Order::Old, Kind::Percpu),
    (Order::OldWithSequence, Kind::Percpu),
    (Order::New, Kind::Absolute),
    (Order::New, Kind::Relative),
    (Order::New, Kind::Percpu),
    (Order::Packed, Kind::Place),
];

fn digits(flat: &Flat) -> VirtAddr {
    let at = flat.bytes.windows(LANDMARK.len()).position(|bytes| bytes == LANDMARK).unwrap();
    VirtAddr::new(flat.base + at as u64)
}

fn from_landmark(flat: &Flat, known: &Known) -> Result<Symbols> {
    let start = VirtAddr::new(flat.base);
    Symbols::from_landmark(flat, digits(flat), start, known, Addresses::Virtual).unwrap()
}

fn note(labels: &Labels) -> VmcoreInfo {
    let lines: Vec<String> = labels.0.iter().map(|(name, at)| format!("SYMBOL({name})={at:x}")).collect();
    VmcoreInfo::parse(lines.join("\n").as_bytes())
}

fn list(symbols: &Symbols) -> Vec<Symbol> {
    symbols.all().into_iter().map(|one| (one.address.as_u64(), one.kind, one.name)).collect()
}

#[test]
fn every_encoding_in_every_order_is_read() {
    for (order, kind) in CASES {
        let expected = symbols(*kind);
        let (flat, labels) = build(*order, *kind, &expected);
        let known = Known { anchors: vec![("linux_banner", VirtAddr::new(BASE + 0x9000))] };
        let found = from_landmark(&flat, &known).unwrap_or_else(|error| panic!("{order:?} {kind:?}: {error}"));
        assert_eq!(list(&found), expected, "{order:?} {kind:?}");
        let told = Symbols::from_note(&flat, &note(&labels), &known).unwrap();
        let told = told.unwrap_or_else(|error| panic!("{order:?} {kind:?} by note: {error}"));
        assert_eq!(list(&told), expected, "{order:?} {kind:?} by note");
    }
}

#[test]
fn tables_are_found_where_only_physical_addresses_are_known() {
    for (order, kind) in CASES {
        let expected = symbols(*kind);
        let (mut flat, _) = build(*order, *kind, &expected);
        flat.base = 0x1200_0000;
        let found = Symbols::from_landmark(
            &flat,
            digits(&flat),
            VirtAddr::new(flat.base),
            &Known::default(),
            Addresses::Physical,
        );
        let found = found.unwrap().unwrap_or_else(|error| panic!("{order:?} {kind:?}: {error}"));
        // Values relative to their place move with it, the others are the kernel's own.
        let moved = if *kind == Kind::Place { BASE - flat.base } else { 0 };
        let expected: Vec<Symbol> = expected.into_iter().map(|(at, kind, name)| (at - moved, kind, name)).collect();
        assert_eq!(list(&found), expected, "{order:?} {kind:?}");
    }
}

#[test]
fn names_and_addresses_are_looked_up() {
    let (flat, _) = build(Order::New, Kind::Percpu, &symbols(Kind::Percpu));
    let found = from_landmark(&flat, &Known::default()).unwrap();
    assert_eq!(found.address_of("_stext"), Some(VirtAddr::new(BASE)));
    assert_eq!(found.address_of("fixed_percpu_data"), Some(VirtAddr::new(0)));
    assert_eq!(found.address_of("twice"), Some(VirtAddr::new(BASE + 0x6010)), "the global one comes first");
    let both: Vec<u64> = found.named("twice").iter().map(|one| one.address.as_u64()).collect();
    assert_eq!(both, [BASE + 0x6000, BASE + 0x6010]);
    for absent in ["", "twic", "twicee", "t", "no such symbol"] {
        assert_eq!(found.address_of(absent), None, "{absent:?}");
        assert!(found.require(absent).unwrap_err().is_not_found());
    }
    let at = |address| found.at(VirtAddr::new(address)).map(|(one, offset)| (one.name, offset));
    assert_eq!(at(BASE), Some(("_text".to_owned(), 0)), "the first of two at one address");
    assert_eq!(at(BASE + 0x105), Some(("sys_number_0_init".to_owned(), 5)));
    assert_eq!(at(BASE + 0x9001), Some(("linux_banner".to_owned(), 1)));
    assert_eq!(at(BASE - 1), None);
    assert_eq!(at(END), None);
    assert_eq!(at(0x1000), None, "an offset of per-CPU data is no address");
    assert_eq!(at(u64::MAX), None);
}

#[test]
fn wrong_anchor_refuses_every_encoding() {
    let (flat, labels) = build(Order::Old, Kind::Percpu, &symbols(Kind::Percpu));
    let known = Known { anchors: vec![("linux_banner", VirtAddr::new(BASE + 0x9008))] };
    let error = from_landmark(&flat, &known).unwrap_err().to_string();
    assert!(error.contains("values that agree with known symbols"), "{error}");
    assert!(error.contains("linux_banner at 0xffffffff9a009008"), "{error}");
    assert!(Symbols::from_note(&flat, &note(&labels), &known).unwrap().is_err());
}

#[test]
fn addresses_that_descend_are_refused() {
    let mut list = symbols(Kind::Absolute);
    list.swap(5, 6);
    let (flat, labels) = build(Order::Old, Kind::Absolute, &list);
    let error = Symbols::from_note(&flat, &note(&labels), &Known::default()).unwrap().unwrap_err().to_string();
    assert!(error.contains("ascending addresses"), "{error}");
}

#[test]
fn huge_count_costs_nothing() {
    let (mut flat, labels) = build(Order::New, Kind::Relative, &symbols(Kind::Relative));
    let count = labels.0.iter().find(|(name, _)| *name == "kallsyms_num_syms").unwrap().1 - BASE;
    for claimed in [0, 700, 1 << 20, u32::MAX] {
        flat.bytes[count as usize..][..4].copy_from_slice(&claimed.to_le_bytes());
        assert!(Symbols::from_note(&flat, &note(&labels), &Known::default()).unwrap().is_err(), "{claimed}");
    }
}

/// SplitMix64.
fn random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut value = *state;
    value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[test]
fn mutated_tables_end_in_an_answer() {
    let mut state = 1;
    for (order, kind) in CASES {
        // Few symbols, so that each mutation has a chance to matter.
        let mut list = symbols(*kind);
        list.drain(6..list.len() - 300);
        let (mut flat, labels) = build(*order, *kind, &list);
        let used = labels.0.iter().map(|(_, at)| at - BASE).max().unwrap() + 0x2000;
        flat.bytes.truncate(used as usize);
        let note = note(&labels);
        let landmark = digits(&flat);
        let tables = (TABLES - BASE) as usize..flat.bytes.len();
        // Twice 650 readings of 8 cases: 10,400.
        for _ in 0..650 {
            let mut saved = Vec::new();
            for _ in 0..=random(&mut state) % 4 {
                let at = tables.start + random(&mut state) as usize % tables.len();
                saved.push((at, flat.bytes[at]));
                flat.bytes[at] = random(&mut state) as u8;
            }
            let found =
                Symbols::from_landmark(&flat, landmark, VirtAddr::new(BASE), &Known::default(), Addresses::Virtual);
            let told = Symbols::from_note(&flat, &note, &Known::default());
            for symbols in found.into_iter().chain(told).flatten() {
                let _ = symbols.at(VirtAddr::new(BASE + random(&mut state) % (END - BASE)));
                let _ = symbols.named("twice");
                assert!(symbols.iter().count() <= symbols.len());
            }
            for (at, byte) in saved.into_iter().rev() {
                flat.bytes[at] = byte;
            }
        }
    }
}
