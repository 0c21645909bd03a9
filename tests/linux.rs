//! Linux on real kernels: everything that `memflow` says of a guest equals what the guest says of itself in /proc.

use std::{collections::BTreeMap, time::Duration};

use memflow_core::{
    MemoryViewExt, VirtAddr,
    os::{MemoryRegion, Os, Process, RegionKind},
};
use memflow_guests::{CapturedGuest, Mapping, known_text};
use memflow_tests::{Opened, guest, on_guests};

on_guests!(amd64 [
    kernel_is_named
    processes_equal_proc
    executables_arguments_and_environment_equal_proc
    memory_maps_equal_proc
    present_pages_are_where_pagemap_says
    threads_equal_proc
    modules_equal_proc
    symbols_equal_kallsyms
    log_equals_kmsg
    file_text_and_secret_are_found_in_the_process
]);

fn check(name: &str, compare: impl Fn(&CapturedGuest, &Opened)) {
    let guest = guest(name);
    for opened in Opened::every_form(&guest) {
        compare(&guest, &opened);
    }
}

fn kernel_is_named(name: &str) {
    check(name, |guest, opened| {
        let kernel = opened.os.kernel();
        let truth = &guest.truth;
        assert_eq!(kernel.system, "Linux");
        assert_eq!(kernel.release, truth.release().unwrap());
        assert_eq!(kernel.version, truth.version().unwrap());
        assert_eq!(kernel.hostname.as_deref(), Some(truth.hostname().unwrap().as_str()));
        let levels = opened.os.kernel_space().architecture().levels.len();
        assert_eq!(levels, usize::from(guest.meta.levels));
    });
}

fn processes_equal_proc(name: &str) {
    check(name, |guest, opened| {
        let agent = guest.truth.agent_pid().unwrap();
        let expected = guest.truth.processes().unwrap();
        let last_states = last_states(guest);
        let found = opened.os.processes().unwrap().into_complete().unwrap();
        let found: BTreeMap<u32, _> = found.into_iter().map(|process| (process.pid, process)).collect();
        let pids = |list: &mut dyn Iterator<Item = u32>| list.collect::<Vec<_>>();
        assert_eq!(
            pids(&mut found.keys().copied()),
            pids(&mut expected.iter().map(|process| process.pid)),
            "{:?}",
            opened.form
        );
        for truth in &expected {
            let ours = &found[&truth.pid];
            let what = format!("{:?} pid {} ({})", opened.form, truth.pid, truth.name);
            assert_eq!(ours.parent_pid, truth.ppid, "parent of {what}");
            assert_eq!(ours.uid, Some(truth.uid), "user of {what}");
            assert_eq!(ours.gid, Some(truth.gid), "group of {what}");
            // The agent reads its own state while it runs, and sleeps when the memory is taken.
            let state = if truth.pid == agent { 'S' } else { last_states[&truth.pid] };
            let found = ours.state.letter();
            // A thread of the kernel may wake up, or go back to sleep, between its telling and the stop of the CPUs.
            let changed = truth.kernel_thread && (found == 'R' || state == 'R');
            assert!(found == state || changed, "state of {what} is {found} not {state}");
            assert_eq!(ours.threads, truth.threads, "threads of {what}");
            assert_eq!(ours.kernel_thread, truth.kernel_thread, "kind of {what}");
            if truth.kernel_thread && truth.name.starts_with("kworker/") && !truth.name.starts_with("kworker/R-") {
                // /proc appends what the worker did last, and it may have done something else since.
                let (own, work) = ours.name.split_at(truth.task_name().len());
                assert_eq!(own, truth.task_name(), "name of {what}");
                assert!(work.is_empty() || work.starts_with(['-', '+']), "name of {what} is {}", ours.name);
            } else {
                assert_eq!(ours.name, truth.name, "name of {what}");
            }
            assert_eq!(ours.start_time.as_millis() / 10, u128::from(truth.start_ticks), "start of {what}");
        }
    });
}

/// The state of each process as the guest last told it before its CPUs were stopped.
fn last_states(guest: &CapturedGuest) -> BTreeMap<u32, char> {
    let list = guest.truth.text("procs").unwrap();
    let state = |line: &str| {
        let mut words = line.split(' ');
        let pid = words.next()?.parse().ok()?;
        let letter = words.nth(1)?.chars().next()?;
        Some((pid, letter))
    };
    list.lines().map(|line| state(line).unwrap_or_else(|| panic!("{line}"))).collect()
}

