//! A text to ask about, cut into sentences that know their place in it.

use super::script::is_unspaced;
use std::ops::Range;
use unicode_normalization::char::is_combining_mark;

/// The text of a quiz and its sentences; at least one of them has a letter or digit in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    text: String,
    sentences: Vec<Sentence>,
}

/// Where a sentence stands in its source: no white space or control characters at its ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sentence {
    bytes: Range<usize>,
    /// The same place in Unicode code points.
    pub chars: Range<usize>,
    pub worth: Worth,
}

/// How good a sentence is to ask about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Worth {
    /// No letter or digit in it.
    Nothing,
    /// A fragment, a heading, a question.
    Poor,
    /// Leans on the sentence before it ("It is also ...").
    Fair,
    Good,
}

/// A sentence longer than this is cut: it is quoted whole as evidence, and somebody reads it.
/// In narrow characters; a character of an unspaced script weighs as much as [`UNSPACED_WEIGHT`].
const MAX_SENTENCE_WEIGHT: usize = 400;
const UNSPACED_WEIGHT: usize = 3;
/// A bracket or quotation mark closed further away than this was a slip of the pen.
const MAX_BRACKETED_CHARS: usize = 300;
/// Lines of a hard-wrapped text are at least and at most this wide.
const WRAP_WIDTHS: Range<usize> = 40..121;

impl Source {
    /// `None` when nothing in the text can be asked about.
    pub fn new(text: String) -> Option<Self> {
        let sentences = sentences(&text);
        let has_words = sentences.iter().any(|sentence| sentence.worth > Worth::Nothing);
        has_words.then_some(Self { text, sentences })
    }

    pub fn text(&self) -> &str {
        &self.text
    }

    pub fn sentences(&self) -> &[Sentence] {
        &self.sentences
    }

    /// The words of a sentence, as they stand in the text.
    pub fn sentence_text(&self, sentence_idx: usize) -> &str {
        &self.text[self.sentences[sentence_idx].bytes.clone()]
    }

    /// Some sentences as they are shown to a model: what stands between them is a line break, a space
    /// or nothing.
    pub fn passage(&self, sentences: Range<usize>) -> String {
        let mut passage = String::new();
        let mut end = None;
        for sentence in &self.sentences[sentences] {
            let gap = end.map_or("", |end| &self.text[end..sentence.bytes.start]);
            if gap.contains('\n') {
                passage.push('\n');
            } else if !gap.is_empty() {
                passage.push(' ');
            }
            passage.push_str(&self.text[sentence.bytes.clone()]);
            end = Some(sentence.bytes.end);
        }
        passage
    }
}

/// Everything but white space and control characters is in exactly one sentence, in order.
fn sentences(text: &str) -> Vec<Sentence> {
    let chars: Vec<(usize, char)> = text.char_indices().collect();
    let byte_at = |idx: usize| chars.get(idx).map_or(text.len(), |(byte, _)| *byte);
    let is_edge = |idx: usize| chars[idx].1.is_whitespace() || chars[idx].1.is_control();

    let mut breaks = Splitter::new(&chars).breaks();
    breaks.push(chars.len());
    let mut sentences = Vec::new();
    let mut start = 0;
    for end in breaks {
        let mut rest = start..end;
        start = end;
        while !rest.is_empty() {
            let cut = cut_point(&chars, rest.clone());
            let mut piece = rest.start..cut;
            rest.start = cut;
            while !piece.is_empty() && is_edge(piece.start) {
                piece.start += 1;
            }
            while !piece.is_empty() && is_edge(piece.end - 1) {
                piece.end -= 1;
            }
            if !piece.is_empty() {
                let bytes = byte_at(piece.start)..byte_at(piece.end);
                let worth = worth(&text[bytes.clone()]);
                sentences.push(Sentence { bytes, chars: piece, worth });
            }
        }
    }
    sentences
}

