//! A soak: process lists and random reads from four threads on a guest that is kept busy.
//!
//! `cargo run --release -p memflow-tests --example soak -- SECONDS [map|process_vm|mem]`
//!
//! The guest starts and ends programs and fills and frees memory all the time: a script of its own does, and this program through
//! the guest's agent. What a thread reads is wrong when it is not what must be there:
//!
//! - the kernel's constants and the program text of process 1 never change, so every read of them, virtual or physical, has to equal a
//!   copy from the start, when the guest stood still, byte by byte;
//! - a list of processes that says it is whole has to hold no pid twice, every process that lived from before the list until after it,
//!   under its name, and none that had ended before. The guest itself has said in its own list that they live, or are gone.
//!
//! A list that says itself that it is not whole is no wrong answer: the guest changed it in each of the looks that were taken. These
//! are counted, with the first few of what they said. A guest that dies under emulation is replaced, and counted.
#![expect(clippy::print_stdout, reason = "the figures are the result")]

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use memflow_core::{
    MemoryViewExt, PhysAddr, VirtAddr,
    memory::{Pause, PhysicalMemoryExt},
    os::{Listing, Os, ProcessInfo, RegionKind},
};
use memflow_guests::{Addition, Guests, Live, MATRIX, RunningGuest};
use memflow_linux::{LinuxOptions, LinuxOs};
use memflow_qemu::{AccessKind, Options, Target, open};
use memflow_tests::Random;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// What the guest does all the time, beside what its agent is told to.
const BUSY: &str = "while :; do
    dd if=/dev/zero of=/run/churn bs=65536 count=640; rm /run/churn
    for number in 1 2 3 4 5 6 7 8; do busybox sleep 0.$number & done; wait
done >/dev/null 2>&1";
/// Names of the processes of that.
const PASSING: &[&str] = &["run", "sh", "dd", "rm", "busybox", "sleep"];
/// Pid of the kernel's thread that starts the others.
const KTHREADD: &str = "2";
/// Processes that ended last and may in no list be any more.
const ENDED: usize = 64;
/// So many texts of problems, and of wrong answers, are kept.
const KEPT: usize = 5;

/// What the threads have done.
#[derive(Default)]
struct Done {
    lists: AtomicU64,
    /// Lists that said themselves that they are not whole: the guest changed them meanwhile.
    torn: AtomicU64,
    reads: AtomicU64,
    bytes: AtomicU64,
    wrong: AtomicU64,
    said: Mutex<Vec<String>>,
}

impl Done {
    fn add(&self, counter: &AtomicU64, what: impl FnOnce() -> String) {
        if counter.fetch_add(1, Ordering::Relaxed) < KEPT as u64 {
            self.said.lock().unwrap_or_else(PoisonError::into_inner).push(what());
        }
    }

    fn wrong(&self, what: impl FnOnce() -> String) {
        self.add(&self.wrong, || format!("wrong: {}", what()));
    }
}

/// Processes of which the guest itself has said that they live or are gone.
#[derive(Default)]
struct Known {
    living: BTreeMap<u32, String>,
    ended: VecDeque<u32>,
}

/// Reads at an offset of what never changes.
type View = dyn Fn(u64, &mut [u8]) -> memflow_core::Result<()> + Send + Sync;

/// Bytes that never change, and where they are.
struct Constant {
    what: &'static str,
    view: Box<View>,
    bytes: Vec<u8>,
}

fn main() -> Result<(), Failure> {
    let mut words = std::env::args().skip(1);
    let time = Duration::from_secs(words.next().unwrap_or_else(|| "60".into()).parse()?);
    let access: AccessKind = words.next().as_deref().unwrap_or("auto").parse()?;
    let (done, started) = (Done::default(), Instant::now());
    let (mut guests, mut changes, mut calls, mut memory) = (0, 0, 0, Vec::new());
    while started.elapsed() < time {
        guests += 1;
        let name = format!("soak-{}-{guests}", std::process::id());
        let outcome = soak(&name, access, &done, &mut |connector| {
            calls = connector;
            changes += 8;
            if started.elapsed() > time / 10 {
                memory.push(resident().unwrap_or_default());
            }
            started.elapsed() < time
        });
        match outcome {
            Ok(()) => {}
            // Emulated kernels die now and then, on QEMU's account; a guest that never came up is a failure.
            Err(error) if guests < 10 => println!("guest {guests} ended after {:.0?}: {error}", started.elapsed()),
            Err(error) => return Err(error),
        }
    }

    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    println!(
        "{:.0?} with {guests} guest(s): {} reads of {:.1} GB, {} lists ({} not whole and said so), {} wrong answers",
        started.elapsed(),
        count(&done.reads),
        count(&done.bytes) as f64 / 1e9,
        count(&done.lists),
        count(&done.torn),
        count(&done.wrong),
    );
    println!("{changes} processes started or ended through the agent, {calls} calls of the last guest's connector");
    // The first figure is taken when everything has run for a while.
    if let (Some(first), Some(last)) = (memory.first(), memory.last()) {
        for ((name, first), (_, last)) in first.iter().zip(last) {
            println!("{name}: {first} KiB after a tenth of the time, {last} KiB at the end, {:+} KiB", last - first);
        }
    }
    for line in done.said.lock().unwrap_or_else(PoisonError::into_inner).iter() {
        println!("{line}");
    }
    if count(&done.wrong) > 0 { Err("wrong answers".into()) } else { Ok(()) }
}

