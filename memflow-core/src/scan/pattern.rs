//! What is looked for.
//!
//! Owns: [`Pattern`] and the text forms of each kind. Must not know: how anything is found, memory.
//! Keeps: a pattern is never empty, never longer than [`MAX_PATTERN`], and never matches everywhere; what is refused is an error with
//! its position.
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use std::{borrow::Cow, fmt, str::FromStr};

use super::{
    regex::{RegexOptions, RegexPattern},
    value,
};
use crate::error::{Error, Result};

/// Bytes of the longest pattern, and of the longest text of a regular expression.
pub const MAX_PATTERN: usize = 64 << 10;
/// Characters of a pattern that an error quotes.
const QUOTED: usize = 40;
/// The kinds of [`Pattern::from_str`], for its errors.
const KINDS: &str = "text:, itext:, utf16:, iutf16:, hex:, regex:, iregex:, or a type of number such as u32:";

/// How text lies in memory.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum TextEncoding {
    /// UTF-8, of which ASCII is a part.
    Utf8,
    /// UTF-16, little-endian, as Windows has it.
    Utf16Le,
}

/// Whether upper and lower case are told apart.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Case {
    /// A letter is only itself.
    Sensitive,
    /// A letter is also its counterpart.
    Insensitive,
}

/// One thing to look for.
///
/// ```
/// use memflow_core::scan::{Case, Pattern, RegexOptions, TextEncoding};
///
/// let patterns = [
///     Pattern::bytes(*b"\x7fELF")?,
///     Pattern::text("password", TextEncoding::Utf16Le, Case::Insensitive)?,
///     Pattern::hex("48 8b ?? 4? 00")?,
///     Pattern::value("f32be:1.5")?,
///     Pattern::regex(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", RegexOptions::default())?,
///     // The same forms as text.
///     "iutf16:password".parse()?,
/// ];
/// assert_eq!(patterns[2].to_string(), "hex:48 8b ?? 4? 00");
/// let error = Pattern::hex("48 8b 4").unwrap_err();
/// assert_eq!(error.to_string(), "hex pattern, character 8: expected a second digit of the byte (or ?), found `the end`");
/// # Ok::<(), memflow_core::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pattern {
    pub(super) kind: Kind,
    text: String,
}

/// The two kinds that are found differently.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// A fixed number of bytes.
    Fixed(Fixed),
    /// A regular expression over bytes.
    Regex(RegexPattern),
}

/// Bytes of which some bits may be anything.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Fixed {
    /// The bytes; bits that may be anything are zero.
    // INVARIANT: not empty, at most MAX_PATTERN, no bit set that `mask` has not.
    pub(super) value: Box<[u8]>,
    /// Which bits count; `None` when all do.
    // INVARIANT: as long as `value`, some bit set.
    pub(super) mask: Option<Box<[u8]>>,
}

impl Pattern {
    /// These bytes.
    ///
    /// # Errors
    /// [`Error::Argument`] when there are none or more than [`MAX_PATTERN`].
    pub fn bytes(bytes: impl Into<Vec<u8>>) -> Result<Self> {
        let bytes = bytes.into();
        let text = format!("hex:{}", hex_text(&bytes, None));
        Fixed::new(bytes, None, "byte pattern").map(|fixed| Self { kind: Kind::Fixed(fixed), text })
    }

    /// These bytes, of which only the bits that are set in `mask` count.
    ///
    /// # Errors
    /// [`Error::Argument`] when the two are not of the same length, empty or too long, or when no bit counts.
    pub fn masked(bytes: impl Into<Vec<u8>>, mask: impl Into<Vec<u8>>) -> Result<Self> {
        let (bytes, mask) = (bytes.into(), mask.into());
        let text = format!("hex:{}", hex_text(&bytes, Some(&mask)));
        Fixed::new(bytes, Some(mask), "byte pattern").map(|fixed| Self { kind: Kind::Fixed(fixed), text })
    }

