//! Item-writing rules that a program can check, after Haladyna, Downing and Rodriguez: people break them
//! too, so the share that holds is to be read beside the people's.

use super::spec::ItemKind;
use super::wording::{contains, plain, words};
use serde::{Deserialize, Serialize};

/// A rule that an item breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Flaw {
    /// A question without its mark.
    NoQuestionMark,
    /// More than one question in the stem.
    SeveralQuestions,
    /// "According to the passage": the player has none.
    RefersToSource,
    /// "When did he arrive?": nobody is named whom it could mean.
    DanglingReference,
    /// "How many ...?" of what is no number, "Who ...?" of one, "When ...?" of no time.
    WrongKindOfAnswer,
    /// More than 40 words.
    LongStem,
    /// NOT or EXCEPT in the stem.
    NegativeStem,
    AllOrNoneOfTheAbove,
    DuplicateOptions,
    /// One option contains another.
    OverlappingOptions,
    /// Numbers beside names, capitals beside small letters.
    UnevenOptions,
    /// The key alone is longest, by a quarter or more.
    KeyIsLongest,
    /// A telling word of the stem is in the key and in no other option.
    ClangWithKey,
    /// "Always" or "never" in wrong answers only.
    AbsoluteDistractors,
}

impl Flaw {
    /// As on the wire and in the metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::NoQuestionMark => "no_question_mark",
            Self::SeveralQuestions => "several_questions",
            Self::RefersToSource => "refers_to_source",
            Self::DanglingReference => "dangling_reference",
            Self::WrongKindOfAnswer => "wrong_kind_of_answer",
            Self::LongStem => "long_stem",
            Self::NegativeStem => "negative_stem",
            Self::AllOrNoneOfTheAbove => "all_or_none_of_the_above",
            Self::DuplicateOptions => "duplicate_options",
            Self::OverlappingOptions => "overlapping_options",
            Self::UnevenOptions => "uneven_options",
            Self::KeyIsLongest => "key_is_longest",
            Self::ClangWithKey => "clang_with_key",
            Self::AbsoluteDistractors => "absolute_distractors",
        }
    }
}

const OF_EVERY_QUESTION: [Flaw; 4] =
    [Flaw::RefersToSource, Flaw::DanglingReference, Flaw::LongStem, Flaw::NegativeStem];
const OF_INTERROGATIVES: [Flaw; 3] = [Flaw::NoQuestionMark, Flaw::SeveralQuestions, Flaw::WrongKindOfAnswer];
const OF_CHOICES: [Flaw; 7] = [
    Flaw::AllOrNoneOfTheAbove,
    Flaw::DuplicateOptions,
    Flaw::OverlappingOptions,
    Flaw::UnevenOptions,
    Flaw::KeyIsLongest,
    Flaw::ClangWithKey,
    Flaw::AbsoluteDistractors,
];

/// The rules that apply to an item of this kind.
pub fn applicable(kind: ItemKind) -> Vec<Flaw> {
    let mut rules = OF_EVERY_QUESTION.to_vec();
    if kind != ItemKind::TrueFalse {
        rules.extend(OF_INTERROGATIVES);
    }
    if kind == ItemKind::MultipleChoice {
        rules.extend(OF_CHOICES);
    }
    rules
}

/// What a player sees of an item, and its key.
#[derive(Clone, Copy)]
pub struct Shown<'a> {
    pub kind: ItemKind,
    pub question: &'a str,
    pub answer: &'a str,
    /// None unless the kind has them.
    pub distractors: &'a [String],
}

/// The rules that the item breaks.
pub fn flaws(item: &Shown<'_>) -> Vec<Flaw> {
    applicable(item.kind).into_iter().filter(|rule| breaks(item, *rule)).collect()
}

fn breaks(item: &Shown<'_>, rule: Flaw) -> bool {
    let stem = item.question;
    let stem_words = words(stem);
    let marks = stem.chars().filter(|c| matches!(c, '?' | '？')).count();
    let len = |text: &str| text.chars().count();
    match rule {
        Flaw::NoQuestionMark => marks == 0,
        Flaw::SeveralQuestions => marks > 1,
        Flaw::RefersToSource => {
            let sources =
                ["the passage", "the text", "this text", "the article", "the paragraph", "本文", "文章"];
            sources.iter().any(|source| stem.to_lowercase().contains(source))
        }
        Flaw::DanglingReference => is_dangling(stem, &stem_words),
        Flaw::WrongKindOfAnswer => asks_for_another_kind(stem, item.answer),
        Flaw::LongStem => stem_words.len() > 40,
        Flaw::NegativeStem => stem_words.iter().any(|word| matches!(word.as_str(), "not" | "except")),
        Flaw::AllOrNoneOfTheAbove => item.options().any(|option| {
            let option = plain(option);
            ["alloftheabove", "noneoftheabove", "上記のすべて"].iter().any(|phrase| option.contains(phrase))
        }),
        Flaw::DuplicateOptions => pairs(item).any(|(a, b)| plain(a) == plain(b)),
        Flaw::OverlappingOptions => {
            pairs(item).any(|(a, b)| plain(a) != plain(b) && (contains(a, b) || contains(b, a)))
        }
        Flaw::UnevenOptions => item.distractors.iter().any(|option| form(option) != form(item.answer)),
        Flaw::KeyIsLongest => {
            let longest = item.distractors.iter().map(|option| len(option)).max().unwrap_or(0);
            len(item.answer) * 4 >= longest * 5
        }
        Flaw::ClangWithKey => words(item.answer).iter().any(|word| {
            len(word) > 3
                && stem_words.contains(word)
                && !item.distractors.iter().any(|option| words(option).contains(word))
        }),
        Flaw::AbsoluteDistractors => {
            let absolute = |text: &str| words(text).iter().any(|word| word == "always" || word == "never");
            item.distractors.iter().any(|option| absolute(option)) && !absolute(item.answer)
        }
    }
}

