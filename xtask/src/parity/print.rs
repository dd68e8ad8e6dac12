//! Rust source from rustdoc's JSON: types, bounds and generics as they stand in std's signatures.
//!
//! A type that has a public path in the mirrored modules is written with a `$` (`$net::TcpStream`),
//! so that the same text can name std's and ours; any other by its path in std.

use std::collections::{BTreeSet, HashMap};

use serde_json::Value;

/// Where an item is defined, such as `std::net::tcp::TcpStream`, to its path in a mirrored module,
/// such as `net::TcpStream`.
pub type Names = HashMap<String, String>;

/// What needs no path.
const PRELUDE: &[&str] = &[
    "AsRef",
    "Box",
    "Clone",
    "Copy",
    "Default",
    "Eq",
    "Fn",
    "FnMut",
    "FnOnce",
    "From",
    "Into",
    "IntoIterator",
    "Iterator",
    "Option",
    "Ord",
    "PartialEq",
    "PartialOrd",
    "Send",
    "Sized",
    "String",
    "Sync",
    "TryFrom",
    "Unpin",
    "Vec",
];

/// What becomes of a lifetime that the source leaves out.
enum Elided {
    /// It stays left out: the place where it stands has a rule of its own.
    Keep,
    /// Each gets a name that begins so, which is added here.
    Name(&'static str, Vec<String>),
    /// It is this one.
    Is(String),
}

/// Writes types of one crate.
pub struct Printer<'a> {
    /// rustdoc's table of what each id stands for.
    paths: &'a Value,
    names: &'a Names,
    /// What `Self` stands for.
    pub self_type: String,
    elided: Elided,
    /// Parameters that are not written, nor what is bound by them: those for unstable allocators.
    left_out: BTreeSet<String>,
    /// Parameters that `impl Trait` arguments became.
    extra: Vec<(String, String)>,
    /// Whether something was written that is for systems other than Unix: rustdoc sees them all.
    pub is_of_other_os: bool,
    /// Every mirrored path that was written.
    pub mentioned: Vec<String>,
}

/// Parameters and what is asked of them.
#[derive(Clone, Default)]
pub struct Generics {
    /// With their outlives bounds.
    pub lifetimes: Vec<(String, String)>,
    /// Types and constants with their bounds, such as `T: ?Sized` or `const N: usize`.
    pub types: Vec<(String, String)>,
    /// Predicates.
    pub wheres: Vec<String>,
}

impl Generics {
    /// Both, as for a method and its impl.
    pub fn and(&self, other: &Generics) -> Generics {
        let mut both = self.clone();
        both.lifetimes.extend(other.lifetimes.iter().cloned());
        both.types.extend(other.types.iter().cloned());
        both.wheres.extend(other.wheres.iter().cloned());
        both
    }

    /// `<'a, T: Send>`, or nothing.
    pub fn params(&self) -> String {
        let all = self.lifetimes.iter().chain(&self.types);
        in_angles(all.map(|(name, bounds)| match bounds.as_str() {
            "" => name.clone(),
            bounds => format!("{name}: {bounds}"),
        }))
    }

    /// `<'a, T>`, or nothing.
    pub fn args(&self) -> String {
        let all = self.lifetimes.iter().chain(&self.types);
        in_angles(all.map(|(name, _)| plain(name)))
    }

    /// `<T>`, or nothing.
    pub fn type_args(&self) -> String {
        in_angles(self.types.iter().map(|(name, _)| plain(name)))
    }

    /// ` where T: Send`, or nothing.
    pub fn where_clause(&self) -> String {
        match self.wheres.join(", ").as_str() {
            "" => String::new(),
            wheres => format!(" where {wheres}"),
        }
    }
}

/// `N` of `const N`.
pub fn plain(name: &str) -> String {
    name.strip_prefix("const ").unwrap_or(name).to_owned()
}

/// `<a, b>`, or nothing if there are none.
pub fn in_angles(parts: impl Iterator<Item = String>) -> String {
    match parts.collect::<Vec<_>>().join(", ").as_str() {
        "" => String::new(),
        parts => format!("<{parts}>"),
    }
}

