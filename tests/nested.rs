//! A machine inside a machine: the inner one is found in the memory of a process of the outer one, and everything said of it
//! equals what it said of itself.

use std::{ffi::OsStr, process::Command, sync::Arc};

use memflow_core::{
    MemoryViewExt, PhysAddr, PhysicalMemory, VirtAddr,
    memory::{Outcome, PhysRead, PhysicalMemoryExt},
    os::{Os, ProcessInfo, RegionKind},
    plugin::{
        Inventory,
        args::{ConnectorSpec, OsSpec},
    },
};
use memflow_guests::{CapturedGuest, Inner, NESTED, known_text};
use memflow_linux::{LinuxOptions, LinuxOs};
use memflow_process::{GuestRun, Options, ProcessMemory, Target};
use memflow_tests::{Form, Opened, built, guest};

/// Calls `compare` for each form of the outer guest, with the machine inside, opened by the name of the process.
fn check(compare: impl Fn(&CapturedGuest, &Inner, &Opened, &Arc<ProcessMemory>)) {
    let guest = guest(NESTED.name);
    let inner = guest.inner().unwrap();
    for outer in Opened::every_form(&guest) {
        let memory = memflow_process::open(&outer.os, &Target::Name("vmm".to_owned()), &Options::default()).unwrap();
        compare(&guest, &inner, &outer, &Arc::new(memory));
    }
}

fn open_inner(memory: &Arc<ProcessMemory>) -> LinuxOs {
    LinuxOs::open(memory.clone(), &LinuxOptions::default()).unwrap()
}

#[test]
fn ram_is_the_mapping_that_proc_and_the_monitor_name() {
    check(|guest, inner, outer, memory| {
        let monitor = guest.truth.process_named("vmm").unwrap();
        assert_eq!(monitor.pid, inner.pid);
        let maps = guest.truth.maps(inner.pid).unwrap();
        assert!(maps.iter().any(|mapping| (mapping.start, mapping.end) == (inner.virt, inner.virt + inner.len)));

        assert_eq!(memory.process().info().pid, inner.pid);
        let metadata = memory.metadata();
        assert_eq!(metadata.runs.runs().len(), 1);
        assert_eq!(metadata.runs.total_bytes(), inner.len);
        assert_eq!(metadata.liveness, outer.os.physical_memory().metadata().liveness);
        assert_eq!(memory.virtual_address(PhysAddr::new(inner.phys)), Some(VirtAddr::new(inner.virt)));
        assert_eq!(memory.virtual_address(PhysAddr::new(inner.phys + inner.len)), None);
    });
}

#[test]
fn bytes_are_those_of_the_outer_pages_that_pagemap_names() {
    check(|guest, inner, outer, memory| {
        let pages = guest.truth.pages(inner.pid).unwrap();
        let inside: Vec<_> = pages
            .iter()
            .filter_map(|page| Some((page.virt.checked_sub(inner.virt).filter(|at| *at < inner.len)?, page.phys)))
            .collect();
        assert_eq!(inside.len() as u64, inner.len / 4096, "the monitor has touched all of its RAM");
        let mut filled = 0;
        for (at, phys) in inside.into_iter().step_by(37) {
            let (mut ours, mut expected) = ([0; 4096], [0; 4096]);
            memory.read_into(PhysAddr::new(inner.phys + at), &mut ours).unwrap();
            outer.os.physical_memory().read_into(PhysAddr::new(phys), &mut expected).unwrap();
            assert!(ours == expected, "inner {at:#x} is not outer {phys:#x}");
            filled += usize::from(ours.iter().any(|byte| *byte != 0));
        }
        assert!(filled > 100, "only {filled} pages hold anything");
    });
}

#[test]
fn inner_kernel_is_named() {
    check(|guest, inner, outer, memory| {
        let os = open_inner(memory);
        assert_eq!(os.kernel().release, inner.truth.release().unwrap());
        assert_eq!(os.kernel().version, inner.truth.version().unwrap());
        assert_eq!(os.kernel().hostname.as_deref(), Some(inner.truth.hostname().unwrap().as_str()));
        assert_ne!(os.kernel().hostname, outer.os.kernel().hostname);
        assert_ne!(os.kernel().base, outer.os.kernel().base, "two kernels at one random place");
        assert_ne!(inner.truth.kernel_command_line().unwrap(), guest.truth.kernel_command_line().unwrap());
    });
}

#[test]
fn inner_processes_equal_their_own_proc() {
    check(|_, inner, _, memory| assert_processes(&open_inner(memory), inner));
}

