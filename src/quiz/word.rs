//! The words of a sentence, and which of them are verbs or say nothing by themselves. English is told by its
//! endings and by lists of small words; unspaced scripts by runs of characters.

use super::form::Form;
use std::ops::Range;
use unicode_normalization::char::is_combining_mark;

/// A word, or in an unspaced script a run of characters that is likely one.
pub(super) struct Word {
    pub(super) bytes: Range<usize>,
    pub(super) chars: usize,
    pub(super) form: Form,
    /// Only a space, or what counts as one, stands between this word and the next.
    pub(super) joins_next: bool,
    /// A word that says nothing by itself: `of`, `which`; or a verb.
    pub(super) is_filler: bool,
    /// A word that makes a clause of what it stands in: `is`, `which`, or another verb.
    pub(super) is_clausal: bool,
}

/// In order of place.
pub(super) fn words(sentence: &str) -> Vec<Word> {
    let mut words = words_by_themselves(sentence);
    for idx in 0..words.len() {
        if is_verb(sentence, &words, idx) {
            words[idx].is_filler = true;
            words[idx].is_clausal = true;
        }
    }
    words
}

fn words_by_themselves(sentence: &str) -> Vec<Word> {
    let mut words: Vec<Word> = Vec::new();
    for bytes in word_ranges(sentence) {
        let text = &sentence[bytes.clone()];
        let lower = text.to_lowercase();
        let letters = text.chars().filter(|c| c.is_alphanumeric()).count();
        let form = Form::of(text);
        let is_short = letters < if form == Form::Phrase { 3 } else { 2 };
        let is_filler = is_filler(&lower) || is_short && form != Form::Number;
        if let Some(previous) = words.last_mut() {
            let gap = &sentence[previous.bytes.end..bytes.start];
            let date = gap == ", " && previous.form == Form::Number && form == Form::Number;
            previous.joins_next = gap == " " || gap == "の" || date;
        }
        let is_clausal = CLAUSAL.contains(&lower.as_str());
        words.push(Word {
            bytes,
            chars: text.chars().count(),
            form,
            joins_next: false,
            is_filler,
            is_clausal,
        });
    }
    words
}

/// Runs of characters that belong together, without punctuation at the ends.
fn word_ranges(sentence: &str) -> Vec<Range<usize>> {
    let mut ranges: Vec<Range<usize>> = Vec::new();
    let mut run: Option<(Range<usize>, Class)> = None;
    let mut flush = |run: &mut Option<(Range<usize>, Class)>| {
        if let Some((range, class)) = run.take()
            && class == Class::Word
        {
            let text = &sentence[range.clone()];
            let trimmed =
                text.trim_end_matches(|c: char| !c.is_alphanumeric() && !is_combining_mark(c) && c != '%');
            if !trimmed.is_empty() {
                ranges.push(range.start..range.start + trimmed.len());
            }
        }
    };
    for (at, c) in sentence.char_indices() {
        let inside_word = matches!(&run, Some((_, Class::Word)));
        let class = class(c, inside_word);
        match &mut run {
            Some((range, current)) if *current == class => range.end = at + c.len_utf8(),
            _ => {
                flush(&mut run);
                run = Some((at..at + c.len_utf8(), class));
            }
        }
    }
    flush(&mut run);
    ranges
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    Word,
    /// Hiragana: mostly endings and particles.
    Hiragana,
    Other,
}

fn class(c: char, inside_word: bool) -> Class {
    match c {
        'ぁ'..='ゟ' => Class::Hiragana,
        'ー' | '々' | '〇' => Class::Word,
        _ if c.is_alphanumeric() || is_combining_mark(c) => Class::Word,
        // "don't", "twenty-one", "3.14", "U.S", "60%", ジョン・スミス
        '\'' | '’' | '-' | '‐' | '.' | ',' | '%' | '・' | '=' | '＝' | '\u{200c}' | '\u{200d}'
            if inside_word =>
        {
            Class::Word
        }
        _ => Class::Other,
    }
}

