#![allow(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use super::*;
use crate::testing::{Memory, Of, Structure, types};

const INIT_TASK: u64 = 0x10_0000;

const CRED: Structure = ("cred", 0x20, &[("euid", 0x14, Of::Bytes(4)), ("egid", 0x18, Of::Bytes(4))]);
const SIGNAL: Structure =
    ("signal_struct", 0x40, &[("nr_threads", 8, Of::Bytes(4)), ("thread_head", 0x10, Of::Bytes(16))]);
const MM: Structure = ("mm_struct", 0x80, &[("pgd", 0x48, Of::Bytes(8))]);
const TASK: Structure = (
    "task_struct",
    0x200,
    &[
        ("__state", 0x18, Of::Bytes(4)),
        ("flags", 0x2c, Of::Bytes(4)),
        ("tasks", 0x40, Of::Bytes(16)),
        ("mm", 0x50, Of::Bytes(8)),
        ("exit_state", 0x60, Of::Bytes(4)),
        ("pid", 0x68, Of::Bytes(4)),
        ("tgid", 0x6c, Of::Bytes(4)),
        ("real_parent", 0x70, Of::Bytes(8)),
        ("thread_node", 0x78, Of::Bytes(16)),
        ("worker_private", 0x88, Of::Bytes(8)),
        ("start_boottime", 0x90, Of::Bytes(8)),
        ("real_cred", 0x98, Of::Bytes(8)),
        ("comm", 0xa0, Of::Bytes(16)),
        ("fs", 0xb0, Of::Bytes(8)),
        ("signal", 0xb8, Of::Bytes(8)),
    ],
);

fn layout() -> TaskLayout {
    TaskLayout::new(&types(&[CRED, SIGNAL, MM, TASK])).unwrap()
}

/// A task at `pid * 0x1000` with credentials, signals and address space of its own, a child of `parent`.
fn task(memory: &mut Memory, pid: u32, parent: u64, name: &str) -> u64 {
    let at = u64::from(pid) * 0x1000;
    memory.zero(at, 0x200).put_u32(at + 0x68, pid).put_u32(at + 0x6c, pid).put_u64(at + 0x70, parent);
    memory.put(at + 0xa0, name.as_bytes()).put_u64(at + 0x90, u64::from(pid) * 1_000_000_000);
    memory.put_u64(at + 0x98, at + 0x400).put_u64(at + 0xb8, at + 0x500).put_u64(at + 0x50, at + 0x600);
    memory.zero(at + 0x400, 0x20).put_u32(at + 0x414, 1000 + pid).put_u32(at + 0x418, 2000 + pid);
    memory.zero(at + 0x500, 0x40).put_u32(at + 0x508, 1).ring(&[at + 0x510, at + 0x78]);
    memory.zero(at + 0x600, 0x80).put_u64(at + 0x648, 0x5000_0000 + at);
    at
}

/// Tasks 1 (init), 2 (a thread of the kernel) and 3 (a child of 1), in that order.
fn three() -> Memory {
    let mut memory = Memory::default();
    memory.zero(INIT_TASK, 0x200);
    let one = task(&mut memory, 1, INIT_TASK, "init");
    let two = task(&mut memory, 2, INIT_TASK, "kthreadd");
    let three = task(&mut memory, 3, one, "a-name-of-15-by");
    memory.put_u32(two + 0x2c, PF_KTHREAD);
    memory.ring(&[INIT_TASK + 0x40, one + 0x40, two + 0x40, three + 0x40]);
    memory
}

fn root_of(pgd: VirtAddr) -> Result<u64> {
    Ok(pgd.as_u64() - 0x5000_0000)
}

fn list(memory: &Memory) -> Listing<ProcessInfo> {
    processes(memory, &layout(), VirtAddr::new(INIT_TASK), &root_of)
}