    /// This text, without a terminator.
    ///
    /// Without case, a letter matches itself and the one character that is its counterpart in upper or lower case.
    ///
    /// # Errors
    /// [`Error::Argument`] when the text is empty or too long; without case also for a letter whose counterpart differs in more than
    /// one bit of its encoding (`ÿ`): a regular expression with `(?iu)` takes those.
    pub fn text(text: &str, encoding: TextEncoding, case: Case) -> Result<Self> {
        let (mut value, mut mask) = (Vec::new(), Vec::new());
        for (index, character) in text.chars().enumerate() {
            let (bytes, bits) = match case {
                Case::Sensitive => {
                    let bytes = encode(character, encoding);
                    let bits = vec![0xff; bytes.len()];
                    (bytes, bits)
                }
                Case::Insensitive => either_case(character, encoding).ok_or_else(|| Error::Argument {
                    what: format!("text pattern, character {}", index.saturating_add(1)).into(),
                    expected:
                        "a letter whose upper and lower case differ in one bit (else a regular expression, (?iu))"
                            .into(),
                    found: character.to_string(),
                })?,
            };
            value.extend(bytes);
            mask.extend(bits);
        }
        let kind = match (encoding, case) {
            (TextEncoding::Utf8, Case::Sensitive) => "text",
            (TextEncoding::Utf8, Case::Insensitive) => "itext",
            (TextEncoding::Utf16Le, Case::Sensitive) => "utf16",
            (TextEncoding::Utf16Le, Case::Insensitive) => "iutf16",
        };
        let fixed = Fixed::new(value, Some(mask), "text pattern")?;
        Ok(Self { kind: Kind::Fixed(fixed), text: format!("{kind}:{text}") })
    }

    /// Hexadecimal digits, two for each byte, with `?` for a digit that may be anything: `48 8b ?? 4? 00`. Blanks may stand between
    /// bytes.
    ///
    /// # Errors
    /// [`Error::Argument`] with the position of what is neither; when there is no byte, or every digit is `?`.
    pub fn hex(text: &str) -> Result<Self> {
        let (mut value, mut mask) = (Vec::new(), Vec::new());
        let mut high: Option<(u8, u8)> = None;
        let wrong = |index: usize, expected: &'static str, found: String| Error::Argument {
            what: format!("hex pattern, character {}", index.saturating_add(1)).into(),
            expected: expected.into(),
            found,
        };
        for (index, character) in text.chars().enumerate() {
            let (digit, bits) = match (character, character.to_digit(16).and_then(|digit| u8::try_from(digit).ok())) {
                (_, Some(digit)) => (digit, 0xf),
                ('?', None) => (0, 0),
                (' ' | '\t' | '\n' | '\r', None) if high.is_none() => continue,
                (other, None) if high.is_some() => {
                    return Err(wrong(index, "a second digit of the byte (or ?)", other.escape_debug().to_string()));
                }
                (other, None) => {
                    return Err(wrong(index, "hexadecimal digits, ? or a blank", other.escape_debug().to_string()));
                }
            };
            match high.take() {
                None => high = Some((digit, bits)),
                Some((first, first_bits)) => {
                    value.push(first.wrapping_shl(4) | digit);
                    mask.push(u8::wrapping_shl(first_bits, 4) | bits);
                    if value.len() > MAX_PATTERN {
                        return Err(too_long("hex pattern", value.len()));
                    }
                }
            }
        }
        if high.is_some() {
            return Err(wrong(text.chars().count(), "a second digit of the byte (or ?)", "the end".to_owned()));
        }
        let shown = hex_text(&value, Some(&mask));
        let fixed = Fixed::new(value, Some(mask), "hex pattern")?;
        Ok(Self { kind: Kind::Fixed(fixed), text: format!("hex:{shown}") })
    }

    /// A number as it lies in memory: `TYPE:NUMBER`, TYPE being `u8` to `u64`, `i8` to `i64`, `f32`, `f64`, `ptr32` or `ptr64`,
    /// little-endian unless `be` follows (`u32be:0x7f454c46`).
    ///
    /// # Errors
    /// [`Error::Argument`] when the type is unknown or does not hold the number.
    pub fn value(text: &str) -> Result<Self> {
        let bytes = value::parse(text)?;
        Fixed::new(bytes, None, "value").map(|fixed| Self { kind: Kind::Fixed(fixed), text: text.to_owned() })
    }

    /// A regular expression over bytes. `\xNN` is a byte, classes such as `\w` are those of ASCII, `.` is any byte but a line
    /// feed (`(?s)`: any), `^` and `$` are the ends of a line. Matches do not overlap; they are those that begin earliest, of at most
    /// [`RegexOptions::max_len`] bytes.
    ///
    /// # Errors
    /// [`Error::Argument`] with the position of what is not understood; when the expression also matches nothing at all, asks for the
    /// ends of the text (`\A`, `\z`), or is too large.
    pub fn regex(source: &str, options: RegexOptions) -> Result<Self> {
        let kind = match options.case {
            Case::Sensitive => "regex",
            Case::Insensitive => "iregex",
        };
        let regex = RegexPattern::new(source, options)?;
        Ok(Self { kind: Kind::Regex(regex), text: format!("{kind}:{source}") })
    }

    /// Runs of at least `min` printable ASCII characters or tabs, in this encoding. A run is given out in pieces of at most
    /// `max` characters.
    ///
    /// # Errors
    /// [`Error::Argument`] when `min` is zero or above `max`, or when `max` is too large.
    pub fn strings(encoding: TextEncoding, min: usize, max: usize) -> Result<Self> {
        let (unit, size, name) = match encoding {
            TextEncoding::Utf8 => (r"[\t\x20-\x7e]", 1, "ascii"),
            TextEncoding::Utf16Le => (r"(?:[\t\x20-\x7e]\x00)", 2, "utf16"),
        };
        if min == 0 || min > max {
            return Err(Error::Argument {
                what: "shortest string".into(),
                expected: format!("1 to {max} characters").into(),
                found: min.to_string(),
            });
        }
        let options = RegexOptions { case: Case::Sensitive, max_len: max.saturating_mul(size) };
        let mut pattern = Self::regex(&format!("{unit}{{{min},}}"), options)?;
        pattern.text = format!("strings:{name}");
        Ok(pattern)
    }

    /// Bytes of the longest match.
    pub fn longest_match(&self) -> usize {
        match &self.kind {
            Kind::Fixed(fixed) => fixed.value.len(),
            Kind::Regex(regex) => regex.longest(),
        }
    }
}

