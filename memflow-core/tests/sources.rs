//! Files as physical memory: mapped and by position, also when they change underneath.

use std::{
    fs::{self, File, OpenOptions},
    path::PathBuf,
    sync::Arc,
};

use memflow_core::{
    Error, PhysAddr, PhysRange, PhysicalMemory, Reason,
    memory::{
        CacheConfig, CacheLayer, FileMemory, Liveness, MapMode, MappedMemory, Outcome, PhysRead, PhysWrite,
        PhysicalMemoryExt, ReadOnlyLayer, Run, RunMap, SourceConfig, TargetFacts,
    },
};

const PAGE: u64 = 4096;

/// A file of `pages` pages whose bytes tell their offset.
fn patterned(name: &str, pages: u64) -> (PathBuf, File) {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()));
    let bytes: Vec<u8> = (0..pages * PAGE / 8).flat_map(|word| (word * 8).to_le_bytes()).collect();
    fs::write(&path, bytes).unwrap();
    let file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
    (path, file)
}

fn config(runs: RunMap) -> SourceConfig {
    SourceConfig { name: "test".into(), runs, facts: TargetFacts::default() }
}

/// Every source over one file, and one that has a cache and a guard over it.
fn sources(file: &File, runs: &RunMap) -> Vec<(&'static str, Box<dyn PhysicalMemory>)> {
    let by_position = FileMemory::new(config(runs.clone()), file.try_clone().unwrap(), Liveness::Frozen, true);
    let mut sources: Vec<(&str, Box<dyn PhysicalMemory>)> = vec![("file", Box::new(by_position))];
    let below = MappedMemory::new(config(runs.clone()), file, MapMode::SharedWritable).unwrap();
    sources.push(("guarded", Box::new(ReadOnlyLayer::new(Arc::new(below)))));
    for (name, mode) in
        [("private", MapMode::Private), ("shared", MapMode::Shared), ("writable", MapMode::SharedWritable)]
    {
        sources.push((name, Box::new(MappedMemory::new(config(runs.clone()), file, mode).unwrap())));
    }
    let below = FileMemory::new(config(runs.clone()), file.try_clone().unwrap(), Liveness::Frozen, false);
    let cached = CacheLayer::new(Arc::new(below), CacheConfig::default()).unwrap();
    sources.push(("cached", Box::new(cached)));
    sources
}

#[test]
fn every_source_answers_alike() {
    let (path, file) = patterned("alike", 4);
    let runs = RunMap::new([
        Run { range: PhysRange::new(PhysAddr::new(0x1_0000), 2 * PAGE).unwrap(), offset: 2 * PAGE },
        Run { range: PhysRange::new(PhysAddr::new(0x1_4000), PAGE).unwrap(), offset: 0 },
    ])
    .unwrap();
    for (name, memory) in sources(&file, &runs) {
        let mut word = [0; 8];
        memory.read_into(PhysAddr::new(0x1_1008), &mut word).unwrap();
        assert_eq!(u64::from_le_bytes(word), 3 * PAGE + 8, "{name}");
        memory.read_into(PhysAddr::new(0x1_4ff8), &mut word).unwrap();
        assert_eq!(u64::from_le_bytes(word), PAGE - 8, "{name}");

        // The hole between the runs, entered from the left and left to the right.
        let mut buf = vec![0xaa; 3 * PAGE as usize];
        let mut ops = [PhysRead::new(PhysAddr::new(0x1_1800), &mut buf)];
        assert!(memory.read_batch(&mut ops).unwrap_err().is_not_in_image(), "{name}");
        let reason = Reason::NotInImage { phys: PhysAddr::new(0x1_2000) };
        assert_eq!(ops[0].outcome, Outcome::Failed { offset: 0x800, reason }, "{name}");
        assert_eq!(buf[..8], (3 * PAGE + 0x800).to_le_bytes(), "{name}");
        assert_eq!(buf[0x800], 0xaa, "{name}");
        assert_eq!(buf[0x2800..0x2808], 0u64.to_le_bytes(), "{name}");

        let past_the_end = memory.read_into(PhysAddr::new(u64::MAX), &mut [0; 2]).unwrap_err();
        assert!(past_the_end.reason().is_some(), "{name}: {past_the_end}");
        memory.read_into(PhysAddr::new(u64::MAX), &mut []).unwrap();
    }
    fs::remove_file(path).unwrap();
}