#[test]
fn every_field_of_a_process_is_read() {
    let found = list(&three());
    assert!(found.is_complete(), "{:?}", found.problems);
    let pids: Vec<(u32, u32)> = found.items.iter().map(|process| (process.pid, process.parent_pid)).collect();
    assert_eq!(pids, [(1, 0), (2, 0), (3, 1)]);
    let last = &found.items[2];
    assert_eq!((last.uid, last.gid), (Some(1003), Some(2003)));
    assert_eq!(last.name, "a-name-of-15-by");
    assert_eq!(last.start_time, Duration::from_secs(3));
    assert_eq!(last.root, Some(0x3000));
    assert_eq!((last.threads, last.kernel_thread, last.state), (1, false, ProcessState::Running));
}

#[test]
fn thread_of_the_kernel_has_no_root_even_while_it_borrows_an_address_space() {
    let found = list(&three());
    assert!(found.items[1].kernel_thread);
    assert_eq!(found.items[1].root, None);
}

#[test]
fn what_tasks_point_to_takes_a_fixed_number_of_batches() {
    let mut memory = Memory::default();
    memory.zero(INIT_TASK, 0x200);
    let mut nodes = vec![INIT_TASK + 0x40];
    for pid in 1..=50 {
        nodes.push(task(&mut memory, pid, INIT_TASK, "many") + 0x40);
    }
    memory.ring(&nodes);
    assert_eq!(list(&memory).items.len(), 50);
    // One for the head, one per task of the list, one each for parents, credentials, signals and address spaces.
    assert_eq!(memory.calls(), 1 + 50 + 4);
}

#[test]
fn ended_process_without_address_space_is_listed() {
    let mut memory = three();
    memory.put_u64(0x3050, 0).put_u32(0x3060, 0x20).put_u32(0x3018, 0x80);
    let found = list(&memory);
    assert!(found.is_complete(), "{:?}", found.problems);
    assert_eq!((found.items[2].state, found.items[2].root), (ProcessState::Zombie, None));
}

#[test]
fn field_that_cannot_be_read_is_a_problem_that_names_the_process() {
    let mut memory = three();
    memory.put_u64(0x3098, 0xdead_0000).put_u64(0x3050, 0xdead_1000);
    let found = list(&memory);
    assert_eq!(found.items.len(), 3);
    assert_eq!((found.items[2].uid, found.items[2].root), (None, None));
    assert_eq!(found.items[1].uid, Some(1002));
    assert_eq!(found.problems.len(), 2);
    assert!(found.problems[0].to_string().starts_with("process 3 (a-name-of-15-by): credentials: "));
    assert!(found.problems[1].to_string().starts_with("process 3 (a-name-of-15-by): page tables: "));
}

#[test]
fn roots_stay_with_their_processes_when_one_is_missing() {
    let mut memory = three();
    memory.put_u64(0x1050, 0xdead_1000);
    let found = list(&memory);
    assert_eq!(found.items.iter().map(|process| process.root).collect::<Vec<_>>(), [None, None, Some(0x3000)]);
}

#[test]
fn garbage_in_the_list_is_a_problem_and_the_rest_is_listed() {
    for (at, value) in [(0x2068, 5_000_000u32), (0x206c, 77), (0x2068, 0)] {
        let mut memory = three();
        memory.put_u32(at, value);
        let found = list(&memory);
        assert_eq!(found.items.iter().map(|process| process.pid).collect::<Vec<_>>(), [1, 3]);
        assert!(matches!(found.problems[..], [Error::Corrupt { .. }]), "{:?}", found.problems);
    }
}

#[test]
fn list_that_loops_ends() {
    let mut memory = three();
    memory.put_u64(0x3040, 0x1040);
    let found = list(&memory);
    assert_eq!(found.items.len(), 3);
    assert!(matches!(found.problems[0], Error::Cycle { .. }), "{:?}", found.problems);
}

