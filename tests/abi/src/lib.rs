//! Plugins and hosts of several versions of the plugin ABI, built from what is frozen beside this file.
//!
//! `1.0/` and its like hold what a version was when the next one came: the C header, the record of the layout, and for Rust the
//! structures and a plugin. `c/` holds programs that are built against any of these headers.
//!
//! Owns: how they are built. Must not know: what they do. Must not be used by anything but tests.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// A path below `tests/abi`.
pub fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// The folder of the current header.
pub fn current() -> PathBuf {
    path("../../memflow-abi/include")
}

/// The frozen versions, as `major.minor`, with their folders, in order.
pub fn frozen() -> Vec<(String, PathBuf)> {
    let folders = fs::read_dir(path("")).unwrap().map(|entry| entry.unwrap());
    let named = folders.filter_map(|entry| Some((entry.file_name().into_string().ok()?, entry.path())));
    let mut found: Vec<_> = named.filter(|(name, _)| name.starts_with(|c: char| c.is_ascii_digit())).collect();
    found.sort();
    found
}

/// Runs a command and returns what it prints; what goes wrong is in the message of the panic.
pub fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| {
        panic!("{:?} cannot be started: {error}; a compiler for C is needed: apt install gcc", command.get_program())
    });
    let [printed, errors] = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    assert!(output.status.success(), "{command:?} ended with {}:\n{printed}{errors}", output.status);
    printed
}

/// Compiles a program of `c/` against the header in `include`. Several processes may do so at once: each has its own output until it is
/// whole.
pub fn compile(include: &Path, source: &str, output: &Path, options: &[&str]) {
    let unfinished = output.with_extension(std::process::id().to_string());
    run(Command::new("cc")
        .args(["-std=c11", "-O1", "-g", "-Wall", "-Wextra", "-Wno-missing-field-initializers", "-Werror", "-pedantic"])
        .arg("-I")
        .args([include, &path("c").join(source)])
        .arg("-o")
        .arg(&unfinished)
        .args(options));
    fs::rename(unfinished, output).unwrap();
}

/// The connector in C, built as a plugin against the header in `include`.
pub fn connector(include: &Path, output: &Path, options: &[&str]) {
    compile(include, "connector.c", output, &[&["-shared", "-fPIC"], options].concat());
}

/// Where cargo puts what it builds for the running test.
fn profile_folder() -> PathBuf {
    let program = std::env::current_exe().unwrap();
    // `TARGET/debug/deps/test-…`
    program.ancestors().nth(2).unwrap().to_owned()
}

fn cargo(arguments: &[&str], folder: &Path, target: &Path) {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["build", "--quiet", "--locked"]).args(arguments).current_dir(folder);
    run(cargo.env("CARGO_TARGET_DIR", target));
}

/// The plugins of this tree: `snapshot` and `linux`.
pub fn tree() -> [PathBuf; 2] {
    let folder = profile_folder();
    let release = if folder.ends_with("release") { &["--release"][..] } else { &[] };
    let packages = [&["-p", "memflow-snapshot", "-p", "memflow-linux"], release].concat();
    cargo(&packages, &path("../.."), folder.parent().unwrap());
    ["snapshot", "linux"].map(|name| folder.join(library(name)))
}

/// The plugin in Rust of a frozen version. Its dependencies are its own, as they were: the first build takes a while.
pub fn rust_plugin(frozen: &Path) -> PathBuf {
    build_rust_plugin(frozen, &frozen.join("plugin"), "older")
}

/// The same as library `name`, with other structures: in the crate that it is built against, the first of each pair is replaced by the
/// second. `scratch` is a folder for that.
pub fn altered_rust_plugin(frozen: &Path, scratch: &Path, name: &str, changes: &[(&str, &str)]) -> PathBuf {
    let library = format!("memflow_{name}");
    for (file, changes) in [
        ("memflow-abi/Cargo.toml", &[][..]),
        ("memflow-abi/src/lib.rs", changes),
        ("plugin/Cargo.toml", &[("memflow_older", library.as_str())]),
        ("plugin/Cargo.lock", &[]),
        ("plugin/build.rs", &[]),
        ("plugin/src/lib.rs", &[]),
    ] {
        let mut text = fs::read_to_string(frozen.join(file)).unwrap();
        for (from, to) in changes {
            assert!(text.contains(from), "{file} has no {from}");
            text = text.replace(from, to);
        }
        let place = scratch.join(file);
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        fs::write(place, text).unwrap();
    }
    build_rust_plugin(frozen, &scratch.join("plugin"), name)
}

fn build_rust_plugin(frozen: &Path, package: &Path, name: &str) -> PathBuf {
    let target = profile_folder().with_file_name(format!("abi-{}", frozen.file_name().unwrap().display()));
    cargo(&[], package, &target);
    target.join("debug").join(library(name))
}

fn library(name: &str) -> String {
    format!("{}memflow_{name}{}", std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX)
}
