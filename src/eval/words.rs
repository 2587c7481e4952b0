//! Answers compared as question answering compares them, by SQuAD v1.1's normalisation and token F1; and, since a
//! small reader answers in whole sentences, by what a reply says that the question does not.

use crate::quiz::wording::is_filler;

use std::collections::HashMap;

fn is_unspaced(text: &str) -> bool {
    text.chars().any(|c| matches!(c, '\u{3040}'..='\u{30ff}' | '\u{3400}'..='\u{9fff}'))
}

/// Lower case, without punctuation and articles; the characters of what is written without spaces.
fn tokens(text: &str) -> Vec<String> {
    let lower: String =
        text.to_lowercase().chars().map(|c| if c.is_alphanumeric() { c } else { ' ' }).collect();
    if is_unspaced(&lower) {
        return lower.chars().filter(|c| !c.is_whitespace()).map(String::from).collect();
    }
    let is_article = |word: &&str| matches!(*word, "a" | "an" | "the");
    let words: Vec<&str> = lower.split_whitespace().collect();
    let bare: Vec<String> =
        words.iter().filter(|word| !is_article(word)).map(|&word| word.to_owned()).collect();
    if bare.is_empty() { words.into_iter().map(str::to_owned).collect() } else { bare }
}

/// Harmonic mean of the shares of `given` and of `wanted` that the other has.
fn token_f1(given: &[String], wanted: &[String]) -> f64 {
    let mut counts: HashMap<&String, usize> = HashMap::new();
    for token in wanted {
        *counts.entry(token).or_default() += 1;
    }
    let mut shared = 0;
    for token in given {
        if let Some(count) = counts.get_mut(token).filter(|count| **count > 0) {
            *count -= 1;
            shared += 1;
        }
    }
    if shared == 0 { 0.0 } else { 2.0 * f64::from(shared) / (given.len() + wanted.len()) as f64 }
}

/// The best token F1 of a reply to a question against any of the answers: of the whole, or of the words that the
/// question does not have, small ones aside. A small reader asked when something was built says "It was built in
/// 1889". Without spaces there are no words to tell.
pub(super) fn answer_f1<'a>(question: &str, given: &str, answers: impl IntoIterator<Item = &'a str>) -> f64 {
    let asked = tokens(question);
    let beyond = |tokens: &[String]| -> Vec<String> {
        tokens.iter().filter(|token| !asked.contains(token) && !is_filler(token)).cloned().collect()
    };
    let given = tokens(given);
    let given_beyond = if is_unspaced(question) { Vec::new() } else { beyond(&given) };
    let f1 = |answer: &str| {
        let answer = tokens(answer);
        token_f1(&given, &answer).max(token_f1(&given_beyond, &beyond(&answer)))
    };
    answers.into_iter().map(f1).fold(0.0, f64::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f1() {
        let check = |given: &str, wanted: &str, expected: f64| {
            let f1 = token_f1(&tokens(given), &tokens(wanted));
            assert!((f1 - expected).abs() < 1e-9, "{given} / {wanted}");
        };
        check("The Nile.", "nile", 1.0);
        check("the River Nile", "Nile", 2.0 / 3.0);
        check("Amazon", "Nile", 0.0);
        check("", "Nile", 0.0);
        check("The", "the", 1.0);
        check("new new york", "new york", 0.8);
        check("琵琶湖です", "琵琶湖", 0.75);
    }

    #[test]
    fn what_the_question_says_is_no_answer() {
        let check = |given: &str, answers: &[&str], expected: f64| {
            let f1 = answer_f1("Who built the Eiffel Tower?", given, answers.iter().copied());
            assert!((f1 - expected).abs() < 1e-9, "{given} / {answers:?}: {f1}");
        };
        check("Gustave Eiffel", &["Eiffel", "Gustave Eiffel"], 1.0);
        check("The Eiffel Tower was built by Gustave Eiffel.", &["Gustave Eiffel"], 1.0);
        check("Koechlin built the Eiffel Tower.", &["Koechlin"], 1.0);
        check("Koechlin built the Eiffel Tower.", &["Gustave Eiffel"], 2.0 / 6.0);
        check("The Eiffel Tower", &["Eiffel Tower"], 1.0);
        assert_eq!(answer_f1("When was the tower built?", "It was built in 1889.", ["1889"]), 1.0);
        let question = "1941年に始まった戦争は何年に終わりましたか？";
        assert!(answer_f1(question, "1915年", ["1945年"]) < 0.9);
    }
}
