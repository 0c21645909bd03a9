//! Plugins that were built against an earlier minor version load, and are used as any other.
//!
//! Owns: what a plugin of the past must be able to do here. Must not know: plugins of later versions; `other_versions.rs`.
#![cfg(target_os = "linux")]

use std::{
    path::{Path, PathBuf},
    sync::{Mutex, Once},
    thread,
};

use log::{Level, LevelFilter, Log, Record};
use memflow_abi_tests::{altered_rust_plugin, connector, current, frozen, rust_plugin, tree};
use memflow_core::{
    address::PhysAddr,
    error::{ErrorKind, Reason},
    memory::{Liveness, MachineKind, Outcome, Pause, PhysRead, PhysWrite, RunState, VcpuRegisters},
    plugin::{ABI, ConnectOptions, Inventory, Layered, descriptor::PluginKind},
};

/// What the plugins said in the host's log.
struct Heard(Mutex<Vec<(Level, String, String)>>);

static HEARD: Heard = Heard(Mutex::new(Vec::new()));

impl Log for Heard {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        self.0.lock().unwrap().push((record.level(), record.target().to_owned(), record.args().to_string()));
    }

    fn flush(&self) {}
}

fn listen() {
    static LISTEN: Once = Once::new();
    LISTEN.call_once(|| {
        log::set_logger(&HEARD).unwrap();
        log::set_max_level(LevelFilter::Info);
    });
}

fn open(inventory: &Inventory, name: &str, target: &str) -> memflow_core::Result<Layered> {
    inventory.connect(&format!("{name}:{target}").parse()?, &ConnectOptions::default())
}

/// The byte at an address, as the plugins make it.
fn byte(address: u64) -> u8 {
    (address ^ (address >> 8)) as u8
}

fn bytes(start: u64, len: u64) -> Vec<u8> {
    (start..start + len).map(byte).collect()
}

/// What a plugin of an earlier version must do.
fn works(file: &Path, name: &str, version: &str) {
    listen();
    let inventory = Inventory::builder().file(file).build();
    assert!(inventory.rejected().is_empty(), "{:?}", inventory.rejected());
    let plugin = inventory.find(PluginKind::Connector, name, None).unwrap();
    assert_eq!(plugin.descriptor().abi.to_string(), version);
    assert!(version == ABI.to_string() || plugin.descriptor().abi < ABI);
    let targets = plugin.targets().unwrap().unwrap();
    assert_eq!(targets.iter().map(|target| target.name.as_str()).collect::<Vec<_>>(), ["machine"]);

    let opened = open(&inventory, name, "machine").unwrap().connection;
    assert_eq!(opened.notes, [format!("built against ABI {version}")]);
    let memory = opened.memory;
    let metadata = memory.metadata();
    assert_eq!((&*metadata.name, metadata.liveness, metadata.read_only), ("older machine", Liveness::Frozen, true));
    assert_eq!(metadata.ideal_batch, usize::MAX);
    let runs: Vec<_> = metadata.runs.runs().iter().map(|run| (run.range.start().as_u64(), run.range.len())).collect();
    assert_eq!(runs, [(0x1000, 0x1000), (0x8000, 0x800)]);
    assert_eq!((memory.facts().machine, memory.facts().vcpus.len()), (Some(MachineKind::X86_64), 0));
    assert!(memory.direct_map().is_none());
    // Appended in 1.1: without it, every run may hold something.
    let minor = plugin.descriptor().abi.minor;
    assert_eq!(memory.populated_runs().runs().len(), if minor < 1 { 2 } else { 1 });
    // Appended in 1.2: without it, nobody can stop the target.
    assert_eq!(memory.control().is_some(), minor >= 2);
    if let Some(control) = memory.control() {
        assert_eq!(control.run_state().unwrap(), RunState::Running);
        let pause = Pause::new(memory.clone()).unwrap();
        assert_eq!(control.run_state().unwrap(), RunState::Paused);
        pause.end().unwrap();
        assert_eq!(control.run_state().unwrap(), RunState::Running);
        let [VcpuRegisters::AArch64(registers)] = control.registers().unwrap()[..] else { panic!("one vCPU") };
        assert_eq!((registers.ttbr1_el1, registers.ttbr0_el1), (Some(0x1000), None));
    }

    let mut buffers = [vec![0; 16], vec![0; 16], vec![0; 0x800], vec![0; 1]];
    let [first, across, whole, outside] = &mut buffers;
    let at = PhysAddr::new;
    let mut ops = [
        PhysRead::new(at(0x1000), first),
        PhysRead::new(at(0x1ff8), across),
        PhysRead::new(at(0x8000), whole),
        PhysRead::new(at(0), outside),
    ];
    assert!(memory.read_batch(&mut ops).is_err());
    let outcomes = ops.map(|op| op.outcome);
    let missing = |offset, address| Outcome::Failed { offset, reason: Reason::NotInImage { phys: at(address) } };
    assert_eq!(outcomes, [Outcome::Done, missing(8, 0x2000), Outcome::Done, missing(0, 0)]);
    assert_eq!((buffers[0].as_slice(), &buffers[1][..8]), (&bytes(0x1000, 16)[..], &bytes(0x1ff8, 8)[..]));
    assert_eq!(buffers[2], bytes(0x8000, 0x800));

    let mut write = [PhysWrite::new(at(0x1000), &[0])];
    assert!(memory.write_batch(&mut write).is_err());
    assert_eq!(write[0].outcome, Outcome::Failed { offset: 0, reason: Reason::ReadOnly });

    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for start in (0x1000..0x1800).step_by(64) {
                    let mut buffer = [0; 64];
                    memory.read_batch(&mut [PhysRead::new(at(start), &mut buffer)]).unwrap();
                    assert_eq!(buffer.as_slice(), bytes(start, 64));
                }
            });
        }
    });
    drop(memory);

    let error = open(&inventory, name, "elsewhere").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains("the only target is called machine"), "{error}");
    let heard = HEARD.0.lock().unwrap();
    assert!(heard.iter().any(|(level, who, text)| *level == Level::Info && who == name && text.starts_with("opening")));
}

