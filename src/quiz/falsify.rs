//! What makes a sentence false: one of its numbers, names or words, and what may stand in its place. What may
//! be written there is held so tightly that the sentence still reads like one: a number of the same length, a name
//! from elsewhere, the opposite of a word; without those "is not" for "is", and only then words of the model's own.
//! In other languages than English, where less is known of a sentence, another name of the same passage.

use super::elsewhere::{NamesElsewhere, names_elsewhere};
use super::form::Form;
use super::language::Language;
use super::number::{self, Apart, number_in};
use super::span::{Span, replaceable_spans, stands_alone};
use super::wording::{are_initials, contains};
use std::cmp::Reverse;
use std::ops::Range;

/// A sentence's place to be changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Change {
    /// In the sentence.
    pub(super) bytes: Range<usize>,
    pub(super) substitute: Substitute,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Substitute {
    /// A regular expression for a number.
    Number(String),
    /// One of these names, which the passage does not speak of.
    Elsewhere(NamesElsewhere),
    /// One of these, of the same passage; none of them says what the original says.
    OneOf(Vec<String>),
    /// This, which says the opposite.
    Opposite(String),
    /// This, with "not" in it.
    Denial(String),
    /// Words of the form.
    Free(Form),
}

/// More alternatives make the grammar larger and the choice no better.
const MAX_SUBSTITUTES: usize = 16;

/// Names of a passage's sentences, in an unspaced script words, that may stand in another's place.
pub(super) fn names<'a>(sentences: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for sentence in sentences {
        for Span { bytes, form } in replaceable_spans(sentence) {
            let is_name = match form {
                // What a sentence begins with may owe its capital to that, or be more than a name: "Later
                // Hugo".
                Form::Name => bytes.start > 0 && stands_alone(sentence, &bytes),
                Form::Plain => true,
                Form::Number | Form::Quantity | Form::Phrase => false,
            };
            let name = &sentence[bytes];
            if is_name && !names.iter().any(|other| other == name) {
                names.push(name.to_owned());
            }
        }
    }
    names
}

/// Where and how to make a sentence false; `None` where nothing in it can be changed. Numbers before
/// names, and longer ones before shorter: numbers are easily wrong, long names easily told from others.
/// Where no name of the same kind can stand in another's place, an English sentence says the opposite, takes any other
/// name or is denied.
pub(super) fn change(sentence: &str, names: &[String], language: &Language) -> Option<Change> {
    let is_english = language.code() == "en";
    let change_of = |span| change_of(sentence, &span, names, is_english);
    let changes = replaceable_spans(sentence).into_iter().filter_map(change_of);
    let in_words = is_english.then(|| opposite(sentence).into_iter().chain(denial(sentence)));
    changes.chain(in_words.into_iter().flatten()).max_by_key(|change| {
        let rank = match (&change.substitute, is_sure_of(sentence, &change.bytes, names)) {
            (Substitute::Number(_), _) => 8,
            (Substitute::Elsewhere(names), _) if names.are_alike => 7,
            (Substitute::OneOf(_), true) => 6,
            (Substitute::Opposite(_), _) => 5,
            (Substitute::Elsewhere(_), _) => 4,
            (Substitute::Denial(_), _) => 3,
            (Substitute::Free(_), true) => 2,
            (Substitute::OneOf(_), false) => 1,
            (Substitute::Free(_), false) => 0,
        };
        // What a sentence begins with, it is about: "NASA was an Australian network" is no more than silly.
        let is_topic = matches!(change.substitute, Substitute::Elsewhere(_)) && change.bytes.start == 0;
        (rank, !is_topic, change.bytes.len(), Reverse(change.bytes.start))
    })
}

/// Whether what looks like a name is one: the first word of a sentence may owe its capital to that.
fn is_sure_of(sentence: &str, bytes: &Range<usize>, names: &[String]) -> bool {
    let text = &sentence[bytes.clone()];
    bytes.start > 0
        || text.contains(' ')
        || !text.starts_with(char::is_uppercase)
        || names.iter().any(|name| name == text)
}

