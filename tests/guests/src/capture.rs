//! One instant of a guest: its memory, its registers, QEMU's answers, and its own truth.
//!
//! Owns: the order of a capture, which is what makes truth and memory agree.
//! Must not know: stamps, locks, folders' final names.
//! Keeps: the process list is taken before the vCPUs stop and again after they run on; only if both are the same was it
//! the list at the instant of the capture.

use std::path::Path;
use std::time::Duration;

use crate::error::{Error, Result, WithPath, unexpected};
use crate::machine::RunningGuest;
use crate::meta::Meta;
use crate::monitor;
use crate::spec::{Arch, DEMO, Paging};
use crate::tool;
use crate::truth::{Symbol, Truth};

/// Captures before giving up on a guest whose process list keeps changing.
const TRIES: u32 = 8;
/// Time for the agent to fall asleep again after it has answered.
const QUIET: Duration = Duration::from_millis(400);
/// Addresses in the gva2gpa sample, about.
const SAMPLE: usize = 320;

/// Captures a running guest into `folder` and says what its packages were.
pub(crate) fn capture(guest: &mut RunningGuest, folder: &Path, packages: &[String]) -> Result<Meta> {
    for _ in 0..TRIES {
        let truth = guest.truth_into(&fresh(folder, "truth")?)?;
        let before = truth.text("procs")?;
        if *guest.spec() == DEMO {
            // Made for size: what the truth's walk through /proc left in the kernel's caches goes.
            guest.command("forget")?;
        }
        std::thread::sleep(QUIET);
        guest.pause()?;
        let meta = still(guest, &truth, folder, packages)?;
        guest.resume()?;
        if guest.command("procs")?.trim_end() == before.trim_end() {
            return Ok(meta);
        }
    }
    Err(Error::Unsteady { name: guest.spec().name.into(), tries: TRIES })
}

fn fresh(folder: &Path, name: &str) -> Result<std::path::PathBuf> {
    let folder = folder.join(name);
    if folder.exists() {
        std::fs::remove_dir_all(&folder).at(&folder)?;
    }
    Ok(folder)
}

/// Everything that is taken while the vCPUs stand.
fn still(guest: &mut RunningGuest, truth: &Truth, folder: &Path, packages: &[String]) -> Result<Meta> {
    let save = |name: &str, text: &str| {
        let path = folder.join(name);
        std::fs::write(&path, text).at(path)
    };
    let registers = guest.hmp("info registers -a")?;
    let mtree = guest.hmp("info mtree -f")?;
    save("registers.txt", &registers)?;
    save("mtree.txt", &mtree)?;
    save("tlb.txt", &guest.hmp("info tlb")?)?;

    let cr3: Vec<u64> = monitor::registers(&registers)?.iter().filter_map(|cpu| cpu.get("CR3")).collect();
    let symbols = truth.kallsyms()?;
    let page_offset = page_offset(guest, &symbols)?;
    let mut sample = String::new();
    for address in sample_addresses(guest, truth, &symbols, page_offset)? {
        let answer = monitor::gva2gpa(&guest.hmp(&format!("gva2gpa {address:#x}"))?)?;
        match answer {
            Some(physical) => sample.push_str(&format!("{address:x} {physical:x}\n")),
            None => sample.push_str(&format!("{address:x} unmapped\n")),
        }
    }
    save("gva2gpa.txt", &sample)?;

    // Both files are written out whole and then lose their zeros, so large guests stay small.
    let full = folder.join("core.full");
    guest.dump_elf(&full)?;
    let log = folder.join("qemu.log");
    let words = std::fs::read_to_string(&log).at(&log)?;
    if words.contains("guest note is not present") {
        return Err(unexpected("qemu.log", "a VMCOREINFO note in the dump", &words));
    }
    tool::copy_sparse(&full, &folder.join("core.elf"))?;
    std::fs::remove_file(&full).at(&full)?;
    tool::copy_sparse(&guest.ram_path(), &folder.join("ram.img"))?;

    let spec = *guest.spec();
    Ok(Meta {
        name: spec.name.into(),
        arch: spec.arch.debian().into(),
        packages: packages.to_vec(),
        release: truth.release()?,
        cmdline: truth.kernel_command_line()?,
        levels: spec.paging.levels(),
        pti: spec.pti,
        machine: spec.machine.qemu().into(),
        memory_bytes: spec.memory_mib << 20,
        cpus: spec.cpus,
        monitor_cr3: cr3.first().copied().unwrap_or_default(),
        cr3,
        page_offset,
        ram: monitor::ram_runs(&mtree)?,
        qemu: guest.qemu_version().into(),
    })
}