/// Boots a guest and reads it until `on` says no; it is told the calls of the connector, again and again.
fn soak(name: &str, access: AccessKind, done: &Done, on: &mut dyn FnMut(u64) -> bool) -> Result<(), Failure> {
    let spec = MATRIX.iter().find(|spec| spec.name == "amd64-6.12-4level-pti").ok_or("no such guest")?;
    let arguments = "-machine q35,memory-backend=ram -m 512M -object memory-backend-memfd,id=ram,size=512M,share=on \
                     -qmp unix:spare.sock,server=on,wait=off";
    let mut guest = Guests::locate()?.boot_live_with(spec, &Live::new(name, arguments), Addition::script(BUSY))?;
    let mut options = Options::default();
    (options.access, options.timeout) = (access, Duration::from_secs(20));
    let memory = open(&Target::Name(name.to_owned()), &options)?.memory;
    println!("{name}: access {}", memory.access());
    let os = Arc::new(LinuxOs::open(memory.clone(), &LinuxOptions::default())?);

    let pause = Pause::new(memory.clone())?;
    let constants = constants(&os)?;
    pause.end()?;
    // Those that were there before the script was started, and live as long as the guest.
    let lasting = listed_inside(&mut guest)?.into_iter().filter(|(_, name)| !PASSING.contains(&name.as_str()));
    let known = Mutex::new(Known { living: lasting.collect(), ended: VecDeque::new() });

    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for number in 0..4 {
            let (os, constants, known, stop) = (&os, &constants, &known, &stop);
            scope.spawn(move || work(number, os, constants, known, done, stop));
        }
        let outcome = keep_busy(&mut guest, &known, &mut || on(memory.calls()));
        stop.store(true, Ordering::Relaxed);
        outcome
    })
}

/// Starts and ends processes in the guest, and notes those of which it has said that they live, or are gone.
fn keep_busy(guest: &mut RunningGuest, known: &Mutex<Known>, on: &mut dyn FnMut() -> bool) -> Result<(), Failure> {
    let lock = || known.lock().unwrap_or_else(PoisonError::into_inner);
    while on() {
        let pids = (0..4).map(|_| guest.spawn("busy")).collect::<Result<Vec<u32>, _>>()?;
        let listed = listed_inside(guest)?;
        let named: Vec<_> = pids.iter().filter_map(|pid| Some((*pid, listed.get(pid)?.clone()))).collect();
        // A pid can be somebody else's by now.
        lock().ended.retain(|pid| !listed.contains_key(pid));
        lock().living.extend(named.into_iter().filter(|(_, name)| name == "busy"));
        std::thread::sleep(Duration::from_millis(200));
        for pid in &pids {
            lock().living.remove(pid);
            guest.command(&format!("kill {pid}"))?;
        }
        let listed = listed_inside(guest)?;
        let mut known = lock();
        known.ended.extend(pids.into_iter().filter(|pid| !listed.contains_key(pid)));
        let surplus = known.ended.len().saturating_sub(ENDED);
        known.ended.drain(..surplus);
    }
    Ok(())
}

/// The guest's own list: names by pid, without the kernel's threads, which come and go, and change their names.
fn listed_inside(guest: &mut RunningGuest) -> Result<BTreeMap<u32, String>, Failure> {
    let text = guest.command("procs")?;
    let mut list = BTreeMap::new();
    for line in text.lines() {
        // Pid, parent, state, user, threads, name.
        let words: Vec<&str> = line.splitn(6, ' ').collect();
        let [pid, parent, _, _, _, name] = words[..] else { return Err(format!("no line of a list: {line}").into()) };
        if pid != KTHREADD && parent != KTHREADD {
            list.insert(pid.parse()?, name.to_owned());
        }
    }
    Ok(list)
}

/// What one thread does until it is told to stop.
fn work(number: u64, os: &LinuxOs, constants: &[Constant], known: &Mutex<Known>, done: &Done, stop: &AtomicBool) {
    let mut random = Random(number);
    let mut buffer = vec![0; 4096];
    let lock = || known.lock().unwrap_or_else(PoisonError::into_inner);
    while !stop.load(Ordering::Relaxed) {
        for _ in 0..500 {
            let Constant { what, view, bytes } = random.pick(constants);
            let len = 1 + random.below((bytes.len() as u64 - 1).min(4096)) as usize;
            let at = random.below((bytes.len() - len) as u64) as usize;
            match view(at as u64, &mut buffer[..len]) {
                Ok(()) if buffer[..len] == bytes[at..at + len] => {}
                Ok(()) => done.wrong(|| format!("{what}: {len} bytes at {at:#x} are others")),
                Err(error) => done.wrong(|| format!("{what}: {len} bytes at {at:#x}: {error}")),
            }
            done.reads.fetch_add(1, Ordering::Relaxed);
            done.bytes.fetch_add(len as u64, Ordering::Relaxed);
        }
        let (before, ended) = {
            let known = lock();
            (known.living.clone(), known.ended.clone())
        };
        let list = os.processes();
        done.lists.fetch_add(1, Ordering::Relaxed);
        match list {
            Ok(list) if !list.is_complete() => {
                done.add(&done.torn, || {
                    format!("not whole: {}", list.problems.first().map(ToString::to_string).unwrap_or_default())
                });
            }
            Ok(list) => {
                let still = lock();
                let lived = before.iter().filter(|(pid, _)| still.living.contains_key(pid));
                let gone = ended.iter().filter(|pid| still.ended.contains(pid));
                if let Some(problem) = judge(&list, lived, gone) {
                    done.wrong(|| problem);
                }
            }
            Err(error) => done.wrong(|| format!("no list: {error}")),
        }
    }
}

