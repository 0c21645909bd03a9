//! Offsets from the code of exported functions that do nothing but return a member of their argument.
//!
//! Owns: which function returns which member, and what counts as such a function. Must not know: how code got into memory.
//! Keeps: the code is followed as long as it only moves, loads and adds; anything else, and nothing is learnt.
//! Source: the functions as documented for drivers (`PsGetProcessId`) or known from their names; calling conventions of Windows on x64
//! (first argument in RCX) and x86 (stdcall: on the stack); the current thread at `gs:[188h]` on x64, `fs:[124h]` on x86.
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use iced_x86::{Decoder, DecoderOptions, Instruction, Mnemonic, OpKind, Register};
use memflow_core::{MemoryView, MemoryViewExt};

use super::Layout;
use crate::pe::Exports;

/// Bytes of a function that are read.
const CODE: usize = 64;
/// Instructions that are followed.
const STEPS: usize = 16;
/// No member of a process or a thread lies behind this.
const MAX_OFFSET: u64 = 0x2000;
/// `_KPCR.Prcb`, the same on every x64 system, and on every x86 system.
const PRCB: [u64; 2] = [0x180, 0x120];
/// Where the evidence comes from.
const FROM: &str = "code of exported functions";

/// Functions of one argument, and what they return.
const FUNCTIONS: [(&str, Returns, &str); 15] = [
    ("PsGetProcessId", Returns::Member, "_EPROCESS.UniqueProcessId"),
    ("PsGetProcessImageFileName", Returns::Address, "_EPROCESS.ImageFileName"),
    ("PsGetProcessInheritedFromUniqueProcessId", Returns::Member, "_EPROCESS.InheritedFromUniqueProcessId"),
    ("PsGetProcessPeb", Returns::Member, "_EPROCESS.Peb"),
    ("PsGetProcessSectionBaseAddress", Returns::Member, "_EPROCESS.SectionBaseAddress"),
    ("PsGetProcessExitStatus", Returns::Member, "_EPROCESS.ExitStatus"),
    ("PsGetProcessCreateTimeQuadPart", Returns::Member, "_EPROCESS.CreateTime"),
    // Before Windows 10 the block itself, since then the first member of a structure that leads to it.
    ("PsGetProcessWow64Process", Returns::Member, "_EPROCESS.WoW64Process"),
    ("PsGetProcessWow64Process", Returns::Behind(0), "_EPROCESS.WoW64Process"),
    // The number in `_MM_SESSION_SPACE`.
    ("PsGetProcessSessionId", Returns::Behind(8), "_EPROCESS.Session"),
    ("PsGetProcessDebugPort", Returns::Member, "_EPROCESS.DebugPort"),
    ("PsGetProcessJob", Returns::Member, "_EPROCESS.Job"),
    ("PsGetThreadProcessId", Returns::Member, "_ETHREAD.Cid"),
    ("PsGetThreadTeb", Returns::Member, "_KTHREAD.Teb"),
    ("PsGetThreadProcess", Returns::Member, "_KTHREAD.Process"),
];

/// Functions about the current thread, and the members on the way from it: those of no name here are known already.
const CURRENT: [(&str, &[&str]); 6] = [
    ("PsGetCurrentProcess", &["_KTHREAD.ApcState.Process"]),
    ("PsGetCurrentThreadTeb", &["_KTHREAD.Teb"]),
    ("PsGetCurrentThreadProcess", &["_KTHREAD.Process"]),
    ("PsGetCurrentThreadStackBase", &["_KTHREAD.StackBase"]),
    ("PsGetCurrentThreadStackLimit", &["_KTHREAD.StackLimit"]),
    ("PsGetProcessExitTime", &["_KTHREAD.ApcState.Process", "_EPROCESS.ExitTime"]),
];

/// What a function returns.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Returns {
    /// The value of a member of its argument.
    Member,
    /// The address of a member of its argument.
    Address,
    /// What lies this far behind the place to which a member of its argument points.
    Behind(u64),
}

