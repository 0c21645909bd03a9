//! The target for patterns of a search.
//!
//! Owns: that a pattern which is taken can be written and read again, finds what it says, and finds the same however memory is cut.
//! Must not know: engines.

use memflow_core::scan::{Pattern, Scanner};

/// Longest text of an error, in bytes.
const MAX_ERROR: usize = 1 << 10;
/// Bytes of the input that are searched.
const MAX_HAY: usize = 4 << 10;

/// Patterns, one to a line, which are then looked for in the input itself.
pub fn pattern(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let mut patterns = Vec::new();
    for line in text.lines().take(8) {
        match line.parse::<Pattern>() {
            Ok(pattern) => {
                let written = pattern.to_string();
                let again = written.parse::<Pattern>();
                assert!(again.is_ok_and(|again| again == pattern), "{written:?}");
                patterns.push(pattern);
            }
            Err(error) => {
                let text = error.to_string();
                assert!(text.len() <= MAX_ERROR && !text.contains('\n'), "{text:?}");
            }
        }
    }
    let Ok(scanner) = Scanner::new(patterns) else { return };
    let hay = data.get(..MAX_HAY).unwrap_or(data);
    let found = scanner.find_in(hay);
    assert!(found.is_sorted());
    for (start, number, len) in &found {
        let pattern = scanner.patterns().get(*number).expect("an index of a pattern");
        assert!(*len > 0 && *len <= pattern.longest_match() && start + len <= hay.len());
    }
    // Alone, each pattern finds what it finds among the others.
    for (number, pattern) in scanner.patterns().iter().enumerate() {
        let alone = Scanner::new([pattern.clone()]).expect("a pattern that was taken").find_in(hay);
        let among = found.iter().filter(|(_, which, _)| *which == number).map(|(start, _, len)| (*start, 0, *len));
        assert!(alone.into_iter().eq(among), "{pattern}");
    }
}
