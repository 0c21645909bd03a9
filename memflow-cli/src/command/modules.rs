//! `memflow modules`: the modules of the kernel, or of a process.
//!
//! Owns: the table and the JSON form of a module. Must not know: how modules are found.

use clap::Args;
use memflow_core::{
    Result,
    os::{Listing, ModuleInfo, Os},
};
use serde::Serialize;

use crate::{
    failure::Outcome,
    output::{Align, Hex, Io, Table, escape, texts},
    progress,
    target::{Target, TargetArgs},
};

/// Arguments of `memflow modules`.
#[derive(Args, Debug)]
#[command(after_help = "\
Columns: BASE where the module's code starts, SIZE its bytes in memory, STATE in the kernel's words, USED BY the modules that \
need it. Those of a process are the files that are mapped with code, or those that its loader lists, where the system has such lists; \
then STATE tells of an image that is in no list.

JSON: {\"modules\": [{name, base, size, state, used_by, address}], \"problems\": […]}.")]
pub(crate) struct ModulesArgs {
    #[command(flatten)]
    target: TargetArgs,
    /// Of this process, instead of the kernel
    #[arg(long)]
    pid: Option<u32>,
}

#[derive(Serialize)]
struct Document<'a> {
    modules: Vec<Record<'a>>,
    problems: Vec<String>,
}

#[derive(Serialize)]
struct Record<'a> {
    name: &'a str,
    base: Hex,
    size: u64,
    state: Option<&'a str>,
    used_by: &'a [String],
    address: Hex,
}

/// Opens the target and lists modules.
pub(crate) fn run(args: &ModulesArgs, io: &mut Io<'_>) -> Outcome {
    let os = Target::open(&args.target, io)?.os(io)?;
    show(args.pid, &*os, io)
}

fn list(pid: Option<u32>, os: &dyn Os) -> Result<Listing<ModuleInfo>> {
    match pid {
        Some(pid) => os.open_pid(pid)?.modules(),
        None => os.modules(),
    }
}

fn show(pid: Option<u32>, os: &dyn Os, io: &mut Io<'_>) -> Outcome {
    let list = progress::spin(io.quiet(), "reading the module list", || list(pid, os))?;
    let status = io.problems("the module list", &list.problems);
    if io.json {
        let modules = list.items.iter().map(record).collect();
        io.document(&Document { modules, problems: texts(&list.problems) })?;
    } else {
        io.table(&table(&list.items))?;
    }
    Ok(status)
}

fn record(module: &ModuleInfo) -> Record<'_> {
    Record {
        name: &module.name,
        base: module.base.into(),
        size: module.size,
        state: module.state.as_deref(),
        used_by: &module.used_by,
        address: module.address.into(),
    }
}

fn table(modules: &[ModuleInfo]) -> Table {
    let mut table = Table::new(&[
        ("BASE", Align::Left),
        ("SIZE", Align::Right),
        ("STATE", Align::Left),
        ("NAME", Align::Left),
        ("USED BY", Align::Left),
    ]);
    for module in modules {
        table.row([
            format!("{:016x}", module.base),
            module.size.to_string(),
            escape(module.state.as_deref().unwrap_or("-")).into_owned(),
            escape(&module.name).into_owned(),
            escape(&module.used_by.join(",")).into_owned(),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use memflow_core::VirtAddr;

    use super::{
        super::testing::{FakeOs, shown},
        *,
    };
    use crate::failure::Status;

    #[test]
    fn incomplete_list_is_shown_and_named_as_such() {
        let text = shown(false, |io| show(None, &FakeOs::new(), io));
        assert_eq!(text.status, Status::Incomplete);
        assert!(text.err.starts_with("warning: the module list is incomplete: list loops"), "{}", text.err);
        assert!(text.out.ends_with("0000000000000020     5  -      five\n"), "{}", text.out);
    }

    #[test]
    fn table_names_size_and_users() {
        let base = VirtAddr::new(0xffff_ffff_c000_0000);
        let mut module = ModuleInfo::new(base, base, 20_480, "virtio");
        module.used_by = vec!["virtio_blk".into(), "virtio_net".into()];
        module.state = Some("Live".into());
        assert_eq!(
            table(&[module]).to_string(),
            "BASE               SIZE  STATE  NAME    USED BY\n\
             ffffffffc0000000  20480  Live   virtio  virtio_blk,virtio_net\n"
        );
    }
}
