//! Who asks about what: the items of a quiz spread over its source before any is written, so that no
//! two rest on one sentence while there are enough, and whatever the source's length every prompt fits.

use super::grammar::json_inner;
use super::prompt::{About, ItemPrompt};
use super::seed::{Purpose, derive, shuffle};
use super::source::{Source, Worth};
use super::spec::{ItemKind, QuizSpec, Subject};
use std::ops::Range;

/// A quiz before its first item is written.
#[derive(Debug)]
pub(super) struct QuizPlan {
    pub(super) spec: QuizSpec,
    pub(super) items: Vec<ItemPlan>,
}

/// One item before it is written.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct ItemPlan {
    pub(super) kind: ItemKind,
    /// Of a true/false item: which of the two is asked for.
    pub(super) truth: bool,
    /// Sentences of the source that are shown; empty without a source.
    pub(super) passage: Range<usize>,
    /// Sentences the item may rest on, in the order to try them; empty without a source.
    pub(super) candidates: Vec<usize>,
    /// Budget of the reply.
    pub(super) max_new_tokens: usize,
}

/// What the model can take.
pub(super) struct Capacity<'a> {
    pub(super) context_len: usize,
    /// Tokens a text takes.
    pub(super) count_tokens: &'a dyn Fn(&str) -> usize,
}

/// A passage is as much as a reader would keep in mind: more costs every prompt and helps none.
const MAX_PASSAGE_CHARS: usize = 1200;
/// Room for what the model writes itself, evidence aside.
const WRITTEN_TOKENS: usize = 256;
/// What the shortest item takes beside its evidence, roughly: a budget near it makes for short questions.
const SHORTEST_ITEM_TOKENS: usize = 48;
/// What a chat template adds to its messages.
const TEMPLATE_TOKENS: usize = 48;
/// What JSON adds to a sentence quoted in it.
const QUOTING_TOKENS: usize = 8;

impl QuizPlan {
    pub(super) fn new(spec: QuizSpec, capacity: &Capacity<'_>) -> Self {
        let kinds: Vec<ItemKind> = spec.kinds.iter().copied().cycle().take(spec.count).collect();
        let truths =
            (0..spec.count).map(|index| derive(spec.seed, Purpose::Truth, index, 0).is_multiple_of(2));
        let places = match &spec.subject {
            Subject::Topic(_) => vec![(0..0, Vec::new()); spec.count],
            Subject::Source(source) => spread(source, spec.count, spec.seed),
        };
        let items = kinds.into_iter().zip(truths).zip(places);
        let mut items: Vec<ItemPlan> = items
            .map(|((kind, truth), (passage, candidates))| {
                set_budget(ItemPlan { kind, truth, passage, candidates, max_new_tokens: 0 }, &spec, capacity)
            })
            .collect();
        if let Subject::Source(source) = &spec.subject {
            // The same room for all, so that the items of a passage are shown the same part of it.
            let taken =
                items.iter().map(|item| item.max_new_tokens + instruction_tokens(item, &spec, capacity));
            let room = capacity.context_len.saturating_sub(taken.max().unwrap_or(0));
            for item in &mut items {
                item.passage = cut_passage(source, item.passage.clone(), item.candidates[0], room, capacity);
                item.candidates.retain(|idx| item.passage.contains(idx));
            }
        }
        Self { items, spec }
    }
}

/// Passages and candidate sentences for `count` items, spread evenly over the source.
fn spread(source: &Source, count: usize, seed: u64) -> Vec<(Range<usize>, Vec<usize>)> {
    let usable = usable_sentences(source, count);
    let passages = passages(source);
    let place = |index: usize| {
        // As many sentences to each item as there are; one, shared, when there are too few.
        let start = index * usable.len() / count;
        let end = ((index + 1) * usable.len() / count).max(start + 1);
        let block = &usable[start..end];
        let middle = block[block.len() / 2];
        let passage = passages.iter().find(|passage| passage.contains(&middle));
        let passage = passage.expect("every sentence is in a passage").clone();
        let mut candidates: Vec<usize> = block.iter().copied().filter(|idx| passage.contains(idx)).collect();
        shuffle(&mut candidates, derive(seed, Purpose::Candidates, index, 0));
        (passage, candidates)
    };
    (0..count).map(place).collect()
}

/// The best sentences, if there is one for each item; else the fair ones too; poor ones alone if need be.
fn usable_sentences(source: &Source, count: usize) -> Vec<usize> {
    let at_least = |worth: Worth| -> Vec<usize> {
        let sentences = source.sentences().iter().enumerate();
        sentences.filter(|(_, sentence)| sentence.worth >= worth).map(|(idx, _)| idx).collect()
    };
    let good = at_least(Worth::Good);
    if good.len() >= count {
        return good;
    }
    let fair = at_least(Worth::Fair);
    if fair.is_empty() { at_least(Worth::Poor) } else { fair }
}

/// The source cut between sentences into passages of at most [`MAX_PASSAGE_CHARS`].
fn passages(source: &Source) -> Vec<Range<usize>> {
    let mut passages: Vec<Range<usize>> = Vec::new();
    let mut chars = 0;
    for (idx, sentence) in source.sentences().iter().enumerate() {
        let len = sentence.chars.len() + 1;
        match passages.last_mut() {
            Some(passage) if chars + len <= MAX_PASSAGE_CHARS => {
                passage.end = idx + 1;
                chars += len;
            }
            _ => {
                passages.push(idx..idx + 1);
                chars = len;
            }
        }
    }
    passages
}

