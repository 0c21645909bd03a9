//! Symbol tables of every order and encoding, read back: what the builder was given is what must come out.

use memflow_core::{
    MemoryView, Result, VirtAddr,
    error::Reason,
    memory::{Outcome, ViewRead, ViewWrite, finish_reads, finish_writes},
    view::ViewMetadata,
};

use super::{
    Addresses, Known, LANDMARK, SymbolTable,
    synthetic::{self, BASE, END, Kind, Labels, Order, Symbol, TABLES},
};
use crate::vmcoreinfo::VmcoreInfo;

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

fn build(order: Order, kind: Kind, symbols: &[Symbol]) -> (Flat, Labels) {
    let (bytes, labels) = synthetic::build(order, kind, symbols);
    (Flat { base: BASE, bytes }, labels)
}

/// SymbolTable as a kernel has them: the per-CPU ones at small addresses where the encoding allows, the rest in the image.
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
    (Order::Oldest, Kind::Percpu),
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

fn from_landmark(flat: &Flat, known: &Known) -> Result<SymbolTable> {
    let start = VirtAddr::new(flat.base);
    SymbolTable::from_landmark(flat, digits(flat), start, known, Addresses::Virtual).unwrap()
}

fn note(labels: &Labels) -> VmcoreInfo {
    let lines: Vec<String> = labels.0.iter().map(|(name, at)| format!("SYMBOL({name})={at:x}")).collect();
    VmcoreInfo::parse(lines.join("\n").as_bytes())
}

fn list(symbols: &SymbolTable) -> Vec<Symbol> {
    symbols.all().into_iter().map(|one| (one.address.as_u64(), one.kind, one.name)).collect()
}

#[test]
fn symbols_are_shared_between_threads() {
    fn shared<T: Send + Sync>() {}
    shared::<SymbolTable>();
    shared::<crate::Types>();
    shared::<crate::Kernel>();
}

#[test]
fn every_encoding_in_every_order_is_read() {
    for (order, kind) in CASES {
        let expected = symbols(*kind);
        let (flat, labels) = build(*order, *kind, &expected);
        let known = Known { anchors: vec![("linux_banner", VirtAddr::new(BASE + 0x9000))] };
        let found = from_landmark(&flat, &known).unwrap_or_else(|error| panic!("{order:?} {kind:?}: {error}"));
        assert_eq!(list(&found), expected, "{order:?} {kind:?}");
        let told = SymbolTable::from_note(&flat, &note(&labels), &known).unwrap();
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
        let found = SymbolTable::from_landmark(
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
    assert!(SymbolTable::from_note(&flat, &note(&labels), &known).unwrap().is_err());
}

#[test]
fn addresses_that_descend_are_refused() {
    let mut list = symbols(Kind::Absolute);
    list.swap(5, 6);
    let (flat, labels) = build(Order::Old, Kind::Absolute, &list);
    let error = SymbolTable::from_note(&flat, &note(&labels), &Known::default()).unwrap().unwrap_err().to_string();
    assert!(error.contains("ascending addresses"), "{error}");
}

#[test]
fn huge_count_costs_nothing() {
    let (mut flat, labels) = build(Order::New, Kind::Relative, &symbols(Kind::Relative));
    let count = labels.0.iter().find(|(name, _)| *name == "kallsyms_num_syms").unwrap().1 - BASE;
    for claimed in [0, 700, 1 << 20, u32::MAX] {
        flat.bytes[count as usize..][..4].copy_from_slice(&claimed.to_le_bytes());
        assert!(SymbolTable::from_note(&flat, &note(&labels), &Known::default()).unwrap().is_err(), "{claimed}");
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
        // Twice 600 readings of 9 cases: 10,800.
        for _ in 0..600 {
            let mut saved = Vec::new();
            for _ in 0..=random(&mut state) % 4 {
                let at = tables.start + random(&mut state) as usize % tables.len();
                saved.push((at, flat.bytes[at]));
                flat.bytes[at] = random(&mut state) as u8;
            }
            let found =
                SymbolTable::from_landmark(&flat, landmark, VirtAddr::new(BASE), &Known::default(), Addresses::Virtual);
            let told = SymbolTable::from_note(&flat, &note, &Known::default());
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
