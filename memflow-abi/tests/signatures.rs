//! Types of members are the same in both languages, those of functions' arguments among them.
//!
//! Owns: what a type of the crate is in C, and the questions to the compilers. Must not know: sizes and offsets; `header.rs`
//! compares those.

mod common;

use std::{fmt::Write as _, fs, iter::Peekable, path::Path, str::Chars};

use memflow_abi::{Field, STRUCTURES, Structure};

use crate::common::c;

/// A type, as C has it.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Type {
    /// Its name.
    Plain(String),
    /// A pointer.
    Pointer { constant: bool, to: Box<Type> },
    /// A pointer to a function.
    Function { arguments: Vec<Type>, returns: Box<Type> },
}

impl Type {
    /// The type of a member, from its source text.
    fn parse(text: &str) -> Self {
        let mut tokens = Tokens { rest: text.chars().peekable() };
        let found = tokens.member();
        assert_eq!(tokens.next(), None, "after a type: {text}");
        found
    }

    /// As the type of something without a name.
    fn in_c(&self) -> String {
        match self {
            Self::Plain(name) => name.clone(),
            // `const` stands behind what it is about.
            Self::Pointer { constant, to } => format!("{}{} *", to.in_c(), if *constant { " const" } else { "" }),
            Self::Function { arguments, returns } => {
                let arguments: Vec<_> = arguments.iter().map(Self::in_c).collect();
                let arguments = if arguments.is_empty() { "void".to_owned() } else { arguments.join(", ") };
                format!("{} (*)({arguments})", returns.in_c())
            }
        }
    }

    /// As the definition of a name for it.
    fn named(&self, name: &str) -> String {
        match self {
            Self::Function { .. } => format!("typedef {};", self.in_c().replacen("(*)", &format!("(*{name})"), 1)),
            _ => format!("typedef {} {name};", self.in_c()),
        }
    }
}

/// Words and signs of a type.
struct Tokens<'a> {
    rest: Peekable<Chars<'a>>,
}

impl Iterator for Tokens<'_> {
    type Item = String;

    fn next(&mut self) -> Option<String> {
        while self.rest.next_if(|c| c.is_whitespace()).is_some() {}
        let mut token = self.rest.next()?.to_string();
        let in_word = |c: &char| c.is_ascii_alphanumeric() || *c == '_';
        if token.starts_with(|c| in_word(&c)) {
            while let Some(next) = self.rest.next_if(in_word) {
                token.push(next);
            }
        }
        Some(token)
    }
}

impl Tokens<'_> {
    fn expect(&mut self, expected: &str) {
        assert_eq!(self.next().as_deref(), Some(expected));
    }

    /// Takes a sign if it is next.
    fn take(&mut self, sign: char) -> bool {
        while self.rest.next_if(|c| c.is_whitespace()).is_some() {}
        self.rest.next_if_eq(&sign).is_some()
    }

    fn member(&mut self) -> Type {
        let first = self.next().unwrap();
        match first.as_str() {
            "*" => {
                let constant = match self.next().as_deref() {
                    Some("const") => true,
                    Some("mut") => false,
                    other => panic!("a pointer that is {other:?}"),
                };
                Type::Pointer { constant, to: Box::new(self.member()) }
            }
            "Grows" => {
                self.expect("<");
                let to = Box::new(self.member());
                self.expect(">");
                Type::Pointer { constant: true, to }
            }
            "Option" => {
                self.expect("<");
                let function = self.function();
                self.take(',');
                self.expect(">");
                function
            }
            "u8" | "u16" | "u32" | "u64" | "i32" => {
                let (kind, bits) = first.split_at(1);
                Type::Plain(format!("{}int{bits}_t", if kind == "u" { "u" } else { "" }))
            }
            "usize" => Type::Plain("size_t".to_owned()),
            "c_void" => Type::Plain("void".to_owned()),
            name => {
                let known = STRUCTURES.iter().any(|structure| structure.name == name);
                assert!(known, "{name} has no counterpart in C that this test knows");
                Type::Plain(format!("memflow_{name}"))
            }
        }
    }

    fn function(&mut self) -> Type {
        let before: Vec<String> = self.by_ref().take_while(|word| word != "fn").collect();
        assert!(before.ends_with(&["extern", "\"", "C", "\""].map(str::to_owned)), "a function that is {before:?}");
        self.expect("(");
        let mut arguments = Vec::new();
        while !self.take(')') {
            // The name of the argument.
            self.next();
            self.expect(":");
            arguments.push(self.member());
            if !self.take(',') {
                self.expect(")");
                break;
            }
        }
        let returns = if self.take('-') {
            self.expect(">");
            self.member()
        } else {
            Type::Plain("void".to_owned())
        };
        Type::Function { arguments, returns: Box::new(returns) }
    }
}

/// Every member with its structure.
fn members() -> impl Iterator<Item = (&'static Structure, &'static Field)> {
    STRUCTURES.iter().flat_map(|structure| structure.fields.iter().map(move |field| (structure, field)))
}

/// A program that does not compile if a member has another type than `type_of` says.
fn program<'a>(members: impl Iterator<Item = (&'a str, &'a str, Type)>) -> String {
    let mut text = String::from(
        "#include \"memflow_plugin.h\"\n\
         #if defined(__cplusplus)\n\
         #include <type_traits>\n\
         #define SAME(structure, member, type, message) \\\n\
         static_assert(std::is_same<decltype(structure::member), type>::value, message)\n\
         #else\n\
         #define SAME(structure, member, type, message) \\\n\
         _Static_assert(_Generic(&((structure *)0)->member, type *: 1, default: 0), message)\n\
         #endif\n",
    );
    for (structure, field, kind) in members {
        let name = format!("type_of_{structure}_{field}");
        writeln!(text, "{}", kind.named(&name)).unwrap();
        writeln!(text, "SAME(memflow_{structure}, {field}, {name}, \"differs: {structure}.{field}\");").unwrap();
    }
    text + "int main(void) { return 0; }\n"
}

