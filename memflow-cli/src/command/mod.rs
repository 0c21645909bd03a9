//! The commands, a file for each.
//!
//! Each has its arguments, `run`, which opens the target, and `show`, which does the work on an [`Os`](memflow_core::os::Os).
//! Must not know: how a target is opened, each other.

mod address;
mod cache;
mod control;
mod convert;
mod diff;
mod dmesg;
mod dump;
mod find;
mod flags;
mod info;
mod mappings;
mod maps;
mod modules;
mod plugins;
mod ps;
mod read;
mod search;
mod shell;
mod space;
mod strings;
mod symbols;
mod targets;
#[cfg(test)]
mod testing;
mod translate;

pub(crate) use self::{
    cache::{CacheArgs, run as cache},
    control::{ControlArgs, pause, resume},
    convert::{ConvertArgs, run as convert},
    diff::{DiffArgs, run as diff},
    dmesg::{DmesgArgs, run as dmesg},
    dump::{DumpArgs, run as dump},
    find::{FindArgs, run as find},
    info::{InfoArgs, run as info},
    maps::{MapsArgs, run as maps},
    modules::{ModulesArgs, run as modules},
    plugins::{PluginsArgs, run as plugins},
    ps::{PsArgs, run as ps},
    read::{ReadArgs, run as read},
    shell::{CompletionsArgs, ManArgs, completions, man},
    strings::{StringsArgs, run as strings},
    symbols::{SymbolsArgs, run as symbols},
    targets::{TargetsArgs, run as targets},
    translate::{TranslateArgs, run as translate},
};
