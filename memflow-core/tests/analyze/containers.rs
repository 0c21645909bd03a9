//! What is read of good files, and on which hosts they are taken.

use memflow_core::plugin::{
    analyze::{Architecture, Format, analyze},
    descriptor::{Accepts, PluginKind},
};

use super::{FIXTURES, HostAbi, LINUX, Rejection, build::Elf64, fixture, host, linux, plugins, rejection};

#[test]
fn file_is_taken_by_the_host_that_it_was_built_for_and_by_no_other() {
    for (name, target) in FIXTURES {
        let bytes = fixture(name);
        for (_, other) in FIXTURES {
            match analyze(&bytes, &host(other)) {
                Ok(file) => {
                    assert_eq!(other, target);
                    assert_eq!(plugins(&file), [Ok("one"), Ok("two")], "{name}");
                }
                Err(Rejection::OtherMachine { host, .. }) if other != target => assert_eq!(host, other),
                Err(rejection) => panic!("{name} on {other}: {rejection}"),
            }
        }
    }
}

#[test]
fn machine_is_what_the_file_says() {
    let machines = FIXTURES.map(|(name, target)| analyze(&fixture(name), &host(target)).unwrap().machine.to_string());
    assert_eq!(
        machines,
        [
            "x86_64 (64-bit ELF)",
            "x86 (32-bit ELF)",
            "aarch64 (64-bit ELF)",
            "s390x (64-bit big-endian ELF)",
            "x86_64 (64-bit PE)",
            "x86 (32-bit PE)",
            "x86_64 (64-bit Mach-O)",
            "aarch64 (64-bit Mach-O)",
        ]
    );
}

#[test]
fn descriptor_arrives_from_every_format() {
    for (name, target) in FIXTURES {
        let file = analyze(&fixture(name), &host(target)).unwrap();
        let [Ok(one), Ok(two)] = &file.plugins[..] else { panic!("{name}: {:?}", plugins(&file)) };
        assert_eq!((one.kind, two.kind), (PluginKind::Connector, PluginKind::Os));
        assert_eq!((one.target.as_str(), one.entry.as_str()), (target, "memflow_plugin_one"));
        assert_eq!((&one.accepts[..], one.args.len(), one.help.as_str()), (&[Accepts::Content][..], 1, ""));
        assert_eq!((&two.accepts[..], two.args.len(), two.help.as_str()), (&[][..], 0, "several\nlines"));
    }
}

#[test]
fn same_machine_and_another_target_is_told_from_the_descriptor() {
    for (host, target) in [
        ("x86_64-unknown-linux-musl", "x86_64-unknown-linux-gnu"),
        ("x86_64-linux-android", "x86_64-unknown-linux-gnu"),
    ] {
        let file = analyze(&linux(), &super::host(host)).unwrap();
        let expected =
            format!("connector `one` 0.1.0: built for {target}, this is {host}; build the plugin for {host}");
        assert_eq!(plugins(&file)[0], Err(expected));
    }
    let file = analyze(&fixture("x86_64-pc-windows-gnu.dll"), &host("x86_64-pc-windows-msvc")).unwrap();
    assert!(
        file.plugins
            .iter()
            .all(|plugin| matches!(plugin.as_ref().map_err(|plugin| &plugin.reason), Err(Rejection::Target { .. })))
    );
}

#[test]
fn host_that_is_not_known_is_compared_by_its_triple() {
    let file = analyze(&linux(), &host("sparc64-unknown-linux-gnu")).unwrap();
    assert!(plugins(&file)[0].as_ref().unwrap_err().contains("this is sparc64-unknown-linux-gnu"));
}

#[test]
fn other_machine_names_both_sides() {
    let text = rejection(&fixture("s390x-unknown-linux-gnu.so"), &LINUX).to_string();
    assert_eq!(
        text,
        "built for s390x (64-bit big-endian ELF), this is x86_64-unknown-linux-gnu; needs a build for x86_64-unknown-linux-gnu"
    );
    // A number without a name here, the other byte order, the other class in the header alone.
    let patched = Elf64(linux()).set(0x12, 2, 0xbeef).0;
    assert!(rejection(&patched, &LINUX).to_string().starts_with("built for machine 0xbeef (64-bit ELF), this is "));
    let freebsd = Elf64(linux()).set(7, 1, 9).0;
    assert!(rejection(&freebsd, &LINUX).to_string().starts_with("built for x86_64 (64-bit ELF of FreeBSD), "));
    // What GNU tools write when a file makes use of their extensions.
    let gnu = Elf64(linux()).set(7, 1, 3).0;
    assert!(analyze(&gnu, &LINUX).is_ok());
}