/// Opens every process that has an address space.
fn user_processes(guest: &CapturedGuest, opened: &Opened) -> Vec<(memflow_guests::Process, Box<dyn Process>)> {
    let user =
        guest.truth.processes().unwrap().into_iter().filter(|process| !process.kernel_thread && process.state != 'Z');
    let open = |truth: memflow_guests::Process| {
        let process = opened.os.open_pid(truth.pid).unwrap();
        (truth, process)
    };
    let processes: Vec<_> = user.map(open).collect();
    assert!(processes.len() >= 8, "the guest has only {} user processes", processes.len());
    processes
}

fn executables_arguments_and_environment_equal_proc(name: &str) {
    check(name, |guest, opened| {
        let agent = guest.truth.agent_pid().unwrap();
        for (truth, process) in user_processes(guest, opened) {
            let what = format!("{:?} pid {} ({})", opened.form, truth.pid, truth.name);
            assert_eq!(process.executable().unwrap(), truth.exe, "executable of {what}");
            assert_eq!(process.command_line().unwrap(), truth.arguments(), "arguments of {what}");
            if truth.pid != agent {
                let environment = guest.truth.environ(truth.pid).unwrap();
                assert_eq!(process.environment().unwrap(), environment, "environment of {what}");
            }
        }
    });
}

/// A region in the terms of /proc/PID/maps.
fn mapping(region: &MemoryRegion) -> Mapping {
    let (offset, device, inode, name) = match &region.kind {
        RegionKind::File { path, offset, inode, device_major, device_minor } => {
            (*offset, (*device_major, *device_minor), *inode, path.clone())
        }
        RegionKind::Special { name } => (0, (0, 0), 0, name.clone()),
        _ => (0, (0, 0), 0, String::new()),
    };
    let start = region.range.start().as_u64();
    Mapping {
        start,
        // The gate page of the kernel ends where the address space does not, so the sum exists.
        end: start + region.range.len(),
        read: region.permissions.read,
        write: region.permissions.write,
        execute: region.permissions.execute,
        shared: region.permissions.shared,
        offset,
        device,
        inode,
        name,
    }
}

fn memory_maps_equal_proc(name: &str) {
    check(name, |guest, opened| {
        let agent = guest.truth.agent_pid().unwrap();
        for (truth, process) in user_processes(guest, opened) {
            if truth.pid == agent {
                continue;
            }
            let regions = process.memory_map().unwrap().into_complete().unwrap();
            let ours: Vec<Mapping> = regions.iter().map(mapping).collect();
            let expected = guest.truth.maps(truth.pid).unwrap();
            assert_eq!(ours, expected, "{:?} pid {} ({})", opened.form, truth.pid, truth.name);
        }
    });
}

fn present_pages_are_where_pagemap_says(name: &str) {
    check(name, |guest, opened| {
        let agent = guest.truth.agent_pid().unwrap();
        for (truth, process) in user_processes(guest, opened) {
            if truth.pid == agent {
                continue;
            }
            let space = process.address_space().unwrap();
            let pages = guest.truth.pages(truth.pid).unwrap();
            assert!(!pages.is_empty());
            for page in pages {
                let found = space.translate(process.physical_memory(), VirtAddr::new(page.virt));
                let found = found.map(|translation| translation.phys.as_u64());
                assert_eq!(found, Ok(page.phys), "{:#x} of pid {}", page.virt, truth.pid);
            }
        }
    });
}

fn threads_equal_proc(name: &str) {
    check(name, |guest, opened| {
        let agent = guest.truth.agent_pid().unwrap();
        for (truth, process) in user_processes(guest, opened) {
            if truth.pid == agent {
                continue;
            }
            let mut threads = process.threads().unwrap().into_complete().unwrap();
            threads.sort_by_key(|thread| thread.tid);
            let ours: Vec<_> =
                threads.iter().map(|thread| (thread.tid, thread.name.as_str(), thread.state.letter())).collect();
            let expected = guest.truth.threads(truth.pid).unwrap();
            let expected: Vec<_> =
                expected.iter().map(|thread| (thread.tid, thread.name.as_str(), thread.state)).collect();
            assert_eq!(ours, expected, "{:?} pid {}", opened.form, truth.pid);
        }
    });
}

fn modules_equal_proc(name: &str) {
    check(name, |guest, opened| {
        let modules = opened.os.modules().unwrap().into_complete().unwrap();
        let ours: Vec<_> = modules
            .into_iter()
            .map(|module| (module.name, module.size, module.used_by, module.state, module.base.as_u64()))
            .collect();
        let expected: Vec<_> = guest
            .truth
            .modules()
            .unwrap()
            .into_iter()
            .map(|module| (module.name, module.size, module.used_by, Some(module.state), module.base))
            .collect();
        assert!(expected.len() >= 5, "the guest has only {} modules", expected.len());
        assert_eq!(ours, expected, "{:?}", opened.form);
    });
}

