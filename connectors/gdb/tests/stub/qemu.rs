//! A stub as QEMU's: a window of packets for a batch, and nothing that stays behind.

use memflow_core::{
    PhysAddr, PhysicalMemory,
    memory::{PhysRead, PhysWrite, RunState, VcpuRegisters},
};

use crate::common::{Stub, byte, text};

fn read(memory: &impl PhysicalMemory, at: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    memory.read_batch(&mut [PhysRead::new(PhysAddr::new(at), &mut bytes)]).unwrap();
    bytes
}

#[test]
fn batch_is_one_window_that_lets_the_guest_go() {
    let stub = Stub::qemu().listen();
    let memory = stub.open().unwrap().memory;
    let before = stub.state_when_running();
    let (mut first, mut second, mut third) = ([0; 8], [0; 8], [0; 0x1000]);
    let mut ops = [
        PhysRead::new(PhysAddr::new(0x1008), &mut first),
        PhysRead::new(PhysAddr::new(0x1000), &mut second),
        PhysRead::new(PhysAddr::new(0x3800), &mut third),
    ];
    memory.read_batch(&mut ops).unwrap();
    assert_eq!((first[0], second[0], third[0xfff]), (byte(0x1008), byte(0x1000), byte(0x47ff)));
    drop(memory);
    let after = stub.end();
    let said = &after.packets[before.packets.len()..];
    assert_eq!(said, ["Qqemu.PhyMemMode:1", "m1000,10", "m3800,800", "m4000,800", "Qqemu.PhyMemMode:0", "c"]);
    assert!(after.running);
}

#[test]
fn large_reads_come_whole_in_many_windows() {
    let stub = Stub::qemu().listen();
    let memory = stub.open().unwrap().memory;
    let all = read(&memory, 1, 0xfffe);
    assert!(all.iter().zip(1..).all(|(found, at)| *found == byte(at)));
    let mut bytes = vec![[0_u8; 3]; 2000];
    let mut ops: Vec<_> = bytes.iter_mut().zip(0..).map(|(buf, i)| PhysRead::new(PhysAddr::new(i * 7), buf)).collect();
    memory.read_batch(&mut ops).unwrap();
    assert!(bytes.iter().zip(0..).all(|(buf, i)| buf[2] == byte(i * 7 + 2)));
}

#[test]
fn facts_and_control_are_there() {
    let stub = Stub::qemu().listen();
    let memory = stub.open().unwrap().memory;
    let [VcpuRegisters::X86(registers)] = memory.facts().vcpus.as_slice() else { panic!("{:?}", memory.facts()) };
    assert_eq!((registers.cr0, registers.cr3, registers.efer), (Some(0x8005_0033), Some(0x1000), None));
    let control = memory.control().unwrap();
    assert_eq!(control.run_state().unwrap(), RunState::Running);
    control.pause().unwrap();
    assert_eq!((control.run_state().unwrap(), stub.state().running), (RunState::Paused, false));
    read(&memory, 0x10, 4);
    assert!(!stub.state().running);
    control.resume().unwrap();
    read(&memory, 0x10, 4);
    assert_eq!(control.run_state().unwrap(), RunState::Running);
    control.pause().unwrap();
    drop(memory);
    let state = stub.end();
    assert!(state.running && state.packets.last().unwrap() == "D");
}

#[test]
fn writes_keep_their_order_and_their_pages() {
    let stub = Stub::qemu().listen();
    let memory = stub.open().unwrap().memory;
    let long = vec![7; 0x1800];
    let mut ops = [PhysWrite::new(PhysAddr::new(0x1f00), &long), PhysWrite::new(PhysAddr::new(0x2000), b"#$}*")];
    memory.write_batch(&mut ops).unwrap();
    drop(memory);
    let writes = stub.end().writes;
    assert!(writes.iter().all(|(at, bytes)| at / 0x1000 == (at + bytes.len() as u64 - 1) / 0x1000));
    assert_eq!(writes.iter().map(|(_, bytes)| bytes.len()).sum::<usize>(), 0x1804);
    assert_eq!(writes.last().unwrap(), &(0x2000, b"#$}*".to_vec()));
}

#[test]
fn run_lengths_and_capital_digits_are_read() {
    let answer = |payload: &[u8]| match payload {
        // Four zeros, by a run of the first: `0* `; then 5a.
        b"m1000,3" => text("0* 5A"),
        _ => text("E01"),
    };
    let stub = Stub::qemu().on("m1", answer).listen();
    let memory = stub.open().unwrap().memory;
    assert_eq!(read(&memory, 0x1000, 3), [0, 0, 0x5a]);
}
