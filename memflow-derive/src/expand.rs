//! What an attribute turns into.
//!
//! Owns: the generated code. Must not know: the syntax of options.
//! Keeps: the function stays as it was written, also when something is wrong; generated code names everything by its whole path.

use proc_macro2::{Span, TokenStream};
use quote::{format_ident, quote, quote_spanned};
use syn::{
    Attribute, FnArg, Ident, Item, ItemFn, LitStr, ReturnType,
    parse::{ParseStream, Parser as _},
    spanned::Spanned,
};

use crate::{
    function::{documentation, function},
    options::{Options, check_text},
    problems::Problems,
};

/// What the attribute makes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum PluginKind {
    Connector,
    Os,
}

impl PluginKind {
    /// The attribute's name.
    pub(crate) const fn attribute(self) -> &'static str {
        match self {
            Self::Connector => "connector",
            Self::Os => "os_layer",
        }
    }

    /// What the function must look like.
    pub(crate) const fn signature(self) -> &'static str {
        match self {
            Self::Connector => "`fn open(request: &ConnectorRequest<'_>) -> Result<Connection>`",
            Self::Os => "`fn open(request: OsRequest<'_>) -> Result<impl Os>`",
        }
    }

    /// What it is, in the documentation of the generated type.
    const fn noun(self) -> &'static str {
        match self {
            Self::Connector => "connector",
            Self::Os => "OS layer",
        }
    }

    /// The word in a descriptor.
    const fn descriptor(self) -> &'static str {
        match self {
            Self::Connector => "connector",
            Self::Os => "os",
        }
    }
}

