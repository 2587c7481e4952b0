//! The way in: messages become a prompt, the prompt token ids, the grammar a parser.

use super::{GenerateError, Likelihood, Prompt, TextRequest, TextStream, WeighRequest};
use crate::engine::{Engine, SequenceRequest, TokenStream};
use crate::model::Model;
use crate::sampling::{GrammarCompiler, SamplingParams};
use crate::text::{ChatMessage, ChatTemplate, TextError, TokenId, Tokenizer};
use std::sync::Arc;

/// One loaded model, ready to write: what `quiz` and the chat endpoints share. Clones share it.
#[derive(Clone)]
pub struct Generator {
    inner: Arc<Inner>,
}

struct Inner {
    text: TextSide,
    engine: Engine,
}

/// What a model has to do with text. It takes as long to open as weights do, and needs none of them, so that both
/// can be opened side by side.
pub struct TextSide {
    model_name: String,
    tokenizer: Arc<Tokenizer>,
    template: ChatTemplate,
    grammars: GrammarCompiler,
}

impl TextSide {
    /// `vocab_size` is the length of the rows of logits.
    ///
    /// # Errors
    /// [`TextError::Unusable`]: the model's tokenizer or chat template cannot be used.
    pub fn open(model: &Model, vocab_size: usize) -> Result<Self, TextError> {
        let tokenizer = Arc::new(Tokenizer::open(model)?);
        let template = ChatTemplate::open(model)?;
        let grammars = GrammarCompiler::new(Arc::clone(&tokenizer), vocab_size)?;
        Ok(Self { model_name: model.name.clone(), tokenizer, template, grammars })
    }
}

impl Generator {
    /// # Errors
    /// As [`TextSide::open`].
    pub fn new(model: &Model, engine: Engine) -> Result<Self, TextError> {
        Ok(Self::with_text(TextSide::open(model, engine.limits().vocab_size)?, engine))
    }

    /// With the text side of the engine's model.
    pub fn with_text(text: TextSide, engine: Engine) -> Self {
        Self { inner: Arc::new(Inner { text, engine }) }
    }

    pub fn model_name(&self) -> &str {
        &self.inner.text.model_name
    }

    pub fn engine(&self) -> &Engine {
        &self.inner.engine
    }

    pub fn tokenizer(&self) -> &Tokenizer {
        &self.inner.text.tokenizer
    }

    /// Tokens `text` takes, as plain text.
    pub fn count_tokens(&self, text: &str) -> usize {
        self.inner.text.tokenizer.encode_plain(text).len()
    }

    /// Starts a reply. Tokenising and compiling a grammar happen off the async threads.
    ///
    /// # Errors
    /// A full queue, a prompt that cannot fit, a grammar that cannot be honoured.
    pub async fn generate(&self, request: TextRequest) -> Result<TextStream, GenerateError> {
        let inner = Arc::clone(&self.inner);
        tokio::task::spawn_blocking(move || inner.start(request))
            .await
            .map_err(|panic| GenerateError::Internal { reason: panic.to_string() })?
    }

    /// Weighs a text: one pass of the model over it, with all it shares with earlier prompts reused.
    ///
    /// # Errors
    /// A full queue, a text that does not fit beside its prompt, an engine that failed.
    pub async fn weigh(&self, request: WeighRequest) -> Result<Likelihood, GenerateError> {
        let inner = Arc::clone(&self.inner);
        let tokens = tokio::task::spawn_blocking(move || inner.start_weighing(request))
            .await
            .map_err(|panic| GenerateError::Internal { reason: panic.to_string() })??;
        Likelihood::read(tokens).await
    }
}

impl Inner {
    fn start_weighing(&self, request: WeighRequest) -> Result<TokenStream, GenerateError> {
        let mut prompt = match request.prompt {
            Prompt::Chat(messages) => self.chat_prompt(messages)?,
            Prompt::Tokens(tokens) => self.known_tokens(tokens, "prompt")?,
        };
        prompt.extend(self.text.tokenizer.encode_plain(&request.before));
        let given = self.text.tokenizer.encode_plain(&request.text);
        if given.is_empty() {
            return Err(GenerateError::Invalid {
                param: "text",
                message: "there is no text to weigh".into(),
            });
        }
        Ok(self.engine.submit(SequenceRequest {
            prompt,
            max_new_tokens: given.len(),
            sampling: SamplingParams::default(),
            grammar: None,
            given,
            stop_tokens: Vec::new(),
        })?)
    }