/// Where to cut a piece that is too long: at its end if it is not, else after a clause, else between
/// words, else between characters.
fn cut_point(chars: &[(usize, char)], piece: Range<usize>) -> usize {
    let mut weight = 0;
    let (mut clause, mut space) = (None, None);
    for idx in piece.clone() {
        let c = chars[idx].1;
        weight += if is_unspaced(c) { UNSPACED_WEIGHT } else { 1 };
        if weight > MAX_SENTENCE_WEIGHT {
            let earliest = piece.start + (idx - piece.start) / 3;
            let whole_character = (piece.start + 1..=idx).rev().find(|at| !joins_previous(chars, *at));
            let clause = clause.filter(|at| *at > earliest);
            return clause.or(space).or(whole_character).unwrap_or(idx);
        }
        let next_is_space = chars.get(idx + 1).is_some_and(|(_, next)| next.is_whitespace());
        match c {
            ';' | ':' | ',' | '—' | '–' if next_is_space => clause = Some(idx + 1),
            '、' | '，' | '；' | '：' => clause = Some(idx + 1),
            _ if c.is_whitespace() => space = Some(idx + 1),
            _ => {}
        }
    }
    piece.end
}

/// Whether the character belongs to the one before it.
fn joins_previous(chars: &[(usize, char)], idx: usize) -> bool {
    const ZERO_WIDTH_JOINER: char = '\u{200d}';
    let c = chars[idx].1;
    is_combining_mark(c)
        || matches!(c, ZERO_WIDTH_JOINER | '\u{fe00}'..='\u{fe0f}' | '\u{1f3fb}'..='\u{1f3ff}')
        || idx > 0 && chars[idx - 1].1 == ZERO_WIDTH_JOINER
}

/// Finds the places between sentences.
struct Splitter<'a> {
    chars: &'a [(usize, char)],
    /// Whether the character is inside brackets or corner quotation marks.
    bracketed: Vec<bool>,
    wrap_width: Option<usize>,
}

impl<'a> Splitter<'a> {
    fn new(chars: &'a [(usize, char)]) -> Self {
        Self { chars, bracketed: bracketed(chars), wrap_width: wrap_width(chars) }
    }

    fn at(&self, idx: usize) -> Option<char> {
        self.chars.get(idx).map(|(_, c)| *c)
    }

    /// Indices into `chars`, rising, each the first character after a sentence.
    fn breaks(&self) -> Vec<usize> {
        let mut breaks = Vec::new();
        let mut line_start = 0;
        let mut idx = 0;
        while let Some(c) = self.at(idx) {
            let end = match c {
                '\n' => {
                    let soft = self.is_soft_newline(line_start, idx);
                    line_start = idx + 1;
                    (!soft).then_some(idx + 1)
                }
                '\t' | '\r' => None,
                _ if c.is_control() => Some(idx + 1),
                _ => self.sentence_end(idx, line_start),
            };
            match end {
                Some(end) => {
                    breaks.push(end);
                    idx = end;
                }
                None => idx += 1,
            }
        }
        breaks
    }

    /// The end of a sentence whose last word ends before `idx`, if it ends here.
    fn sentence_end(&self, idx: usize, line_start: usize) -> Option<usize> {
        let c = self.at(idx)?;
        let full_width_decimal = c == '．' && self.at(idx + 1).is_some_and(char::is_numeric);
        if self.bracketed[idx] || full_width_decimal {
            return None;
        }
        // 「…。」 ends with its bracket, unless the sentence goes on: 「…。」と言った。
        if matches!(c, '」' | '』' | '）') && idx > 0 && is_wide_stop(self.chars[idx - 1].1) {
            let opens =
                self.at(idx + 1).is_none_or(|next| next.is_whitespace() || matches!(next, '「' | '『'));
            return opens.then_some(idx + 1);
        }
        if !is_wide_stop(c) && !matches!(c, '.' | '!' | '?' | '…' | '‼' | '⁉') {
            return None;
        }
        let mut end = idx + 1;
        while self.at(end).is_some_and(|c| is_wide_stop(c) || matches!(c, '.' | '!' | '?' | '…')) {
            end += 1;
        }
        let stops_end = end;
        while self.at(end).is_some_and(is_closer) {
            end += 1;
        }
        if is_wide_stop(self.chars[stops_end - 1].1) {
            return Some(end);
        }
        match self.at(end) {
            None => return Some(end),
            Some(next) if !next.is_whitespace() => return None,
            Some(_) => {}
        }
        let next_word = (end..self.chars.len()).find(|idx| !self.chars[*idx].1.is_whitespace());
        let next = next_word.and_then(|idx| self.at(idx));
        if next.is_some_and(char::is_lowercase) {
            return None;
        }
        let one_full_stop = c == '.' && stops_end == idx + 1;
        if one_full_stop && self.is_abbreviation(idx, line_start, next) {
            return None;
        }
        Some(end)
    }

