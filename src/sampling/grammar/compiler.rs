use super::cache::{Cache, Compiled, Origin};
use super::ending::Ending;
use super::layout;
use super::schema;
use super::search::{Effort, speculate};
use super::vocabulary::{self, Vocabulary};
use super::{Grammar, GrammarError, GrammarSpec};
use crate::text::{TextError, TokenId, Tokenizer};
use llguidance::api::{GrammarWithLexer, ParserLimits, TopLevelGrammar};
use llguidance::earley::SlicedBiasComputer;
use llguidance::toktrie::{InferenceCapabilities, TokEnv, TokenizerEnv};
use llguidance::{ParserFactory, TokenParser, regex_to_lark};
use serde_json::{Map, Value, json};
use std::sync::{Arc, LazyLock};

/// Longest regular expression or Lark grammar, in bytes.
const MAX_GRAMMAR_BYTES: usize = 1_000_000;
/// Brackets in brackets: llguidance recurses over them.
const MAX_BRACKET_DEPTH: usize = 200;
/// For compiling alone: llguidance recurses over schemas and expressions, in debug builds with large
/// frames.
const COMPILER_STACK_BYTES: usize = 64 << 20;
/// The first search for an ending goes as far as the budget might reach, but no further than this.
const MAX_ENDING_BYTES: usize = 1 << 20;
const MIN_ENDING_BYTES: usize = 1 << 14;
/// Lexemes to look at for the shortest reply, about 10 µs each.
const SHORTEST_REPLY_STAGES: usize = 4_000;
const NO_SPECIAL_TOKENS: &str = "special tokens are not supported";

/// Compiles grammars for one vocabulary, and keeps those of late; one a model, shared by all requests.
pub struct GrammarCompiler {
    // A quarter of a start's work, and chats need none of it: built when the first grammar comes.
    parts: LazyLock<Parts, BuildParts>,
    cache: Cache,
}

type BuildParts = Box<dyn FnOnce() -> Parts + Send>;

struct Parts {
    vocabulary: Arc<Vocabulary>,
    factory: ParserFactory,
}

impl GrammarCompiler {
    /// `vocab_size` is the length of the model's logits rows.
    ///
    /// # Errors
    /// [`TextError::Unusable`]: the vocabulary has no token that ends a reply, or is larger than the
    /// model's logits or than grammars can handle.
    pub fn new(tokenizer: Arc<Tokenizer>, vocab_size: usize) -> Result<Self, TextError> {
        fn token_bytes(tokenizer: &Tokenizer) -> impl ExactSizeIterator<Item = &[u8]> {
            let bytes_of = |id| if tokenizer.is_special(id) { &[] } else { tokenizer.token_bytes(id) };
            (0..tokenizer.vocab_size() as TokenId).map(bytes_of)
        }
        vocabulary::check(token_bytes(&tokenizer), tokenizer.end_tokens(), vocab_size)?;
        Ok(Self::of(move || {
            let token_bytes = token_bytes(&tokenizer).map(<[u8]>::to_vec).collect();
            let end_tokens = tokenizer.end_tokens().to_vec();
            let encode = Box::new(move |text: &str| tokenizer.encode_plain(text));
            Vocabulary::new(token_bytes, &end_tokens, encode, vocab_size)
        }))
    }

    pub(super) fn of(vocabulary: impl FnOnce() -> Vocabulary + Send + 'static) -> Self {
        Self { parts: LazyLock::new(Box::new(|| Parts::new(vocabulary()))), cache: Cache::default() }
    }

    /// Takes milliseconds if it is not known from before, and the first time of all a tenth of a second: call it off
    /// the async threads.
    ///
    /// # Errors
    /// [`GrammarError`]: the grammar is invalid, unsupported, or cannot end within `max_new_tokens`.
    pub fn compile(&self, spec: &GrammarSpec, max_new_tokens: usize) -> Result<Grammar, GrammarError> {
        // A power of two, since without a limit of the client's each prompt leaves a budget of its own.
        let max_ending_bytes =
            max_new_tokens.saturating_mul(16).clamp(MIN_ENDING_BYTES, MAX_ENDING_BYTES).next_power_of_two();
        let origin = Origin::new(spec, max_ending_bytes);
        let compiled = match self.cache.get(&origin) {
            Some(compiled) => compiled,
            None => {
                let compiled = self.compile_anew(spec, max_ending_bytes)?;
                self.cache.keep(origin, &compiled);
                compiled
            }
        };
        let shortest = compiled.ending().len();
        if shortest > max_new_tokens {
            return Err(GrammarError::BudgetTooSmall { shortest, budget: max_new_tokens });
        }
        Ok(Grammar::new(&compiled, Arc::clone(&self.parts.vocabulary), max_new_tokens))
    }

