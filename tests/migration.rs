//! Streams that a real QEMU migrates into a file: the same memory as its own copy, page by page.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use memflow_core::{
    PhysAddr, PhysicalMemory,
    memory::{MachineKind, PhysicalMemoryExt, VcpuRegisters},
};
use memflow_guests::{BareMachine, monitor};
use memflow_snapshot::{Container, OpenOptions, Snapshot, open};
use memflow_tests::Random;
use serde_json::json;

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const PAGE: u64 = 4096;
const PATTERN: u64 = MIB;

/// A machine with a pattern in its memory at each of these addresses, and the folder it runs in.
struct Machine {
    bare: BareMachine,
    pattern: Vec<u8>,
    folder: tempfile::TempDir,
}

fn machine(program: &str, arguments: &str, places: &[u64]) -> Machine {
    let folder = tempfile::tempdir().unwrap();
    let mut random = Random(places.len() as u64 + 1);
    let pattern: Vec<u8> = (0..PATTERN / 8).flat_map(|_| random.next_u64().to_le_bytes()).collect();
    std::fs::write(folder.path().join("pattern"), &pattern).unwrap();
    let mut all = vec!["-S".to_owned()];
    all.extend(arguments.split(' ').map(str::to_owned));
    for place in places {
        all.extend(["-device".to_owned(), format!("loader,file=pattern,addr={place:#x},force-raw=on")]);
    }
    let package = if program.ends_with("aarch64") { "qemu-system-arm" } else { "qemu-system-x86" };
    Machine { bare: BareMachine::start(program, package, &all, folder.path()).unwrap(), pattern, folder }
}

impl Machine {
    /// Runs until the firmware has left its tables in memory, and pauses.
    fn run_firmware(&mut self) {
        let started = Instant::now();
        self.bare.qmp("cont", json!({})).unwrap();
        loop {
            std::thread::sleep(Duration::from_millis(100));
            let area = self.bare.save(0xf_0000, 0x1_0000).unwrap();
            // The entry point is written last; the words alone are also in the firmware's code.
            let entry = |pair: &[&[u8]]| pair[0].starts_with(b"_SM_") && pair[1].starts_with(b"_DMI_");
            if area.chunks(16).collect::<Vec<_>>().windows(2).any(entry) {
                break;
            }
            assert!(started.elapsed() < Duration::from_secs(120), "no firmware");
        }
        self.bare.qmp("stop", json!({})).unwrap();
    }

