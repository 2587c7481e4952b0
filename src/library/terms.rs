//! What is looked for in a text: its words without their endings, and where words are not spaced, pairs of
//! neighbouring characters.
//!
//! Runs are cut where the script changes, which in Japanese is mostly where a word ends. A kanji counts alone
//! too where its word ends, so that 城 finds 姫路城 and not 宮城県.

use tantivy::tokenizer::{Token, TokenStream, Tokenizer};
use unicode_normalization::char::is_combining_mark;
use unicode_normalization::{IsNormalized, UnicodeNormalization, is_nfkc_quick};

/// The terms of a text that is searched, in order, repeated as often as they stand there.
pub(crate) fn terms(text: &str) -> Vec<String> {
    let mut terms = Vec::new();
    for Run { chars, class, next } in runs(text) {
        match class {
            Class::Word => terms.extend(word_term(&chars)),
            Class::Han => {
                let goes_on = matches!(next, Some(Class::Katakana | Class::Word));
                terms.extend(chars.last().filter(|_| !goes_on && chars.len() > 1).map(char::to_string));
                terms.extend(pairs(&chars));
            }
            Class::Hiragana | Class::Katakana | Class::Unspaced => terms.extend(pairs(&chars)),
        }
    }
    terms
}

/// The terms of a topic: no more than are needed to know it again.
///
/// Short runs of hiragana are particles, unless there is nothing else.
pub(crate) fn topic_terms(topic: &str) -> Vec<String> {
    let runs = runs(topic);
    let is_particle = |run: &[char], class: Class| {
        class == Class::Hiragana
            && (run.len() < 3 || PARTICLES.contains(&run.iter().collect::<String>().as_str()))
    };
    let only_particles = runs.iter().all(|run| is_particle(&run.chars, run.class));
    let mut terms = Vec::new();
    for Run { chars, class, .. } in runs {
        match class {
            Class::Word => terms.extend(word_term(&chars)),
            _ if is_particle(&chars, class) && !only_particles => {}
            _ => terms.extend(pairs(&chars)),
        }
    }
    let mut distinct = Vec::new();
    for term in terms {
        if !distinct.contains(&term) {
            distinct.push(term);
        }
    }
    distinct
}

/// Whether the character comes from a script that writes words without spaces between them.
pub(super) fn is_unspaced(c: char) -> bool {
    matches!(class(c), Some(Class::Han | Class::Hiragana | Class::Katakana | Class::Unspaced))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    /// Letters and digits of scripts that space their words.
    Word,
    Han,
    Hiragana,
    Katakana,
    /// Thai, Lao, Tibetan, Burmese, Khmer.
    Unspaced,
}

fn class(c: char) -> Option<Class> {
    if c.is_ascii() {
        return c.is_ascii_alphanumeric().then_some(Class::Word);
    }
    match c {
        '々' | '〇' | '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}' | '\u{f900}'..='\u{faff}' => {
            Some(Class::Han)
        }
        '\u{20000}'..='\u{323af}' => Some(Class::Han),
        'ぁ'..='ゖ' | 'ゝ'..='ゟ' => Some(Class::Hiragana),
        'ァ'..='ヺ' | 'ー'..='ヿ' | 'ㇰ'..='ㇿ' => Some(Class::Katakana),
        '\u{0e00}'..='\u{0fff}' | '\u{1000}'..='\u{109f}' | '\u{1780}'..='\u{17ff}'
            if c.is_alphanumeric() || is_combining_mark(c) =>
        {
            Some(Class::Unspaced)
        }
        _ if c.is_alphanumeric() || is_combining_mark(c) => Some(Class::Word),
        _ => None,
    }
}

/// Neighbouring characters of one class.
struct Run {
    chars: Vec<char>,
    class: Class,
    /// That of the run that follows without a gap.
    next: Option<Class>,
}

/// The runs of a text in compatibility form and lower case.
fn runs(text: &str) -> Vec<Run> {
    // Nearly every text is in that form already, and to look is cheaper than to make it.
    if is_nfkc_quick(text.chars()) == IsNormalized::Yes {
        runs_of(text.chars())
    } else {
        runs_of(text.nfkc())
    }
}

fn runs_of(chars: impl Iterator<Item = char>) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    let mut previous = None;
    for c in chars.flat_map(char::to_lowercase) {
        let class = class(c);
        if let Some(class) = class {
            match runs.last_mut() {
                Some(run) if previous == Some(class) => run.chars.push(c),
                last => {
                    if let Some(run) = last {
                        run.next = previous.map(|_| class);
                    }
                    runs.push(Run { chars: vec![c], class, next: None });
                }
            }
        }
        previous = class;
    }
    runs
}

/// Neighbouring characters, two by two; the one there is of a run of one.
fn pairs(run: &[char]) -> impl Iterator<Item = String> + '_ {
    run.windows(run.len().clamp(1, 2)).map(|pair| pair.iter().collect())
}

