//! The connector over a library that logs what it is asked: which entries a batch becomes, and what becomes of its answers.
#![cfg(unix)]

mod fake;
mod hostile;

use fake::{FIRST, SIZE, byte_at, bytes_at, fake, library, mapped, options};
use memflow_core::{
    Error, PhysAddr, PhysicalMemory, Reason, VirtAddr,
    memory::{Liveness, Outcome, PhysRead, PhysWrite, PhysicalMemoryExt},
    paging::{AddressSpace, x86},
    plugin::{Inventory, args::ConnectorSpec},
};
use memflow_pcileech::{Options, open, parse_map};

#[test]
fn batch_is_one_call_of_entries_that_cross_no_page() {
    let device = mapped("");
    let (mut small, mut odd, mut large, mut last) = ([0; 8], [0; 5], vec![0; 0x2345], [0; 1]);
    let at = |offset: u64| PhysAddr::new(FIRST + offset);
    let mut ops = [
        PhysRead::new(at(0x10), &mut small),
        PhysRead::new(at(0x1ffd), &mut odd),
        PhysRead::new(at(0x3003), &mut large),
        PhysRead::new(at(SIZE - 1), &mut last),
    ];
    device.connected.memory.read_batch(&mut ops).unwrap();
    assert_eq!(
        device.calls(),
        [
            "read 7 0",
            "r 100010 8",
            // Three bytes before a page's end, two after.
            "r 101ff8 8",
            "r 102000 8",
            "r 103000 1000",
            "r 104000 1000",
            "r 105000 348",
            "r 13fff8 8",
        ]
    );
    assert_eq!(small[..], bytes_at(FIRST + 0x10, 8));
    assert_eq!(odd[..], bytes_at(FIRST + 0x1ffd, 5));
    assert_eq!(large, bytes_at(FIRST + 0x3003, 0x2345));
    assert_eq!(last, [byte_at(FIRST + SIZE - 1)]);
}

#[test]
fn every_offset_and_length_around_a_page_border_is_right() {
    let device = mapped("");
    for start in (0xff0..0x1010).chain(0x1ff0..0x2001) {
        for len in [1, 2, 3, 4, 7, 8, 9, 15, 16, 17, 0x1000] {
            let mut bytes = vec![0; len];
            device.connected.memory.read_into(PhysAddr::new(FIRST + start), &mut bytes).unwrap();
            assert_eq!(bytes, bytes_at(FIRST + start, len as u64), "{start:#x} {len}");
        }
    }
    assert!(!device.calls().iter().any(|call| call.starts_with("BAD")));
}

#[test]
fn addresses_outside_of_the_map_are_never_asked_for() {
    let map = parse_map("0x101000-0x101fff,0x104000-0x10403f").unwrap();
    let device = fake("", &options().with_map(map)).unwrap();
    let mut bytes = vec![0xcc; 0x5000];
    let mut ops = [PhysRead::new(PhysAddr::new(FIRST), &mut bytes)];
    device.connected.memory.read_batch(&mut ops).unwrap_err();
    let reason = Reason::NotInImage { phys: PhysAddr::new(FIRST) };
    assert_eq!(ops[0].outcome, Outcome::Failed { offset: 0, reason });
    assert_eq!(device.calls(), ["read 2 0", "r 101000 1000", "r 104000 40"]);
    assert_eq!(bytes[0x1000..0x2000], bytes_at(0x10_1000, 0x1000));
    assert!(bytes[..0x1000].iter().chain(&bytes[0x2000..0x4000]).all(|byte| *byte == 0xcc));

    for (address, len) in [(0, 8), (0x10_2000, 8), (u64::MAX - 3, 4), (u64::MAX, 8)] {
        let mut bytes = vec![0; len];
        assert!(device.connected.memory.read_into(PhysAddr::new(address), &mut bytes).is_err(), "{address:#x}");
    }
    assert_eq!(device.calls(), [""; 0]);
}