#[test]
fn file_that_shrinks_is_an_error_and_not_a_signal() {
    let (path, file) = patterned("shrinks", 8);
    let sources = sources(&file, &RunMap::flat(8 * PAGE));
    file.set_len(3 * PAGE).unwrap();
    for (name, memory) in sources {
        let mut buf = vec![0xaa; 2 * PAGE as usize];
        let mut ops = [PhysRead::new(PhysAddr::new(2 * PAGE), &mut buf)];
        let error = memory.read_batch(&mut ops).unwrap_err();
        let reason = Reason::Truncated { phys: PhysAddr::new(3 * PAGE) };
        assert_eq!(error.reason(), Some(reason), "{name}: {error}");
        assert_eq!(ops[0].outcome, Outcome::Failed { offset: PAGE, reason }, "{name}");
        assert_eq!(buf[..8], (2 * PAGE).to_le_bytes(), "{name}");
        // What is left of the file is still good, and what is gone stays gone.
        memory.read_into(PhysAddr::new(PAGE), &mut [0; 8]).unwrap();
        assert!(memory.read_into(PhysAddr::new(7 * PAGE), &mut [0; 8]).is_err(), "{name}");
        if let Some(map) = memory.direct_map() {
            assert!(map.load_u64(PhysAddr::new(5 * PAGE)).is_err(), "{name}");
            assert!(map.slice(PhysRange::new(PhysAddr::new(3 * PAGE), 8).unwrap()).is_none(), "{name}");
        }
    }
    fs::remove_file(path).unwrap();
}

#[test]
fn writes_reach_the_file_only_where_asked() {
    let (path, file) = patterned("writes", 2);
    let runs = RunMap::flat(2 * PAGE);
    let original = fs::read(&path).unwrap();
    for (name, memory) in sources(&file, &runs) {
        std::os::unix::fs::FileExt::write_all_at(&file, &original, 0).unwrap();
        let mut ops =
            [PhysWrite::new(PhysAddr::new(PAGE - 3), b"abcdef"), PhysWrite::new(PhysAddr::new(2 * PAGE - 1), b"xy")];
        let error = memory.write_batch(&mut ops).unwrap_err();
        if memory.metadata().read_only {
            assert_eq!(error.reason(), Some(Reason::ReadOnly), "{name}");
            assert_eq!(fs::read(&path).unwrap()[PAGE as usize], 0, "{name}");
        } else {
            assert!(ops[0].outcome.is_done(), "{name}");
            assert!(error.is_not_in_image(), "{name}: {error}");
            let bytes = fs::read(&path).unwrap();
            assert_eq!(&bytes[PAGE as usize - 3..PAGE as usize + 3], b"abcdef", "{name}");
            assert_eq!(bytes[2 * PAGE as usize - 1], b'x', "{name}");
        }
    }
    fs::remove_file(path).unwrap();
}

#[test]
fn shared_mapping_sees_what_others_write() {
    let (path, file) = patterned("live", 1);
    let memory = MappedMemory::new(config(RunMap::flat(PAGE)), &file, MapMode::Shared).unwrap();
    assert_eq!(memory.metadata().liveness, Liveness::Live);
    std::os::unix::fs::FileExt::write_all_at(&file, b"new text", 16).unwrap();
    let mut buf = [0; 8];
    memory.read_into(PhysAddr::new(16), &mut buf).unwrap();
    assert_eq!(&buf, b"new text");
    assert!(memory.direct_map().unwrap().slice(PhysRange::new(PhysAddr::new(16), 8).unwrap()).is_none());
    fs::remove_file(path).unwrap();
}

#[test]
fn holes_of_a_sparse_file_are_zero_and_need_no_visit() {
    let (path, file) = patterned("sparse", 1);
    file.set_len(1 << 30).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"far", 512 << 20).unwrap();
    let runs = RunMap::new([
        Run { range: PhysRange::new(PhysAddr::new(0), 256 << 20).unwrap(), offset: 0 },
        Run { range: PhysRange::new(PhysAddr::new(4 << 30), 768 << 20).unwrap(), offset: 256 << 20 },
    ])
    .unwrap();
    for (name, memory) in sources(&file, &runs) {
        let populated = memory.populated_runs();
        assert!(populated.total_bytes() < 16 << 20, "{name}: {populated:?}");
        assert!(populated.find(PhysAddr::new(0)).is_some(), "{name}");
        assert!(populated.find(PhysAddr::new((4 << 30) + (256 << 20))).is_some(), "{name}: {populated:?}");
        let mut hole = [0xaa; 8];
        memory.read_into(PhysAddr::new(5 << 20), &mut hole).unwrap();
        assert_eq!(hole, [0; 8], "{name}");
    }
    fs::remove_file(path).unwrap();
}