    /// Whether the full stop at `idx` belongs to its word.
    fn is_abbreviation(&self, idx: usize, line_start: usize, next: Option<char>) -> bool {
        let in_word = |c: char| c.is_alphanumeric() || c == '.' || is_combining_mark(c);
        let start = (line_start..idx).rev().take_while(|at| in_word(self.chars[*at].1)).last();
        let Some(start) = start else { return false };
        let word: String = self.chars[start..idx].iter().map(|(_, c)| *c).collect();
        let starts_line = (line_start..start).all(|at| self.chars[at].1.is_whitespace());
        let is_number = word.chars().all(|c| c.is_ascii_digit());
        let next_is_digit = next.is_some_and(|c| c.is_ascii_digit());
        if is_number {
            return starts_line; // "1. First, ..."
        }
        // An initial, "J. K. Rowling"; or "U.S."
        (word.chars().count() == 1 && word.chars().all(char::is_uppercase))
            || word.contains('.') && word.chars().all(|c| c == '.' || c.is_alphabetic())
            || ABBREVIATIONS.contains(&word.as_str())
            || next_is_digit && BEFORE_NUMBERS.contains(&word.as_str())
    }

    /// Whether the line goes on after the newline at `idx`: in hard-wrapped text, when the next
    /// line's first word would not have fitted.
    fn is_soft_newline(&self, line_start: usize, idx: usize) -> bool {
        let Some(width) = self.wrap_width else { return false };
        let next_word = self.chars[idx + 1..].iter().map(|(_, c)| *c).take_while(|c| !c.is_whitespace());
        let mut next_word = next_word.peekable();
        let word_len = match next_word.peek() {
            None => return false, // An empty or indented line.
            Some('-' | '*' | '•' | '・' | '#' | '>' | '|') => return false,
            Some(first) if is_unspaced(*first) => 1,
            Some(_) => 1 + next_word.count(),
        };
        idx - line_start + word_len > width
    }
}

fn is_wide_stop(c: char) -> bool {
    matches!(c, '。' | '．' | '！' | '？' | '｡' | '।' | '॥' | '؟' | '۔' | '։' | '።' | '។' | '။')
}

fn is_closer(c: char) -> bool {
    matches!(c, '"' | '\'' | '”' | '’' | '»' | ')' | ']' | '」' | '』' | '）' | '】')
}

/// Marks what stands between brackets that are closed again on the same line, closers excluded.
fn bracketed(chars: &[(usize, char)]) -> Vec<bool> {
    let mut bracketed = vec![false; chars.len()];
    let mut open: Vec<(usize, char)> = Vec::new();
    for (idx, (_, c)) in chars.iter().enumerate() {
        let opener = match c {
            '\n' => {
                open.clear();
                continue;
            }
            '(' | '[' | '「' | '『' | '（' | '【' => {
                open.push((idx, *c));
                continue;
            }
            ')' => '(',
            ']' => '[',
            '」' => '「',
            '』' => '『',
            '）' => '（',
            '】' => '【',
            _ => continue,
        };
        if let Some(&(start, top)) = open.last()
            && top == opener
        {
            open.pop();
            if open.is_empty() && idx - start <= MAX_BRACKETED_CHARS {
                bracketed[start..idx].fill(true);
            }
        }
    }
    bracketed
}

/// The width a text was wrapped to: that of its longest line, if its lines are like that.
fn wrap_width(chars: &[(usize, char)]) -> Option<usize> {
    let mut longest = 0;
    let mut len = 0;
    for (_, c) in chars {
        len = if *c == '\n' { 0 } else { len + 1 };
        longest = longest.max(len);
    }
    WRAP_WIDTHS.contains(&longest).then_some(longest)
}

/// Words that keep their full stop, and are hardly ever the last of a sentence.
const ABBREVIATIONS: &[&str] = &[
    "Mr", "Mrs", "Ms", "Dr", "Prof", "St", "Sr", "Jr", "Gen", "Col", "Lt", "Capt", "Sgt", "Rev", "Hon",
    "Gov", "Sen", "Rep", "Pres", "Mt", "Ft", "vs", "cf", "approx", "viz", "Fr", "Hr", "Hrn", "Nr", "bzw",
    "Mme", "Mlle", "Sra", "Dra", "Ing",
];

