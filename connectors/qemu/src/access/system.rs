//! Another process' memory by system calls.
//!
//! Owns: the calls, and that nothing of another process with the same pid passes for the guest's. Must not know: layouts.
//! Keeps: after each batch the process is asked whether it lived through it; if not, every operation of it fails.
//! Source: process_vm_readv(2), proc_pid_mem(5).

use std::{
    fs::File,
    io::{IoSlice, IoSliceMut},
    os::unix::fs::FileExt,
    sync::Arc,
};

use memflow_core::{
    Reason, Result,
    memory::{Outcome, PhysRead, PhysWrite, RunMap},
};
use nix::{
    sys::uio::{RemoteIoVec, process_vm_readv, process_vm_writev},
    unistd::Pid,
};
use rustix::io::Errno;

use super::pieces::{Cursor, Place, cut, move_all};
use crate::host::HostProcess;

/// Which system call it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum SystemCall {
    /// `process_vm_readv`, `process_vm_writev`: many pieces at a time.
    ProcessVm,
    /// Reads and writes of `/proc/PID/mem`: one piece at a time.
    Mem,
}

/// The memory of a process.
#[derive(Debug)]
pub(crate) struct System {
    process: Arc<HostProcess>,
    way: Way,
}

#[derive(Debug)]
enum Way {
    ProcessVm(Pid),
    Mem(File),
}

impl System {
    /// Opens the memory of a process, and reads a byte of it to see whether that is allowed.
    ///
    /// # Errors
    /// It is not, or the process is gone.
    pub(crate) fn open(call: SystemCall, process: Arc<HostProcess>, runs: &RunMap, writable: bool) -> Result<Self> {
        let way = match call {
            SystemCall::ProcessVm => Way::ProcessVm(Pid::from_raw(i32::try_from(process.pid()).unwrap_or(i32::MAX))),
            SystemCall::Mem => {
                Way::Mem(process.file("mem", writable).map_err(|error| process.refused("memory", error))?)
            }
        };
        let this = Self { process, way };
        if let Some(run) = runs.runs().first() {
            let place = Place { op: 0, offset: 0, virt: run.offset, len: 1 };
            let mut byte = [0];
            let read = this.read(&mut [&mut byte], &[place], Cursor { piece: 0, skip: 0, count: 1 });
            // A page that is not there is no lack of rights.
            if let Err(error) = read
                && !matches!(error, Errno::FAULT | Errno::IO)
            {
                return Err(this.process.refused("memory", error.into()));
            }
        }
        Ok(this)
    }

    /// Which system call is made.
    pub(crate) fn call(&self) -> SystemCall {
        match self.way {
            Way::ProcessVm(_) => SystemCall::ProcessVm,
            Way::Mem(_) => SystemCall::Mem,
        }
    }

