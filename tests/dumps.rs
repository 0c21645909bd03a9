//! Dumps that other programs write of a real guest: the same memory as QEMU's own file of it, page by page.

use std::{fs::File, os::unix::fs::FileExt, path::PathBuf, process::Command};

use memflow_core::{
    PhysAddr, PhysicalMemory,
    error::Reason,
    memory::{Outcome, PhysRead, VcpuRegisters},
    os::Os,
};
use memflow_guests::{Guests, MATRIX, RunningGuest, monitor};
use memflow_linux::{LinuxOptions, LinuxOs};
use memflow_snapshot::{Container, OpenOptions, Snapshot, open};
use memflow_tests::built;
use serde_json::{Value, json};

const PAGE: u64 = 4096;

#[test]
fn kdumps_of_qemu_hold_the_memory_of_the_guest() {
    let guests = Guests::locate().unwrap();
    let spec = MATRIX.iter().find(|spec| spec.name == "amd64-6.1-4level-pti").unwrap();
    let mut guest = guests.boot(spec).unwrap();
    guest.pause().unwrap();
    // Which compressions QEMU has depends on what it was built with.
    let formats = guest.qmp(&json!({ "execute": "query-dump-guest-memory-capability" })).unwrap();
    let formats: Vec<&str> =
        formats["formats"].as_array().unwrap().iter().filter_map(|format| format.as_str()).collect();
    assert!(["elf", "kdump-zlib"].iter().all(|format| formats.contains(format)), "{formats:?}");
    // The one for Windows needs a guest with Windows.
    for format in formats.into_iter().filter(|format| *format != "win-dmp") {
        let path = guest.folder().join(format);
        if format == "elf" {
            guest.dump_elf(&path).unwrap();
        } else {
            // The others are compressed, and written here and there: not through a pipe.
            let request = json!({
                "execute": "dump-guest-memory",
                "arguments": { "paging": false, "protocol": format!("file:{}", path.display()), "format": format },
            });
            guest.qmp(&request).unwrap();
        }
        let snapshot = open(&path, &OpenOptions::default()).unwrap();
        let container = if format == "elf" { Container::ElfCore } else { Container::Kdump };
        assert_eq!(snapshot.format.container, container);
        let pages = compare(&mut guest, &snapshot);
        assert!(pages >= spec.memory_mib * 256 * 9 / 10, "{format}: {pages} pages");
        same_registers(&mut guest, &*snapshot.memory);
        kernel_is_found(snapshot, format);
        std::fs::remove_file(&path).unwrap();
    }
}

/// Compares every page of the guest's RAM with the dump's; those that the dump left out must be zeros, which is what QEMU leaves out.
/// Returns how many were compared.
fn compare(guest: &mut RunningGuest, snapshot: &Snapshot) -> u64 {
    let runs = monitor::ram_runs(&guest.hmp("info mtree -f").unwrap()).unwrap();
    let ram = File::open(guest.ram_path()).unwrap();
    let (mut expected, mut found) = (vec![0; 64 * PAGE as usize], vec![0; PAGE as usize]);
    let mut compared = 0;
    for run in runs {
        for at in (0..run.len).step_by(expected.len()) {
            let expected = &mut expected[..(run.len - at).min(64 * PAGE) as usize];
            ram.read_exact_at(expected, run.offset + at).unwrap();
            for (index, page) in (0u64..).zip(expected.chunks(PAGE as usize)) {
                let phys = PhysAddr::new(run.phys + at + index * PAGE);
                let found = &mut found[..page.len()];
                let mut ops = [PhysRead::new(phys, found)];
                let read = snapshot.memory.read_batch(&mut ops);
                match ops[0].outcome {
                    Outcome::Done => assert!(found == page, "{phys} differs"),
                    Outcome::Failed { reason: Reason::Excluded { .. }, .. } => {
                        assert!(page.iter().all(|byte| *byte == 0))
                    }
                    // What devices hold is not in a dump: the legacy hole of a PC.
                    Outcome::Failed { .. } => {
                        assert!((0xa_0000..0x10_0000).contains(&phys.as_u64()), "{phys}: {read:?}")
                    }
                    Outcome::NotAttempted => panic!("{phys} was not attempted"),
                }
                compared += 1;
            }
        }
    }
    compared
}

