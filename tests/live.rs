//! A running guest: what is seen follows what happens in it.

use std::time::Instant;

use memflow_core::{
    MemoryViewExt,
    os::{Os, RegionKind},
};
use memflow_guests::{Guests, MATRIX};
use memflow_linux::{LinuxOptions, LinuxOs};
use memflow_snapshot::OpenOptions;

#[test]
fn process_started_after_the_first_list_is_in_the_second() {
    let guests = Guests::locate().unwrap();
    let spec = MATRIX.iter().find(|spec| spec.name == "amd64-6.12-4level-pti").unwrap();
    let mut guest = guests.boot(spec).unwrap();
    let snapshot = memflow_snapshot::open(&guest.ram_path(), &OpenOptions::default()).unwrap();
    let os = LinuxOs::open(snapshot.memory, &LinuxOptions::default()).unwrap();

    let first = listed(&os);
    assert!(!first.iter().any(|(_, name)| name == "newcomer"), "{first:?}");
    let pid = guest.spawn("newcomer").unwrap();
    // The guest runs on while its memory is read: a list may catch it in the middle of a change, and then says so.
    let started = Instant::now();
    let second = loop {
        let list = listed(&os);
        if list.iter().any(|(listed, name)| *listed == pid && name == "newcomer") || started.elapsed().as_secs() > 20 {
            break list;
        }
    };
    assert!(second.iter().any(|(listed, name)| *listed == pid && name == "newcomer"), "{second:?}");
    for (pid, name) in first.iter().filter(|(_, name)| !name.starts_with("kworker")) {
        assert!(second.iter().any(|(listed, _)| listed == pid), "{name} ({pid}) vanished");
    }

    let process = os.open_pid(pid).unwrap();
    let regions = process.memory_map().unwrap();
    let code = regions
        .items
        .iter()
        .find(|region| region.permissions.execute && matches!(region.kind, RegionKind::File { .. }))
        .unwrap_or_else(|| panic!("no code in {regions:?}"));
    // Pages come in as they are run, so some of the code must be there.
    let mut bytes = vec![0; code.range.len() as usize];
    let partial = process.read_partial(code.range.start(), &mut bytes).unwrap();
    assert!(partial.missing() < code.range.len(), "{partial:?}");
    assert!(bytes.iter().any(|byte| *byte != 0));
    assert!(!process.command_line().unwrap().is_empty());
}

/// Pid and name of every process; tries again while the running kernel changes its list underneath.
fn listed(os: &LinuxOs) -> Vec<(u32, String)> {
    let mut problems = Vec::new();
    for _ in 0..50 {
        match os.processes().and_then(memflow_core::os::Listing::into_complete) {
            Ok(list) => return list.into_iter().map(|process| (process.pid, process.name)).collect(),
            Err(error) => problems.push(error.to_string()),
        }
    }
    panic!("no complete list in 50 tries: {problems:?}");
}
