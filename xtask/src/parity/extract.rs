//! The list of std's public stable items, from rustdoc's JSON.
//!
//! What std takes from core and alloc is compared as a whole, by the identity of the types; what std
//! defines itself, item by item.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::list::{Item, Kind};
use super::print::{Generics, Names, Printer, Signature, defining_path, in_angles, list, text};

/// The modules that strands mirrors. An item that is in two has its row where it is seen first.
pub const MODULES: &[&str] =
    &["thread", "sync", "net", "io", "fs", "process", "time", "os::fd", "os::unix"];

const AUTO_TRAITS: &[&str] = &["Send", "Sync", "Unpin", "UnwindSafe", "RefUnwindSafe"];

/// At the root of std, but part of `thread`.
const THREAD_LOCAL: &str = "\
    $thread_local! { \
    static A: std::cell::Cell<u8> = const { std::cell::Cell::new(1) }; \
    pub(super) static B: std::cell::RefCell<String> = std::cell::RefCell::default() } \
    $thread_local!(#[allow(unused)] pub static C: u8 = 1); \
    fn p() -> (u8, &'static $thread::LocalKey<std::cell::RefCell<String>>) { (A.get(), &B) }";

/// A type that fits each associated type of a trait that others than std may implement.
const ASSOCIATED: &[(&str, &str)] =
    &[("net::ToSocketAddrs::Iter", "std::vec::IntoIter<$net::SocketAddr>")];

/// A crate as rustdoc describes it.
pub struct Crate {
    json: Value,
}

impl Crate {
    pub fn new(json: Value) -> Crate {
        Crate { json }
    }

    fn item(&self, id: &Value) -> Option<&Value> {
        self.json["index"].get(id.as_u64()?.to_string())
    }

    fn paths(&self) -> &Value {
        &self.json["paths"]
    }

    fn defining_path(&self, id: &Value) -> Option<String> {
        defining_path(self.paths(), id)
    }

    /// The item that is defined at `path`.
    fn at(&self, path: &str) -> Option<&Value> {
        let paths = self.paths().as_object()?;
        let found = paths.keys().filter_map(|id| id.parse::<u64>().ok()).find(|id| {
            let id = Value::from(*id);
            self.defining_path(&id).as_deref() == Some(path)
                && self.item(&id).is_some_and(|item| kind(item).0 != "macro")
        });
        self.item(&Value::from(found?))
    }
}

/// What is public and stable in [`MODULES`].
struct Found<'a> {
    path: String,
    item: &'a Value,
    /// The crate that describes it, and whether that is another than std.
    of: &'a Crate,
    is_foreign: bool,
    /// Its own path, if `path` is another one.
    is_again: Option<String>,
}

/// Lists what was stable in Rust 1.`minor`, from std's description and those of the crates below it.
pub fn extract(std: &Crate, below: &[Crate], minor: u64) -> Vec<Item> {
    let mut walk = Walk { std, below, minor, names: Names::new(), found: vec![], items: vec![] };
    for module in MODULES {
        let item = std.at(&format!("std::{module}")).unwrap_or(&Value::Null);
        walk.module(std, item, module);
    }
    let Walk { names, found, mut items, .. } = walk;
    items.push(Item::new(Kind::Macro, "thread_local!", &["thread_local"], THREAD_LOCAL.into()));
    let mut writer = Writer { names: &names, minor, items };
    for found in &found {
        writer.item(found);
    }
    writer.impls(std);
    in_order(writer.items)
}

/// Finds the items and the names by which they are public.
struct Walk<'a> {
    std: &'a Crate,
    below: &'a [Crate],
    minor: u64,
    names: Names,
    found: Vec<Found<'a>>,
    items: Vec<Item>,
}

impl<'a> Walk<'a> {
    fn module(&mut self, of: &'a Crate, module: &'a Value, path: &str) {
        self.items.push(Item::new(Kind::Module, path, &[path], String::new()));
        self.contents(of, module, path);
    }

    fn contents(&mut self, of: &'a Crate, module: &'a Value, path: &str) {
        let minor = self.minor;
        let contents = list(&module["inner"]["module"]["items"]);
        let mut seen: Vec<&Value> = contents.iter().filter_map(|id| of.item(id)).collect();
        // Modules last: what they only show once more has its own place here.
        seen.sort_by_key(|item| kind(item).0 == "module");
        for item in seen.into_iter().filter(|item| is_stable(item, minor)) {
            let (kind, inner) = kind(item);
            match kind {
                "use" if inner["is_glob"] == true => {
                    if let Some(module) = of.item(&inner["id"]) {
                        self.contents(of, module, path);
                    }
                }
                "use" => self.reexport(of, inner, &join(path, &text(&inner["name"]))),
                "module" => self.module(of, item, &join(path, &text(&item["name"]))),
                _ => self.add(of, item, &item["id"], &join(path, &text(&item["name"]))),
            }
        }
    }

