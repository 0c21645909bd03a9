//! From an image file to the list of its processes.
//!
//! Owns: that case. Must not know: how it is timed or reported, how processes are found.
//! Keeps: nothing learnt of the kernel outlives a run.

use std::path::Path;

use super::{Case, OURS};
use crate::{Image, Result, measure::Contender};

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
