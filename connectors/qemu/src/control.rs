//! Control over a guest through its monitor.
//!
//! Owns: pausing, resuming, registers now. Must not know: memory.
//! Keeps: no connection stays open between two calls, so that other tools get their turn at the monitor.

use std::{sync::Arc, time::Duration};

use memflow_core::{
    Error, Result,
    error::ResultExt,
    memory::{Control, RunState, VcpuRegisters},
};

use crate::{
    host::HostProcess,
    monitor::{MonitorConfig, Session, parse_running, with_first},
    open::RegisterSource,
    registers::{merged, parse_registers},
    stub,
};

/// A guest whose monitors answered at least once.
#[derive(Clone, Debug)]
pub(crate) struct Monitored {
    pub(crate) process: Arc<HostProcess>,
    pub(crate) name: Arc<str>,
    pub(crate) monitors: Vec<MonitorConfig>,
    pub(crate) limit: Duration,
    pub(crate) source: RegisterSource,
}

impl Monitored {
    fn ask<T>(&self, what: &'static str, ask: impl FnMut(&mut Session) -> Result<T>) -> Result<T> {
        let answer = with_first(&self.process, &self.monitors, self.limit, &mut Vec::new(), ask);
        answer.context(|| format!("{what} {}", self.name).into())
    }

    /// The registers that the stub has, and of what the monitor printed those that it has not.
    pub(crate) fn with_stub(&self, printed: &[VcpuRegisters]) -> Result<Vec<VcpuRegisters>> {
        let read = stub::read(&self.process, &self.monitors, self.limit).context(|| "registers=stub".into())?;
        merged(printed, &read).ok_or_else(|| Error::Unsupported {
            what: "registers=stub for this guest".to_owned(),
            why: format!("the monitor has {} vCPUs, the gdb stub {}, or others", printed.len(), read.len()),
        })
    }

    /// Runs a command that prints nothing, and checks what came of it: the command's own answer may be lost.
    fn change(&self, what: &'static str, command: &str, wanted: RunState) -> Result<()> {
        self.ask(what, |session| {
            let printed = session.run(command)?;
            let state = parse_running(&session.run("info status")?)?;
            if state == wanted {
                return Ok(());
            }
            Err(Error::Unsupported {
                what: format!("`{command}` for this guest"),
                why: format!("QEMU says: {}", printed.trim()),
            })
        })
    }
}

impl Control for Monitored {
    fn run_state(&self) -> Result<RunState> {
        self.ask("asking", |session| parse_running(&session.run("info status")?))
    }

    fn pause(&self) -> Result<()> {
        self.change("pausing", "stop", RunState::Paused)
    }

    fn resume(&self) -> Result<()> {
        self.change("resuming", "cont", RunState::Running)
    }

    fn registers(&self) -> Result<Vec<VcpuRegisters>> {
        let printed = self.ask("registers of", |session| Ok(parse_registers(&session.run("info registers -a")?)))?;
        match self.source {
            RegisterSource::Monitor => Ok(printed),
            RegisterSource::Stub => self.with_stub(&printed).context(|| format!("registers of {}", self.name).into()),
        }
    }
}
