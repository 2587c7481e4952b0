//! Grammars that were compiled of late. Clients send the same schema again and again: the next reply that is held to it
//! need not wait for the compiler.
//!
//! A lexer learns its states as it meets them, and most of a mask's time is that. So each reply begins with a lexer of its
//! own that knows what replies before it have learnt, and leaves what it has learnt itself to those after it. Which
//! tokens a mask allows does not hang on that.

use super::GrammarSpec;
use super::ending::Ending;
use llguidance::TokenParser;
use std::collections::VecDeque;
use std::mem::{Discriminant, discriminant};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Grammars that are kept, those used last.
const MAX_GRAMMARS: usize = 16;
/// What a lexer may hold to be kept, in bytes by its own count; half of those in the tests have a twentieth.
const MAX_LEXER_BYTES: usize = 2 << 20;

/// See the [module](self).
#[derive(Default)]
pub(super) struct Cache {
    /// The one used last comes first.
    grammars: Mutex<VecDeque<(Origin, Arc<Compiled>)>>,
}

/// What a grammar was compiled from.
#[derive(PartialEq)]
pub(super) struct Origin {
    kind: Discriminant<GrammarSpec>,
    /// Not the schema itself: in whatever order its properties come, it would be the same.
    text: String,
    max_ending_bytes: usize,
}

impl Origin {
    /// An ending was looked for up to so many bytes.
    pub(super) fn new(spec: &GrammarSpec, max_ending_bytes: usize) -> Self {
        let text = match spec {
            GrammarSpec::JsonSchema(schema) => schema.to_string(),
            GrammarSpec::JsonObject => String::new(),
            GrammarSpec::Regex(text) | GrammarSpec::Lark(text) => text.clone(),
        };
        Self { kind: discriminant(spec), text, max_ending_bytes }
    }
}

/// A grammar before the first token.
pub(super) struct Compiled {
    /// Its lexer is nobody else's.
    parser: Mutex<TokenParser>,
    /// The shortest reply.
    ending: Ending,
}

/// The place where a reply began, with the lexer that the reply goes on with.
pub(super) struct Start {
    parser: TokenParser,
    of: Arc<Compiled>,
}

impl Cache {
    pub(super) fn get(&self, origin: &Origin) -> Option<Arc<Compiled>> {
        let mut grammars = lock(&self.grammars);
        let place = grammars.iter().position(|(known, _)| known == origin)?;
        let found = grammars.remove(place)?;
        let compiled = Arc::clone(&found.1);
        grammars.push_front(found);
        Some(compiled)
    }

    pub(super) fn keep(&self, origin: Origin, compiled: &Arc<Compiled>) {
        if lexer_bytes(&lock(&compiled.parser)) <= MAX_LEXER_BYTES {
            let mut grammars = lock(&self.grammars);
            grammars.retain(|(known, _)| *known != origin); // somebody else's, who compiled it at the same time
            grammars.truncate(MAX_GRAMMARS - 1);
            grammars.push_front((origin, Arc::clone(compiled)));
        }
    }
}

impl Compiled {
    pub(super) fn new(parser: TokenParser, ending: Ending) -> Arc<Self> {
        Arc::new(Self { parser: Mutex::new(parser), ending })
    }

    pub(super) fn ending(&self) -> &Ending {
        &self.ending
    }

    /// The parser of a reply, and what it is to [leave](Start::leave) when it has ended.
    pub(super) fn start(self: &Arc<Self>) -> (TokenParser, Start) {
        let parser = lock(&self.parser).deep_clone();
        // Not a deep one: the two have one lexer.
        (parser.clone(), Start { parser, of: Arc::clone(self) })
    }
}

impl Start {
    /// The reply has ended, without a fault of its parser.
    pub(super) fn leave(self) {
        let mut known = lock(&self.of.parser);
        let learnt = lexer_bytes(&self.parser);
        if learnt > lexer_bytes(&known) && learnt <= MAX_LEXER_BYTES {
            *known = self.parser;
        }
    }
}

fn lexer_bytes(parser: &TokenParser) -> usize {
    parser.parser.lexer_stats().num_bytes
}

/// Nothing is ever half written here.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
