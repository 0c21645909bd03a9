//! States that lie beside memory, written from what Firecracker and Cloud Hypervisor document of them.

/// The first bytes of Firecracker's states, of each architecture.
pub const FIRECRACKER_X86: u64 = 0x0710_1984_8664_0000;
pub const FIRECRACKER_ARM: u64 = 0x0710_1984_aaaa_0000;

/// A state of Firecracker: magic, version, and the regions as their base, size and offset in the file.
pub fn vmstate(magic: u64, regions: &[(u64, u64)]) -> Vec<u8> {
    let mut out = magic.to_le_bytes().to_vec();
    for number in [1u64, 7, 0, regions.len() as u64] {
        out.extend(number.to_le_bytes());
    }
    out.push(7);
    for (base, size) in regions {
        for number in [base, size, &0] {
            out.extend(number.to_le_bytes());
        }
    }
    out.extend([0x5a; 40]);
    out
}

/// Ranges as JSON: first address and length.
pub fn json_ranges(ranges: &[(u64, u64)]) -> String {
    let ranges: Vec<String> =
        ranges.iter().map(|(gpa, length)| format!(r#"{{"gpa":{gpa},"length":{length}}}"#)).collect();
    format!("[{}]", ranges.join(","))
}

/// A state of Cloud Hypervisor with these ranges, in a text inside JSON as it is written.
pub fn state_json(ranges: &str) -> String {
    let manager = format!(
        r#"{{"memory_ranges":{{"data":{ranges}}},"guest_ram_mappings":[{{"slot":0,"gpa":0,"size":1,"zone_id":"mem0"}}],"boot_ram":1}}"#
    );
    let text = manager.replace('"', "\\\"");
    format!(r#"{{"snapshots":{{"cpu-manager":{{}},"memory-manager":{{"snapshot_data":{{"state":"{text}"}}}}}}}}"#)
}
