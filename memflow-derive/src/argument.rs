//! One argument of a plugin, as the attributes have it.
//!
//! Owns: the syntax `name: kind [required] [= default] [=> "help"]`, and the line of a descriptor that is made of it.
//! Must not know: other options.

use proc_macro2::{Ident, Span};
use quote::ToTokens as _;
use syn::{
    Lit, LitStr, Token,
    ext::IdentExt as _,
    parenthesized,
    parse::{Parse, ParseStream},
};

use crate::{
    problems::Problems,
    value::{KEY, KINDS, Kind, MAX_ARGS, MAX_CHOICES, MAX_LINE, WORD, is_key, is_word},
};

/// One argument.
struct Argument {
    name: String,
    kind: Kind,
    required: bool,
    default: String,
    help: String,
}

/// The lines of the arguments in a descriptor.
pub(crate) fn lines(problems: &mut Problems, input: ParseStream<'_>) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    let mut lines = Vec::new();
    problems.entries(input, |problems, input| {
        let name: Word = input.parse().map_err(|problem| {
            syn::Error::new(problem.span(), "expected an argument: name: kind [required] [= default] [=> \"help\"]")
        })?;
        if !is_key(&name.text) {
            problems.add(name.error(format_args!("argument `{}`: expected {KEY}", name.text)));
        } else if names.contains(&name.text) {
            problems.add(name.error(format_args!("argument `{}` is there twice", name.text)));
        }
        names.push(name.text.clone());
        if names.len() == MAX_ARGS + 1 {
            problems.add(name.error(format_args!("a plugin has at most {MAX_ARGS} arguments")));
        }
        let span = name.span;
        let argument = argument(problems, name.text, input)?;
        let line = argument.line();
        if line.len() > MAX_LINE {
            let found = line.len();
            let message =
                format!("argument `{}`: expected at most {MAX_LINE} bytes in all, found {found}", argument.name);
            problems.add(syn::Error::new(span, message));
        }
        lines.push(line);
        Ok(())
    });
    lines
}

fn argument(problems: &mut Problems, name: String, input: ParseStream<'_>) -> syn::Result<Argument> {
    input.parse::<Token![:]>().map_err(|problem| {
        syn::Error::new(problem.span(), format_args!("argument `{name}`: expected `:` and its kind: {KINDS}"))
    })?;
    let kind = kind(problems, input)?;
    let mut required = None;
    if input.peek(syn::Ident) {
        let word: Ident = input.call(Ident::parse_any)?;
        if word != "required" {
            let message = format!("argument `{name}`: expected `required`, `=`, `=>` or `,`, found `{word}`");
            return Err(syn::Error::new(word.span(), message));
        }
        required = Some(word);
    }
    let mut default = String::new();
    if input.peek(Token![=]) && !input.peek(Token![=>]) {
        input.parse::<Token![=]>()?;
        let literal: Lit = input.parse().map_err(|problem| {
            syn::Error::new(problem.span(), format_args!("argument `{name}`: expected a literal as default"))
        })?;
        default = text_of(&literal);
        let expected = if required.is_some() {
            Some("no default, as it must be given".to_owned())
        } else if default.contains(char::is_control) {
            Some("a default without line breaks and other control characters".to_owned())
        } else if !default.is_empty() && !kind.accepts(&default) {
            Some(format!("{} as default", kind.accepted()))
        } else {
            None
        };
        if let Some(expected) = expected {
            let message = format!("argument `{name}`: expected {expected}, found {}", literal.to_token_stream());
            problems.add(syn::Error::new_spanned(&literal, message));
        }
    }
    let mut help = String::new();
    if input.peek(Token![=>]) {
        input.parse::<Token![=>]>()?;
        let text: LitStr = input.parse().map_err(|problem| {
            syn::Error::new(problem.span(), format_args!("argument `{name}`: expected its help in quotes"))
        })?;
        help = text.value();
        if help.contains(char::is_control) {
            let message = format!("argument `{name}`: expected help without line breaks and other control characters");
            problems.add(syn::Error::new(text.span(), message));
        }
    }
    Ok(Argument { name, kind, required: required.is_some(), default, help })
}

fn kind(problems: &mut Problems, input: ParseStream<'_>) -> syn::Result<Kind> {
    let unknown = |span: Span, found: &str| {
        syn::Error::new(span, format_args!("unknown kind of argument{found}; the kinds are {KINDS}"))
    };
    let name: Ident = input.call(Ident::parse_any).map_err(|problem| unknown(problem.span(), ""))?;
    if let Some(kind) = Kind::simple(&name.to_string()) {
        return Ok(kind);
    }
    if name != "choice" {
        return Err(unknown(name.span(), &format!(" `{name}`")));
    }
    if !input.peek(syn::token::Paren) {
        return Err(syn::Error::new(name.span(), "expected the words to choose from: choice(a | b)"));
    }
    let content;
    parenthesized!(content in input);
    let mut words: Vec<String> = Vec::new();
    // What is left of a wrong list would be reported a second time, as unexpected.
    let parsed = choices(problems, &content, &mut words);
    content.step(|cursor| {
        let mut rest = *cursor;
        while let Some((_, next)) = rest.token_tree() {
            rest = next;
        }
        Ok(((), rest))
    })?;
    parsed?;
    if words.is_empty() || words.len() > MAX_CHOICES {
        let message = format!("expected 1 to {MAX_CHOICES} words to choose from, found {}", words.len());
        problems.add(syn::Error::new(name.span(), message));
    }
    Ok(Kind::Choice(words))
}

fn choices(problems: &mut Problems, content: ParseStream<'_>, words: &mut Vec<String>) -> syn::Result<()> {
    let expected =
        |problem: syn::Error| syn::Error::new(problem.span(), "expected words with `|` between: choice(a | \"b-2\")");
    while !content.is_empty() {
        let word: Word = content.parse().map_err(expected)?;
        if !is_word(&word.text) {
            problems.add(word.error(format_args!("word `{}` of a choice: expected {WORD}", word.text.escape_debug())));
        } else if words.contains(&word.text) {
            problems.add(word.error(format_args!("word `{}` of a choice is there twice", word.text)));
        }
        words.push(word.text);
        if !content.is_empty() {
            content.parse::<Token![|]>().map_err(expected)?;
        }
    }
    Ok(())
}

/// The value of a literal as somebody who gives the argument would write it.
fn text_of(literal: &Lit) -> String {
    match literal {
        Lit::Str(text) => text.value(),
        // Without `_`; a suffix stays and is refused with the rest.
        Lit::Int(number) => number.to_string().replace('_', ""),
        Lit::Bool(on) => on.value.to_string(),
        other => other.to_token_stream().to_string(),
    }
}

impl Argument {
    /// The line in a descriptor: `name:kind[!]:default:help`.
    fn line(&self) -> String {
        let Self { name, kind, required, default, help } = self;
        let mark = if *required { "!" } else { "" };
        let default = default.replace('\\', r"\\").replace(':', r"\:");
        format!("{name}:{}{mark}:{default}:{help}", kind.descriptor())
    }
}

/// A name: an identifier, or a string for those that are none.
struct Word {
    text: String,
    span: Span,
}

impl Word {
    fn error(&self, message: impl std::fmt::Display) -> syn::Error {
        syn::Error::new(self.span, message)
    }
}

impl Parse for Word {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        if input.peek(LitStr) {
            let text: LitStr = input.parse()?;
            return Ok(Self { text: text.value(), span: text.span() });
        }
        let name = input.call(Ident::parse_any)?;
        Ok(Self { text: name.unraw().to_string(), span: name.span() })
    }
}
