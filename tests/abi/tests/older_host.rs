//! Plugins of this tree in hosts that were built against an earlier minor version.
//!
//! Owns: what such a host must get. Must not know: how it looks after its own structures; `c/host.c` puts each before a page that
//! cannot be touched, and runs with the compiler's checks of addresses and of undefined behaviour.
#![cfg(target_os = "linux")]

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use memflow_abi_tests::{compile, connector, frozen, run, tree};

const CHECKED: &[&str] = &["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-ldl", "-pthread"];

fn output(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(name)
}

/// The hosts of all earlier versions.
fn hosts() -> &'static [(String, PathBuf)] {
    static HOSTS: OnceLock<Vec<(String, PathBuf)>> = OnceLock::new();
    HOSTS.get_or_init(|| {
        let build = |(version, folder): (String, PathBuf)| {
            let program = output(&format!("host-{version}"));
            compile(&folder, "host.c", &program, CHECKED);
            (version, program)
        };
        frozen().into_iter().map(build).collect()
    })
}

fn built() -> &'static [PathBuf; 2] {
    static BUILT: OnceLock<[PathBuf; 2]> = OnceLock::new();
    BUILT.get_or_init(tree)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

#[test]
fn snapshot_serves_an_older_host() {
    let image = output("older-host.raw");
    let content: Vec<u8> = (0..0x10000_u32).map(|at| (at.wrapping_mul(0x9e37_79b1) >> 24) as u8).collect();
    fs::write(&image, &content).unwrap();
    for (version, host) in hosts() {
        for how in ["connector", "short"] {
            let printed = run(Command::new(host)
                .arg(how)
                .arg(&built()[0])
                .arg("memflow_plugin_snapshot")
                .arg(&image)
                .args(["layout=flat", "0", "0x8001", "0xfff0", "0xfff8", "0x10000"]));
            let read = |at: usize| hex(&content[at..at + 16]);
            let mut expected = if how == "connector" { "format raw\n" } else { "" }.to_owned();
            write!(
                expected,
                "name snapshot older-host.raw\nrun 0 0x10000 0\n\
                 read 0: 1 0 {}\nread 0x8001: 1 0 {}\nread 0xfff0: 1 0 {}\n\
                 read 0xfff8: 4 8 {}0000000000000000\nread 0x10000: 4 0 {}\n\
                 direct 0 0x10000 begins with {}\ndropped\n",
                read(0),
                read(0x8001),
                read(0xfff0),
                hex(&content[0xfff8..]),
                hex(&[0; 16]),
                hex(&content[..1]),
            )
            .unwrap();
            assert_eq!(printed, expected, "a host of ABI {version}, request {how}");
        }
    }
}

#[test]
fn refusals_reach_an_older_host() {
    for (version, host) in hosts() {
        let output = Command::new(host)
            .arg("connector")
            .arg(&built()[0])
            .args(["memflow_plugin_snapshot", "/no/such/file", "layout=flat", "0"])
            .output()
            .unwrap();
        let printed = String::from_utf8_lossy(&output.stdout);
        assert_eq!((output.status.code(), &*printed), (Some(1), &*format!("failure 6, for version {version}\n")));
    }
}

/// The host's table of functions is that of its version: nothing behind it is read, and its handles are given back.
#[test]
fn linux_looks_into_the_memory_of_an_older_host() {
    for (version, host) in hosts() {
        let printed = run(Command::new(host).arg("os").arg(&built()[1]).arg("memflow_plugin_linux"));
        let expected = format!("failure 8, for version {version}\nnot found, after reading, handles 0\n");
        assert_eq!(printed, expected);
    }
}

/// A plugin of a later version too: it has longer structures, of which this host takes what it knows.
#[test]
fn older_hosts_take_later_plugins() {
    let library = output("later-for-older-host.so");
    connector(&memflow_abi_tests::current(), &library, &["-DMINOR=9", "-DABI=\"1.9\"", "-DLATER"]);
    for (version, host) in hosts() {
        let printed =
            run(Command::new(host).arg("connector").arg(&library).args(["older_c_entry", "machine", "a=b", "0x1000"]));
        let expected = "target machine\nname older machine\nrun 0x1000 0x1000 0\nrun 0x8000 0x800 0x1000\n\
                        read 0x1000: 1 0 101112131415161718191a1b1c1d1e1f\ndropped\n";
        assert_eq!(printed, expected, "a host of ABI {version}");
    }
}

#[test]
fn older_hosts_refuse_another_major_version() {
    let library = output("major-for-older-host.so");
    connector(&memflow_abi_tests::current(), &library, &["-DMAJOR=2", "-DMINOR=0", "-DABI=\"2.0\""]);
    for (_, host) in hosts() {
        let output =
            Command::new(host).arg("connector").arg(&library).args(["older_c_entry", "machine", "a=b", "0"]).output();
        assert_eq!(String::from_utf8_lossy(&output.unwrap().stdout), "ABI 2.0, this host takes 1.x\n");
    }
}