    fn reexport(&mut self, of: &'a Crate, inner: &'a Value, path: &str) {
        if let Some(item) = of.item(&inner["id"]) {
            if is_stable(item, self.minor) {
                self.add(of, item, &inner["id"], path);
            }
            return;
        }
        let Some(defined) = of.defining_path(&inner["id"]) else { return };
        let found = self.below.iter().find_map(|below| Some((below, below.at(&defined)?)));
        match found {
            Some((_, item)) if !is_stable(item, self.minor) => {}
            Some((below, item)) if kind(item).0 == "module" => self.module(below, item, path),
            Some((below, item)) => self.add(below, item, &item["id"], path),
            None => println!("(not described anywhere: {defined}, which is std::{path})"),
        }
    }

    fn add(&mut self, of: &'a Crate, item: &'a Value, id: &Value, path: &str) {
        let Some(defined) = of.defining_path(id) else {
            println!("(no path to std::{path})");
            return;
        };
        let is_again = self.names.get(&defined).cloned();
        if is_again.is_none() {
            self.names.insert(defined, path.to_owned());
        }
        let is_foreign = !std::ptr::eq(of, self.std);
        self.found.push(Found { path: path.to_owned(), item, of, is_foreign, is_again });
    }
}

/// Writes what has to compile.
struct Writer<'a> {
    names: &'a Names,
    minor: u64,
    items: Vec<Item>,
}