    fn start(&self, request: TextRequest) -> Result<TextStream, GenerateError> {
        let prompt = match request.prompt {
            Prompt::Chat(messages) => self.chat_prompt(messages)?,
            Prompt::Tokens(tokens) => self.known_tokens(tokens, "prompt")?,
        };
        let prompt_tokens = prompt.len();
        let max_new_tokens = self.budget(prompt_tokens, request.max_new_tokens)?;
        let grammar =
            request.grammar.map(|spec| self.text.grammars.compile(&spec, max_new_tokens)).transpose()?;
        let mut stop_tokens = self.known_tokens(request.stop_token_ids, "stop_token_ids")?;
        if !request.ignore_eos {
            stop_tokens.extend_from_slice(self.text.tokenizer.end_tokens());
        }
        let tokens = self.engine.submit(SequenceRequest {
            prompt,
            max_new_tokens,
            sampling: request.sampling,
            grammar,
            given: Vec::new(),
            stop_tokens: stop_tokens.clone(),
        })?;
        Ok(TextStream::new(
            prompt_tokens,
            tokens,
            Arc::clone(&self.text.tokenizer),
            stop_tokens,
            request.stop,
        ))
    }

    fn chat_prompt(&self, mut messages: Vec<ChatMessage>) -> Result<Vec<TokenId>, GenerateError> {
        for message in &mut messages {
            self.disarm(&mut message.content);
        }
        let prompt = self
            .text
            .template
            .render(&messages)
            .map_err(|error| GenerateError::Invalid { param: "messages", message: error.to_string() })?;
        Ok(self.text.tokenizer.encode(&prompt))
    }

    /// What a message says is data: `<|im_end|>` in a pasted text must not end the turn. A space after
    /// its first character keeps it readable and makes it plain text.
    fn disarm(&self, content: &mut String) {
        for special in self.text.tokenizer.special_texts().filter(|special| !special.is_empty()) {
            if content.contains(special) {
                let head = special.chars().next().map_or(0, char::len_utf8);
                let disarmed = format!("{} {}", &special[..head], &special[head..]);
                *content = content.replace(special, &disarmed);
            }
        }
    }

    fn known_tokens(&self, tokens: Vec<TokenId>, param: &'static str) -> Result<Vec<TokenId>, GenerateError> {
        let vocab_size = self.engine.limits().vocab_size;
        match tokens.iter().find(|&&token| token as usize >= vocab_size) {
            None => Ok(tokens),
            Some(token) => Err(GenerateError::Invalid {
                param,
                message: format!("token id {token} is outside the model's vocabulary of {vocab_size}"),
            }),
        }
    }

    /// Tokens the reply may take: what was asked for, or what the context leaves.
    fn budget(&self, prompt_tokens: usize, asked: Option<usize>) -> Result<usize, GenerateError> {
        let context_len = self.engine.limits().context_len;
        let room = context_len.saturating_sub(prompt_tokens);
        if prompt_tokens == 0 {
            return Err(GenerateError::Invalid {
                param: "messages",
                message: "the prompt is empty; say something".to_owned(),
            });
        }
        if room == 0 || asked.is_some_and(|asked| asked > room) {
            let reply = asked.map_or_else(|| "a reply".to_owned(), |asked| format!("{asked} for the reply"));
            return Err(GenerateError::Invalid {
                param: if room == 0 { "messages" } else { "max_tokens" },
                message: format!(
                    "the prompt takes {prompt_tokens} tokens, and with {reply} that is more than the \
                     context of {context_len}; shorten one of them"
                ),
            });
        }
        Ok(asked.unwrap_or(room))
    }
}
