//! `cargo xtask licences`: whoever uses strands owes nobody more than a notice.
//!
//! Every package that `cargo metadata` lists for any platform must be usable under a licence of the
//! list below. This reads what the packages declare. cargo-deny, which also reads their licence
//! files, takes three minutes to build and was turned down for a check that runs on each change.

use crate::command::{Outcome, fail_if_any};
use crate::workspace::{Package, Workspace};

/// SPDX names of licences that ask for a notice at most. Extending the list is a decision of its
/// own.
const ALLOWED: &[&str] = &[
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "ISC",
    "MIT",
    "MIT-0",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

/// Checks the workspace.
pub fn run() -> Outcome {
    check(&Workspace::load()?)
}

/// Checks all that `workspace` depends on, and its own crates.
pub fn check(workspace: &Workspace) -> Outcome {
    println!("(compare the licences of {} packages with the list)", workspace.packages.len());
    let findings: Vec<String> = workspace.packages.iter().filter_map(finding).collect();
    for finding in &findings {
        println!("{finding}");
    }
    fail_if_any(findings)
}

fn finding(package: &Package) -> Option<String> {
    let name = format!("{} {}", package.name, package.version);
    let Some(licence) = &package.licence else {
        return Some(format!("{name} declares no licence: replace it, or ask its author to"));
    };
    match is_allowed(licence) {
        Ok(true) => None,
        Ok(false) => Some(format!(
            "{name} is under `{licence}`, which the list in xtask/src/licences.rs does not allow: \
             replace it (`cargo tree -i {} --target all` says who needs it)",
            package.name
        )),
        Err(error) => Some(format!("{name}: cannot read its licence `{licence}`: {error}")),
    }
}

/// Whether `expression` lets us choose licences that are all on the list.
///
/// It is an SPDX expression: AND binds more tightly than OR. Old manifests write `/` for OR.
fn is_allowed(expression: &str) -> Result<bool, String> {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let mut parser = Parser { words: spaced.split_whitespace().collect(), next: 0 };
    let allowed = parser.any()?;
    match parser.peek() {
        None => Ok(allowed),
        Some(word) => Err(format!("unexpected `{word}`")),
    }
}

struct Parser<'a> {
    words: Vec<&'a str>,
    next: usize,
}

impl<'a> Parser<'a> {
    fn any(&mut self) -> Result<bool, String> {
        let mut allowed = self.every()?;
        while self.eat("OR") {
            allowed |= self.every()?;
        }
        Ok(allowed)
    }

    fn every(&mut self) -> Result<bool, String> {
        let mut allowed = self.one()?;
        while self.eat("AND") {
            allowed &= self.one()?;
        }
        Ok(allowed)
    }

    fn one(&mut self) -> Result<bool, String> {
        if self.eat("(") {
            let allowed = self.any()?;
            return if self.eat(")") { Ok(allowed) } else { Err("a `)` is missing".into()) };
        }
        let mut name = self.name()?.to_owned();
        if self.eat("WITH") {
            name = format!("{name} WITH {}", self.name()?);
        }
        Ok(ALLOWED.contains(&&*name))
    }

    fn name(&mut self) -> Result<&'a str, String> {
        match self.peek() {
            None => Err("it ends early".into()),
            Some(word @ ("AND" | "OR" | "WITH" | "(" | ")")) => Err(format!("unexpected `{word}`")),
            Some(word) => {
                self.next += 1;
                Ok(word)
            }
        }
    }

    fn eat(&mut self, word: &str) -> bool {
        let found = self.peek() == Some(word);
        self.next += usize::from(found);
        found
    }

    fn peek(&self) -> Option<&'a str> {
        self.words.get(self.next).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_allowed_choice_is_enough_and_every_duty_counts() {
        let allowed = |expression| is_allowed(expression).unwrap();
        assert!(allowed("MIT"));
        assert!(!allowed("GPL-3.0-only"));
        assert!(allowed("GPL-3.0-only OR MIT"));
        assert!(!allowed("GPL-3.0-only AND MIT"));
        assert!(allowed("Unlicense/MIT"));
        assert!(allowed("(MIT OR Apache-2.0) AND Unicode-3.0"));
        assert!(!allowed("(MIT OR Apache-2.0) AND MPL-2.0"));
        // AND first: this is MIT OR (GPL AND GPL).
        assert!(allowed("MIT OR GPL-2.0-only AND GPL-3.0-only"));
        assert!(!allowed("(MIT OR GPL-2.0-only) AND GPL-3.0-only"));
    }

    #[test]
    fn an_exception_makes_another_licence() {
        assert_eq!(is_allowed("Apache-2.0 WITH LLVM-exception"), Ok(true));
        assert_eq!(is_allowed("GPL-2.0-only WITH Classpath-exception-2.0"), Ok(false));
        assert_eq!(is_allowed("MIT WITH LLVM-exception"), Ok(false));
    }

    #[test]
    fn what_is_no_expression_is_an_error() {
        for text in ["", "MIT OR", "AND MIT", "(MIT", "MIT)", "MIT Apache-2.0", "MIT WITH"] {
            assert!(is_allowed(text).is_err(), "{text}");
        }
    }
}
