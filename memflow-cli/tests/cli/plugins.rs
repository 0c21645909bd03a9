//! Plugins: what is loaded prints the same as what is built in; what cannot be loaded says why.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use super::util::{Run, command, run};

/// The tree's plugins as shared libraries, beside the program that is tested.
pub(crate) fn built() -> &'static [PathBuf; 3] {
    static BUILT: OnceLock<[PathBuf; 3]> = OnceLock::new();
    BUILT.get_or_init(|| {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        let program = Path::new(env!("CARGO_BIN_EXE_memflow"));
        let folder = program.parent().unwrap();
        cargo.args([
            "build",
            "--quiet",
            "--locked",
            "-p",
            "memflow-snapshot",
            "-p",
            "memflow-linux",
            "-p",
            "memflow-process",
        ]);
        cargo.current_dir(root);
        if folder.ends_with("release") {
            cargo.arg("--release");
        }
        cargo.env("CARGO_TARGET_DIR", folder.parent().unwrap());
        assert!(cargo.status().unwrap().success());
        ["libmemflow_snapshot.so", "libmemflow_linux.so", "libmemflow_process.so"].map(|name| folder.join(name))
    })
}

pub(crate) fn loaded(line: &str) -> Run {
    let [snapshot, linux, process] = built().each_ref().map(|path| path.display());
    run(&format!("{line} --plugin {snapshot} --plugin {linux} --plugin {process}"))
}

#[test]
fn loaded_plugins_print_the_same_as_built_in_ones() {
    for line in [
        "ps demo",
        "ps demo --long --json",
        "ps demo --tree",
        "info demo --json",
        "modules demo",
        "maps demo 1",
        "maps demo 1 --page-tables",
        "symbols demo schedule",
        "symbols demo --at 0xffffffffbbe00010",
        "dmesg demo",
        "translate demo linux_banner",
        "read demo linux_banner 64",
    ] {
        let (one, other) = (run(line), loaded(line));
        assert_eq!((one.code, &one.err), (other.code, &other.err), "{line}");
        assert!(!one.out.is_empty() && one.out == other.out, "{line}:\n{}\n{}", one.out, other.out);
    }
}

#[test]
fn errors_of_loaded_plugins_are_those_of_built_in_ones() {
    for line in
        ["ps /no/such/file", "ps demo --layout flat", "read demo 0x10 8 --pid 1", "read demo 0x7fffffffe000 8 --pid 1"]
    {
        let (one, other) = (run(line), loaded(line));
        assert!(one.code != 0, "{line}");
        assert_eq!((one.code, one.out, one.err), (other.code, other.out, other.err), "{line}");
    }
}

#[test]
fn loaded_plugin_is_loaded() {
    let [snapshot, linux, _] = built();
    let output = command(&std::env::temp_dir(), ["ps", "demo"])
        .arg("--plugin")
        .arg(snapshot)
        .arg("--plugin")
        .arg(linux)
        .env("MEMFLOW_LOG", "debug")
        .output()
        .unwrap();
    let log = String::from_utf8(output.stderr).unwrap();
    for path in [snapshot, linux] {
        assert!(log.contains(&format!("{}: loaded", path.display())), "{log}");
    }
}

#[test]
fn what_a_plugin_logs_comes_out_of_the_commands_log_at_its_level() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("raw"), [0; 0x4000]).unwrap();
    for (level, there) in [("debug", true), ("info", false)] {
        let output =
            command(folder.path(), ["info", "raw", "--plugin"]).arg(&built()[0]).env("MEMFLOW_LOG", level).output();
        let log = String::from_utf8(output.unwrap().stderr).unwrap();
        assert_eq!(log.contains("[DEBUG memflow_snapshot::open] raw: raw image in layout flat"), there, "{log}");
    }
}

#[test]
fn loaded_plugin_keeps_what_it_learns_for_the_next_run() {
    let folder = tempfile::tempdir().unwrap();
    let [_, linux, ..] = built();
    let ps = || {
        let mut command = command(folder.path(), ["ps", "demo", "--plugin"]);
        let output = command.arg(linux).env("MEMFLOW_CACHE_DIR", "kept").env("MEMFLOW_LOG", "debug").output().unwrap();
        (output.stdout, String::from_utf8(output.stderr).unwrap().contains("is known from an earlier run"))
    };
    let (learnt, recalled) = (ps(), ps());
    assert_eq!((learnt.1, recalled.1), (false, true));
    assert_eq!(learnt.0, recalled.0);
}

