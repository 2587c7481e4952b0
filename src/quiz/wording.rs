//! Texts compared as a reader would: without case, width, spaces and punctuation.

use super::script::{Script, is_unspaced};
pub(crate) use super::word::is_filler;
use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_combining_mark;

/// White space folded to single spaces, none at the ends.
pub(super) fn fold_spaces(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// What is left of a text when case, width, spaces and punctuation are taken away. Signs that make a
/// difference stay: `C`, `C++` and `C#`, `1.5` and `15`, `-5` and `5`, `5%`.
pub(crate) fn plain(text: &str) -> String {
    let chars: Vec<char> = text.nfkc().flat_map(char::to_lowercase).collect();
    let digit_at = |idx: Option<usize>| idx.and_then(|idx| chars.get(idx)).is_some_and(|c| c.is_numeric());
    let keeps = |idx: usize, c: char| match c {
        '+' | '#' | '%' | '°' | '$' | '€' | '£' | '¥' | 'ー' | '々' => true,
        '.' | ':' | '/' => digit_at(idx.checked_sub(1)) && digit_at(Some(idx + 1)),
        '-' | '−' => {
            digit_at(Some(idx + 1)) && !idx.checked_sub(1).is_some_and(|idx| chars[idx].is_alphanumeric())
        }
        _ => c.is_alphanumeric() || is_combining_mark(c),
    };
    chars.iter().enumerate().filter(|(idx, c)| keeps(*idx, **c)).map(|(_, c)| *c).collect()
}

/// The words of a text in plain form; a text of an unspaced script is its runs between punctuation.
pub(crate) fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(plain).filter(|word| !word.is_empty()).collect()
}

/// Whether `part` stands in `whole`, as whole words where there are words.
pub(crate) fn contains(whole: &str, part: &str) -> bool {
    if part.chars().any(is_unspaced) {
        return plain(whole).contains(&plain(part));
    }
    let (whole, part) = (words_at_punctuation(whole), words_at_punctuation(part));
    !part.is_empty() && whole.windows(part.len()).any(|window| window == part)
}

/// Whether `short` is the initials of `name`: "NSF", also in "NSF-funded", of "National Science Foundation", "U.S" of
/// "United States".
pub(super) fn are_initials(short: &str, name: &str) -> bool {
    let initials =
        name.split_whitespace().filter_map(|word| word.chars().next()).filter(|c| c.is_uppercase());
    let short = short.split('-').next().unwrap_or_default();
    initials.eq(short.chars().filter(|c| *c != '.'))
}

/// Words cut at hyphens and apostrophes too: "Newton's law" holds "Newton".
fn words_at_punctuation(text: &str) -> Vec<String> {
    let is_separator =
        |c: char| c.is_whitespace() || matches!(c, '-' | '\'' | '’' | '(' | ')' | '"' | '/' | '—' | '–');
    text.split(is_separator).map(plain).filter(|word| !word.is_empty()).collect()
}

/// Whether the names and numbers of a question, but for its first word, all stand in a text. Names are told by their
/// capitals, as in English.
pub(crate) fn names_stand_in(question: &str, text: &str) -> bool {
    let known = plain(text);
    question.split_whitespace().skip(1).all(|word| {
        let name = word.trim_end_matches(|c: char| !c.is_alphanumeric());
        // "Newton's" stands for Newton.
        let name = name.strip_suffix("'s").or_else(|| name.strip_suffix("’s")).unwrap_or(name);
        let is_name =
            name.starts_with(|c: char| c.is_uppercase() || c.is_numeric()) && name.chars().count() > 1;
        !is_name || known.contains(&plain(name))
    })
}

/// Whether a question is about one fact of a text: it says enough to tell it from others, and nothing that the text does
/// not, whatever the words' endings. In English.
pub(super) fn is_about(question: &str, text: &str) -> bool {
    const MIN_WORDS: usize = 3;
    let stands_in_text: HashSet<String> = words_at_punctuation(text).iter().map(|word| root(word)).collect();
    let asks = |word: &str| ENGLISH_INTERROGATIVES.contains(&word) || ASKED_FOR.contains(&word);
    let mut said = words_at_punctuation(question);
    said.retain(|word| !asks(word) && !is_filler(word));
    said.len() >= MIN_WORDS && said.iter().all(|word| stands_in_text.contains(&root(word)))
}