    pub(super) fn compile_anew(
        &self,
        spec: &GrammarSpec,
        max_ending_bytes: usize,
    ) -> Result<Arc<Compiled>, GrammarError> {
        std::thread::scope(|scope| {
            std::thread::Builder::new()
                .name("grammar".to_owned())
                .stack_size(COMPILER_STACK_BYTES)
                .spawn_scoped(scope, || self.parts.compile(spec, max_ending_bytes))
                .map_err(|error| GrammarError::unsupported(format!("no thread to compile it on: {error}")))?
                .join()
                .unwrap_or_else(|_| Err(GrammarError::unsupported("compiling it failed in llguidance")))
        })
    }
}

impl Parts {
    fn new(vocabulary: Vocabulary) -> Self {
        let vocabulary = Arc::new(vocabulary);
        let environment: TokEnv = vocabulary.clone();
        let capabilities =
            InferenceCapabilities { ff_tokens: vocabulary.tokenize_is_canonical(), ..Default::default() };
        let slices = SlicedBiasComputer::json_slices();
        let mut factory = ParserFactory::new(&environment, capabilities, &slices)
            .expect("llguidance's own expressions are sound, and nothing else can fail");
        factory.quiet();
        // Grammars come from clients, so work and memory are bounded: a state takes 1-2 kB, the fuel
        // below about 20 ms to compile and at the very most 70 ms a mask (measured by llguidance's
        // authors). Its default of 200,000 a mask is too little for an item of a quiz in Thai.
        *factory.limits_mut() = ParserLimits {
            max_items_in_row: 2_000,
            initial_lexer_fuel: 1_000_000,
            step_lexer_fuel: 1_000_000,
            step_max_items: 50_000,
            max_lexer_states: 50_000,
            max_grammar_size: 200_000,
            precompute_large_lexemes: true,
            verbose_errors: false,
        };
        Self { vocabulary, factory }
    }

    fn compile(&self, spec: &GrammarSpec, max_ending_bytes: usize) -> Result<Arc<Compiled>, GrammarError> {
        let parser = match spec {
            GrammarSpec::JsonSchema(schema) => self.json_parser(schema::prepare(schema)?),
            GrammarSpec::JsonObject => self.json_parser(schema::prepare(&json!({"type": "object"}))?),
            GrammarSpec::Regex(regex) => {
                check_text(regex)?;
                self.parser(GrammarWithLexer::from_lark(format!("start: /{}/", regex_to_lark(regex, ""))))
            }
            GrammarSpec::Lark(lark) => {
                check_text(lark)?;
                if lark.contains("allow_invalid_utf8") {
                    return Err(GrammarError::unsupported("`allow_invalid_utf8` is not supported"));
                }
                // llguidance reads it and, on most rules, drops it without a word.
                if lark.contains("[temperature=") {
                    return Err(GrammarError::unsupported("`temperature=` is not supported"));
                }
                self.parser(GrammarWithLexer::from_lark(lark.clone()))
            }
        };
        let mut parser = parser.map_err(|error| {
            let reason = first_line(&error);
            let place = match spec {
                GrammarSpec::JsonSchema(schema) => schema::blame(schema, |part| {
                    self.parser(GrammarWithLexer::from_json_schema(layout::free(part))).is_err()
                }),
                _ => None,
            };
            GrammarError::unsupported(match place {
                Some(place) => format!("{reason} (at {place})"),
                None => reason,
            })
        })?;
        refuse_what_is_ignored(&mut parser)?;

        let ending = self.shortest_reply(&mut parser, max_ending_bytes)?;
        Ok(Compiled::new(parser, ending))
    }