impl Writer<'_> {
    fn push(&mut self, kind: Kind, name: &str, roots: &[&str], code: String) {
        self.items.push(Item::new(kind, name, roots, code));
    }

    fn item(&mut self, found: &Found) {
        let Found { path, item, of, is_foreign, is_again } = found;
        let (kind, inner) = kind(item);
        let mut printer = Printer::new(of.paths(), self.names, "");
        if let Some(first) = is_again {
            let generics = printer.generics(&inner["generics"]);
            let code = match kind {
                "trait" => same_trait(&format!("${first}"), &format!("${path}")),
                "function" | "constant" | "macro" => String::new(),
                _ => same_type(&format!("${first}"), &format!("${path}"), &generics),
            };
            self.push(Kind::Reexport, &format!("{path} (= {first})"), &[path, first], code);
            return;
        }
        match kind {
            "function" => self.function(
                &mut printer,
                path,
                &format!("${path}"),
                &Generics::default(),
                item,
                path,
            ),
            "constant" => {
                let ty = printer.ty(&inner["type"]);
                self.push(Kind::Value, path, &[path], format!("const _: {ty} = ${path};"));
            }
            "static" => {
                let ty = printer.ty(&inner["type"]);
                self.push(Kind::Value, path, &[path], format!("const _: &{ty} = &${path};"));
            }
            "type_alias" if !is_foreign => {
                let generics = printer.generics(&inner["generics"]);
                let (params, args) = (generics.params(), generics.args());
                let ty = printer.ty(&inner["type"]);
                let code = format!("fn p{params}(x: *const ${path}{args}) -> *const {ty} {{ x }}");
                self.push(Kind::Type, path, &[path], code);
            }
            "trait" => self.of_trait(&mut printer, path, of, inner),
            "struct" | "enum" | "union" | "type_alias" => {
                let generics = printer.generics(&inner["generics"]);
                let (params, args) = (generics.params(), generics.args());
                let wheres = generics.where_clause();
                let own = same_type(&format!("std::{path}"), &format!("${path}"), &generics);
                let ty = format!("${path}{args}");
                self.push(Kind::Own, path, &[path], own.clone());
                if *is_foreign {
                    self.push(Kind::Type, path, &[path], own);
                    return;
                }
                // Once with all parameters, once without those that have a default.
                let required = list(&inner["generics"]["params"]).iter();
                let required = required.filter(|param| param["kind"]["type"]["default"].is_null());
                let required = in_angles(required.map(|param| text(&param["name"])));
                let code = format!(
                    "fn p{params}(_: *const {ty}, _: *const ${path}{required}){wheres} {{}}"
                );
                self.push(Kind::Type, path, &[path], code);
                self.variance(path, &generics);
                printer.self_type.clone_from(&ty);
                match kind {
                    "enum" => self.variants(&mut printer, path, &generics, of, inner),
                    _ => self.fields(&mut printer, path, &generics, of, inner),
                }
                self.inherent(path, of, inner);
            }
            other => println!("(a {other} is not compared: std::{path})"),
        }
    }

    /// A coercion to the type of the function; for a `const fn` a call in a constant context too.
    fn function(
        &mut self,
        printer: &mut Printer,
        name: &str,
        expression: &str,
        outer: &Generics,
        item: &Value,
        root: &str,
    ) {
        let (_, function) = kind(item);
        let mut own = printer.generics(&function["generics"]);
        let type_args = own.type_args();
        // A lifetime that no bound names is the pointer's; others are the compiler's to infer.
        let bounds = own.params() + &own.where_clause();
        let (late, early): (Vec<_>, Vec<_>) = own.lifetimes.drain(..).partition(|(name, above)| {
            above.is_empty() && bounds.matches(name.as_str()).count() == 1
        });
        let late: Vec<String> = late.into_iter().map(|(name, _)| name).collect();
        own.lifetimes = early;
        let signature = printer.signature(function, &late);
        own.types.extend(signature.extra.iter().cloned());
        let generics = outer.and(&own);
        let (params, wheres) = (generics.params(), generics.where_clause());
        let expression = match type_args.as_str() {
            "" => expression.to_owned(),
            args => format!("{expression}::{args}"),
        };
        let pointer = signature.pointer();
        // An argument of the type, because it implies what the type asks of its parameters.
        let of = match printer.self_type.as_str() {
            "" => String::new(),
            of => format!("_: *const {of}"),
        };
        let code = format!("fn p{params}({of}){wheres} {{ let _: {pointer} = {expression}; }}");
        self.push(Kind::Function, name, &[root], code);
        if function["header"]["is_const"] == true {
            let code = call_in_const(&signature, generics, &expression);
            self.push(Kind::Constness, &format!("{name} in a const"), &[root], code);
        }
    }

    fn inherent(&mut self, path: &str, of: &Crate, inner: &Value) {
        for imp in list(&inner["impls"]).iter().filter_map(|id| of.item(id)) {
            let (_, inner) = kind(imp);
            if !inner["trait"].is_null() {
                continue;
            }
            let mut printer = Printer::new(of.paths(), self.names, "");
            let generics = printer.impl_self(inner);
            let ty = printer.self_type.clone();
            let special = shown(&ty);
            for item in list(&inner["items"]).iter().filter_map(|id| of.item(id)) {
                if !is_stable(item, self.minor) {
                    continue;
                }
                let name = text(&item["name"]);
                // `LocalKey<Cell<T>>` and `LocalKey<RefCell<T>>` may have methods of one name.
                let called = join(if is_general(&inner["for"]) { path } else { &special }, &name);
                let expression = format!("<{ty}>::{name}");
                match kind(item) {
                    ("function", _) => {
                        self.function(&mut printer, &called, &expression, &generics, item, path);
                    }
                    ("assoc_const", constant) => {
                        let of_type = printer.ty(&constant["type"]);
                        let (params, wheres) = (generics.params(), generics.where_clause());
                        let code = format!(
                            "fn p{params}(){wheres} {{ let _: {of_type} = {expression}; }}"
                        );
                        self.push(Kind::Value, &called, &[path], code);
                    }
                    _ => {}
                }
            }
        }
    }

    fn variants(
        &mut self,
        printer: &mut Printer,
        path: &str,
        generics: &Generics,
        of: &Crate,
        inner: &Value,
    ) {
        let (params, wheres) = (generics.params(), generics.where_clause());
        let ty = printer.self_type.clone();
        for variant in list(&inner["variants"]).iter().filter_map(|id| of.item(id)) {
            if !is_stable(variant, self.minor) {
                continue;
            }
            let name = text(&variant["name"]);
            let of_variant = match &variant["inner"]["variant"]["kind"]["tuple"] {
                Value::Null => ty.clone(),
                fields => {
                    let fields = list(fields).iter().filter_map(|id| of.item(id));
                    let types = fields.map(|field| printer.ty(kind(field).1));
                    format!("fn({}) -> {ty}", types.collect::<Vec<_>>().join(", "))
                }
            };
            let code =
                format!("fn p{params}(){wheres} {{ let _: {of_variant} = ${path}::{name}; }}");
            self.push(Kind::Field, &join(path, &name), &[path], code);
        }
    }

    fn fields(
        &mut self,
        printer: &mut Printer,
        path: &str,
        generics: &Generics,
        of: &Crate,
        inner: &Value,
    ) {
        let (params, wheres) = (generics.params(), generics.where_clause());
        let ty = printer.self_type.clone();
        let (plain, tuple) = (&inner["kind"]["plain"]["fields"], &inner["kind"]["tuple"]);
        let fields = list(plain).iter().chain(list(tuple)).filter_map(|id| of.item(id));
        let minor = self.minor;
        for field in fields.filter(|field| is_stable(field, minor)) {
            let name = text(&field["name"]);
            let of_field = printer.ty(kind(field).1);
            let code =
                format!("fn p{params}(x: &{ty}){wheres} {{ let _: &{of_field} = &x.{name}; }}");
            self.push(Kind::Field, &format!("{path}.{name}"), &[path], code);
        }
    }

    /// Whether a long lifetime may become a short one, one parameter after the other. Those in which
    /// std's is invariant do not compile, and fall out when the list is tried against std.
    fn variance(&mut self, path: &str, generics: &Generics) {
        let all: Vec<&(String, String)> =
            generics.lifetimes.iter().chain(&generics.types).collect();
        for (at, (name, _)) in all.iter().enumerate() {
            let with = |lifetime: &str| {
                let args = all.iter().enumerate().map(|(other, (name, _))| {
                    let is_lifetime = name.starts_with('\'');
                    match (other == at, is_lifetime, name.starts_with("const ")) {
                        (true, true, _) => lifetime.to_owned(),
                        (true, false, false) => format!("&{lifetime} u8"),
                        (false, true, _) => "'static".to_owned(),
                        (_, _, true) => "1".to_owned(),
                        (false, false, false) => "u8".to_owned(),
                    }
                });
                format!("*const ${path}{}", in_angles(args))
            };
            let (long, short) = (with("'long"), with("'short"));
            let code = format!("fn p<'short, 'long: 'short>(x: {long}) -> {short} {{ x }}");
            self.push(Kind::Variance, &format!("{path} is covariant in {name}"), &[path], code);
        }
    }

    fn of_trait(&mut self, printer: &mut Printer, path: &str, of: &Crate, inner: &Value) {
        let ty = format!("${path}");
        printer.self_type = "X".to_owned();
        let code = match printer.bounds(&inner["bounds"]).as_str() {
            "" => format!("fn p<X: ?Sized + {ty}>() {{}}"),
            above => format!(
                "fn p<X: ?Sized + {ty}>() {{ fn is<Y: ?Sized + {above}>() {{}} is::<X>() }}"
            ),
        };
        self.push(Kind::Type, path, &[path], code);
        let own = same_trait(&format!("std::{path}"), &ty);
        self.push(Kind::Own, path, &[path], own);
        self.implementing(path, of, inner);
        let outer = Generics { types: vec![("X".to_owned(), ty.clone())], ..Generics::default() };
        for item in list(&inner["items"]).iter().filter_map(|id| of.item(id)) {
            let name = text(&item["name"]);
            let called = join(path, &name);
            if !is_stable(item, self.minor) {
                continue;
            }
            match kind(item) {
                ("function", _) => {
                    let expression = format!("<X as {ty}>::{name}");
                    self.function(printer, &called, &expression, &outer, item, path);
                }
                ("assoc_type", associated) => {
                    let code = match printer.bounds(&associated["bounds"]).as_str() {
                        "" => format!("type P<X> = <X as {ty}>::{name};"),
                        bounds => format!(
                            "fn p<X: {ty}>() {{ fn is<Y: {bounds}>() {{}} is::<X::{name}>() }}"
                        ),
                    };
                    self.push(Kind::Field, &called, &[path], code);
                }
                (other, _) => println!("(a {other} is not compared: std::{called})"),
            }
        }
    }

    /// The trait, with what it requires and no more, for a type outside std. Those that are sealed do
    /// not compile, and fall out when the list is tried against std.
    fn implementing(&mut self, path: &str, of: &Crate, inner: &Value) {
        let mut printer = Printer::new(of.paths(), self.names, "Own");
        let mut body = String::new();
        for item in list(&inner["items"]).iter().filter_map(|id| of.item(id)) {
            let name = text(&item["name"]);
            match kind(item) {
                ("function", function) if function["has_body"] == false => {
                    let own = printer.generics(&function["generics"]);
                    let signature = printer.signature(function, &[]);
                    body += &required_function(&name, &signature, own);
                }
                ("assoc_type", _) => {
                    let ty = ASSOCIATED.iter().find(|(of, _)| *of == join(path, &name));
                    let Some((_, ty)) = ty else {
                        println!("(not implemented for an own type: {path}: no {name})");
                        return;
                    };
                    body += &format!(" type {name} = {ty};");
                }
                _ => {}
            }
        }
        let code = format!("struct Own; impl ${path} for Own {{{body} }}");
        let name = format!("{path} for a type of one's own");
        self.push(Kind::Implementing, &name, &[path], code);
    }

    /// Every impl for a type, or of a trait, of the mirrored modules.
    fn impls(&mut self, of: &Crate) {
        let all = of.json["index"].as_object().into_iter().flat_map(|index| index.values());
        for item in all {
            let (kind_name, imp) = kind(item);
            let is_blanket = !imp["blanket_impl"].is_null();
            if kind_name != "impl" || imp["trait"].is_null() || is_blanket {
                continue;
            }
            let of_trait = of.item(&imp["trait"]["id"]);
            let stable_trait = of_trait.is_none_or(|item| is_stable(item, self.minor));
            if is_stable(item, self.minor) && stable_trait {
                self.one_impl(of, imp);
            }
        }
    }

    fn one_impl(&mut self, of: &Crate, imp: &Value) {
        let items = list(&imp["items"]).iter().filter_map(|id| of.item(id));
        let types = items.filter_map(|item| match kind(item) {
            ("assoc_type", associated) if list(&associated["generics"]["params"]).is_empty() => {
                Some((text(&item["name"]), &associated["type"]))
            }
            _ => None,
        });
        let types: Vec<(String, &Value)> = types.collect();
        let mut printer = Printer::new(of.paths(), self.names, "");
        let header = printer.impl_header(imp, &types);
        let mentioned = header.of_type.iter().chain(&header.of_args);
        let mut roots: Vec<&str> = mentioned.map(String::as_str).collect();
        if roots.is_empty() {
            roots.extend(header.of_trait.iter().map(String::as_str));
        }
        let mut seen = BTreeSet::new();
        roots.retain(|root| seen.insert(*root));
        let trait_name = text(&imp["trait"]["path"]);
        let trait_name = trait_name.rsplit("::").next().unwrap_or_default();
        // Whether the type itself or its fields need dropping is nobody's business.
        if roots.is_empty() || printer.is_of_other_os || trait_name == "Drop" {
            return;
        }
        let is_auto = AUTO_TRAITS.contains(&trait_name);
        let mut generics = header.generics.clone();
        let (ty, constrained) = (&header.for_type, &header.constrained);
        let described = shown(&format!("{} for {ty}", header.trait_name));
        if imp["is_negative"] == true {
            if is_auto {
                for (_, bounds) in &mut generics.types {
                    let plus = if bounds.is_empty() { "" } else { " + " };
                    *bounds += plus;
                    *bounds += "Send + Sync + Unpin + std::panic::UnwindSafe \
                                + std::panic::RefUnwindSafe + 'static";
                }
                let (params, wheres) = (generics.params(), generics.where_clause());
                // Two traits would fit a type that has the auto trait, and the call be ambiguous.
                let code = format!(
                    "fn p{params}(_: *const {ty}){wheres} {{ trait Not<A> {{ fn not() {{}} }} \
                     impl<Y: ?Sized> Not<u8> for Y {{}} \
                     impl<Y: ?Sized + {constrained}> Not<u16> for Y {{}} <{ty} as Not<_>>::not() }}"
                );
                self.push(Kind::Auto, &format!("impl !{described}"), &roots, code);
            }
            return;
        }
        if imp["is_synthetic"] == true
            && let Some(item) = of.item(&imp["for"]["resolved_path"]["id"])
        {
            // rustdoc leaves out what the type asks of its parameters anyway.
            let declared = printer.generics(&kind(item).1["generics"]);
            for (name, bounds) in declared.types {
                let mut bounds: Vec<&str> = bounds.split(" + ").collect();
                bounds.retain(|bound| !matches!(*bound, "" | "?Sized"));
                if !bounds.is_empty() {
                    generics.wheres.push(format!("{name}: {}", bounds.join(" + ")));
                }
            }
            generics.wheres.extend(declared.wheres);
        }
        let (params, type_args) = (generics.params(), generics.type_args());
        let wheres = generics.where_clause();
        generics.wheres.push(format!("{ty}: {constrained}"));
        let asked = generics.where_clause();
        // Where the inner function is called, the compiler has to prove what it asks for.
        let code = format!(
            "fn p{params}(x: *const {ty}){wheres} {{ fn is{params}(_: *const {ty}){asked} {{}} \
             is::{type_args}(x) }}"
        )
        .replace("is::(", "is(");
        let kind = if is_auto { Kind::Auto } else { Kind::Impl };
        self.push(kind, &format!("impl {described}"), &roots, code);
    }
}