/// The members that a compiler finds to be of other types.
fn differing(language: &[&str], include: &Path, name: &str, program: &str) -> Vec<String> {
    let object = c::object(language, name);
    let output = c::output(c::compiler(language, include, name, program).arg("-c").arg("-o").arg(object));
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    // Each message is shown with the line that it comes from: one of both is enough.
    let messages = errors.lines().filter(|line| line.contains("error") && line.contains("assert"));
    let mut found: Vec<String> =
        messages.filter_map(|line| Some(line.split_once("differs: ")?.1.trim_end_matches('"').to_owned())).collect();
    found.dedup();
    assert_eq!(output.status.success(), found.is_empty(), "{errors}");
    found
}

fn types() -> impl Iterator<Item = (&'static str, &'static str, Type)> {
    members().map(|(structure, field)| (structure.name, field.name, Type::parse(field.rust_type)))
}

#[test]
fn members_have_the_same_types_in_both_languages() {
    for language in [c::C, c::CPP] {
        let found = differing(language, &c::include(), "signatures", &program(types()));
        assert_eq!(found, [""; 0], "{} sees other types in the header than the crate has", language[0]);
    }
}

/// What a version had keeps its type: of a plugin that was built against it, only sizes are seen when it is loaded.
#[test]
fn members_of_frozen_headers_have_the_types_of_today() {
    for ((major, minor), folder) in common::frozen() {
        let record = common::Record::parse(&fs::read_to_string(folder.join("layout-64.txt")).unwrap());
        let known = |structure: &str, field: &str| {
            let found = record.structures.iter().find(|known| known.name == structure);
            found.is_some_and(|known| known.fields.iter().any(|known| known.name == field))
        };
        let program = program(types().filter(|(structure, field, _)| known(structure, field)));
        for language in [c::C, c::CPP] {
            let found = differing(language, &folder, &format!("signatures-{major}-{minor}"), &program);
            assert_eq!(found, [""; 0], "types of {major}.{minor} that changed since");
        }
    }
}

/// `kind` with another type in each place in turn.
fn changed(kind: &Type) -> Vec<Type> {
    match kind {
        Type::Plain(name) => vec![Type::Plain(if name == "int32_t" { "uint32_t" } else { "int32_t" }.to_owned())],
        Type::Pointer { constant, to } => {
            let other = Type::Pointer { constant: !constant, to: to.clone() };
            let through = |to| Type::Pointer { constant: *constant, to: Box::new(to) };
            changed(to).into_iter().map(through).chain([other]).collect()
        }
        Type::Function { arguments, returns } => {
            let mut all = Vec::new();
            for (index, argument) in arguments.iter().enumerate() {
                for other in changed(argument) {
                    let mut arguments = arguments.clone();
                    arguments[index] = other;
                    all.push(Type::Function { arguments, returns: returns.clone() });
                }
            }
            let other = |returns| Type::Function { arguments: arguments.clone(), returns: Box::new(returns) };
            all.extend(changed(returns).into_iter().map(other));
            let more = arguments.iter().cloned().chain([Type::Plain("int32_t".to_owned())]).collect();
            all.push(Type::Function { arguments: more, returns: returns.clone() });
            all
        }
    }
}

#[test]
fn any_other_type_in_any_place_is_found() {
    // A name of its own for each variant of a member: `structure.field` then has several lines in the program.
    let variants: Vec<_> = types()
        .flat_map(|(structure, field, kind)| changed(&kind).into_iter().map(move |other| (structure, field, other)))
        .collect();
    assert!(variants.len() > 300, "only {} variants", variants.len());
    let mut text = String::new();
    for (index, (structure, field, kind)) in variants.iter().enumerate() {
        let name = format!("variant_{index}");
        writeln!(text, "{}", kind.named(&name)).unwrap();
        writeln!(text, "SAME(memflow_{structure}, {field}, {name}, \"differs: {structure}.{field} {index}\");")
            .unwrap();
    }
    let program = program(std::iter::empty()).replace("int main", &format!("{text}int main"));
    let expected: Vec<_> = variants
        .iter()
        .enumerate()
        .map(|(index, (structure, field, _))| format!("{structure}.{field} {index}"))
        .collect();
    for language in [c::C, c::CPP] {
        let unlimited = [language, &["-fmax-errors=0"]].concat();
        let found = differing(&unlimited, &c::include(), "other-signatures", &program);
        let missed: Vec<_> = expected.iter().filter(|variant| !found.contains(variant)).collect();
        assert!(missed.is_empty(), "{} takes other types in {missed:?}", language[0]);
        assert_eq!(found.len(), expected.len(), "{}", language[0]);
    }
}

#[test]
fn source_text_becomes_the_type_in_c() {
    let function = "Option<extern \"C\" fn(context: *mut c_void,\n    record: *const Header,) -> i32,>";
    assert_eq!(Type::parse(function).in_c(), "int32_t (*)(void *, memflow_Header const *)");
    assert_eq!(Type::parse(function).named("f"), "typedef int32_t (*f)(void *, memflow_Header const *);");
    assert_eq!(Type::parse("Option<extern \"C\" fn()>").in_c(), "void (*)(void)");
    assert_eq!(Type::parse("Grows<Failure>").named("g"), "typedef memflow_Failure const * g;");
    assert_eq!(Type::parse("*const *mut usize").in_c(), "size_t * const *");
}
