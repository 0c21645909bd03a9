//! Loads plugins, uses them from four threads, and drops everything: what is run under a memory checker.
//!
//! The arguments are the files of plugins, then target strings, each followed by the OS layer to look for in it or by `-`.
//! Must not know: any plugin.

use std::{
    error::Error,
    ops::ControlFlow,
    sync::Arc,
    thread::{JoinHandle, spawn},
};

use memflow_core::{
    PhysicalMemory, VirtAddr,
    memory::{PhysRead, PhysWrite, ViewRead},
    os::{Os, Process},
    plugin::{ConnectOptions, Inventory, args::ConnectorSpec, forward_log_level},
};

type Failure = Box<dyn Error + Send + Sync>;

/// Threads that use the same handles at the same time.
const THREADS: usize = 4;

fn main() -> Result<(), Failure> {
    let mut args = std::env::args().skip(1).peekable();
    let mut builder = Inventory::builder();
    while let Some(file) = args.next_if(|arg| arg.ends_with(".so")) {
        builder = builder.file(file);
    }
    let inventory = builder.build();
    if let Some(rejected) = inventory.rejected().first() {
        return Err(rejected.to_string().into());
    }
    while let (Some(target), Some(layer)) = (args.next(), args.next()) {
        let spec: ConnectorSpec = target.parse()?;
        let found = inventory.find(memflow_core::plugin::descriptor::PluginKind::Connector, spec.name(), None)?;
        found.targets()?;
        for _ in 0..2 {
            let memory = inventory.connect(&spec, &ConnectOptions::default())?.connection.memory;
            let os = match layer.as_str() {
                "-" => None,
                layer => {
                    Some(inventory.open_os(&layer.parse()?, memory.clone(), &|_, _, _| ControlFlow::Continue(()))?)
                }
            };
            forward_log_level();
            use_from_threads(&memory, os)?;
        }
    }
    Ok(())
}

/// Uses the handles from several threads, which also drop the last of them.
fn use_from_threads(memory: &Arc<dyn PhysicalMemory>, os: Option<Arc<dyn Os>>) -> Result<(), Failure> {
    let threads: Vec<JoinHandle<Result<(), Failure>>> = (0..THREADS)
        .map(|thread| {
            let (memory, os) = (memory.clone(), os.clone());
            spawn(move || {
                use_memory(&*memory, thread as u64);
                drop(memory);
                os.map_or(Ok(()), |os| use_os(&*os))
            })
        })
        .collect();
    drop(os);
    for thread in threads {
        thread.join().map_err(|_| "a thread panicked")??;
    }
    Ok(())
}

fn use_memory(memory: &dyn PhysicalMemory, thread: u64) {
    let metadata = memory.metadata();
    for run in metadata.runs.runs() {
        let start = run.range.start();
        let mut buffers = [[0; 24], [0; 24], [0; 24]];
        let mut at = 0;
        let mut ops: Vec<PhysRead<'_>> = Vec::new();
        for buffer in &mut buffers {
            // The last ones may lie behind the run, or between pages.
            at += 0xff8 + thread * 8;
            ops.push(PhysRead::new(start.wrapping_add(at), buffer));
        }
        // Whatever comes of it: it is the way there and back that is looked at.
        drop(memory.read_batch(&mut ops));
        drop(memory.write_batch(&mut [PhysWrite::new(start, &[0x5a; 8])]));
    }
    drop(memory.populated_runs());
    drop(memory.facts().clone());
}

fn use_os(os: &dyn Os) -> Result<(), Failure> {
    let mut buffers = [[0; 16]; 2];
    let [one, other] = &mut buffers;
    let base = os.kernel().base;
    drop(os.kernel_view().read_batch(&mut [ViewRead::new(base, one), ViewRead::new(VirtAddr::new(0x1010), other)]));
    drop(os.modules()?);
    drop(os.symbol_at(base)?);
    drop(os.symbols_named("schedule")?);
    drop(os.kernel_log()?);
    for info in os.processes()?.items.iter().take(4) {
        use_process(&*os.open(info)?);
    }
    Ok(())
}

fn use_process(process: &dyn Process) {
    drop((process.executable(), process.command_line(), process.environment(), process.threads()));
    let Ok(map) = process.memory_map() else { return };
    for region in map.items.iter().take(4) {
        let mut bytes = [0; 64];
        drop(process.read_batch(&mut [ViewRead::new(region.range.start(), &mut bytes)]));
        if let Some(space) = process.address_space() {
            // Nothing more than a walk, which may stop.
            let _ = space.translate(process.physical_memory(), region.range.start());
        }
    }
}
