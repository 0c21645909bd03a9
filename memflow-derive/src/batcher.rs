//! What `#[derive(Batcher)]` makes of a structure.
//!
//! Owns: the syntax of `#[batch(…)]` and the generated implementation. Must not know: how a batch is carried out.
//! Keeps: attributes of others and members without `#[batch]` are left alone; generated code names everything by its whole path.

use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::{
    Data, DataStruct, DeriveInput, Expr, Field, Index, Member, Token, Type,
    parse::{Parse as _, ParseStream},
    spanned::Spanned as _,
};

use crate::problems::Problems;

/// What `#[batch(…)]` says of a member.
struct Options {
    offset: Expr,
    /// The member is a structure of which the members are read.
    nested: bool,
    /// The member holds several such structures, so many bytes from each other.
    stride: Option<Expr>,
}

/// The implementation, or what is wrong.
pub(crate) fn expand(item: TokenStream) -> TokenStream {
    let input: DeriveInput = match syn::parse2(item) {
        Ok(input) => input,
        Err(problem) => return problem.into_compile_error(),
    };
    let Data::Struct(DataStruct { fields, .. }) = &input.data else {
        return syn::Error::new(input.ident.span(), "expected a structure; only those have members at offsets")
            .into_compile_error();
    };
    let mut problems = Problems::default();
    let (mut reads, mut writes, mut bounds) = (Vec::new(), Vec::new(), Vec::new());
    for (index, field) in fields.iter().enumerate() {
        let Some(options) = options(&mut problems, field) else { continue };
        let member = match &field.ident {
            Some(name) => Member::Named(name.clone()),
            None => Member::Unnamed(Index::from(index)),
        };
        let (read, write) = accesses(&member, &options);
        reads.push(read);
        writes.push(write);
        bounds.extend(bound(&field.ty, &options));
    }
    if let Some(problems) = problems.into_compile_error() {
        return problems;
    }
    if reads.is_empty() {
        let message = "no member says where it lies; add `#[batch(offset = 0x10)]` to those that are to be read";
        return syn::Error::new(input.ident.span(), message).into_compile_error();
    }
    let name = &input.ident;
    let (implementation, types, conditions) = input.generics.split_for_impl();
    let conditions = conditions.map(|conditions| conditions.predicates.iter().collect::<Vec<_>>()).unwrap_or_default();
    quote! {
        #[automatically_derived]
        impl #implementation ::memflow_core::view::Batcher for #name #types
        where
            #(#conditions,)*
            #(#bounds,)*
        {
            fn add_reads<'__batch>(
                &'__batch mut self,
                __addr: ::memflow_core::VirtAddr,
                __batch: &mut ::memflow_core::view::Batch<'__batch>,
            ) {
                #(#reads)*
            }

            fn add_writes<'__batch>(
                &'__batch self,
                __addr: ::memflow_core::VirtAddr,
                __batch: &mut ::memflow_core::view::Batch<'__batch>,
            ) {
                #(#writes)*
            }
        }
    }
}

/// The code that adds a member to a batch, to be read and to be written.
fn accesses(member: &Member, Options { offset, nested, stride }: &Options) -> (TokenStream, TokenStream) {
    let at = quote_spanned!(offset.span()=> __addr.wrapping_add({ let offset: u64 = #offset; offset }));
    match stride {
        Some(stride) => {
            let step = quote_spanned!(stride.span()=> { let stride: u64 = #stride; stride });
            let each = quote! {
                let at = #at.wrapping_add((index as u64).wrapping_mul(#step));
            };
            (
                quote! {
                    for (index, element) in self.#member.iter_mut().enumerate() {
                        #each
                        ::memflow_core::view::Batcher::add_reads(element, at, __batch);
                    }
                },
                quote! {
                    for (index, element) in self.#member.iter().enumerate() {
                        #each
                        ::memflow_core::view::Batcher::add_writes(element, at, __batch);
                    }
                },
            )
        }
        None if *nested => (
            quote!(::memflow_core::view::Batcher::add_reads(&mut self.#member, #at, __batch);),
            quote!(::memflow_core::view::Batcher::add_writes(&self.#member, #at, __batch);),
        ),
        None => (quote!(__batch.read(#at, &mut self.#member);), quote!(__batch.write(#at, &self.#member);)),
    }
}

/// What the type of a member has to be.
fn bound(ty: &Type, options: &Options) -> Option<TokenStream> {
    match options {
        // The element's type is not at hand; the call says what is wrong with it.
        Options { stride: Some(_), .. } => None,
        Options { nested: true, .. } => Some(quote_spanned!(ty.span()=> #ty: ::memflow_core::view::Batcher)),
        _ => Some(quote_spanned!(ty.span()=> #ty: ::memflow_core::Pod)),
    }
}

/// What the `#[batch(…)]` of a member says, if it has one and all is well.
fn options(problems: &mut Problems, field: &Field) -> Option<Options> {
    let mut attributes = field.attrs.iter().filter(|attribute| attribute.path().is_ident("batch"));
    let attribute = attributes.next()?;
    if let Some(second) = attributes.next() {
        problems.add(syn::Error::new(second.span(), "a second `#[batch]`; a member lies in one place"));
    }
    let (mut offset, mut nested, mut stride) = (None, false, None);
    let parsed = attribute.parse_args_with(|input: ParseStream<'_>| {
        problems.entries(input, |_, input| {
            let key = syn::Ident::parse(input)?;
            let twice = |known: bool| match known {
                true => Err(syn::Error::new(key.span(), format!("`{key}` is given twice"))),
                false => Ok(()),
            };
            match key.to_string().as_str() {
                "offset" => {
                    twice(offset.is_some())?;
                    input.parse::<Token![=]>()?;
                    offset = Some(input.parse()?);
                }
                "stride" => {
                    twice(stride.is_some())?;
                    input.parse::<Token![=]>()?;
                    stride = Some(input.parse()?);
                }
                "nested" => {
                    twice(nested)?;
                    nested = true;
                }
                _ => return Err(syn::Error::new(key.span(), "expected `offset = …`, `nested` or `stride = …`")),
            }
            Ok(())
        });
        Ok(())
    });
    problems.take(parsed)?;
    if stride.is_some() && !nested {
        let message = "`stride` goes with `nested`: an array of plain values is read as one";
        problems.add(syn::Error::new(attribute.span(), message));
    }
    match offset {
        Some(offset) => Some(Options { offset, nested, stride }),
        None => {
            problems
                .add(syn::Error::new(attribute.span(), "expected `offset = …`, in bytes from the structure's start"));
            None
        }
    }
}