/// Where a value began.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Origin {
    Argument,
    /// What the processor's control region holds at this offset.
    Processor(u64),
}

/// A value: from its origin through memory, each time at an offset of what was loaded before, and a number added in the end.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Value {
    origin: Origin,
    loads: Vec<u64>,
    plus: u64,
}

/// Adds what the kernel's exported functions tell.
pub(crate) fn accessors(view: &dyn MemoryView, exports: &Exports, layout: &mut Layout) {
    let wide = view.metadata().pointer_size == 8;
    let bits = if wide { 64 } else { 32 };
    let of = |function: &str| {
        let at = exports.address_of(function)?;
        let mut code = [0; CODE];
        // What lies behind a page that is not there is decoded as zeros, which ends the function.
        let _ = view.read_partial(at, &mut code).ok()?;
        let value = returned(&code, bits);
        if value.is_none() {
            log::debug!("{function} at {at} returns no member");
        }
        value.filter(|value| value.plus < MAX_OFFSET && value.loads.iter().all(|offset| *offset < MAX_OFFSET))
    };
    for (function, returns, member) in FUNCTIONS {
        if let Some((found, offset)) = of(function).as_ref().and_then(of_argument)
            && found == returns
        {
            layout.add(member, offset, FROM);
            if member == "_EPROCESS.WoW64Process" && returns == Returns::Behind(0) {
                layout.add("_EWOW64PROCESS.Peb", 0, FROM);
            }
        }
    }
    let [wide_prcb, narrow_prcb] = PRCB;
    let (prcb, apc_state) = if wide { (wide_prcb, 0x20) } else { (narrow_prcb, 0x10) };
    for (function, members) in CURRENT {
        let Some(Value { origin: Origin::Processor(thread), loads, plus: 0 }) = of(function) else { continue };
        if loads.len() != members.len() {
            continue;
        }
        for (member, offset) in members.iter().zip(loads) {
            layout.add(*member, offset, FROM);
            if let (&"_KTHREAD.ApcState.Process", Some(start)) = (member, offset.checked_sub(apc_state)) {
                layout.add("_KTHREAD.ApcState", start, FROM);
            }
        }
        if let Some(offset) = thread.checked_sub(prcb).filter(|offset| *offset < 0x100) {
            layout.add("_KPRCB.CurrentThread", offset, FROM);
        }
    }
}

/// What a value is of the function's argument.
fn of_argument(value: &Value) -> Option<(Returns, u64)> {
    if value.origin != Origin::Argument {
        return None;
    }
    match (value.loads.as_slice(), value.plus) {
        ([], 0) => None,
        ([], offset) => Some((Returns::Address, offset)),
        ([offset], 0) => Some((Returns::Member, *offset)),
        ([offset, behind], 0) => Some((Returns::Behind(*behind), *offset)),
        _ => None,
    }
}

/// What the registers hold while code is followed.
struct Registers {
    known: Vec<(Register, Value)>,
    /// Distance from the stack pointer to the return address, in bytes; from the frame pointer, once there is one.
    pushed: u64,
    frame: Option<u64>,
}

impl Registers {
    fn get(&self, register: Register) -> Option<&Value> {
        self.known.iter().find(|(known, _)| *known == register.full_register()).map(|(_, value)| value)
    }

    fn set(&mut self, register: Register, value: Option<Value>) {
        self.known.retain(|(known, _)| *known != register.full_register());
        self.known.extend(value.map(|value| (register.full_register(), value)));
    }
}