impl<'a> Shown<'a> {
    fn options(&self) -> impl Iterator<Item = &'a str> {
        self.distractors.iter().map(String::as_str).chain([self.answer])
    }
}

/// What an English question begins with says whether a number answers it, or a time.
fn asks_for_another_kind(stem: &str, answer: &str) -> bool {
    #[rustfmt::skip]
    const FOR_A_NUMBER: [&str; 10] = [
        "how many", "how much", "how old", "how far", "how tall", "how high", "how deep", "how long", "what percentage",
        "how often",
    ];
    #[rustfmt::skip]
    const FOR_NO_NUMBER: [&str; 12] = [
        "who ", "whose ", "where ", "why ", "how do ", "how does ", "how did ", "how is ", "how are ", "how was ",
        "how were ", "how can ",
    ];
    // "When it rains, what ...?" asks for no time, and "When does it rain?" may ask under what conditions.
    const FOR_A_TIME: [&str; 3] = ["when was ", "when were ", "when did "];
    const FOR_A_YEAR: [&str; 4] = ["what year", "which year", "in what year", "in which year"];
    let stem = stem.to_lowercase();
    let begins = |starts: &[&str]| starts.iter().any(|start| stem.starts_with(start));
    let is_number = answer.starts_with(|c: char| c.is_ascii_digit());
    begins(&FOR_A_NUMBER) && !counts(answer)
        || begins(&FOR_NO_NUMBER) && is_number
        || begins(&FOR_A_TIME) && !words(answer).iter().any(|word| is_of_time(word))
        || begins(&FOR_A_YEAR) && !is_year(answer)
}

/// Whether an answer is a year or a few, and nothing else.
fn is_year(answer: &str) -> bool {
    const JOINING: [&str; 10] =
        ["in", "the", "of", "to", "from", "between", "and", "about", "around", "circa"];
    let fits = |word: &String| JOINING.contains(&word.as_str()) || is_of_time(word);
    answer.contains(char::is_numeric) && words(answer).iter().all(fits)
}

/// Whether an answer says how much of something there is.
fn counts(answer: &str) -> bool {
    #[rustfmt::skip]
    const NUMBER_WORDS: [&str; 26] = [
        "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve", "twenty",
        "thirty", "forty", "fifty", "hundred", "thousand", "million", "billion", "half", "third", "quarter", "dozen",
        "once", "twice",
    ];
    #[rustfmt::skip]
    const VAGUE: [&str; 11] =
        ["several", "many", "few", "some", "most", "majority", "year", "day", "week", "month", "century"];
    let counts = |word: &String| {
        NUMBER_WORDS.iter().chain(&VAGUE).any(|number| word.contains(number))
            || matches!(word.as_str(), "all" | "none" | "no" | "every")
    };
    answer.chars().any(char::is_numeric) || words(answer).iter().any(counts)
}

/// Whether a word, in plain form, says when something was.
fn is_of_time(word: &str) -> bool {
    #[rustfmt::skip]
    const TIMES: [&str; 79] = [
        "january", "february", "march", "april", "may", "june", "july", "august", "september", "october", "november",
        "december", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday", "century", "centuries",
        "decade", "year", "day", "week", "month", "hour", "minute", "era", "age", "epoch", "period", "time", "season", "war",
        "revolution", "renaissance", "dynasty", "reign", "antiquity", "dawn", "sunrise", "sunset", "dusk", "night", "morning",
        "afternoon", "evening", "weekend", "spring", "summer", "autumn", "fall", "winter", "noon", "midnight", "easter",
        "christmas", "ramadan", "annually", "daily", "weekly", "monthly", "before", "after", "during", "until", "since",
        "while", "once", "ago", "early", "late", "mid", "recently", "end", "beginning", "bc", "ad",
    ];
    let is_in_part = |part: &str| TIMES.contains(&part) || TIMES.contains(&part.trim_end_matches('s'));
    word.chars().any(|c| c.is_ascii_digit()) || is_in_part(word)
}