/// `KIND:…`: `text`, `utf16`, `regex` and the same without case (`itext`, `iutf16`, `iregex`), `hex`, or a type of
/// [`Pattern::value`].
impl FromStr for Pattern {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let unknown = || Error::Argument { what: "pattern".into(), expected: KINDS.into(), found: shorten(text) };
        let (kind, rest) = text.split_once(':').ok_or_else(unknown)?;
        match kind {
            "text" => Self::text(rest, TextEncoding::Utf8, Case::Sensitive),
            "itext" => Self::text(rest, TextEncoding::Utf8, Case::Insensitive),
            "utf16" => Self::text(rest, TextEncoding::Utf16Le, Case::Sensitive),
            "iutf16" => Self::text(rest, TextEncoding::Utf16Le, Case::Insensitive),
            "hex" => Self::hex(rest),
            "regex" => Self::regex(rest, RegexOptions::default()),
            "iregex" => Self::regex(rest, RegexOptions { case: Case::Insensitive, ..RegexOptions::default() }),
            _ if value::is_type(kind) => Self::value(text),
            _ => Err(unknown()),
        }
    }
}

/// The form that [`Pattern::from_str`] reads; for strings, which have none, their name.
impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Fixed {
    fn new(mut value: Vec<u8>, mask: Option<Vec<u8>>, what: &'static str) -> Result<Self> {
        let wrong = |expected: &'static str, found: &str| Error::Argument {
            what: what.into(),
            expected: expected.into(),
            found: found.to_owned(),
        };
        if value.is_empty() {
            return Err(wrong("at least one byte", ""));
        }
        if value.len() > MAX_PATTERN {
            return Err(too_long(what, value.len()));
        }
        let Some(mask) = mask else { return Ok(Self { value: value.into(), mask: None }) };
        if mask.len() != value.len() {
            return Err(wrong("a mask as long as the bytes", &format!("{} for {}", mask.len(), value.len())));
        }
        if mask.iter().all(|bits| *bits == 0) {
            return Err(wrong("something that counts", "a pattern that matches everywhere"));
        }
        value.iter_mut().zip(&mask).for_each(|(byte, bits)| *byte &= bits);
        let all = mask.iter().all(|bits| *bits == 0xff);
        Ok(Self { value: value.into(), mask: if all { None } else { Some(mask.into()) } })
    }

    /// True when `bytes`, of which there are as many as this has, match.
    #[inline]
    pub(super) fn matches(&self, bytes: &[u8]) -> bool {
        match &self.mask {
            None => *bytes == *self.value,
            Some(mask) => {
                bytes.len() == self.value.len()
                    && bytes.iter().zip(mask).zip(&self.value).all(|((byte, bits), value)| byte & bits == *value)
            }
        }
    }

    /// Which bits of the byte at `index` count.
    pub(super) fn bits(&self, index: usize) -> u8 {
        match &self.mask {
            None => 0xff,
            Some(mask) => mask.get(index).copied().unwrap_or(0),
        }
    }
}