/// The process list equals the inner machine's own /proc.
fn assert_processes(os: &dyn Os, inner: &Inner) {
    let mut found = os.processes().unwrap().into_complete().unwrap();
    found.sort_by_key(|process| process.pid);
    let expected = inner.truth.processes().unwrap();
    let pids: Vec<u32> = expected.iter().map(|process| process.pid).collect();
    assert_eq!(found.iter().map(|process| process.pid).collect::<Vec<_>>(), pids);
    assert!(expected.iter().filter(|process| !process.kernel_thread).count() >= 15);
    for (ours, truth) in found.iter().zip(&expected) {
        let what = format!("inner pid {} ({})", truth.pid, truth.name);
        assert_eq!(ours.parent_pid, truth.ppid, "parent of {what}");
        assert_eq!((ours.uid, ours.gid), (Some(truth.uid), Some(truth.gid)), "owner of {what}");
        assert_eq!((ours.threads, ours.kernel_thread), (truth.threads, truth.kernel_thread), "kind of {what}");
        assert_eq!(ours.start_time.as_millis() / 10, u128::from(truth.start_ticks), "start of {what}");
        let name = if truth.kernel_thread { task_name(ours) } else { &ours.name };
        let printed = if truth.kernel_thread { truth.task_name() } else { &truth.name };
        assert_eq!(name, printed, "name of {what}");
        // A kernel thread may wake up while the agent writes down the others; what the agent itself does is to run.
        let changed = truth.kernel_thread && (ours.state.letter() == 'R' || truth.state == 'R');
        assert!(ours.state.letter() == truth.state || changed, "state of {what}: {}", ours.state);
    }
    // The CPU stopped in the agent, so its tables are loaded; with page-table isolation, those for user mode, in the page after.
    let agent = inner.truth.agent_pid().unwrap();
    let root = found.iter().find(|process| process.pid == agent).and_then(|process| process.root);
    assert_eq!(root.map(|root| root & !0x1fff), Some(inner.cr3 & !0x1fff));
}

/// The name without what the kernel appends to the names of workers.
fn task_name(process: &ProcessInfo) -> &str {
    let worker = process.name.starts_with("kworker/") && !process.name.starts_with("kworker/R-");
    let name = if worker { process.name.split(['+', '-']).next() } else { None };
    let name = name.unwrap_or(&process.name);
    &name[..name.len().min(15)]
}

#[test]
fn inner_process_is_read_through_two_address_spaces() {
    check(|_, inner, _, memory| {
        let os = open_inner(memory);
        let truth = inner.truth.process_named("worker-pool").unwrap();
        let process = os.open_pid(truth.pid).unwrap();
        assert_eq!(process.command_line().unwrap(), truth.arguments());
        assert_eq!(process.environment().unwrap(), inner.truth.environ(truth.pid).unwrap());

        let pages = inner.truth.pages(truth.pid).unwrap();
        assert!(pages.len() > 64);
        let space = process.address_space().unwrap();
        for page in pages {
            let found = space.translate(process.physical_memory(), VirtAddr::new(page.virt));
            assert_eq!(found.map(|found| found.phys.as_u64()), Ok(page.phys), "{:#x}", page.virt);
        }

        let regions = process.memory_map().unwrap().into_complete().unwrap();
        let expected = inner.truth.maps(truth.pid).unwrap();
        let ours: Vec<_> = regions.iter().map(|region| (region.range.start().as_u64(), region.range.len())).collect();
        assert_eq!(ours, expected.iter().map(|one| (one.start, one.end - one.start)).collect::<Vec<_>>());

        let known = regions
            .iter()
            .find(|region| matches!(&region.kind, RegionKind::File { path, .. } if path == "/etc/known.txt"))
            .expect("/etc/known.txt is mapped");
        let mut bytes = vec![0; known.range.len() as usize];
        process.read_into(known.range.start(), &mut bytes).unwrap();
        assert_eq!(String::from_utf8_lossy(&bytes), known_text()[..bytes.len()]);
    });
}

#[test]
fn runs_that_the_caller_names_move_the_machine() {
    check(|_, inner, outer, memory| {
        // The same RAM, split as monitors split it around the hole of a PC.
        let (low, moved) = (inner.len / 2, 1 << 32);
        let options = Options::with_runs([
            GuestRun { phys: PhysAddr::new(0), virt: VirtAddr::new(inner.virt), len: low },
            GuestRun { phys: PhysAddr::new(moved), virt: VirtAddr::new(inner.virt + low), len: inner.len - low },
        ]);
        let split = memflow_process::open(&outer.os, &Target::Pid(inner.pid), &options).unwrap();
        let (mut ours, mut expected) = ([0; 64], [0; 64]);
        for offset in (0..inner.len - low - 64).step_by(0x2_1000) {
            split.read_into(PhysAddr::new(moved + offset), &mut ours).unwrap();
            memory.read_into(PhysAddr::new(low + offset), &mut expected).unwrap();
            assert_eq!(ours, expected);
        }
        let mut bytes = [0; 32];
        let mut ops = [PhysRead::new(PhysAddr::new(low - 16), &mut bytes)];
        let error = split.read_batch(&mut ops).unwrap_err();
        assert!(error.is_not_in_image(), "{error}");
        assert!(matches!(ops[0].outcome, Outcome::Failed { offset: 16, .. }));
    });
}

