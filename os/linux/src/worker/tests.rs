#![allow(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

use super::*;
use crate::testing::{Memory, Of, types};

fn layout() -> WorkerLayout {
    WorkerLayout::new(&types(&[
        ("kthread", 0x40, &[("data", 0x18, Of::Bytes(8)), ("full_name", 0x30, Of::Bytes(8))]),
        (
            "worker",
            0x100,
            &[
                ("current_work", 0x10, Of::Bytes(8)),
                ("pool", 0x48, Of::Bytes(8)),
                ("desc", 0x80, Of::Bytes(32)),
                ("rescue_wq", 0xa8, Of::Bytes(8)),
            ],
        ),
        ("workqueue_struct", 0x100, &[("name", 0xb0, Of::Bytes(32))]),
    ]))
    .unwrap()
}

fn task(comm: &str, worker: bool, kthread: u64) -> OwnName<'_> {
    OwnName { comm, kthread: VirtAddr::new(kthread), worker }
}

fn worker(memory: &mut Memory, pool: u64, current: u64, desc: &str, rescue: u64) {
    memory.zero(0x1000, 0x40).put_u64(0x1018, 0x2000);
    memory.zero(0x2000, 0x100).put_u64(0x2048, pool).put_u64(0x2010, current).put(0x2080, desc.as_bytes());
    memory.put_u64(0x20a8, rescue);
}

fn name(memory: &Memory, task: OwnName<'_>) -> String {
    names(memory, Some(&layout()), &[task]).pop().unwrap().unwrap()
}

#[test]
fn worker_tells_what_it_works_on() {
    let mut memory = Memory::default();
    worker(&mut memory, 0x8000, 0x7000, "events", 0);
    assert_eq!(name(&memory, task("kworker/0:1", true, 0x1000)), "kworker/0:1+events");
    worker(&mut memory, 0x8000, 0, "events_unbound", 0);
    assert_eq!(name(&memory, task("kworker/u4:0", true, 0x1000)), "kworker/u4:0-events_unbound");
}

#[test]
fn worker_without_work_or_pool_goes_by_its_own_name() {
    let mut memory = Memory::default();
    worker(&mut memory, 0x8000, 0, "", 0);
    assert_eq!(name(&memory, task("kworker/0:1H", true, 0x1000)), "kworker/0:1H");
    let mut memory = Memory::default();
    worker(&mut memory, 0, 0, "events", 0);
    assert_eq!(name(&memory, task("rcu_gp", true, 0x1000)), "rcu_gp");
}

#[test]
fn rescuer_with_a_prefix_is_named_in_full() {
    let mut memory = Memory::default();
    worker(&mut memory, 0, 0, "", 0x3000);
    memory.zero(0x3000, 0x100).put(0x30b0, b"slub_flushwq");
    assert_eq!(name(&memory, task("kworker/R-slub_", true, 0x1000)), "kworker/R-slub_flushwq");
    // Before Linux 6.8 it carries the queue's name alone.
    assert_eq!(name(&memory, task("slub_flushwq", true, 0x1000)), "slub_flushwq");
    let wrong = names(&memory, Some(&layout()), &[task("kworker/R-other", true, 0x1000)]).pop().unwrap();
    assert!(matches!(wrong, Err(Error::Corrupt { .. })));
}

#[test]
fn name_that_does_not_fit_the_task_is_found_beside_it() {
    let mut memory = Memory::default();
    memory.zero(0x1000, 0x40).put_u64(0x1030, 0x4000).put(0x4000, b"rcu_tasks_rude_kthread\0").zero(0x4017, 0x100);
    assert_eq!(name(&memory, task("rcu_tasks_rude_", false, 0x1000)), "rcu_tasks_rude_kthread");
    memory.put_u64(0x1030, 0);
    assert_eq!(name(&memory, task("kthreadd", false, 0x1000)), "kthreadd");
}

#[test]
fn name_is_cut_where_proc_cuts_it() {
    let mut memory = Memory::default();
    memory.zero(0x1000, 0x40).put_u64(0x1030, 0x4000).put(0x4000, &[b'x'; 200]);
    assert_eq!(name(&memory, task("x", false, 0x1000)).len(), 63);
    worker(&mut memory, 0x8000, 0, "0123456789012345678901234567890", 0);
    assert_eq!(name(&memory, task(&"y".repeat(40), true, 0x1000)).len(), 63);
}

#[test]
fn garbage_is_an_error_of_that_task_alone() {
    let mut memory = Memory::default();
    worker(&mut memory, 0x8000, 0, "events", 0);
    let tasks = [task("a", true, 0xdead_0000), task("kworker/0:0", true, 0x1000), task("user", false, 0)];
    let found = names(&memory, Some(&layout()), &tasks);
    assert!(found[0].is_err());
    assert_eq!(found[1].as_deref().unwrap(), "kworker/0:0-events");
    assert_eq!(found[2].as_deref().unwrap(), "user");
}

#[test]
fn kernel_that_does_not_describe_its_threads_shows_comm() {
    assert!(WorkerLayout::new(&types(&[("kthread", 8, &[])])).is_none());
    let found = names(&Memory::default(), None, &[task("kworker/0:0", true, 0x1000)]);
    assert_eq!(found[0].as_deref().unwrap(), "kworker/0:0");
}
