//! What is kept of a kernel for the next run, on real guests: it changes no answer, whatever state it is in.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
};

use memflow_core::{PhysicalMemory, memory::PhysicalMemoryExt, os::Os};
use memflow_guests::CapturedGuest;
use memflow_linux::{LinuxOptions, LinuxOs};
use memflow_tests::{Form, Patched, Random, guest};
use tempfile::TempDir;

/// Guests of both kernels and both depths of tables.
const GUESTS: [&str; 3] = ["amd64-6.1-5level-nopti", "amd64-6.12-4level-pti", "amd64-6.12-5level-pti"];

/// A folder that goes with the test.
fn folder() -> TempDir {
    TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

fn open(memory: Arc<dyn PhysicalMemory>, cache: Option<&Path>) -> LinuxOs {
    let mut options = LinuxOptions::default();
    options.layout_cache = cache;
    LinuxOs::open(memory, &options).unwrap()
}

/// Everything that a system says of itself.
fn answers(os: &LinuxOs) -> Vec<String> {
    let mut answers = vec![
        format!("{:?}", os.kernel()),
        format!("{:?}", os.kernel_space()),
        format!("{:?}", os.modules()),
        format!("{:?}", os.symbols()),
        format!("{:?}", os.kernel_log()),
        format!("{:?}", os.found().boot_time()),
        format!("{:?}", os.symbols_named("schedule")),
        format!("{:?}", os.symbol_at(os.kernel().base.wrapping_add(0x12345))),
    ];
    let processes = os.processes().unwrap();
    answers.push(format!("{processes:?}"));
    for process in processes.items.iter().filter(|process| !process.kernel_thread) {
        let process = os.open(process).unwrap();
        answers.push(format!("{:?} {:?}", process.executable(), process.command_line()));
        answers.push(format!("{:?} {:?}", process.memory_map(), process.threads()));
    }
    answers
}

/// The one entry of a folder.
fn entry(folder: &Path) -> PathBuf {
    let entries: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    match entries.as_slice() {
        [entry] => entry.clone(),
        entries => panic!("{entries:?}"),
    }
}

#[test]
fn recalled_kernel_answers_as_one_that_was_learnt() {
    for name in GUESTS {
        let guest = guest(name);
        for form in Form::ALL {
            let folder = folder();
            let expected = answers(&open(form.memory(&guest), None));
            for (run, recalled) in [false, true, true].into_iter().enumerate() {
                let os = open(form.memory(&guest), Some(folder.path()));
                assert_eq!(os.found().is_recalled(), recalled, "{name} {form:?} {run}");
                assert_eq!(answers(&os), expected, "{name} {form:?} {run}");
            }
            assert!(fs::metadata(entry(folder.path())).unwrap().len() < 64 << 10);
        }
    }
}

#[test]
fn other_machine_with_the_same_kernel_is_recalled_wherever_it_lies() {
    let folder = folder();
    let [first, second] = ["amd64-6.12-4level-pti", "amd64-6.12-5level-pti"].map(guest);
    drop(open(Form::Live.memory(&first), Some(folder.path())));
    for form in Form::ALL {
        let os = open(form.memory(&second), Some(folder.path()));
        assert!(os.found().is_recalled());
        assert_eq!(answers(&os), answers(&open(form.memory(&second), None)), "{form:?}");
    }
}

#[test]
fn kernel_is_recalled_by_registers_alone() {
    let guest = guest(GUESTS[1]);
    let memory =
        || -> Arc<dyn PhysicalMemory> { Arc::new(Patched::new(Form::Dump.memory(&guest)).without_vmcoreinfo_fact()) };
    let folder = folder();
    drop(open(memory(), Some(folder.path())));
    let os = open(memory(), Some(folder.path()));
    assert!(os.found().is_recalled());
    assert_eq!(answers(&os), answers(&open(memory(), None)));
}

/// The list of processes, and whether the kernel was recalled.
fn list(guest: &CapturedGuest, cache: &Path) -> (String, bool) {
    let os = open(Form::Dump.memory(guest), Some(cache));
    (format!("{:?} {:?}", os.kernel(), os.processes()), os.found().is_recalled())
}

#[test]
fn damaged_entry_is_ignored_and_written_anew() {
    let guest = guest(GUESTS[1]);
    let folder = folder();
    let (expected, _) = list(&guest, folder.path());
    let path = entry(folder.path());
    let whole = fs::read(&path).unwrap();
    let mut random = Random(4);
    for round in 0..40 {
        let mut damaged = whole.clone();
        let at = random.below(whole.len() as u64) as usize;
        if round % 2 == 0 {
            damaged.truncate(at)
        } else {
            damaged[at] ^= 1 << random.below(8)
        }
        fs::write(&path, damaged).unwrap();
        assert_eq!(list(&guest, folder.path()), (expected.clone(), false), "{round} {at}");
        assert_eq!(fs::read(&path).unwrap(), whole, "{round} {at}");
    }
    assert_eq!(list(&guest, folder.path()), (expected, true));
}

#[test]
fn entry_of_another_kernel_is_refused() {
    let [old, new] = [GUESTS[0], GUESTS[1]].map(guest);
    let (ours, others) = (folder(), folder());
    let (expected, _) = list(&new, ours.path());
    list(&old, others.path());
    fs::copy(entry(others.path()), entry(ours.path())).unwrap();
    assert_eq!(list(&new, ours.path()), (expected.clone(), false));
    assert_eq!(list(&new, ours.path()), (expected, true));
}

#[test]
fn image_with_other_types_spoils_nothing_for_the_true_kernel() {
    let guest = guest(GUESTS[1]);
    let folder = folder();
    let memory = Form::Dump.memory(&guest);
    let sound = open(memory.clone(), None);
    // Members of the first structure that has any change places: still type information, of another kernel.
    let at = sound.found().symbols.require("__start_BTF").unwrap();
    let phys = sound.kernel_space().translate(&*memory, at).unwrap().phys;
    let mut header = [0; 24];
    memory.read_into(phys, &mut header).unwrap();
    let strings_at = u32::from_le_bytes(header[16..20].try_into().unwrap()) + 24;
    let mut strings = vec![0; 1 << 20];
    memory.read_into(phys.wrapping_add(strings_at.into()), &mut strings).unwrap();
    let unused = strings.windows(12).position(|window| window == b"\0swappiness\0").unwrap();
    let place = phys.wrapping_add(u64::from(strings_at) + unused as u64 + 1);
    let forged = Patched::new(memory.clone()).with(place, b"SWAPPINESS".to_vec());
    drop(open(Arc::new(forged), Some(folder.path())));
    let os = open(memory.clone(), Some(folder.path()));
    assert!(!os.found().is_recalled());
    assert_eq!(answers(&os), answers(&sound));
    drop(os);
    assert!(open(memory, Some(folder.path())).found().is_recalled());
}

#[test]
fn folder_that_cannot_be_written_changes_nothing() {
    let guest = guest(GUESTS[1]);
    let folder = folder();
    let file = folder.path().join("file");
    fs::write(&file, b"").unwrap();
    let (expected, _) = list(&guest, &folder.path().join("good"));
    for _ in 0..2 {
        assert_eq!(list(&guest, &file.join("below")), (expected.clone(), false));
        assert_eq!(list(&guest, &file), (expected.clone(), false));
    }
    assert_eq!(fs::read(&file).unwrap(), b"");
}

#[test]
fn many_at_once_get_the_same() {
    let guest = guest(GUESTS[1]);
    let folder = folder();
    let (expected, _) = list(&guest, &folder.path().join("alone"));
    let together = folder.path().join("together");
    thread::scope(|scope| {
        let runs: Vec<_> = (0..8).map(|_| scope.spawn(|| (0..3).map(|_| list(&guest, &together)).collect())).collect();
        for run in runs {
            let lists: Vec<(String, bool)> = run.join().unwrap();
            assert!(lists.iter().all(|(list, _)| *list == expected));
        }
    });
    assert_eq!(list(&guest, &together), (expected, true));
    entry(&together);
}