    /// Migrates into a file by this way, with this capability.
    fn migrate(&mut self, way: impl Fn(&Path) -> String, capability: Option<&str>) -> PathBuf {
        if let Some(capability) = capability {
            let state = json!({ "capabilities": [{ "capability": capability, "state": true }] });
            self.bare.qmp("migrate-set-capabilities", state).unwrap();
        }
        let path = self.folder.path().join("stream");
        self.bare.qmp("migrate", json!({ "uri": way(&path) })).unwrap();
        let started = Instant::now();
        loop {
            let state = self.bare.qmp("query-migrate", json!({})).unwrap();
            match state["status"].as_str() {
                Some("completed") => return path,
                Some("failed" | "cancelled") => panic!("{state}"),
                _ => assert!(started.elapsed() < Duration::from_secs(120), "{state}"),
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Compares `range` page by page with QEMU's own copy. Returns how many pages are not zeros.
    fn assert_pages(&mut self, memory: &dyn PhysicalMemory, start: u64, len: u64) -> u64 {
        let expected = self.bare.save(start, len).unwrap();
        let mut found = vec![0; PAGE as usize];
        let mut filled = 0;
        for (page, at) in expected.chunks(PAGE as usize).zip((start..).step_by(PAGE as usize)) {
            memory.read_into(PhysAddr::new(at), &mut found).unwrap_or_else(|error| panic!("{error}"));
            assert!(found == page, "{at:#x} differs");
            filled += u64::from(page.iter().any(|byte| *byte != 0));
        }
        filled
    }

    fn assert_patterns(&self, snapshot: &Snapshot, places: &[u64]) {
        for place in places {
            let mut bytes = vec![0; PATTERN as usize];
            snapshot.memory.read_into(PhysAddr::new(*place), &mut bytes).unwrap();
            assert!(bytes == self.pattern, "{place:#x} is not what was put there: {:?}", snapshot.notes);
        }
    }
}

fn through_cat(path: &Path) -> String {
    format!("exec:cat > {}", path.display())
}

fn opened(path: &Path) -> Snapshot {
    let snapshot = open(path, &OpenOptions::default()).unwrap();
    assert_eq!(snapshot.format.container, Container::Migration);
    snapshot
}

/// The registers in the stream are those that QEMU's monitor shows.
fn same_registers(memory: &dyn PhysicalMemory, text: &str) {
    let expected = monitor::registers(text).unwrap();
    // `IDT=     BASE LIMIT` and `GS =SELECTOR BASE LIMIT FLAGS`, once for each vCPU.
    let bases = |name: &str, index: usize| -> Vec<u64> {
        let lines =
            text.lines().filter_map(|line| line.trim_start().strip_prefix(name)?.trim_start().strip_prefix('='));
        lines.map(|line| u64::from_str_radix(line.split_whitespace().nth(index).unwrap(), 16).unwrap()).collect()
    };
    let (idt, gdt, gs) = (bases("IDT", 0), bases("GDT", 0), bases("GS", 1));
    let vcpus = &memory.facts().vcpus;
    assert_eq!((vcpus.len(), memory.facts().machine), (expected.len(), Some(MachineKind::X86_64)));
    for (index, (vcpu, expected)) in vcpus.iter().zip(&expected).enumerate() {
        let VcpuRegisters::X86(registers) = vcpu else { panic!("{vcpu:?}") };
        assert_eq!(
            (registers.cr0, registers.cr3, registers.cr4, registers.efer),
            (expected.get("CR0"), expected.get("CR3"), expected.get("CR4"), expected.get("EFER"))
        );
        let bases = (registers.idtr_base, registers.gdtr_base, registers.gs_base);
        assert_eq!(bases, (Some(idt[index]), Some(gdt[index]), Some(gs[index])), "{text}");
    }
    // The first vCPU may be in the middle of a call to the BIOS, whose table lies at zero; the second one waits.
    assert!(idt.iter().any(|base| *base != 0), "{text}");
}

#[test]
fn machine_after_its_firmware_ran_is_the_same_page_by_page() {
    // Compressed pages are of QEMU before 9.1.
    for capability in [None, Some("compress")] {
        let places = [16 * MIB, 128 * MIB];
        let mut machine = machine("qemu-system-x86_64", "-machine pc -m 256M -smp 2 -device VGA", &places);
        machine.run_firmware();
        let path = machine.migrate(through_cat, capability);
        let snapshot = opened(&path);
        let memory = &*snapshot.memory;
        assert_eq!(memory.metadata().runs.total_bytes(), 256 * MIB);
        // The display's window and the firmware's own memory are between 640 KiB and 768 KiB.
        let filled =
            machine.assert_pages(memory, 0, 0xa_0000) + machine.assert_pages(memory, 0xc_0000, 256 * MIB - 0xc_0000);
        assert!(filled > 2 * PATTERN / PAGE, "{filled} pages");
        machine.assert_patterns(&snapshot, &places);
        let command = json!({ "command-line": "info registers -a" });
        let text = machine.bare.qmp("human-monitor-command", command).unwrap();
        same_registers(memory, text.as_str().unwrap());
    }
}

#[test]
fn memory_above_the_hole_is_where_each_machine_has_it() {
    for (arguments, low) in
        [("-machine pc -m 4G", 3 * GIB), ("-machine q35 -m 4G", 2 * GIB), ("-machine microvm -m 4G", 3 * GIB)]
    {
        let places = [MIB, low - MIB, 4 * GIB, 8 * GIB - low - MIB];
        let mut machine = machine("qemu-system-x86_64", arguments, &places);
        let path = machine.migrate(through_cat, None);
        let snapshot = opened(&path);
        machine.assert_patterns(&snapshot, &places);
        assert_eq!(snapshot.memory.metadata().runs.total_bytes(), 4 * GIB, "{arguments}");
        assert!(snapshot.memory.read_into(PhysAddr::new(low), &mut [0]).unwrap_err().is_not_in_image());
        machine.assert_pages(&*snapshot.memory, 4 * GIB, 4 * MIB);
    }
}

#[test]
fn nodes_and_a_moved_hole_are_found() {
    let arguments = "-machine q35,max-ram-below-4g=1G -m 3G -object memory-backend-ram,id=ram-node0,size=1G \
        -object memory-backend-ram,id=ram-node1,size=2G -numa node,memdev=ram-node0 -numa node,memdev=ram-node1";
    let places = [16 * MIB, GIB - 8 * MIB, 4 * GIB, 6 * GIB - MIB];
    let mut machine = machine("qemu-system-x86_64", arguments, &places);
    machine.run_firmware();
    let path = machine.migrate(through_cat, None);
    let snapshot = opened(&path);
    machine.assert_patterns(&snapshot, &places[2..]);
    machine.assert_patterns(&snapshot, &places[..1]);
    assert!(snapshot.notes.iter().any(|note| note.contains("ram-node0, ram-node1")), "{:?}", snapshot.notes);
}

#[test]
fn arm_machine_has_its_memory_from_one_gibibyte_on() {
    let places = [GIB + 2 * MIB, 2 * GIB - MIB];
    let mut machine = machine("qemu-system-aarch64", "-machine virt -cpu max -m 1G", &places);
    let path = machine.migrate(through_cat, None);
    let snapshot = opened(&path);
    machine.assert_patterns(&snapshot, &places);
    machine.assert_pages(&*snapshot.memory, GIB, 8 * MIB);
}
