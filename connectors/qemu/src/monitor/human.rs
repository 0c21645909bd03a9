//! The human monitor on a socket of its own.
//!
//! Owns: prompts, and the echo that the monitor's line editor writes between command and answer. Must not know: what is asked.
//! Source: QEMU monitor/hmp.c, util/readline.c (the prompt is `(qemu) `; each typed character redraws the line).
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use memflow_core::Result;

use super::stream::Stream;

const PROMPT: &[u8] = b"(qemu) ";

pub(crate) struct Human {
    stream: Stream,
}

impl Human {
    /// Waits for the first prompt.
    pub(super) fn greet(mut stream: Stream) -> Result<Self> {
        stream.until(PROMPT, "the prompt of the human monitor")?;
        Ok(Self { stream })
    }

    /// Runs a command and returns what it printed.
    pub(super) fn run(&mut self, command: &str) -> Result<String> {
        self.stream.send(format!("{command}\n").as_bytes())?;
        // The echo ends with the line's end; the redrawn line before it is not of interest.
        self.stream.until(b"\n", "the echo of a command")?;
        let answer = self.stream.until(PROMPT, "an answer")?;
        let answer = answer.strip_suffix(PROMPT).unwrap_or(&answer);
        Ok(plain_text(&String::from_utf8_lossy(answer)))
    }
}

/// Text without the terminal's escape sequences and carriage returns.
pub fn plain_text(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '\u{1b}' if characters.next_if_eq(&'[').is_some() => {
                // A control sequence ends with a letter.
                for part in characters.by_ref() {
                    if ('@'..='~').contains(&part) {
                        break;
                    }
                }
            }
            '\r' | '\u{1b}' => {}
            other => plain.push(other),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_of_the_terminal_are_taken_out() {
        assert_eq!(plain_text("\u{1b}[Kinfo\u{1b}[D\r\nVM status: running\r\n"), "info\nVM status: running\n");
        assert_eq!(plain_text("\u{1b}[12"), "");
        assert_eq!(plain_text("\u{1b}x"), "x");
    }
}
