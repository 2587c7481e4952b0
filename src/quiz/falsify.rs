//! What makes a sentence false: one of its numbers or names, and what may stand in its place. What may be
//! written there is held so tightly that the sentence still reads like one: a number of the same length,
//! another name of the same passage; only without those, words of the model's own.

use super::span::{Form, Span, replaceable_spans};
use super::wording::contains;
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
    /// A regular expression for a number; the original matches it too.
    Number(String),
    /// One of these; none of them says what the original says.
    OneOf(Vec<String>),
    /// Words of the form.
    Free(Form),
}

/// More alternatives make the grammar larger and the choice no better.
const MAX_SUBSTITUTES: usize = 16;

/// Names and words of a passage's sentences that may stand in another's place.
pub(super) fn names<'a>(sentences: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for sentence in sentences {
        let spans = replaceable_spans(sentence).into_iter().filter(|span| is_name(sentence, span));
        // What a sentence begins with may owe its capital to that, or be more than a name: "Later Hugo".
        for span in spans.filter(|span| span.bytes.start > 0 || span.form == Form::Plain) {
            let name = &sentence[span.bytes.clone()];
            if !names.iter().any(|known| known == name) {
                names.push(name.to_owned());
            }
        }
    }
    names
}

/// Where and how to make a sentence false; `None` where nothing in it can be changed. Numbers before
/// names, and longer ones before shorter: numbers are easily wrong, long names easily told from others.
pub(super) fn change(sentence: &str, names: &[String]) -> Option<Change> {
    let changes = replaceable_spans(sentence).into_iter().map(|span| change_of(sentence, &span, names));
    changes.max_by_key(|change| {
        let rank = match &change.substitute {
            Substitute::Number(_) => 3,
            Substitute::OneOf(_) => 2,
            Substitute::Free(_) if change.bytes.start > 0 => 1,
            Substitute::Free(_) => 0,
        };
        // Of equals the first.
        (rank, change.bytes.len(), std::cmp::Reverse(change.bytes.start))
    })
}

fn change_of(sentence: &str, span: &Span, names: &[String]) -> Change {
    let original = &sentence[span.bytes.clone()];
    if matches!(span.form, Form::Number | Form::Quantity) {
        let (bytes, regex) = number(original);
        let start = span.bytes.start;
        return Change {
            bytes: start + bytes.start..start + bytes.end,
            substitute: Substitute::Number(regex),
        };
    }
    let fits = |name: &&String| {
        Form::of(name) == span.form && !contains(sentence, name) && !are_related(name, original)
    };
    let others: Vec<String> = match is_name(sentence, span) {
        true => names.iter().filter(fits).take(MAX_SUBSTITUTES).cloned().collect(),
        false => Vec::new(),
    };
    let substitute = if others.is_empty() { Substitute::Free(span.form) } else { Substitute::OneOf(others) };
    Change { bytes: span.bytes.clone(), substitute }
}

/// Capitals say little of the first word of a sentence.
fn is_name(sentence: &str, span: &Span) -> bool {
    let text = &sentence[span.bytes.clone()];
    match span.form {
        Form::Name => span.bytes.start > 0 || text.contains(' '),
        Form::Plain => true,
        Form::Number | Form::Quantity | Form::Phrase => false,
    }
}

/// Whether two names may mean one thing: they share a word, or one is the other's initials.
fn are_related(a: &str, b: &str) -> bool {
    let initials = |text: &str| -> String {
        text.split_whitespace().filter_map(|word| word.chars().next()).filter(|c| c.is_uppercase()).collect()
    };
    let shares = |a: &str, b: &str| a.split_whitespace().any(|word| contains(b, word));
    shares(a, b) || shares(b, a) || initials(a) == b || initials(b) == a
}

/// The number that a text begins with, what belongs to its form included, and a regular expression for
/// others like it: as many digits, and of a year or a long number the first two.
fn number(text: &str) -> (Range<usize>, String) {
    let is_part = |c: char| c.is_ascii_digit() || matches!(c, '.' | ',');
    let number = text[..text.find(|c| !is_part(c)).unwrap_or(text.len())].trim_end_matches(['.', ',']);
    let rest = &text[number.len()..];
    let ordinal = ["st", "nd", "rd", "th"].iter().find(|ending| rest.starts_with(*ending));
    if let Some(ending) = ordinal
        && !rest[ending.len()..].starts_with(char::is_alphanumeric)
    {
        return (0..number.len() + ending.len(), "([4-9]|1[0-9]|[2-9]0)th".to_owned());
    }
    let digits = number.chars().filter(char::is_ascii_digit).count();
    let kept = match digits {
        0..=3 => 0,
        _ => digits.min(4) - 2,
    };
    let mut regex = String::new();
    let mut seen = 0;
    for c in number.chars() {
        match c {
            '0'..='9' if seen < kept || c == '0' && seen == 0 && digits > 1 => regex.push(c),
            '0'..='9' if seen == 0 => regex.push_str("[1-9]"),
            '0'..='9' => regex.push_str("[0-9]"),
            _ => {
                regex.push('\\');
                regex.push(c);
            }
        }
        seen += usize::from(c.is_ascii_digit());
    }
    (0..number.len(), regex)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(sentence: &str, passage: &[&str], expected: Option<(&str, Substitute)>) {
        let change = change(sentence, &names(passage.iter().copied()));
        let found = change.map(|change| (&sentence[change.bytes], change.substitute));
        assert_eq!(found, expected, "{sentence}");
    }

    #[test]
    fn numbers_first() {
        let number = |text, regex: &str| Some((text, Substitute::Number(regex.to_owned())));
        check("The Eiffel Tower was finished in 1889.", &[], number("1889", "18[0-9][0-9]"));
        check("The Moon is 384,400 km away.", &[], number("384,400", r"38[0-9]\,[0-9][0-9][0-9]"));
        check("It took the crew 8 days.", &[], number("8", "[1-9]"));
        check("Brazil has 60% of it.", &[], number("60", "[1-9][0-9]"));
        check("They met on 12 December in Rome.", &[], number("12", "[1-9][0-9]"));
        check("It fell in the 1950s.", &[], number("1950", "19[0-9][0-9]"));
        check("In the 3rd year Rome fell.", &[], number("3rd", "([4-9]|1[0-9]|[2-9]0)th"));
        check("About 0.5 of it is gone.", &[], number("0.5", r"0\.[0-9]"));
    }

    #[test]
    fn names_of_the_passage_next() {
        let one_of = |text, names: &[&str]| {
            Some((text, Substitute::OneOf(names.iter().map(|&name| name.to_owned()).collect())))
        };
        let passage = ["Later Hugo met Victor Hugo of the EU and Eiffel in London.", "Towers rose in Lyon."];
        check(
            "The tower was built by Gustave Eiffel.",
            &passage,
            one_of("Gustave Eiffel", &["Victor Hugo", "EU", "London", "Lyon"]),
        );
        check("He left the European Union.", &["So the EU left Rome."], one_of("European Union", &["Rome"]));
        check("琵琶湖は滋賀県にある。", &["諏訪湖は長野県にある。"], one_of("琵琶湖", &["諏訪湖", "長野県"]));
    }

    #[test]
    fn words_of_the_models_own_last() {
        check("The tower was built by Eiffel.", &[], Some(("Eiffel", Substitute::Free(Form::Name))));
        check("plants need water", &[], Some(("water", Substitute::Free(Form::Phrase))));
        check("it is so", &[], None);
    }
}
