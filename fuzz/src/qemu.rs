//! Targets for what QEMU and its command line say about a guest.
//!
//! Owns: that what is accepted is consistent, and that nothing grows beyond its input. Must not know: how guests are opened.

use memflow_qemu::{
    CommandLine, MachineType, QemuOption, parse_blocks, parse_flat_view, parse_host_address, parse_maps,
    parse_registers, plain_text, size,
};

/// Answers of monitors: address spaces, blocks, addresses, registers.
pub fn qemu_answers(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if let Ok(ranges) = parse_flat_view(&text) {
        assert!(!ranges.is_empty() && ranges.len() <= text.lines().count());
        assert!(ranges.iter().all(|range| !range.range.is_empty() && text.contains(&range.region)));
    }
    if let Ok(blocks) = parse_blocks(&text) {
        assert!(blocks.len() < text.lines().count());
    }
    if let Ok((name, _)) = parse_host_address(&text) {
        assert!(text.contains(&name));
    }
    assert!(parse_registers(&text).len() <= text.matches("CPU#").count());
    let plain = plain_text(&text);
    assert!(plain.len() <= text.len() && !plain.contains(['\u{1b}', '\r']));
}

/// Command lines, as `/proc/PID/cmdline` has them, and mappings.
pub fn qemu_command_line(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let line = CommandLine::parse(text.split('\0'));
    assert!(line.backends.len() + line.nodes.len() + line.monitors.len() <= text.len());
    if let (Some(machine), Some(bytes)) = (line.machine.as_deref().and_then(MachineType::of), line.memory)
        && let Ok(runs) = machine.runs(bytes, line.max_ram_below_4g)
    {
        assert!(runs.total_bytes() <= bytes);
    }
    for word in text.split('\0') {
        let option = QemuOption::parse(word, "implied");
        assert!(option.get("implied").is_none_or(|value| value.len() <= word.len()));
        assert!(size(word, 1).is_none_or(|bytes| size(&bytes.to_string(), 1) == Some(bytes)));
    }
    let maps = parse_maps(&text);
    assert!(maps.len() <= text.lines().count() && maps.iter().all(|map| map.start < map.end && !map.is_empty()));
}
