//! Which sentences the statements of a quiz rest on. A question puts its sentence in other words; a statement is its
//! sentence, or that with one place changed, and the player has no more.

use super::falsify::change;
use super::flaws::{Shown, flaws};
use super::ground::{Excerpt, Ground};
use super::language::Language;
use super::plan::ItemPlan;
use super::source::{Sentence, Worth};
use super::spec::ItemKind;
use super::wording::{fold_spaces, words};
use std::cmp::Reverse;
use std::sync::Arc;

/// A longer statement is hard to hold in mind.
const MAX_STATEMENT_WORDS: usize = 30;

/// How well a sentence does as a statement; greater is better.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum StatementFit {
    /// A reader without the text would not know what it speaks of.
    LeansOnOthers,
    StandsAlone,
    /// And if it is to be false, it can be made so that nobody doubts it.
    Plain,
}

impl StatementFit {
    fn of(sentence: &Sentence, text: &str, truth: bool, language: &Language) -> Self {
        let question = &fold_spaces(text);
        let shown = Shown { kind: ItemKind::TrueFalse, question, answer: "true", distractors: &[] };
        let points_back = || words(question).iter().any(|word| matches!(word.as_str(), "this" | "these"));
        let stands_alone = sentence.worth == Worth::Good
            && question.split(' ').count() <= MAX_STATEMENT_WORDS
            // "[citation needed]", and half of what was put in brackets.
            && !question.contains('[')
            && question.matches('(').count() == question.matches(')').count()
            && !points_back()
            && flaws(&shown).is_empty();
        match stands_alone {
            false => Self::LeansOnOthers,
            true if truth || change(question, &[], language).is_some_and(|change| change.is_plain()) => {
                Self::Plain
            }
            true => Self::StandsAlone,
        }
    }
}

/// Leaves each statement the sentences that do best as one, since a statement is its sentence. If a question about
/// the same passage has a better one and another to rest on, it gives that away; and rather than say what nobody
/// understands, a statement rests on a sentence that a question keeps.
pub(super) fn choose_statements(items: &mut [ItemPlan], language: &Language) {
    for idx in 0..items.len() {
        let (ItemKind::TrueFalse, Ground::Text(excerpt)) = (items[idx].kind, &items[idx].ground) else {
            continue;
        };
        let (source, truth) = (Arc::clone(&excerpt.source), items[idx].truth);
        let fit = |sentence: usize| {
            let text = source.sentence_text(sentence);
            StatementFit::of(&source.sentences()[sentence], text, truth, language)
        };
        let own = excerpt.candidates.iter().map(|sentence| fit(*sentence)).max();
        let better = items
            .iter()
            .enumerate()
            .filter(|(_, item)| item.kind != ItemKind::TrueFalse && own < Some(StatementFit::Plain))
            .flat_map(|(giver, item)| spare(item, excerpt).into_iter().map(move |sentence| (giver, sentence)))
            .filter(|(_, sentence)| Some(fit(*sentence)) > own)
            .min_by_key(|(_, sentence)| Reverse(fit(*sentence)));
        if let Some((giver, given)) = better
            && let Ground::Text(Excerpt { candidates, .. }) = &mut items[giver].ground
        {
            candidates.retain(|sentence| *sentence != given);
        }
        if let Ground::Text(Excerpt { shown, candidates, .. }) = &mut items[idx].ground {
            candidates.extend(better.map(|(_, given)| given));
            if own.max(better.map(|(_, given)| fit(given))) == Some(StatementFit::LeansOnOthers) {
                candidates
                    .extend(shown.clone().filter(|sentence| fit(*sentence) > StatementFit::LeansOnOthers));
            }
            let best = candidates.iter().map(|sentence| fit(*sentence)).max();
            candidates.retain(|sentence| Some(fit(*sentence)) == best);
        }
    }
}

/// The sentences of what `excerpt` shows that an item may rest on, if it can do without one of them.
fn spare(item: &ItemPlan, excerpt: &Excerpt) -> Vec<usize> {
    match &item.ground {
        Ground::Text(Excerpt { source, candidates, .. })
            if Arc::ptr_eq(source, &excerpt.source) && candidates.len() > 1 =>
        {
            candidates.iter().copied().filter(|sentence| excerpt.shown.contains(sentence)).collect()
        }
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quiz::plan::{Capacity, QuizPlan};
    use crate::quiz::{QuizRequest, QuizSpec};

    #[test]
    fn statements_have_the_sentences_that_do_best() {
        // Of the sentences the first half is the question's; returns what it keeps.
        let check = |source: &str, expected: &[&str]| -> Vec<String> {
            let plan = |seed: u64| {
                let request = serde_json::json!({
                    "source": source, "count": 2, "seed": seed, "kind": ["short_answer", "true_false"],
                });
                let spec =
                    QuizSpec::try_from(serde_json::from_value::<QuizRequest>(request).unwrap()).unwrap();
                let capacity = Capacity { context_len: 4096, count_tokens: &str::len, templates: None };
                QuizPlan::new(spec, None, &capacity).unwrap()
            };
            let plan = (0..).map(plan).find(|plan| !plan.items[1].truth).unwrap();
            let sentences = |item: &ItemPlan| -> Vec<String> {
                let Ground::Text(Excerpt { source, candidates, .. }) = &item.ground else {
                    panic!("it has a source")
                };
                candidates.iter().map(|idx| source.sentence_text(*idx).to_owned()).collect()
            };
            assert_eq!(sentences(&plan.items[1]), expected);
            sentences(&plan.items[0])
        };
        let nile = "The Nile flows for 6,650 km to the sea.";
        let (delta, dam) = ("The delta lies by the sea.", "The dam was built for power.");
        // Its own that can be made plainly false, or else one that a question gives away.
        check(&format!("{delta} {dam} {nile} {dam}"), &[nile]);
        assert_eq!(check(&format!("{delta} {nile} {dam} {dam}"), &[nile]), [delta]);
        // One that a question keeps, rather than one that nobody understands alone.
        assert_eq!(check(&format!("{delta} It floods the land there."), &[delta]), [delta]);
        assert_eq!(check(&format!("{delta} In July the water of this river is high."), &[delta]), [delta]);
    }
}