/// A function of a trait, as an impl has it.
fn required_function(name: &str, signature: &Signature, mut generics: Generics) -> String {
    let elided = signature.lifetimes.iter().map(|name| (name.clone(), String::new()));
    generics.lifetimes.extend(elided);
    generics.types.extend(signature.extra.iter().cloned());
    let inputs = signature.inputs.iter().enumerate();
    let inputs: Vec<String> = inputs
        .map(|(at, ty)| match at {
            0 if signature.has_self => format!("self: {ty}"),
            _ => format!("_: {ty}"),
        })
        .collect();
    let (params, wheres) = (generics.params(), generics.where_clause());
    let (qualifiers, inputs, output) =
        (&signature.qualifiers, inputs.join(", "), &signature.output);
    format!(" {qualifiers}fn {name}{params}({inputs}){output}{wheres} {{ loop {{}} }}")
}

/// Compiles if both paths lead to the same type.
fn same_type(one: &str, other: &str, generics: &Generics) -> String {
    let (params, args) = (generics.params(), generics.args());
    let wheres = generics.where_clause();
    format!("fn p{params}(x: *const {one}{args}) -> *const {other}{args}{wheres} {{ x }}")
}

/// Compiles if all that has the one trait has the other.
fn same_trait(one: &str, other: &str) -> String {
    format!(
        "fn p<X: {one}, Y: {other}>() {{ fn is_one<Z: {one}>() {{}} \
         fn is_other<Z: {other}>() {{}} is_other::<X>(); is_one::<Y>() }}"
    )
}