/// A pronoun, and no name or number it could stand for.
fn is_dangling(stem: &str, stem_words: &[String]) -> bool {
    const REFERENCES: [&str; 14] = [
        "he", "she", "it", "they", "him", "her", "them", "his", "hers", "its", "their", "this", "these",
        "those",
    ];
    // "How long does it take …?" means nothing by its `it`.
    let empty = [" does it take", " did it take", "is it called", "was it called"];
    let refers = stem_words.iter().any(|word| REFERENCES.contains(&word.as_str()));
    let named = stem
        .split_whitespace()
        .skip(1)
        .any(|word| word.starts_with(|c: char| c.is_uppercase() || c.is_numeric()));
    refers && !named && !empty.iter().any(|phrase| stem.contains(phrase))
}

fn pairs<'a>(item: &Shown<'a>) -> impl Iterator<Item = (&'a str, &'a str)> {
    let options: Vec<&str> = item.options().collect();
    let of = move |idx: usize| {
        let first = options[idx];
        options[..idx].iter().map(move |second| (first, *second)).collect::<Vec<_>>()
    };
    (0..item.distractors.len() + 1).flat_map(of)
}

/// What an option looks like at its first sight.
fn form(option: &str) -> u8 {
    match option.trim_start_matches(|c: char| !c.is_alphanumeric()).chars().next() {
        Some(c) if c.is_numeric() => 0,
        Some(c) if c.is_uppercase() => 1,
        Some(c) if c.is_lowercase() => 2,
        _ => 3,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_rule_alone() {
        let check = |question: &str, answer: &str, distractors: &[&str], expected: &[Flaw]| {
            let kind = if distractors.is_empty() { ItemKind::ShortAnswer } else { ItemKind::MultipleChoice };
            let distractors: Vec<String> = distractors.iter().map(|&text| text.to_owned()).collect();
            let item = Shown { kind, question, answer, distractors: &distractors };
            assert_eq!(flaws(&item), expected, "{question} {answer}");
        };
        let towns = ["London", "Madrid", "Rome"];
        check("Where does the Eiffel Tower stand?", "Paris", &towns, &[]);
        check("Where does the Eiffel Tower stand", "Paris", &towns, &[Flaw::NoQuestionMark]);
        check("Where is it? And the Louvre?", "Paris", &towns, &[Flaw::SeveralQuestions]);
        check("According to the passage, where is Big Ben?", "Paris", &towns, &[Flaw::RefersToSource]);
        check("Where did he build the tower?", "Paris", &[], &[Flaw::DanglingReference]);
        check("Where did Eiffel build his tower?", "Paris", &[], &[]);
        check("How long does it take to boil an egg?", "ten minutes", &[], &[]);
        check("How many towns have a tower?", "Paris", &[], &[Flaw::WrongKindOfAnswer]);
        check("How many towns have a tower?", "twenty-two", &[], &[]);
        check("How long does it take to get there?", "a few days", &[], &[]);
        check("Who built the tower?", "1889", &[], &[Flaw::WrongKindOfAnswer]);
        check("How does the lift of the tower work?", "1889", &[], &[Flaw::WrongKindOfAnswer]);
        check("When was the tower built?", "Paris", &[], &[Flaw::WrongKindOfAnswer]);
        check("When was the tower built?", "Bank of England", &[], &[Flaw::WrongKindOfAnswer]);
        check("When was the tower built?", "after the war", &[], &[]);
        check("When a tower is built, what falls?", "its shadow", &[], &[]);
        check("In which year was the tower new?", "1889 World's Fair", &[], &[Flaw::WrongKindOfAnswer]);
        check("In which year was the tower new?", "November", &[], &[Flaw::WrongKindOfAnswer]);
        check("In which year was the tower new?", "between early 1889 and 1890", &[], &[]);
        check("Which town is not in Italy?", "Paris", &["Rome", "Milan", "Turin"], &[Flaw::NegativeStem]);
        check("Which town?", "Paris", &["Rome", "None of the above", "Milan"], &[Flaw::AllOrNoneOfTheAbove]);
        check(
            "Which town?",
            "Paris",
            &["Rome", "paris", "Milan"],
            &[Flaw::DuplicateOptions, Flaw::UnevenOptions],
        );
        check("Which town?", "Paris", &["New York", "York", "Milan"], &[Flaw::OverlappingOptions]);
        check("Which year?", "1889", &["1789", "Milan", "1901"], &[Flaw::UnevenOptions]);
        check("Which town?", "Stratford", &towns, &[Flaw::KeyIsLongest]);
        check(
            "Which river gave River Phoenix his name?",
            "River A",
            &["Creek B", "Brook C", "Lake D"],
            &[Flaw::ClangWithKey],
        );
        check("When?", "rarely", &["always so", "now", "then"], &[Flaw::AbsoluteDistractors]);
    }
}
