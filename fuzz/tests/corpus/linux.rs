//! Seeds for what a Linux kernel keeps in memory about itself.
//!
//! Source: Linux `scripts/kallsyms.c` and `Documentation/bpf/btf.rst` (in the builders), `kernel/vmcore_info.c`,
//! `kernel/printk/printk_ringbuffer.c` (v6.12), `kernel/printk/printk.c` (v5.9).

use super::{
    Seed,
    btf_builder::Builder,
    kallsyms_builder::{BASE, END, Kind, Labels, Order, Symbol, build},
};

const VMCOREINFO: &str = "OSRELEASE=6.1.0-18-amd64\nBUILD-ID=a1b2c3d4\nPAGESIZE=4096\nSYMBOL(init_uts_ns)=ffffffff8221a5a0\n\
                          SYMBOL(swapper_pg_dir)=ffffffff82210000\nSYMBOL(_stext)=ffffffff81000000\nSIZE(page)=64\n\
                          OFFSET(page.flags)=0\nLENGTH(zone.free_area)=11\nNUMBER(phys_base)=-16777216\n\
                          NUMBER(pgtable_l5_enabled)=1\nKERNELOFFSET=1e200000\nNUMBER(KERNEL_IMAGE_SIZE)=0x40000000\n\
                          CRASHTIME=1700000000\n";

pub(crate) fn seeds() -> Vec<Seed> {
    vec![
        ("layout_entry", "every-answer", layout_entry()),
        ("vmcoreinfo", "whole", VMCOREINFO.into()),
        ("vmcoreinfo", "minimal", b"OSRELEASE=6.1.0\nSYMBOL(_stext)=ffffffff81000000\n\0rest".to_vec()),
        ("btf", "every-kind", every_kind()),
        ("btf", "long-header", typedefs().section_with_header(32)),
        ("btf", "typedefs", typedefs().section()),
        ("kallsyms", "old-absolute", image(Order::Old, Kind::Absolute, false)),
        ("kallsyms", "sequence-percpu", image(Order::OldWithSequence, Kind::Percpu, false)),
        ("kallsyms", "new-relative", image(Order::New, Kind::Relative, false)),
        ("kallsyms", "packed-place", image(Order::Packed, Kind::Place, false)),
        ("kallsyms", "note-percpu", image(Order::New, Kind::Percpu, true)),
        ("kallsyms", "note-place", image(Order::Packed, Kind::Place, true)),
        ("log_ring", "records", log_ring(5, 0)),
        ("log_ring", "wrapped", log_ring(u64::MAX >> 2, 3 * TEXT + 200)),
        ("log_flat", "wrapped", log_flat()),
        // Finds, as small as they get.
        ("btf", "regression-same-name-many-times", same_name_many_times()),
        ("log_ring", "regression-texts-overlap", overlapping_ring()),
        ("log_flat", "regression-text-longer-than-its-record", overlapping_records()),
    ]
}

/// Names and members that the target asks for.
fn every_kind() -> Vec<u8> {
    let mut b = Builder::new();
    let (int, long, char) = (b.int("int", 4, 32), b.int("long int", 8, 64), b.int("char", 1, 8));
    let pointer = b.pointer(0);
    let list = b.structure("list_head", 16, &[("next", pointer, 0, 0), ("prev", pointer, 64, 0)]);
    let counter = b.structure("", 4, &[("counter", int, 0, 0)]);
    let atomic = b.modifier(8, "atomic_t", counter);
    let text = b.array(char, int, 16);
    let volatile = b.modifier(9, "", text);
    let constant = b.modifier(10, "", volatile);
    let restrict = b.modifier(11, "", constant);
    let tagged = b.modifier(18, "user", restrict);
    let inner = b.structure("", 24, &[("a", long, 0, 0), ("comm", tagged, 64, 0)]);
    let either = b.union("", 24, &[("sibling", list, 0, 0), ("", inner, 0, 0)]);
    let memory = b.structure("memory", 16, &[("base", pointer, 0, 0), ("size", int, 64, 0)]);
    let memories = b.array(memory, int, 3);
    let members = [
        ("usage", atomic, 0, 0),
        ("", either, 64, 0),
        ("mem", memories, 256, 0),
        ("flags", int, 640, 3),
        ("wide", int, 643, 7),
    ];
    b.structure("task", 88, &members);
    let (minus, plus) = (b.name("MINUS"), b.name("PLUS"));
    b.record("level", 6, true, 2, 4, &[minus, u32::MAX, plus, 7]);
    b.record("", 19, false, 1, 8, &[plus, 5, 6]);
    b.record("forward", 7, false, 0, 0, &[]);
    let prototype = b.record("", 13, false, 1, int, &[0, long]);
    let function = b.record("main", 12, false, 0, prototype, &[]);
    let variable = b.record("jiffies", 14, false, 0, long, &[1]);
    b.record(".data", 15, false, 1, 8, &[variable, 0, 8]);
    b.record("double", 16, false, 0, 8, &[]);
    b.record("tag", 17, false, 0, function, &[u32::MAX]);
    b.section()
}