impl Change {
    /// Whether nobody doubts that the sentence is false, once they know: another name of the passage may be as right
    /// as the one it replaces. Nor does it give itself away, as "not" does and a town in a person's place.
    pub(super) fn is_plain(&self) -> bool {
        match &self.substitute {
            Substitute::Number(_) | Substitute::Opposite(_) => true,
            Substitute::Elsewhere(names) => names.are_alike,
            Substitute::OneOf(_) | Substitute::Denial(_) | Substitute::Free(_) => false,
        }
    }

    /// Whether the sentence will read like one, and be false, whatever is chosen.
    pub(super) fn is_sure(&self) -> bool {
        !matches!(self.substitute, Substitute::Free(_))
    }
}

/// Words that say the opposite of each other whatever stands around them.
#[rustfmt::skip]
const OPPOSITES: [(&str, &str); 24] = [
    ("largest", "smallest"), ("longest", "shortest"), ("highest", "lowest"), ("oldest", "youngest"), ("earliest", "latest"),
    ("biggest", "smallest"), ("larger", "smaller"), ("longer", "shorter"), ("higher", "lower"), ("older", "younger"),
    ("earlier", "later"), ("increase", "decrease"), ("increased", "decreased"), ("increases", "decreases"),
    ("northern", "southern"), ("eastern", "western"), ("north", "south"), ("east", "west"), ("northeast", "southwest"),
    ("northwest", "southeast"), ("majority", "minority"), ("above", "below"), ("always", "never"), ("inside", "outside"),
];

/// The first word of an English sentence that has an opposite, and that.
fn opposite(sentence: &str) -> Option<Change> {
    let of = |word: &str| {
        OPPOSITES.iter().find_map(|(a, b)| match word {
            _ if word == *a => Some(*b),
            _ if word == *b => Some(*a),
            _ => None,
        })
    };
    words_of(sentence).find_map(|(start, word)| {
        let bare = word.trim_end_matches(|c: char| !c.is_alphanumeric());
        let substitute = Substitute::Opposite(of(bare)?.to_owned());
        Some(Change { bytes: start..start + bare.len(), substitute })
    })
}

/// The words between spaces, and where each begins.
fn words_of(sentence: &str) -> impl Iterator<Item = (usize, &str)> {
    sentence.split(' ').scan(0, |start, word| {
        let at = *start;
        *start += word.len() + 1;
        Some((at, word))
    })
}

/// The first of the words that make an English sentence of its subject and the rest, with "not" after it.
fn denial(sentence: &str) -> Option<Change> {
    const AUXILIARIES: [&str; 12] =
        ["is", "are", "was", "were", "can", "could", "will", "would", "should", "must", "may", "might"];
    // "has not been", but not "has not three".
    const PERFECT: [&str; 3] = ["has", "have", "had"];
    let words: Vec<(usize, &str)> = words_of(sentence).collect();
    let next = |idx: usize| words.get(idx + 1).map_or("", |(_, word)| *word);
    let denies = |idx: usize| {
        let (word, next) = (words[idx].1, next(idx));
        let carries = AUXILIARIES.contains(&word)
            || PERFECT.contains(&word) && (next == "been" || next.ends_with("ed"));
        let after = if next == "also" { words.get(idx + 2).map_or("", |(_, word)| *word) } else { next };
        carries && !after.is_empty() && after != "not"
    };
    // In a clause of its own, "who was ...", it says less.
    let is_aside = |idx: usize| {
        let before = idx.checked_sub(1).map_or("", |before| words[before].1);
        ["who", "which", "that", "where", "when", "as", "what"].contains(&before)
    };
    let found = || (0..words.len()).filter(|idx| denies(*idx));
    let idx = found().find(|idx| !is_aside(*idx)).or_else(|| found().next())?;
    let (start, word) = words[idx];
    let denied = if word == "can" { "cannot".to_owned() } else { format!("{word} not") };
    // What is not so is not so too: "is also", "is not".
    let also = if next(idx) == "also" { " also".len() } else { 0 };
    Some(Change { bytes: start..start + word.len() + also, substitute: Substitute::Denial(denied) })
}

