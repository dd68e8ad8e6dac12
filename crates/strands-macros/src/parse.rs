//! As much of Rust's grammar as a function without arguments needs.

use std::iter::Peekable;

use proc_macro::{
    Delimiter, Group, Ident, Punct, Spacing, Span, TokenStream, TokenTree, token_stream,
};

pub(crate) type Result<T> = std::result::Result<T, Error>;

/// What is wrong, and where.
pub(crate) struct Error {
    pub(crate) span: Span,
    pub(crate) text: String,
    /// The function's, if it came so far.
    pub(crate) name: Option<Ident>,
}

impl Error {
    pub(crate) fn new(span: Span, text: impl Into<String>) -> Error {
        Error { span, text: text.into(), name: None }
    }
}

type Tokens = Peekable<token_stream::IntoIter>;

/// `attributes visibility fn name() -> T { body }`
pub(crate) struct Function {
    /// Attributes and visibility.
    head: TokenStream,
    pub(crate) name: Ident,
    /// The arrow and the type, or nothing.
    pub(crate) returns: TokenStream,
    pub(crate) body: Group,
}

impl Function {
    pub(crate) fn parse(item: TokenStream) -> Result<Function> {
        let mut tokens = item.into_iter().peekable();
        let mut head = TokenStream::new();
        loop {
            match tokens.next() {
                Some(TokenTree::Ident(ident)) => match ident.to_string().as_str() {
                    "fn" => break,
                    "pub" => head.extend([TokenTree::from(ident)]),
                    word => return Err(refuse(word, ident.span(), tokens)),
                },
                // Attributes, `pub(…)`, and what a macro's `$vis` or `$(#[$attribute])` came to.
                Some(token @ (TokenTree::Punct(_) | TokenTree::Group(_))) => head.extend([token]),
                Some(other) => return Err(Error::new(other.span(), NO_FUNCTION)),
                None => return Err(Error::new(Span::call_site(), NO_FUNCTION)),
            }
        }
        let Some(TokenTree::Ident(name)) = tokens.next() else {
            return Err(Error::new(Span::call_site(), NO_FUNCTION));
        };
        Self::parse_after_name(head, name.clone(), tokens)
            .map_err(|error| Error { name: Some(name), ..error })
    }

    fn parse_after_name(head: TokenStream, name: Ident, mut tokens: Tokens) -> Result<Function> {
        match tokens.next() {
            Some(TokenTree::Group(arguments))
                if arguments.delimiter() == Delimiter::Parenthesis =>
            {
                if let Some(first) = arguments.stream().into_iter().next() {
                    let text = "a function that runs as a fiber by itself cannot take arguments";
                    return Err(Error::new(first.span(), text));
                }
            }
            Some(other) => {
                let text = "a function that runs as a fiber by itself cannot be generic";
                return Err(Error::new(other.span(), text));
            }
            None => return Err(Error::new(name.span(), NO_FUNCTION)),
        }
        let mut returns = TokenStream::new();
        while let Some(token) = tokens.next() {
            if tokens.peek().is_none()
                && let Some(body) = braced(&token)
            {
                return Ok(Function { head, name, returns, body });
            }
            match token {
                TokenTree::Ident(word) if word.to_string() == "where" => {
                    let text =
                        "a function that runs as a fiber by itself cannot have a where clause";
                    return Err(Error::new(word.span(), text));
                }
                token => returns.extend([token]),
            }
        }
        Err(Error::new(name.span(), "this function has no body"))
    }

    /// The function as it was, but for its return type and body.
    pub(crate) fn outer(self, returns: TokenStream, body: Group) -> TokenStream {
        let mut tokens = self.head;
        tokens.extend(crate::function_named(&self.name, returns, body));
        tokens
    }

    /// Where it has the attribute `#[name]`.
    pub(crate) fn attribute_named(&self, name: &str) -> Option<Span> {
        self.head.clone().into_iter().find_map(|token| match token {
            TokenTree::Group(group) if group.delimiter() == Delimiter::Bracket => {
                (group.stream().to_string() == name).then(|| group.span())
            }
            _ => None,
        })
    }

