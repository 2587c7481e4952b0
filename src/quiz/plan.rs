//! Who asks about what: the items of a quiz spread over its texts before any is written, so that no two
//! rest on one sentence while there are enough, and whatever a text's length every prompt fits.

use super::grammar::json_inner;
use super::ground::{Excerpt, Ground};
use super::history::Asked;
use super::meaning::Comparison;
use super::prompt::{About, ItemPrompt};
use super::prompt_templates::PromptTemplates;
use super::seed::{Purpose, derive};
use super::spec::{ItemKind, QuizSpec};
use super::spent::Spent;
use super::statements::choose_statements;
use crate::library::{Library, LibraryError};
use std::ops::Range;
use std::sync::Arc;

/// A quiz before its first item is written.
pub(super) struct QuizPlan {
    pub(super) spec: QuizSpec,
    /// The model's own, if it has some.
    pub(super) templates: Option<Arc<PromptTemplates>>,
    pub(super) items: Vec<ItemPlan>,
    /// `None`: items are compared by their words alone.
    pub(super) comparison: Option<Comparison>,
    /// What the user was asked in earlier quizzes.
    pub(super) earlier: Vec<Arc<Asked>>,
}

/// One item before it is written.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct ItemPlan {
    pub(super) kind: ItemKind,
    /// Of a true/false item: which of the two is asked for.
    pub(super) truth: bool,
    pub(super) ground: Ground,
    /// Budget of the reply.
    pub(super) max_new_tokens: usize,
}

/// What the model can take, and how it is asked.
pub(super) struct Capacity<'a> {
    pub(super) context_len: usize,
    /// Tokens a text takes.
    pub(super) count_tokens: &'a dyn Fn(&str) -> usize,
    pub(super) templates: Option<&'a Arc<PromptTemplates>>,
}

/// Room for what the model writes itself, evidence aside.
const WRITTEN_TOKENS: usize = 256;
/// What the shortest item takes beside its evidence, roughly: a budget near it makes for short questions.
const SHORTEST_ITEM_TOKENS: usize = 48;
/// What a chat template adds to its messages.
const TEMPLATE_TOKENS: usize = 48;
/// What JSON adds to a sentence quoted in it.
const QUOTING_TOKENS: usize = 8;

impl QuizPlan {
    /// A topic is asked about where the library has something on it, and from memory only where not. `earlier` is
    /// what the user was asked before.
    ///
    /// # Errors
    /// The library cannot be searched.
    pub(super) fn new(
        spec: QuizSpec,
        library: Option<&Library>,
        earlier: Vec<Arc<Asked>>,
        capacity: &Capacity<'_>,
    ) -> Result<Self, LibraryError> {
        let kinds: Vec<ItemKind> = spec.kinds.iter().copied().cycle().take(spec.count).collect();
        let truths =
            (0..spec.count).map(|index| derive(spec.seed, Purpose::Truth, index, 0).is_multiple_of(2));
        let grounds = Ground::of_items(&spec, library, &Spent::new(&spec.exclude, &earlier))?;
        let items = kinds.into_iter().zip(truths).zip(grounds);
        let mut items: Vec<ItemPlan> = items
            .map(|((kind, truth), ground)| ItemPlan { kind, truth, ground, max_new_tokens: 0 })
            .collect();
        choose_statements(&mut items, &spec.language);
        for item in &mut items {
            set_budget(item, &spec, capacity);
        }
        // The same room for all, so that the items of a passage are shown the same part of it.
        let taken = items.iter().map(|item| item.max_new_tokens + instruction_tokens(item, &spec, capacity));
        let room = capacity.context_len.saturating_sub(taken.max().unwrap_or(0));
        for item in &mut items {
            if let Ground::Text(excerpt) = &mut item.ground {
                excerpt.shown = cut(excerpt, room, capacity);
                excerpt.candidates.retain(|idx| excerpt.shown.contains(idx));
            }
        }
        lend_sentences(&mut items, capacity);
        let templates = capacity.templates.cloned();
        Ok(Self { items, spec, templates, comparison: None, earlier })
    }
}

