//! `cargo xtask guests` and `cargo xtask demo`: real guests, prepared.
//!
//! Owns: which guests are asked for, two at a time, and the progress lines.
//! Must not know: how a guest is made (`memflow-guests`).

use std::path::Path;
use std::sync::Mutex;
use std::time::Instant;

use memflow_guests::{DEMO, Guests, Spec, all};

/// Guests that boot at the same time.
const AT_ONCE: usize = 2;

/// Prepares the named guests, or all.
pub(crate) fn guests(args: &[String]) -> Result<(), String> {
    let guests = Guests::locate().map_err(|error| error.to_string())?;
    if args.iter().any(|arg| arg == "--list") {
        for spec in all() {
            let state = if guests.is_prepared(spec) { "ready" } else { "-" };
            let (machine, memory, cpus) = (spec.machine.qemu(), spec.memory_mib, spec.cpus);
            println!("{:<26} {machine:<4} {memory:>5} MiB  {cpus} vCPU  {state}", spec.name);
        }
        return Ok(());
    }
    if let Some(option) = args.iter().find(|arg| arg.starts_with('-')) {
        return Err(format!("unknown option {option}; cargo xtask guests [--list | NAME…]"));
    }
    let mut wanted: Vec<&Spec> = Vec::new();
    for name in args {
        wanted.push(Guests::spec(name).map_err(|error| error.to_string())?);
    }
    if wanted.is_empty() {
        wanted.extend(all());
    }
    let started = Instant::now();
    let queue = Mutex::new(wanted.into_iter());
    let failures = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let Some(spec) = queue.lock().ok().and_then(|mut queue| queue.next()) else { return };
                    let say = |what: &str| progress(started, spec.name, what);
                    match guests.prepare(spec, &say) {
                        Ok(()) => say("ready"),
                        Err(error) => {
                            say(&format!("failed: {error}"));
                            if let Ok(mut failures) = failures.lock() {
                                failures.push(spec.name);
                            }
                        }
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().map_err(|error| error.to_string())?;
    if failures.is_empty() { Ok(()) } else { Err(format!("not prepared: {}", failures.join(", "))) }
}

/// Makes the demo snapshot in `memflow-cli/demo`.
pub(crate) fn demo(args: &[String]) -> Result<(), String> {
    if let Some(arg) = args.first() {
        return Err(format!("unexpected argument {arg}; cargo xtask demo takes none"));
    }
    let started = Instant::now();
    let guests = Guests::locate().map_err(|error| error.to_string())?;
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../memflow-cli/demo");
    let size = memflow_guests::demo(&guests, &folder, &|what| progress(started, DEMO.name, what));
    let size = size.map_err(|error| error.to_string())?;
    progress(started, DEMO.name, &format!("demo.elf.zst: {size} bytes"));
    Ok(())
}

fn progress(started: Instant, name: &str, what: &str) {
    eprintln!("{:>6.1} s  {name}: {what}", started.elapsed().as_secs_f64());
}