    /// Where the layout comes to a part that llguidance refuses by itself, a property that no value fits perhaps,
    /// the whole may still do, laid out by the model.
    fn json_parser(&self, schema: Map<String, Value>) -> anyhow::Result<TokenParser> {
        if let Some(lark) = layout::lark(&Value::Object(schema.clone())) {
            match self.parser(GrammarWithLexer::from_lark(lark)) {
                Ok(parser) => return Ok(parser),
                Err(error) => tracing::debug!(error = first_line(&error), "no layout for this schema"),
            }
        }
        self.parser(GrammarWithLexer::from_json_schema(layout::free(schema)))
    }

    /// A parser for `document` and its end.
    fn parser(&self, document: GrammarWithLexer) -> anyhow::Result<TokenParser> {
        let reply = format!("start: @document <[{}]>", self.vocabulary.document_end());
        let mut parser = self.factory.create_parser(TopLevelGrammar {
            grammars: vec![
                GrammarWithLexer { lark_grammar: Some(reply), ..Default::default() },
                GrammarWithLexer { name: Some("document".to_owned()), ..document },
            ],
            max_tokens: None,
        })?;
        parser.start_without_prompt();
        Ok(parser)
    }

    fn shortest_reply(&self, parser: &mut TokenParser, max_bytes: usize) -> Result<Ending, GrammarError> {
        let effort = Effort { max_bytes, shorter: SHORTEST_REPLY_STAGES };
        let way = speculate(&mut parser.parser, &self.vocabulary, |walker| walker.way_out(effort));
        if let Some(error) = parser.parser.get_error() {
            return Err(GrammarError::unsupported(format!("it is too complex: {}", error.message())));
        }
        let way = way.ok_or_else(|| GrammarError::unsupported("no reply was found that it allows"))?;
        Ending::new(way, true, &self.vocabulary)
            .ok_or_else(|| GrammarError::unsupported("the model's vocabulary cannot spell it"))
    }
}

/// Refuses what llguidance would take and not do, or do in ways that the known ending cannot foresee.
fn refuse_what_is_ignored(parser: &mut TokenParser) -> Result<(), GrammarError> {
    let warnings = parser.grammar_warnings();
    if !warnings.is_empty() {
        return Err(GrammarError::unsupported(warnings.join("; ")));
    }
    let spec = parser.parser.grammar().lexer_spec();
    let refused = [
        (spec.has_stop, "`stop=` is not supported"),
        (spec.has_max_tokens, "`max_tokens=` is not supported"),
        (spec.has_temperature, "`temperature=` is not supported"),
        (spec.no_forcing, "`no_forcing` is not supported"),
        (spec.token_range_lexemes(&spec.all_lexemes()).len() > 1, NO_SPECIAL_TOKENS),
    ];
    match refused.iter().find(|(found, _)| *found) {
        Some((_, reason)) => Err(GrammarError::unsupported(*reason)),
        None => Ok(()),
    }
}

fn check_text(grammar: &str) -> Result<(), GrammarError> {
    if grammar.trim().is_empty() {
        return Err(GrammarError::unsupported("it is empty"));
    }
    if grammar.len() > MAX_GRAMMAR_BYTES {
        return Err(GrammarError::unsupported(format!("it is longer than {MAX_GRAMMAR_BYTES} bytes")));
    }
    let mut depth = 0usize;
    for byte in grammar.bytes() {
        match byte {
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > MAX_BRACKET_DEPTH {
            return Err(GrammarError::unsupported(format!("brackets nest deeper than {MAX_BRACKET_DEPTH}")));
        }
    }
    Ok(())
}

/// llguidance prints backtraces and states behind the first line of its errors.
pub(super) fn first_line(error: &anyhow::Error) -> String {
    let text = error.to_string();
    let line = text.lines().next().unwrap_or_default().trim_end_matches("<non-verbose/>").trim_end();
    match line.strip_prefix("panic: ") {
        Some(message) if message.contains("special token") => NO_SPECIAL_TOKENS.to_owned(),
        Some(message) => format!("llguidance failed on it: {message}"),
        None => line.to_owned(),
    }
}
