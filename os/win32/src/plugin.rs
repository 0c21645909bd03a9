//! The OS layer as a plugin: its arguments, and a request as options.
//!
//! Owns: the descriptor, built in or in a file of its own. Must not know: how a kernel is found.

use std::ops::ControlFlow;

use memflow_core::{Result, plugin::OsRequest};

use crate::{
    kernel::{Arch, OffsetSources, Win32Options},
    os::Win32Os,
    page_file::PageFile,
    symbols::{self, SymbolSources},
};

#[memflow_derive::os_layer(
    name = "win32",
    description = "Windows without a symbol server: processes, modules, exports",
    args(
        dtb: number => "value of the page-table root register (CR3) to start from",
        kernel: number => "an address in the kernel's image, such as its base",
        arch: choice(x64 | "x86-pae" | x86) => "the architecture of the kernel",
        pdb: path => "the file of symbols that belongs to the kernel",
        symbols: text => "folders and stores with files of symbols, as in _NT_SYMBOL_PATH, whose place it takes; `download` among them also asks servers; `off` for none",
        pagefile: path => "the target's page file 0 (pagefile.sys), from which pages that are not in memory are read",
        swapfile: path => "its page file 1 (swapfile.sys)",
        offsets: choice(all | derived) = "all" => "where offsets of structures may come from: also a table of builds, or only memory",
    ),
)]
fn open(request: OsRequest<'_>) -> Result<Win32Os> {
    let progress = |stage: &'static str, done, total| match request.step(stage, done, total) {
        Ok(()) => ControlFlow::Continue(()),
        Err(_) => ControlFlow::Break(()),
    };
    let arch = request.args.text("arch")?.and_then(|arch| match arch {
        "x64" => Some(Arch::X64),
        "x86-pae" => Some(Arch::X86Pae),
        "x86" => Some(Arch::X86),
        // The descriptor names no other.
        _ => None,
    });
    let pdb = request.args.path("pdb")?;
    // What the environment says is for many programs: nothing in it may end this one.
    let environment = || std::env::var("_NT_SYMBOL_PATH").ok().filter(|path| symbols::is_understood(path));
    let path = match request.args.text("symbols")? {
        Some("off") => None,
        Some("download") => Some(format!("{};download", environment().unwrap_or_default())),
        Some(path) => Some(path.to_owned()),
        None => environment(),
    };
    let mut page_files = Vec::new();
    for (number, key) in [(0, "pagefile"), (1, "swapfile")] {
        if let Some(path) = request.args.path(key)? {
            page_files.push(PageFile::open(number, &path)?);
        }
    }
    let options = Win32Options {
        root: request.args.number("dtb")?,
        kernel: request.args.number("kernel")?,
        arch,
        known: &[],
        page_files: &page_files,
        offsets: match request.args.text("offsets")? {
            Some("derived") => OffsetSources::Derived,
            _ => OffsetSources::All,
        },
        symbols: SymbolSources { pdb: pdb.as_deref(), path: path.as_deref(), ..SymbolSources::default() },
        progress: Some(&progress),
    };
    Win32Os::open(request.memory.clone(), &options)
}
