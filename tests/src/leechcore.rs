//! LeechCore's library, as the Python package index has it.

use std::path::PathBuf;

use crate::python::environment;

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
    let folder = environment(&PACKAGE.replace("==", "-"), &[PACKAGE], NEEDS);
    let libraries = std::fs::read_dir(folder.join("lib")).into_iter().flatten().flatten();
    let found = libraries
        .map(|python| python.path().join("site-packages/leechcorepyc/leechcore.so"))
        .find(|library| library.exists());
    found.unwrap_or_else(|| panic!("{PACKAGE} holds no leechcore.so under {}", folder.display()))
}
