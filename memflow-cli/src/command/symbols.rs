//! `memflow symbols`: the symbols of the kernel.
//!
//! Owns: patterns, and the lines and the JSON form of a symbol. Must not know: how symbols are stored.

use clap::Args;
use glob::Pattern;
use memflow_core::{
    Error, VirtAddr,
    os::{Listing, Os, SymbolInfo},
};
use serde::Serialize;

use super::address::resolve;
use crate::{
    failure::{Failure, Outcome, Status},
    output::{Hex, Io, escape, texts},
    parse::AddressExpr,
    progress,
    target::{Target, TargetArgs},
};

/// Arguments of `memflow symbols`.
#[derive(Args, Debug)]
#[command(after_help = "\
Lines are those of /proc/kallsyms: address, type letter as nm prints it, name, and the [module] if it is not the kernel's. \
With --at, the symbol at or before the address, and the distance.

JSON: {\"symbols\": [{name, address, type, module, offset}], \"problems\": […]}; offset with --at only.")]
pub(crate) struct SymbolsArgs {
    #[command(flatten)]
    target: TargetArgs,
    /// Names: a text they contain, or with *, ? or [ a pattern for the whole name
    pattern: Option<String>,
    /// The symbol that this address belongs to
    #[arg(long, value_name = "ADDR", conflicts_with = "pattern")]
    at: Option<AddressExpr>,
    /// At most this many symbols
    #[arg(long, value_name = "COUNT")]
    limit: Option<usize>,
}

/// Which names are shown.
#[derive(Debug)]
enum Names {
    All,
    Containing(String),
    Like(Pattern),
}

impl Names {
    fn parse(pattern: Option<&str>) -> Outcome<Self> {
        match pattern {
            None => Ok(Self::All),
            Some(text) if text.contains(['*', '?', '[']) => match Pattern::new(text) {
                Ok(pattern) => Ok(Self::Like(pattern)),
                Err(error) => {
                    Err(Failure::Usage(format!("pattern `{text}`: {} at character {}", error.msg, error.pos)))
                }
            },
            Some(text) => Ok(Self::Containing(text.to_owned())),
        }
    }

    fn take(&self, name: &str) -> bool {
        match self {
            Self::All => true,
            Self::Containing(text) => name.contains(text.as_str()),
            Self::Like(pattern) => pattern.matches(name),
        }
    }
}

#[derive(Serialize)]
struct Document<'a> {
    symbols: Vec<Record<'a>>,
    problems: Vec<String>,
}

#[derive(Serialize)]
struct Record<'a> {
    name: &'a str,
    address: Hex,
    r#type: char,
    module: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    offset: Option<Hex>,
}

/// Opens the target and looks up symbols.
pub(crate) fn run(args: &SymbolsArgs, io: &mut Io<'_>) -> Outcome {
    let names = Names::parse(args.pattern.as_deref())?;
    let os = Target::open(&args.target, io)?.os(io)?;
    match &args.at {
        Some(address) => show_at(resolve(&*os, address)?, &*os, io),
        None => show(&names, args.limit.unwrap_or(usize::MAX), &*os, io),
    }
}

fn show(names: &Names, limit: usize, os: &dyn Os, io: &mut Io<'_>) -> Outcome {
    let Listing { items, problems } = progress::spin(io.quiet(), "reading the symbols", || os.symbols())?;
    let mut status = io.problems("the symbol table", &problems);
    let mut found = items.iter().filter(|symbol| names.take(&symbol.name));
    let shown: Vec<&SymbolInfo> = found.by_ref().take(limit).collect();
    if shown.is_empty() && limit > 0 {
        status = Status::Incomplete;
        io.warn(if matches!(names, Names::All) { "there are no symbols" } else { "no symbol has such a name" });
    }
    let rest = found.count();
    if rest > 0 {
        io.note(format_args!("{rest} more symbols match"));
    }
    if io.json {
        let symbols = shown.iter().map(|symbol| record(symbol, None)).collect();
        io.document(&Document { symbols, problems: texts(&problems) })?;
    } else {
        for symbol in shown {
            io.line(line(symbol, None))?;
        }
    }
    Ok(status)
}