#[test]
fn map_may_say_that_the_device_has_memory_elsewhere() {
    let map = parse_map("0x8000000000-0x8000000fff@0x103008").unwrap();
    let device = fake("", &options().with_map(map)).unwrap();
    let mut bytes = [0; 0x1000];
    device.connected.memory.read_into(PhysAddr::new(0x80_0000_0000), &mut bytes).unwrap();
    assert_eq!(bytes[..], bytes_at(0x10_3008, 0x1000));
    // Pages are the device's.
    assert_eq!(device.calls(), ["read 2 0", "r 103008 ff8", "r 104000 8"]);
}

#[test]
fn page_that_is_not_read_fails_alone_and_keeps_its_bytes() {
    let device = mapped("odd");
    let mut bytes = vec![0xcc; 0x3000];
    let mut ops = [PhysRead::new(PhysAddr::new(FIRST + 0x800), &mut bytes)];
    let error = device.connected.memory.read_batch(&mut ops).unwrap_err();
    assert_eq!(ops[0].outcome, Outcome::Failed { offset: 0x800, reason: Reason::Io { errno: 5 } });
    assert!(error.to_string().contains("0x100800: Input/output error"), "{error}");
    assert_eq!(bytes[..0x800], bytes_at(FIRST + 0x800, 0x800));
    assert!(bytes[0x800..0x1800].iter().all(|byte| *byte == 0xcc));
    assert_eq!(bytes[0x1800..0x2800], bytes_at(FIRST + 0x2000, 0x1000));
}

#[test]
fn unaligned_writes_leave_their_neighbours_alone() {
    let device = mapped("writable");
    let memory = &device.connected.memory;
    let mut expected = bytes_at(FIRST, 0x4000);
    for (offset, text) in [(0xffe_usize, &b"abcde"[..]), (0x1801, b"x"), (0x2003, b"longer than a few dwords")] {
        memory.write_batch(&mut [PhysWrite::new(PhysAddr::new(FIRST + offset as u64), text)]).unwrap();
        expected[offset..offset + text.len()].copy_from_slice(text);
    }
    // Nothing was read to be written back: only what was written could be changed by the machine meanwhile.
    assert_eq!(
        device.calls(),
        ["write 2 0", "w 100ffe 2", "w 101000 3", "write 1 0", "w 101801 1", "write 1 0", "w 102003 18"]
    );
    let mut bytes = vec![0; 0x4000];
    memory.read_into(PhysAddr::new(FIRST), &mut bytes).unwrap();
    assert!(bytes == expected);
}

#[test]
fn writes_are_one_call_in_their_order_and_fail_by_page() {
    let device = mapped("writable;odd");
    let memory = &device.connected.memory;
    let page = vec![1; 0x1000];
    let at = |offset: u64| PhysAddr::new(FIRST + offset);
    let mut ops = [
        PhysWrite::new(at(0), b"first"),
        PhysWrite::new(at(0), b"last"),
        PhysWrite::new(at(0x800), &page),
        PhysWrite::new(at(SIZE), b"outside"),
        PhysWrite::new(at(0x2000), b"x"),
    ];
    memory.write_batch(&mut ops).unwrap_err();
    let outcomes = ops.each_ref().map(|op| op.outcome);
    assert_eq!(outcomes[2], Outcome::Failed { offset: 0x800, reason: Reason::Io { errno: 5 } });
    assert_eq!(
        outcomes[3],
        Outcome::Failed { offset: 0, reason: Reason::NotInImage { phys: PhysAddr::new(FIRST + SIZE) } }
    );
    assert!([0, 1, 4].iter().all(|done| outcomes[*done].is_done()));
    assert_eq!(device.calls()[0], "write 5 0");
    let mut bytes = [0; 5];
    memory.read_into(at(0), &mut bytes).unwrap();
    assert_eq!(&bytes, b"lastt");
}

#[test]
fn device_that_takes_no_writes_is_read_only() {
    let device = mapped("");
    assert!(device.connected.memory.metadata().read_only);
    let mut ops = [PhysWrite::new(PhysAddr::new(FIRST), b"x")];
    device.connected.memory.write_batch(&mut ops).unwrap_err();
    assert_eq!(ops[0].outcome, Outcome::Failed { offset: 0, reason: Reason::ReadOnly });
    assert_eq!(device.calls(), [""; 0]);
}