impl<'a> Printer<'a> {
    pub fn new(paths: &'a Value, names: &'a Names, self_type: &str) -> Printer<'a> {
        Printer {
            paths,
            names,
            self_type: self_type.to_owned(),
            elided: Elided::Keep,
            left_out: BTreeSet::new(),
            extra: Vec::new(),
            is_of_other_os: false,
            mentioned: Vec::new(),
        }
    }

    /// The signature of a function. `late` are those of its lifetimes that a pointer's `for<…>`
    /// declares.
    pub fn signature(&mut self, function: &Value, late: &[String]) -> Signature {
        let sig = &function["sig"];
        let mut lifetimes: Vec<String> = late.to_vec();
        let mut of_self = None;
        let mut inputs = Vec::new();
        for (at, input) in list(&sig["inputs"]).iter().enumerate() {
            // Numbered on, so that no two arguments share a name.
            self.elided = Elided::Name("'e", vec![String::new(); lifetimes.len()]);
            let text = self.ty(&input[1]);
            let fresh = &self.named()[lifetimes.len()..];
            if at == 0 && input[0] == "self" {
                of_self = fresh.first().cloned().or_else(|| first_lifetime(&text));
            }
            lifetimes.extend(fresh.iter().cloned());
            inputs.push(text);
        }
        if let Some(lifetime) = of_self.or_else(|| lifetimes.first().cloned()) {
            self.elided = Elided::Is(lifetime);
        }
        let output = match &sig["output"] {
            Value::Null => String::new(),
            output => format!(" -> {}", self.ty(output)),
        };
        self.elided = Elided::Keep;
        let qualifiers = qualifiers(&function["header"]);
        let has_self = sig["inputs"][0][0] == "self";
        Signature {
            has_self,
            lifetimes,
            inputs,
            output,
            qualifiers,
            extra: std::mem::take(&mut self.extra),
        }
    }

    /// The parameters of an impl, and as `Self` the type that it is for.
    pub fn impl_self(&mut self, imp: &Value) -> Generics {
        let mut generics = self.generics(&imp["generics"]);
        self.mentioned.clear(); // What only bounds name does not count.
        self.elided = Elided::Name("'i", Vec::new());
        self.self_type = self.ty(&imp["for"]);
        generics.lifetimes.extend(self.named().into_iter().map(|name| (name, String::new())));
        generics
    }

    /// Ends the naming of elided lifetimes, and returns the names.
    fn named(&mut self) -> Vec<String> {
        match std::mem::replace(&mut self.elided, Elided::Keep) {
            Elided::Name(_, names) => names,
            _ => Vec::new(),
        }
    }

    /// The header of an impl: its parameters, its trait with associated types, the type it is for.
    pub fn impl_header(&mut self, imp: &Value, types: &[(String, &Value)]) -> ImplHeader {
        let mut generics = self.impl_self(imp);
        let for_type = self.self_type.clone();
        let of_type = std::mem::take(&mut self.mentioned);
        let name = self.path(&imp["trait"]["id"], &imp["trait"]["path"]);
        let of_trait = std::mem::take(&mut self.mentioned);
        self.elided = Elided::Name("'t", Vec::new());
        let args = self.args(&imp["trait"]["args"]);
        generics.lifetimes.extend(self.named().into_iter().map(|name| (name, String::new())));
        let of_args = std::mem::take(&mut self.mentioned);
        let associated: Vec<String> =
            types.iter().map(|(name, ty)| format!("{name} = {}", self.ty(ty))).collect();
        self.mentioned.clear();
        let trait_name = format!("{name}{args}");
        let constrained = match (args.strip_suffix('>'), associated.is_empty()) {
            (_, true) => trait_name.clone(),
            (Some(open), false) => format!("{name}{open}, {}>", associated.join(", ")),
            (None, false) => format!("{name}<{}>", associated.join(", ")),
        };
        ImplHeader { generics, for_type, trait_name, constrained, of_type, of_trait, of_args }
    }

    pub fn generics(&mut self, generics: &Value) -> Generics {
        let params = list(&generics["params"]);
        let predicates = list(&generics["where_predicates"]);
        for param in params {
            let bounds = list(&param["kind"]["type"]["bounds"]);
            let of_where = predicates.iter().filter(|predicate| {
                predicate["bound_predicate"]["type"]["generic"] == param["name"]
            });
            let of_where =
                of_where.flat_map(|predicate| list(&predicate["bound_predicate"]["bounds"]));
            let is_allocator = |bound: &Value| bound["trait_bound"]["trait"]["path"] == "Allocator";
            if bounds.iter().chain(of_where).any(is_allocator) {
                self.left_out.insert(text(&param["name"]));
            }
        }
        let mut result = Generics::default();
        for param in params {
            let name = text(&param["name"]);
            if self.left_out.contains(&name) {
                continue;
            }
            let kind = &param["kind"];
            if let Some(lifetime) = kind.get("lifetime") {
                let outlives = list(&lifetime["outlives"]).iter().map(text);
                result.lifetimes.push((name, outlives.collect::<Vec<_>>().join(" + ")));
            } else if let Some(constant) = kind.get("const") {
                result.types.push((format!("const {name}"), self.ty(&constant["type"])));
            } else if kind["type"]["is_synthetic"] != true {
                let bounds = self.bounds(&kind["type"]["bounds"]);
                result.types.push((name, bounds));
            }
        }
        for predicate in predicates {
            result.wheres.extend(self.predicate(predicate));
        }
        result
    }

    fn predicate(&mut self, predicate: &Value) -> Option<String> {
        if let Some(bound) = predicate.get("bound_predicate") {
            let name = text(&bound["type"]["generic"]);
            let bounds = self.bounds(&bound["bounds"]);
            if self.left_out.contains(&name) || bounds.is_empty() {
                return None;
            }
            let higher = self.higher(&bound["generic_params"]);
            return Some(format!("{higher}{}: {bounds}", self.ty(&bound["type"])));
        }
        if let Some(bound) = predicate.get("lifetime_predicate") {
            let outlives: Vec<String> = list(&bound["outlives"]).iter().map(text).collect();
            return Some(format!("{}: {}", text(&bound["lifetime"]), outlives.join(" + ")));
        }
        None
    }

    /// `A + ?Sized + 'a`.
    pub fn bounds(&mut self, bounds: &Value) -> String {
        let elided = std::mem::replace(&mut self.elided, Elided::Keep);
        let written = list(bounds).iter().filter_map(|bound| self.bound(bound));
        let written = written.collect::<Vec<_>>().join(" + ");
        self.elided = elided;
        written
    }

    fn bound(&mut self, bound: &Value) -> Option<String> {
        let Some(bound) = bound.get("trait_bound") else {
            return bound["outlives"].as_str().map(str::to_owned);
        };
        let name = text(&bound["trait"]["path"]);
        if name.ends_with("Sealed") || name.ends_with("Destruct") || name.ends_with("Allocator") {
            return None; // Not to be named outside std.
        }
        let maybe = if bound["modifier"] == "maybe" { "?" } else { "" };
        let higher = self.higher(&bound["generic_params"]);
        Some(format!("{maybe}{higher}{}", self.trait_path(&bound["trait"])))
    }

    fn higher(&mut self, params: &Value) -> String {
        let names: Vec<String> = list(params).iter().map(|param| text(&param["name"])).collect();
        if names.is_empty() { String::new() } else { format!("for<{}> ", names.join(", ")) }
    }

    fn trait_path(&mut self, path: &Value) -> String {
        let name = self.path(&path["id"], &path["path"]);
        name + &self.args(&path["args"])
    }

    pub fn ty(&mut self, ty: &Value) -> String {
        let (kind, inner) = match ty.as_object().and_then(|object| object.iter().next()) {
            Some((kind, inner)) => (kind.as_str(), inner),
            None => return "_".to_owned(),
        };
        match kind {
            "generic" if inner == "Self" => self.self_type.clone(),
            "generic" => text(inner),
            "primitive" if inner == "never" => "!".to_owned(),
            "primitive" if inner == "unit" => "()".to_owned(),
            "primitive" => text(inner),
            "resolved_path" => self.trait_path(inner),
            "borrowed_ref" => {
                let lifetime = match inner["lifetime"].as_str() {
                    Some("'_") | None => self.elided_lifetime("").map(|name| name + " "),
                    Some(name) => Some(format!("{name} ")),
                };
                let mutable = if inner["is_mutable"] == true { "mut " } else { "" };
                let to = self.ty(&inner["type"]);
                let to = if to.starts_with("dyn ") && to.contains(" + ") {
                    format!("({to})")
                } else {
                    to
                };
                format!("&{}{mutable}{to}", lifetime.unwrap_or_default())
            }
            "raw_pointer" => {
                let mutable = if inner["is_mutable"] == true { "mut" } else { "const" };
                format!("*{mutable} {}", self.ty(&inner["type"]))
            }
            "tuple" => {
                let parts: Vec<String> = list(inner).iter().map(|part| self.ty(part)).collect();
                let comma = if parts.len() == 1 { "," } else { "" };
                format!("({}{comma})", parts.join(", "))
            }
            "slice" => format!("[{}]", self.ty(inner)),
            "array" => format!("[{}; {}]", self.ty(&inner["type"]), text(&inner["len"])),
            "dyn_trait" => {
                let elided = std::mem::replace(&mut self.elided, Elided::Keep);
                let mut parts: Vec<String> = Vec::new();
                for part in list(&inner["traits"]) {
                    let higher = self.higher(&part["generic_params"]);
                    parts.push(higher + &self.trait_path(&part["trait"]));
                }
                parts.extend(inner["lifetime"].as_str().map(str::to_owned));
                self.elided = elided;
                format!("dyn {}", parts.join(" + "))
            }
            "impl_trait" => {
                let name = format!("I{}", self.extra.len());
                let bounds = self.bounds(inner);
                self.extra.push((name.clone(), bounds));
                name
            }
            "function_pointer" => {
                let elided = std::mem::replace(&mut self.elided, Elided::Keep);
                let inputs = list(&inner["sig"]["inputs"]).iter().map(|input| self.ty(&input[1]));
                let inputs = inputs.collect::<Vec<_>>().join(", ");
                let output = match &inner["sig"]["output"] {
                    Value::Null => String::new(),
                    output => format!(" -> {}", self.ty(output)),
                };
                self.elided = elided;
                let higher = self.higher(&inner["generic_params"]);
                format!("{higher}{}fn({inputs}){output}", qualifiers(&inner["header"]))
            }
            "qualified_path" => {
                let of = self.ty(&inner["self_type"]);
                let name = text(&inner["name"]);
                match &inner["trait"] {
                    Value::Null => format!("<{of}>::{name}"),
                    of_trait => format!("<{of} as {}>::{name}", self.trait_path(of_trait)),
                }
            }
            _ => "_".to_owned(),
        }
    }

    fn args(&mut self, args: &Value) -> String {
        if let Some(args) = args.get("parenthesized") {
            let elided = std::mem::replace(&mut self.elided, Elided::Keep);
            let inputs: Vec<String> =
                list(&args["inputs"]).iter().map(|input| self.ty(input)).collect();
            let output = match &args["output"] {
                Value::Null => String::new(),
                output => format!(" -> {}", self.ty(output)),
            };
            self.elided = elided;
            return format!("({}){output}", inputs.join(", "));
        }
        let args = &args["angle_bracketed"];
        let mut parts = Vec::new();
        for arg in list(&args["args"]) {
            if let Some(lifetime) = arg["lifetime"].as_str() {
                let elided = if lifetime == "'_" { self.elided_lifetime("'_") } else { None };
                parts.push(elided.unwrap_or_else(|| lifetime.to_owned()));
            } else if let Some(constant) = arg.get("const") {
                parts.push(text(&constant["expr"]));
            } else if let Some(ty) = arg.get("type") {
                let is_left_out =
                    ty["generic"].as_str().is_some_and(|name| self.left_out.contains(name));
                if !is_left_out {
                    parts.push(self.ty(ty));
                }
            }
        }
        for constraint in list(&args["constraints"]) {
            let name = text(&constraint["name"]);
            let binding = &constraint["binding"];
            parts.push(match binding.get("constraint") {
                Some(bounds) => format!("{name}: {}", self.bounds(bounds)),
                None => format!("{name} = {}", self.ty(&binding["equality"]["type"])),
            });
        }
        in_angles(parts.into_iter())
    }

    fn elided_lifetime(&mut self, kept: &str) -> Option<String> {
        match &mut self.elided {
            Elided::Keep => (!kept.is_empty()).then(|| kept.to_owned()),
            Elided::Is(name) => Some(name.clone()),
            Elided::Name(start, names) => {
                let name = format!("{start}{}", names.len());
                names.push(name.clone());
                Some(name)
            }
        }
    }

    /// How the item with this id is called from outside std.
    fn path(&mut self, id: &Value, written: &Value) -> String {
        let Some(defined) = defining_path(self.paths, id) else { return text(written) };
        if defined == "std::io::error::RawOsError" {
            return "i32".to_owned(); // An unstable name for it.
        }
        if let Some(name) = self.names.get(&defined) {
            self.mentioned.push(name.clone());
            return format!("${name}");
        }
        // Everything else is where its top module says, with the private ones in between left out.
        let segments: Vec<&str> = defined.split("::").collect();
        match (segments.first(), segments.get(1), segments.last()) {
            (Some(&"std"), Some(&"os"), _) => {
                self.is_of_other_os = true;
                defined
            }
            (Some(_), _, Some(name)) if PRELUDE.contains(name) => (*name).to_owned(),
            (Some(&("std" | "core" | "alloc")), Some(module), Some(name)) if segments.len() > 2 => {
                format!("std::{module}::{name}")
            }
            _ => defined,
        }
    }
}