/// A word without its plural ending; none for a word that says nothing, or that only a machine would read.
fn word_term(word: &[char]) -> Option<String> {
    const MAX_CHARS: usize = 60;
    let word: String = word.iter().collect();
    let is_letter = word.chars().count() == 1 && word.chars().all(char::is_alphabetic);
    if is_letter || STOP_WORDS.binary_search(&word.as_str()).is_ok() || word.chars().count() > MAX_CHARS {
        return None;
    }
    Some(singular(&word))
}

/// English plurals, as far as endings tell; other words come out alike whenever they go in alike.
fn singular(word: &str) -> String {
    const MIN_LEN: usize = 4;
    if word.len() < MIN_LEN || !word.is_ascii() {
        return word.to_owned();
    }
    let cut = |ending: &str, instead: &str| word.strip_suffix(ending).map(|stem| format!("{stem}{instead}"));
    let es = || {
        let stem = word.strip_suffix("es")?;
        let sibilant = ["ss", "x", "ch", "sh", "zz"].iter().any(|ending| stem.ends_with(ending));
        (sibilant || stem.ends_with('o') && stem.len() > 3).then(|| stem.to_owned())
    };
    let s = || if word.ends_with("ss") || word.ends_with("us") { None } else { cut("s", "") };
    cut("ies", "y").or_else(es).or_else(s).unwrap_or_else(|| word.to_owned())
}

/// English words that say nothing of what a text is about, and words that a request for a quiz has; sorted.
#[rustfmt::skip]
const STOP_WORDS: &[&str] = &[
    "about", "all", "an", "and", "any", "are", "as", "at", "be", "been", "but", "by", "can", "did", "do", "does",
    "for", "from", "had", "has", "have", "he", "her", "his", "how", "if", "in", "into", "is", "it", "its", "me", "my",
    "no", "not", "of", "on", "or", "our", "out", "over", "question", "questions", "quiz", "quizzes", "she", "so",
    "some", "than", "that", "the", "their", "then", "there", "these", "they", "this", "those", "to", "trivia", "up",
    "was", "we", "were", "what", "when", "where", "which", "who", "why", "will", "with", "would", "you", "your",
];

/// Japanese for *about*, *in*, *on*, and the like.
const PARTICLES: &[&str] = &["について", "における", "という", "などの"];

/// [`terms`] as tantivy asks for them.
#[derive(Clone, Default)]
pub(super) struct TermTokenizer;

pub(super) struct TermStream {
    rest: std::vec::IntoIter<String>,
    token: Token,
}

impl Tokenizer for TermTokenizer {
    type TokenStream<'a> = TermStream;

    fn token_stream<'a>(&'a mut self, text: &'a str) -> TermStream {
        TermStream { rest: terms(text).into_iter(), token: Token::default() }
    }
}

impl TokenStream for TermStream {
    fn advance(&mut self) -> bool {
        let Some(text) = self.rest.next() else { return false };
        self.token.text = text;
        self.token.position = self.token.position.wrapping_add(1);
        true
    }

    fn token(&self) -> &Token {
        &self.token
    }

    fn token_mut(&mut self) -> &mut Token {
        &mut self.token
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &[&str]) {
        assert_eq!(terms(text), expected, "{text}");
    }

    #[test]
    fn words() {
        assert!(STOP_WORDS.is_sorted());
        check("The Volcanoes of Italy", &["volcano", "italy"]);
        check("Shakespeare's plays", &["shakespeare", "play"]);
        check("countries, churches, glasses and gases", &["country", "church", "glass", "gase"]);
        check("a bus, the moss, heroes", &["bus", "moss", "hero"]);
        check("Ｃａｆé 1980s 3.14", &["café", "1980", "3", "14"]);
        check("", &[]);
    }

    #[test]
    fn japanese() {
        check("姫路城", &["城", "姫路", "路城"]);
        check("頸城トンネル", &["頸城", "トン", "ンネ", "ネル"]);
        check("フランス革命は", &["フラ", "ラン", "ンス", "命", "革命", "は"]);
        check("城、城下", &["城", "下", "城下"]);
        check("ｶﾅ", &["カナ"]);
        check("กขค", &["กข", "ขค"]);
    }

    #[test]
    fn topics() {
        let check = |topic: &str, expected: &[&str]| assert_eq!(topic_terms(topic), expected, "{topic}");
        check("日本の城", &["日本", "城"]);
        check("火山活動について", &["火山", "山活", "活動"]);
        check("すし", &["すし"]);
        check("a quiz about rivers, rivers", &["river"]);
        check("the who", &[]);
    }

    #[test]
    fn every_term_of_a_topic_is_a_term_of_a_text_that_holds_it() {
        for topic in ["volcanoes", "日本の城", "フランス革命", "すし", "กรุงเทพ", "Rock 'n' roll", "C++"]
        {
            let text = terms(&format!("«{topic}»"));
            assert!(topic_terms(topic).iter().all(|term| text.contains(term)), "{topic}");
        }
    }
}