/// Whether nothing but parameters is in the place of a type's parameters.
fn is_general(ty: &Value) -> bool {
    let args = list(&ty["resolved_path"]["args"]["angle_bracketed"]["args"]);
    args.iter().filter_map(|arg| arg.get("type")).all(|ty| ty["generic"].is_string())
}

/// Calls a `const fn` in another.
fn call_in_const(signature: &Signature, mut generics: Generics, expression: &str) -> String {
    let lifetimes = signature.lifetimes.iter().map(|name| (name.clone(), String::new()));
    generics.lifetimes.extend(lifetimes);
    let inputs = signature.inputs.iter().enumerate();
    let arguments: Vec<String> = inputs.clone().map(|(at, ty)| format!("a{at}: {ty}")).collect();
    let names: Vec<String> = inputs.map(|(at, _)| format!("a{at}")).collect();
    let (params, wheres) = (generics.params(), generics.where_clause());
    format!(
        "const {}fn p{params}({}){}{wheres} {{ {expression}({}) }}",
        signature.qualifiers,
        arguments.join(", "),
        signature.output,
        names.join(", ")
    )
}

/// The items in order; where two have one name, as two impls of one trait can, their parameters are
/// added to it.
fn in_order(items: Vec<Item>) -> Vec<Item> {
    let mut count = BTreeMap::new();
    for item in &items {
        *count.entry((item.kind == Kind::Own, item.name.clone())).or_insert(0) += 1;
    }
    let mut items: Vec<Item> = items
        .into_iter()
        .map(|mut item| {
            if count[&(item.kind == Kind::Own, item.name.clone())] > 1 {
                let end = item.code.find(" {").unwrap_or(item.code.len());
                let with = shown(item.code[..end].trim_start_matches("fn p"));
                item.name = format!("{} ({})", item.name, with.replace("()", ""));
            }
            item
        })
        .collect();
    items.sort_by(|a, b| (a.place(), a.kind, &a.name).cmp(&(b.place(), b.kind, &b.name)));
    items.dedup_by(|a, b| a == b);
    items
}

