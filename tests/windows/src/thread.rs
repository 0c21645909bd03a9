//! Threads.
//!
//! Owns: ETHREADs, their stacks in the kernel, their lists. Must not know: what a thread runs.
//! Keeps: a thread is in both lists of its process, and says which process it is of in two places.
//! Source: `_ETHREAD`, `_KTHREAD`, `_KTRAP_FRAME` in public symbols.

use crate::{
    Error,
    machine::{KERNEL, Machine},
    object::Kind,
    physical::PAGE,
    pool::Pool,
    tables::Rights,
    truth::Thread,
};

/// What a thread is to be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ThreadPlan {
    pub(crate) process: u64,
    pub(crate) pid: u32,
    pub(crate) tid: u32,
    pub(crate) teb: u64,
    pub(crate) start: u64,
    pub(crate) win32_start: u64,
    pub(crate) create_time: u64,
    pub(crate) user_ip: u64,
    pub(crate) user_sp: u64,
}

/// Waiting.
const WAITING: u8 = 5;
/// Running.
pub(crate) const RUNNING: u8 = 2;
const STACK_PAGES: u64 = 6;

impl Machine {
    /// A thread, not yet in any list.
    pub(crate) fn thread(&mut self, plan: ThreadPlan) -> Result<Thread, Error> {
        let width = self.pointer();
        let wide = width == 8;
        let size = self.offsets.need("sizeof(_ETHREAD)")?;
        let at = self.object(Kind::Thread, Pool::NonPaged, size)?;
        // A dispatcher header of the type "thread".
        self.put(KERNEL, at, 1, 6)?;
        self.link(KERNEL, width, at + 8, &[])?;
        self.pointer_field(at, "_KTHREAD.Process", plan.process)?;
        let attached = at + self.offsets.need("_KTHREAD.ApcState")?;
        self.link(KERNEL, width, attached, &[])?;
        self.link(KERNEL, width, attached + 2 * width, &[])?;
        self.put_pointer(attached + 4 * width, plan.process)?;
        self.pointer_field(at, "_KTHREAD.Teb", plan.teb)?;
        self.field(at, "_KTHREAD.State", 1, u64::from(WAITING))?;
        // Only the upper page of a stack is in memory, below it lie pages that are not, and one that never is.
        let stack = self.system_pages(STACK_PAGES + 1)? + PAGE;
        let stack_base = stack + STACK_PAGES * PAGE;
        self.map(KERNEL, stack_base - PAGE, Rights::KERNEL)?;
        let frame_size = if wide { 0x190 } else { 0x8c };
        let trap_frame = stack_base - if wide { 0x2a0 } else { 0x290 } - frame_size;
        self.pointer_field(at, "_KTHREAD.InitialStack", stack_base - if wide { 0x2a0 } else { 0x290 })?;
        self.pointer_field(at, "_KTHREAD.StackBase", stack_base)?;
        self.pointer_field(at, "_KTHREAD.StackLimit", stack)?;
        self.pointer_field(at, "_KTHREAD.KernelStack", trap_frame - 0x200)?;
        if plan.user_ip != 0 {
            self.pointer_field(at, "_KTHREAD.TrapFrame", trap_frame)?;
            let (ip, cs, ss) = if wide { (0x168, 0x33, 0x2b) } else { (0x68, 0x1b, 0x23) };
            for (slot, value) in (0..).zip([plan.user_ip, cs, 0x246, plan.user_sp, ss]) {
                self.put_pointer(trap_frame + ip + slot * width, value)?;
            }
        }
        self.pointer_field(at, "_ETHREAD.Cid", u64::from(plan.pid))?;
        let tid = at + self.offsets.need("_ETHREAD.Cid")? + width;
        self.put_pointer(tid, u64::from(plan.tid))?;
        self.pointer_field(at, "_ETHREAD.StartAddress", plan.start)?;
        self.pointer_field(at, "_ETHREAD.Win32StartAddress", plan.win32_start)?;
        self.field(at, "_ETHREAD.CreateTime", 8, plan.create_time)?;
        Ok(Thread {
            ethread: at,
            tid: plan.tid,
            teb: plan.teb,
            start_address: plan.start,
            win32_start_address: plan.win32_start,
            state: WAITING,
            create_time: plan.create_time,
            stack_base,
            trap_frame: if plan.user_ip == 0 { 0 } else { trap_frame },
            user_ip: plan.user_ip,
            user_sp: plan.user_sp,
        })
    }

    /// Puts threads into the two lists of their process.
    pub(crate) fn link_threads(&mut self, process: u64, threads: &[Thread]) -> Result<(), Error> {
        let width = self.pointer();
        let lists = [
            ("_KPROCESS.ThreadListHead", "_KTHREAD.ThreadListEntry"),
            ("_EPROCESS.ThreadListHead", "_ETHREAD.ThreadListEntry"),
        ];
        for (head, entry) in lists {
            let (head, entry) = (self.offsets.need(head)?, self.offsets.need(entry)?);
            let entries: Vec<u64> = threads.iter().map(|thread| thread.ethread + entry).collect();
            self.link(KERNEL, width, process + head, &entries)?;
        }
        self.field(process, "_EPROCESS.ActiveThreads", 4, threads.len() as u64)
    }

    /// Marks a thread as the one that runs.
    pub(crate) fn run_thread(&mut self, thread: &mut Thread) -> Result<(), Error> {
        thread.state = RUNNING;
        self.field(thread.ethread, "_KTHREAD.State", 1, u64::from(RUNNING))
    }
}