    /// Carries out reads of what `runs` place in the process.
    pub(crate) fn read_batch(&self, runs: &RunMap, ops: &mut [PhysRead<'_>]) {
        let mut places = Vec::with_capacity(ops.len());
        let mut outcomes = Vec::with_capacity(ops.len());
        let addrs: Vec<_> = ops.iter().map(|op| op.addr).collect();
        for (index, op) in ops.iter().enumerate() {
            outcomes.push(cut(runs, index, op.addr, op.buf.len(), &mut places));
        }
        let mut buffers: Vec<&mut [u8]> = Vec::with_capacity(places.len());
        let mut of_op = places.iter().peekable();
        for (index, op) in ops.iter_mut().enumerate() {
            let (mut rest, mut at) = (&mut *op.buf, 0);
            while let Some(place) = of_op.next_if(|place| place.op == index) {
                // Offsets are into the buffer, so they fit.
                let gap = (place.offset - at) as usize;
                let (piece, after) = rest.split_at_mut(gap).1.split_at_mut(place.len);
                buffers.push(piece);
                (rest, at) = (after, place.offset + place.len as u64);
            }
        }
        move_all(&places, &mut outcomes, |op| addrs[op], |cursor| self.read(&mut buffers, &places, cursor));
        self.confirm(&mut outcomes);
        for (op, outcome) in ops.iter_mut().zip(outcomes) {
            op.outcome = outcome;
        }
    }

    /// Carries out writes.
    pub(crate) fn write_batch(&self, runs: &RunMap, ops: &mut [PhysWrite<'_>]) {
        let mut places = Vec::with_capacity(ops.len());
        let mut outcomes = Vec::with_capacity(ops.len());
        for (index, op) in ops.iter().enumerate() {
            outcomes.push(cut(runs, index, op.addr, op.buf.len(), &mut places));
        }
        // A pid that is free may belong to somebody else by now, whose memory must not be touched.
        if self.process.is_alive() {
            let bytes = |place: &Place| &ops[place.op].buf[place.offset as usize..][..place.len];
            move_all(&places, &mut outcomes, |op| ops[op].addr, |cursor| self.write(bytes, &places, cursor));
        }
        self.confirm(&mut outcomes);
        for (op, outcome) in ops.iter_mut().zip(outcomes) {
            op.outcome = outcome;
        }
    }

    /// Takes back what was moved while the process ended.
    fn confirm(&self, outcomes: &mut [Outcome]) {
        if !self.process.is_alive() {
            let errno = Errno::SRCH.raw_os_error();
            outcomes.fill(Outcome::Failed { offset: 0, reason: Reason::Io { errno } });
        }
    }

    fn read(&self, buffers: &mut [&mut [u8]], places: &[Place], cursor: Cursor) -> Result<usize, Errno> {
        let Cursor { piece, skip, count } = cursor;
        match &self.way {
            Way::ProcessVm(pid) => {
                let buffers = buffers[piece..].iter_mut().take(count).enumerate();
                let mut local: Vec<IoSliceMut<'_>> = buffers
                    .map(|(index, buffer)| IoSliceMut::new(if index == 0 { &mut buffer[skip..] } else { buffer }))
                    .collect();
                process_vm_readv(*pid, &mut local, &remote(places, cursor)).map_err(errno)
            }
            Way::Mem(file) => {
                let read = file.read_at(&mut buffers[piece][skip..], places[piece].virt + skip as u64);
                some(read)
            }
        }
    }

    fn write<'a>(&self, bytes: impl Fn(&Place) -> &'a [u8], places: &[Place], cursor: Cursor) -> Result<usize, Errno> {
        let Cursor { piece, skip, count } = cursor;
        match &self.way {
            Way::ProcessVm(pid) => {
                let pieces = places[piece..].iter().take(count).enumerate();
                let local: Vec<IoSlice<'_>> = pieces
                    .map(|(index, place)| IoSlice::new(&bytes(place)[if index == 0 { skip } else { 0 }..]))
                    .collect();
                process_vm_writev(*pid, &local, &remote(places, cursor)).map_err(errno)
            }
            Way::Mem(file) => {
                let place = &places[piece];
                some(file.write_at(&bytes(place)[skip..], place.virt + skip as u64))
            }
        }
    }
}

/// `/proc/PID/mem` moves nothing at all once the process has let go of its memory, which is before it counts as ended; what is not
/// mapped is an error.
fn some(moved: std::io::Result<usize>) -> Result<usize, Errno> {
    match moved {
        Ok(0) => Err(Errno::SRCH),
        Ok(count) => Ok(count),
        Err(error) => Err(Errno::from_io_error(&error).unwrap_or(Errno::IO)),
    }
}

fn remote(places: &[Place], Cursor { piece, skip, count }: Cursor) -> Vec<RemoteIoVec> {
    let places = places[piece..].iter().take(count).enumerate();
    let whole = places.map(|(index, place)| {
        let skip = if index == 0 { skip } else { 0 };
        // Memory of a process on this machine has addresses of this machine's width.
        RemoteIoVec { base: place.virt as usize + skip, len: place.len - skip }
    });
    whole.collect()
}

fn errno(error: nix::errno::Errno) -> Errno {
    Errno::from_raw_os_error(error as i32)
}