/// What a question calls its answer.
const ASKED_FOR: &[&str] = &["name", "names", "kind", "kinds", "type", "types", "year", "years"];

/// What is left of a word without its endings: the same of "carries" and "carried", not of "ran" and "runs".
fn root(word: &str) -> String {
    const ENDINGS: [&str; 9] = ["ings", "ing", "ions", "ion", "ed", "es", "ly", "s", "e"];
    const MIN_CHARS: usize = 2;
    const MAX_CHARS: usize = 7;
    // Carry, carries, carried; class, classes.
    let word = word
        .strip_suffix("ies")
        .or_else(|| word.strip_suffix("ied"))
        .map_or_else(|| word.to_owned(), |bare| format!("{bare}y"));
    let bare = ENDINGS
        .iter()
        .filter(|_| !word.ends_with("ss"))
        .find_map(|ending| word.strip_suffix(ending).filter(|bare| bare.chars().count() >= MIN_CHARS));
    bare.unwrap_or(&word).chars().take(MAX_CHARS).collect()
}

/// How alike two texts are, from 0 to 1: the Jaccard index of their words, without those that say
/// nothing, or of their character trigrams where words are not spaced.
pub(crate) fn likeness(a: &str, b: &str) -> f32 {
    let unspaced = a.chars().chain(b.chars()).any(is_unspaced);
    let pieces = if unspaced { trigrams } else { telling_words };
    let (a, b) = (pieces(a), pieces(b));
    let shared = a.intersection(&b).count();
    let all = a.len() + b.len() - shared;
    if all == 0 { 1.0 } else { shared as f32 / all as f32 }
}

/// What a text is compared by with many others: the hashes of what [`likeness`] counts, sorted.
pub(crate) struct Pieces {
    hashes: Vec<u64>,
    unspaced: bool,
}

pub(crate) fn pieces(text: &str) -> Pieces {
    let unspaced = text.chars().any(is_unspaced);
    let pieces = if unspaced { trigrams(text) } else { telling_words(text) };
    // Of fixed keys: the same in every run.
    let hash = |piece: &String| {
        let mut hasher = DefaultHasher::new();
        piece.hash(&mut hasher);
        hasher.finish()
    };
    let mut hashes: Vec<u64> = pieces.iter().map(hash).collect();
    hashes.sort_unstable();
    Pieces { hashes, unspaced }
}

impl Pieces {
    /// The likeness of the two texts, but for one with spaces and one without: they share nothing.
    pub(crate) fn jaccard(&self, other: &Self) -> f32 {
        if self.unspaced != other.unspaced {
            return 0.0;
        }
        let (mut a, mut b) = (&self.hashes[..], &other.hashes[..]);
        let mut shared = 0;
        while let ([first_a, rest_a @ ..], [first_b, rest_b @ ..]) = (a, b) {
            shared += usize::from(first_a == first_b);
            a = if first_a <= first_b { rest_a } else { a };
            b = if first_b <= first_a { rest_b } else { b };
        }
        let all = self.hashes.len() + other.hashes.len() - shared;
        if all == 0 { 1.0 } else { shared as f32 / all as f32 }
    }
}

/// "What is the capital of France?" is about *what*, *capital* and *France*.
fn telling_words(text: &str) -> HashSet<String> {
    let words = words_at_punctuation(text);
    let tells = |word: &&String| ENGLISH_INTERROGATIVES.contains(&word.as_str()) || !is_filler(word);
    let telling: HashSet<String> = words.iter().filter(tells).cloned().collect();
    if telling.is_empty() { words.into_iter().collect() } else { telling }
}

const ENGLISH_INTERROGATIVES: &[&str] =
    &["who", "whom", "whose", "what", "when", "where", "which", "why", "how"];

fn trigrams(text: &str) -> HashSet<String> {
    let chars: Vec<char> = plain(text).chars().collect();
    if chars.len() < 3 {
        return HashSet::from([chars.into_iter().collect()]);
    }
    chars.windows(3).map(|window| window.iter().collect()).collect()
}

