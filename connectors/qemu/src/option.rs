//! Options as QEMU writes them on its command line.
//!
//! Owns: `head,key=value,…` with doubled commas, JSON objects in their place, sizes with a suffix.
//! Must not know: which options there are.
//! Keeps: any text can be taken apart; what is no number is `None`, never zero.
//! Source: qemu(1); QEMU util/keyval.c, util/qemu-option.c, util/cutils.c (`do_strtosz`).
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use serde_json::Value;

/// One option of a command line, taken apart.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct QemuOption {
    pairs: Vec<(String, String)>,
}

impl QemuOption {
    /// Takes an option apart. What comes first without a key has the key `implied`; later words without a value are switched on,
    /// or off with a `no` before them (`server`, `nowait`).
    ///
    /// ```
    /// # use memflow_qemu::QemuOption;
    /// let name = QemuOption::parse("guest=web,,1,debug-threads=on", "guest");
    /// assert_eq!(name.get("guest"), Some("web,1"));
    /// ```
    pub fn parse(text: &str, implied: &str) -> Self {
        if text.trim_start().starts_with('{') {
            return Self::parse_json(text).unwrap_or_default();
        }
        let pair = |(index, word): (usize, String)| match word.split_once('=') {
            Some((key, value)) => (key.to_owned(), value.to_owned()),
            None if index == 0 => (implied.to_owned(), word),
            None => match word.strip_prefix("no") {
                Some(key) if !key.is_empty() => (key.to_owned(), "off".to_owned()),
                _ => (word, "on".to_owned()),
            },
        };
        Self { pairs: words(text).into_iter().enumerate().map(pair).collect() }
    }

    fn parse_json(text: &str) -> Option<Self> {
        let Value::Object(members) = serde_json::from_str(text).ok()? else { return None };
        let pair = |(key, value): (String, Value)| {
            let text = match value {
                Value::String(text) => text,
                Value::Bool(true) => "on".to_owned(),
                Value::Bool(false) => "off".to_owned(),
                Value::Number(number) => number.to_string(),
                _ => return None,
            };
            Some((key, text))
        };
        Some(Self { pairs: members.into_iter().filter_map(pair).collect() })
    }

    /// The value of a key; of several the last, as in QEMU.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.pairs.iter().rev().find(|(known, _)| known == key).map(|(_, value)| value.as_str())
    }

    /// Whether a key is switched on.
    pub fn is_on(&self, key: &str) -> bool {
        matches!(self.get(key), Some("on" | "yes" | "true" | "y"))
    }
}

/// The words between single commas; two commas are one that belongs to the word.
fn words(text: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        let doubled = character == ',' && characters.next_if_eq(&',').is_some();
        match words.last_mut() {
            Some(word) if character != ',' || doubled => word.push(character),
            _ => words.push(String::new()),
        }
    }
    words
}

/// A size in bytes: a number, perhaps with a fraction, and a suffix of `b`, `k`, `M`, `G`, `T`, `P` or `E`, in steps of 1024. A number
/// without suffix counts units of `unit` bytes.
///
/// ```
/// # use memflow_qemu::size;
/// assert_eq!(size("1.5G", 1), Some(3 << 29));
/// assert_eq!(size("512", 1 << 20), Some(512 << 20));
/// assert_eq!(size("lots", 1), None);
/// ```
pub fn size(text: &str, unit: u64) -> Option<u64> {
    let text = text.trim();
    if let Some(digits) = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        return u64::from_str_radix(digits, 16).ok()?.checked_mul(unit);
    }
    let number = text.trim_end_matches(|character: char| character.is_ascii_alphabetic());
    let unit = match text.strip_prefix(number)?.to_ascii_lowercase().as_str() {
        "" => unit,
        "b" => 1,
        "k" => 1 << 10,
        "m" => 1 << 20,
        "g" => 1 << 30,
        "t" => 1 << 40,
        "p" => 1 << 50,
        "e" => 1 << 60,
        _ => return None,
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) || fraction.len() > 9 {
        return None;
    }
    let whole = whole.parse::<u64>().ok()?.checked_mul(unit)?;
    let digits = u32::try_from(fraction.len()).ok()?;
    let part = u128::from(fraction.parse::<u64>().unwrap_or(0)).checked_mul(u128::from(unit))?;
    let part = part.checked_div(10_u128.checked_pow(digits)?)?;
    whole.checked_add(u64::try_from(part).ok()?)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn commas_in_values_are_doubled() {
        let option = QemuOption::parse("socket,id=a,,b,path=/tmp/x,,,server,nowait", "backend");
        assert_eq!(option.get("backend"), Some("socket"));
        assert_eq!((option.get("id"), option.get("path")), (Some("a,b"), Some("/tmp/x,")));
        assert!(option.is_on("server") && option.get("wait") == Some("off"));
    }

    #[test]
    fn json_is_the_same_option() {
        let text = r#"{"qom-type":"memory-backend-memfd","id":"ram","size":4294967296,"share":true,"host-nodes":[0]}"#;
        let option = QemuOption::parse(text, "qom-type");
        assert_eq!(size(option.get("size").unwrap(), 1), Some(4 << 30));
        assert!(option.is_on("share") && option.get("host-nodes").is_none());
        assert_eq!(QemuOption::parse("{broken", "x"), QemuOption::default());
    }

    #[test]
    fn last_value_of_a_key_counts() {
        assert_eq!(QemuOption::parse("a=1,a=2", "x").get("a"), Some("2"));
    }

    #[test]
    fn sizes_that_do_not_fit_are_none() {
        assert_eq!(size("16E", 1), None);
        assert_eq!(size("18446744073709551616", 1), None);
        assert_eq!(size("", 1), None);
        assert_eq!(size("1.x", 1), None);
        assert_eq!(size("0x1000", 1), Some(4096));
        assert_eq!(size("4194304k", 1 << 20), Some(4 << 30));
    }
}