/// Words that keep their full stop before a number.
const BEFORE_NUMBERS: &[&str] = &[
    "No", "no", "Nos", "Vol", "vol", "Fig", "fig", "Art", "art", "Sec", "sec", "Ch", "ch", "p", "pp", "c",
    "ca", "Jan", "Feb", "Mar", "Apr", "Jun", "Jul", "Aug", "Sep", "Sept", "Oct", "Nov", "Dec",
];

/// Words that point back to another sentence when they open one.
#[rustfmt::skip]
const POINTS_BACK: &[&str] = &[
    "it", "its", "this", "that", "these", "those", "they", "their", "he", "his", "she", "her", "such", "however",
    "therefore", "thus", "then", "also", "but", "and", "or", "so", "hence", "moreover", "furthermore", "here",
    "another", "others", "both", "instead", "similarly", "otherwise", "nevertheless", "nonetheless", "meanwhile",
    "afterwards", "consequently", "accordingly", "conversely", "likewise", "additionally", "finally", "yet",
];
const POINTS_BACK_JAPANESE: &[&str] = &[
    "これ",
    "それ",
    "この",
    "その",
    "あの",
    "こう",
    "そう",
    "また",
    "しかし",
    "なお",
    "さらに",
    "そして",
    "ただし",
    "同",
    "彼",
    "一方",
    "だが",
    "従って",
    "したがって",
    "つまり",
    "例えば",
    "たとえば",
];

/// A sentence with fewer letters than this says too little; two letters' worth a wide character.
const MIN_LETTERS: usize = 20;

