//! The connector in C compiles without a warning, is a plugin that this build takes, and reads what its file holds.
//!
//! Must not know: how plugins are loaded; the library's own tests do.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use memflow_core::plugin::{
    ABI,
    analyze::{HostAbi, analyze},
};

fn folder() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Runs a command and returns what it prints.
fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| {
        panic!("{:?} cannot be started: {error}; a compiler for C is needed: apt install gcc", command.get_program())
    });
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?} ended with {}:\n{errors}", output.status);
    String::from_utf8(output.stdout).unwrap()
}

fn compile(source: &Path, name: &str, args: &[&str]) -> PathBuf {
    let output = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    run(Command::new("cc")
        .args(["-std=c11", "-O1", "-Wall", "-Wextra", "-Wno-missing-field-initializers", "-Werror", "-pedantic"])
        .args(args)
        .arg("-I")
        .arg(folder().join("../memflow-abi/include"))
        .arg("-I")
        .arg(folder().join("c-connector"))
        .arg(source)
        .arg("-o")
        .arg(&output));
    output
}

#[test]
fn shared_object_is_a_plugin_that_this_build_takes() {
    let library = compile(&folder().join("c-connector/raw_file.c"), "craw.so", &["-shared", "-fPIC"]);
    let file = analyze(&fs::read(library).unwrap(), &HostAbi::this_build(ABI)).unwrap();
    let [Ok(plugin)] = file.plugins.as_slice() else { panic!("{:?}", file.plugins) };
    assert_eq!((plugin.name.as_str(), plugin.entry.as_str(), plugin.abi), ("craw", "craw_entry", ABI));
    assert_eq!(plugin.args, ["base:number:0:physical address of the first byte of the file"]);
}

#[test]
fn reads_and_refusals_are_as_the_interface_says() {
    let image = Path::new(env!("CARGO_TARGET_TMPDIR")).join("craw-image");
    fs::write(&image, "0123456789").unwrap();
    let program = compile(&folder().join("tests/c_connector.c"), "craw-driver", &[]);
    let printed = run(Command::new(program).arg(&image));
    // Status, offset, address, buffer of 4 bytes that held dots: the image lies from 16 to 26.
    let expected = "name craw craw-image, from 16, 10 bytes\n\
                    at 16: 1 0 0 0123\n\
                    at 22: 1 0 0 6789\n\
                    at 24: 4 2 26 89..\n\
                    at 26: 4 0 26 ....\n\
                    at 14: 4 0 14 ..01\n\
                    at 18446744073709551614: 6 0 0 ....\n\
                    of none at 0: 1\n\
                    cut short, at 18: 5 1 19 2...\n\
                    argument 11: argument base is no number below 2^64, expected decimal, or hexadecimal with 0x\n\
                    argument 11: argument base is too high: the image would leave the address space; give a lower one\n\
                    argument 11: no target was given, expected the path of a raw memory image\n\
                    folder 5: the image is empty or no regular file, expected a raw memory image\n\
                    absent 6: the image cannot be opened; check that it exists and may be read\n";
    assert_eq!(printed, expected);
}