/// The item, and the plugin that is made of it or what is wrong.
pub(crate) fn expand(kind: PluginKind, options: TokenStream, item: TokenStream) -> TokenStream {
    let mut problems = Problems::default();
    let parse = |input: ParseStream<'_>| Ok(Options::parse(kind, &mut problems, input));
    let parsed = parse.parse2(options);
    let options = problems.take(parsed);
    let function = match syn::parse2::<Item>(item.clone()) {
        Ok(item) => function(kind, &mut problems, item),
        // The compiler says what is wrong with it.
        Err(_) => None,
    };
    let plugin = match (options, function) {
        (Some(options), Some(function)) => plugin(kind, &mut problems, &options, &function),
        _ => None,
    };
    let problems = problems.into_compile_error();
    match (problems, plugin) {
        (None, Some(plugin)) => quote!(#item #plugin),
        (problems, _) => quote!(#item #problems),
    }
}

fn plugin(kind: PluginKind, problems: &mut Problems, options: &Options, function: &ItemFn) -> Option<TokenStream> {
    let (documented, rest) = documentation(&function.attrs);
    let description = options.description.as_ref().map_or(documented, LitStr::value);
    let help = options.help.as_ref().map_or(rest, LitStr::value);
    let at = function.sig.ident.span();
    if description.is_empty() {
        let message = "the plugin has no description; write a doc comment, or `description = \"...\"`";
        problems.add(syn::Error::new(at, message));
    } else if description.contains(char::is_control) {
        let message = "expected a description without control characters in the first paragraph of the doc comment";
        problems.add(syn::Error::new(at, message));
    }
    for text in [&description, &help] {
        problems.take(check_text(text, at));
    }

    let name = options.name.as_ref()?;
    let entry = format_ident!("memflow_plugin_{}", name.value().replace('-', "_"), span = name.span());
    let type_name = options.type_name.clone().unwrap_or_else(|| Ident::new("Plugin", Span::call_site()));
    let about = format!("The {} `{}`.", kind.noun(), name.value());
    let conditions: Vec<&Attribute> =
        function.attrs.iter().filter(|attribute| attribute.path().is_ident("cfg")).collect();

    let key_of_kind = kind.descriptor();
    let entry_text = entry.to_string();
    let accepts = &options.accepts;
    let args = &options.args;
    let help = (!help.is_empty()).then(|| quote!(("help", #help),));
    let (implementation, make) = match kind {
        PluginKind::Connector => (connector(options, function), quote!(connector)),
        PluginKind::Os => (os_layer(function), quote!(os_layer)),
    };
    let plugin_trait = match kind {
        PluginKind::Connector => quote!(::memflow_core::plugin::Connector),
        PluginKind::Os => quote!(::memflow_core::plugin::OsLayer),
    };
    Some(quote! {
        #(#conditions)*
        #[doc = #about]
        #[allow(unreachable_pub)]
        #[derive(::core::clone::Clone, ::core::marker::Copy, ::core::fmt::Debug)]
        pub struct #type_name;

        #(#conditions)*
        const _: () = {
            const ENTRIES: &[(&str, &str)] = &[
                ("kind", #key_of_kind),
                ("name", #name),
                ("version", ::core::env!("CARGO_PKG_VERSION")),
                ("abi", ::memflow_core::plugin::derive::ABI),
                ("target", ::memflow_core::plugin::descriptor::HOST_TARGET),
                ("entry", #entry_text),
                ("description", #description),
                #(("accepts", #accepts),)*
                #(("arg", #args),)*
                ("layout", ::memflow_core::plugin::derive::LAYOUT),
                #help
            ];

            #[used]
            #[cfg_attr(target_vendor = "apple", unsafe(link_section = "__DATA,__memflow"))]
            #[cfg_attr(windows, unsafe(link_section = ".memflow"))]
            #[cfg_attr(not(any(target_vendor = "apple", windows)), unsafe(link_section = "memflow_plugin"))]
            static DESCRIPTOR: [u8; ::memflow_core::plugin::descriptor::joined_len(ENTRIES)] =
                ::memflow_core::plugin::descriptor::join(ENTRIES);

            impl #plugin_trait for #type_name {
                const DESCRIPTOR: &'static [u8] = &DESCRIPTOR;
                #implementation
            }

            // The name is the ABI's.
            #[allow(non_upper_case_globals)]
            #[unsafe(no_mangle)]
            static #entry: ::memflow_core::plugin::export::PluginEntry =
                ::memflow_core::plugin::export::#make::<#type_name>();
        };
    })
}

fn connector(options: &Options, function: &ItemFn) -> TokenStream {
    let open = call(function, "connection");
    let targets = options.targets.as_ref().map(|list| {
        let call = quote_spanned!(list.span()=> #list());
        quote! {
            const LISTS_TARGETS: bool = true;

            fn targets() -> ::memflow_core::error::Result<::std::vec::Vec<::memflow_core::plugin::TargetInfo>> {
                #call
            }
        }
    });
    quote! {
        fn open(
            request: &::memflow_core::plugin::ConnectorRequest<'_>,
        ) -> ::memflow_core::error::Result<::memflow_core::plugin::Connection> {
            #open
        }

        #targets
    }
}

fn os_layer(function: &ItemFn) -> TokenStream {
    let open = call(function, "os");
    quote! {
        fn open(
            request: ::memflow_core::plugin::OsRequest<'_>,
        ) -> ::memflow_core::error::Result<::std::sync::Arc<dyn ::memflow_core::os::Os>> {
            #open
        }
    }
}

/// The call of the function, and the conversion of what it returns. The compiler shows wrong types where the function has them.
fn call(function: &ItemFn, convert: &str) -> TokenStream {
    // `request` is the parameter of the code around the call, wherever the text of it seems to stand.
    let at = |place: Option<Span>| Span::call_site().located_at(place.unwrap_or_else(|| function.sig.ident.span()));
    let request = Ident::new("request", at(function.sig.inputs.first().map(parameter_span)));
    let returned = at(match &function.sig.output {
        ReturnType::Default => None,
        ReturnType::Type(_, returned) => Some(returned.span()),
    });
    let mut name = function.sig.ident.clone();
    name.set_span(returned);
    let convert = Ident::new(convert, returned);
    quote_spanned!(returned=> ::memflow_core::plugin::derive::#convert(#name(#request)))
}

/// The place of a parameter's type.
fn parameter_span(parameter: &FnArg) -> Span {
    match parameter {
        FnArg::Receiver(receiver) => receiver.span(),
        FnArg::Typed(typed) => typed.ty.span(),
    }
}
