//! What short English texts mean, as vectors: all-MiniLM-L6-v2 (Reimers and Gurevych, Sentence-BERT, 2019),
//! whose cosines say how alike two texts are. May use `model`, which reads the weights. Absent: quizzes, how
//! alike is too alike, downloads.

mod bert;

use crate::model::ModelError;
use bert::Bert;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokenizers::{Tokenizer, TruncationParams};

/// The model, opened. Clones share it.
#[derive(Clone)]
pub struct Embedder {
    inner: Arc<Inner>,
}

struct Inner {
    tokenizer: Tokenizer,
    bert: Bert,
}

/// A text's vector: [`Embedding::LEN`] long, of length 1.
#[derive(Clone, Debug, PartialEq)]
pub struct Embedding(Vec<f32>);

/// Why there are no embeddings. Each variant names the file.
#[derive(Debug, thiserror::Error)]
pub enum EmbeddingError {
    #[error("the sentence embeddings are not downloaded ({path} is missing); run `mondai pull {name}`", name = Embedder::NAME)]
    NotPulled { path: PathBuf },
    #[error(transparent)]
    Weights(#[from] ModelError),
    #[error("{path}: {reason}")]
    Unusable { path: PathBuf, reason: String },
}

/// Word pieces that are read, the two marks at the ends included: what the model's makers trained it with.
const MAX_TOKENS: usize = 256;

impl Embedder {
    /// What `mondai pull` calls it, and its folder in the models folder.
    pub const NAME: &str = "all-minilm-l6-v2";
    pub const WEIGHTS: &str = "model.safetensors";
    pub const TOKENIZER: &str = "tokenizer.json";

    /// Opens the two files of a folder. Their 90 MB of weights are checked by name and shape; what of them is
    /// needed is read when the first text comes.
    ///
    /// # Errors
    /// [`EmbeddingError::NotPulled`] where one is missing.
    pub fn open(folder: &Path) -> Result<Self, EmbeddingError> {
        let [weights, tokenizer] = [Self::WEIGHTS, Self::TOKENIZER].map(|file| folder.join(file));
        if let Some(path) = [&weights, &tokenizer].into_iter().find(|path| !path.is_file()) {
            return Err(EmbeddingError::NotPulled { path: path.clone() });
        }
        let bert = Bert::open(&weights)?;
        let tokenizer = open_tokenizer(&tokenizer)
            .map_err(|error| EmbeddingError::Unusable { path: tokenizer, reason: error.to_string() })?;
        Ok(Self { inner: Arc::new(Inner { tokenizer, bert }) })
    }

    /// The text's vector; of a long text, its beginning's. Each text is run alone, so that its vector is the
    /// same to the last bit whatever else is asked.
    ///
    /// # Errors
    /// The tokenizer or the arithmetic failed: the files are not what they should be.
    pub fn embed(&self, text: &str) -> Result<Embedding, EmbeddingError> {
        let Inner { tokenizer, bert } = &*self.inner;
        let unusable = |reason: String| EmbeddingError::Unusable { path: Self::NAME.into(), reason };
        let tokens = tokenizer.encode_fast(text, true).map_err(|error| unusable(error.to_string()))?;
        bert.embed(tokens.get_ids()).map(Embedding).map_err(|error| unusable(error.to_string()))
    }
}

impl Embedding {
    pub const LEN: usize = bert::HIDDEN;

    /// From -1 to 1: how alike two texts are.
    pub fn cosine(&self, other: &Self) -> f32 {
        self.0.iter().zip(&other.0).map(|(a, b)| a * b).sum()
    }

    /// The vector's numbers.
    pub fn values(&self) -> &[f32] {
        &self.0
    }

    /// A vector of any length but 0 in this direction, made one of length 1; the rest is zero.
    #[cfg(test)]
    pub(crate) fn towards(direction: &[f32]) -> Self {
        let len = direction.iter().map(|value| value * value).sum::<f32>().sqrt();
        Self(direction.iter().map(|value| value / len).collect())
    }
}

fn open_tokenizer(path: &Path) -> tokenizers::Result<Tokenizer> {
    let mut tokenizer = Tokenizer::from_file(path)?;
    // The file says to fill up and to cut at 128: it is made for batches.
    tokenizer.with_padding(None);
    tokenizer.with_truncation(Some(TruncationParams { max_length: MAX_TOKENS, ..Default::default() }))?;
    Ok(tokenizer)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A sentence and its vector as transformers computes it.
    #[derive(serde::Deserialize)]
    struct Golden {
        text: String,
        values: Vec<f32>,
    }

    fn embedder() -> Embedder {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("models").join(Embedder::NAME);
        Embedder::open(&folder)
            .unwrap_or_else(|error| panic!("{error}: scripts/test.sh fetches what the tests need"))
    }

    #[test]
    fn vectors_are_those_of_transformers() {
        let golden = include_str!("../../tests/fixtures/golden/embeddings.jsonl");
        let embedder = embedder();
        for line in golden.lines() {
            let Golden { text, values } = serde_json::from_str(line).unwrap();
            let found = embedder.embed(&text).unwrap();
            assert_eq!((found.values().len(), values.len()), (Embedding::LEN, Embedding::LEN));
            let pairs = found.values().iter().zip(&values);
            let furthest = pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            // The reference is rounded to six places.
            assert!(furthest < 3e-6, "{furthest} away: {text:?}");
            assert_eq!(found, embedder.embed(&text).unwrap(), "the same text has the same bits");
        }
    }

    #[test]
    fn files_that_cannot_be_used_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let error = |says: &str| {
            let error = Embedder::open(folder.path()).err().expect(says).to_string();
            assert!(error.contains(says), "{error}");
        };
        error("model.safetensors is missing); run `mondai pull all-minilm-l6-v2`");
        std::fs::write(folder.path().join(Embedder::WEIGHTS), "no weights").unwrap();
        error("tokenizer.json is missing");
        std::fs::write(folder.path().join(Embedder::TOKENIZER), "{}").unwrap();
        error("model.safetensors: ");
        let header =
            br#"{"embeddings.word_embeddings.weight":{"dtype":"F32","shape":[1,2],"data_offsets":[0,8]}}"#;
        let file = [&(header.len() as u64).to_le_bytes(), &header[..], &[0; 8]].concat();
        std::fs::write(folder.path().join(Embedder::WEIGHTS), file).unwrap();
        error(
            "model.safetensors: tensor embeddings.word_embeddings.weight: its shape is [1, 2], not [30522, 384]",
        );
    }
}
