//! Mistakes of whoever wrote an attribute, collected so that the compiler shows all of them at once.
//!
//! Owns: [`Problems`], and going on after a mistake. Must not know: what the mistakes are.

use proc_macro2::{TokenStream, TokenTree};
use syn::{Token, parse::ParseStream};

/// The mistakes so far.
#[derive(Default)]
pub(crate) struct Problems(Option<syn::Error>);

impl Problems {
    /// Adds one.
    pub(crate) fn add(&mut self, problem: syn::Error) {
        match &mut self.0 {
            Some(all) => all.combine(problem),
            None => self.0 = Some(problem),
        }
    }

    /// The value; or nothing, and the problem is added.
    pub(crate) fn take<T>(&mut self, result: syn::Result<T>) -> Option<T> {
        result.map_err(|problem| self.add(problem)).ok()
    }

    /// Parses entries between commas. After an entry with a mistake, the next one is looked at.
    pub(crate) fn entries(
        &mut self,
        input: ParseStream<'_>,
        mut entry: impl FnMut(&mut Self, ParseStream<'_>) -> syn::Result<()>,
    ) {
        while !input.is_empty() {
            match entry(self, input) {
                Err(problem) => self.add(problem),
                Ok(()) if input.is_empty() || input.peek(Token![,]) => {}
                Ok(()) => self.add(input.error("expected `,`")),
            }
            while !input.is_empty() && !input.peek(Token![,]) {
                if input.parse::<TokenTree>().is_err() {
                    return;
                }
            }
            if input.parse::<Option<Token![,]>>().is_err() {
                return;
            }
        }
    }

    /// The compile errors; none if all is well.
    pub(crate) fn into_compile_error(self) -> Option<TokenStream> {
        self.0.map(syn::Error::into_compile_error)
    }
}