    /// What an error about the return type should point at.
    fn returns_span(&self) -> Span {
        let returned = self.returns.clone().into_iter().nth(2);
        returned.map_or(self.name.span(), |token| token.span())
    }
}

/// `token` as a block; what a macro's `$body:block` came to is one in an invisible group.
fn braced(token: &TokenTree) -> Option<Group> {
    let TokenTree::Group(group) = token else { return None };
    match group.delimiter() {
        Delimiter::Brace => Some(group.clone()),
        Delimiter::None => {
            let mut inner = group.stream().into_iter();
            let only = inner.next().filter(|_| inner.next().is_none())?;
            braced(&only)
        }
        _ => None,
    }
}

const NO_FUNCTION: &str = "this attribute belongs on a function: fn name() { … }";

/// A word before `fn` that cannot be there.
fn refuse(word: &str, span: Span, tokens: Tokens) -> Error {
    let text = match word {
        "async" => {
            "a fiber waits by calling functions that wait: remove `async`, and each `.await`"
        }
        "unsafe" => {
            "a function that runs as a fiber by itself cannot be unsafe: nobody could promise \
                     what it asks for"
        }
        "const" => "a function that runs as a fiber by itself cannot be const",
        "extern" => "a function that runs as a fiber by itself cannot be extern",
        _ => NO_FUNCTION,
    };
    let mut after_fn = tokens.skip_while(|token| token.to_string() != "fn").skip(1);
    let name = match after_fn.next() {
        Some(TokenTree::Ident(name)) => Some(name),
        _ => None,
    };
    Error { name, ..Error::new(span, text) }
}

/// `workers = …, stack_size = …`
#[derive(Default)]
pub(crate) struct Options {
    workers: Option<TokenStream>,
    stack_size: Option<TokenStream>,
}

impl Options {
    pub(crate) fn parse(tokens: TokenStream) -> Result<Options> {
        let mut options = Options::default();
        let mut tokens = tokens.into_iter().peekable();
        while let Some(token) = tokens.next() {
            let name = token.to_string();
            let place = match name.as_str() {
                "workers" => &mut options.workers,
                "stack_size" => &mut options.stack_size,
                _ => {
                    let text = format!(
                        "unknown option `{name}`: there are `workers = N` and `stack_size = BYTES`"
                    );
                    return Err(Error::new(token.span(), text));
                }
            };
            if place.is_some() {
                return Err(Error::new(token.span(), format!("`{name}` is given twice")));
            }
            match tokens.next() {
                Some(TokenTree::Punct(punct)) if punct.as_char() == '=' => {}
                other => {
                    let span = other.map_or(token.span(), |other| other.span());
                    return Err(Error::new(span, format!("expected `{name} = …`")));
                }
            }
            let is_comma = |token: &TokenTree| token.to_string() == ",";
            let mut value = TokenStream::new();
            while let Some(token) = tokens.next_if(|token| !is_comma(token)) {
                value.extend([token]);
            }
            if value.is_empty() {
                return Err(Error::new(token.span(), format!("expected a number: `{name} = …`")));
            }
            tokens.next();
            *place = Some(value);
        }
        Ok(options)
    }

    /// `(workers, stack_bytes, function)`
    pub(crate) fn into_arguments(self, function: &Function) -> TokenStream {
        let mut tokens = TokenStream::new();
        for option in [self.workers, self.stack_size] {
            let comma = Punct::new(',', Spacing::Alone);
            tokens.extend(match option {
                None => crate::path("::core::option::Option::None"),
                Some(value) => {
                    let value = Group::new(Delimiter::Parenthesis, value);
                    let some = crate::path("::core::option::Option::Some");
                    some.into_iter().chain([value.into()]).collect()
                }
            });
            tokens.extend([TokenTree::from(comma)]);
        }
        let mut name = function.name.clone();
        // An error about what the function returns points at its type.
        name.set_span(name.span().located_at(function.returns_span()));
        tokens.extend([TokenTree::from(name)]);
        TokenTree::from(Group::new(Delimiter::Parenthesis, tokens)).into()
    }
}
