//! From an image file to the list of its processes, by the library and by the whole command.
//!
//! Owns: these cases. Must not know: how it is timed or reported, how processes are found.
//! Keeps: nothing learnt of the kernel outlives a run, but where a case is about that.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

use super::{Case, OURS};
use crate::{
    Image, Result,
    measure::{Clock, Contender},
};

/// `memflow ps` of an image file, from the start of the process to its end: with what the run before learnt of the kernel, or after
/// that was thrown away. The file is in the page cache. `system` is a mark in the case's name, empty for Linux.
///
/// # Errors
/// The command fails.
pub fn command(program: &Path, path: &Path, system: &str, warm: bool) -> Result<Case<'static>> {
    let learnt = std::env::temp_dir().join(format!("memflow-compare-learnt-{}", std::process::id()));
    let forget = {
        let learnt = learnt.clone();
        // It may not be there.
        move || drop(fs::remove_dir_all(&learnt))
    };
    forget();
    let mut listing = Command::new(program);
    listing.arg("ps").arg(path).env("MEMFLOW_CACHE_DIR", &learnt).stdin(Stdio::null());
    let out = listing.output()?;
    if !out.status.success() {
        return Err(format!("memflow ps: {}", String::from_utf8_lossy(&out.stderr)).into());
    }
    listing.stdout(Stdio::null());
    let ours = Contender::new(OURS, move || {
        if !warm {
            forget();
        }
        assert!(listing.status().is_ok_and(|status| status.success()), "memflow ps");
    });
    let mib = fs::metadata(path)?.len() >> 20;
    let name = format!("ps/{mib}MiB{system}/{}", if warm { "warm" } else { "cold" });
    let contenders = vec![ours.with_clock(Clock::Wall)];
    Ok(Case { name, per: "command", items: 1, contenders, references: 0, peers: Vec::new() })
}

/// Opens an image file and lists processes, and says how many there are.
///
/// # Errors
/// No Linux is found in it.
pub fn processes(path: &Path, image: &str) -> Result<(Case<'static>, usize)> {
    let count = Image::count_processes(path)?;
    let path = path.to_owned();
    let ours = Contender::new(OURS, move || assert!(Image::count_processes(&path).is_ok_and(|found| found == count)));
    let name = format!("processes/{image}");
    Ok((Case { name, per: "list", items: 1, contenders: vec![ours], references: 0, peers: Vec::new() }, count))
}
