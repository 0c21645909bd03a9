//! How much memory unpacking may take when nobody says.
//!
//! Must not know: formats.
//! Source: `Documentation/filesystems/proc.rst` of Linux, `MemAvailable`.

/// The limit where the system does not tell how much memory it has to spare.
const ELSEWHERE: u64 = 8 << 30;

/// Three quarters of the memory that can be used without swapping.
pub(super) fn default_limit() -> u64 {
    std::fs::read_to_string("/proc/meminfo")
        .ok()
        .as_deref()
        .and_then(mem_available)
        .map_or(ELSEWHERE, |bytes| bytes / 4 * 3)
}

fn mem_available(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn available_memory_is_read_from_meminfo() {
        assert_eq!(mem_available("MemTotal: 9 kB\nMemAvailable:   16334284 kB\n"), Some(16_334_284 * 1024));
        assert_eq!(mem_available("MemAvailable: lots\n"), None);
        assert_eq!(mem_available("MemAvailable: 99999999999999999999 kB\n"), None);
        assert_eq!(mem_available("MemAvailable: 18446744073709551615 kB\n"), None);
    }
}