fn show_at(address: VirtAddr, os: &dyn Os, io: &mut Io<'_>) -> Outcome {
    let Some((symbol, offset)) = os.symbol_at(address)? else {
        return Err(Error::NotFound { what: "kernel symbol for address", name: address.to_string() }.into());
    };
    if io.json {
        io.document(&Document { symbols: vec![record(&symbol, Some(offset))], problems: Vec::new() })?;
    } else {
        io.line(line(&symbol, Some(offset)))?;
    }
    Ok(Status::Complete)
}

fn record(symbol: &SymbolInfo, offset: Option<u64>) -> Record<'_> {
    Record {
        name: &symbol.name,
        address: symbol.address.into(),
        r#type: symbol.kind,
        module: symbol.module.as_deref(),
        offset: offset.map(Hex),
    }
}

fn line(symbol: &SymbolInfo, offset: Option<u64>) -> String {
    let SymbolInfo { address, kind, name, module } = symbol;
    let offset = offset.filter(|offset| *offset > 0).map(|offset| format!("+{offset:#x}")).unwrap_or_default();
    let module = module.as_ref().map(|module| format!("\t[{}]", escape(module))).unwrap_or_default();
    format!("{address:016x} {} {}{offset}{module}", escape(kind.encode_utf8(&mut [0; 4])), escape(name))
}

#[cfg(test)]
mod tests {
    use super::{
        super::testing::{FakeOs, shown, torn},
        *,
    };

    #[test]
    fn limit_and_problems_are_told() {
        let mut os = FakeOs::new();
        os.symbols = vec![symbol("one", None), symbol("two", None)];
        let text = shown(false, |io| show(&Names::All, 1, &os, io));
        assert_eq!((text.status, text.out.as_str()), (Status::Incomplete, "ffffffff81000000 T one\n"));
        assert_eq!(text.err, format!("warning: the symbol table is incomplete: {}\n", torn()));
    }

    #[test]
    fn name_of_several_symbols_is_no_address() {
        let mut os = FakeOs::new();
        os.symbols = vec![symbol("one", None), symbol("one", Some("module")), symbol("two", None)];
        let error = resolve(&os, &"one+4".parse().unwrap()).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert_eq!(
            error.to_string(),
            "2 kernel symbols are called one: 0xffffffff81000000, 0xffffffff81000000; give the address of one of them"
        );
        assert_eq!(resolve(&os, &"two-4".parse().unwrap()).unwrap(), VirtAddr::new(0xffff_ffff_80ff_fffc));
        assert_eq!(resolve(&os, &"three".parse().unwrap()).unwrap_err().exit_code(), 1);
    }

    fn symbol(name: &str, module: Option<&str>) -> SymbolInfo {
        SymbolInfo {
            address: VirtAddr::new(0xffff_ffff_8100_0000),
            kind: 'T',
            name: name.to_owned(),
            module: module.map(str::to_owned),
        }
    }

    #[test]
    fn lines_look_as_those_of_kallsyms() {
        assert_eq!(line(&symbol("_text", None), None), "ffffffff81000000 T _text");
        assert_eq!(line(&symbol("_text", None), Some(0)), "ffffffff81000000 T _text");
        assert_eq!(line(&symbol("init", Some("loop")), Some(16)), "ffffffff81000000 T init+0x10\t[loop]");
    }

    #[test]
    fn plain_text_is_searched_and_patterns_match_whole_names() {
        let takes = |pattern: &str, name: &str| Names::parse(Some(pattern)).unwrap().take(name);
        assert!(takes("task", "init_task"));
        assert!(!takes("Task", "init_task"));
        assert!(takes("*task", "init_task"));
        assert!(!takes("task*", "init_task"));
        assert!(takes("init_tas[kp]", "init_task"));
        assert!(Names::parse(None).unwrap().take("x"));
        let error = Names::parse(Some("a[")).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().starts_with("pattern `a[`: "), "{error}");
    }
}
