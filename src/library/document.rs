//! A text as it is added, and the passages it is kept as.

use super::terms::is_unspaced;

/// A text to ask about, with what must be said of it whenever it is quoted.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize)]
pub struct Document {
    /// Adding a document replaces the one of the same id.
    pub id: String,
    pub title: String,
    /// Primary language subtag, in lower case; `und` where it is not known.
    pub language: String,
    pub licence: Option<String>,
    /// Whom it comes from, or where it stands.
    pub source: Option<String>,
    /// Paragraphs, with an empty line between two.
    pub text: String,
}

/// Part of a document: what is found, shown to a model and quoted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Passage {
    /// The id of its document.
    pub document: String,
    pub title: String,
    pub licence: Option<String>,
    pub source: Option<String>,
    pub text: String,
}

/// ISO 639-2's code for what has not been determined.
pub(super) const UNKNOWN_LANGUAGE: &str = "und";

/// As much as a reader keeps in mind. A character of an unspaced script says as much as two others.
const MAX_PASSAGE_WEIGHT: usize = 1000;

impl Document {
    /// The text cut between paragraphs, else between sentences, else between words; each part has a letter
    /// or digit in it, and there is one at least if the text has any.
    pub(super) fn parts(&self) -> Vec<String> {
        let mut parts: Vec<String> = Vec::new();
        let mut taken = 0;
        for paragraph in paragraphs(&self.text) {
            let weight = weight(paragraph);
            match parts.last_mut() {
                Some(part) if taken + weight <= MAX_PASSAGE_WEIGHT => {
                    part.push_str("\n\n");
                    part.push_str(paragraph);
                    taken += weight;
                }
                _ => {
                    parts.extend(cut(paragraph).map(str::to_owned));
                    taken = parts.last().map_or(0, |part| self::weight(part));
                }
            }
        }
        parts.retain(|part| part.contains(char::is_alphanumeric));
        parts
    }
}

fn paragraphs(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        while !rest.is_empty() {
            let end = empty_line(rest).unwrap_or(rest.len());
            let (paragraph, after) = rest.split_at(end);
            rest = after.trim_start();
            if !paragraph.trim().is_empty() {
                return Some(paragraph.trim());
            }
        }
        None
    })
}

/// Where the first empty line begins.
fn empty_line(text: &str) -> Option<usize> {
    let mut newlines = text.match_indices('\n').map(|(at, _)| at).peekable();
    while let (Some(at), Some(next)) = (newlines.next(), newlines.peek()) {
        if text[at..*next].trim().is_empty() {
            return Some(at);
        }
    }
    None
}

fn char_weight(c: char) -> usize {
    if is_unspaced(c) { 2 } else { 1 }
}

fn weight(text: &str) -> usize {
    text.chars().map(char_weight).sum()
}

/// A paragraph in pieces of at most [`MAX_PASSAGE_WEIGHT`].
fn cut(paragraph: &str) -> impl Iterator<Item = &str> {
    let mut rest = paragraph;
    std::iter::from_fn(move || {
        let (piece, after) = rest.split_at(cut_point(rest));
        rest = after.trim_start();
        (!piece.is_empty()).then(|| piece.trim_end())
    })
}

/// The end of the text if it is short enough, else of the last sentence that fits, else of a word.
fn cut_point(text: &str) -> usize {
    let (mut sentence, mut word) = (None, None);
    let mut taken = 0;
    for (at, c) in text.char_indices() {
        taken += char_weight(c);
        if taken > MAX_PASSAGE_WEIGHT {
            // A break near the beginning would make many small pieces.
            let enough = |end: &usize| weight(&text[..*end]) * 3 >= MAX_PASSAGE_WEIGHT;
            return sentence.filter(enough).or(word.filter(enough)).unwrap_or(at);
        }
        let end = at + c.len_utf8();
        let before_space = text[end..].starts_with(char::is_whitespace);
        match c {
            '。' | '！' | '？' | '\n' => sentence = Some(end),
            '.' | '!' | '?' if before_space => sentence = Some(end),
            _ if before_space => word = Some(end),
            _ => {}
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(text: &str) -> Vec<String> {
        let text = text.to_owned();
        let document = Document {
            id: "a".into(),
            title: "A".into(),
            language: "en".into(),
            licence: None,
            source: None,
            text,
        };
        document.parts()
    }

    #[test]
    fn short_paragraphs_stay_together() {
        assert_eq!(parts("One.\n \nTwo.\n\n\n\nThree.\n"), ["One.\n\nTwo.\n\nThree."]);
        assert_eq!(parts("One line\nand the next"), ["One line\nand the next"]);
        assert_eq!(parts(" \n\n --- \n"), Vec::<String>::new());
    }

    #[test]
    fn long_texts_are_cut_between_sentences() {
        for unit in ["The river is long and slow. ", "川は長くて遅いです。"] {
            let text = unit.repeat(300);
            let parts = parts(&text);
            assert!(parts.len() > 3);
            for part in &parts {
                assert!(weight(part) <= MAX_PASSAGE_WEIGHT);
                assert!(part.ends_with(unit.trim_end()), "{part:?}");
            }
            let joined = parts.join(if unit.ends_with(' ') { " " } else { "" });
            assert_eq!(joined, text.trim_end());
        }
    }

    #[test]
    fn nothing_is_too_long_to_cut() {
        for unit in ["a", "漢", "word ", "\u{301}", "a. "] {
            assert!(parts(&unit.repeat(20_000)).iter().all(|part| weight(part) <= MAX_PASSAGE_WEIGHT));
        }
    }
}
