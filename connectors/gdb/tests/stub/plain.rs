//! Stubs that are not QEMU's: stopped for a batch, let go after it, detached at the end.

use std::sync::Arc;

use memflow_core::{
    Error, MemoryViewExt, PhysAddr, PhysicalMemory, VirtAddr,
    memory::{PhysRead, PhysWrite},
    paging::{AddressSpace, x86},
    view::SpaceView,
};
use memflow_gdb::{Options, Runs, open};

use crate::common::{Reply, Stub, byte, options, text};

fn read(memory: &impl PhysicalMemory, at: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    memory.read_batch(&mut [PhysRead::new(PhysAddr::new(at), &mut bytes)]).unwrap();
    bytes
}

#[test]
fn stub_without_physical_addresses_is_refused_with_the_way_out() {
    let stub = Stub::plain().listen();
    let error = open(&stub.address, &Options::default()).unwrap_err();
    assert!(matches!(error, Error::Unsupported { .. }));
    assert!(error.to_string().contains("physical=assume"), "{error}");
    assert!(stub.end().running);
}

#[test]
fn target_runs_between_batches_and_after() {
    for no_ack in [true, false] {
        let mut stub = Stub::plain();
        stub.no_ack = no_ack;
        let stub = stub.listen();
        let memory = stub.open().unwrap().memory;
        assert_eq!(memory.metadata().runs.total_bytes(), 0x10000);
        let opened = stub.state_when_running();
        assert_eq!(read(&memory, 0x1ff, 2), [byte(0x1ff), byte(0x200)]);
        drop(memory);
        let state = stub.end();
        let said = &state.packets[opened.packets.len()..];
        assert_eq!(said, ["m1ff,1", "m200,1", "vCont;c", "D"], "{no_ack}");
        assert!(state.running);
    }
}

#[test]
fn target_that_is_not_to_run_stands() {
    let stub = Stub::plain().listen();
    let mut never = options();
    never.run = Runs::Never;
    let memory = open(&stub.address, &never).unwrap().memory;
    read(&memory, 0, 4);
    drop(memory);
    let packets = stub.end().packets;
    assert!(!packets.iter().any(|packet| packet == "D" || packet.contains("vCont;c")), "{packets:?}");
}

#[test]
fn binary_reads_and_writes_are_used_where_they_are_there() {
    let mut stub = Stub::plain().on("x", |_| Reply::Packet(b"b}\x03}\x04}]}\x0a".to_vec())).on("X", |_| text("OK"));
    stub.features += ";binary-upload+";
    let stub = stub.listen();
    let memory = stub.open().unwrap().memory;
    assert_eq!(read(&memory, 0x100, 4), *b"#$}*");
    memory.write_batch(&mut [PhysWrite::new(PhysAddr::new(0x10), b"a#b")]).unwrap();
    drop(memory);
    assert!(stub.end().packets.contains(&"X10,3:a#b".to_owned()));
}

#[test]
fn memory_is_named_by_hand_where_the_stub_does_not() {
    let mut stub = Stub::plain();
    stub.features = "PacketSize=400".to_owned();
    let stub = stub.listen();
    let error = stub.open().unwrap_err();
    assert!(error.to_string().contains("map=FIRST-LAST"), "{error}");

    let mut stub = Stub::plain();
    stub.features = String::new();
    let stub = stub.listen();
    let mut by_hand = options();
    by_hand.map = Some("0x1000-0x1fff,0x3000-0x3fff".to_owned());
    let memory = open(&stub.address, &by_hand).unwrap().memory;
    let mut bytes = [0xee; 0x2000];
    let error = memory.read_batch(&mut [PhysRead::new(PhysAddr::new(0x1800), &mut bytes)]).unwrap_err();
    assert!(error.is_not_in_image(), "{error}");
    assert_eq!((bytes[0], bytes[0x800], bytes[0x1800]), (byte(0x1800), 0xee, byte(0x3000)));
}

#[test]
fn registers_come_from_all_of_them_where_there_is_no_packet_for_one() {
    let mut stub = Stub::plain().on("p", |_| text("")).on("g", |_| text("88888888888888883300058000f0ffff00000000"));
    stub.features += ";qXfer:features:read+";
    let stub = stub.listen();
    let facts = stub.open().unwrap().memory.facts().clone();
    let registers = format!("{:?}", facts.vcpus);
    assert!(registers.contains("cr0: Some(2147811379)") && registers.contains("cr3: Some(4294963200)"), "{registers}");
}

#[test]
fn tables_are_asked_for_once_until_the_target_is_stopped() {
    // Two levels of 32-bit x86: the page at 0x8000_0000 lies at 0x3000.
    let stub = Stub::plain().on("m1800,", |_| text("03200000")).on("m2000,", |_| text("03300000")).listen();
    let memory = Arc::new(stub.open().unwrap().memory);
    let view = SpaceView::new(memory.clone(), AddressSpace::new(&x86::X86, 0x1000));
    let asked = || stub.state().packets.iter().filter(|packet| packet.starts_with('m')).count();
    let reads = || {
        let before = asked();
        assert_eq!(view.read::<u8>(VirtAddr::new(0x8000_0012)).unwrap(), byte(0x3012));
        asked() - before
    };
    assert_eq!(reads(), 3);
    // What is known of a target that runs is used for 5 ms, and a machine that is busy may let them pass.
    assert!((0..100).any(|_| reads() == 1));
    let control = memory.control().unwrap();
    control.pause().unwrap();
    assert_eq!(reads(), 3, "nothing from before it stood");
    control.run_state().unwrap();
    assert_eq!(reads(), 3, "somebody else may have let it run meanwhile");
    memory.write_batch(&mut [PhysWrite::new(PhysAddr::new(0x2000), &[3])]).unwrap();
    assert_eq!(reads(), 3, "a table was written to");
}
