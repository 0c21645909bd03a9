//! The command and the tree's plugins as files, as users have them.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

/// Names of the tree's plugins, which are in their packages' and files' names.
const PLUGINS: &[&str] = &["gdb", "kcore", "linux", "pcileech", "process", "qemu", "snapshot", "win32"];

/// What was built.
#[derive(Debug)]
pub struct Built {
    /// The command.
    pub memflow: PathBuf,
    /// The plugins: every connector and OS layer of the tree.
    pub plugins: Vec<PathBuf>,
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
        cargo.args(["build", "--quiet", "--locked", "-p", "memflow-cli"]);
        for name in PLUGINS {
            cargo.args(["-p", &format!("memflow-{name}")]);
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
        let plugins = PLUGINS.iter().map(|name| folder.join(format!("libmemflow_{name}.so")));
        Built { memflow: folder.join("memflow"), plugins: plugins.collect() }
    })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn every_plugin_of_the_tree_is_among_them() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let folders = ["connectors", "os"].map(|folder| std::fs::read_dir(root.join(folder)).unwrap());
        let mut found: Vec<String> = folders
            .into_iter()
            .flatten()
            .map(Result::unwrap)
            // Others are libraries that several plugins share.
            .filter(|entry| {
                let manifest = std::fs::read_to_string(entry.path().join("Cargo.toml"));
                manifest.is_ok_and(|manifest| manifest.contains("\"cdylib\""))
            })
            .map(|entry| entry.file_name().into_string().unwrap())
            .collect();
        found.sort();
        assert_eq!(found, PLUGINS);
    }
}
