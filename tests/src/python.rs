//! Python packages for tests, as the package index has them.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::Command,
};

/// The other readers of dumps, in the versions that are tested.
const READERS: [&str; 2] = ["drgn==0.3.0", "volatility3==2.28.2"];

/// The Python that has drgn and volatility3.
///
/// # Panics
/// When they cannot be installed: a test that needs them fails.
pub fn readers() -> PathBuf {
    let needs = "drgn and volatility3 need Python with venv and pip (apt install python3-venv), and the network when they are installed first";
    environment("readers", &READERS, needs).join("bin/python")
}

/// A folder with Python and these packages, installed into the folder that the tests are built in if it is not there yet. `needs` is
/// said when that fails.
pub(crate) fn environment(name: &str, packages: &[&str], needs: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap_or_else(|error| panic!("the test's own path: {error}"));
    let Some(target) = test.parent().and_then(Path::parent).and_then(Path::parent) else {
        panic!("{}: no folder above", test.display())
    };
    let folder = target.join(name);
    let lock = File::create(folder.with_extension("lock")).and_then(|file| file.lock().map(|()| file));
    let _lock = lock.unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let (stamp, wanted) = (folder.join("installed"), packages.join("\n"));
    if std::fs::read_to_string(&stamp).ok().as_ref() != Some(&wanted) {
        run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&folder), needs);
        let mut pip = Command::new(folder.join("bin/pip"));
        run(pip.args(["install", "--quiet", "--disable-pip-version-check"]).args(packages), needs);
        std::fs::write(&stamp, wanted).unwrap_or_else(|error| panic!("{}: {error}", stamp.display()));
    }
    folder
}

fn run(command: &mut Command, needs: &str) {
    match command.output() {
        Ok(output) if output.status.success() => {}
        Ok(output) => panic!("{command:?}: {}\n{needs}", String::from_utf8_lossy(&output.stderr)),
        Err(error) => panic!("{command:?}: {error}\n{needs}"),
    }
}
