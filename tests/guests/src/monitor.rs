//! What QEMU's human monitor prints, parsed.
//!
//! Owns: registers, TLB, address-space and single-address answers.
//! Must not know: where the text came from.
//! Keeps: a line that looks like an entry and is not one is an error, not skipped.
//! Source: QEMU target/i386/cpu-dump.c, target/i386/monitor.c, softmmu/memory.c, monitor/misc.c.

use serde::{Deserialize, Serialize};

use crate::error::{Result, unexpected};

/// Registers of one vCPU, by QEMU's names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registers {
    values: Vec<(String, u64)>,
}

impl Registers {
    /// A register by QEMU's name (`RIP`, `CR3`, `EFER`).
    pub fn get(&self, name: &str) -> Option<u64> {
        self.values.iter().find(|(known, _)| known == name).map(|(_, value)| *value)
    }
}

/// Parses `info registers -a`: one entry per vCPU.
///
/// # Errors
/// A vCPU without a CR3.
pub fn registers(text: &str) -> Result<Vec<Registers>> {
    let mut cpus: Vec<Registers> = Vec::new();
    for line in text.lines() {
        if line.starts_with("CPU#") {
            cpus.push(Registers { values: Vec::new() });
        }
        let Some(cpu) = cpus.last_mut() else { continue };
        for word in line.split_whitespace() {
            if let Some((name, value)) = word.split_once('=')
                && let Ok(value) = u64::from_str_radix(value, 16)
            {
                cpu.values.push((name.into(), value));
            }
        }
    }
    match cpus.iter().all(|cpu| cpu.get("CR3").is_some()) {
        true if !cpus.is_empty() => Ok(cpus),
        _ => Err(unexpected("info registers -a", "CR3= for every vCPU", text)),
    }
}

/// One line of `info tlb`: a leaf of the page tables, with the flags of the leaf entry alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TlbEntry {
    /// Virtual address, canonical.
    pub virt: u64,
    /// Physical address.
    pub phys: u64,
    /// No-execute is set.
    pub no_execute: bool,
    /// Global.
    pub global: bool,
    /// Large page.
    pub large: bool,
    /// Dirty.
    pub dirty: bool,
    /// Accessed.
    pub accessed: bool,
    /// Cache disabled.
    pub cache_disable: bool,
    /// Write-through.
    pub write_through: bool,
    /// User.
    pub user: bool,
    /// Writable.
    pub write: bool,
}

/// Parses `info tlb`.
///
/// # Errors
/// A line that is not `virtual: physical XGPDACTUW`.
pub fn tlb(text: &str) -> Result<Vec<TlbEntry>> {
    text.lines()
        .filter(|line| !line.trim().is_empty())
        .map(|line| tlb_line(line).ok_or_else(|| unexpected("info tlb", "virtual: physical flags", line)))
        .collect()
}

fn tlb_line(line: &str) -> Option<TlbEntry> {
    let (virt, rest) = line.trim().split_once(": ")?;
    let (phys, flags) = rest.split_once(' ')?;
    let flags = flags.as_bytes();
    let flag = |at: usize, letter: u8| match flags.get(at) {
        Some(&found) if found == letter => Some(true),
        Some(b'-') => Some(false),
        _ => None,
    };
    Some(TlbEntry {
        virt: u64::from_str_radix(virt, 16).ok()?,
        // QEMU leaves the entry's no-execute bit in the address when it lists the tables of PAE.
        phys: u64::from_str_radix(phys, 16).ok()? & !(1 << 63),
        no_execute: flag(0, b'X')?,
        global: flag(1, b'G')?,
        large: flag(2, b'P')?,
        dirty: flag(3, b'D')?,
        accessed: flag(4, b'A')?,
        cache_disable: flag(5, b'C')?,
        write_through: flag(6, b'T')?,
        user: flag(7, b'U')?,
        write: flag(8, b'W')?,
    })
}

/// A run of guest RAM and where it lies in the file behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RamRun {
    /// First physical address.
    pub phys: u64,
    /// Length in bytes.
    pub len: u64,
    /// Offset in the file.
    pub offset: u64,
}

/// Parses the system memory's view of `info mtree -f`: the runs backed by the RAM file, neighbours merged.
///
/// # Errors
/// No run at all.
pub fn ram_runs(text: &str) -> Result<Vec<RamRun>> {
    let mut runs: Vec<RamRun> = Vec::new();
    let mut inside = false;
    for line in text.lines() {
        if line.starts_with("FlatView") {
            if !runs.is_empty() {
                break;
            }
            inside = false;
        }
        if line.trim() == "Root memory region: system" {
            inside = true;
        }
        let Some(run) = inside.then(|| ram_line(line.trim())).flatten() else { continue };
        match runs.last_mut() {
            Some(last) if last.phys + last.len == run.phys && last.offset + last.len == run.offset => {
                last.len += run.len
            }
            _ => runs.push(run),
        }
    }
    if runs.is_empty() {
        Err(unexpected("info mtree -f", "RAM in the view of root \"system\"", text))
    } else {
        Ok(runs)
    }
}

/// `START-END (prio N, KIND): ram[ @OFFSET][ kvm]`
fn ram_line(line: &str) -> Option<RamRun> {
    let (range, rest) = line.split_once(" (prio ")?;
    let (_, name) = rest.split_once("): ")?;
    let mut words = name.split_whitespace();
    if words.next()? != "ram" {
        return None;
    }
    let offset = words.find_map(|word| word.strip_prefix('@'));
    let offset = offset.map_or(Some(0), |digits| u64::from_str_radix(digits, 16).ok())?;
    let (start, end) = range.split_once('-')?;
    let start = u64::from_str_radix(start, 16).ok()?;
    let end = u64::from_str_radix(end, 16).ok()?;
    Some(RamRun { phys: start, len: end.checked_sub(start)?.checked_add(1)?, offset })
}

/// Parses the answer to `gva2gpa`: the physical address, or `None` where nothing is mapped.
///
/// # Errors
/// Another answer.
pub fn gva2gpa(text: &str) -> Result<Option<u64>> {
    let text = text.trim();
    if text == "Unmapped" {
        return Ok(None);
    }
    text.strip_prefix("gpa: 0x")
        .or_else(|| text.strip_prefix("gpa: "))
        .and_then(|digits| u64::from_str_radix(digits, 16).ok())
        .map(Some)
        .ok_or_else(|| unexpected("gva2gpa", "gpa: ADDRESS or Unmapped", text))
}

/// Parses the saved sample, lines of `va pa` or `va unmapped`.
///
/// # Errors
/// Another line.
pub fn gva2gpa_sample(text: &str) -> Result<Vec<(u64, Option<u64>)>> {
    text.lines()
        .map(|line| {
            let (va, pa) = line.split_once(' ')?;
            let pa = if pa == "unmapped" { None } else { Some(u64::from_str_radix(pa, 16).ok()?) };
            Some((u64::from_str_radix(va, 16).ok()?, pa))
        })
        .zip(text.lines())
        .map(|(parsed, line)| parsed.ok_or_else(|| unexpected("gva2gpa.txt", "va pa, or va unmapped", line)))
        .collect()
}

/// The value in the answer to `x/1gx` or `x/1wx`.
pub(crate) fn examined(text: &str) -> Option<u64> {
    let (_, value) = text.trim().split_once(": 0x")?;
    u64::from_str_radix(value.trim(), 16).ok()
}

#[cfg(test)]
#[path = "monitor_tests.rs"]
mod tests;
