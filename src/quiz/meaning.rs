//! Items compared by what they mean, where the words differ: sentence embeddings, in English, the language
//! they were trained on. The figures are what `scripts/embedding_figures.py` finds in people's questions.

use super::form::Form;
use super::item::QuizItem;
use super::language::Language;
use super::spec::{CheckPolicy, ItemKind, QuizSpec};
use super::wording::plain;
use crate::embedding::{Embedder, Embedding, EmbeddingError};
use crate::generation::GenerateError;
use std::ops::RangeInclusive;
use std::sync::Arc;

/// What makes vectors of texts: an [`Embedder`], or in tests something that plays one.
pub(super) trait Embed: Send + Sync + 'static {
    fn embed(&self, text: &str) -> Result<Embedding, EmbeddingError>;
}

impl Embed for Embedder {
    fn embed(&self, text: &str) -> Result<Embedding, EmbeddingError> {
        Embedder::embed(self, text)
    }
}

/// How the items of one quiz are compared.
pub(super) struct Comparison {
    embedder: Arc<dyn Embed>,
    /// Whether a question has to ask what was not asked before.
    pub(super) distinct: CheckPolicy,
    /// Whether wrong choices have to be near their key and not too near.
    pub(super) plausible: CheckPolicy,
    /// What the request excludes.
    excluded: Vec<Embedding>,
}

/// What an item means.
#[derive(Clone, Debug)]
pub(super) struct Meaning {
    question: Embedding,
    /// `None` where there is nothing to compare: no choices, or numbers.
    pub(super) plausible: Option<bool>,
}

/// Of questions about one passage with different answers, 1.6 % are this near each other; of those with the
/// same answer, 19 %.
const SAME_QUESTION: f32 = 0.9;
/// With the same answer, less is enough: half of them are this near.
const SAME_ANSWER_QUESTION: f32 = 0.75;
/// Where wrong choices lie from their key, names and words: from the first to the 99th percentile of people's.
/// Nearer ones are mostly the key in other words, further ones of another kind.
const PLAUSIBLE: RangeInclusive<f32> = 0.06..=0.90;

const DEFAULT_DISTINCT: CheckPolicy = CheckPolicy::Require;
const DEFAULT_PLAUSIBLE: CheckPolicy = CheckPolicy::Prefer;

impl Comparison {
    /// `None` where nothing is compared: the request does not want it, there is nothing to compare by, or the
    /// quiz is in another language.
    ///
    /// # Errors
    /// The request requires what cannot be had.
    pub(super) fn of(
        spec: &QuizSpec,
        embedder: Option<&Arc<dyn Embed>>,
    ) -> Result<Option<Self>, GenerateError> {
        let usable = embedder.filter(|_| is_known(&spec.language));
        let Some(embedder) = usable else {
            let asked = [("distinct", spec.distinct), ("plausible", spec.plausible)];
            let required = asked.into_iter().find(|(_, policy)| *policy == Some(CheckPolicy::Require));
            return required.map_or(Ok(None), |(param, _)| Err(cannot_require(param, embedder.is_some())));
        };
        let distinct = spec.distinct.unwrap_or(DEFAULT_DISTINCT);
        let plausible = spec.plausible.unwrap_or(DEFAULT_PLAUSIBLE);
        if (distinct, plausible) == (CheckPolicy::Off, CheckPolicy::Off) {
            return Ok(None);
        }
        let excluded = if distinct == CheckPolicy::Off { &[] } else { &spec.exclude[..] };
        let excluded = excluded.iter().map(|entry| embedder.embed(entry)).collect::<Result<_, _>>();
        let excluded = excluded.map_err(internal)?;
        Ok(Some(Self { embedder: Arc::clone(embedder), distinct, plausible, excluded }))
    }

    /// Takes as long as reading the item does: some milliseconds, on a thread of its own.
    ///
    /// # Errors
    /// The embeddings cannot be used after all.
    pub(super) fn meaning(&self, item: &QuizItem) -> Result<Meaning, GenerateError> {
        let embed = |text: &str| self.embedder.embed(text).map_err(internal);
        let has_choices = item.kind == ItemKind::MultipleChoice && self.plausible != CheckPolicy::Off;
        let is_text = !matches!(Form::of(&item.answer.text), Form::Number | Form::Quantity);
        let plausible = match &item.choices {
            Some(choices) if has_choices && is_text => {
                let key = embed(&item.answer.text)?;
                let others = choices.iter().filter(|choice| **choice != item.answer.text);
                let others: Vec<Embedding> = others.map(|other| embed(other)).collect::<Result<_, _>>()?;
                Some(others.iter().all(|other| is_plausible(&key, other)))
            }
            _ => None,
        };
        Ok(Meaning { question: embed(&item.question)?, plausible })
    }

    pub(super) fn requires_plausible(&self) -> bool {
        self.plausible == CheckPolicy::Require
    }

    /// Whether the request excludes a question like this one.
    pub(super) fn is_excluded(&self, meaning: &Meaning) -> bool {
        self.excluded.iter().any(|entry| meaning.question.cosine(entry) >= SAME_QUESTION)
    }
}

impl Meaning {
    /// Whether the two items ask the same, whatever their words.
    pub(super) fn is_near(&self, item: &QuizItem, other: &Self, other_item: &QuizItem) -> bool {
        let cosine = self.question.cosine(&other.question);
        let statements = [item, other_item].iter().any(|item| item.kind == ItemKind::TrueFalse);
        let same_answer = !statements && plain(&item.answer.text) == plain(&other_item.answer.text);
        cosine >= if same_answer { SAME_ANSWER_QUESTION } else { SAME_QUESTION }
    }
}

fn is_plausible(key: &Embedding, other: &Embedding) -> bool {
    PLAUSIBLE.contains(&key.cosine(other))
}

/// Whether the embeddings know the language.
fn is_known(language: &Language) -> bool {
    language.code() == "en"
}

fn cannot_require(param: &'static str, has_embedder: bool) -> GenerateError {
    let why = if has_embedder {
        "questions are compared by meaning in English alone".to_owned()
    } else {
        format!("this server has no sentence embeddings; `mondai pull {}` fetches them", Embedder::NAME)
    };
    GenerateError::Invalid { param, message: format!("`{param}` cannot be required: {why}") }
}

fn internal(error: EmbeddingError) -> GenerateError {
    GenerateError::Internal { reason: error.to_string() }
}