/// What [`Printer::signature`] gives.
pub struct Signature {
    /// Whether the first input is `self`.
    pub has_self: bool,
    /// Those of a pointer's `for<…>`.
    pub lifetimes: Vec<String>,
    pub inputs: Vec<String>,
    /// ` -> T`, or nothing.
    pub output: String,
    /// Such as `unsafe `, or nothing.
    pub qualifiers: String,
    /// Parameters that `impl Trait` arguments became, with their bounds.
    pub extra: Vec<(String, String)>,
}

impl Signature {
    /// As a pointer to such a function.
    pub fn pointer(&self) -> String {
        let higher = match self.lifetimes.join(", ").as_str() {
            "" => String::new(),
            lifetimes => format!("for<{lifetimes}> "),
        };
        format!("{higher}{}fn({}){}", self.qualifiers, self.inputs.join(", "), self.output)
    }
}

/// What [`Printer::impl_header`] gives.
pub struct ImplHeader {
    pub generics: Generics,
    pub for_type: String,
    pub trait_name: String,
    /// The trait with its associated types as the impl has them.
    pub constrained: String,
    /// The mirrored paths in each.
    pub of_type: Vec<String>,
    pub of_trait: Vec<String>,
    pub of_args: Vec<String>,
}

/// `std::net::tcp::TcpStream` for an id.
pub fn defining_path(paths: &Value, id: &Value) -> Option<String> {
    let path = list(&paths.get(id.as_u64()?.to_string())?["path"]);
    Some(path.iter().map(text).collect::<Vec<_>>().join("::"))
}

fn qualifiers(header: &Value) -> String {
    let mut words = String::new();
    if header["is_unsafe"] == true {
        words += "unsafe ";
    }
    if header["abi"].get("C").is_some() {
        words += "extern \"C\" ";
    }
    words
}

fn first_lifetime(text: &str) -> Option<String> {
    let start = text.find('\'')?;
    let name: String =
        text[start + 1..].chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
    Some(format!("'{name}"))
}

pub fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

pub fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