/// What a function returns, if that comes from its argument or from the current thread.
fn returned(code: &[u8], bits: u32) -> Option<Value> {
    let argument = || Value { origin: Origin::Argument, loads: Vec::new(), plus: 0 };
    let mut registers = Registers { known: Vec::new(), pushed: 0, frame: None };
    if bits == 64 {
        registers.set(Register::RCX, Some(argument()));
    }
    let mut decoder = Decoder::with_ip(bits, code, 0, DecoderOptions::NONE);
    let mut instruction = Instruction::default();
    for _ in 0..STEPS {
        if !decoder.can_decode() {
            return None;
        }
        decoder.decode_out(&mut instruction);
        match instruction.mnemonic() {
            Mnemonic::Ret => return registers.get(Register::RAX).cloned(),
            // A pointer that may be null: the way of those that are not.
            Mnemonic::Nop | Mnemonic::Endbr64 | Mnemonic::Int3 | Mnemonic::Test | Mnemonic::Je => {}
            Mnemonic::Jne => {
                let target = usize::try_from(instruction.near_branch_target()).ok().filter(|at| *at < code.len())?;
                decoder.set_position(target).ok()?;
                decoder.set_ip(instruction.near_branch_target());
            }
            Mnemonic::Push if bits == 32 => registers.pushed = registers.pushed.checked_add(4)?,
            Mnemonic::Pop if bits == 32 => registers.pushed = registers.pushed.checked_sub(4)?,
            Mnemonic::Add
                if instruction.op0_kind() == OpKind::Register && instruction.op1_kind() != OpKind::Register =>
            {
                let plus = instruction.try_immediate(1).ok()?;
                let target = instruction.op0_register();
                let mut value = registers.get(target).cloned()?;
                value.plus = value.plus.checked_add(plus)?;
                registers.set(target, Some(value));
            }
            Mnemonic::Mov | Mnemonic::Lea if instruction.op0_kind() == OpKind::Register => {
                let target = instruction.op0_register();
                let value = match instruction.op1_kind() {
                    OpKind::Register => {
                        let source = instruction.op1_register().full_register();
                        if bits == 32 && source == Register::RSP && target.full_register() == Register::RBP {
                            registers.frame = Some(registers.pushed);
                            continue;
                        }
                        registers.get(source).cloned()
                    }
                    OpKind::Memory => loaded(&instruction, &registers, argument),
                    _ => None,
                };
                registers.set(target, value);
            }
            _ => return None,
        }
    }
    None
}