/// Typedefs of structures, arrays of arrays, structures that contain each other.
fn typedefs() -> Builder {
    let mut b = Builder::new();
    let int = b.int("int", 4, 32);
    let row = b.array(int, int, 1 << 20);
    let table = b.array(row, int, 1 << 20);
    b.modifier(8, "memory", table);
    let inner = b.structure("list_head", 8, &[("next", table, 0, 0), ("", int + 5, 0, 0)]);
    b.structure("task", 8, &[("", inner, 0, 0), ("flags", int, 32, 0), ("mem", table, 64, 0)]);
    b
}

/// An image that ends with its tables; with a note, their places are at its start.
fn image(order: Order, kind: Kind, note: bool) -> Vec<u8> {
    let mut symbols: Vec<Symbol> = Vec::new();
    if kind == Kind::Percpu {
        symbols.push((0, 'A', "fixed_percpu_data".to_owned()));
    }
    symbols.push((BASE, 'T', "_text".to_owned()));
    symbols.push((BASE, 'T', "_stext".to_owned()));
    // The structure is only believed from 256 symbols on.
    symbols.extend((0..256).map(|number| (BASE + 0x100 + number * 16, 't', format!("f{number}"))));
    symbols.push((BASE + 0x3000, 'D', format!("sys_{}", "long_init_name".repeat(12))));
    symbols.push((END, 'B', "_end".to_owned()));
    let (mut image, labels) = build(order, kind, &symbols);
    let used = image.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    image.truncate(used.next_multiple_of(8));
    if note {
        let text = places(&labels);
        image[..text.len()].copy_from_slice(text.as_bytes());
    }
    image
}

fn places(labels: &Labels) -> String {
    labels.0.iter().fold("OSRELEASE=6.12.0\n".to_owned(), |text, (name, at)| text + &format!("SYMBOL({name})={at:x}\n"))
}

/// Bytes of the ring of text.
const TEXT: u64 = 256;