#[test]
fn batches_larger_than_a_call_are_several() {
    let device = mapped("");
    let mut bufs = vec![[0_u8; 1]; 5000];
    let mut ops: Vec<_> = bufs
        .iter_mut()
        .enumerate()
        .map(|(index, buf)| PhysRead::new(PhysAddr::new(FIRST + index as u64 * 3), buf))
        .collect();
    device.connected.memory.read_batch(&mut ops).unwrap();
    assert!(bufs.iter().enumerate().all(|(index, buf)| buf[0] == byte_at(FIRST + index as u64 * 3)));
    let calls: Vec<String> = device.calls().into_iter().filter(|call| call.starts_with("read")).collect();
    assert_eq!(calls, ["read 1000 0", "read 388 0"]);
}

#[test]
fn nothing_asked_is_no_call() {
    let device = mapped("writable");
    device.connected.memory.read_batch(&mut []).unwrap();
    device.connected.memory.read_into(PhysAddr::new(FIRST), &mut []).unwrap();
    device.connected.memory.write_batch(&mut [PhysWrite::new(PhysAddr::new(FIRST), &[])]).unwrap();
    assert_eq!(device.calls(), [""; 0]);
}

#[test]
fn device_that_does_not_say_where_memory_lies_is_not_read_without_a_map() {
    let error = fake("volatile", &options()).err().unwrap().to_string();
    assert!(error.contains("without a memory map is not supported: it does not say where memory lies"), "{error}");
    assert!(error.ends_with("map=FIRST-LAST,…, or read everywhere with unsafe-map=all"), "{error}");
    for words in ["mapless", "empty"] {
        assert!(matches!(fake(words, &options()), Err(Error::Unsupported { .. })), "{words}");
    }
}

#[test]
fn leechcore_searches_for_memory_only_when_it_is_let() {
    let log = tempfile::tempdir().unwrap();
    let path = log.path().join("log");
    let device = format!("fake://log={}", path.display());
    let last = |options: &Options| {
        let opened = open(&device, options);
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let created = text.lines().find_map(|line| line.strip_prefix("create ")?.split(' ').next()).unwrap();
        (created.to_owned(), opened)
    };
    // A page, so that there is nothing to search for.
    assert_eq!(last(&options()).0, "1000");
    let map = parse_map("0x1000-0x9ffff,0x100000-0x13ffff@0x200000").unwrap();
    assert_eq!(last(&options().with_map(map)).0, "240000");
    let mut everywhere = options();
    everywhere.unsafe_map_all = true;
    let (last, opened) = last(&everywhere);
    let opened = opened.unwrap();
    assert_eq!(last, "0");
    assert_eq!(opened.memory.metadata().runs.total_bytes(), FIRST + SIZE);
    assert_eq!(opened.notes, ["any address in 0x0-0x13ffff@0x0 is asked for, whether memory answers there or not"]);
}

#[test]
fn map_of_the_device_itself_is_used() {
    let device = fake("own", &options()).unwrap();
    let runs = device.connected.memory.metadata().runs;
    assert_eq!(runs.to_string(), "0x100000-0x12ffff@0x100000,0x138000-0x13ffff@0x138000");
    let mut bytes = [0; 16];
    device.connected.memory.read_into(PhysAddr::new(0x13_8000), &mut bytes).unwrap();
    assert_eq!(bytes[..], bytes_at(0x13_8000, 16));
}

#[test]
fn what_changes_is_live() {
    for (words, liveness) in [("", Liveness::Frozen), ("volatile", Liveness::Live), ("writable", Liveness::Live)] {
        assert_eq!(mapped(words).connected.memory.metadata().liveness, liveness, "{words}");
    }
    assert_eq!(mapped("").connected.format, "LeechCore device fake");
}

