//! Which sentences the statements of a quiz rest on. A question puts its sentence in other words; a statement is its
//! sentence, or that with one place changed, and the player has no more.

use super::falsify::change;
use super::flaws::{Shown, flaws};
use super::form::Form;
use super::ground::{Excerpt, Ground};
use super::language::Language;
use super::plan::ItemPlan;
use super::source::Worth;
use super::span::replaceable_spans;
use super::spec::ItemKind;
use super::wording::{fold_spaces, words};
use std::cmp::Reverse;
use std::sync::Arc;

/// A longer statement is hard to hold in mind.
const MAX_STATEMENT_WORDS: usize = 30;

/// How well a sentence does as a statement; greater is better.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum StatementFit {
    /// A reader without the text would not know what it speaks of, or it is long or no whole sentence.
    Poor,
    StandsAlone,
    /// And it says something definite: a number or a name, or if it is to be false, it can be made so that nobody
    /// doubts it.
    Plain,
}

impl StatementFit {
    /// `names` are what it may be falsified with; `None` if it is to be true.
    fn of(excerpt: &Excerpt, sentence: usize, names: Option<&[String]>, language: &Language) -> Self {
        let question = &fold_spaces(excerpt.source.sentence_text(sentence));
        let shown = Shown { kind: ItemKind::TrueFalse, question, answer: "true", distractors: &[] };
        let points_back = || words(question).iter().any(|word| matches!(word.as_str(), "this" | "these"));
        let stands_alone = excerpt.source.sentences()[sentence].worth == Worth::Good
            && question.split(' ').count() <= MAX_STATEMENT_WORDS
            // "[citation needed]", and half of what was put in brackets.
            && !question.contains('[')
            && question.matches('(').count() == question.matches(')').count()
            && !points_back()
            && flaws(&shown).is_empty();
        let is_plain = || match names {
            Some(names) => change(question, names, language).is_some_and(|change| change.is_plain()),
            // What a sentence begins with may owe its capital to that.
            None => replaceable_spans(question).iter().any(|span| match span.form {
                Form::Name => span.bytes.start > 0,
                form => form != Form::Phrase,
            }),
        };
        match stands_alone {
            false => Self::Poor,
            true if is_plain() => Self::Plain,
            true => Self::StandsAlone,
        }
    }
}

/// Puts the sentences of each statement that do best as one first, since a statement is its sentence, and leaves out
/// poor ones. If a question about the same passage has a better one and another to rest on, it gives that away; and
/// rather than a poor one, a statement takes one that a question keeps.
pub(super) fn choose_statements(items: &mut [ItemPlan], language: &Language) {
    for idx in 0..items.len() {
        let (ItemKind::TrueFalse, Ground::Text(excerpt)) = (items[idx].kind, &items[idx].ground) else {
            continue;
        };
        let names = (!items[idx].truth).then(|| excerpt.names());
        let fit = |sentence: usize| StatementFit::of(excerpt, sentence, names.as_deref(), language);
        let mut chosen: Vec<(StatementFit, usize)> =
            excerpt.candidates.iter().map(|sentence| (fit(*sentence), *sentence)).collect();
        let own = chosen.iter().map(|(fit, _)| *fit).max().unwrap_or(StatementFit::Poor);
        let mut giver = None;
        if own < StatementFit::Plain {
            let offers = offers(items, excerpt).map(|offer| (fit(offer.sentence), offer));
            let better =
                offers.filter(|(fit, offer)| *fit > own && (offer.is_spare || own == StatementFit::Poor));
            let best = better.min_by_key(|(fit, offer)| (Reverse(offer.is_spare), Reverse(*fit)));
            giver = best
                .as_ref()
                .filter(|(_, offer)| offer.is_spare)
                .map(|(_, offer)| (offer.item, offer.sentence));
            chosen.extend(best.map(|(fit, offer)| (fit, offer.sentence)));
        }
        if chosen.iter().any(|(fit, _)| *fit > StatementFit::Poor) {
            chosen.retain(|(fit, _)| *fit > StatementFit::Poor);
        }
        chosen.sort_by_key(|(fit, _)| Reverse(*fit));
        if let Some((giver, given)) = giver
            && let Ground::Text(Excerpt { candidates, .. }) = &mut items[giver].ground
        {
            candidates.retain(|sentence| *sentence != given);
        }
        if let Ground::Text(Excerpt { candidates, .. }) = &mut items[idx].ground {
            *candidates = chosen.into_iter().map(|(_, sentence)| sentence).collect();
        }
    }
}

/// A sentence that a question may rest on.
struct Offer {
    /// The question.
    item: usize,
    sentence: usize,
    /// The question has another.
    is_spare: bool,
}

/// The sentences of what `excerpt` shows that questions may rest on.
fn offers(items: &[ItemPlan], excerpt: &Excerpt) -> impl Iterator<Item = Offer> {
    let questions = items.iter().enumerate().filter(|(_, item)| item.kind != ItemKind::TrueFalse);
    let of_same_text = questions.filter_map(|(item, plan)| match &plan.ground {
        Ground::Text(other) if Arc::ptr_eq(&other.source, &excerpt.source) => Some((item, &other.candidates)),
        _ => None,
    });
    let offers = of_same_text.flat_map(|(item, candidates)| {
        let is_spare = candidates.len() > 1;
        candidates.iter().map(move |&sentence| Offer { item, sentence, is_spare })
    });
    offers.filter(|offer| excerpt.shown.contains(&offer.sentence))
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
                QuizPlan::new(spec, None, Vec::new(), &capacity).unwrap()
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
        check(&format!("{delta} {dam} {nile} {dam}"), &[nile, dam]);
        assert_eq!(check(&format!("{delta} {nile} {dam} {dam}"), &[nile, dam, dam]), [delta]);
        // One that a question keeps, rather than one that nobody understands alone.
        assert_eq!(check(&format!("{delta} It floods the land there."), &[delta]), [delta]);
        assert_eq!(check(&format!("{delta} In July the water of this river is high."), &[delta]), [delta]);
        // Neither a better one that a question keeps, nor one that does no better.
        assert_eq!(check(&format!("{nile} {dam}"), &[dam]), [nile]);
        let (fog, wine) = ("Fog is common in the winter.", "Wine is made from sweet grapes.");
        assert_eq!(check(&format!("{fog} {wine} {delta} {dam}"), &[delta, dam]).len(), 2);
    }

    #[test]
    fn statements_do_not_take_each_others() {
        let request = serde_json::json!({
            "source": "The Nile flows for 6,650 km to the sea. It floods every year in the summer.", "count": 2,
            "kind": "true_false", "seed": 1,
        });
        let spec = QuizSpec::try_from(serde_json::from_value::<QuizRequest>(request).unwrap()).unwrap();
        let capacity = Capacity { context_len: 4096, count_tokens: &str::len, templates: None };
        let plan = QuizPlan::new(spec, None, Vec::new(), &capacity).unwrap();
        let candidates = plan.items.iter().map(|item| match &item.ground {
            Ground::Text(excerpt) => excerpt.candidates.clone(),
            Ground::Memory => panic!("it has a source"),
        });
        assert_eq!(candidates.collect::<Vec<_>>(), [[0], [1]]);
    }
}