fn words(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// `struct prb_desc` and `struct printk_info` on x86-64, and a ring that begins with this number at this position.
fn log_ring(tail: u64, position: u64) -> Vec<u8> {
    const FINALIZED: u64 = 2 << 62;
    let texts = ["first", "second line\nof two", "", "fourth and longest of them all"];
    let (mut descs, mut infos, mut ring) = (Vec::new(), Vec::new(), vec![0; TEXT as usize]);
    let mut begin = position;
    for (number, text) in (0..).zip(texts) {
        let id = tail.wrapping_add(number) & (u64::MAX >> 2);
        let block = (8 + text.len() as u64).next_multiple_of(8);
        let fits = begin % TEXT + block <= TEXT;
        let place = if fits { begin % TEXT } else { 0 } as usize;
        let next = if fits { begin + block } else { (begin / TEXT + 1) * TEXT + block };
        ring[place..place + 8].copy_from_slice(&id.to_le_bytes());
        ring[place + 8..place + 8 + text.len()].copy_from_slice(text.as_bytes());
        // An empty line has no block.
        descs.extend(if text.is_empty() {
            words(&[FINALIZED | id, 3, 3])
        } else {
            words(&[FINALIZED | id, begin, next])
        });
        let mut info = words(&[100 + number, number * 1_000_000]);
        info.extend((text.len() as u16).to_le_bytes());
        info.extend([0, 6 << 5]);
        info.resize(88, 0);
        infos.extend(info);
        begin = next;
    }
    // Sizes and offsets; the level is the upper three bits of byte 19.
    let layout = words(&[24, 0, 8, 16, 88, 0, 8, 16, 18, 19, 5 | 3 << 8]);
    [layout, words(&[tail, texts.len() as u64]), descs, infos, ring].concat()
}

/// `struct printk_log` on x86-64: two records, the marker that ends a round, and a third at the start of the buffer.
fn log_flat() -> Vec<u8> {
    let record = |time: u64, text: &str| {
        let len = (16 + text.len()).next_multiple_of(4);
        let mut bytes = words(&[time]);
        bytes.extend((len as u16).to_le_bytes());
        bytes.extend((text.len() as u16).to_le_bytes());
        bytes.extend([0, 0, 1, 4 << 5]);
        bytes.extend(text.bytes());
        bytes.resize(len, 0);
        bytes
    };
    let mut buffer = record(3000, "wrapped");
    buffer.resize(64, 0xaa);
    buffer.extend(record(1000, "one"));
    buffer.extend(record(2000, "two\n"));
    buffer.resize(128, 0);
    let layout = words(&[16, 0, 8, 10, 14, 15, 5 | 3 << 8]);
    [layout, words(&[64, 40, 43]), buffer].concat()
}

/// Structures of one name that contain themselves without a name, twice.
fn same_name_many_times() -> Vec<u8> {
    let mut b = Builder::new();
    for id in 1..=60 {
        b.structure("task", 8, &[("", id, 0, 0), ("", id, 0, 0)]);
    }
    b.section()
}

/// Each text reaches to the end of the ring, over all the others.
fn overlapping_ring() -> Vec<u8> {
    let (mut descs, mut infos, mut ring) = (Vec::new(), Vec::new(), Vec::new());
    let count = 400;
    for number in 0..count {
        descs.extend(words(&[2 << 62 | number, number * 8, 4096]));
        infos.extend(words(&[u64::from(u16::MAX)]));
        ring.extend(words(&[number]));
    }
    ring.resize(4096, 0);
    // Infos of eight bytes, in which every number is the length of the text.
    let layout = words(&[24, 0, 8, 16, 8, 0, 0, 0, 0, 0, 8 << 8]);
    [layout, words(&[0, count]), descs, infos, ring].concat()
}

/// Records that are headers only and claim a text of 4000 bytes.
fn overlapping_records() -> Vec<u8> {
    let record = [words(&[0]), words(&[16 | 4000 << 16])].concat();
    [words(&[16, 0, 8, 10, 14, 15, 8 << 8, 0, 0, 1000]), record.repeat(500)].concat()
}

/// An entry of the layout cache with every kind of answer, by `os/linux/src/layout_cache/entry.rs`.
fn layout_entry() -> Vec<u8> {
    let mut out = vec![20];
    out.extend([0xab; 20]);
    // The hashes.
    out.extend([0x11; 32]);
    out.extend([0x22; 32]);
    let numbers = |out: &mut Vec<u8>, list: &[u64]| list.iter().for_each(|number| out.extend(number.to_le_bytes()));
    let text = |out: &mut Vec<u8>, text: &str| {
        out.extend((text.len() as u16).to_le_bytes());
        out.extend(text.bytes());
    };
    // The image, the section of types, the symbol table.
    numbers(&mut out, &[0x200_0000, 0x100_0000, 0x5000]);
    out.extend(1000u32.to_le_bytes());
    out.push(2);
    numbers(&mut out, &[0x1000, 0x2000, 0x3000, 0x400, 0x3400, 0x4000]);
    out.push(1);
    numbers(&mut out, &[0x3800]);
    out.extend(2u32.to_le_bytes());
    for (name, given, offset) in [("init_task", 1, 0x5000), ("log_buf", 0, 0)] {
        text(&mut out, name);
        out.push(given);
        numbers(&mut out, &[offset]);
    }
    out.extend(6u32.to_le_bytes());
    text(&mut out, "constant\te\tF");
    out.extend([4, 1]);
    numbers(&mut out, &[u64::MAX]);
    text(&mut out, "field\ttask\tcomm");
    out.push(1);
    numbers(&mut out, &[16, 16]);
    out.extend([0, 0, 0]);
    text(&mut out, "field\ttask\tflags");
    out.push(1);
    numbers(&mut out, &[80, 1]);
    out.extend([1, 3, 5]);
    text(&mut out, "field\ttask\tgone");
    out.push(0);
    text(&mut out, "has\ttask");
    out.extend([3, 1]);
    text(&mut out, "size\ttask");
    out.extend([2, 1]);
    numbers(&mut out, &[96]);
    out
}