#[test]
fn threads_of_a_process_and_nothing_else() {
    let mut memory = three();
    // Two more threads of process 3.
    for (tid, name) in [(4u32, "worker-0"), (5, "worker-1")] {
        let at = task(&mut memory, tid, 0x1000, name);
        memory.put_u32(at + 0x6c, 3).put_u64(at + 0xb8, 0x3500).put_u32(at + 0x18, 1);
    }
    memory.ring(&[0x3510, 0x3078, 0x4078, 0x5078]);
    let layout = layout();
    let leader = Task::read(&memory, &layout, VirtAddr::new(0x3000)).unwrap();
    let found = threads(&memory, &layout, &leader).unwrap();
    assert!(found.is_complete(), "{:?}", found.problems);
    let rows: Vec<(u32, &str, char)> =
        found.items.iter().map(|thread| (thread.tid, thread.name.as_str(), thread.state.letter())).collect();
    assert_eq!(rows, [(3, "a-name-of-15-by", 'R'), (4, "worker-0", 'S'), (5, "worker-1", 'S')]);
    // A thread of another process in the list is damage.
    memory.put_u32(0x406c, 99);
    let found = threads(&memory, &layout, &leader).unwrap();
    assert_eq!(found.items.iter().map(|thread| thread.tid).collect::<Vec<_>>(), [3, 5]);
    assert!(matches!(found.problems[..], [Error::Corrupt { .. }]));
}

#[test]
fn state_letters_are_those_of_proc() {
    // include/linux/sched.h: state, exit state, letter of /proc/PID/stat.
    for (state_bits, exit_state, letter) in [
        (0, 0, 'R'),
        (0x1, 0, 'S'),
        (0x2001, 0, 'S'),
        (0x2, 0, 'D'),
        (0x102, 0, 'D'),
        (0x402, 0, 'I'),
        (0x2402, 0, 'I'),
        (0x104, 0, 'T'),
        (0x8, 0, 't'),
        (0x80, 0x10, 'X'),
        (0x80, 0x20, 'Z'),
        (0x40, 0, 'P'),
        (0x200, 0, 'R'),
        (0x800, 0, 'R'),
        (0x1000, 0, 'D'),
        (0x8000, 0, 'D'),
    ] {
        assert_eq!(state(state_bits, exit_state).letter(), letter, "{state_bits:#x} {exit_state:#x}");
    }
}

#[test]
fn names_of_older_kernels_are_found_and_a_missing_one_is_told() {
    // Linux 4.18: `state` has 8 bytes, the start time another name.
    const OLD: Structure = (
        "task_struct",
        0x200,
        &[
            ("state", 0x18, Of::Bytes(8)),
            ("flags", 0x2c, Of::Bytes(4)),
            ("tasks", 0x40, Of::Bytes(16)),
            ("mm", 0x50, Of::Bytes(8)),
            ("exit_state", 0x60, Of::Bytes(4)),
            ("pid", 0x68, Of::Bytes(4)),
            ("tgid", 0x6c, Of::Bytes(4)),
            ("real_parent", 0x70, Of::Bytes(8)),
            ("thread_node", 0x78, Of::Bytes(16)),
            ("set_child_tid", 0x88, Of::Bytes(8)),
            ("real_start_time", 0x90, Of::Bytes(8)),
            ("real_cred", 0x98, Of::Bytes(8)),
            ("comm", 0xa0, Of::Bytes(16)),
            ("fs", 0xb0, Of::Bytes(8)),
            ("signal", 0xb8, Of::Bytes(8)),
        ],
    );
    let old = TaskLayout::new(&types(&[CRED, SIGNAL, MM, OLD])).unwrap();
    let found = processes(&three(), &old, VirtAddr::new(INIT_TASK), &root_of);
    assert_eq!(found.items.len(), 3);
    assert_eq!(found.items[0].start_time, Duration::from_secs(1));
    let error = TaskLayout::new(&types(&[CRED, SIGNAL, MM, ("task_struct", 8, &[])])).unwrap_err();
    assert_eq!(error.to_string(), "no field task_struct.state in this target");
}
