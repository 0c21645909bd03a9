//! A process as its own files in /proc describe it.

use serde::{Deserialize, Serialize};

use crate::error::{Result, unexpected};

/// `PF_KTHREAD` of the flags in /proc/PID/stat (Linux include/linux/sched.h).
const KERNEL_THREAD: u64 = 0x0020_0000;
/// Longest name a task holds (Linux include/linux/sched.h, `TASK_COMM_LEN` without its NUL).
const NAME_LEN: usize = 15;

/// One process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Process id.
    pub pid: u32,
    /// Parent's process id.
    pub ppid: u32,
    /// Real user id.
    pub uid: u32,
    /// Real group id.
    pub gid: u32,
    /// State, the letter of proc(5).
    pub state: char,
    /// Number of threads.
    pub threads: u32,
    /// Name, as /proc prints it; [`Process::task_name`] is what the task holds.
    pub name: String,
    /// Command line: the bytes of /proc/PID/cmdline, arguments end with NUL.
    pub cmdline: Vec<u8>,
    /// Target of /proc/PID/exe; none for kernel threads and zombies.
    pub exe: Option<String>,
    /// Start, in clock ticks (1/100 s) after boot.
    pub start_ticks: u64,
    /// Whether it is a kernel thread.
    pub kernel_thread: bool,
}

impl Process {
    /// The name the task itself holds: at most 15 bytes, and without what the kernel appends to the name of a
    /// work-queue worker while it prints it (Linux kernel/workqueue.c, `wq_worker_comm`; fs/proc/array.c, `proc_task_name`).
    pub fn task_name(&self) -> &str {
        task_name(&self.name, self.kernel_thread)
    }

    /// The command line's arguments.
    pub fn arguments(&self) -> Vec<String> {
        words(&self.cmdline)
    }
}

fn task_name(printed: &str, kernel_thread: bool) -> &str {
    let mut name = printed;
    if kernel_thread && name.starts_with("kworker/") && !name.starts_with("kworker/R-") {
        name = name.split(['+', '-']).next().unwrap_or(name);
    }
    let end = name.char_indices().map(|(at, c)| at + c.len_utf8()).take_while(|&end| end <= NAME_LEN).last();
    name.get(..end.unwrap_or(0)).unwrap_or(name)
}

/// One thread.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Thread {
    /// Thread id.
    pub tid: u32,
    /// Name.
    pub name: String,
    /// State, the letter of proc(5).
    pub state: char,
    /// Start, in clock ticks (1/100 s) after boot.
    pub start_ticks: u64,
}

/// One line of /proc/PID/maps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mapping {
    /// First address.
    pub start: u64,
    /// Address after the last.
    pub end: u64,
    /// May be read.
    pub read: bool,
    /// May be written.
    pub write: bool,
    /// May be executed.
    pub execute: bool,
    /// Shared, not private.
    pub shared: bool,
    /// Offset in the file.
    pub offset: u64,
    /// Device of the file, major and minor.
    pub device: (u32, u32),
    /// Inode of the file, 0 without one.
    pub inode: u64,
    /// File name, `[heap]` and the like, or empty.
    pub name: String,
}

/// A page of a process that is in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Page {
    /// Virtual address.
    pub virt: u64,
    /// Physical address.
    pub phys: u64,
}

/// The fields of a stat line after the name: state is the first.
fn stat_fields<'a>(stat: &'a str, what: &str) -> Result<(u32, Vec<&'a str>)> {
    // The name stands in brackets and may hold brackets and spaces itself; the last one ends it.
    let parts = stat.split_once(" (").zip(stat.rsplit_once(") "));
    parts
        .and_then(|((pid, _), (_, rest))| Some((pid.parse().ok()?, rest.split_whitespace().collect())))
        .ok_or_else(|| unexpected(what, "pid (name) fields", stat))
}

/// Field `number` of proc(5)'s table of /proc/PID/stat.
fn stat_number(fields: &[&str], number: usize, stat: &str) -> Result<u64> {
    let text = number.checked_sub(3).and_then(|index| fields.get(index));
    text.and_then(|text| text.parse().ok()).ok_or_else(|| unexpected(format!("stat field {number}"), "a number", stat))
}

