//! What went wrong in the plugin analyser of memflow 0.2.4, and does not here.

use memflow_core::plugin::analyze::{Format, Rejection, analyze};

use super::{
    LINUX,
    build::{DYNAMIC, Elf64, LOAD},
    first_reason, linux, plugins, rejection,
};

/// It panicked ("invalid offset"), and with it the whole scan.
#[test]
fn segment_outside_the_file_is_a_rejection() {
    let elf = Elf64(linux());
    for at in elf.segments(LOAD) {
        for (field, value) in [(8, 0x10_0000), (8, u64::MAX), (8, u64::MAX - 7), (32, 1 << 40), (32, u64::MAX)] {
            let bytes = Elf64(linux()).set(at + field, 8, value).0;
            assert!(
                matches!(rejection(&bytes, &LINUX), Rejection::Truncated { what: "a segment", size, .. } if size == bytes.len() as u64),
                "{value:#x} at {field}"
            );
        }
    }
}

/// Files of less than four bytes panicked.
#[test]
fn file_shorter_than_a_magic_number_is_a_rejection() {
    assert_eq!(rejection(b"", &LINUX).to_string(), "not a shared object: an empty file");
    let full = linux();
    for len in 1..4 {
        assert!(matches!(rejection(&full[..len], &LINUX), Rejection::NotSharedObject { .. }), "{len}");
    }
    for bytes in [&b"M"[..], b"\xcf\xfa", b"\xca\xfe\xba", b"#!", b"\n"] {
        assert!(matches!(rejection(bytes, &LINUX), Rejection::NotSharedObject { .. }), "{bytes:x?}");
    }
    assert_eq!(
        rejection(b"/* GNU ld script */", &LINUX).to_string(),
        "not a shared object: begins with `/* GNU l`, expected the first bytes of an ELF, PE or Mach-O file"
    );
    assert_eq!(
        rejection(b"MZ", &LINUX).to_string(),
        "PE file cut short: the offset of the PE header, 4 bytes at offset 0x3c, leaves the 2 bytes that are there; copy it again"
    );
}

/// Offset and length, value and size were added without a look at the sum.
#[test]
fn sums_past_the_largest_number_are_rejections() {
    let elf = Elf64(linux());
    let section = elf.section("memflow_plugin");
    let symbol = elf.symbol("memflow_plugin_one");
    let set = |at, value| Elf64(linux()).set(at, 8, value).0;
    for (offset, size) in [(u64::MAX, 0x170), (u64::MAX - 0x16f, 0x170), (0x2c0, u64::MAX), (0x2c0, u64::MAX - 0x2bf)] {
        let bytes = Elf64(set(section + 0x18, offset)).set(section + 0x20, 8, size).0;
        let rejection = rejection(&bytes, &LINUX);
        assert!(matches!(rejection, Rejection::Truncated { .. } | Rejection::Descriptor(_)), "{rejection}");
    }
    for (field, value) in [(8, u64::MAX), (8, u64::MAX - 7), (16, u64::MAX), (16, u64::MAX - 0x1f00)] {
        let text = first_reason(&set(symbol + field, value), &LINUX).to_string();
        assert!(text.contains("is not in the bytes that are loaded"), "{text}");
    }
    // Tables: section headers, program headers.
    for at in [0x28, 0x20] {
        for value in [u64::MAX, u64::MAX - 63, i64::MAX as u64] {
            assert!(matches!(rejection(&set(at, value), &LINUX), Rejection::Truncated { .. }));
        }
    }
}

/// Text of a descriptor was taken for UTF-8 without a look.
#[test]
fn text_that_is_not_utf8_is_a_rejection() {
    let mut bytes = linux();
    let text = b"description=a fixture";
    let at = bytes.windows(text.len()).position(|window| window == text).unwrap() + text.len() - 1;
    bytes[at] = 0xff;
    let file = analyze(&bytes, &LINUX).unwrap();
    let [Err(bad), Ok("two")] = &plugins(&file)[..] else { panic!() };
    assert!(bad.starts_with("descriptor of `one`: at offset 0x") && bad.ends_with(": not UTF-8"), "{bad}");
}

#[test]
fn descriptor_outside_the_file_is_told() {
    let elf = Elf64(linux());
    let at = elf.section("memflow_plugin") + 0x18;
    let text = rejection(&elf.set(at, 8, 0x10_0000).0, &LINUX).to_string();
    assert_eq!(
        text,
        "ELF file cut short: the descriptor section, 368 bytes at offset 0x100000, leaves the 5160 bytes that are there; copy it again"
    );
}

#[test]
fn broken_tables_say_which_and_where() {
    let elf = Elf64(linux());
    let (dynsym, dynamic) = (elf.section(".dynsym"), elf.segments(DYNAMIC)[0]);
    let cases: [(usize, usize, u64, &str); 12] = [
        (4, 1, 3, "malformed ELF file: the class at offset 0x4: expected 1 or 2, found 3; build or copy it again"),
        (5, 1, 0, "malformed ELF file: the byte order at offset 0x5: expected 1 or 2, found 0; build or copy it again"),
        (0x10, 2, 4, "not a shared object: a memory image (ELF core)"),
        (0x10, 2, 0xfe00, "not a shared object: an ELF file of no known type"),
        (0x36, 2, 55, "the size of a program header at offset 0x0: expected 56, found 55"),
        (0x3a, 2, 0, "the size of a section header at offset 0x0: expected 64, found 0"),
        (0x3c, 2, 0xfffe, "cut short: the section headers"),
        (0x3e, 2, 0xfff0, "the index of the section names at offset 0x0: expected less than 14, found 65520"),
        (0x38, 2, 0, "no dynamic section (ELF); link it with `-shared`"),
        (dynamic + 8, 8, 1 << 50, "cut short: the dynamic section"),
        (
            dynsym + 0x20,
            8,
            24 * (1 << 22) + 24,
            "dynamic symbols at offset 0x1b8: expected at most 4194304, found 4194305",
        ),
        (dynsym + 0x28, 4, 0xffff_ffff, "cut short: the section headers"),
    ];
    for (at, width, value, expected) in cases {
        let text = rejection(&Elf64(linux()).set(at, width, value).0, &LINUX).to_string();
        assert!(text.contains(expected), "{text}, expected {expected}");
    }
    // What only an entry needs is told of each plugin.
    let file = analyze(&Elf64(linux()).set(dynsym + 0x18, 8, 1 << 50).0, &LINUX).unwrap();
    for plugin in &file.plugins {
        let reason = &plugin.as_ref().unwrap_err().reason;
        assert!(
            matches!(reason, Rejection::Truncated { format: Format::Elf, what: "the dynamic symbols", .. }),
            "{reason}"
        );
    }
}

/// Number of section headers in the first of them, as files with very many have it.
#[test]
fn extended_number_of_sections_is_read() {
    let elf = Elf64(linux());
    let first = elf.get(0x28, 8) as usize;
    let (count, names) = (elf.get(0x3c, 2), elf.get(0x3e, 2));
    let elf = elf.set(0x3c, 2, 0).set(first + 0x20, 8, count).set(0x3e, 2, 0xffff).set(first + 0x28, 4, names);
    assert_eq!(plugins(&analyze(&elf.0, &LINUX).unwrap()), [Ok("one"), Ok("two")]);
    let huge = elf.set(first + 0x20, 8, 1 << 60);
    assert!(matches!(rejection(&huge.0, &LINUX), Rejection::Truncated { what: "the section headers", .. }));
}
