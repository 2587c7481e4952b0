//! What makes a sentence false: one of its numbers, names or words, and what may stand in its place. What may
//! be written there is held so tightly that the sentence still reads like one: a number of the same length, another
//! name of the same passage after the same word, the opposite of a word; without those "is not" for "is", and
//! only then words of the model's own.

use super::form::Form;
use super::language::Language;
use super::number::{self, Apart, year_of_date};
use super::span::{Span, replaceable_spans, stands_alone};
use super::wording::contains;
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
    /// One of these; none of them says what the original says.
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

/// A name, or in an unspaced script a word, that may stand in another's place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Name {
    text: String,
    /// What stands before it: "in", "by the". What stands after the same says the same kind of thing, mostly.
    before: String,
}

/// Names and words of a passage's sentences that may stand in another's place.
pub(super) fn names<'a>(sentences: impl Iterator<Item = &'a str>) -> Vec<Name> {
    let mut names: Vec<Name> = Vec::new();
    for sentence in sentences {
        for Span { bytes, form } in replaceable_spans(sentence) {
            let is_name = match form {
                // What a sentence begins with may owe its capital to that, or be more than a name: "Later
                // Hugo".
                Form::Name => bytes.start > 0 && stands_alone(sentence, &bytes),
                Form::Plain => true,
                Form::Number | Form::Quantity | Form::Phrase => false,
            };
            let name =
                Name { text: sentence[bytes.clone()].to_owned(), before: before(sentence, bytes.start) };
            if is_name && !names.contains(&name) {
                names.push(name);
            }
        }
    }
    names
}

/// The word before a place in a sentence, and the one before that if it is "the"; in small letters.
fn before(sentence: &str, start: usize) -> String {
    let mut words = sentence[..start].split_whitespace().rev().map(str::to_lowercase);
    let last = words.next().unwrap_or_default();
    match words.next() {
        Some(word) if last == "the" => format!("{word} the"),
        _ => last,
    }
}

/// Where and how to make a sentence false; `None` where nothing in it can be changed. Numbers before
/// names, and longer ones before shorter: numbers are easily wrong, long names easily told from others.
/// Where no name can stand in another's place, an English sentence says the opposite or is denied.
pub(super) fn change(sentence: &str, names: &[Name], language: &Language) -> Option<Change> {
    let is_english = language.code() == "en";
    let change_of = |span| change_of(sentence, &span, names, is_english);
    let changes = replaceable_spans(sentence).into_iter().filter_map(change_of);
    let in_words = is_english.then(|| opposite(sentence).into_iter().chain(denial(sentence)));
    changes.chain(in_words.into_iter().flatten()).max_by_key(|change| {
        let text = &sentence[change.bytes.clone()];
        // The first word of a sentence may owe its capital to that.
        let is_sure = change.bytes.start > 0
            || text.contains(' ')
            || !text.starts_with(char::is_uppercase)
            || names.iter().any(|name| name.text == text);
        let rank = match (&change.substitute, is_sure) {
            (Substitute::Number(_), _) => 6,
            (Substitute::OneOf(_), true) => 5,
            (Substitute::Opposite(_), _) => 4,
            (Substitute::Denial(_), _) => 3,
            (Substitute::Free(_), true) => 2,
            (Substitute::OneOf(_), false) => 1,
            (Substitute::Free(_), false) => 0,
        };
        // Of equals the first.
        (rank, change.bytes.len(), Reverse(change.bytes.start))
    })
}

