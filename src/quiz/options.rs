//! The options of a multiple-choice item: when they clash, and what stands in for a wrong one that does.

use super::draft::Draft;
use super::flaws::Flaw;
use super::form::Form;
use super::number::neighbours;
use super::span::answer_spans;
use super::wording::words;

/// The words of an option, without an article before them.
fn bare(option: &str) -> Vec<String> {
    let mut words = words(option);
    let articles = words.iter().take_while(|word| matches!(word.as_str(), "the" | "a" | "an")).count();
    if articles < words.len() {
        words.drain(..articles);
    }
    words
}

/// The options differ in more than case, spaces, punctuation and an article, and no wrong one is the key with more
/// words or fewer, which would be as right: "San Jose, CA" beside "San Jose".
pub(super) fn clash_of_options(draft: &Draft) -> Option<Flaw> {
    let key = bare(&draft.answer);
    let others: Vec<Vec<String>> = draft.distractors.iter().map(|option| bare(option)).collect();
    let joined: Vec<String> = others.iter().chain([&key]).map(|words| words.concat()).collect();
    let holds = |whole: &[String], part: &[String]| whole.windows(part.len().max(1)).any(|run| run == part);
    if (1..joined.len()).any(|idx| joined[..idx].contains(&joined[idx])) {
        Some(Flaw::DuplicateOptions)
    } else if others.iter().any(|other| holds(other, &key) || holds(&key, other)) {
        Some(Flaw::OverlappingOptions)
    } else {
        None
    }
}

/// The options are all numbers, all numbers with a unit, all capitalised, all not.
pub(super) fn options_are_uniform(draft: &Draft) -> bool {
    const MAX_LENGTH_RATIO: usize = 8;
    let len = |option: &String| option.chars().count();
    let options = || draft.distractors.iter().chain([&draft.answer]);
    let longest = options().map(len).max().unwrap_or(0);
    let shortest = options().map(len).min().unwrap_or(0);
    options().all(|option| Form::of(option) == Form::of(&draft.answer))
        && (Form::of(&draft.answer) == Form::Number || longest <= MAX_LENGTH_RATIO * shortest.max(2))
}

/// Gives each wrong option that repeats the key or one before it something else: another number, where it has a number,
/// or words of the key's form from other `sentences` of the text. A small model that has written "18th century" likes to
/// write it again, attempt after attempt.
pub(super) fn replace_repeats(draft: &mut Draft, sentences: &[&str]) {
    for idx in 0..draft.distractors.len() {
        let repeats = |option: &str, taken: &[&String]| taken.iter().any(|other| bare(other) == bare(option));
        let (before, this) = draft.distractors.split_at(idx);
        let before: Vec<&String> = before.iter().chain([&draft.answer]).collect();
        if repeats(&this[0], &before) {
            let all: Vec<&String> = draft.distractors.iter().chain([&draft.answer]).collect();
            let number = neighbours(&this[0]).into_iter().find(|text| !repeats(text, &all));
            if let Some(other) = number.or_else(|| words_like_the_key(draft, sentences)) {
                draft.distractors[idx] = other;
            }
        }
    }
}

/// The first words that look like the key and have nothing of it, of the question or of another option.
fn words_like_the_key(draft: &Draft, sentences: &[&str]) -> Option<String> {
    let (form, n_words) = (Form::of(&draft.answer), words(&draft.answer).len());
    let mut taken = words(&draft.question);
    taken.extend(draft.distractors.iter().chain([&draft.answer]).flat_map(|option| words(option)));
    let fits = |text: &str| {
        let words = words(text);
        words.len().abs_diff(n_words) <= 1 && !words.iter().any(|word| taken.contains(word))
    };
    sentences
        .iter()
        .flat_map(|sentence| answer_spans(sentence).into_iter().map(move |span| (sentence, span)))
        .filter(|(_, span)| span.form == form)
        .map(|(sentence, span)| &sentence[span.bytes])
        .find(|text| fits(text))
        .map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeated_options_are_replaced() {
        let check = |answer: &str, distractors: [&str; 3], expected: [&str; 3]| {
            let mut draft = Draft {
                evidence: None,
                answer: answer.to_owned(),
                question: "Which?".to_owned(),
                distractors: distractors.map(str::to_owned).to_vec(),
                explanation: None,
            };
            let sentences =
                ["It lies between Which and Oslo Fjord, Bergen and private schools.", "Turin is far."];
            replace_repeats(&mut draft, &sentences);
            assert_eq!(draft.distractors, expected, "{answer} {distractors:?}");
        };
        check("30", ["10", "20", "10"], ["10", "20", "40"]);
        check("2005", ["2006", "2008", "2006"], ["2006", "2008", "2007"]);
        check("19th century", ["18th century"; 3], ["18th century", "17th century", "16th century"]);
        check("2nd", ["3rd", "2nd", "4th"], ["3rd", "1st", "4th"]);
        check("1840s and 50s", ["1870s and 50s"; 3], ["1870s and 50s", "1860s and 50s", "1880s and 50s"]);
        check("early 20th century", ["early 20th century", "late 1930s", "1900"], {
            ["early 19th century", "late 1930s", "1900"]
        });
        check("20%", ["10%"; 3], ["10%", "30%", "40%"]);
        check("7,000", ["7,000", "8,000", "6,000"], ["5,000", "8,000", "6,000"]);
        check("1.5 km", ["1.5 km", "1.4 km", "2 km"], ["1.6 km", "1.4 km", "2 km"]);
        check("12月", ["1月", "1月", "3月"], ["1月", "2月", "3月"]);
        // No number, or none of its kind is left.
        check("Paris", ["Rome", "Rome", "Oslo"], ["Rome", "Bergen", "Oslo"]);
        check("Paris", ["Rome", "Paris", "Rome"], ["Rome", "Oslo Fjord", "Bergen"]);
        check("iron", ["steel", "steel", "tin"], ["steel", "private schools", "tin"]);
        check("Paris", ["Rome", "Lyon", "Oslo"], ["Rome", "Lyon", "Oslo"]);
        let long = "1234567890123456";
        check(long, [long, "1", "2"], [long, "1", "2"]);
    }
}
