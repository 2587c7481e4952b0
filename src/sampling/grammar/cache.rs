//! Grammars that were compiled of late. Clients send the same schema again and again: the next reply that is held to it
//! need not wait for the compiler.
//!
//! A lexer learns its states as it meets them, and most of a mask's time is that. So each reply begins with a lexer of its
//! own that knows what replies to the same grammar have met before, and passes on what it meets itself. Which tokens a
//! mask allows does not hang on that, but how much work it is does: a mask that would go beyond the bound of
//! `ParserLimits`, and so end its reply, may stay within it.

use super::GrammarSpec;
use super::ending::Ending;
use llguidance::TokenParser;
use std::collections::VecDeque;
use std::mem::{Discriminant, discriminant, replace};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Grammars that are kept, those used last.
const MAX_GRAMMARS: usize = 16;
/// What a lexer may hold to be kept, in bytes by its own count. Half the schemas in the tests take 100 kB, with all that
/// their replies met.
const MAX_LEXER_BYTES: usize = 1 << 20;
/// A longer text is not kept: what else is compiled of it is not counted.
const MAX_TEXT_BYTES: usize = 1 << 16;

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

/// A grammar before the first token.
pub(super) struct Compiled {
    /// Its lexer is nobody else's.
    parser: Mutex<TokenParser>,
    /// The shortest reply.
    ending: Ending,
}

/// Where a reply began, with the lexer that it goes on with: what the reply meets, later ones will know.
pub(super) struct Lesson {
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
        if origin.text.len() <= MAX_TEXT_BYTES && lexer_bytes(&lock(&compiled.parser)) <= MAX_LEXER_BYTES {
            let mut grammars = lock(&self.grammars);
            grammars.retain(|(known, _)| *known != origin); // somebody else's, who compiled it at the same time
            grammars.truncate(MAX_GRAMMARS - 1);
            grammars.push_front((origin, Arc::clone(compiled)));
        }
    }
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

impl Compiled {
    pub(super) fn new(parser: TokenParser, ending: Ending) -> Arc<Self> {
        Arc::new(Self { parser: Mutex::new(parser), ending })
    }

    pub(super) fn ending(&self) -> &Ending {
        &self.ending
    }

    /// The parser of a reply, and what it can [pass on](Lesson::pass_on) when it has ended.
    pub(super) fn begin(self: &Arc<Self>) -> (TokenParser, Lesson) {
        let parser = lock(&self.parser).deep_clone();
        // Unlike a deep clone, a clone goes on with the same lexer.
        (parser.clone(), Lesson { parser, of: Arc::clone(self) })
    }
}

impl Lesson {
    /// The reply has ended, without a fault of its parser. Waits for nobody: it is one reply's lesson that is lost.
    pub(super) fn pass_on(self) {
        let learnt = lexer_bytes(&self.parser);
        let Ok(mut known) = self.of.parser.try_lock() else { return };
        if learnt > lexer_bytes(&known) && learnt <= MAX_LEXER_BYTES {
            let old = replace(&mut *known, self.parser);
            drop(known);
            drop(old);
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
