//! Kernel modules of an unpacked kernel package, in the order they can be inserted.
//!
//! Owns: finding modules by name, reading what they depend on, decompressing them.
//! Must not know: what the modules do.
//! Keeps: a module comes after everything it depends on; a name that the kernel has built in is left out.
//! Source: `.modinfo` is NUL-separated `key=value` (Linux include/linux/moduleparam.h); the packages' `.ko`, `.ko.xz`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::{Error, Result, WithPath};
use crate::tool;

/// One module, ready to be put into a guest.
#[derive(Debug)]
pub(crate) struct Module {
    pub(crate) name: String,
    pub(crate) bytes: Vec<u8>,
}

/// The modules among `wanted` that exist, and all they depend on, dependencies first.
pub(crate) fn in_order(kernel: &Path, wanted: &[&str]) -> Result<Vec<Module>> {
    let mut files = BTreeMap::new();
    for root in ["lib/modules", "usr/lib/modules"] {
        let root = kernel.join(root);
        if root.is_dir() {
            collect(&root, &mut files)?;
        }
    }
    if files.is_empty() {
        return Err(Error::MissingFile {
            path: kernel.join("lib/modules"),
            hint: "the kernel package holds no modules; its layout may have changed".into(),
        });
    }
    let mut order = Vec::new();
    for name in wanted {
        insert(name, &files, &mut order)?;
    }
    Ok(order)
}

fn insert(name: &str, files: &BTreeMap<String, PathBuf>, order: &mut Vec<Module>) -> Result<()> {
    let name = name.replace('-', "_");
    if order.iter().any(|module| module.name == name) {
        return Ok(());
    }
    let Some(file) = files.get(&name) else { return Ok(()) };
    let bytes = read(file)?;
    for dependency in dependencies(&bytes) {
        insert(&dependency, files, order)?;
    }
    order.push(Module { name, bytes });
    Ok(())
}

/// Every module file below a folder, by module name.
fn collect(folder: &Path, files: &mut BTreeMap<String, PathBuf>) -> Result<()> {
    for entry in std::fs::read_dir(folder).at(folder)?.flatten() {
        let path = entry.path();
        if path.is_dir() && !path.is_symlink() {
            collect(&path, files)?;
        } else if let Some((stem, _)) = entry.file_name().to_string_lossy().split_once(".ko") {
            files.insert(stem.replace('-', "_"), path);
        }
    }
    Ok(())
}

fn read(file: &Path) -> Result<Vec<u8>> {
    match file.extension().and_then(|extension| extension.to_str()) {
        Some("xz") => {
            tool::require("xz", "xz-utils")?;
            tool::run(Command::new("xz").arg("-dc").arg(file))
        }
        Some("zst") => {
            tool::require("zstd", "zstd")?;
            tool::run(Command::new("zstd").arg("-dc").arg(file))
        }
        _ => std::fs::read(file).at(file),
    }
}

/// What a module's `depends=` names. The entry is found by its text, which no other section holds NUL-framed.
fn dependencies(module: &[u8]) -> Vec<String> {
    module
        .split(|&byte| byte == 0)
        .find_map(|entry| std::str::from_utf8(entry).ok()?.strip_prefix("depends="))
        .map(|names| names.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependencies_come_from_modinfo() {
        let module = b"\x7fELF\0license=GPL\0depends=failover,net_failover\0retpoline=Y\0";
        assert_eq!(dependencies(module), ["failover", "net_failover"]);
        assert!(dependencies(b"\x7fELF\0depends=\0").is_empty());
    }
}
