//! How byte-level vocabularies cut text into words before merging: GGUF files only name the way.

use tokenizers::normalizers::NFC;
use tokenizers::pre_tokenizers::{
    byte_level::ByteLevel, sequence::Sequence, split::Split, split::SplitPattern,
};
use tokenizers::{NormalizerWrapper, PreTokenizerWrapper, SplitDelimiterBehavior};

/// One of the named ways.
#[derive(Clone, Copy, Debug)]
pub(super) struct PreTokenizer {
    /// Patterns whose matches become words, each applied to the words of the one before.
    patterns: &'static [&'static str],
    composes: bool,
    /// A word that is a token is that token, even where no merges lead to it.
    pub(super) ignores_merges: bool,
}

// As published in the `tokenizer.json` of the family named, but for `DEFAULT`, which exists in
// llama.cpp alone (for files that do not say).
const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
const DIGIT: &str = r"\p{N}";
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const TEKKEN: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const GPT4O: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const DEFAULT: &[&str] = &[r"[\p{P}$+<=>^~|]+", GPT2, r"\p{N}+", "[0-9][0-9][0-9]"];

impl PreTokenizer {
    /// The way that `tokenizer.ggml.pre` names; `None` if we do not know it.
    ///
    /// Source: the names of `llama_vocab::impl::load`, llama.cpp.
    pub(super) fn named(name: &str) -> Option<Self> {
        let way = |patterns| Self { patterns, composes: false, ignores_merges: false };
        Some(match name {
            "default" => way(DEFAULT),
            "gpt-2" | "phi-2" | "olmo" | "mpt" => way(&[GPT2]),
            "smollm" | "starcoder" | "refact" | "codeshell" | "minerva-7b" => way(&[DIGIT, GPT2]),
            "llama-bpe" | "llama3" | "llama-v3" | "falcon3" | "pixtral" => {
                Self { ignores_merges: true, ..way(&[LLAMA3]) }
            }
            "smaug-bpe" | "dbrx" => way(&[LLAMA3]),
            "qwen2" => Self { composes: true, ..way(&[QWEN2]) },
            "deepseek-r1-qwen" => way(&[QWEN2]),
            "tekken" => Self { ignores_merges: true, ..way(&[TEKKEN]) },
            "gpt-4o" | "llama4" => way(&[GPT4O]),
            _ => return None,
        })
    }

    /// Canonical composition, for the families trained on composed text.
    pub(super) fn normalizer(self) -> Option<NormalizerWrapper> {
        self.composes.then(|| NFC.into())
    }

    pub(super) fn build(self) -> PreTokenizerWrapper {
        let splits = self.patterns.iter().map(|pattern| {
            let pattern = SplitPattern::Regex((*pattern).to_owned());
            let split = Split::new(pattern, SplitDelimiterBehavior::Isolated, false);
            split.expect("the patterns above are valid").into()
        });
        let bytes = ByteLevel::new(false, false, false).into();
        Sequence::new(splits.chain([bytes]).collect()).into()
    }
}
