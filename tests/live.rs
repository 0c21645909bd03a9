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
    let text = regions
        .items
        .iter()
        .find(|region| region.permissions.execute && matches!(region.kind, RegionKind::File { .. }));
    let header = process.read::<[u8; 4]>(regions.items.first().unwrap().range.start()).unwrap();
    assert!(text.is_some(), "{regions:?}");
    assert_eq!(&header, b"\x7fELF");
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
