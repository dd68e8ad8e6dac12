//! The committed list of std's items, `parity/std.txt`: a line for each, with tabs between its kind,
//! its name, its roots and the code that compiles where it is as in std.

use crate::command::{Failure, Outcome};

/// What an item is, and so what it means if its code does not compile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Module,
    /// A struct, enum, union, trait or type alias by itself, with its parameters.
    Type,
    /// Not an item: compiles where the type of that name is std's own.
    Own,
    /// A variant, a public field or an associated type.
    Field,
    /// A function or method.
    Function,
    /// A `const fn`, called in one.
    Constness,
    /// A constant or static.
    Value,
    Variance,
    /// A trait, for a type outside std.
    Implementing,
    Impl,
    /// That a type has an auto trait, or has it not.
    Auto,
    Macro,
    /// A second path to an item.
    Reexport,
}

const KINDS: &[(Kind, &str)] = &[
    (Kind::Module, "module"),
    (Kind::Type, "type"),
    (Kind::Own, "own"),
    (Kind::Field, "field"),
    (Kind::Function, "fn"),
    (Kind::Constness, "const-fn"),
    (Kind::Value, "value"),
    (Kind::Variance, "variance"),
    (Kind::Implementing, "implementing"),
    (Kind::Impl, "impl"),
    (Kind::Auto, "auto"),
    (Kind::Macro, "macro"),
    (Kind::Reexport, "reexport"),
];

/// An item of std.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    pub kind: Kind,
    pub name: String,
    /// The paths without which there cannot be such an item: it is not there yet if one of them
    /// is not. It is shown with the first.
    pub roots: Vec<String>,
    /// Rust, with `$` before each path that is to be ours, if we have it, else std's.
    pub code: String,
}

impl Item {
    pub fn new(kind: Kind, name: &str, roots: &[&str], code: String) -> Item {
        let roots = roots.iter().map(|&root| root.to_owned()).collect();
        Item { kind, name: name.to_owned(), roots, code }
    }

    /// Where it is shown: the number of its module, and its first root.
    pub fn place(&self) -> (usize, &str) {
        let root = self.roots[0].as_str();
        (module_of(root), root)
    }
}

/// The number of the module that `path` is in.
pub fn module_of(path: &str) -> usize {
    let is_in = |module: &&str| {
        path.strip_prefix(*module).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
    };
    // `thread_local!` is at the root, and what is left is `thread`'s.
    super::extract::MODULES.iter().position(is_in).unwrap_or(0)
}

/// The list as a file, for std of Rust `version`.
pub fn write(version: &str, items: &[Item]) -> String {
    let mut text = format!(
        "# std {version}: public stable items of the modules that strands mirrors.\n\
         # Made by `cargo xtask parity --extract`, never by hand.\n\
         # kind, name, roots, code; `$` stands before each path that is tried as ours.\n"
    );
    for item in items {
        let (_, kind) = KINDS.iter().find(|(kind, _)| *kind == item.kind).expect("all are listed");
        text += &format!("{kind}\t{}\t{}\t{}\n", item.name, item.roots.join(" "), item.code);
    }
    text
}

/// The version and the items of such a file.
pub fn read(text: &str) -> Outcome<(String, Vec<Item>)> {
    let bad = |line: &str| Failure::Failed(format!("parity/std.txt: cannot read `{line}`"));
    let first = text.lines().next().unwrap_or_default();
    let version = first.strip_prefix("# std ").and_then(|rest| rest.split(':').next());
    let version = version.ok_or_else(|| bad(first))?.to_owned();
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let items = lines.map(|line| parse(line).ok_or_else(|| bad(line)));
    Ok((version, items.collect::<Outcome<_>>()?))
}

fn parse(line: &str) -> Option<Item> {
    let mut fields = line.split('\t');
    let word = fields.next()?;
    let (kind, _) = KINDS.iter().find(|(_, name)| *name == word)?;
    let name = fields.next()?;
    let roots: Vec<&str> = fields.next()?.split(' ').collect();
    Some(Item::new(*kind, name, &roots, fields.next()?.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_read_as_it_was_written() {
        let items = vec![
            Item::new(Kind::Module, "os::fd", &["os::fd"], String::new()),
            Item::new(Kind::Impl, "impl A<B> for C", &["a::C", "a::B"], "fn p() {}".into()),
        ];
        let text = write("1.95", &items);
        assert_eq!(read(&text).unwrap(), ("1.95".to_owned(), items));
        assert!(read("# std 1.95: x\nfn\tno roots\n").is_err());
        assert!(read("no version\n").is_err());
    }

    #[test]
    fn a_path_belongs_to_one_module() {
        let module = |path| super::super::extract::MODULES[module_of(path)];
        assert_eq!(module("os::unix::io"), "os::unix");
        assert_eq!(module("sync"), "sync");
        assert_eq!(module("thread_local"), "thread");
    }
}