/// Sets the item's budget, and keeps the candidates that leave room in it.
fn set_budget(mut item: ItemPlan, spec: &QuizSpec, capacity: &Capacity<'_>) -> ItemPlan {
    let at_most = capacity.context_len / 2;
    let Subject::Source(source) = &spec.subject else {
        item.max_new_tokens = spec.max_item_tokens.unwrap_or(WRITTEN_TOKENS.min(at_most));
        return item;
    };
    let times_quoted = if item.kind == ItemKind::TrueFalse { 2 } else { 1 };
    let quoted = |idx: usize| {
        let tokens = (capacity.count_tokens)(&json_inner(source.sentence_text(idx)));
        times_quoted * (tokens + QUOTING_TOKENS)
    };
    let budget = spec.max_item_tokens.unwrap_or(at_most);
    let shortest = item.candidates.iter().copied().min_by_key(|idx| quoted(*idx));
    item.candidates.retain(|idx| quoted(*idx) + SHORTEST_ITEM_TOKENS <= budget);
    if item.candidates.is_empty() {
        // It may still do, and if not, the grammar says what the budget would have to be.
        item.candidates.extend(shortest);
    }
    let longest = item.candidates.iter().map(|idx| quoted(*idx)).max().unwrap_or(0);
    item.max_new_tokens = spec.max_item_tokens.unwrap_or((longest + WRITTEN_TOKENS).min(at_most));
    item
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
    };
    let messages = prompt.messages();
    TEMPLATE_TOKENS + messages.iter().map(|message| (capacity.count_tokens)(&message.content)).sum::<usize>()
}

/// The part of a passage that fits `room` tokens and holds the sentence `anchor`; one of the same few
/// parts whatever the anchor.
fn cut_passage(
    source: &Source,
    passage: Range<usize>,
    anchor: usize,
    room: usize,
    capacity: &Capacity<'_>,
) -> Range<usize> {
    // A token is at least a byte: mostly there is nothing to count.
    if source.passage(passage.clone()).len() <= room {
        return passage;
    }
    let mut part = passage.start..passage.start;
    let mut tokens = 0;
    for idx in passage {
        let len = (capacity.count_tokens)(source.sentence_text(idx)) + 1;
        if tokens + len > room && !part.is_empty() {
            if part.contains(&anchor) {
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
        QuizPlan::new(spec, &Capacity { context_len, count_tokens: &count_tokens })
    }

    fn source_of(plan: &QuizPlan) -> &Source {
        match &plan.spec.subject {
            Subject::Source(source) => source,
            Subject::Topic(_) => panic!("the test has a source"),
        }
    }

    fn long_source(sentences: usize) -> String {
        (0..sentences).map(|n| format!("The river number {n} flows through a valley. ")).collect()
    }

    #[test]
    fn items_are_spread_over_the_whole_source() {
        let plan = plan(&long_source(400), 10, 4096, 1);
        let firsts: Vec<usize> = plan.items.iter().map(|item| item.candidates[0]).collect();
        for (index, sentence) in firsts.iter().enumerate() {
            assert!((index * 40..(index + 1) * 40).contains(sentence), "{firsts:?}");
        }
    }

    #[test]
    fn no_two_items_share_a_sentence_while_there_are_enough() {
        for (sentences, count) in [(50, 50), (12, 5), (5, 5), (400, 50)] {
            let plan = plan(&long_source(sentences), count, 4096, 1);
            let candidates: Vec<usize> = plan.items.iter().flat_map(|item| item.candidates.clone()).collect();
            let distinct: HashSet<_> = candidates.iter().collect();
            assert_eq!(distinct.len(), candidates.len());
            assert!(plan.items.iter().all(|item| !item.candidates.is_empty()));
        }
        assert!(plan(&long_source(2), 5, 4096, 1).items.iter().all(|item| item.candidates.len() == 1));
    }

    #[test]
    fn every_prompt_fits_its_context() {
        for (context_len, tokens_per_char) in [(1024, 1), (2048, 1), (2048, 3), (8192, 3)] {
            let japanese = "琵琶湖は滋賀県にある日本最大の面積を持つ湖である。".repeat(300);
            for source in [japanese, long_source(300)] {
                let plan = plan(&source, 20, context_len, tokens_per_char);
                for item in &plan.items {
                    let passage = source_of(&plan).passage(item.passage.clone());
                    let tokens = passage.chars().count() * tokens_per_char + item.max_new_tokens;
                    assert!(tokens < context_len, "{tokens} of {context_len}");
                    assert!(!item.candidates.is_empty());
                    assert!(item.candidates.iter().all(|idx| item.passage.contains(idx)));
                }
            }
        }
    }

    #[test]
    fn items_of_a_passage_have_the_same_one() {
        let plan = plan(&long_source(20), 10, 8192, 1);
        assert!(plan.items.iter().all(|item| item.passage == plan.items[0].passage));
    }

    #[test]
    fn headings_are_not_asked_about() {
        let plan =
            plan("Rivers\n\nThe Nile is the longest river in Africa.\n\nSee also\n\nNotes", 2, 4096, 1);
        let sentences: Vec<&str> =
            plan.items.iter().map(|item| source_of(&plan).sentence_text(item.candidates[0])).collect();
        assert_eq!(sentences, ["The Nile is the longest river in Africa."; 2]);
    }
}