/// What is wrong with a list that says it is whole.
fn judge<'a>(
    list: &Listing<ProcessInfo>,
    mut lived: impl Iterator<Item = (&'a u32, &'a String)>,
    mut gone: impl Iterator<Item = &'a u32>,
) -> Option<String> {
    let mut names = BTreeMap::new();
    for process in &list.items {
        if names.insert(process.pid, process.name.as_str()).is_some() {
            return Some(format!("pid {} is listed twice", process.pid));
        }
    }
    let missing = lived.find(|(pid, name)| names.get(pid) != Some(&name.as_str()));
    if let Some((pid, name)) = missing {
        return Some(format!("{name} ({pid}) is listed as {:?}, of {} processes", names.get(pid), names.len()));
    }
    gone.find(|pid| names.get(pid) == Some(&"busy")).map(|pid| format!("busy ({pid}) is listed and had ended"))
}

/// The kernel's constants, by virtual and by physical address, and the text of the first process. The guest must stand still.
fn constants(os: &Arc<LinuxOs>) -> Result<Vec<Constant>, Failure> {
    let symbol = |name: &str| {
        let found = os.symbols_named(name)?;
        found.first().map(|symbol| symbol.address).ok_or_else(|| Failure::from(format!("no symbol {name}")))
    };
    let (start, end) = (symbol("__start_rodata")?, symbol("__end_rodata")?);
    let mut bytes = vec![0; end.as_u64().saturating_sub(start.as_u64()).min(4 << 20) as usize];
    os.kernel_view().read_into(start, &mut bytes)?;
    let at = os.kernel_space().translate(&**os.physical_memory(), start);
    let at = at.map_err(|reason| format!("constants: {reason}"))?;
    // One page of the tables, which are large for the kernel: what lies in one piece.
    let within = (at.page.bytes() - (at.phys.as_u64() & (at.page.bytes() - 1))).min(bytes.len() as u64) as usize;
    let physical = Constant {
        what: "constants, physical",
        bytes: bytes[..within].to_vec(),
        view: {
            let (memory, phys) = (os.physical_memory().clone(), at.phys.as_u64());
            Box::new(move |at, buffer| memory.read_into(PhysAddr::new(phys + at), buffer))
        },
    };
    let first = os.open_pid(1)?;
    let regions = first.memory_map()?.items;
    let text = regions
        .iter()
        .find(|region| region.permissions.execute && matches!(region.kind, RegionKind::File { .. }))
        .ok_or("process 1 has no text")?
        .range;
    // Pages come in as they are run: the longest piece that is there.
    let page = |at: u64, buffer: &mut [u8]| first.read_into(VirtAddr::new(at), buffer).is_ok();
    let (mut longest, mut piece) = ((0, Vec::new()), (0, Vec::new()));
    let mut buffer = [0; 4096];
    for at in (text.start().as_u64()..=text.last().ok_or("no text")?.as_u64()).step_by(4096) {
        if page(at, &mut buffer) {
            if piece.1.is_empty() {
                piece.0 = at;
            }
            piece.1.extend_from_slice(&buffer);
            if piece.1.len() > longest.1.len() {
                longest = piece.clone();
            }
        } else {
            piece.1.clear();
        }
    }
    let (base, text) = longest;
    println!(
        "constants of {} KiB, {within:#x} bytes of them in one piece; {} KiB of text",
        bytes.len() >> 10,
        text.len() >> 10
    );
    let os = os.clone();
    let kernel = Constant {
        what: "constants",
        bytes,
        view: Box::new(move |at, buffer| os.kernel_view().read_into(VirtAddr::new(start.as_u64() + at), buffer)),
    };
    let text = Constant {
        what: "text of process 1",
        bytes: text,
        view: Box::new(move |at, buffer| first.read_into(VirtAddr::new(base + at), buffer)),
    };
    Ok(vec![kernel, physical, text])
}

/// Memory of this process in KiB: its own, and all, to which pages of the guest belong that are mapped here.
fn resident() -> Result<Vec<(&'static str, i64)>, Failure> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = |name: &'static str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        let number = line.and_then(|line| line.split_whitespace().next()).ok_or("no such line")?;
        Ok((name, number.parse()?))
    };
    ["RssAnon", "VmRSS"].into_iter().map(line).collect()
}