fn symbols_equal_kallsyms(name: &str) {
    check(name, |guest, opened| {
        // Trampolines and compiled filters come and go; they are no symbols of an image.
        let generated = ["bpf", "__builtin__ftrace", "__builtin__kprobes"];
        let mut expected: Vec<_> = guest
            .truth
            .kallsyms()
            .unwrap()
            .into_iter()
            .filter(|symbol| symbol.module.as_deref().is_none_or(|module| !generated.contains(&module)))
            .map(|symbol| (symbol.address, symbol.kind, symbol.name, symbol.module))
            .collect();
        let mut ours: Vec<_> = opened
            .os
            .symbols()
            .unwrap()
            .into_complete()
            .unwrap()
            .into_iter()
            .map(|symbol| (symbol.address.as_u64(), symbol.kind, symbol.name, symbol.module))
            .collect();
        expected.sort();
        ours.sort();
        assert!(expected.len() > 50_000, "only {} symbols in kallsyms", expected.len());
        let different: Vec<_> =
            ours.iter().zip(&expected).filter(|(ours, expected)| ours != expected).take(5).collect();
        assert!(different.is_empty(), "{:?}: {different:?}", opened.form);
        assert_eq!(ours.len(), expected.len());
        for (address, _, name, module) in expected.iter().step_by(expected.len() / 1000) {
            let named = opened.os.symbols_named(name).unwrap();
            let found = named.iter().any(|symbol| symbol.address.as_u64() == *address && symbol.module == *module);
            assert!(found, "{name} is not at {address:#x}");
        }
    });
}

/// What the kernel's `/dev/kmsg` does to text: bytes that are not printable become `\xNN`
/// (Documentation/ABI/testing/dev-kmsg; kernel/printk/printk.c, `append_char`, `msg_add_ext_text`).
fn escaped(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b' '..127 if byte != b'\\' => char::from(byte).to_string(),
            _ => format!("\\x{byte:02x}"),
        })
        .collect()
}

fn log_equals_kmsg(name: &str) {
    check(name, |guest, opened| {
        let expected = guest.truth.dmesg().unwrap();
        let records = opened.os.kernel_log().unwrap().into_complete().unwrap();
        let last = expected.last().unwrap().sequence;
        // The agent reads the log before the memory is taken, so newer records may follow.
        let ours: Vec<_> = records
            .iter()
            .filter(|record| record.sequence <= last)
            .map(|record| {
                let micros = record.time.as_micros() as u64;
                (record.sequence, micros, u32::from(record.facility), record.level, escaped(&record.text))
            })
            .collect();
        let expected: Vec<_> = expected
            .into_iter()
            .map(|record| (record.sequence, record.micros, record.facility, record.level, record.text))
            .collect();
        assert!(expected.len() > 100);
        assert_eq!(ours, expected, "{:?}", opened.form);
        assert!(records.iter().all(|record| record.time < Duration::from_secs(3600)));
    });
}

fn file_text_and_secret_are_found_in_the_process(name: &str) {
    check(name, |guest, opened| {
        let pid = guest.truth.process_named("worker-pool").unwrap().pid;
        let process = opened.os.open_pid(pid).unwrap();

        let secret = "MEMFLOW_SECRET=correct-horse-battery-staple";
        assert!(process.environment().unwrap().iter().any(|variable| variable == secret));

        let regions = process.memory_map().unwrap().into_complete().unwrap();
        let known = regions
            .iter()
            .find(|region| matches!(&region.kind, RegionKind::File { path, .. } if path == "/etc/known.txt"));
        let range = known.expect("/etc/known.txt is mapped").range;
        let text = known_text();
        let mut bytes = vec![0; text.len().min(range.len() as usize)];
        process.read_into(range.start(), &mut bytes).unwrap();
        assert_eq!(String::from_utf8_lossy(&bytes), text[..bytes.len()]);

        // The secret lies in the stack: found by reading the region as anybody would, gaps and all.
        let stack =
            regions.iter().find(|region| matches!(&region.kind, RegionKind::Special { name } if name == "[stack]"));
        let range = stack.expect("a stack").range;
        let mut bytes = vec![0; range.len() as usize];
        let partial = process.read_partial(range.start(), &mut bytes).unwrap();
        assert!(partial.missing() < range.len());
        assert!(bytes.windows(secret.len()).any(|window| window == secret.as_bytes()));
    });
}
