//! The function under an attribute.
//!
//! Owns: which functions can open something, and what their doc comments say. Must not know: the attribute's options.

use quote::ToTokens;
use syn::{Attribute, Expr, ExprLit, FnArg, GenericParam, Item, ItemFn, Lit, Meta, ReturnType};

use crate::{expand::PluginKind, problems::Problems};

/// The function that the item is, with all that is wrong with it added to the problems.
pub(crate) fn function(kind: PluginKind, problems: &mut Problems, item: Item) -> Option<ItemFn> {
    let function = match item {
        Item::Fn(function) => function,
        other => {
            let message = format!("`#[{}]` stands before a function: {}", kind.attribute(), kind.signature());
            problems.add(syn::Error::new_spanned(other, message));
            return None;
        }
    };
    let signature = &function.sig;
    // All tokens of what is wrong are marked.
    let mut refuse = |wrong: &dyn ToTokens, what: &str| {
        let message = format!("{what}; expected {}", kind.signature());
        problems.add(syn::Error::new_spanned(wrong.to_token_stream(), message));
    };
    if let Some(token) = &signature.asyncness {
        refuse(token, "the function cannot be async");
    }
    if let Some(token) = &signature.unsafety {
        refuse(token, concat!("the function cannot be un", "safe"));
    }
    if let Some(abi) = &signature.abi {
        refuse(abi, "the function cannot have another calling convention");
    }
    for parameter in &signature.generics.params {
        if !matches!(parameter, GenericParam::Lifetime(_)) {
            refuse(parameter, "the function cannot be generic");
        }
    }
    let mut parameters = signature.inputs.iter();
    match parameters.next() {
        Some(FnArg::Receiver(receiver)) => refuse(receiver, "the function cannot be a method"),
        Some(FnArg::Typed(_)) => {
            for more in parameters {
                refuse(more, "the function takes more than a request");
            }
        }
        None => refuse(&signature.ident, "the function takes no request"),
    }
    if let ReturnType::Default = signature.output {
        refuse(&signature.ident, "the function returns nothing");
    }
    Some(function)
}

/// A doc comment: its first paragraph as one line, and the rest.
pub(crate) fn documentation(attributes: &[Attribute]) -> (String, String) {
    let comment: Vec<String> = attributes.iter().filter_map(doc_text).collect();
    let lines: Vec<&str> = comment
        .iter()
        .flat_map(|text| text.lines())
        .map(|line| line.strip_prefix(' ').unwrap_or(line).trim_end())
        .collect();
    let lines = || lines.iter().copied().skip_while(|line| line.is_empty());
    let description: Vec<&str> = lines().take_while(|line| !line.is_empty()).map(str::trim).collect();
    let rest: Vec<&str> = lines().skip_while(|line| !line.is_empty()).skip_while(|line| line.is_empty()).collect();
    (description.join(" "), rest.join("\n").trim_end().to_owned())
}

fn doc_text(attribute: &Attribute) -> Option<String> {
    match &attribute.meta {
        Meta::NameValue(pair) if pair.path.is_ident("doc") => match &pair.value {
            Expr::Lit(ExprLit { lit: Lit::Str(text), .. }) if text.value().is_empty() => Some("\n".to_owned()),
            Expr::Lit(ExprLit { lit: Lit::Str(text), .. }) => Some(text.value()),
            _ => None,
        },
        _ => None,
    }
}