/// Whether a word is likely a verb where it stands: "causes" of "gravity causes the tides", "ended" of "the war
/// ended". By endings and neighbours, so that it errs now and then.
fn is_verb(sentence: &str, words: &[Word], idx: usize) -> bool {
    let text = |word: &Word| &sentence[word.bytes.clone()];
    let word = &words[idx];
    if word.form != Form::Phrase || word.is_filler {
        return false;
    }
    let before = idx.checked_sub(1).map(|idx| &words[idx]).filter(|word| word.joins_next);
    let after = words.get(idx + 1).filter(|_| word.joins_next);
    let has_object = after.is_some_and(|after| OBJECT_STARTS.contains(&text(after)));
    let is_noun = before.is_some_and(|before| NOUN_FOLLOWS.contains(&text(before).to_lowercase().as_str()));
    let ends_clause =
        before.is_some_and(|before| !before.is_filler) && after.is_none_or(|after| after.is_filler);
    let text = text(word);
    PRESENT.contains(&text)
        || has_object && !is_noun && (is_third_person(text) || is_past(text))
        || ends_clause && is_past(text)
}

fn is_third_person(word: &str) -> bool {
    word.len() > 3 && is_plural(word) && !word.ends_with("us") && !word.ends_with("is")
}

/// Whether a word has the form of a verb in the past: "ended", "took", not "seed".
pub(super) fn is_past(word: &str) -> bool {
    let ends_so = word.len() > 4 && word.ends_with("ed") && !word.ends_with("eed") && !word.ends_with("dred");
    ends_so || PAST.contains(&word)
}

/// Whether a word is likely an adverb: "privately", not "family".
pub(super) fn is_adverb(word: &str) -> bool {
    word.len() > 4 && word.ends_with("ly") && !NOUNS_IN_LY.contains(&word)
}

/// Whether a word that stands alone is likely an adjective: "dangerous", "complicated", "high-pressure".
pub(super) fn is_adjective(word: &str) -> bool {
    const BEGINNINGS: [&str; 8] =
        ["high-", "low-", "first-", "long-", "short-", "multi-", "large-", "small-"];
    const NOUNS: [&str; 5] = ["seabed", "riverbed", "watershed", "biped", "quadruped"];
    let ends_so =
        ["ous", "less"].iter().any(|end| word.ends_with(end)) || word.ends_with("ed") && is_past(word);
    word.len() > 4 && ends_so && !NOUNS.contains(&word)
        || BEGINNINGS.iter().any(|start| word.starts_with(start))
}

/// "19th", "1st"
pub(super) fn is_ordinal(text: &str) -> bool {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_lowercase());
    matches!(&text[digits.len()..], "st" | "nd" | "rd" | "th")
}

/// Whether a name is likely an adjective: "American", "Jewish".
pub(super) fn describes(name: &str) -> bool {
    ["an", "ese", "ish", "ic", "ch"].iter().any(|ending| name.ends_with(ending))
}

pub(super) fn is_plural(word: &str) -> bool {
    word.ends_with('s') && !word.ends_with("ss")
}

/// Whether a word after a noun is likely a verb or an adverb: "ended", "annually".
pub(super) fn continues(word: &str) -> bool {
    is_past(word) || word.ends_with("ly") || word.ends_with("ing")
}

/// Whether a word, in lower case, says nothing by itself.
pub(crate) fn is_filler(word: &str) -> bool {
    FILLERS.contains(&word) || word.len() == 1 && word.chars().all(char::is_alphabetic)
}

