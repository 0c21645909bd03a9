//! Files of symbols: what they say of a build that no table knows, and what becomes of those that say something else.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use memflow_core::{
    PhysAddr, PhysRange, PhysicalMemory,
    memory::{BufferMemory, Run, RunMap, SourceConfig, TargetFacts},
    os::Os,
};
use memflow_win32::{Win32Options, Win32Os};
use memflow_windows_images::{
    Architecture, Description, OffsetTable, Offsets, Windows, windows_7_x86, windows_10_19041_x86,
};

/// A GUID that no table has.
const UNKNOWN: &str = "0123456789ABCDEF0123456789ABCDEF";

/// A machine of a build that no table knows, and its memory.
fn machine(architecture: Architecture, offsets: &Offsets) -> (Windows, Arc<dyn PhysicalMemory>) {
    let mut description = Description::new(77, architecture, offsets.clone());
    description.guid = Some(UNKNOWN.to_owned());
    description.ram = 128 << 20;
    let windows = description.build().unwrap();
    let memory = memory(&windows);
    (windows, memory)
}

/// All RAM of a machine.
fn memory(windows: &Windows) -> Arc<dyn PhysicalMemory> {
    let end = windows.truth.ram.iter().map(|run| run.1).max().unwrap();
    let mut bytes = vec![0; end as usize];
    for (frame, page) in windows.pages() {
        bytes[(frame << 12) as usize..][..page.len()].copy_from_slice(&page[..]);
    }
    let runs = windows.runs().into_iter().map(|run| {
        let start = PhysAddr::new(run.start << 12);
        Run { range: PhysRange::new(start, (run.end - run.start) << 12).unwrap(), offset: start.as_u64() }
    });
    let config = SourceConfig {
        name: "a generated machine".into(),
        runs: RunMap::new(runs.collect::<Vec<_>>()).unwrap(),
        facts: TargetFacts::default(),
    };
    Arc::new(BufferMemory::new(config, bytes).unwrap())
}

fn table() -> OffsetTable {
    OffsetTable::embedded().unwrap()
}

fn open_with(
    memory: &Arc<dyn PhysicalMemory>,
    pdb: Option<&Path>,
    path: Option<&str>,
) -> memflow_core::Result<Win32Os> {
    let mut options = Win32Options::default();
    options.symbols.pdb = pdb;
    options.symbols.path = path;
    Win32Os::open(memory.clone(), &options)
}

/// The lines of evidence about symbols.
fn told(os: &Win32Os) -> Vec<&str> {
    os.kernel().evidence.iter().filter(|line| line.starts_with("symbols: ")).map(String::as_str).collect()
}

#[test]
fn file_of_symbols_tells_all_that_the_table_would() {
    let folder = tempfile::tempdir().unwrap();
    let table = table();
    let mut kinds = vec![(Architecture::X86, windows_7_x86()), (Architecture::Pae, windows_10_19041_x86())];
    kinds.extend(table.families().into_iter().map(|offsets| (Architecture::X64, offsets.clone())));
    for (architecture, offsets) in kinds {
        let (windows, memory) = machine(architecture, &offsets);
        let path = folder.path().join("kernel.pdb");
        fs::write(&path, windows.symbol_file(&offsets)).unwrap();
        let os = open_with(&memory, Some(&path), None).unwrap();
        // Only what the table has columns for is taken.
        let known = |name: &str| !name.starts_with("rva:") || table.rows().iter().any(|row| row.get(name).is_some());
        for (name, value) in offsets.iter().filter(|(name, _)| known(name)) {
            // Names are compared as they are: nothing is translated on the way.
            let found = os.found().offset(Box::leak(name.to_owned().into_boxed_str()));
            assert_eq!(found.ok(), Some(value), "{} {name}", offsets.version);
        }
        let listed: Vec<u32> = os.processes().unwrap().into_complete().unwrap().iter().map(|one| one.pid).collect();
        let built: Vec<u32> = windows.truth.processes.iter().map(|one| one.pid).collect();
        assert_eq!(listed, built);
        assert!(told(&os)[0].contains("symbols of this build"), "{:?}", told(&os));
    }
}

/// Writes a machine's symbols into a store.
fn store(folder: &Path, windows: &Windows, offsets: &Offsets) -> PathBuf {
    let kernel = &windows.truth.kernel;
    let place = folder.join(&kernel.pdb).join(format!("{}{:X}", kernel.guid, kernel.age));
    fs::create_dir_all(&place).unwrap();
    let path = place.join(&kernel.pdb);
    fs::write(&path, windows.symbol_file(offsets)).unwrap();
    path
}