#[test]
fn abi_of_another_major_version_is_refused_with_both_versions() {
    let bytes = linux();
    for (version, text) in [
        ((2, 3), "ABI 1.1, this build takes 2.x (it is 2.3); rebuild the plugin with a newer memflow"),
        ((0, 9), "ABI 1.1, this build takes 0.x (it is 0.9); update memflow, or rebuild the plugin for this one"),
    ] {
        let version = memflow_core::plugin::descriptor::AbiVersion::new(version.0, version.1);
        let file = analyze(&bytes, &HostAbi { version, ..LINUX }).unwrap();
        assert_eq!(plugins(&file)[1], Err(format!("OS layer `two` 0.1.0: {text}")));
    }
    for minor in [0, 1, 2, u16::MAX] {
        let version = memflow_core::plugin::descriptor::AbiVersion::new(1, minor);
        let file = analyze(&bytes, &HostAbi { version, ..LINUX }).unwrap();
        assert_eq!(plugins(&file), [Ok("one"), Ok("two")]);
    }
}

/// `mach-o/fat.h`: a header, then for each slice its architecture, offset, size and alignment.
fn fat(slices: &[(u32, &[u8])], wide: bool) -> Vec<u8> {
    let mut out = (if wide { 0xcafe_babf_u32 } else { 0xcafe_babe }).to_be_bytes().to_vec();
    out.extend((slices.len() as u32).to_be_bytes());
    let mut offset = 0x4000_u32;
    for (cpu, bytes) in slices {
        out.extend(cpu.to_be_bytes());
        out.extend([0; 4]);
        for value in [offset, bytes.len() as u32] {
            out.extend(wide.then_some([0; 4]).into_iter().flatten());
            out.extend(value.to_be_bytes());
        }
        out.extend(14_u32.to_be_bytes());
        out.extend(wide.then_some([0; 4]).into_iter().flatten());
        offset += (bytes.len() as u32).next_multiple_of(0x4000);
    }
    for (_, bytes) in slices {
        out.resize(out.len().next_multiple_of(0x4000), 0);
        out.extend(*bytes);
    }
    out
}

const X86_64: u32 = 0x0100_0007;
const ARM64: u32 = 0x0100_000c;

#[test]
fn slice_of_the_host_is_picked() {
    let (intel, arm) = (fixture("x86_64-apple-darwin.dylib"), fixture("aarch64-apple-darwin.dylib"));
    for wide in [false, true] {
        let both = fat(&[(X86_64, &intel), (ARM64, &arm)], wide);
        for (target, architecture) in [("x86_64-apple-darwin", "x86_64"), ("aarch64-apple-darwin", "aarch64")] {
            let file = analyze(&both, &host(target)).unwrap();
            assert_eq!(file.machine.architecture, Architecture::Named(architecture));
            assert_eq!(plugins(&file), [Ok("one"), Ok("two")]);
        }
        // Nothing for this host: the first is told about.
        let Rejection::OtherMachine { found, .. } = rejection(&both, &LINUX) else { panic!() };
        assert_eq!((found.format, found.architecture), (Format::MachO, Architecture::Named("x86_64")));
        let only_intel = fat(&[(X86_64, &intel)], wide);
        assert!(matches!(rejection(&only_intel, &host("aarch64-apple-darwin")), Rejection::OtherMachine { .. }));
    }
}

