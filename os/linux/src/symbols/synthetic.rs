//! Symbol tables built as the kernel's build builds them, for tests.
//!
//! Owns: every order and encoding of the tables. Must not know: the reader.
//! Source: Linux `scripts/kallsyms.c`, written independently of what reads them.

/// Where the image of the tests lies.
pub(crate) const BASE: u64 = 0xffff_ffff_9a00_0000;
/// Where the tables start in it.
pub(crate) const TABLES: u64 = BASE + 0x1000;
/// The end of the image.
pub(crate) const END: u64 = BASE + 0x40_0000;

/// The order of the tables.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Order {
    /// Until v4.19: as the next, with 64-bit markers.
    Oldest,
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
pub(crate) enum Kind {
    Absolute,
    Relative,
    Percpu,
    Place,
}

pub(crate) type Symbol = (u64, char, String);

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
pub(crate) struct Labels(pub(crate) Vec<(&'static str, u64)>);

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

/// The bytes of an image with tables, and where they lie.
pub(crate) fn build(order: Order, kind: Kind, symbols: &[Symbol]) -> (Vec<u8>, Labels) {
    let tokens = tokens(symbols);
    let mut output = Output {
        bytes: vec![0xcc; (TABLES - BASE) as usize],
        labels: Labels::default(),
        align: if order == Order::Packed { 4 } else { 8 },
    };
    if matches!(order, Order::Oldest | Order::Old | Order::OldWithSequence) {
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
    for marker in markers {
        output.bytes.extend(marker.to_le_bytes());
        if order == Order::Oldest {
            output.bytes.extend([0; 4]);
        }
    }
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
    (output.bytes, output.labels)
}