/// Where the direct map starts: `page_offset_base` is a variable on x86-64 and a constant on i386.
fn page_offset(guest: &mut RunningGuest, symbols: &[Symbol]) -> Result<u64> {
    if guest.spec().arch == Arch::I386 {
        return Ok(0xc000_0000);
    }
    let fixed = match guest.spec().paging {
        Paging::Level5 => 0xff11_0000_0000_0000,
        _ => 0xffff_8880_0000_0000,
    };
    let Some(symbol) = symbols.iter().find(|symbol| symbol.name == "page_offset_base") else { return Ok(fixed) };
    let text = guest.hmp(&format!("x/1gx {:#x}", symbol.address))?;
    Ok(monitor::examined(&text).unwrap_or(fixed))
}

/// Addresses of every kind there is: symbols, modules, direct map, a process' own, and unmapped ones.
fn sample_addresses(guest: &RunningGuest, truth: &Truth, symbols: &[Symbol], page_offset: u64) -> Result<Vec<u64>> {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut addresses = Vec::new();
    let kernel: Vec<&Symbol> = symbols.iter().filter(|symbol| symbol.address > 0xc000_0000).collect();
    for _ in 0..SAMPLE / 3 {
        addresses.extend(random.pick(&kernel).map(|symbol| symbol.address));
    }
    for module in truth.modules()? {
        for _ in 0..4 {
            addresses.push(module.base.wrapping_add(random.below(module.size)));
        }
    }
    // On i386 only the first part of RAM is in the direct map; addresses beyond it must answer "unmapped" or vmalloc.
    let memory = match guest.spec().arch {
        Arch::Amd64 => guest.spec().memory_mib << 20,
        Arch::I386 => (guest.spec().memory_mib << 20).min(0x3000_0000),
    };
    for _ in 0..SAMPLE / 5 {
        addresses.push(page_offset.wrapping_add(random.below(memory)));
    }
    // The last process that ran on vCPU 0 is likely the agent, and its tables are still loaded.
    for pid in [truth.agent_pid()?, 1] {
        for mapping in truth.maps(pid)? {
            for _ in 0..3 {
                addresses.push(mapping.start.wrapping_add(random.below(mapping.end.saturating_sub(mapping.start))));
            }
        }
    }
    match guest.spec().arch {
        Arch::Amd64 => addresses.extend([0, 0x1000, 0x7fff_ffff_f000, 0xffff_ffff_ffff_f000, 0xffff_ffff_ffff_ffff]),
        Arch::I386 => addresses.extend([0, 0x1000, 0xbfff_f000, 0xffff_f000, 0xffff_ffff]),
    }
    for _ in 0..24 {
        let random = random.next();
        addresses.push(match guest.spec().arch {
            Arch::Amd64 => (random as i64 >> 17) as u64,
            Arch::I386 => random & 0xffff_ffff,
        });
    }
    addresses.sort_unstable();
    addresses.dedup();
    Ok(addresses)
}

/// A small generator with a fixed seed (xorshift64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit.max(1)
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> Option<&'a T> {
        let index = self.below(u64::try_from(from.len()).unwrap_or(u64::MAX));
        from.get(usize::try_from(index).ok()?)
    }
}
