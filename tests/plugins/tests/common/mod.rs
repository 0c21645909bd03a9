//! Shared libraries for tests: built by cargo or by the compiler for C.
#![allow(dead_code, reason = "each test program uses some of it")]

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use memflow_core::plugin::Inventory;

/// The root of the tree.
pub(crate) fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

/// Runs a command that must succeed, and returns what it prints.
#[track_caller]
pub(crate) fn run(command: &mut Command, needs: &str) -> String {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{:?} cannot be started: {error}; apt install {needs}", command.get_program()));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?} ended with {}:\n{errors}", output.status);
    String::from_utf8(output.stdout).unwrap()
}

/// The folder that cargo builds into.
pub(crate) fn target() -> PathBuf {
    // The tests' own folder for scratch files is in the target folder.
    Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap().to_owned()
}

/// Builds packages of the tree, and returns the folder of their libraries.
pub(crate) fn build(args: &[&str]) -> PathBuf {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["build", "--quiet", "--offline", "--target-dir"]).arg(target()).args(args).current_dir(root());
    run(&mut cargo, "cargo");
    target().join("debug")
}

/// The plugins that misbehave.
pub(crate) fn misbehaving() -> PathBuf {
    build(&["-p", "memflow-test-plugins", "--lib"]).join("libmisbehaving.so")
}

/// A shared library or, without `-shared`, a program in C.
pub(crate) fn compile(source: &Path, name: &str, args: &[&str]) -> PathBuf {
    let output = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let mut cc = Command::new("cc");
    cc.args(["-std=c11", "-O1", "-g", "-Wall", "-Wextra", "-Wno-missing-field-initializers", "-Werror"]).args(args);
    cc.arg("-I").arg(root().join("memflow-abi/include")).arg("-I").arg(root().join("examples/c-connector"));
    run(cc.arg(source).arg("-o").arg(&output), "gcc");
    output
}

/// An inventory of one file, all of which is taken.
pub(crate) fn inventory(path: &Path) -> Inventory {
    let inventory = Inventory::builder().file(path).build();
    assert!(inventory.rejected().is_empty(), "{:?}", inventory.rejected());
    inventory
}