/// `None` for a number that has no other.
fn change_of(sentence: &str, span: &Span, names: &[String], is_english: bool) -> Option<Change> {
    let bytes = span.bytes.clone();
    let original = &sentence[bytes.clone()];
    if let Some(at) = number_in(original) {
        let start = bytes.start + at;
        let (number, regex) = number::others(&sentence[start..], apart(&sentence[..start]))?;
        return Some(Change {
            bytes: start + number.start..start + number.end,
            substitute: Substitute::Number(regex),
        });
    }
    let free = Substitute::Free(span.form);
    let substitute = match (span.form, is_english) {
        (Form::Name, _) if !stands_alone(sentence, &bytes) => free,
        (Form::Name, true) if is_sure_of(sentence, &bytes, names) => {
            let is_known =
                |other: &str| contains(sentence, other) || names.iter().any(|name| contains(name, other));
            let (before, after) = (&sentence[..bytes.start], &sentence[bytes.end..]);
            names_elsewhere(original, before, after, is_known).map_or(free, Substitute::Elsewhere)
        }
        (Form::Name, false) | (Form::Plain, _) => {
            let fits = |name: &&String| {
                Form::of(name) == span.form && !contains(sentence, name) && !are_related(name, original)
            };
            let others: Vec<String> = names.iter().filter(fits).take(MAX_SUBSTITUTES).cloned().collect();
            if others.is_empty() { free } else { Substitute::OneOf(others) }
        }
        _ => free,
    };
    Some(Change { bytes, substitute })
}

/// How far from the original a number must be after some words of a sentence for that to be false.
fn apart(before: &str) -> Apart {
    let says = |word: &&str| word.contains(char::is_alphanumeric);
    let mut words = before.split_whitespace().rev().filter(says).map(str::to_lowercase);
    let last = words.next().unwrap_or_default();
    match (&*words.next().unwrap_or_default(), &*last) {
        (_, "over" | "above" | "exceeding" | "after") | ("more", "than") | ("at", "least") => Apart::Above,
        (_, "under" | "below" | "before") | ("less" | "fewer", "than") | ("up", "to") | ("at", "most") => {
            Apart::Below
        }
        _ => Apart::Plainly,
    }
}

