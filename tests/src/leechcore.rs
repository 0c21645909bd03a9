//! LeechCore's library, as the Python package index has it.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::Command,
};

/// The package and the version that is tested.
const PACKAGE: &str = "leechcorepyc==2.23.3";
/// What it takes beside Python itself.
const NEEDS: &str =
    "LeechCore's package needs Python with venv and pip, and libusb: apt install python3-venv libusb-1.0-0";

/// The library, installed into the folder that the tests are built in if it is not there yet.
///
/// # Panics
/// When it cannot be installed: a test that needs it fails.
pub fn leechcore() -> PathBuf {
    let test = std::env::current_exe().unwrap_or_else(|error| panic!("the test's own path: {error}"));
    let Some(target) = test.parent().and_then(Path::parent).and_then(Path::parent) else {
        panic!("{}: no folder above", test.display())
    };
    let folder = target.join(PACKAGE.replace("==", "-"));
    let lock = File::create(folder.with_extension("lock")).and_then(|file| file.lock().map(|()| file));
    let _lock = lock.unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let stamp = folder.join("installed");
    if !stamp.exists() {
        run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&folder));
        run(Command::new(folder.join("bin/pip")).args(["install", "--quiet", "--disable-pip-version-check", PACKAGE]));
        std::fs::write(&stamp, PACKAGE).unwrap_or_else(|error| panic!("{}: {error}", stamp.display()));
    }
    let libraries = std::fs::read_dir(folder.join("lib")).into_iter().flatten().flatten();
    let found = libraries
        .map(|python| python.path().join("site-packages/leechcorepyc/leechcore.so"))
        .find(|library| library.exists());
    found.unwrap_or_else(|| panic!("{PACKAGE} holds no leechcore.so under {}", folder.display()))
}

fn run(command: &mut Command) {
    match command.output() {
        Ok(output) if output.status.success() => {}
        Ok(output) => panic!("{command:?}: {}\n{NEEDS}", String::from_utf8_lossy(&output.stderr)),
        Err(error) => panic!("{command:?}: {error}\n{NEEDS}"),
    }
}
