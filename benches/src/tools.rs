//! Tools written for Python: MemProcFS and volatility3, in a process of their own on the same image.
//!
//! Owns: giving them work, comparing their answers, saying why one does not take part. Must not know: their interfaces
//! (`tools.py` does).
//! Keeps: a tool that is not installed, or cannot do something, is a reason in the table and never an error.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use memflow_core::{MemoryViewExt, VirtAddr};
use serde::Deserialize;

use crate::{
    Checked, Result,
    peer::Mistakes,
    report::{Figure, Role},
};

/// What asks the tools.
const SCRIPT: &str = include_str!("../tools.py");
/// Their packages, as Python calls them.
const TOOLS: [(&str, &str); 2] = [("memprocfs", "MemProcFS"), ("volatility3", "volatility3")];
/// What a tool wrote where it has no answer.
const NONE: u64 = u64::MAX;

/// How to install both.
pub const INSTALL: &str = "python3 -m venv target/peers && target/peers/bin/pip install memprocfs volatility3, or --python with one that has them";

/// A Python, and the image that tools of it are to open.
#[derive(Debug)]
pub struct Tools {
    python: PathBuf,
    image: PathBuf,
}

/// What a tool says of one thing it was asked for.
#[derive(Deserialize, Default)]
struct Said {
    /// Nanoseconds per item.
    #[serde(default)]
    ns: Option<f64>,
    /// Why there is no figure.
    #[serde(default)]
    note: Option<String>,
    /// How many it found, where things are counted.
    #[serde(default)]
    found: Option<usize>,
}

/// What a tool says.
#[derive(Deserialize)]
struct Answer {
    version: String,
    translate: Said,
    read8: Said,
    processes: Said,
}

/// Figures of a tool for the cases that it can take part in.
#[derive(Debug)]
pub struct ToolFigures {
    /// Translation, address by address.
    pub translate: Figure,
    /// Reads of eight bytes, one by one.
    pub read8: Figure,
    /// The list of processes.
    pub processes: Figure,
}

impl Tools {
    /// Tools of this Python, or of the one in `target/peers`, or of the system's.
    pub fn new(python: Option<&Path>, image: PathBuf) -> Self {
        let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/peers/bin/python3");
        let found = if own.exists() { own } else { "python3".into() };
        Self { python: python.map_or(found, Path::to_owned), image }
    }

    /// What each tool makes of the addresses; the reason for those that do not take part.
    ///
    /// # Errors
    /// Files cannot be written.
    pub fn ask(
        &self,
        checked: &Checked<'_>,
        processes: usize,
    ) -> Result<Vec<(&'static str, Result<ToolFigures, String>)>> {
        let folder = std::env::temp_dir().join(format!("memflow-tools-{}", std::process::id()));
        fs::create_dir_all(&folder)?;
        let addresses: Vec<u8> = checked.addresses().iter().flat_map(|address| address.to_le_bytes()).collect();
        fs::write(folder.join("addresses"), addresses)?;
        fs::write(folder.join("tools.py"), SCRIPT)?;
        let all = TOOLS.map(|(module, name)| (name, self.ask_one(module, name, &folder, checked, processes)));
        fs::remove_dir_all(&folder)?;
        Ok(all.into())
    }

    fn ask_one(
        &self,
        module: &str,
        name: &str,
        folder: &Path,
        checked: &Checked<'_>,
        processes: usize,
    ) -> Result<ToolFigures, String> {
        let root = format!("{:#x}", checked.image().space.root().as_u64());
        let levels = checked.image().space.architecture().levels.len().to_string();
        let mut python = Command::new(&self.python);
        python.arg(folder.join("tools.py")).arg(module).arg(&self.image).args([&root, &levels]).arg(folder);
        // The tools print on their own; the answer is in a file.
        python.stdin(Stdio::null()).stdout(Stdio::null());
        let out = python.output().map_err(|error| format!("{}: {error}", self.python.display()))?;
        let text = fs::read_to_string(folder.join("answer")).unwrap_or_default();
        let _ = fs::remove_file(folder.join("answer"));
        if !out.status.success() {
            let words = String::from_utf8_lossy(&out.stderr);
            return Err(words.lines().last().unwrap_or("it ended without a word").to_owned());
        }
        let answer: Answer = serde_json::from_str(&text).map_err(|error| format!("its answer: {error}"))?;
        let name = format!("{name} {}", answer.version);
        let view = checked.image().view();
        let image = checked.image();
        let phys = |address: &u64| {
            let found = image.space.translate(&*image.memory, VirtAddr::new(*address));
            found.map_or(NONE, |found| found.phys.as_u64())
        };
        let read = |address: &u64| view.read::<u64>(VirtAddr::new(*address)).unwrap_or(NONE);
        let compared = |file: &str, ours: &dyn Fn(&u64) -> u64| {
            let found = fs::read(folder.join(file)).unwrap_or_default();
            let _ = fs::remove_file(folder.join(file));
            let found: Vec<u64> = found.as_chunks().0.iter().map(|bytes| u64::from_le_bytes(*bytes)).collect();
            let expected = checked.addresses().iter().map(ours);
            // Memory that holds the same bits is no answer that is missing.
            let pairs = found.into_iter().zip(expected);
            Mistakes::count(pairs.map(|(one, ours)| ((one != NONE || ours == NONE).then_some(one), ours)))
        };
        let counted = answer.processes.found.map(|found| Mistakes {
            wrong: found.saturating_sub(processes),
            missing: processes.saturating_sub(found),
            of: processes,
        });
        Ok(ToolFigures {
            translate: figure(&name, answer.translate, Some(compared("translate", &phys))),
            read8: figure(&name, answer.read8, Some(compared("read8", &read))),
            processes: figure(&name, answer.processes, counted),
        })
    }
}

fn figure(name: &str, said: Said, mistakes: Option<Mistakes>) -> Figure {
    let mistakes = mistakes.filter(|_| said.ns.is_some());
    Figure { ns: said.ns.into_iter().collect(), note: said.note, mistakes, ..Figure::new(name, Role::Peer) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Bare, Generated, Order};

    #[test]
    fn tool_that_is_not_there_gives_a_reason() {
        let image = Generated { gib: 2, five_levels: false, mixed: false }.build().unwrap();
        let checked = Bare::new(&image).unwrap().check(image.addresses(Order::Random, 16, 8), 8).unwrap();
        let tools = Tools::new(Some(Path::new("no-such-python")), "no-such-image".into());
        for (_, asked) in tools.ask(&checked, 1).unwrap() {
            assert!(asked.unwrap_err().starts_with("no-such-python: "));
        }
    }
}