#[test]
fn layers_are_arguments_of_any_connector() {
    let plain = run("ps demo").complete();
    for target in ["snapshot:demo", "snapshot:demo:cache=4MiB", "snapshot:demo:read_only", "snapshot@0.1:demo"] {
        assert_eq!(run(&format!("ps {target}")).complete(), plain, "{target}");
    }
}

#[test]
fn wrong_arguments_name_the_accepted_ones() {
    let error = run("ps snapshot:demo:layut=flat").error(3);
    assert!(
        error.contains("unknown argument `layut`, did you mean `layout`?") && error.contains("cache=SIZE"),
        "{error}"
    );
    let error = run("ps snapshot:demo:cache=10mb").error(3);
    assert!(error.contains("cache") && error.contains("10mb"), "{error}");
    let error = run("ps snapshot@9:demo").error(3);
    assert!(error.contains("snapshot@9") && error.contains("snapshot@0.1.0"), "{error}");
    let error = run("ps nosuch:demo").error(3);
    assert!(error.contains("nosuch") && error.contains("snapshot@0.1.0"), "{error}");
}

/// A copy of a plugin in which one text is another of the same length.
fn changed(good: &[u8], from: &str, to: &str) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let mut bytes = good.to_vec();
    let mut found = 0;
    while let Some(at) = bytes.windows(from.len()).position(|window| window == from.as_bytes()) {
        bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
        found += 1;
    }
    assert!(found > 0, "{from}");
    bytes
}

#[test]
fn doctor_says_of_each_bad_file_why_it_is_not_taken() {
    let folder = tempfile::tempdir().unwrap();
    let good = fs::read(&built()[0]).unwrap();
    let put = |name: &str, bytes: &[u8]| fs::write(folder.path().join(format!("libmemflow_{name}.so")), bytes).unwrap();
    put("good", &good);
    put("text", b"not a library");
    put("empty", b"");
    put("cut", &good[..good.len() / 2]);
    put("later", &changed(&good, "\0abi=1.2\0", "\0abi=2.0\0"));
    put("elsewhere", &changed(&good, "\0target=x86_64-unknown-linux-gnu\0", "\0target=x86_64-unknown-linux-mus\0"));
    put("nameless", &changed(&good, "\0name=snapshot\0", "\0nome=snapshot\0"));
    put("symbol", &changed(&good, "\0entry=memflow_plugin_snapshot\0", "\0entry=memflow_plugin_snapshox\0"));
    let mut arm = good.clone();
    arm[18..20].copy_from_slice(&183u16.to_le_bytes());
    put("arm", &arm);
    std::os::unix::fs::symlink("nowhere", folder.path().join("libmemflow_link.so")).unwrap();
    fs::create_dir(folder.path().join("libmemflow_folder.so")).unwrap();
    let output =
        command(folder.path(), ["plugins", "doctor"]).env("MEMFLOW_PLUGIN_PATH", folder.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stdout).unwrap();
    let line = |name: &str| {
        let path = folder.path().join(format!("libmemflow_{name}.so"));
        let found = text.lines().find(|line| line.contains(&path.display().to_string()));
        found.unwrap_or_else(|| panic!("{name}: {text}")).to_owned()
    };
    assert!(line("good").starts_with("good      connector snapshot 0.1.0, "), "{text}");
    for (name, why) in [
        ("text", "not a shared"),
        ("empty", "not a shared"),
        ("cut", ""),
        ("later", "ABI 2.0"),
        ("elsewhere", "x86_64-unknown-linux-mus"),
        ("nameless", "name"),
        ("symbol", "memflow_plugin_snapshox"),
        ("arm", "aarch64"),
        ("link", "cannot be opened"),
        ("folder", "not a regular file"),
    ] {
        let line = line(name);
        assert!(line.starts_with("rejected  ") && line.contains(why), "{name}: {line}");
    }
    assert!(line("later").contains("1."), "both versions: {}", line("later"));
}

#[test]
fn relative_folders_are_never_searched() {
    let folder = tempfile::tempdir().unwrap();
    fs::copy(&built()[0], folder.path().join("libmemflow_snapshot.so")).unwrap();
    let output = command(folder.path(), ["plugins", "doctor"]).env("MEMFLOW_PLUGIN_PATH", ".").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("searched  .: cannot be searched: a relative path"), "{text}");
    assert!(!text.contains(&folder.path().display().to_string()), "{text}");
}

#[test]
fn file_that_was_named_must_be_a_plugin() {
    let error = run("ps demo --plugin /etc/passwd").error(3);
    assert!(error.starts_with("/etc/passwd: "), "{error}");
}
