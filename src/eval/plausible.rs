use super::candidate::Candidate;
use crate::embedding::{Embedder, EmbeddingError};
use crate::quiz::ItemKind;
use crate::quiz::wording::{contains, plain};

/// The mean cosine of people's wrong options and their key, on Open Trivia DB (`scripts/embedding_figures.py`).
const PEOPLES_MEAN: f64 = 0.43;

/// The mean over the wrong choices of `1 - |cos - m| / m`, at least 0, where `m` is people's mean; nothing for one
/// of another kind than the key, or that says what the key says, in part or in whole. `None` of an item without
/// choices.
///
/// # Errors
/// The embeddings cannot be used.
pub fn plausibility(item: &Candidate, embedder: &Embedder) -> Result<Option<f64>, EmbeddingError> {
    if item.kind != ItemKind::MultipleChoice || item.distractors.is_empty() {
        return Ok(None);
    }
    let key = embedder.embed(&item.answer)?;
    let mut sum = 0.0;
    for other in &item.distractors {
        if is_of_its_kind(other, &item.answer) && !says_the_same(other, &item.answer) {
            let cosine = f64::from(embedder.embed(other)?.cosine(&key));
            sum += (1.0 - (cosine - PEOPLES_MEAN).abs() / PEOPLES_MEAN).max(0.0);
        }
    }
    Ok(Some(sum / item.distractors.len() as f64))
}

/// Both numbers, or neither.
fn is_of_its_kind(other: &str, key: &str) -> bool {
    let is_number =
        |text: &str| text.trim_start_matches(['$', '£', '€', '-']).starts_with(|c: char| c.is_numeric());
    is_number(other) == is_number(key)
}

fn says_the_same(other: &str, key: &str) -> bool {
    plain(other) == plain(key) || contains(other, key) || contains(key, other)
}