#[test]
fn symbols_are_found_in_folders_and_stores_in_their_order() {
    let table = table();
    let offsets = table.build("10.0.17763").unwrap();
    let (windows, memory) = machine(Architecture::X64, offsets);
    let empty = tempfile::tempdir().unwrap();
    let plain = tempfile::tempdir().unwrap();
    fs::write(plain.path().join(&windows.truth.kernel.pdb), windows.symbol_file(offsets)).unwrap();
    let stored = tempfile::tempdir().unwrap();
    let in_store = store(stored.path(), &windows, offsets);
    let [empty, plain, stored] = [&empty, &plain, &stored].map(|folder| folder.path().display());
    // A server stands there as a name: nobody may ask it.
    let server = "https://nobody.invalid/symbols";
    for (path, from) in [
        (format!("{empty};{plain};{stored}"), plain.to_string()),
        (format!("srv*{empty}*{stored}*{server};{plain}"), in_store.display().to_string()),
        (format!("srv*{empty}*{server};cache*{stored}"), in_store.display().to_string()),
    ] {
        let os = open_with(&memory, None, Some(&path)).unwrap();
        let told = told(&os);
        assert!(told[0].starts_with(&format!("symbols: {empty}: no ntkrnlmp.pdb {UNKNOWN}")), "{told:?}");
        let last = told.last().unwrap();
        assert!(last.contains(&from) && last.contains("symbols of this build"), "{told:?}");
        assert_eq!(os.found().offset("_EPROCESS.Peb").unwrap(), 0x3f8);
    }
    let os = open_with(&memory, None, Some(&format!("srv*{empty}*{server}"))).unwrap();
    let expected = format!("symbols: {server}: not asked, as nobody allowed it; the argument `symbols=download` does");
    assert_eq!(told(&os).last(), Some(&&*expected));
}

#[test]
fn build_of_the_table_needs_no_symbols() {
    let table = table();
    let offsets = table.build("10.0.17763").unwrap();
    let windows = Description::new(78, Architecture::X64, offsets.clone()).build().unwrap();
    let stored = tempfile::tempdir().unwrap();
    store(stored.path(), &windows, offsets);
    let memory = memory(&windows);
    let os = open_with(&memory, None, Some(&stored.path().display().to_string())).unwrap();
    assert_eq!(told(&os), Vec::<&str>::new());
    // A file that the caller names is read all the same, and what it says otherwise is told.
    let path = stored.path().join("other.pdb");
    fs::write(&path, windows.symbol_file(&offsets.clone().with("_EPROCESS.Peb", Some(0x1230)))).unwrap();
    let os = open_with(&memory, Some(&path), None).unwrap();
    assert_eq!(os.found().offset("_EPROCESS.Peb").unwrap(), 0x3f8);
    let expected = "_EPROCESS.Peb is 0x3f8 by table of builds, 10.0.17763.379, 0x1230 by symbols, ";
    assert!(os.kernel().evidence.iter().any(|line| line.contains(expected)), "{:?}", os.kernel().evidence);
}

#[test]
fn named_file_that_is_not_the_kernels_is_an_error() {
    let table = table();
    let offsets = table.build("10.0.19041").unwrap();
    let (mut windows, memory) = machine(Architecture::X64, offsets);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ntkrnlmp.pdb");
    let error = |path: &Path| open_with(&memory, Some(path), None).unwrap_err().to_string();
    assert_eq!(error(&path), format!("{}: there is no such file", path.display()));
    assert_eq!(
        error(folder.path()),
        format!("{}: no file; the kernel needs ntkrnlmp.pdb {UNKNOWN}1", folder.path().display())
    );

    let good = windows.symbol_file(offsets);
    for bytes in [&b""[..], b"MZ", &good[..good.len() / 2], &good[..0x40], &[0; 0x4000]] {
        fs::write(&path, bytes).unwrap();
        assert!(error(&path).contains("no file of symbols"), "{}", error(&path));
    }
    windows.truth.kernel.age += 1;
    fs::write(&path, windows.symbol_file(offsets)).unwrap();
    let expected = format!("expected {UNKNOWN} age 1, found {UNKNOWN} age 2; the kernel needs ntkrnlmp.pdb {UNKNOWN}1");
    assert!(error(&path).ends_with(&expected), "{}", error(&path));
    windows.truth.kernel.age -= 1;
    windows.truth.kernel.guid = "F".repeat(32);
    fs::write(&path, windows.symbol_file(offsets)).unwrap();
    assert!(error(&path).contains("symbols of another build"), "{}", error(&path));
    // In a store or folder it is told, and offsets come from memory.
    let os = open_with(&memory, None, Some(&folder.path().display().to_string())).unwrap();
    assert!(told(&os)[0].contains("symbols of another build"), "{:?}", told(&os));
    assert_eq!(os.found().offset("_EPROCESS.Peb").unwrap(), 0x550);
}

#[test]
fn path_that_means_nothing_is_an_error() {
    let table = table();
    let (_, memory) = machine(Architecture::X64, table.build("10.0.19041").unwrap());
    let error = open_with(&memory, None, Some("srv*https://a.example*/b")).unwrap_err().to_string();
    assert!(error.starts_with("symbols: expected `download`, a folder"), "{error}");
}
