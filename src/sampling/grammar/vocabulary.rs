//! The model's vocabulary as grammars see it: bytes to tokens and back, without special tokens.

use crate::text::{TextError, TokenId};
use std::collections::HashMap;
use toktrie::{INVALID_TOKEN, TokRxInfo, TokTrie, TokenizerEnv};

/// Longer tokens are left out: the trie's nodes count at most 1024 ancestors, and no grammar misses
/// a token this long.
const MAX_TOKEN_BYTES: usize = 256;
/// All tokens together, in bytes; the trie numbers its nodes with 22 bits.
const MAX_VOCABULARY_BYTES: usize = 4_000_000;

/// Turns text into token ids, plain: no special tokens, nothing added.
pub(super) type Encode = Box<dyn Fn(&str) -> Vec<TokenId> + Send + Sync>;

/// Tokens by their bytes.
///
/// Special tokens are no part of it, so no grammar can write them; in their stead there is one token
/// beyond the tokenizer's own, [`document_end`](Self::document_end), which every grammar ends with
/// (see the module page).
pub(super) struct Vocabulary {
    trie: TokTrie,
    spelling: Spelling,
    encode: Encode,
    canonical: bool,
    end_tokens: Vec<TokenId>,
    mask_words: usize,
}

/// Whether grammars can write with the tokens that have these bytes, none for special ones; `logits_len` is the
/// length of the model's rows of logits.
///
/// # Errors
/// [`TextError::Unusable`]: no token ends a reply, or there are more than the model scores or a trie holds.
pub(super) fn check<'a>(
    token_bytes: impl ExactSizeIterator<Item = &'a [u8]>,
    end_tokens: &[TokenId],
    logits_len: usize,
) -> Result<(), TextError> {
    let unusable = |reason: String| TextError::Unusable {
        part: "vocabulary",
        model: "this model for grammars".to_owned(),
        reason,
    };
    let n_tokens = token_bytes.len();
    if logits_len < n_tokens {
        return Err(unusable(format!("it has {n_tokens} tokens, the model scores {logits_len}")));
    }
    if end_tokens.is_empty() || end_tokens.iter().any(|&id| id as usize >= n_tokens) {
        return Err(unusable("no token of it ends a reply".to_owned()));
    }
    let spelled = token_bytes.enumerate().filter(|(id, bytes)| is_spelled(*id, bytes, end_tokens));
    let total: usize = spelled.map(|(_, bytes)| bytes.len()).sum();
    if total == 0 || total > MAX_VOCABULARY_BYTES {
        return Err(unusable(format!("its tokens are {total} bytes together")));
    }
    Ok(())
}

/// Whether a grammar may write the token.
fn is_spelled(id: usize, bytes: &[u8], end_tokens: &[TokenId]) -> bool {
    // 0xFF is never part of UTF-8; llguidance marks special tokens with it.
    bytes.len() <= MAX_TOKEN_BYTES
        && !bytes.contains(&TokTrie::SPECIAL_TOKEN_MARKER)
        && !end_tokens.contains(&(id as TokenId))
}

impl Vocabulary {
    /// Of what has passed [`check`].
    pub(super) fn new(
        mut token_bytes: Vec<Vec<u8>>,
        end_tokens: &[TokenId],
        encode: Encode,
        logits_len: usize,
    ) -> Self {
        for (id, bytes) in token_bytes.iter_mut().enumerate() {
            if !is_spelled(id, bytes, end_tokens) {
                bytes.clear();
            }
        }
        let spelling = Spelling::new(&token_bytes);
        let canonical = spells_back(&encode, &token_bytes);
        token_bytes.push(Vec::new()); // `document_end`
        // Ends of replies are ours to handle: llguidance shall know of none.
        let info = TokRxInfo::new(token_bytes.len() as u32, INVALID_TOKEN);
        Self {
            trie: TokTrie::from(&info, &token_bytes),
            spelling,
            encode,
            canonical,
            end_tokens: end_tokens.to_vec(),
            mask_words: logits_len.div_ceil(u32::BITS as usize),
        }
    }

    /// Stands for "the document is complete" at the end of every grammar; the model has no such token.
    pub(super) fn document_end(&self) -> TokenId {
        self.trie.vocab_size() as TokenId - 1
    }

    pub(super) fn end_tokens(&self) -> &[TokenId] {
        &self.end_tokens
    }

    /// Empty for special tokens and for ids that are no token.
    pub(super) fn bytes(&self, token: TokenId) -> &[u8] {
        self.trie.token(token)
    }

