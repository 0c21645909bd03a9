//! Shared objects as the compilers of this system make them.
#![cfg(target_os = "linux")]

use memflow_core::plugin::{
    analyze::{AnalyzedFile, analyze},
    descriptor::{Descriptor, HOST_TARGET},
};

use super::{
    Rejection,
    build::{TABLE, Workshop, descriptor, source},
    first_reason, host, plugins, rejection,
};

fn analyzed(bytes: &[u8]) -> AnalyzedFile {
    analyze(bytes, &host(HOST_TARGET)).unwrap()
}

/// Why the compiled source is not taken.
fn reason(source: &str) -> String {
    first_reason(&Workshop::new().shared(source), &host(HOST_TARGET)).to_string()
}

#[test]
fn plugin_in_c_is_taken() {
    let file = analyzed(&Workshop::new().shared(&source(&[descriptor(&[])], TABLE)));
    assert_eq!(plugins(&file), [Ok("made")]);
}

#[test]
fn section_is_what_other_tools_extract() {
    let workshop = Workshop::new();
    let descriptors = [descriptor(&[]), descriptor(&[("name", "other"), ("help", "a\\nb")])];
    let file = analyzed(&workshop.shared(&source(&descriptors, TABLE)));
    workshop.run("objcopy", &["-O", "binary", "--only-section=memflow_plugin", "out", "section"]);
    let extracted = Descriptor::parse_section(&workshop.read("section")).unwrap();
    assert_eq!(file.plugins.len(), 2);
    for (ours, extracted) in file.plugins.into_iter().zip(extracted) {
        assert_eq!(ours.unwrap(), extracted.unwrap());
    }
}

#[test]
fn sections_of_several_sources_are_joined() {
    let workshop = Workshop::new();
    // Flags differ, and with them the input sections; alignment pads between them.
    workshop.write("a.c", source(&[descriptor(&[])], TABLE));
    workshop.write(
        "b.c",
        format!(
            "__attribute__((used, aligned(64), section(\"memflow_plugin\"))) static char writable[] = {};",
            descriptor(&[("name", "second")])
        ),
    );
    workshop.run("cc", &["-shared", "-fPIC", "a.c", "b.c", "-o", "out"]);
    assert_eq!(plugins(&analyzed(&workshop.read("out"))), [Ok("made"), Ok("second")]);
}

#[test]
fn plugin_survives_stripping_and_section_collection() {
    let workshop = Workshop::new();
    let flags = ["-shared", "-fPIC", "-s", "-O2", "-ffunction-sections", "-fdata-sections", "-Wl,--gc-sections"];
    let plain = source(&[descriptor(&[])], TABLE);
    // `used` keeps the compiler from dropping the section, `retain` the linker.
    let retained = plain.replace("used, ", "used, retain, ");
    assert_eq!(plugins(&analyzed(&workshop.cc(&retained, &flags))), [Ok("made")]);
    let rejection = rejection(&workshop.cc(&plain, &flags), &host(HOST_TARGET));
    assert!(matches!(rejection, Rejection::NotAPlugin { .. }));
}

#[test]
fn plugin_in_rust_is_taken() {
    let workshop = Workshop::new();
    let text = descriptor(&[]).replace("\" \"", "");
    let text = text.trim();
    workshop.write(
        "in.rs",
        format!(
            "const TEXT: &[u8] = b{text};
             #[used] #[link_section = \"memflow_plugin\"] static DESCRIPTOR: [u8; TEXT.len()] = *b{text};
             pub struct Table {{ size: usize, call: fn() }}
             fn call() {{}}
             #[no_mangle] pub static memflow_plugin_made: Table = Table {{ size: 16, call }};"
        ),
    );
    for optimise in ["0", "2"] {
        let level = format!("opt-level={optimise}");
        workshop.run(
            "rustc",
            &["--edition=2021", "-A", "warnings", "--crate-type=cdylib", "-C", &level, "in.rs", "-o", "out"],
        );
        assert_eq!(plugins(&analyzed(&workshop.read("out"))), [Ok("made")]);
    }
}

#[test]
fn symbols_are_exported_as_nm_says() {
    let workshop = Workshop::new();
    let symbols = "int data = 1; const int constant = 2; int zero; __attribute__((visibility(\"hidden\"))) int hidden = 3;
        static int local = 4; int *use(void) { return &local + hidden; } __thread int of_thread = 5; extern int elsewhere;
        int *far(void) { return &elsewhere; } __attribute__((weak)) int weak = 6;";
    let names = ["data", "constant", "zero", "hidden", "local", "use", "of_thread", "elsewhere", "far", "weak", "none"];
    let descriptors = names.map(|name| descriptor(&[("entry", name)]));
    let bytes = workshop.shared(&source(&descriptors, symbols));
    let listed = workshop.run("nm", &["-D", "--defined-only", "out"]);
    let kind = |name: &str| {
        listed.lines().find_map(|line| {
            let mut words = line.split_whitespace().skip(1);
            let kind = words.next()?;
            (words.next()? == name).then_some(kind)
        })
    };
    for (name, plugin) in names.iter().zip(analyzed(&bytes).plugins) {
        let text = plugin.map_or_else(|plugin| plugin.reason.to_string(), |_| "taken".into());
        let expected = match kind(name) {
            // nm: D data, R read-only data, V weak object, B bss, T code; thread variables are D or B too.
            _ if *name == "of_thread" => "is a variable of each thread, expected data",
            Some("D" | "R" | "V") => "taken",
            Some("B") => "is not in the bytes that are loaded from the file",
            Some("T") => "is a function, expected data",
            None => "is not exported",
            Some(other) => panic!("{name} is {other}"),
        };
        assert!(text.contains(expected), "{name}: {text}, expected {expected}");
    }
}

