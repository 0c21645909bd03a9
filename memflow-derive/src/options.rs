//! The options of an attribute.
//!
//! Owns: which there are, and what is wrong with those that were given. Must not know: the function under the attribute.

use proc_macro2::{Ident, Span, TokenTree};
use syn::{
    LitStr, Path, Token,
    ext::IdentExt as _,
    parenthesized,
    parse::{Parse, ParseBuffer, ParseStream},
};

use crate::{
    argument,
    expand::PluginKind,
    problems::Problems,
    value::{MAX_VALUE, NAME, is_plugin_name},
};

/// What was given in the parentheses of an attribute.
#[derive(Default)]
pub(crate) struct Options {
    pub(crate) name: Option<LitStr>,
    pub(crate) description: Option<LitStr>,
    pub(crate) help: Option<LitStr>,
    pub(crate) type_name: Option<Ident>,
    pub(crate) accepts: Vec<String>,
    pub(crate) targets: Option<Path>,
    pub(crate) args: Vec<String>,
}

/// The options of connectors, for errors.
const OF_CONNECTORS: &[&str] = &["name", "description", "help", "type", "accepts", "targets", "args"];
/// The options of OS layers.
const OF_OS_LAYERS: &[&str] = &["name", "description", "help", "type", "args"];
/// What a connector can accept.
const ACCEPTABLE: &[&str] = &["content", "os"];

impl Options {
    /// Reads them; what is wrong is added to the problems.
    pub(crate) fn parse(kind: PluginKind, problems: &mut Problems, input: ParseStream<'_>) -> Self {
        let known = match kind {
            PluginKind::Connector => OF_CONNECTORS,
            PluginKind::Os => OF_OS_LAYERS,
        };
        let mut options = Self::default();
        let mut seen: Vec<Ident> = Vec::new();
        let mut name_given = false;
        problems.entries(input, |problems, input| {
            let option = input.call(Ident::parse_any).map_err(|problem| {
                syn::Error::new(problem.span(), format_args!("expected an option: {}", known.join(", ")))
            })?;
            if !known.iter().any(|name| option == name) {
                let message = format!("unknown option `{option}`; the options are {}", known.join(", "));
                return Err(syn::Error::new(option.span(), message));
            }
            if seen.contains(&option) {
                return Err(syn::Error::new(option.span(), format_args!("option `{option}` is given twice")));
            }
            name_given |= option == "name";
            seen.push(option.clone());
            options.option(problems, &option, input)
        });
        if !name_given {
            let message = format!("the plugin has no name; write `#[{}(name = \"...\")]`", kind.attribute());
            problems.add(syn::Error::new(Span::call_site(), message));
        }
        options
    }

    fn option(&mut self, problems: &mut Problems, option: &Ident, input: ParseStream<'_>) -> syn::Result<()> {
        match option.to_string().as_str() {
            "name" => {
                let name = text(option, input)?;
                if !is_plugin_name(&name.value()) {
                    let message =
                        format!("`{}` cannot be a plugin's name; expected {NAME}", name.value().escape_debug());
                    return Err(syn::Error::new(name.span(), message));
                }
                self.name = Some(name);
            }
            "description" => {
                let line = text(option, input)?;
                if line.value().is_empty() || line.value().contains(char::is_control) {
                    return Err(syn::Error::new(line.span(), "expected one line that says what the plugin is for"));
                }
                self.description = Some(line);
            }
            "help" => self.help = Some(text(option, input)?),
            "type" => self.type_name = Some(value(input, "the name of the type to make: type = Example")?),
            "targets" => self.targets = Some(value(input, "a function that lists targets: targets = list")?),
            "accepts" => {
                let content = list(option, input)?;
                problems.entries(&content, |_, input| self.accept(input));
            }
            _ => self.args = argument::lines(problems, &list(option, input)?),
        }
        Ok(())
    }

    fn accept(&mut self, input: ParseStream<'_>) -> syn::Result<()> {
        let tree: TokenTree = input.parse()?;
        let word = tree.to_string();
        let message = if !ACCEPTABLE.contains(&word.as_str()) {
            format!("a connector accepts {}; found `{word}`", ACCEPTABLE.join(" and "))
        } else if self.accepts.contains(&word) {
            format!("`{word}` is there twice")
        } else {
            self.accepts.push(word);
            return Ok(());
        };
        Err(syn::Error::new(tree.span(), message))
    }
}

/// `= "text"`, of a length and content that a descriptor can hold.
fn text(option: &Ident, input: ParseStream<'_>) -> syn::Result<LitStr> {
    let expected = |problem: syn::Error| {
        syn::Error::new(problem.span(), format_args!("expected a text in quotes: {option} = \"...\""))
    };
    input.parse::<Token![=]>().map_err(expected)?;
    let text: LitStr = input.parse().map_err(expected)?;
    check_text(&text.value(), text.span())?;
    Ok(text)
}

/// `= value`; `expected` says what and how.
fn value<T: Parse>(input: ParseStream<'_>, expected: &str) -> syn::Result<T> {
    let parsed = input.parse::<Token![=]>().and_then(|_| input.parse());
    parsed.map_err(|problem| syn::Error::new(problem.span(), format_args!("expected {expected}")))
}

/// Refuses what a descriptor cannot hold.
pub(crate) fn check_text(text: &str, span: Span) -> syn::Result<()> {
    let message = if text.contains('\0') {
        "expected a text without NUL".to_owned()
    } else if text.len() > MAX_VALUE {
        format!("expected at most {MAX_VALUE} bytes, found {}", text.len())
    } else {
        return Ok(());
    };
    Err(syn::Error::new(span, message))
}

/// What is in the parentheses.
fn list<'a>(option: &Ident, input: ParseStream<'a>) -> syn::Result<ParseBuffer<'a>> {
    if !input.peek(syn::token::Paren) {
        return Err(syn::Error::new(input.span(), format_args!("expected a list in parentheses: {option}(...)")));
    }
    let content;
    parenthesized!(content in input);
    Ok(content)
}