/// A character's bytes.
fn encode(character: char, encoding: TextEncoding) -> Vec<u8> {
    match encoding {
        TextEncoding::Utf8 => character.encode_utf8(&mut [0; 4]).as_bytes().to_vec(),
        TextEncoding::Utf16Le => {
            character.encode_utf16(&mut [0; 2]).iter().flat_map(|unit| unit.to_le_bytes()).collect()
        }
    }
}

/// The bytes of a character and the bits that its counterpart has in common with it; `None` when they differ in more than one bit.
fn either_case(character: char, encoding: TextEncoding) -> Option<(Vec<u8>, Vec<u8>)> {
    let own = encode(character, encoding);
    let other = encode(counterpart(character), encoding);
    let bits: Vec<u8> = own.iter().zip(&other).map(|(own, other)| !(own ^ other)).collect();
    let apart: u32 = bits.iter().map(|bits| bits.count_zeros()).sum();
    (own.len() == other.len() && apart <= 1).then_some((own, bits))
}

/// The one character that is this one in the other case, or itself.
fn counterpart(character: char) -> char {
    let single = |mut characters: Box<dyn Iterator<Item = char>>| match (characters.next(), characters.next()) {
        (Some(one), None) => one,
        _ => character,
    };
    let upper = single(Box::new(character.to_uppercase()));
    if upper == character { single(Box::new(character.to_lowercase())) } else { upper }
}

/// Bytes as [`Pattern::hex`] reads them. Bits of half a digit that count are shown as if all of it did.
fn hex_text(bytes: &[u8], mask: Option<&[u8]>) -> String {
    let mut text = String::new();
    for (index, byte) in bytes.iter().enumerate() {
        if index > 0 {
            text.push(' ');
        }
        let bits = mask.map_or(0xff, |mask| mask.get(index).copied().unwrap_or(0));
        for (digit, bits) in [(byte >> 4, bits >> 4), (byte & 0xf, bits & 0xf)] {
            match bits {
                0 => text.push('?'),
                _ => text.extend(char::from_digit(digit.into(), 16)),
            }
        }
    }
    text
}

/// What an error quotes of a text.
pub(super) fn shorten(text: &str) -> String {
    match text.char_indices().nth(QUOTED) {
        None => text.escape_debug().to_string(),
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default().escape_debug()),
    }
}