#[test]
fn device_is_closed_when_its_memory_is_dropped() {
    let log = tempfile::tempdir().unwrap();
    let path = log.path().join("log");
    let opened = open(&format!("fake://log={};own", path.display()), &options()).unwrap();
    assert!(!std::fs::read_to_string(&path).unwrap().contains("close"));
    drop(opened);
    assert!(std::fs::read_to_string(&path).unwrap().ends_with("close 0 0\n"));
}

#[test]
fn threads_share_one_handle() {
    let device = mapped("");
    std::thread::scope(|scope| {
        for thread in 0..4_u64 {
            let memory = &device.connected.memory;
            scope.spawn(move || {
                let address = FIRST + thread * 0x3001;
                for _ in 0..50 {
                    let mut bytes = vec![0; 0x2000];
                    memory.read_into(PhysAddr::new(address), &mut bytes).unwrap();
                    assert!(bytes == bytes_at(address, 0x2000));
                }
            });
        }
    });
}

#[test]
fn plugin_takes_a_library_a_map_and_an_agent() {
    let inventory = Inventory::builder().connector::<memflow_pcileech::Plugin>().unwrap().build();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("ranges.map");
    std::fs::write(&file, "# of the machine in the rack\n0x100000-0x100fff\n0x102000-0x102fff\n").unwrap();
    let log = dir.path().join("log");
    let spec = ConnectorSpec::new("pcileech")
        .unwrap()
        .with_target(format!("fake://log={}", log.display()))
        .with_arg("lib", library().parent().unwrap().to_str().unwrap());
    let bytes = |spec: ConnectorSpec| {
        inventory.chain().connector(spec).map(|link| link.connection().memory.metadata().runs.total_bytes())
    };
    assert_eq!(bytes(spec.clone().with_arg("map", file.to_str().unwrap())).unwrap(), 0x2000);
    assert_eq!(bytes(spec.clone().with_arg("map", "0x100000-0x10ffff")).unwrap(), 0x10000);
    assert_eq!(bytes(spec.clone().with_arg("unsafe-map", "all")).unwrap(), FIRST + SIZE);
    let remote = spec.clone().with_arg("map", "0x100000-0x10ffff").with_arg("remote", "rpc://insecure:127.0.0.1");
    bytes(remote).unwrap();
    assert!(std::fs::read_to_string(&log).unwrap().contains("create 110000 1\n"));
    for (key, value) in [("unsafe-map", "some"), ("map", "0x100000-0x100001"), ("map", "no such file")] {
        assert!(bytes(spec.clone().with_arg(key, value)).is_err(), "{key}={value}");
    }
    let error = inventory.chain().connector(ConnectorSpec::new("pcileech").unwrap()).unwrap_err().to_string();
    assert!(error.contains("a device in LeechCore's terms"), "{error}");
}

#[test]
fn tables_are_asked_for_once_until_they_are_written_to() {
    for words in ["writable;volatile", "writable"] {
        let device = mapped(words);
        let memory = &device.connected.memory;
        // Two levels of 32-bit x86, then a page at 0x8000_0000.
        let [root, table, page] = [FIRST, FIRST + 0x1000, FIRST + 0x2000];
        let space = AddressSpace::new(&x86::X86, root);
        let write = |at: u64, entry: u64| {
            memory.write_batch(&mut [PhysWrite::new(PhysAddr::new(at), &entry.to_le_bytes()[..4])]).unwrap();
        };
        let reads = |page: u64| {
            device.calls();
            let found = space.translate(memory, VirtAddr::new(0x8000_0012)).unwrap();
            assert_eq!(found.phys, PhysAddr::new(page + 0x12));
            device.calls().iter().filter(|call| call.starts_with("read")).count()
        };
        write(root + 0x800, table | 3);
        write(table, page | 3);
        assert_eq!(reads(page), 2, "{words}");
        // What is known of memory that changes is used for 5 ms, and a machine that is busy may let them pass.
        assert!((0..100).any(|_| reads(page) == 0), "{words}");
        write(table, (page + 0x1000) | 3);
        assert_eq!(reads(page + 0x1000), 2, "{words}: a table was written to");
    }
}