/// Sets the item's budget, and keeps the candidates that leave room in it.
fn set_budget(item: &mut ItemPlan, spec: &QuizSpec, capacity: &Capacity<'_>) {
    let at_most = capacity.context_len / 2;
    let Ground::Text(Excerpt { source, candidates, .. }) = &mut item.ground else {
        item.max_new_tokens = spec.max_item_tokens.unwrap_or(WRITTEN_TOKENS.min(at_most));
        return;
    };
    let times_quoted = if item.kind == ItemKind::TrueFalse { 2 } else { 1 };
    let quoted = |idx: usize| {
        let tokens = (capacity.count_tokens)(&json_inner(source.sentence_text(idx)));
        times_quoted * (tokens + QUOTING_TOKENS)
    };
    let budget = spec.max_item_tokens.unwrap_or(at_most);
    let shortest = candidates.iter().copied().min_by_key(|idx| quoted(*idx));
    candidates.retain(|idx| quoted(*idx) + SHORTEST_ITEM_TOKENS <= budget);
    if candidates.is_empty() {
        // It may still do, and if not, the grammar says what the budget would have to be.
        candidates.extend(shortest);
    }
    let longest = candidates.iter().map(|idx| quoted(*idx)).max().unwrap_or(0);
    item.max_new_tokens = spec.max_item_tokens.unwrap_or((longest + WRITTEN_TOKENS).min(at_most));
}

/// Tells each question what the other items about its passage rest on, so far as its budget allows. A statement is its
/// sentence: it keeps to those that were chosen for it.
fn lend_sentences(items: &mut [ItemPlan], capacity: &Capacity<'_>) {
    let lent = |item: &ItemPlan| -> Vec<usize> {
        let (Ground::Text(excerpt), false) = (&item.ground, item.kind == ItemKind::TrueFalse) else {
            return Vec::new();
        };
        let fits = |idx: usize| {
            let sentence = excerpt.source.sentence_text(idx);
            let room = item.max_new_tokens.saturating_sub(QUOTING_TOKENS + SHORTEST_ITEM_TOKENS);
            // A token is at least a byte: mostly there is nothing to count.
            let quoted = json_inner(sentence);
            quoted.len() <= room || (capacity.count_tokens)(&quoted) <= room
        };
        let of_passage = items.iter().filter_map(|other| match &other.ground {
            Ground::Text(other) if Arc::ptr_eq(&other.source, &excerpt.source) => Some(&other.candidates),
            _ => None,
        });
        let mut sentences: Vec<usize> = of_passage.flatten().copied().collect();
        sentences.sort_unstable();
        sentences.dedup();
        sentences
            .retain(|idx| excerpt.shown.contains(idx) && !excerpt.candidates.contains(idx) && fits(*idx));
        sentences
    };
    let all: Vec<Vec<usize>> = items.iter().map(lent).collect();
    for (item, lent) in items.iter_mut().zip(all) {
        if let Ground::Text(excerpt) = &mut item.ground {
            excerpt.others = lent;
        }
    }
}

fn instruction_tokens(item: &ItemPlan, spec: &QuizSpec, capacity: &Capacity<'_>) -> usize {
    let prompt = ItemPrompt {
        about: About::Passage(""),
        kind: item.kind,
        truth: item.truth,
        difficulty: spec.difficulty,
        language: &spec.language,
        audience: spec.audience.as_deref(),
        exclude: &spec.exclude,
        templates: capacity.templates.map(Arc::as_ref),
    };
    let messages = prompt.messages();
    TEMPLATE_TOKENS + messages.iter().map(|message| (capacity.count_tokens)(&message.content)).sum::<usize>()
}

