//! Shared objects, good and bad, and what is said about them before anything of them is loaded.
//!
//! Must not know: how the analyser reads a file. What a file holds is known from what made it and from other programs that read it.

mod build;
mod compiled;
mod containers;
mod damage;
mod old_defects;

use std::{fs, path::Path};

use memflow_core::plugin::{
    analyze::{AnalyzedFile, HostAbi, Rejection, analyze},
    descriptor::AbiVersion,
};

/// The fixtures: file, target.
const FIXTURES: [(&str, &str); 8] = [
    ("x86_64-unknown-linux-gnu.so", "x86_64-unknown-linux-gnu"),
    ("i686-unknown-linux-gnu.so", "i686-unknown-linux-gnu"),
    ("aarch64-unknown-linux-gnu.so", "aarch64-unknown-linux-gnu"),
    ("s390x-unknown-linux-gnu.so", "s390x-unknown-linux-gnu"),
    ("x86_64-pc-windows-gnu.dll", "x86_64-pc-windows-gnu"),
    ("i686-pc-windows-gnu.dll", "i686-pc-windows-gnu"),
    ("x86_64-apple-darwin.dylib", "x86_64-apple-darwin"),
    ("aarch64-apple-darwin.dylib", "aarch64-apple-darwin"),
];

/// The ABI that the fixtures were built with.
const ABI: AbiVersion = AbiVersion::new(1, 1);

fn fixture(name: &str) -> Vec<u8> {
    fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/plugins").join(name)).unwrap()
}

/// The fixture that is small and ELF.
fn linux() -> Vec<u8> {
    fixture("x86_64-unknown-linux-gnu.so")
}

const LINUX: HostAbi<'static> = host("x86_64-unknown-linux-gnu");

const fn host(target: &str) -> HostAbi<'_> {
    HostAbi { version: ABI, target }
}

/// What becomes of each plugin of a file: its name, or the reason.
fn plugins(file: &AnalyzedFile) -> Vec<Result<&str, String>> {
    file.plugins
        .iter()
        .map(|plugin| plugin.as_ref().map(|plugin| plugin.name.as_str()).map_err(ToString::to_string))
        .collect()
}

/// Why a file is not taken, as a whole.
fn rejection(bytes: &[u8], host: &HostAbi<'_>) -> Rejection {
    match analyze(bytes, host) {
        Ok(file) => panic!("taken: {:?}", plugins(&file)),
        Err(rejection) => rejection,
    }
}

/// Why the first plugin of a file is not taken, with or without the others.
fn first_reason(bytes: &[u8], host: &HostAbi<'_>) -> Rejection {
    match analyze(bytes, host) {
        Ok(file) => file.plugins.into_iter().next().unwrap().unwrap_err().reason,
        Err(rejection) => rejection,
    }
}
