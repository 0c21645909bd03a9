//! The command and the tree's plugins as files, as users have them.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

/// What was built.
#[derive(Debug)]
pub struct Built {
    /// The command.
    pub memflow: PathBuf,
    /// The plugins: snapshot, linux, process.
    pub plugins: [PathBuf; 3],
}

/// The command and the plugins, built now if they are not yet, in the folder that the test itself was built in.
///
/// # Panics
/// When they cannot be built: the test fails.
pub fn built() -> &'static Built {
    static BUILT: OnceLock<Built> = OnceLock::new();
    BUILT.get_or_init(|| {
        let test = std::env::current_exe().unwrap_or_else(|error| panic!("the test's own path: {error}"));
        let Some(folder) = test.parent().and_then(Path::parent) else { panic!("{}: no folder above", test.display()) };
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.args(["build", "--quiet", "--locked"]);
        for package in ["memflow-cli", "memflow-snapshot", "memflow-linux", "memflow-process"] {
            cargo.args(["-p", package]);
        }
        if folder.ends_with("release") {
            cargo.arg("--release");
        }
        cargo.current_dir(env!("CARGO_MANIFEST_DIR"));
        cargo.env("CARGO_TARGET_DIR", folder.parent().unwrap_or(folder));
        match cargo.status() {
            Ok(status) if status.success() => {}
            other => panic!("building the command and the plugins: {other:?}"),
        }
        let plugins = ["snapshot", "linux", "process"].map(|name| folder.join(format!("libmemflow_{name}.so")));
        Built { memflow: folder.join("memflow"), plugins }
    })
}