fn output(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(name)
}

#[test]
fn plugins_in_c_of_every_earlier_version_work() {
    for (version, folder) in frozen() {
        let library = output(&format!("older-{version}.so"));
        connector(&folder, &library, &[]);
        works(&library, "older_c", &version);
    }
}

#[test]
fn plugins_in_rust_of_every_earlier_version_work() {
    for (version, folder) in frozen() {
        works(&rust_plugin(&folder), "older_rust", &version);
    }
}

/// Sizes and names are the same, and yet it is not what the version had: only the layout that the plugin brings can tell.
#[test]
fn plugin_in_rust_with_other_structures_than_its_version_is_refused() {
    let (version, folder) = frozen().swap_remove(0);
    let scratch = output(&format!("altered-{version}"));
    let library = altered_rust_plugin(&folder, &scratch, "altered", &[("ideal_batch: u64", "ideal_batch: i64")]);
    let inventory = Inventory::builder().file(&library).build();
    assert!(inventory.rejected().is_empty(), "{:?}", inventory.rejected());
    let error = open(&inventory, "older_rust", "machine").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::File);
    let expected = format!("was built with other structures than ABI {ABI} has, although it says ABI {version}: ");
    assert!(error.to_string().contains(&expected), "{error}");
}

/// Layouts are compared with the host's, each plugin for itself: one of a version does not stand in the way of one of another.
#[test]
fn plugins_in_rust_of_several_versions_load_in_one_process() {
    // As of a version before the first: one function less.
    let (version, folder) = frozen().swap_remove(0);
    let changes = [
        ("growing! { 64: MemoryTable", "growing! { 56: MemoryTable"),
        ("    direct_map: Option", "    // direct_map: Option"),
    ];
    let shorter = altered_rust_plugin(&folder, &output(&format!("shorter-{version}")), "shorter", &changes);
    works(&shorter, "older_rust", &version);
    for (version, folder) in frozen() {
        works(&rust_plugin(&folder), "older_rust", &version);
    }
    let [snapshot, _] = tree();
    let inventory = Inventory::builder().file(snapshot).build();
    let image = output("beside-older.raw");
    std::fs::write(&image, [7; 0x1000]).unwrap();
    let opened = open(&inventory, "snapshot", &format!("\"{}\":layout=flat", image.display())).unwrap();
    let mut byte = [0];
    opened.connection.memory.read_batch(&mut [PhysRead::new(PhysAddr::new(0), &mut byte)]).unwrap();
    assert_eq!(byte, [7]);
}

/// The same demands, of a plugin of today: what is asked of the past is not less than what is asked now.
#[test]
fn plugin_of_this_version_does_the_same() {
    let library = output("older-current.so");
    connector(&current(), &library, &[]);
    works(&library, "older_c", &ABI.to_string());
}
