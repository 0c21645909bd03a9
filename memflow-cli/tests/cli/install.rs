//! `cargo xtask plugins`: what it installs is found by the command and does what the built-in plugins do.

use std::{
    ffi::OsStr,
    fs,
    path::Path,
    process::{Command, Output},
};

use super::util::{command, run};

/// Runs the task with the profile and the target folder that this test was built with.
fn xtask<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Output {
    let built = Path::new(env!("CARGO_BIN_EXE_memflow")).parent().unwrap();
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["run", "--quiet", "--locked", "--package", "xtask", "--", "plugins"]).args(args);
    if !built.ends_with("release") {
        cargo.arg("--debug");
    }
    cargo.current_dir(env!("CARGO_MANIFEST_DIR")).env("CARGO_TARGET_DIR", built.parent().unwrap()).output().unwrap()
}

#[test]
fn installed_plugins_are_found_and_work() {
    let folder = tempfile::tempdir().unwrap();
    let plugins = folder.path().join("not/there yet");
    let output = xtask([OsStr::new("install"), OsStr::new("--dir"), plugins.as_os_str()]);
    let (out, err) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert!(output.status.success(), "{err}");
    let version = env!("CARGO_PKG_VERSION");
    for (kind, name) in [("connector", "snapshot"), ("OS layer", "linux")] {
        let path = plugins.join(format!("libmemflow_{name}.so"));
        for line in [
            format!("installed memflow-{name} as {}", path.display()),
            format!("good      {kind} {name} {version}, {}", path.display()),
        ] {
            assert!(out.lines().any(|printed| printed == line), "{line}\n{out}");
        }
    }
    assert!(!out.contains("rejected"), "{out}");

    let found = |args: &[&str]| {
        let output = command(folder.path(), args).env("MEMFLOW_PLUGIN_PATH", &plugins).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let list = found(&["plugins", "list"]);
    for path in fs::read_dir(&plugins).unwrap() {
        let path = path.unwrap().path();
        assert!(list.contains(&path.display().to_string()), "{}\n{list}", path.display());
    }
    assert_eq!(found(&["ps", "demo"]), run("ps demo").complete());
    let log = command(folder.path(), ["ps", "demo"])
        .env("MEMFLOW_PLUGIN_PATH", &plugins)
        .env("MEMFLOW_LOG", "debug")
        .output()
        .unwrap();
    let log = String::from_utf8(log.stderr).unwrap();
    for name in ["snapshot", "linux"] {
        let loaded = format!("{}: loaded", plugins.join(format!("libmemflow_{name}.so")).display());
        assert!(log.contains(&loaded), "{loaded}\n{log}");
    }
}

#[test]
fn folder_that_cannot_be_made_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    let output = xtask([OsStr::new("install"), OsStr::new("--dir"), file.as_os_str()]);
    let err = String::from_utf8(output.stderr).unwrap();
    assert!(
        !output.status.success() && err.contains(&format!("error: {} cannot be created: ", file.display())),
        "{err}"
    );
}