/// The first number after `key` in a status file.
fn status_number(status: &str, key: &str) -> Result<u32> {
    let value = status.lines().find_map(|line| line.strip_prefix(key));
    value
        .and_then(|rest| rest.split_whitespace().next()?.parse().ok())
        .ok_or_else(|| unexpected(format!("status {key}"), "a number", status))
}

pub(super) fn parse(stat: &str, status: &str, name: &str, cmdline: Vec<u8>, exe: Option<String>) -> Result<Process> {
    let (pid, fields) = stat_fields(stat, "stat")?;
    let narrow = |value: u64| u32::try_from(value).map_err(|_| unexpected("stat", "a 32-bit number", stat));
    let state = fields.first().and_then(|field| field.chars().next());
    Ok(Process {
        pid,
        ppid: narrow(stat_number(&fields, 4, stat)?)?,
        uid: status_number(status, "Uid:")?,
        gid: status_number(status, "Gid:")?,
        state: state.ok_or_else(|| unexpected("stat", "a state", stat))?,
        threads: narrow(stat_number(&fields, 20, stat)?)?,
        name: name.to_owned(),
        cmdline,
        exe,
        start_ticks: stat_number(&fields, 22, stat)?,
        kernel_thread: stat_number(&fields, 9, stat)? & KERNEL_THREAD != 0,
    })
}

pub(super) fn parse_thread(stat: &str, name: &str) -> Result<Thread> {
    let (tid, fields) = stat_fields(stat, "task stat")?;
    let state = fields.first().and_then(|field| field.chars().next());
    Ok(Thread {
        tid,
        name: name.to_owned(),
        state: state.ok_or_else(|| unexpected("task stat", "a state", stat))?,
        start_ticks: stat_number(&fields, 22, stat)?,
    })
}

pub(super) fn parse_maps(text: &str) -> Result<Vec<Mapping>> {
    text.lines().map(|line| map_line(line).ok_or_else(|| unexpected("maps", "a line of proc(5)", line))).collect()
}

fn map_line(line: &str) -> Option<Mapping> {
    let hex = |text: &str| u64::from_str_radix(text, 16).ok();
    let mut words = line.splitn(6, ' ');
    let (start, end) = words.next()?.split_once('-')?;
    let mut flags = words.next()?.chars();
    let offset = hex(words.next()?)?;
    let (major, minor) = words.next()?.split_once(':')?;
    let inode = words.next()?.parse().ok()?;
    let (read, write, execute, kind) = (flags.next()?, flags.next()?, flags.next()?, flags.next()?);
    Some(Mapping {
        start: hex(start)?,
        end: hex(end)?,
        read: read == 'r',
        write: write == 'w',
        execute: execute == 'x',
        shared: kind == 's',
        offset,
        device: (u32::from_str_radix(major, 16).ok()?, u32::from_str_radix(minor, 16).ok()?),
        inode,
        name: words.next().unwrap_or_default().trim_start().to_owned(),
    })
}

pub(super) fn parse_pages(text: &str) -> Result<Vec<Page>> {
    let page = |line: &str| {
        let (virt, phys) = line.split_once(' ')?;
        Some(Page { virt: u64::from_str_radix(virt, 16).ok()?, phys: u64::from_str_radix(phys, 16).ok()? })
    };
    text.lines().map(|line| page(line).ok_or_else(|| unexpected("pages", "two addresses", line))).collect()
}

/// NUL-terminated strings.
pub(super) fn words(bytes: &[u8]) -> Vec<String> {
    let bytes = bytes.strip_suffix(b"\0").unwrap_or(bytes);
    if bytes.is_empty() {
        return Vec::new();
    }
    bytes.split(|&byte| byte == 0).map(|word| String::from_utf8_lossy(word).into_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_lose_what_printing_added_and_rescuers_do_not() {
        assert_eq!(task_name("kworker/0:1-events", true), "kworker/0:1");
        assert_eq!(task_name("kworker/u4:2+flush-8:0", true), "kworker/u4:2");
        assert_eq!(task_name("kworker/R-rcu_gp", true), "kworker/R-rcu_g");
        assert_eq!(task_name("kworker/0:1-user", false), "kworker/0:1-use");
        assert_eq!(task_name("rcu_tasks_rude_kthread", true), "rcu_tasks_rude_");
    }
}