/// Words an answer neither begins nor ends with; English, and the short ones of languages near it.
#[rustfmt::skip]
const FILLERS: &[&str] = &[
    "the", "and", "for", "are", "but", "not", "you", "all", "can", "had", "her", "was", "one", "our", "out", "has",
    "him", "his", "how", "its", "may", "now", "see", "who", "did", "get", "let", "put", "say", "she", "too", "use",
    "any", "few", "got", "own", "off", "per", "via", "this", "that", "with", "from", "were", "have", "been", "they",
    "them", "their", "there", "these", "those", "then", "than", "what", "when", "where", "which", "while", "whose",
    "will", "would", "could", "should", "shall", "might", "must", "does", "done", "being", "into", "onto", "over",
    "under", "upon", "about", "after", "before", "between", "through", "during", "within", "without", "because",
    "since", "until", "although", "though", "however", "also", "only", "very", "much", "many", "more", "most",
    "some", "such", "each", "every", "both", "either", "neither", "other", "another", "same", "here", "just", "even",
    "ever", "never", "often", "again", "still", "thus", "soon", "later", "earlier", "already", "eventually",
    "instead", "rather", "therefore", "initially", "originally", "generally", "typically", "mainly", "mostly",
    "usually", "including", "included", "called", "known", "became", "become", "made",
    "make", "makes", "used", "using", "based", "along", "among", "across", "around", "against", "toward", "towards",
    "it", "in", "on", "at", "of", "to", "by", "as", "an", "a", "is", "be", "or", "if", "so", "no", "he", "we", "us",
    "les", "des", "une", "est", "sur", "par", "dans", "pour", "avec", "der", "die", "das", "dem", "den", "und", "ein",
    "eine", "mit", "von", "auf", "ist", "los", "las", "del", "una", "uno", "con", "por", "que", "como", "para", "não",
    "gli", "nel", "dei", "della", "het", "een", "van", "voor",
];

#[rustfmt::skip]
const CLAUSAL: &[&str] = &[
    "is", "are", "was", "were", "be", "been", "has", "have", "had", "will", "would", "can", "could", "may", "might",
    "must", "should", "does", "did", "which", "that", "who", "whose", "when", "where", "while", "because", "since",
    "until", "although", "though", "but", "if", "it", "they", "he", "she", "we", "you", "there",
];

/// Verbs that are hardly ever anything else.
#[rustfmt::skip]
const PRESENT: &[&str] = &[
    "allows", "appears", "becomes", "begins", "belongs", "brings", "comes", "consists", "contains", "creates", "depends",
    "describes", "develops", "enables", "exists", "gives", "goes", "grows", "happens", "helps", "includes", "involves",
    "keeps", "lies", "occurs", "performs", "prevents", "produces", "protects", "provides", "receives", "refers",
    "remains", "represents", "requires", "says", "seems", "separates", "serves", "takes", "tells", "tends", "wants",
    "writes",
];

#[rustfmt::skip]
const PAST: &[&str] = &[
    "ate", "began", "bore", "bought", "broke", "brought", "built", "came", "caught", "chose", "cut", "drew", "drove",
    "fell", "felt", "flew", "fought", "found", "gave", "grew", "held", "kept", "knew", "laid", "lay", "led", "left",
    "lost", "meant", "met", "paid", "put", "ran", "rose", "said", "sang", "sat", "saw", "sent", "set", "shot", "spent",
    "spoke", "stood", "taught", "thought", "threw", "told", "took", "went", "won", "wore", "wrote",
];

/// They end like adverbs and are none.
#[rustfmt::skip]
const NOUNS_IN_LY: &[&str] = &[
    "ally", "anomaly", "assembly", "belly", "bully", "butterfly", "disassembly", "dragonfly", "family", "firefly", "gully",
    "homily", "housefly", "jelly", "lily", "melancholy", "mayfly", "monopoly", "oligopoly", "panoply", "rally", "reply",
    "resupply", "subfamily", "superfamily", "supply",
];

/// What the object of a verb before it begins with, and seldom what follows a noun.
const OBJECT_STARTS: &[&str] = &[
    "the", "a", "an", "its", "his", "her", "their", "it", "him", "them", "this", "these", "those", "another",
    "many",
];

/// A noun comes after these, or words that describe one.
#[rustfmt::skip]
const NOUN_FOLLOWS: &[&str] = &[
    "the", "a", "an", "its", "his", "her", "their", "this", "these", "those", "some", "many", "most", "other", "all",
    "such", "few", "in", "on", "at", "of", "to", "by", "for", "from", "with", "as", "between", "under", "over", "into",
];