/// For people: without `$`, and of std's other paths only the last name.
fn shown(code: &str) -> String {
    let mut text = String::new();
    let mut rest = code;
    while let Some(at) = rest.find("std::") {
        text += &rest[..at];
        let is_path = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
        let end = rest[at..].find(|c| !is_path(c)).map_or(rest.len(), |end| at + end);
        text += rest[at..end].rsplit("::").next().unwrap_or_default();
        rest = &rest[end..];
    }
    let mut text = (text + rest).replace('$', "");
    // Names that the printer gave stand for lifetimes that std leaves out.
    for start in ["'e", "'i", "'t"] {
        for number in 0..4 {
            let name = format!("{start}{number}");
            text = text.replace(&format!("&{name} "), "&").replace(&name, "'_");
        }
    }
    text
}

fn join(path: &str, name: &str) -> String {
    format!("{path}::{name}")
}

/// `("struct", …)`.
fn kind(item: &Value) -> (&str, &Value) {
    let inner = item["inner"].as_object().and_then(|inner| inner.iter().next());
    inner.map_or(("", &Value::Null), |(kind, inner)| (kind, inner))
}

/// Whether the item was stable in Rust 1.`minor`. Those that say nothing, such as variants, are what
/// they belong to.
fn is_stable(item: &Value, minor: u64) -> bool {
    let attributes =
        list(&item["attrs"]).iter().filter_map(|attribute| attribute["other"].as_str());
    let Some(stability) = attributes.into_iter().find(|text| text.contains("= Stability {")) else {
        return true;
    };
    let since = stability.split_once("minor: ").and_then(|(_, rest)| {
        rest.split(|c: char| !c.is_ascii_digit()).next()?.parse::<u64>().ok()
    });
    stability.contains("level: Stable") && since.is_none_or(|since| since <= minor)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// `since` is the minor version since which the item is stable, 0 if it does not say, and
    /// `u64::MAX` if it is not stable.
    fn item(id: u64, name: &str, since: u64, inner: Value) -> (String, Value) {
        let level = match since {
            u64::MAX => "level: Unstable {reason: None}".to_owned(),
            minor => format!(
                "level: Stable {{since: Version(RustcVersion {{ major: 1, minor: {minor}, patch: 0 }})}}"
            ),
        };
        let attribute = format!("#[attr = Stability {{stability: Stability {{{level}}}}}]");
        let attrs = if since == 0 { json!([]) } else { json!([{ "other": attribute }]) };
        (id.to_string(), json!({ "id": id, "name": name, "attrs": attrs, "inner": inner }))
    }

    fn krate(index: Vec<(String, Value)>, paths: &[(u64, &str)]) -> Crate {
        let index: serde_json::Map<String, Value> = index.into_iter().collect();
        let paths = paths.iter().map(|(id, path)| {
            (id.to_string(), json!({ "path": path.split("::").collect::<Vec<_>>() }))
        });
        let paths: serde_json::Map<String, Value> = paths.collect();
        Crate::new(json!({ "index": index, "paths": paths }))
    }

    fn function(inputs: Value, output: Value, is_const: bool) -> Value {
        json!({ "function": {
            "sig": { "inputs": inputs, "output": output },
            "generics": { "params": [], "where_predicates": [] },
            "header": { "is_const": is_const, "is_unsafe": false, "abi": "Rust" },
        } })
    }

    /// `mod net { mod tcp { pub struct Guard<'a, T: ?Sized> } pub use tcp::Guard; pub use
    /// core::net::Addr; }`, with an inherent impl, two of traits, and one for Windows.
    fn std() -> (Crate, Crate) {
        let path = |id: u64, args: Value| json!({ "resolved_path": { "path": "", "id": id, "args": args } });
        let generics = json!({ "where_predicates": [], "params": [
            { "name": "'a", "kind": { "lifetime": { "outlives": [] } } },
            { "name": "T", "kind": { "type": { "default": null, "is_synthetic": false, "bounds": [
                { "trait_bound": { "modifier": "maybe", "generic_params": [],
                                   "trait": { "path": "Sized", "id": 92, "args": null } } }] } } },
        ] });
        let of_guard = |lifetime: &str| {
            path(
                10,
                json!({ "angle_bracketed": { "constraints": [],
                "args": [{ "lifetime": lifetime }, { "type": { "generic": "T" } }] } }),
            )
        };
        let itself = |lifetime: Value| {
            json!([["self", { "borrowed_ref": {
                "lifetime": lifetime, "is_mutable": false, "type": { "generic": "Self" } } }]])
        };
        let to_value = json!({ "borrowed_ref": {
            "lifetime": null, "is_mutable": true, "type": { "generic": "T" } } });
        let imp =
            |of_trait: Value, items: Value, generics: &Value, lifetime: &str, synthetic: bool| {
                json!({ "impl": {
                "trait": of_trait, "items": items, "generics": generics, "for": of_guard(lifetime),
                "is_negative": false, "is_synthetic": synthetic, "blanket_impl": null,
            } })
            };
        let bare = json!({ "where_predicates": [],
            "params": [{ "name": "T", "kind": { "type": { "bounds": [], "default": null } } }] });
        let of_trait = |id: u64, name: &str| json!({ "path": name, "id": id, "args": null });
        let index = vec![
            item(1, "net", 1, json!({ "module": { "items": [2, 3, 7] } })),
            item(2, "", 1, json!({ "use": { "id": 10, "name": "Guard", "is_glob": false } })),
            item(3, "", 1, json!({ "use": { "id": 90, "name": "Addr", "is_glob": false } })),
            item(7, "later", 96, function(json!([]), Value::Null, false)),
            item(
                10,
                "Guard",
                1,
                json!({ "struct": {
                "generics": generics, "kind": { "plain": { "fields": [] } }, "impls": [11, 12, 13, 14] } }),
            ),
            item(11, "", 0, imp(Value::Null, json!([20, 21, 22, 23]), &bare, "'_", false)),
            item(12, "", 1, imp(of_trait(91, "Deref"), json!([24]), &bare, "'_", false)),
            item(13, "", 0, imp(of_trait(93, "Send"), json!([]), &generics, "'a", true)),
            item(14, "", 1, imp(of_trait(94, "AsHandle"), json!([]), &bare, "'_", false)),
            item(20, "get", 1, function(itself(Value::Null), to_value, false)),
            item(
                21,
                "new",
                95,
                function(json!([["value", { "generic": "T" }]]), of_guard("'_"), true),
            ),
            item(22, "unstable", u64::MAX, function(json!([]), Value::Null, false)),
            item(23, "later", 96, function(json!([]), Value::Null, false)),
            item(
                24,
                "Target",
                0,
                json!({ "assoc_type": {
                "generics": { "params": [] }, "bounds": [], "type": { "generic": "T" } } }),
            ),
        ];
        let std = krate(
            index,
            &[
                (1, "std::net"),
                (10, "std::net::tcp::Guard"),
                (90, "core::net::addr::Addr"),
                (91, "core::ops::deref::Deref"),
                (92, "core::marker::Sized"),
                (93, "core::marker::Send"),
                (94, "std::os::windows::io::AsHandle"),
            ],
        );
        let addr = json!({ "struct": { "impls": [], "kind": "unit",
            "generics": { "params": [], "where_predicates": [] } } });
        let core = krate(vec![item(5, "Addr", 1, addr)], &[(5, "core::net::addr::Addr")]);
        (std, core)
    }

    #[test]
    fn stable_items_are_listed_with_code_that_asks_for_them() {
        let (std, core) = std();
        let items = extract(&std, &[core], 95);
        let of_net = items.iter().filter(|item| item.roots[0].starts_with("net::"));
        let listed: Vec<(&str, &str)> =
            of_net.map(|item| (item.name.as_str(), item.code.as_str())).collect();
        let own = "fn p(x: *const std::net::Addr) -> *const $net::Addr { x }";
        let expected = [
            ("net::Addr", own),
            ("net::Addr", own),
            (
                "net::Guard",
                "fn p<'a, T: ?Sized>(_: *const $net::Guard<'a, T>, _: *const $net::Guard<'a, T>) {}",
            ),
            (
                "net::Guard::get",
                "fn p<'i0, T>(_: *const $net::Guard<'i0, T>) { let _: for<'e0> \
                 fn(&'e0 $net::Guard<'i0, T>) -> &'e0 mut T = <$net::Guard<'i0, T>>::get; }",
            ),
            (
                "net::Guard::new",
                "fn p<'i0, T>(_: *const $net::Guard<'i0, T>) { let _: \
                 fn(T) -> $net::Guard<'_, T> = <$net::Guard<'i0, T>>::new; }",
            ),
            (
                "net::Guard::new in a const",
                "const fn p<'i0, T>(a0: T) -> $net::Guard<'_, T> { <$net::Guard<'i0, T>>::new(a0) }",
            ),
            (
                "net::Guard is covariant in 'a",
                "fn p<'short, 'long: 'short>(x: *const $net::Guard<'long, u8>) -> \
                 *const $net::Guard<'short, u8> { x }",
            ),
            (
                "net::Guard is covariant in T",
                "fn p<'short, 'long: 'short>(x: *const $net::Guard<'static, &'long u8>) -> \
                 *const $net::Guard<'static, &'short u8> { x }",
            ),
            (
                "impl Deref for net::Guard<'_, T>",
                "fn p<'i0, T>(x: *const $net::Guard<'i0, T>) { fn is<'i0, T>(_: *const \
                 $net::Guard<'i0, T>) where $net::Guard<'i0, T>: std::ops::Deref<Target = T> {} \
                 is::<T>(x) }",
            ),
            (
                "impl Send for net::Guard<'a, T>",
                "fn p<'a, T: ?Sized>(x: *const $net::Guard<'a, T>) { fn is<'a, T: ?Sized>(_: *const \
                 $net::Guard<'a, T>) where $net::Guard<'a, T>: Send {} is::<T>(x) }",
            ),
        ];
        let of_guard = |(name, code): &&(&str, &str)| *name != "net::Guard" || code.contains("_: ");
        let listed: Vec<(&str, &str)> = listed.iter().filter(of_guard).copied().collect();
        assert_eq!(listed, expected);
    }

    #[test]
    fn an_item_is_stable_from_its_version_on() {
        let (_, item) = item(1, "x", 91, Value::Null);
        assert!(!is_stable(&item, 90));
        assert!(is_stable(&item, 91));
        let unstable = json!({ "attrs": [{ "other": "#[attr = Stability {stability: Stability {level: Unstable {}}}]" }] });
        assert!(!is_stable(&unstable, 95));
        assert!(is_stable(&json!({ "attrs": [{ "must_use": {} }] }), 95));
    }
}