fn worth(sentence: &str) -> Worth {
    let letters: usize = sentence
        .chars()
        .filter(|c| c.is_alphanumeric())
        .map(|c| if is_unspaced(c) { UNSPACED_WEIGHT } else { 1 })
        .sum();
    let mut words = sentence.split_whitespace();
    let first_word = words.next().unwrap_or_default();
    let is_short = !sentence.chars().any(is_unspaced) && words.count() < 3;
    if letters == 0 {
        Worth::Nothing
    } else if letters < MIN_LETTERS || is_short || sentence.ends_with(['?', '？', '؟', ':', '：']) {
        Worth::Poor
    } else if POINTS_BACK
        .contains(&first_word.trim_matches(|c: char| !c.is_alphabetic()).to_lowercase().as_str())
        || POINTS_BACK_JAPANESE.iter().any(|word| sentence.starts_with(word))
    {
        Worth::Fair
    } else {
        Worth::Good
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(text: &str, expected: &[&str]) {
        let sentences = sentences(text);
        let found: Vec<_> = sentences.iter().map(|sentence| &text[sentence.bytes.clone()]).collect();
        assert_eq!(found, expected, "{text:?}");
    }

    #[test]
    fn english() {
        check("One. Two! Three?", &["One.", "Two!", "Three?"]);
        check("No stop at the end", &["No stop at the end"]);
        check("Pi is 3.14 or so. It is old.", &["Pi is 3.14 or so.", "It is old."]);
        check("Dr. Who met Mr. J. K. Smith. They ran.", &["Dr. Who met Mr. J. K. Smith.", "They ran."]);
        check("It was in the U.S. Army then. Yes.", &["It was in the U.S. Army then.", "Yes."]);
        check(
            "See No. 5 and p. 3. He said no. We left.",
            &["See No. 5 and p. 3.", "He said no.", "We left."],
        );
        check("It opened in 1889. The tower stood.", &["It opened in 1889.", "The tower stood."]);
        check("Really?! Yes... No.", &["Really?!", "Yes...", "No."]);
        check("He said “Stop.” Then he left.", &["He said “Stop.”", "Then he left."]);
        check("He said \"Stop.\" Then he left.", &["He said \"Stop.\"", "Then he left."]);
        check("It (e.g. this. Or That.) works. Good.", &["It (e.g. this. Or That.) works.", "Good."]);
        check("Yahoo! is a firm, i.e. a company.", &["Yahoo! is a firm, i.e. a company."]);
        check("(unclosed. Yes. No.", &["(unclosed.", "Yes.", "No."]);
        check("Versions 1.2.3 and v2. Next", &["Versions 1.2.3 and v2.", "Next"]);
    }

    #[test]
    fn lists_and_lines() {
        check("1. First thing\n2. Second thing", &["1. First thing", "2. Second thing"]);
        check("- a\n- b\n\nc", &["- a", "- b", "c"]);
        check("Title\n\nBody text here.", &["Title", "Body text here."]);
        check("a\r\nb\u{c}c", &["a", "b", "c"]);
        check(
            "The Amazon rainforest covers most of the basin of\nSouth America. This basin is very large and it has\nmany rivers, among them the longest.\n- item",
            &[
                "The Amazon rainforest covers most of the basin of\nSouth America.",
                "This basin is very large and it has\nmany rivers, among them the longest.",
                "- item",
            ],
        );
    }

    #[test]
    fn japanese_and_others() {
        check("これは本です。それも本だ！何？", &["これは本です。", "それも本だ！", "何？"]);
        check("「そうだ。」と彼は言った。次の文。", &["「そうだ。」と彼は言った。", "次の文。"]);
        check("「行こう。」\n彼は立った。", &["「行こう。」", "彼は立った。"]);
        check("梅雨（つゆ。ばいう）は雨季。終わり", &["梅雨（つゆ。ばいう）は雨季。", "終わり"]);
        check("3.5メートル。４．５も。", &["3.5メートル。", "４．５も。"]);
        check("यह किताब है। वह कलम है।", &["यह किताब है।", "वह कलम है।"]);
        check("ما هذا؟ هذا كتاب.", &["ما هذا؟", "هذا كتاب."]);
    }

    #[test]
    fn long_text_is_cut() {
        let words = "word ".repeat(300);
        let sentences = sentences(&words);
        assert!(sentences.len() >= 3);
        for sentence in &sentences {
            assert!(sentence.chars.len() <= MAX_SENTENCE_WEIGHT);
            assert!(words[sentence.bytes.clone()].split(' ').all(|word| word == "word"));
        }
        let kanji = "漢".repeat(1000);
        for sentence in super::sentences(&kanji) {
            assert!(sentence.chars.len() * UNSPACED_WEIGHT <= MAX_SENTENCE_WEIGHT);
        }
        // A base letter with marks without end still has to be cut somewhere.
        assert!(super::sentences(&format!("a{}", "\u{301}".repeat(5000))).len() > 1);
    }

    #[test]
    fn hostile_sizes_are_quick() {
        for unit in ["(", ")", "「」", ".", "\n", " ", "a.\n", "。", "A. ", "\u{301}", "("] {
            sentences(&unit.repeat(200_000 / unit.chars().count()));
        }
    }

    #[test]
    fn worths() {
        let check = |text: &str, expected: Worth| assert_eq!(worth(text), expected, "{text}");
        check("***", Worth::Nothing);
        check("Introduction", Worth::Poor);
        check("What is the meaning of the word life?", Worth::Poor);
        check("It is also the largest of them all.", Worth::Fair);
        check("The Nile is the longest river in Africa.", Worth::Good);
        check("また、日本最大の湖でもある。", Worth::Fair);
        check("琵琶湖は日本最大の湖である。", Worth::Good);
    }

    proptest! {
        #[test]
        fn offsets_map_back_and_nothing_is_lost(text in any_text()) {
            let chars: Vec<char> = text.chars().collect();
            let is_edge = |c: &char| c.is_whitespace() || c.is_control();
            let mut covered = 0;
            for sentence in sentences(&text) {
                let Range { start, end } = sentence.chars;
                let from_chars: String = chars[start..end].iter().collect();
                prop_assert_eq!(&from_chars, &text[sentence.bytes]);
                prop_assert!(start < end && !is_edge(&chars[start]) && !is_edge(&chars[end - 1]));
                prop_assert!(chars[covered..start].iter().all(is_edge));
                covered = end;
            }
            prop_assert!(chars[covered..].iter().all(is_edge));
        }
    }

    /// Text that is likely to have the characters the splitter looks at.
    fn any_text() -> impl Strategy<Value = String> {
        let piece = prop_oneof![
            any::<String>(),
            "[a-zA-Z]{1,9}",
            "[0-9]{1,4}",
            "[ぁ-んァ-ン一-龠]{1,40}",
            "[ .!?。！？\n\r\t「」『』()（）\"'、,;:…-]{1,4}",
            Just("\u{0}".to_owned()),
            Just("👩‍👩‍👧‍👦🏽".to_owned()),
            "[ab ]{500,900}",
        ];
        prop::collection::vec(piece, 0..30).prop_map(|pieces| pieces.concat())
    }
}
