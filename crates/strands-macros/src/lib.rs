//! `#[strands::main]` and `#[strands::test]`: a function whose body runs as a fiber.
//!
//! Both keep the function as it is, attributes and all, and give it a new body: the old function,
//! nested and under its own name, and a call that hands it to `strands::__rt`. Tokens are moved,
//! not parsed further than the signature, so errors in the body point where they should, and no
//! parser is needed beyond the one in `parse.rs`. The expansion contains no `unsafe`.
//!
//! They are used through the crate `strands`, which re-exports and documents them.

mod parse;

use proc_macro::{Delimiter, Group, Ident, Punct, Spacing, Span, TokenStream, TokenTree};

use crate::parse::{Error, Function, Options, Result};

/// Runs the body of `main` as a fiber. See `strands::main`.
#[proc_macro_attribute]
pub fn main(options: TokenStream, item: TokenStream) -> TokenStream {
    expand(options, item, expand_main)
}

/// Runs the body of a test as a fiber of a runtime of its own. See `strands::test`.
#[proc_macro_attribute]
pub fn test(options: TokenStream, item: TokenStream) -> TokenStream {
    expand(options, item, expand_test)
}

fn expand(
    options: TokenStream,
    item: TokenStream,
    expand: fn(Options, Function) -> Result<TokenStream>,
) -> TokenStream {
    let function = Function::parse(item);
    // With a function of that name in place, the compiler does not also complain of its absence.
    let stand_in =
        function.as_ref().map_or_else(|error| error.name.clone(), |f| Some(f.name.clone()));
    let expanded = function.and_then(|function| expand(Options::parse(options)?, function));
    expanded.unwrap_or_else(|error| {
        let mut tokens = compile_error(&error);
        if let Some(name) = stand_in {
            let body = Group::new(Delimiter::Brace, TokenStream::new());
            tokens.extend(function_named(&name, TokenStream::new(), body));
        }
        tokens
    })
}

fn expand_main(options: Options, function: Function) -> Result<TokenStream> {
    let call = [path("::strands::__rt::main"), options.into_arguments(&function)];
    let body = nest(&function, call.into_iter().collect());
    Ok(function.outer(path("-> ::std::process::ExitCode"), body))
}

fn expand_test(options: Options, function: Function) -> Result<TokenStream> {
    if let Some(span) = function.attribute_named("test") {
        let text = "#[strands::test] makes a test by itself: remove #[test]";
        return Err(Error::new(span, text));
    }
    // `#[should_panic]` wants a test that returns nothing.
    let returns = !function.returns.is_empty();
    let call = if returns { "::strands::__rt::test_returning" } else { "::strands::__rt::test" };
    let call = [path(call), options.into_arguments(&function)];
    let body = nest(&function, call.into_iter().collect());
    let returns = if returns { path("-> ::std::process::ExitCode") } else { TokenStream::new() };
    let mut tokens = path("#[::core::prelude::v1::test]");
    tokens.extend(function.outer(returns, body));
    Ok(tokens)
}

/// `{ fn name() -> T { the old body } call }`
fn nest(function: &Function, call: TokenStream) -> Group {
    let mut tokens =
        function_named(&function.name, function.returns.clone(), function.body.clone());
    tokens.extend(call);
    Group::new(Delimiter::Brace, tokens)
}

fn function_named(name: &Ident, returns: TokenStream, body: Group) -> TokenStream {
    let arguments = Group::new(Delimiter::Parenthesis, TokenStream::new());
    let mut tokens = path("fn");
    tokens.extend([TokenTree::from(name.clone()), arguments.into()]);
    tokens.extend(returns);
    tokens.extend([TokenTree::from(body)]);
    tokens
}

/// Tokens of the expansion itself.
fn path(text: &str) -> TokenStream {
    text.parse().expect("the text is a constant of this crate")
}

fn compile_error(error: &Error) -> TokenStream {
    let at = |mut token: TokenTree| {
        token.set_span(error.span);
        token
    };
    let text = TokenTree::from(proc_macro::Literal::string(&error.text));
    let text = Group::new(Delimiter::Brace, at(text).into());
    let colon = |spacing| at(Punct::new(':', spacing).into());
    [
        colon(Spacing::Joint),
        colon(Spacing::Alone),
        at(Ident::new("core", Span::call_site()).into()),
        colon(Spacing::Joint),
        colon(Spacing::Alone),
        at(Ident::new("compile_error", Span::call_site()).into()),
        at(Punct::new('!', Spacing::Alone).into()),
        at(text.into()),
    ]
    .into_iter()
    .collect()
}