/// Calls `compare` with the tree's plugins: linked in, and loaded.
fn with_plugins(compare: impl Fn(&Inventory)) {
    let built_in = Inventory::builder()
        .connector::<memflow_snapshot::Plugin>()
        .and_then(|builder| builder.connector::<memflow_process::Plugin>())
        .and_then(|builder| builder.os_layer::<memflow_linux::Plugin>());
    compare(&built_in.unwrap().build());
    let loaded = built().plugins.iter().fold(Inventory::builder(), |builder, path| builder.file(path)).build();
    assert!(loaded.rejected().is_empty() && loaded.plugins().len() == built().plugins.len(), "{loaded:?}");
    compare(&loaded);
}

#[test]
fn chain_of_plugins_leads_to_the_inner_machine() {
    let guest = guest(NESTED.name);
    let inner = guest.inner().unwrap();
    let linux = || OsSpec::new("linux").unwrap();
    with_plugins(|inventory| {
        for form in Form::ALL {
            let file = form.path(&guest);
            let outer = inventory
                .chain()
                .connector(ConnectorSpec::new("snapshot").unwrap().with_target(file.to_str().unwrap()))
                .and_then(|link| link.os(linux()))
                .unwrap();
            let runs = format!("{:#x}-{:#x}@{:#x}", inner.phys, inner.phys + inner.len - 1, inner.virt);
            let process = || ConnectorSpec::new("process").unwrap();
            for spec in
                [process().with_target("vmm"), process().with_target(inner.pid.to_string()).with_arg("runs", runs)]
            {
                let found = outer.clone().connector(spec).and_then(|link| link.os(linux())).unwrap();
                assert_processes(&**found.os(), &inner);
                assert_eq!(found.os().kernel().release, inner.truth.release().unwrap());
                assert_eq!(found.previous().memory().metadata().runs.total_bytes(), inner.len);
            }
            let error = outer.connector(process().with_target("no-such-monitor")).unwrap_err().to_string();
            assert_eq!(error, "link 3 (connector process): no process no-such-monitor in this target");
        }
    });
}

#[test]
fn command_prints_the_processes_of_the_inner_machine() {
    let guest = guest(NESTED.name);
    let inner = guest.inner().unwrap();
    let loaded: Vec<&OsStr> =
        built().plugins.iter().flat_map(|path| [OsStr::new("--plugin"), path.as_os_str()]).collect();
    for form in Form::ALL {
        let file = form.path(&guest);
        let first = format!("snapshot:{}", file.display());
        let name = file.to_str().unwrap();
        let mut printed = Vec::new();
        for words in [
            &[name, "-c", "process:vmm", "-o", "linux"][..],
            &[name, "-c", "process:vmm:cache=16MiB"],
            &["-c", &first, "-o", "linux", "-c", "process:vmm", "-o", "linux"],
        ] {
            for plugins in [&[][..], &loaded] {
                let run =
                    Command::new(&built().memflow).args(["ps", "--json"]).args(words).args(plugins).output().unwrap();
                assert!(run.status.success() && run.stderr.is_empty(), "{words:?}: {run:?}");
                printed.push(String::from_utf8(run.stdout).unwrap());
            }
        }
        assert!(printed.iter().all(|text| *text == printed[0]), "one chain, two answers");
        let document: serde_json::Value = serde_json::from_str(&printed[0]).unwrap();
        assert_eq!(document["problems"], serde_json::json!([]));
        let found = document["processes"].as_array().unwrap();
        let expected = inner.truth.processes().unwrap();
        assert_eq!(found.len(), expected.len());
        for truth in &expected {
            let ours = found.iter().find(|process| process["pid"] == truth.pid).unwrap();
            let facts = ["parent_pid", "uid", "gid", "threads"].map(|key| ours[key].as_u64().unwrap() as u32);
            assert_eq!(facts, [truth.ppid, truth.uid, truth.gid, truth.threads], "{ours}");
            assert_eq!(ours["kernel_thread"], truth.kernel_thread, "{ours}");
            assert!(truth.kernel_thread || ours["name"] == *truth.name, "{ours}");
        }
    }
}