/// Whether the text asks: it has a word that questions have. English, Japanese and Chinese alone; for
/// others, `None`.
pub(super) fn has_interrogative(text: &str) -> Option<bool> {
    const JAPANESE: &[&str] = &[
        "何",
        "なに",
        "なん",
        "誰",
        "だれ",
        "どこ",
        "いつ",
        "なぜ",
        "どの",
        "どれ",
        "どう",
        "どちら",
        "どんな",
        "いくつ",
        "いくら",
        "どのよう",
    ];
    const CHINESE: &[&str] = &["什么", "什麼", "谁", "誰", "哪", "何", "多少", "几", "幾", "怎", "为什么"];
    match main_script(text) {
        Some(Script::Japanese) => Some(JAPANESE.iter().any(|word| text.contains(word))),
        Some(Script::Han) => Some(CHINESE.iter().any(|word| text.contains(word))),
        Some(Script::Latin) => words_at_punctuation(text)
            .iter()
            .any(|word| ENGLISH_INTERROGATIVES.contains(&word.as_str()))
            .then_some(true),
        _ => None,
    }
}

fn main_script(text: &str) -> Option<Script> {
    let scripts: Vec<Script> = text.chars().filter_map(Script::of).collect();
    if scripts.contains(&Script::Japanese) {
        return Some(Script::Japanese);
    }
    scripts.first().copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_texts() {
        let check = |text: &str, expected: &str| assert_eq!(plain(text), expected, "{text}");
        check("The  Eiffel-Tower!", "theeiffeltower");
        check("Ｃ＋＋", "c++");
        check("C#", "c#");
        check("1.5", "1.5");
        check("5,500,000", "5500000");
        check("-5", "-5");
        check("twenty-one", "twentyone");
        check("「東京」", "東京");
        check("ｶﾞｲﾄﾞ", "ガイド");
        check("コーヒー", "コーヒー");
        check("10:30", "10:30");
        check("…", "");
    }

    #[test]
    fn parts() {
        let check =
            |whole: &str, part: &str, expected: bool| assert_eq!(contains(whole, part), expected, "{part}");
        check("What is Newton's first law?", "newton", true);
        check("What is the artistic style?", "art", false);
        check("Where is the Eiffel Tower?", "eiffel tower", true);
        check("日本の首都は東京ですか？", "東京", true);
        check("What?", "", false);
        check("In 1889?", "1889", true);
        check("In 18899?", "1889", false);
    }

    #[test]
    fn asking_about_a_text() {
        let text = "In 1759 John Smeaton carried out trials of a steam engine for pumping water in a mine at Kenton.";
        let check =
            |question: &str, expected: bool| assert_eq!(is_about(question, text), expected, "{question}");
        check("Who pumped water with steam engines?", true);
        check("What is the name of the mine in which Smeaton pumped water?", true);
        check("In which year did John Smeaton carry out his trials?", true);
        check("Who invented the steam engine for mines?", false);
        check("Where was the mine?", false);
        check("What?", false);
    }

    #[test]
    fn roots() {
        let check =
            |words: &[&str]| assert!(words.iter().all(|word| root(word) == root(words[0])), "{words:?}");
        check(&["carry", "carries", "carried"]);
        check(&["class", "classes"]);
        check(&["pass", "passed", "passing", "passes"]);
        check(&["invention", "inventions", "invent", "inventing", "invented"]);
        check(&["use", "uses", "used"]);
        check(&["dyes", "dye", "dyed"]);
        check(&["été", "étés"]);
    }

    #[test]
    fn alike() {
        let check = |a: &str, b: &str, expected: f32| {
            assert!((likeness(a, b) - expected).abs() < 0.005, "{a} / {b}: {}", likeness(a, b));
            assert_eq!(pieces(a).jaccard(&pieces(b)), likeness(a, b), "{a} / {b}");
        };
        check("What is the capital of France?", "what is the capital of france", 1.0);
        check("What is the capital of France?", "What is the capital of Spain?", 0.5);
        check("What's the capital of France?", "Name the capital of France!", 0.5);
        check("Who wrote Hamlet?", "How far is the Moon?", 0.0);
        check("日本の首都はどこ？", "日本の首都はどこですか？", 2.0 / 3.0);
        check("日本の首都はどこ？", "フランスの首都はどこ？", 0.4);
        check("", "", 1.0);
    }
}