/// What an instruction loads from memory, or the address that it works out.
fn loaded(instruction: &Instruction, registers: &Registers, argument: impl Fn() -> Value) -> Option<Value> {
    if instruction.memory_index() != Register::None {
        return None;
    }
    let base = instruction.memory_base().full_register();
    let offset = instruction.memory_displacement64();
    let is_load = instruction.mnemonic() == Mnemonic::Mov;
    if matches!(instruction.segment_prefix(), Register::GS | Register::FS) {
        let value = Value { origin: Origin::Processor(offset), loads: Vec::new(), plus: 0 };
        return (is_load && base == Register::None).then_some(value);
    }
    // The first argument of 32-bit code lies behind the return address.
    let depth = match base {
        Register::RSP if is_load => Some(registers.pushed),
        Register::RBP if is_load => registers.frame,
        _ => None,
    };
    if let Some(depth) = depth {
        return (offset == depth.checked_add(4)?).then(argument);
    }
    let mut value = registers.get(base).cloned()?;
    let at = value.plus.checked_add(offset)?;
    if is_load {
        value.loads.push(at);
        value.plus = 0;
    } else {
        value.plus = at;
    }
    Some(value)
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects,
        clippy::as_conversions,
        clippy::panic,
        reason = "a test fails by panicking"
    )]

    use super::*;

    fn of(code: &[u8], bits: u32) -> Option<(Returns, u64)> {
        returned(code, bits).as_ref().and_then(of_argument)
    }

    #[test]
    fn member_and_address_are_told_apart() {
        // mov rax, [rcx+0x2e0]; ret
        assert_eq!(of(b"\x48\x8b\x81\xe0\x02\0\0\xc3", 64), Some((Returns::Member, 0x2e0)));
        // lea rax, [rcx+0x450]; ret
        assert_eq!(of(b"\x48\x8d\x81\x50\x04\0\0\xc3", 64), Some((Returns::Address, 0x450)));
        // mov eax, [rcx+0x624]; ret
        assert_eq!(of(b"\x8b\x81\x24\x06\0\0\xc3", 64), Some((Returns::Member, 0x624)));
        // mov rax, rcx; mov rax, [rax+0x10]; ret
        assert_eq!(of(b"\x48\x89\xc8\x48\x8b\x40\x10\xc3", 64), Some((Returns::Member, 0x10)));
    }

    #[test]
    fn argument_on_the_stack_is_found_with_and_without_a_frame() {
        // mov edi, edi; push ebp; mov ebp, esp; mov eax, [ebp+8]; mov eax, [eax+0xb4]; pop ebp; ret 4
        let framed = b"\x8b\xff\x55\x8b\xec\x8b\x45\x08\x8b\x80\xb4\0\0\0\x5d\xc2\x04\0";
        assert_eq!(of(framed, 32), Some((Returns::Member, 0xb4)));
        // mov eax, [esp+4]; add eax, 0x16c; ret 4
        assert_eq!(of(b"\x8b\x44\x24\x04\x05\x6c\x01\0\0\xc2\x04\0", 32), Some((Returns::Address, 0x16c)));
        // mov eax, [esp+4]; lea eax, [eax+0x16c]; ret 4
        assert_eq!(of(b"\x8b\x44\x24\x04\x8d\x80\x6c\x01\0\0\xc2\x04\0", 32), Some((Returns::Address, 0x16c)));
    }

    #[test]
    fn pointer_that_may_be_null_is_followed_where_it_is_not() {
        // mov rax, [rcx+0x428]; test rax, rax; je +3; mov rax, [rax]; ret
        let behind = b"\x48\x8b\x81\x28\x04\0\0\x48\x85\xc0\x74\x03\x48\x8b\0\xc3";
        assert_eq!(of(behind, 64), Some((Returns::Behind(0), 0x428)));
        // mov rax, [rcx+0x400]; test rax, rax; jne +4; or eax, -1; ret; mov eax, [rax+8]; ret
        let other = b"\x48\x8b\x81\0\x04\0\0\x48\x85\xc0\x75\x04\x83\xc8\xff\xc3\x8b\x40\x08\xc3";
        assert_eq!(of(other, 64), Some((Returns::Behind(8), 0x400)));
        // The same with a jump that leaves what was read, and one that goes back for ever.
        assert_eq!(of(b"\x48\x8b\x81\0\x04\0\0\x75\x7f\xc3", 64), None);
        assert_eq!(of(b"\x48\x8b\x81\0\x04\0\0\x75\xfe", 64), None);
    }

    #[test]
    fn way_from_the_current_thread_is_told() {
        // mov rax, gs:[0x188]; mov rax, [rax+0xb8]; mov rax, [rax+0x6c0]; ret
        let code = b"\x65\x48\x8b\x04\x25\x88\x01\0\0\x48\x8b\x80\xb8\0\0\0\x48\x8b\x80\xc0\x06\0\0\xc3";
        let value = Value { origin: Origin::Processor(0x188), loads: vec![0xb8, 0x6c0], plus: 0 };
        assert_eq!(returned(code, 64), Some(value.clone()));
        assert_eq!(of_argument(&value), None);
    }

    #[test]
    fn code_that_does_more_tells_nothing() {
        // mov rax, [rcx+rdx*8+0x10]; ret
        assert_eq!(of(b"\x48\x8b\x44\xd1\x10\xc3", 64), None);
        // mov rax, [rcx+8]; mov rax, [rax+8]; mov rax, [rax+8]; ret: too far away
        assert_eq!(of(b"\x48\x8b\x41\x08\x48\x8b\x40\x08\x48\x8b\x40\x08\xc3", 64), None);
        for code in [&b""[..], &[0; 48], &[0xff; 48], &[0x90; 48], b"\xc3", b"\xe9\0\0\0\0"] {
            assert_eq!(of(code, 64), None);
            assert_eq!(of(code, 32), None);
        }
    }
}