/// The registers in the dump are those that QEMU's monitor shows.
fn same_registers(guest: &mut RunningGuest, memory: &dyn PhysicalMemory) {
    let expected = monitor::registers(&guest.hmp("info registers -a").unwrap()).unwrap();
    let vcpus = &memory.facts().vcpus;
    assert_eq!(vcpus.len(), expected.len());
    for (vcpu, expected) in vcpus.iter().zip(&expected) {
        let VcpuRegisters::X86(registers) = vcpu else { panic!("{vcpu:?}") };
        assert_eq!((registers.cr3, registers.rip), (expected.get("CR3"), expected.get("RIP")));
    }
}

/// The kernel is found in the dump, by its VMCOREINFO, and its list of processes is whole.
fn kernel_is_found(snapshot: Snapshot, format: &str) {
    assert!(snapshot.memory.facts().vmcoreinfo.is_some(), "{format}");
    let os = LinuxOs::open(snapshot.memory, &LinuxOptions::default()).unwrap();
    let processes = os.processes().unwrap().into_complete().unwrap();
    assert!(processes.iter().any(|process| process.pid == 1));
}

/// A core of the guest, written by QEMU.
fn core(guest: &mut RunningGuest, name: &str) -> PathBuf {
    let path = guest.folder().join(name);
    let arguments = json!({ "paging": false, "protocol": format!("file:{}", path.display()), "format": "elf" });
    guest.qmp(&json!({ "execute": "dump-guest-memory", "arguments": arguments })).unwrap();
    path
}

fn diff(a: &PathBuf, b: &PathBuf) -> Value {
    let output =
        Command::new(&built().memflow).arg("diff").args([a, b]).args(["--json", "--no-cache"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn process_that_came_between_two_dumps_is_in_their_difference() {
    let guests = Guests::locate().unwrap();
    let spec = MATRIX.iter().find(|spec| spec.name == "amd64-6.1-4level-pti").unwrap();
    let mut guest = guests.boot(spec).unwrap();
    let first = core(&mut guest, "first");
    let pid = guest.spawn("newcomer").unwrap();
    let second = core(&mut guest, "second");
    let found = diff(&first, &second);
    let newcomer = |found: &Value| -> Value {
        let processes = found["processes"].as_array().unwrap();
        let mut own = processes.iter().filter(|process| process["pid"] == pid);
        let one = own.next().unwrap_or_else(|| panic!("{pid} is missing: {found}")).clone();
        assert!(own.next().is_none());
        one
    };
    let process = newcomer(&found);
    assert_eq!((process["in"].as_str(), process["name"].as_str()), (Some("b"), Some("newcomer")));
    assert!(process["changed_pages"].as_u64().unwrap() > 0, "{process}");
    assert!(found["unmapped_changed_pages"].as_u64().unwrap() > 0);
    // The sums are whole, and the other way round only the sides change.
    let bytes = |found: &Value, kind: &str| found["bytes"][kind].as_u64().unwrap();
    assert_eq!(bytes(&found, "equal") + bytes(&found, "changed"), bytes(&found, "compared"));
    assert_eq!(bytes(&found, "changed"), found["changed_pages"].as_u64().unwrap() * PAGE);
    let turned = diff(&second, &first);
    assert_eq!(bytes(&turned, "changed"), bytes(&found, "changed"));
    assert_eq!(newcomer(&turned)["in"], "a");
    assert_eq!(newcomer(&turned)["changed_pages"], process["changed_pages"]);
    assert_eq!(bytes(&diff(&first, &first), "changed"), 0);
}