impl Change {
    /// Whether nobody doubts that the sentence is false, once they know: a name may be as right as the one it
    /// replaces. Nor does it give itself away, as "not" does.
    pub(super) fn is_plain(&self) -> bool {
        matches!(self.substitute, Substitute::Number(_) | Substitute::Opposite(_))
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

/// Where a sentence can be denied, a name is exchanged only for one that stands after the same word. `None` for a
/// number that has no other.
fn change_of(sentence: &str, span: &Span, names: &[Name], can_be_denied: bool) -> Option<Change> {
    let original = &sentence[span.bytes.clone()];
    let number_at = match span.form {
        Form::Number | Form::Quantity => Some(0),
        _ => year_of_date(original),
    };
    if let Some(at) = number_at {
        let start = span.bytes.start + at;
        let (number, regex) = number::others(&sentence[start..], apart(&sentence[..start]))?;
        return Some(Change {
            bytes: start + number.start..start + number.end,
            substitute: Substitute::Number(regex),
        });
    }
    let before = before(sentence, span.bytes.start);
    let fits = |name: &&Name| {
        Form::of(&name.text) == span.form
            && !contains(sentence, &name.text)
            && !are_related(&name.text, original)
            && (name.before == before || !can_be_denied)
    };
    let mut others: Vec<String> = Vec::new();
    if span.form == Form::Plain || span.form == Form::Name && stands_alone(sentence, &span.bytes) {
        for name in names.iter().filter(fits) {
            if others.len() < MAX_SUBSTITUTES && !others.contains(&name.text) {
                others.push(name.text.clone());
            }
        }
    }
    let substitute = if others.is_empty() { Substitute::Free(span.form) } else { Substitute::OneOf(others) };
    Some(Change { bytes: span.bytes.clone(), substitute })
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
    let initials = |text: &str| -> String {
        text.split_whitespace().filter_map(|word| word.chars().next()).filter(|c| c.is_uppercase()).collect()
    };
    let shares = |a: &str, b: &str| a.split_whitespace().any(|word| contains(b, word));
    // "NSF-funded" has the initials of what funds it.
    let head = |text: &str| text.split('-').next().unwrap_or_default().to_owned();
    shares(a, b) || shares(b, a) || initials(a) == head(b) || initials(b) == head(a)
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
        // What is over 7,000 is over 5,000 too.
        check("Over 7,000 people came.", &[], number("7,000", r"[9]\,000"));
        check("Up to $7,000 was paid.", &[], number("7,000", r"[12345]\,000"));
        let denied = Some(("were", Substitute::Denial("were not".to_owned())));
        check("More than 95,000 people were there.", &[], denied);
    }

    #[test]
    fn names_of_the_passage_next() {
        let one_of = |text, names: &[&str]| {
            Some((text, Substitute::OneOf(names.iter().map(|&name| name.to_owned()).collect())))
        };
        let passage =
            ["Later Hugo met Victor Hugo, the EU and Eiffel by Nice.", "Towers by Jean Nouvel rose."];
        check(
            "Its tower is by Gustave Eiffel.",
            &passage,
            one_of("Gustave Eiffel", &["Nice", "Jean Nouvel"]),
        );
        // After another word it would be another kind of thing.
        check("The tower of Gustave Eiffel was tall.", &passage, {
            Some(("was", Substitute::Denial("was not".to_owned())))
        });
        check(
            "He left the European Union.",
            &["So the EU left the Vatican in Rome."],
            one_of("European Union", &["Vatican"]),
        );
        check("琵琶湖は滋賀県にある。", &["諏訪湖は長野県にある。"], one_of("琵琶湖", &["諏訪湖", "長野県"]));
    }

    #[test]
    fn names_that_would_be_cut_or_garbled_stay() {
        let opposite = |word, text: &str| Some((word, Substitute::Opposite(text.to_owned())));
        let denied = |word, text: &str| Some((word, Substitute::Denial(text.to_owned())));
        // No head of a longer name, and no name for one that describes the next word.
        let passage = ["So the Treaty on the Functioning of the European Union says."];
        assert_eq!(
            names(passage.into_iter()).iter().map(|name| &*name.text).collect::<Vec<_>>(),
            ["European Union"]
        );
        check("Later ARPANET architecture is old.", &passage, denied("is", "is not"));
        check("The South American continent is vast.", &["He left Oslo."], denied("is", "is not"));
        // Nor one without "the" for one with it.
        check("He was the Pope.", &["It was Oslo."], denied("was", "was not"));
        check("The largest of them rose.", &[], opposite("largest", "smallest"));
        check("Prices have increased.", &[], opposite("increased", "decreased"));
    }

    #[test]
    fn then_denial() {
        let denied = |word, text: &str| Some((word, Substitute::Denial(text.to_owned())));
        check("Normally water is the fluid of choice.", &[], denied("is", "is not"));
        check("The cycle of Rankine was his.", &["In Rankine water boils."], denied("was", "was not"));
        check("The men who were there can sing.", &[], denied("can", "cannot"));
        check("The town has been rebuilt.", &[], denied("has", "has not"));
        check("The principle is also recognised.", &[], denied("is also", "is not"));
        check("It is also not used there and is old.", &[], denied("is", "is not"));
    }

    #[test]
    fn words_of_the_models_own_last() {
        check("The cycle of Rankine is not his.", &[], Some(("Rankine", Substitute::Free(Form::Name))));
        check("plants need water", &[], Some(("plants", Substitute::Free(Form::Phrase))));
        check("so be it", &[], None);
    }
}