/// The part of a passage that fits `room` tokens and holds the first candidate; one of the same few parts
/// whichever that is.
fn cut(excerpt: &Excerpt, room: usize, capacity: &Capacity<'_>) -> Range<usize> {
    let Excerpt { source, shown, candidates, .. } = excerpt;
    // A token is at least a byte: mostly there is nothing to count.
    if source.passage(shown.clone()).len() <= room {
        return shown.clone();
    }
    let mut part = shown.start..shown.start;
    let mut tokens = 0;
    for idx in shown.clone() {
        let len = (capacity.count_tokens)(source.sentence_text(idx)) + 1;
        if tokens + len > room && !part.is_empty() {
            if part.contains(&candidates[0]) {
                break;
            }
            part = idx..idx;
            tokens = 0;
        }
        part.end = idx + 1;
        tokens += len;
    }
    part
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quiz::QuizRequest;
    use std::collections::HashSet;

    fn plan(source: &str, count: u64, context_len: usize, tokens_per_char: usize) -> QuizPlan {
        let request = QuizRequest {
            source: Some(source.to_owned()),
            count: Some(count),
            seed: Some(7),
            kind: Some(crate::quiz::OneOrMany::Many(vec!["multiple_choice".into(), "true_false".into()])),
            ..Default::default()
        };
        let spec = QuizSpec::try_from(request).unwrap();
        let count_tokens = |text: &str| text.chars().count() * tokens_per_char;
        let capacity = Capacity { context_len, count_tokens: &count_tokens, templates: None };
        QuizPlan::new(spec, None, Vec::new(), &capacity).unwrap()
    }

    fn excerpt(item: &ItemPlan) -> &Excerpt {
        match &item.ground {
            Ground::Text(excerpt) => excerpt,
            Ground::Memory => panic!("the test has a source"),
        }
    }

    fn long_source(sentences: usize) -> String {
        (0..sentences).map(|n| format!("The river number {n} flows through a valley. ")).collect()
    }

    #[test]
    fn items_are_spread_over_the_whole_source() {
        let plan = plan(&long_source(400), 10, 4096, 1);
        let firsts: Vec<usize> = plan.items.iter().map(|item| excerpt(item).candidates[0]).collect();
        for (index, sentence) in firsts.iter().enumerate() {
            assert!((index * 40..(index + 1) * 40).contains(sentence), "{firsts:?}");
        }
    }

    #[test]
    fn no_two_items_share_a_sentence_while_there_are_enough() {
        for (sentences, count) in [(50, 50), (12, 5), (5, 5), (400, 50)] {
            let plan = plan(&long_source(sentences), count, 4096, 1);
            let candidates: Vec<usize> =
                plan.items.iter().flat_map(|item| excerpt(item).candidates.clone()).collect();
            let distinct: HashSet<_> = candidates.iter().collect();
            assert_eq!(distinct.len(), candidates.len());
            assert!(plan.items.iter().all(|item| !excerpt(item).candidates.is_empty()));
        }
        assert!(
            plan(&long_source(2), 5, 4096, 1).items.iter().all(|item| excerpt(item).candidates.len() == 1)
        );
    }

    #[test]
    fn every_prompt_fits_its_context() {
        for (context_len, tokens_per_char) in [(1024, 1), (2048, 1), (2048, 3), (8192, 3)] {
            let japanese = "琵琶湖は滋賀県にある日本最大の面積を持つ湖である。".repeat(300);
            for source in [japanese, long_source(300)] {
                let plan = plan(&source, 20, context_len, tokens_per_char);
                for item in &plan.items {
                    let passage = excerpt(item).passage();
                    let tokens = passage.chars().count() * tokens_per_char + item.max_new_tokens;
                    assert!(tokens < context_len, "{tokens} of {context_len}");
                    assert!(!excerpt(item).candidates.is_empty());
                    assert!(excerpt(item).candidates.iter().all(|idx| excerpt(item).shown.contains(idx)));
                }
            }
        }
    }

    #[test]
    fn items_of_a_passage_have_the_same_one() {
        let plan = plan(&long_source(20), 10, 8192, 1);
        assert!(plan.items.iter().all(|item| excerpt(item).shown == excerpt(&plan.items[0]).shown));
    }

    #[test]
    fn questions_know_the_sentences_of_others() {
        let plan = plan(&long_source(3), 4, 4096, 1);
        for item in &plan.items {
            let Excerpt { candidates, others, .. } = excerpt(item);
            let expected = if item.kind == ItemKind::TrueFalse { 0 } else { 3 - candidates.len() };
            assert_eq!(others.len(), expected, "{candidates:?} and {others:?}");
            assert!(others.iter().all(|idx| !candidates.contains(idx)));
            let tried = |attempt: usize| plan.candidates(excerpt(item), attempt).next().unwrap();
            assert!((0..3).all(|attempt| candidates.contains(&tried(attempt))));
            let elsewhere = if others.is_empty() { candidates } else { others };
            assert!((3..6).all(|attempt| elsewhere.contains(&tried(attempt))));
        }
    }

    #[test]
    fn headings_are_not_asked_about() {
        let plan =
            plan("Rivers\n\nThe Nile is the longest river in Africa.\n\nSee also\n\nNotes", 2, 4096, 1);
        let sentences: Vec<&str> = plan
            .items
            .iter()
            .map(|item| excerpt(item).source.sentence_text(excerpt(item).candidates[0]))
            .collect();
        assert_eq!(sentences, ["The Nile is the longest river in Africa."; 2]);
    }
}
