//! QMP, the monitor's protocol for programs.
//!
//! Owns: greeting, requests and their answers. Must not know: what is asked.
//! Keeps: an answer counts only with the id of its request; events in between are passed over.
//! Source: QEMU docs/interop/qmp-spec.rst.
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use memflow_core::{Error, Result};
use serde_json::{Value, json};

use super::stream::{Stream, garbage};

pub(crate) struct Qmp {
    stream: Stream,
    last_id: u64,
}

impl Qmp {
    /// Waits for the greeting and leaves negotiation.
    pub(super) fn greet(stream: Stream) -> Result<Self> {
        let mut this = Self { stream, last_id: 0 };
        let greeting = this.message("the greeting of QMP")?;
        if greeting.get("QMP").is_none() {
            return Err(garbage("the greeting of QMP", &greeting.to_string()));
        }
        this.execute("qmp_capabilities", json!({}))?;
        Ok(this)
    }

    /// Runs a command of the human monitor.
    pub(super) fn human(&mut self, command: &str) -> Result<String> {
        let answer = self.execute("human-monitor-command", json!({ "command-line": command }))?;
        match answer {
            Value::String(text) => Ok(text.replace('\r', "")),
            other => Err(garbage("the text that a command printed", &other.to_string())),
        }
    }

    fn execute(&mut self, command: &str, arguments: Value) -> Result<Value> {
        self.last_id = self.last_id.saturating_add(1);
        let id = json!(self.last_id);
        let request = json!({ "execute": command, "arguments": arguments, "id": &id });
        self.stream.send(format!("{request}\n").as_bytes())?;
        loop {
            let mut message = self.message("an answer")?;
            if message.get("event").is_some() {
                continue;
            }
            // QMP tells of requests that it could not read without the id.
            if message.get("id") != Some(&id) && message.get("error").is_none() {
                return Err(garbage("the answer to the request that was sent", &message.to_string()));
            }
            if let Some(error) = message.get("error") {
                let text = error.get("desc").and_then(Value::as_str).unwrap_or("no description");
                return Err(Error::Unsupported { what: format!("QMP command {command}"), why: text.to_owned() });
            }
            return match message.get_mut("return") {
                Some(answer) => Ok(answer.take()),
                None => Err(garbage("a return or an error", &message.to_string())),
            };
        }
    }

    fn message(&mut self, what: &str) -> Result<Value> {
        let line = self.stream.until(b"\n", what)?;
        let text = String::from_utf8_lossy(&line);
        serde_json::from_str(&text).map_err(|_| garbage("a line of JSON", &text))
    }
}
