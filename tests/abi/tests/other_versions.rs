//! Plugins of versions that do not exist: later minor ones load, other major ones are refused before anything of them runs.
//!
//! Owns: the verdicts and what becomes of longer structures and unknown numbers. Must not know: earlier versions; `older_plugin.rs`.
#![cfg(target_os = "linux")]

use std::{
    fs,
    path::{Path, PathBuf},
};

use memflow_abi_tests::{connector, current, tree};
use memflow_core::{
    address::PhysAddr,
    error::{ErrorKind, Reason},
    memory::{Liveness, Outcome, PhysRead},
    plugin::{
        ABI, ConnectOptions, Inventory,
        analyze::{HostAbi, Rejection, analyze},
        descriptor::AbiVersion,
    },
};

fn output(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(name)
}

#[test]
fn later_minor_version_loads_and_what_it_appends_is_left_aside() {
    let library = output("later.so");
    connector(&current(), &library, &["-DMINOR=9", "-DABI=\"1.9\"", "-DLATER"]);
    let inventory = Inventory::builder().file(&library).build();
    assert!(inventory.rejected().is_empty(), "{:?}", inventory.rejected());
    assert_eq!(inventory.plugins()[0].descriptor().abi, AbiVersion::new(1, 9));
    assert_eq!(inventory.plugins()[0].targets().unwrap().unwrap().len(), 1);
    let open = |target: &str| inventory.connect(&target.parse().unwrap(), &ConnectOptions::default());

    let memory = open("older_c:machine").unwrap().connection.memory;
    let metadata = memory.metadata();
    // Numbers that this version does not know: the careful choice, or none.
    assert_eq!((metadata.liveness, memory.facts().machine), (Liveness::Live, None));
    assert_eq!(memory.populated_runs().runs(), &metadata.runs.runs()[..1]);
    let control = memory.control().unwrap();
    let unknown = control.run_state().unwrap_err().to_string();
    assert!(unknown.contains("state 88 of its target is neither 1 (running) nor 2 (paused)"), "{unknown}");
    let unknown = control.registers().unwrap_err().to_string();
    assert!(unknown.contains("of no kind that this build knows"), "{unknown}");
    let mut buffers = [[0; 16]; 2];
    let [good, bad] = &mut buffers;
    let mut ops = [PhysRead::new(PhysAddr::new(0x1000), good), PhysRead::new(PhysAddr::new(0x87f8), bad)];
    assert!(memory.read_batch(&mut ops).is_err());
    let failed = Outcome::Failed { offset: 8, reason: Reason::Unknown { status: 55 } };
    assert_eq!(ops.map(|op| op.outcome), [Outcome::Done, failed]);
    assert_eq!(buffers[0], [16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31]);

    let error = open("older_c:elsewhere").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Other);
    assert!(error.to_string().contains("the only target is called machine"), "{error}");
}

#[test]
fn other_major_versions_are_refused_with_both_named_and_nothing_of_them_runs() {
    let marker = output("it-ran");
    let option = format!("-DMARKER=\"{}\"", marker.display());
    let build = |name: &str, major: u16, minor: u16| {
        let library = output(name);
        let options = [
            option.clone(),
            format!("-DMAJOR={major}"),
            format!("-DMINOR={minor}"),
            format!("-DABI=\"{major}.{minor}\""),
        ];
        connector(&current(), &library, &options.each_ref().map(String::as_str));
        drop(fs::remove_file(&marker));
        Inventory::builder().file(library).build()
    };
    for (major, minor, way_out) in [(2, 0, "update memflow"), (0, 9, "rebuild the plugin with a newer memflow")] {
        let inventory = build(&format!("major-{major}.so"), major, minor);
        assert!(inventory.plugins().is_empty());
        let [rejected] = inventory.rejected() else { panic!("{:?}", inventory.rejected()) };
        for part in [&format!("ABI {major}.{minor}, this build takes 1.x (it is {ABI})"), way_out] {
            assert!(rejected.reason.contains(part), "{}: {part}", rejected.reason);
        }
        // Who asks for it by name is sent to the reason.
        let asked = inventory.connect(&"older_c:machine".parse().unwrap(), &ConnectOptions::default()).unwrap_err();
        assert!(asked.to_string().contains("1 file was rejected, `memflow plugins doctor` says why"), "{asked}");
        assert!(!marker.exists(), "code of a plugin for ABI {major}.{minor} ran");
    }
    // The same file for this version does run: its absence above means something.
    let inventory = build("major-same.so", ABI.major, ABI.minor);
    assert!(!marker.exists(), "code of a plugin ran before it was used");
    inventory.connect(&"older_c:machine".parse().unwrap(), &ConnectOptions::default()).unwrap();
    assert!(marker.exists());
}

/// The other way round: what a host of another major version says of the plugins of this tree.
#[test]
fn hosts_of_other_major_versions_refuse_the_plugins_of_this_one() {
    for file in tree() {
        let bytes = fs::read(file).unwrap();
        for version in [AbiVersion::new(2, 0), AbiVersion::new(0, 9)] {
            let found = analyze(&bytes, &HostAbi::this_build(version)).unwrap();
            let [Err(rejected)] = found.plugins.as_slice() else { panic!("{:?}", found.plugins) };
            assert_eq!(rejected.reason, Rejection::Abi { found: ABI, host: version });
            let text = rejected.to_string();
            assert!(text.contains(&format!("ABI {ABI}, ")) && text.contains(&format!("it is {version}")), "{text}");
        }
        // A host of the first minor version takes them.
        let found = analyze(&bytes, &HostAbi::this_build(AbiVersion::new(ABI.major, 0))).unwrap();
        assert!(found.plugins.iter().all(Result::is_ok), "{:?}", found.plugins);
    }
}
