//! What the header of a dump says, with a bit for everything that is known.
//!
//! Must not know: formats of dumps.
//! Keeps: a fact that is not known crosses as such; numbers that do not fit their field are not known.

use memflow_abi::{DumpHeader, header_fact};

use super::known::{Knowing, Known};
use crate::{
    address::VirtAddr,
    memory::{BugCheck, TargetFacts, WindowsFacts},
};

/// The record for the other side, if there is anything to say.
pub(crate) fn to_wire(facts: &TargetFacts) -> Option<DumpHeader> {
    let mut known = Knowing::default();
    let windows = facts.windows.as_ref();
    let address = |pick: fn(&WindowsFacts) -> Option<VirtAddr>| windows.and_then(pick).map(VirtAddr::as_u64);
    let check = windows.and_then(|windows| windows.bug_check);
    let [first, second, third, fourth] = check.map_or([0; 4], |check| check.parameters);
    let wire = DumpHeader {
        known: 0,
        directory_table: known.put(facts.directory_table, header_fact::DIRECTORY_TABLE),
        build: known.put(windows.map(|windows| windows.build.into()), header_fact::BUILD),
        pae: known.put(windows.and_then(|windows| windows.pae).map(u64::from), header_fact::PAE),
        processors: known.put(windows.and_then(|windows| windows.processors).map(u64::from), header_fact::PROCESSORS),
        debugger_data: known.put(address(|windows| windows.debugger_data), header_fact::DEBUGGER_DATA),
        loaded_modules: known.put(address(|windows| windows.loaded_modules), header_fact::LOADED_MODULES),
        active_processes: known.put(address(|windows| windows.active_processes), header_fact::ACTIVE_PROCESSES),
        pfn_database: known.put(address(|windows| windows.pfn_database), header_fact::PFN_DATABASE),
        bug_check: known.put(check.map(|check| check.code.into()), header_fact::BUG_CHECK),
        bug_check_parameter_1: first,
        bug_check_parameter_2: second,
        bug_check_parameter_3: third,
        bug_check_parameter_4: fourth,
        system_time: known.put(windows.and_then(|windows| windows.system_time), header_fact::SYSTEM_TIME),
    };
    (known.0 != 0).then_some(DumpHeader { known: known.0, ..wire })
}

/// The root of the page tables, and what a header of Windows says.
pub(crate) fn from_wire(wire: &DumpHeader) -> (Option<u64>, Option<WindowsFacts>) {
    let known = Known(wire.known);
    let narrow = |bit: u64, value: u64| known.get(bit, value).and_then(|value| u32::try_from(value).ok());
    let address = |bit: u64, value: u64| known.get(bit, value).map(VirtAddr::new);
    let windows = narrow(header_fact::BUILD, wire.build).map(|build| WindowsFacts {
        build,
        pae: known.get(header_fact::PAE, wire.pae).map(|pae| pae != 0),
        processors: narrow(header_fact::PROCESSORS, wire.processors),
        debugger_data: address(header_fact::DEBUGGER_DATA, wire.debugger_data),
        loaded_modules: address(header_fact::LOADED_MODULES, wire.loaded_modules),
        active_processes: address(header_fact::ACTIVE_PROCESSES, wire.active_processes),
        pfn_database: address(header_fact::PFN_DATABASE, wire.pfn_database),
        bug_check: narrow(header_fact::BUG_CHECK, wire.bug_check).map(|code| BugCheck {
            code,
            parameters: [
                wire.bug_check_parameter_1,
                wire.bug_check_parameter_2,
                wire.bug_check_parameter_3,
                wire.bug_check_parameter_4,
            ],
        }),
        system_time: known.get(header_fact::SYSTEM_TIME, wire.system_time),
    });
    (known.get(header_fact::DIRECTORY_TABLE, wire.directory_table), windows)
}