/// Whether two names may mean one thing: they share a word, or one is the other's initials.
fn are_related(a: &str, b: &str) -> bool {
    let shares = |a: &str, b: &str| a.split_whitespace().any(|word| contains(b, word));
    shares(a, b) || shares(b, a) || are_initials(a, b) || are_initials(b, a)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(sentence: &str, passage: &[&str], expected: Option<(&str, Substitute)>) {
        let language = Language::parse(if sentence.is_ascii() { "en" } else { "ja" }).unwrap();
        let change = change(sentence, &names(passage.iter().copied()), &language);
        let found = change.map(|change| (&sentence[change.bytes], change.substitute));
        assert_eq!(found, expected, "{sentence}");
    }

    #[test]
    fn numbers_first() {
        let number = |text, regex: &str| Some((text, Substitute::Number(regex.to_owned())));
        check("The Eiffel Tower was finished in 1889.", &[], number("1889", "18[0123456][0-9]"));
        let days: Vec<String> = (6..=28).map(|day: u32| day.to_string()).collect();
        check("They met on 3 May in Rome.", &[], number("3", &format!("({})", days.join("|"))));
        check("In the 20th year Rome fell.", &[], number("20th", "(4|5|6|7|8|9|10|11|12|13|14|15|16|17)th"));
        check("In July 1969 they landed.", &[], number("1969", "19[0123489][0-9]"));
        check("On July 4, 1776 they met.", &[], number("1776", "17[0123459][0-9]"));
        check("Brazil has 60% of it.", &[], number("60", "[123489]0"));
        check("Prices fell in the early 1980s.", &[], number("1980", "19[0123456]0"));
        // What is over 7,000 is over 5,000 too.
        check("Over 7,000 people came.", &[], number("7,000", r"[9]\,000"));
        check("Up to $7,000 was paid.", &[], number("7,000", r"[12345]\,000"));
        let denied = Some(("were", Substitute::Denial("were not".to_owned())));
        check("More than 95,000 people were there.", &[], denied);
    }

    #[test]
    fn names_from_elsewhere_next() {
        let check = |sentence: &str, name: &str, some: &str| {
            let passage = ["He left for the Red Cross in Rome.", sentence];
            let english = Language::parse("en").unwrap();
            let change = change(sentence, &names(passage.into_iter()), &english).unwrap();
            let Substitute::Elsewhere(others) = change.substitute else { panic!("{sentence}: {change:?}") };
            assert_eq!(&sentence[change.bytes], name, "{sentence}");
            let is_known = |name: &&str| ["Rome", "Red Cross"].contains(name);
            assert!(
                others.names.contains(&some) && !others.names.iter().any(is_known),
                "{sentence}: {others:?}"
            );
        };
        check("Its tower is by Gustave Eiffel.", "Gustave Eiffel", "Isaac Newton");
        check("He left the European Union in June.", "European Union", "Royal Navy");
        check("She fell ill in June.", "June", "March");
        check("Great Southern Rail ends in Perth.", "Perth", "Vienna");
        // A person or a place, who knows?
        check("It was seen before Sinback.", "Sinback", "Vienna");
    }

    #[test]
    fn or_of_the_passage_in_other_languages() {
        let one_of = |text, names: &[&str]| {
            Some((text, Substitute::OneOf(names.iter().map(|&name| name.to_owned()).collect())))
        };
        check("琵琶湖は滋賀県にある。", &["諏訪湖は長野県にある。"], one_of("琵琶湖", &["諏訪湖", "長野県"]));
    }

    #[test]
    fn names_that_would_be_cut_or_garbled_stay() {
        let opposite = |word, text: &str| Some((word, Substitute::Opposite(text.to_owned())));
        let denied = |word, text: &str| Some((word, Substitute::Denial(text.to_owned())));
        // No head of a longer name, and no name for one that describes the next word.
        let passage = ["So the Treaty on the Functioning of the European Union says."];
        assert_eq!(names(passage.into_iter()), ["European Union"]);
        check("Later ARPANET architecture is old.", &passage, denied("is", "is not"));
        check("The South American continent is vast.", &["He left Oslo."], denied("is", "is not"));
        // Nor part of a word that is no name.
        check("The engine of Watt's was old.", &[], denied("was", "was not"));
        check("The largest of them rose.", &[], opposite("largest", "smallest"));
        check("Prices have increased.", &[], opposite("increased", "decreased"));
        // Nor one of any kind where another word will do.
        check("The largest of all was Sinback.", &[], opposite("largest", "smallest"));
    }

    #[test]
    fn then_denial() {
        let denied = |word, text: &str| Some((word, Substitute::Denial(text.to_owned())));
        check("Normally water is the fluid of choice.", &[], denied("is", "is not"));
        check("Mercury was his.", &[], denied("was", "was not"));
        check("The men who were there can sing.", &[], denied("can", "cannot"));
        check("The town has been rebuilt.", &[], denied("has", "has not"));
        check("The principle is also recognised.", &[], denied("is also", "is not"));
        check("It is also not used there and is old.", &[], denied("is", "is not"));
    }

    #[test]
    fn words_of_the_models_own_last() {
        check("Mercury is not his.", &[], Some(("Mercury", Substitute::Free(Form::Name))));
        check("plants need water", &[], Some(("plants", Substitute::Free(Form::Phrase))));
        check("so be it", &[], None);
    }
}
