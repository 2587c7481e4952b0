//! A quiz laid out for reading.

use crate::quiz::{Citation, ItemKind, ItemStatus, QuizEvent, QuizItem, QuizSummary};
use std::fmt::Write;

/// What an event reads as; empty where there is nothing to read.
pub(super) fn layout(event: &QuizEvent) -> String {
    match event {
        QuizEvent::Item(item) => question(item),
        QuizEvent::Completed(summary) => closing(summary),
        QuizEvent::Created(_) | QuizEvent::Failed(_) => String::new(),
    }
}

fn question(item: &QuizItem) -> String {
    let mut text = format!("{}. {}\n", item.index + 1, item.question);
    let mut line = |line: &str| {
        text.push_str("   ");
        text.push_str(line);
        text.push('\n');
    };
    for (idx, choice) in item.choices.iter().flatten().enumerate() {
        line(&format!("{}) {choice}", letter(idx)));
    }
    let answer = &item.answer.text;
    match (item.kind, item.answer.choice_index) {
        (ItemKind::MultipleChoice, Some(idx)) => line(&format!("Answer: {}) {answer}", letter(idx))),
        _ => line(&format!("Answer: {answer}")),
    }
    if let Some(evidence) = &item.evidence {
        line(&format!("Source: \u{201c}{}\u{201d}", evidence.text.replace('\n', " ")));
    }
    if let Some(Citation { title, licence, source, .. }) = &item.citation {
        let rest = [source, licence].into_iter().flatten().map(|part| format!(", {part}"));
        line(&format!("        {title}{}", rest.collect::<String>()));
    }
    if item.status == ItemStatus::Unverified {
        line("Unverified: from the model's memory");
    }
    if let Some(explanation) = &item.explanation {
        line(&format!("Why: {explanation}"));
    }
    text.push('\n');
    text
}

/// A, B, ... Z, then numbers.
fn letter(idx: usize) -> String {
    match u8::try_from(idx) {
        Ok(idx) if idx < 26 => char::from(b'A' + idx).to_string(),
        _ => (idx + 1).to_string(),
    }
}

fn closing(summary: &QuizSummary) -> String {
    let QuizSummary { delivered, requested, rejected, outdone, timings, seed, .. } = summary;
    let mut text = format!("{delivered} of {requested} questions in {:.1} s", timings.total_ms / 1000.0);
    let drafts: usize = rejected.values().sum();
    if drafts > 0 {
        let _ = write!(text, ", {drafts} drafts thrown away");
    }
    if *outdone > 0 {
        let _ = write!(text, ", {outdone} gave way to better ones");
    }
    let _ = writeln!(text, "; seed {seed}");
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quiz::{Answer, Evidence};

    #[test]
    fn a_question_is_laid_out() {
        let item = QuizItem {
            id: "q".to_owned(),
            index: 1,
            kind: ItemKind::MultipleChoice,
            question: "Which planet is the largest?".to_owned(),
            choices: Some(vec!["Mars".to_owned(), "Jupiter".to_owned()]),
            answer: Answer { text: "Jupiter".to_owned(), choice_index: Some(1) },
            evidence: Some(Evidence { text: "Jupiter is\nthe largest".to_owned(), start: 0, end: 22 }),
            citation: Some(Citation {
                title: "Planets".to_owned(),
                licence: Some("CC0-1.0".to_owned()),
                source: None,
                passage: "Jupiter is\nthe largest planet.".to_owned(),
            }),
            explanation: None,
            status: ItemStatus::Grounded,
            checks: Vec::new(),
            flaws: Vec::new(),
        };
        let expected = "\
2. Which planet is the largest?
   A) Mars
   B) Jupiter
   Answer: B) Jupiter
   Source: “Jupiter is the largest”
           Planets, CC0-1.0

";
        assert_eq!(layout(&QuizEvent::Item(Box::new(item))), expected);
    }

    #[test]
    fn choices_have_letters() {
        assert_eq!([letter(0), letter(25), letter(26)], ["A", "Z", "27"]);
    }
}