#[test]
fn one_handle_serves_many_threads() {
    let (path, file) = patterned("threads", 64);
    for (name, memory) in sources(&file, &RunMap::flat(64 * PAGE)) {
        std::thread::scope(|scope| {
            for thread in 0..4u64 {
                let memory = &*memory;
                scope.spawn(move || {
                    for round in 0..2000u64 {
                        let at = (round * 7919 + thread * 104_729) % (64 * PAGE / 8 - 1) * 8;
                        let mut word = [0; 8];
                        memory.read_into(PhysAddr::new(at), &mut word).unwrap();
                        assert_eq!(u64::from_le_bytes(word), at, "{name}");
                    }
                });
            }
        });
    }
    fs::remove_file(path).unwrap();
}

#[test]
fn run_past_the_end_of_the_file_is_refused() {
    let (path, file) = patterned("past-the-end", 1);
    let refused = MappedMemory::new(config(RunMap::flat(PAGE + 1)), &file, MapMode::Private);
    assert!(matches!(refused, Err(Error::Range { .. })));
    fs::remove_file(path).unwrap();
}

/// The guard must not swallow what is not its own: a process that touches another mapping past the end of its file dies as ever.
#[test]
#[expect(clippy::disallowed_methods, reason = "the child ends here; it has nothing to clean up")]
fn foreign_bus_error_still_ends_the_process() {
    const CHILD: &str = "MEMFLOW_TEST_BUS_ERROR";
    if std::env::var_os(CHILD).is_some() {
        let (path, file) = patterned("foreign-child", 2);
        let _guarded = MappedMemory::new(config(RunMap::flat(2 * PAGE)), &file, MapMode::Private).unwrap();
        // SAFETY: this mapping is only read below, to provoke the signal.
        let foreign = unsafe { memmap2::Mmap::map(&file) }.unwrap();
        fs::remove_file(path).unwrap();
        file.set_len(0).unwrap();
        std::process::exit(i32::from(std::hint::black_box(foreign[PAGE as usize])));
    }
    let status = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "foreign_bus_error_still_ends_the_process"])
        .env(CHILD, "1")
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .status()
        .unwrap();
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(libc::SIGBUS));
}

#[test]
fn handles_are_shared_between_threads() {
    fn sync<T: Send + Sync>() {}
    sync::<MappedMemory>();
    sync::<FileMemory>();
    sync::<memflow_core::memory::BufferMemory>();
    sync::<memflow_core::view::SpaceView>();
    sync::<memflow_core::view::PhysicalView>();
    sync::<Box<dyn memflow_core::os::Process>>();
    sync::<Box<dyn memflow_core::os::Os>>();
}

#[test]
fn guard_over_a_mapping_hands_on_a_map_that_refuses_writes() {
    let (path, file) = patterned("guarded", 1);
    let memory = Arc::new(MappedMemory::new(config(RunMap::flat(PAGE)), &file, MapMode::SharedWritable).unwrap());
    let guarded = ReadOnlyLayer::new(memory.clone());
    let (own, handed) = (memory.direct_map().unwrap(), guarded.direct_map().unwrap());
    assert!(own.is_writable() && !handed.is_writable());
    let addr = PhysAddr::new(0x10);
    assert!(handed.write_batch("test", &mut [PhysWrite::new(addr, b"not this")]).is_err());
    assert_eq!(handed.load_u64(addr), Ok(0x10));
    // The bytes are the same ones, and the mapping lives as long as either.
    own.write_batch("test", &mut [PhysWrite::new(addr, b"new text")]).unwrap();
    drop(memory);
    assert_eq!(handed.load_u64(addr), Ok(u64::from_le_bytes(*b"new text")));
    assert_eq!(handed.liveness(), Liveness::Live);
    file.set_len(0).unwrap();
    assert!(handed.load_u64(addr).is_err(), "what the backing lost is lost here too");
    drop(guarded);
    fs::remove_file(path).unwrap();
}