    /// `u32` words in a mask over the model's logits.
    pub(super) fn mask_words(&self) -> usize {
        self.mask_words
    }

    /// The fewest tokens that spell `bytes`; none if the vocabulary cannot spell them.
    pub(super) fn fewest_tokens(&self, bytes: &[u8]) -> Option<Vec<TokenId>> {
        self.spelling.fewest_tokens(bytes)
    }

    fn spell_greedily(&self, bytes: &[u8]) -> Vec<TokenId> {
        self.fewest_tokens(bytes).unwrap_or_else(|| self.trie.greedy_tokenize(bytes))
    }
}

impl TokenizerEnv for Vocabulary {
    fn tok_trie(&self) -> &TokTrie {
        &self.trie
    }

    /// The tokenizer's own tokens where they spell `bytes` exactly; a tokenizer may normalise text.
    fn tokenize_bytes(&self, bytes: &[u8]) -> Vec<TokenId> {
        let mut tokens = Vec::new();
        for chunk in bytes.utf8_chunks() {
            let own = (self.encode)(chunk.valid());
            if self.trie.decode_raw(&own) == chunk.valid().as_bytes() {
                tokens.extend(own);
            } else {
                tokens.extend(self.spell_greedily(chunk.valid().as_bytes()));
            }
            tokens.extend(self.spell_greedily(chunk.invalid()));
        }
        tokens
    }

    fn tokenize_is_canonical(&self) -> bool {
        self.canonical
    }
}

/// Whether the tokenizer gives back the text it is given, as far as a few samples tell. One that adds
/// a space in front, say, cannot say how forced text is usually written.
fn spells_back(encode: &Encode, token_bytes: &[Vec<u8>]) -> bool {
    ["a", "{\"question\":\"", ", who", "\n  \"x\": [1.5, null]"].iter().all(|text| {
        let tokens = encode(text);
        let bytes: Vec<u8> =
            tokens.iter().flat_map(|&id| token_bytes.get(id as usize).cloned().unwrap_or_default()).collect();
        bytes == text.as_bytes()
    })
}

/// A trie for finding the fewest tokens that spell some bytes; flat, because the search for an ending
/// asks often.
struct Spelling {
    /// (node, byte) → node
    edges: HashMap<(u32, u8), u32, llguidance::derivre::RandomState>,
    /// By node; [`INVALID_TOKEN`] where no token ends.
    tokens: Vec<TokenId>,
}

impl Spelling {
    fn new(token_bytes: &[Vec<u8>]) -> Self {
        let mut spelling = Self { edges: HashMap::default(), tokens: vec![INVALID_TOKEN] };
        for (id, bytes) in token_bytes.iter().enumerate().filter(|(_, bytes)| !bytes.is_empty()) {
            let mut node = 0;
            for &byte in bytes {
                let next = spelling.tokens.len() as u32;
                node = *spelling.edges.entry((node, byte)).or_insert(next);
                if node == next {
                    spelling.tokens.push(INVALID_TOKEN);
                }
            }
            let token = &mut spelling.tokens[node as usize];
            if *token == INVALID_TOKEN {
                *token = id as TokenId;
            }
        }
        spelling
    }

    fn fewest_tokens(&self, bytes: &[u8]) -> Option<Vec<TokenId>> {
        /// The best way from a place in `bytes` to their end.
        #[derive(Clone, Copy)]
        struct Way {
            n_tokens: usize,
            token: TokenId,
            next: usize,
        }
        let mut ways: Vec<Option<Way>> = vec![None; bytes.len() + 1];
        ways[bytes.len()] = Some(Way { n_tokens: 0, token: INVALID_TOKEN, next: bytes.len() });
        for start in (0..bytes.len()).rev() {
            let mut node = 0;
            for end in start + 1..=bytes.len() {
                let Some(&next_node) = self.edges.get(&(node, bytes[end - 1])) else { break };
                node = next_node;
                let token = self.tokens[node as usize];
                let Some(rest) = ways[end].filter(|_| token != INVALID_TOKEN) else { continue };
                let n_tokens = rest.n_tokens + 1;
                // On a tie the longer first token wins, as most tokenizers would have it.
                if ways[start].is_none_or(|way| n_tokens <= way.n_tokens) {
                    ways[start] = Some(Way { n_tokens, token, next: end });
                }
            }
        }
        let mut tokens = Vec::with_capacity(ways[0]?.n_tokens);
        let mut place = 0;
        while place < bytes.len() {
            let way = ways[place]?;
            tokens.push(way.token);
            place = way.next;
        }
        Some(tokens)
    }
}
