//! Processors: their control regions, interrupt tables, the start block below 1 MiB; and the data that all of user mode sees.
//!
//! Owns: KPCR, KPRCB, IDT, PROCESSOR_START_BLOCK, KUSER_SHARED_DATA. Must not know: which threads there are, but for those that run.
//! Keeps: what a control region says of itself leads back to it.
//! Source: the structures of these names in public symbols and in `ntddk.h`.

use crate::{
    Error,
    machine::{KERNEL, Machine, utf16},
    physical::PAGE,
    tables::Rights,
    truth::{Processor, SharedData},
};

/// What a processor is doing.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Running {
    pub(crate) thread: u64,
    pub(crate) process: u64,
    pub(crate) cr3: u64,
}

impl Machine {
    /// A control region; `entry` is where system calls and interrupts go.
    pub(crate) fn processor(&mut self, number: u32, entry: u64, running: Running) -> Result<Processor, Error> {
        let width = self.pointer();
        let wide = width == 8;
        let kpcr = self.system_pages(4)?;
        self.map_all(KERNEL, kpcr, 3 * PAGE, Rights::KERNEL)?;
        let idt = kpcr + 3 * PAGE;
        self.map(KERNEL, idt, Rights::KERNEL)?;
        for vector in 0..64 {
            let handler = entry + 0x100 + vector * 0x40;
            let [a, b, c, d, e, f, g, h] = handler.to_le_bytes();
            let gate: Vec<u8> = if wide {
                vec![a, b, 0x10, 0, 0, 0x8e, c, d, e, f, g, h, 0, 0, 0, 0]
            } else {
                vec![a, b, 8, 0, 0, 0x8e, c, d]
            };
            self.write(KERNEL, idt + vector * gate.len() as u64, &gate)?;
        }
        let prcb = kpcr + self.offsets.need("_KPCR.Prcb")?;
        self.pointer_field(kpcr, "_KPCR.Self", kpcr)?;
        self.pointer_field(kpcr, "_KPCR.CurrentPrcb", prcb)?;
        self.put_pointer(kpcr + 0x38, idt)?;
        self.put(KERNEL, kpcr + if wide { 0x60 } else { 0x44 }, 4, 0x1_0001)?;
        self.pointer_field(prcb, "_KPRCB.CurrentThread", running.thread)?;
        if wide {
            self.put(KERNEL, prcb + 0x24, 4, u64::from(number))?;
        }
        // Special registers come first on 64 bits, behind the context on 32.
        let registers = prcb + self.offsets.need("_KPRCB.ProcessorState")? + if wide { 0 } else { 0x2cc };
        let cr4 = if wide { 0x17_0678 } else { 0x6f9 };
        for (at, value) in (0..).zip([0x8005_0033, 0, running.cr3, cr4]) {
            self.put_pointer(registers + at * width, value)?;
        }
        if wide {
            self.put(KERNEL, registers + 0x66, 2, 0xfff)?;
            self.put(KERNEL, registers + 0x68, 8, idt)?;
            self.put(KERNEL, registers + 0xa8, 8, kpcr)?;
            self.put(KERNEL, registers + 0xc0, 8, entry)?;
        }
        let Running { thread, process, cr3 } = running;
        Ok(Processor { kpcr, cr3, lstar: if wide { entry } else { 0 }, idt, thread, process })
    }

    /// The block that processors start from; its physical address.
    pub(crate) fn start_block(&mut self, target: u64) -> Result<u64, Error> {
        let mut frame = self.rng.u64(1..0x20);
        frame = self.memory.exactly(frame)?;
        let at = frame * PAGE;
        // A jump over the data, and the flag that the processor has started.
        self.memory.write(at, &[0xe9, 0x4d, 0x06, 0, 1, 0, 0, 0]);
        self.memory.write(at + 0x70, &target.to_le_bytes());
        let root = self.of(KERNEL).root;
        self.memory.write(at + 0x90, &0x8005_0033_u64.to_le_bytes());
        self.memory.write(at + 0xa0, &root.to_le_bytes());
        self.memory.write(at + 0xa8, &0x6f8_u64.to_le_bytes());
        Ok(at)
    }

    /// The shared page; its frame, and what it says.
    pub(crate) fn shared_data(&mut self, system_time: u64) -> Result<(u64, SharedData), Error> {
        let kernel_address = if self.pointer() == 8 { 0xffff_f780_0000_0000 } else { 0xffdf_0000 };
        let frame = self.map(KERNEL, kernel_address, Rights::KERNEL)?;
        let version = self.offsets.version;
        let product_type = if self.rng.bool() { 1 } else { 3 };
        let tick_count = self.rng.u64(100_000..0x2_0000_0000);
        let triple = |value: u64| {
            let high = (value >> 32) as u32;
            [value as u32, high, high].map(u32::to_le_bytes).concat()
        };
        let pages: u64 = self.memory.ram.iter().map(|run| run.end - run.start).sum();
        let mut put = |at: u64, bytes: &[u8]| self.memory.write(frame * PAGE + at, bytes);
        put(0, &(tick_count as u32).to_le_bytes());
        put(4, &0x0fa0_0000_u32.to_le_bytes());
        put(8, &triple(tick_count * 156_250));
        put(0x14, &triple(system_time));
        put(0x2c, &[0x64, 0x86, 0x64, 0x86]);
        let root = r"C:\Windows";
        put(0x30, &utf16(root));
        if self.offsets.version.major >= 10 {
            put(0x260, &u32::from(version.build).to_le_bytes());
        }
        put(0x264, &u32::to_le_bytes(product_type));
        put(0x268, &[1]);
        put(0x26a, &[if self.offsets.wide { 9 } else { 0 }, 0]);
        put(0x26c, &u32::from(version.major).to_le_bytes());
        put(0x270, &u32::from(version.minor).to_le_bytes());
        put(0x2d0, &0x110_u32.to_le_bytes());
        put(0x2d8, &1_u32.to_le_bytes());
        put(0x2e8, &(pages as u32).to_le_bytes());
        put(0x320, &triple(tick_count));
        let shared = SharedData {
            kernel_address,
            user_address: 0x7ffe_0000,
            tick_count,
            system_time,
            system_root: root.to_owned(),
            product_type,
        };
        Ok((frame, shared))
    }
}