#[cold]
pub(super) fn too_long(what: impl Into<Cow<'static, str>>, len: usize) -> Error {
    Error::Argument {
        what: what.into(),
        expected: format!("at most {MAX_PATTERN} bytes").into(),
        found: format!("{len} or more"),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]
    use super::*;

    fn fixed(pattern: &Pattern) -> &Fixed {
        match &pattern.kind {
            Kind::Fixed(fixed) => fixed,
            Kind::Regex(_) => panic!("{pattern}"),
        }
    }

    fn refusal(result: Result<Pattern>) -> String {
        result.unwrap_err().to_string()
    }

    #[test]
    fn wildcards_are_per_digit() {
        let pattern = Pattern::hex("48 8B??4? ?0").unwrap();
        let fixed = fixed(&pattern);
        assert_eq!(*fixed.value, [0x48, 0x8b, 0, 0x40, 0]);
        assert_eq!(fixed.mask.as_deref(), Some(&[0xff, 0xff, 0, 0xf0, 0x0f][..]));
        assert!(fixed.matches(&[0x48, 0x8b, 0x77, 0x4e, 0xe0]));
        assert!(!fixed.matches(&[0x48, 0x8b, 0x77, 0x5e, 0xe0]));
        assert!(!fixed.matches(&[0x48, 0x8b, 0x77, 0x4e]));
        assert_eq!(pattern.to_string(), "hex:48 8b ?? 4? ?0");
    }

    #[test]
    fn hex_without_wildcards_is_exact() {
        assert_eq!(fixed(&Pattern::hex("00ff").unwrap()), fixed(&Pattern::bytes([0, 0xff]).unwrap()));
    }

    #[test]
    fn errors_name_the_position() {
        assert_eq!(
            refusal(Pattern::hex("48 xx")),
            "hex pattern, character 4: expected hexadecimal digits, ? or a blank, found `x`"
        );
        assert_eq!(
            refusal(Pattern::hex("4 8")),
            "hex pattern, character 2: expected a second digit of the byte (or ?), found ` `"
        );
        assert_eq!(refusal(Pattern::hex("")), "hex pattern: expected at least one byte, found ``");
        assert!(refusal(Pattern::hex("?? ??")).contains("matches everywhere"));
        assert!(refusal("what".parse()).starts_with("pattern: expected text:, itext:"));
        assert!(refusal(Pattern::masked([1, 2], [0xff])).contains("1 for 2"));
    }

    #[test]
    fn nothing_and_too_much_are_refused() {
        let long = "00".repeat(1 << 20);
        for result in [
            Pattern::bytes([]),
            Pattern::bytes(vec![0; MAX_PATTERN + 1]),
            Pattern::text("", TextEncoding::Utf8, Case::Sensitive),
            Pattern::text(&long, TextEncoding::Utf16Le, Case::Insensitive),
            Pattern::hex(&long),
        ] {
            assert!(matches!(result, Err(Error::Argument { .. })));
        }
        assert!(Pattern::bytes(vec![0; MAX_PATTERN]).is_ok());
    }

    #[test]
    fn text_without_case_matches_both_cases_and_nothing_else() {
        let utf8 = Pattern::text("aZ 1ö", TextEncoding::Utf8, Case::Insensitive).unwrap();
        let matches = |text: &str| fixed(&utf8).matches(text.as_bytes());
        assert!(matches("Az 1Ö") && matches("aZ 1ö"));
        for other in ["!Z 1ö", "aZ\u{0}1ö", "aZ 1ä", "aZ 2ö"] {
            assert!(!matches(other), "{other}");
        }
        let wide = Pattern::text("Key", TextEncoding::Utf16Le, Case::Insensitive).unwrap();
        assert!(fixed(&wide).matches(b"k\0E\0y\0"));
        // Cyrillic д and Д differ in one bit of UTF-8, р and Р in more.
        assert!(Pattern::text("д", TextEncoding::Utf8, Case::Insensitive).is_ok());
        let error = refusal(Pattern::text("ар", TextEncoding::Utf8, Case::Insensitive));
        assert!(error.starts_with("text pattern, character 2:"), "{error}");
        // No single character is the upper case of ß.
        assert!(Pattern::text("ß", TextEncoding::Utf8, Case::Insensitive).is_ok());
    }

    #[test]
    fn text_forms_are_read_back() {
        for text in
            ["text:a: b", "itext:Ab", "utf16:ü", "hex:00 ?1", "regex:a+b", "iregex:[x-z]", "u32:7", "f64be:-1.5"]
        {
            let pattern: Pattern = text.parse().unwrap();
            assert_eq!(pattern.to_string(), text);
            assert_eq!(pattern.to_string().parse::<Pattern>().unwrap(), pattern);
        }
        let bytes = Pattern::bytes([1, 0xab]).unwrap();
        assert_eq!(bytes.to_string().parse::<Pattern>().unwrap(), bytes);
    }

    #[test]
    fn strings_have_a_shortest_and_a_longest_length() {
        assert_eq!(Pattern::strings(TextEncoding::Utf16Le, 4, 100).unwrap().longest_match(), 200);
        assert!(Pattern::strings(TextEncoding::Utf8, 0, 100).is_err());
        assert!(Pattern::strings(TextEncoding::Utf8, 101, 100).is_err());
    }
}
