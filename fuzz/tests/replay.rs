//! Every file of the corpus and some thousand mutations of each, through every target, as ordinary tests.
//!
//! Owns: the mutations, the limit on time, and what is told about a failure. Must not know: formats.
//! Keeps: the same inputs on every run; an input that fails is written to a file, ready to become a regression.

use std::{
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, mpsc},
    time::Duration,
};

use memflow_fuzz::{TARGETS, Target};

/// Mutations of each file.
const MUTATIONS: u64 = 2000;
/// Longest time for one input, on a machine that has other things to do: each takes well below a millisecond.
const TIME_LIMIT: Duration = Duration::from_secs(5);
/// Longest input: mutations that add bytes stop there.
const MAX_LEN: usize = 64 << 10;

/// Pseudo-random numbers (SplitMix64, from its published constants).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let value = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        value ^ (value >> 31)
    }

    /// A number below `limit`, which is not zero.
    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit.max(1) as u64) as usize
    }
}

/// A few changes to `data`; pieces of `other` may get in.
fn mutate(data: &mut Vec<u8>, other: &[u8], random: &mut Random) {
    for _ in 0..=random.below(4) {
        let at = place(data, random);
        match random.below(8) {
            0 | 1 => data.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1 << random.below(8)),
            2 => data.iter_mut().skip(at).take(1).for_each(|byte| *byte = random.next() as u8),
            3 | 4 => extreme(data, at, random),
            5 => data.truncate(at),
            6 => {
                let from = random.below(other.len());
                let piece = &other[from..(from + random.below(64)).min(other.len())];
                let end = if random.below(2) == 0 { (at + piece.len()).min(data.len()) } else { at };
                data.splice(at..end, piece.iter().copied());
            }
            _ => drop(data.drain(at..(at + random.below(32)).min(data.len()))),
        }
        data.truncate(MAX_LEN);
    }
}

/// A position in `data`, likelier one whose byte is not zero: there formats keep their fields.
fn place(data: &[u8], random: &mut Random) -> usize {
    let tries: [usize; 4] = std::array::from_fn(|_| random.below(data.len()));
    tries.into_iter().find(|at| data.get(*at).is_some_and(|byte| *byte != 0)).unwrap_or(tries[0])
}

/// Puts a number at which arithmetic goes wrong.
fn extreme(data: &mut [u8], at: usize, random: &mut Random) {
    let len = data.len() as u64;
    let values = [
        0,
        1,
        0x7f,
        0x80,
        0xff,
        0x7fff_ffff,
        0x8000_0000,
        u64::MAX >> 1,
        u64::MAX - 7,
        u64::MAX,
        1 << 33,
        len.wrapping_sub(1),
        len,
        len + 1,
    ];
    let value = values[random.below(values.len())].to_le_bytes();
    let width = 1 << random.below(4);
    for (byte, value) in data.iter_mut().skip(at).zip(&value[..width]) {
        *byte = *value;
    }
}

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus")
}

/// Names in a folder, sorted.
fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// The input that is being tried: what it is called, and its bytes.
type Current = Arc<Mutex<(String, Vec<u8>)>>;

/// Runs every input of a target, in a thread of its own so that one that hangs can be told.
fn replay(name: &'static str) {
    let target = TARGETS.iter().find(|(found, _)| *found == name).unwrap_or_else(|| panic!("no target {name}")).1;
    let current = Current::default();
    let (done, progress) = mpsc::channel();
    let tried = current.clone();
    let worker = std::thread::spawn(move || {
        inputs(name, &mut |label, bytes| {
            *tried.lock().unwrap() = (label, bytes.to_vec());
            run(target, bytes, &tried);
            done.send(()).unwrap();
        });
    });
    loop {
        match progress.recv_timeout(TIME_LIMIT) {
            Ok(()) => {}
            Err(mpsc::RecvTimeoutError::Timeout) => panic!("longer than {TIME_LIMIT:?}: {}", keep(&current)),
            Err(mpsc::RecvTimeoutError::Disconnected) => break,
        }
    }
    worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
}

/// Calls `each` with every file of a target's corpus and every mutation of it.
fn inputs(name: &str, each: &mut dyn FnMut(String, &[u8])) {
    let folder = corpus().join(name);
    let files: Vec<_> = names(&folder).into_iter().map(|file| (fs::read(folder.join(&file)).unwrap(), file)).collect();
    assert!(!files.is_empty(), "no corpus for {name}");
    for (index, (bytes, file)) in files.iter().enumerate() {
        each(format!("{name}-{file}"), bytes);
        let mut random = Random(index as u64);
        for number in 0..MUTATIONS {
            let mut bytes = bytes.clone();
            let other = random.below(files.len());
            mutate(&mut bytes, &files[other].0, &mut random);
            each(format!("{name}-{file}-{number}"), &bytes);
        }
    }
}

/// Tries one input; the failure of a target becomes one that names the input.
fn run(target: Target, bytes: &[u8], current: &Current) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| target(bytes))) {
        let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
        panic!("{}: {}", keep(current), text.unwrap_or("a panic"));
    }
}

/// Writes the input to a file; the file's name.
fn keep(current: &Current) -> String {
    let (label, bytes) = current.lock().unwrap().clone();
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(label);
    fs::write(&path, bytes).unwrap();
    path.display().to_string()
}

macro_rules! replay {
    ($($name:ident)*) => {
        /// The targets that are replayed.
        const REPLAYED: &[&str] = &[$(stringify!($name)),*];
        mod returns_for_the_corpus_and_its_mutations {
            $(#[test] fn $name() { super::replay(stringify!($name)); })*
        }
    };
}

replay!(analyze arg_specs args avml beside btf crash_dump descriptor dma_map elf facts_note firmware gdb_description gdb_layout gdb_packet gzip iomem kallsyms kcore kdbg kdump layout_entry libvirt lime log_flat log_ring lz4 migration open paging pattern pdb pe qemu_answers qemu_command_line runs vmcoreinfo vmware xz zstd);

#[test]
fn every_target_has_a_corpus_and_a_program() {
    let targets: Vec<&str> = TARGETS.iter().map(|(name, _)| *name).collect();
    assert_eq!(targets, REPLAYED);
    assert_eq!(targets, names(&corpus()));
    let programs = Path::new(env!("CARGO_MANIFEST_DIR")).join("libfuzzer");
    let sources: Vec<String> = targets.iter().map(|name| format!("{name}.rs")).collect();
    assert_eq!(sources, names(&programs.join("fuzz_targets")));
    let manifest = fs::read_to_string(programs.join("Cargo.toml")).unwrap();
    for name in targets {
        assert!(manifest.contains(&format!("name = \"{name}\"\n")), "no program for {name}");
    }
}