#[test]
fn fat_file_with_bad_slices_is_refused() {
    let intel = fixture("x86_64-apple-darwin.dylib");
    let mac = host("x86_64-apple-darwin");
    let good = fat(&[(X86_64, &intel)], false);
    for (at, value, expected) in [
        (16, 0xffff_ff00_u32, "cut short: a slice"),
        (20, 0xffff_ffff, "cut short: a slice"),
        (16, 0, "a slice at offset 0x0: expected a Mach-O file, found magic number 0xcafebabe"),
        (4, 0, "the list of slices at offset 0x0: expected at least one, found none"),
        (4, 0xffff_ffff, "a class file of Java"),
    ] {
        let mut bytes = good.clone();
        bytes[at..at + 4].copy_from_slice(&value.to_be_bytes());
        let text = rejection(&bytes, &mac).to_string();
        assert!(text.contains(expected), "{text}");
    }
    // A list that does not fit the file.
    assert!(rejection(&good[..20], &mac).to_string().contains("cut short: the list of slices"));
}

#[test]
fn newer_command_for_exports_is_read() {
    let mut bytes = fixture("x86_64-apple-darwin.dylib");
    let word = |bytes: &[u8], at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
    let (mut at, mut info, mut data_in_code) = (32, 0, 0);
    for _ in 0..word(&bytes, 16) {
        match word(&bytes, at) {
            // LC_DYLD_INFO_ONLY, LC_DATA_IN_CODE
            0x8000_0022 => info = at,
            0x29 => data_in_code = at,
            _ => {}
        }
        at += word(&bytes, at + 4) as usize;
    }
    // Its layout is that of LC_DYLD_EXPORTS_TRIE.
    bytes.copy_within(info + 40..info + 48, data_in_code + 8);
    bytes[data_in_code..data_in_code + 4].copy_from_slice(&0x8000_0033_u32.to_le_bytes());
    bytes[info..info + 4].copy_from_slice(&0x7000_0000_u32.to_le_bytes());
    let file = analyze(&bytes, &host("x86_64-apple-darwin")).unwrap();
    assert_eq!(plugins(&file), [Ok("one"), Ok("two")]);
    // And without either, nothing is exported.
    bytes[data_in_code..data_in_code + 4].copy_from_slice(&0x7000_0001_u32.to_le_bytes());
    let file = analyze(&bytes, &host("x86_64-apple-darwin")).unwrap();
    assert!(plugins(&file)[0].as_ref().unwrap_err().contains("`memflow_plugin_one` is not exported"));
}

/// Changes the entry symbol that the first descriptor names, to another of at most the same length.
fn with_entry(name: &str, symbol: &str) -> Vec<u8> {
    let mut bytes = fixture(name);
    let entry = b"entry=memflow_plugin_one\0";
    let at = bytes.windows(entry.len()).position(|window| window == entry).unwrap();
    let mut text = format!("entry={symbol}\0").into_bytes();
    assert!(text.len() <= entry.len());
    text.resize(entry.len(), 0);
    bytes[at..at + entry.len()].copy_from_slice(&text);
    bytes
}

#[test]
fn entry_must_be_exported_data_of_the_file_in_every_format() {
    for (name, target) in FIXTURES {
        for (symbol, expected) in [
            (
                "absent",
                "entry `absent` is not exported; check its spelling, and that it is neither hidden nor stripped",
            ),
            (
                "memflow_plugin_on",
                "entry `memflow_plugin_on` is not exported; check its spelling, and that it is neither hidden nor stripped",
            ),
            ("function", "entry `function` is a function, expected data"),
            (
                "descriptors",
                "entry `descriptors` is not exported; check its spelling, and that it is neither hidden nor stripped",
            ),
        ] {
            let file = analyze(&with_entry(name, symbol), &host(target)).unwrap();
            // The other plugin of the file is none the worse for it.
            let expected = format!("connector `one` 0.1.0: {expected}");
            assert_eq!(plugins(&file), [Err(expected), Ok("two")], "{name}");
        }
        let file = analyze(&with_entry(name, "uninitialised"), &host(target)).unwrap();
        let text = plugins(&file)[0].clone().unwrap_err();
        assert!(
            text.starts_with("connector `one` 0.1.0: entry `uninitialised` at address 0x")
                && text.ends_with(" is not in the bytes that are loaded from the file, expected initialised data"),
            "{name}: {text}"
        );
        // Two plugins may share an entry table.
        let file = analyze(&with_entry(name, "memflow_plugin_two"), &host(target)).unwrap();
        assert_eq!(plugins(&file), [Ok("one"), Ok("two")]);
    }
}