#[test]
fn program_with_a_plugin_in_it_is_not_a_shared_object() {
    let workshop = Workshop::new();
    let text = source(&[descriptor(&[])], &format!("{TABLE} int main(void) {{ return 0; }}"));
    for (flags, expected) in [
        (&["-pie", "-fPIE", "-rdynamic"][..], "not a shared object: a program (ELF)"),
        (&["-no-pie"], "not a shared object: a program (ELF)"),
        (&["-static-pie", "-fPIE"], "not a shared object: a program (ELF)"),
        (&["-c"], "not a shared object: an object file (ELF); link it with `-shared`"),
    ] {
        let rejection = rejection(&workshop.cc(&text, flags), &host(HOST_TARGET));
        assert_eq!(rejection.to_string(), expected, "{flags:?}");
        assert!(rejection.is_uninteresting());
    }
}

#[test]
fn file_of_debug_symbols_is_told() {
    let workshop = Workshop::new();
    workshop.cc(&source(&[descriptor(&[])], TABLE), &["-shared", "-fPIC", "-g"]);
    workshop.run("objcopy", &["--only-keep-debug", "out", "debug"]);
    let rejection = rejection(&workshop.read("debug"), &host(HOST_TARGET));
    assert_eq!(rejection, Rejection::EmptySection { format: memflow_core::plugin::analyze::Format::Elf });
}

#[test]
fn ordinary_library_is_not_worth_a_word() {
    let workshop = Workshop::new();
    let rejection = rejection(&workshop.shared("int library(void) { return 1; }"), &host(HOST_TARGET));
    assert_eq!(rejection.to_string(), "not a memflow plugin: this ELF file has no section memflow_plugin");
    assert!(rejection.is_uninteresting());
}

#[test]
fn plugin_of_memflow_02_is_told_by_its_exports() {
    for symbol in ["MEMFLOW_CONNECTOR_QEMU", "MEMFLOW_OS_WIN32"] {
        let rejection =
            rejection(&Workshop::new().shared(&format!("long {symbol}[20] = {{ 1 }};")), &host(HOST_TARGET));
        assert_eq!(
            rejection.to_string(),
            format!("a plugin of memflow 0.2 (it exports {symbol}); needs a version built for this one")
        );
        assert!(!rejection.is_uninteresting());
    }
    // It must export it, and a plugin of this version may too.
    let reference = Workshop::new().shared("extern long MEMFLOW_OS_X; long *reference(void) { return &MEMFLOW_OS_X; }");
    assert!(matches!(rejection(&reference, &host(HOST_TARGET)), Rejection::NotAPlugin { .. }));
    let both = source(&[descriptor(&[])], &format!("{TABLE} long MEMFLOW_CONNECTOR_MADE[20] = {{ 1 }};"));
    assert_eq!(plugins(&analyzed(&Workshop::new().shared(&both))), [Ok("made")]);
}

#[test]
fn bad_descriptors_are_told_one_by_one() {
    let text = source(
        &[
            descriptor(&[("abi", "2.0")]),
            descriptor(&[("name", "Wrong")]),
            descriptor(&[("target", "x86_64-pc-windows-msvc")]),
            descriptor(&[("name", "good")]),
            descriptor(&[("name", "missing"), ("entry", "nothing")]),
            descriptor(&[("memflow_plugin", "7")]),
        ],
        TABLE,
    );
    let file = analyzed(&Workshop::new().shared(&text));
    let [Err(abi), Err(name), Err(target), Ok("good"), Err(entry), Err(format)] = &plugins(&file)[..] else {
        panic!("{:?}", plugins(&file))
    };
    assert_eq!(
        abi,
        "connector `made` 1.2.3: ABI 2.0, this build takes 1.x (it is 1.1); update memflow, or rebuild the plugin for this one"
    );
    assert!(name.starts_with("descriptor 1: `name`: expected "), "{name}");
    assert_eq!(
        *target,
        format!(
            "connector `made` 1.2.3: built for x86_64-pc-windows-msvc, this is {HOST_TARGET}; build the plugin for {HOST_TARGET}"
        )
    );
    assert!(entry.starts_with("connector `missing` 1.2.3: entry `nothing` is not exported"), "{entry}");
    assert!(format.starts_with("descriptor of `made`: descriptor format 7, this build reads 1"), "{format}");
}

#[test]
fn section_without_a_descriptor_is_told() {
    let attribute = "__attribute__((used, section(\"memflow_plugin\"))) static const";
    assert_eq!(reason(&format!("{attribute} char zeros[100];")), "the section is empty, expected `memflow_plugin=1`");
    assert_eq!(
        reason(&format!("{attribute} char text[] = \"name=x\";")),
        "at offset 0x0: expected `memflow_plugin=1`, found `name=x`"
    );
    assert_eq!(
        reason(&format!("{attribute} char much[(1 << 20) + 1] = \"memflow_plugin=1\";")),
        "the section holds 1048577 bytes, at most 1048576 are read; shorten the help text"
    );
}
