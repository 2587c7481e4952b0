//! What items rest on: the asker's own text, passages of the library, or nothing but the model's memory;
//! and which item gets which sentences.

use super::falsify;
use super::item::Citation;
use super::seed::{Purpose, derive, shuffle};
use super::source::{Source, Worth};
use super::spec::{QuizSpec, Subject};
use super::spent::Spent;
use crate::library::{Found, Library, LibraryError, Passage, Topic};
use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;

/// What one item rests on.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Ground {
    /// The model's memory.
    Memory,
    Text(Excerpt),
}

/// Part of a text, and what to ask about in it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Excerpt {
    pub(super) source: Arc<Source>,
    /// Of a passage of the library; of their own text the asker knows where it is from.
    pub(super) citation: Option<Arc<Citation>>,
    /// Sentences that are shown.
    pub(super) shown: Range<usize>,
    /// Sentences the item may rest on, in the order to try them; at least one.
    pub(super) candidates: Vec<usize>,
    /// What other items rest on: for an item whose own sentences give nothing that was not asked.
    pub(super) others: Vec<usize>,
}

/// A passage is as much as a reader would keep in mind: more costs every prompt and helps none.
const MAX_PASSAGE_CHARS: usize = 1200;
/// Passages looked at for each item: some have no sentence that is good to ask about.
const PASSAGES_EACH: usize = 2;
/// Passages looked at beyond those, at most: one for each question that was asked before.
const MAX_SPENT_PASSAGES: usize = 100;
/// Where a title holds this much of a topic, every sentence under it is about the topic.
const ON_TOPIC: f32 = 0.99;

impl Ground {
    /// The grounds of a quiz's items, in order of index.
    ///
    /// # Errors
    /// The library cannot be searched.
    pub(super) fn of_items(
        spec: &QuizSpec,
        library: Option<&Library>,
        spent: &Spent,
    ) -> Result<Vec<Self>, LibraryError> {
        let QuizSpec { count, seed, .. } = *spec;
        let texts = match (&spec.subject, library) {
            (Subject::Source(source), _) => vec![Text::of_asker(source, spent, count)],
            (Subject::Topic(topic), Some(library)) => {
                let passages = PASSAGES_EACH * count + spent.len().min(MAX_SPENT_PASSAGES);
                texts(&library.find(topic, spec.language.code(), passages)?, spent)
            }
            (Subject::Topic(_), None) => Vec::new(),
        };
        if texts.is_empty() {
            return Ok(vec![Self::Memory; count]);
        }
        Ok(deal(&fresh(texts, count), count, seed).into_iter().map(Self::Text).collect())
    }

    /// What is shown of a text beside the evidence.
    pub(super) fn other_sentences(&self, evidence: Option<&str>) -> Vec<&str> {
        let Self::Text(excerpt) = self else { return Vec::new() };
        let shown = excerpt.shown.clone().map(|idx| excerpt.source.sentence_text(idx));
        shown.filter(|sentence| Some(*sentence) != evidence).collect()
    }
}

impl Excerpt {
    /// What is shown of the text.
    pub(super) fn passage(&self) -> String {
        self.source.passage(self.shown.clone())
    }

    /// Names and words in what is shown that may stand in another's place.
    pub(super) fn names(&self) -> Vec<String> {
        falsify::names(self.shown.clone().map(|idx| self.source.sentence_text(idx)))
    }
}

/// A text that items can rest on.
struct Text {
    source: Arc<Source>,
    /// Of a passage of the library.
    citation: Option<Arc<Citation>>,
    /// Sentences that are good to ask about; at least one.
    usable: Vec<usize>,
    /// Sentences that were asked about before.
    spent: HashSet<usize>,
}

impl Text {
    /// The asker's own.
    fn of_asker(source: &Arc<Source>, spent: &Spent, count: usize) -> Self {
        let spent = spent.sentences(source);
        let usable = usable_sentences(source, &spent, count);
        Self { source: Arc::clone(source), citation: None, usable, spent }
    }
}

/// The passages that have something to ask about, best first.
fn texts(found: &Found, spent: &Spent) -> Vec<Text> {
    let text = |passage: &Passage| {
        let source = Source::new(passage.text.clone())?;
        let usable = sentences_about(&source, &passage.title, &found.topic);
        let citation = Citation {
            title: passage.title.clone(),
            licence: passage.licence.clone(),
            source: passage.source.clone(),
            passage: passage.text.clone(),
        };
        let spent = spent.sentences(&source);
        let citation = Some(Arc::new(citation));
        (!usable.is_empty()).then(|| Text { source: Arc::new(source), citation, usable, spent })
    };
    found.passages.iter().filter_map(text).collect()
}

/// The texts for `count` items, at most one for each: without what was asked about before where the rest suffices, and
/// else those first that have something new.
fn fresh(mut texts: Vec<Text>, count: usize) -> Vec<Text> {
    let is_fresh = |text: &Text, idx: &usize| !text.spent.contains(idx);
    let fresh = |text: &Text| text.usable.iter().filter(|idx| is_fresh(text, idx)).count();
    let suffices = texts.iter().map(fresh).sum::<usize>() >= count;
    texts.sort_by_key(|text| fresh(text) == 0);
    texts.truncate(count);
    if suffices {
        texts.retain(|text| fresh(text) > 0);
        for text in &mut texts {
            text.usable.retain(|idx| !text.spent.contains(idx));
        }
    }
    texts
}

/// The sentences that make sense alone and hold most of the topic; any of them if the title holds it.
fn sentences_about(source: &Source, title: &str, topic: &Topic) -> Vec<usize> {
    let good = at_least(source, Worth::Good);
    let usable = if good.is_empty() { at_least(source, Worth::Fair) } else { good };
    if topic.coverage(title) >= ON_TOPIC {
        return usable;
    }
    let covered: Vec<f32> = usable.iter().map(|idx| topic.coverage(source.sentence_text(*idx))).collect();
    let most = covered.iter().copied().fold(0.0, f32::max);
    usable.into_iter().zip(covered).filter(|(_, covered)| *covered >= most).map(|(idx, _)| idx).collect()
}

/// Deals the texts out to `count` items, the best first: each in turn gives one item, as long as it has a
/// sentence for it; when all have given what they have, they begin again.
fn deal(texts: &[Text], count: usize, seed: u64) -> Vec<Excerpt> {
    let mut shares = vec![0; texts.len()];
    let mut order = Vec::new();
    while order.len() < count && !texts.is_empty() {
        let is_used_up = texts.iter().zip(&shares).all(|(text, share)| *share >= text.usable.len());
        for (idx, text) in texts.iter().enumerate() {
            if order.len() < count && (is_used_up || shares[idx] < text.usable.len()) {
                order.push((idx, shares[idx]));
                shares[idx] += 1;
            }
        }
    }
    let dealt: Vec<Vec<Excerpt>> =
        texts.iter().zip(shares).map(|(text, share)| spread(text, share, seed)).collect();
    order.into_iter().map(|(text, place)| dealt[text][place].clone()).collect()
}

/// Passages and candidate sentences for `count` items, spread evenly over the usable sentences.
fn spread(Text { source, citation, usable, spent }: &Text, count: usize, seed: u64) -> Vec<Excerpt> {
    let passages = passages(source);
    let place = |index: usize| {
        // As many sentences to each item as there are; one, shared, when there are too few.
        let start = index * usable.len() / count;
        let end = ((index + 1) * usable.len() / count).max(start + 1);
        let block = &usable[start..end];
        let middle = block[block.len() / 2];
        let shown = passages.iter().find(|passage| passage.contains(&middle));
        let shown = shown.expect("every sentence is in a passage").clone();
        let part = |sentences: &[usize], may_be_spent: bool| -> Vec<usize> {
            let fits = |idx: &usize| shown.contains(idx) && (may_be_spent || !spent.contains(idx));
            sentences.iter().copied().filter(fits).collect()
        };
        // Rather one that another item has too than one that was asked about.
        let choices = [part(block, false), part(usable, false), part(block, true)];
        let mut candidates =
            choices.into_iter().find(|part| !part.is_empty()).expect("the middle is in the block");
        shuffle(&mut candidates, derive(seed, Purpose::Candidates, index, 0));
        Excerpt {
            source: Arc::clone(source),
            citation: citation.clone(),
            shown,
            candidates,
            others: Vec::new(),
        }
    };
    (0..count).map(place).collect()
}

/// The best sentences, if as many of them as there are items were not asked about; else the fair ones too; poor ones
/// alone if need be.
fn usable_sentences(source: &Source, spent: &HashSet<usize>, count: usize) -> Vec<usize> {
    let good = at_least(source, Worth::Good);
    if good.iter().filter(|idx| !spent.contains(idx)).count() >= count {
        return good;
    }
    let fair = at_least(source, Worth::Fair);
    if fair.is_empty() { at_least(source, Worth::Poor) } else { fair }
}

fn at_least(source: &Source, worth: Worth) -> Vec<usize> {
    let sentences = source.sentences().iter().enumerate();
    sentences.filter(|(_, sentence)| sentence.worth >= worth).map(|(idx, _)| idx).collect()
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::library::{Document, LibraryWriter};
    use crate::quiz::QuizRequest;

    /// What a quiz about a topic rests on, with a library of documents given as title and text.
    fn grounds(documents: &[(&str, &str)], request: QuizRequest) -> Vec<Ground> {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = LibraryWriter::open(folder.path()).unwrap();
        for (title, text) in documents {
            let (id, title, text) = ((*title).to_owned(), (*title).to_owned(), (*text).to_owned());
            let language = "en".to_owned();
            writer.add(&Document { id, title, language, licence: None, source: None, text }).unwrap();
        }
        writer.commit().unwrap();
        let spec = QuizSpec::try_from(request).unwrap();
        let spent = Spent::new(&spec.exclude, &[]);
        Ground::of_items(&spec, Some(&Library::open(folder.path()).unwrap()), &spent).unwrap()
    }

    fn topic(topic: &str, count: u64) -> QuizRequest {
        QuizRequest {
            topic: Some(topic.to_owned()),
            count: Some(count),
            seed: Some(1),
            ..QuizRequest::default()
        }
    }

    /// The sentences each item may rest on, with the title of the passage they are from.
    fn candidates(grounds: &[Ground]) -> Vec<(String, Vec<String>)> {
        let excerpts = grounds.iter().map(|ground| match ground {
            Ground::Text(excerpt) => excerpt,
            Ground::Memory => panic!("the library has something on it"),
        });
        excerpts
            .map(|excerpt| {
                let sentence = |idx: &usize| excerpt.source.sentence_text(*idx).to_owned();
                let title =
                    excerpt.citation.as_ref().map_or_else(String::new, |citation| citation.title.clone());
                (title, excerpt.candidates.iter().map(sentence).collect())
            })
            .collect()
    }

    const RIVERS: &[(&str, &str)] = &[
        ("Rhine", "The Rhine is a river that flows to the North Sea."),
        (
            "Nile",
            "The Nile is a river that flows through Egypt. The river Nile floods every year. A dam was built.",
        ),
        (
            "Bread",
            "Bread is baked in an oven. Bakers by a river use its water. Rye flour makes a dark bread.",
        ),
    ];

    #[test]
    fn items_are_spread_over_documents_and_share_no_sentence_while_there_are_enough() {
        let rest_on = candidates(&grounds(RIVERS, topic("rivers", 3)));
        let titles: HashSet<&str> = rest_on.iter().map(|(title, _)| title.as_str()).collect();
        assert_eq!(titles, HashSet::from(["Rhine", "Nile", "Bread"]));
        let rest_on = candidates(&grounds(RIVERS, topic("rivers", 4)));
        let sentences: Vec<&String> = rest_on.iter().flat_map(|(_, sentences)| sentences).collect();
        assert_eq!(sentences.iter().collect::<HashSet<_>>().len(), sentences.len(), "{rest_on:?}");
        assert_eq!(grounds(RIVERS, topic("rivers", 50)).len(), 50);
    }

    #[test]
    fn only_what_is_about_the_topic_is_asked() {
        for (title, sentences) in candidates(&grounds(RIVERS, topic("rivers", 3))) {
            assert!(sentences.iter().all(|sentence| sentence.contains("river")), "{title}: {sentences:?}");
        }
        // Under a title that is the topic, everything is about it.
        let rest_on = candidates(&grounds(RIVERS, topic("bread", 1)));
        assert_eq!(rest_on[0].1.len(), 3);
    }

    #[test]
    fn sentences_that_lean_on_others_are_left_alone() {
        let leaning = [("Nile", "It is a long river. The Nile is a river in Africa. This river floods.")];
        let rest_on = candidates(&grounds(&leaning, topic("rivers", 1)));
        assert_eq!(rest_on[0].1, ["The Nile is a river in Africa."]);
        assert_eq!(grounds(&[("Rivers", "Rivers!")], topic("rivers", 2)), [Ground::Memory, Ground::Memory]);
    }

    #[test]
    fn what_was_asked_about_is_left_alone_while_there_is_more() {
        let sentences = |request: QuizRequest| -> Vec<Vec<String>> {
            candidates(&grounds(RIVERS, request)).into_iter().map(|(_, sentences)| sentences).collect()
        };
        let asked = |count: u64, exclude: &[&str]| {
            let exclude = exclude.iter().map(|&entry| entry.to_owned()).collect();
            sentences(QuizRequest { exclude: Some(exclude), ..topic("rivers", count) })
        };
        let (sea, floods) = ("Which river flows to the North Sea?", "How often does the Nile flood?");
        // Other passages, or other sentences of the same.
        assert!(!asked(2, &[sea]).concat().contains(&RIVERS[0].1.to_owned()));
        assert!(!asked(1, &[sea, floods]).concat().contains(&"The river Nile floods every year.".to_owned()));
        let (one, two, three) = ("The dam is high.", "The lake is deep.", "The wall is thick.");
        let source = |count: u64, exclude: &[&str]| {
            let exclude = exclude.iter().map(|&entry| entry.to_owned()).collect();
            let source = Some(format!("{one} {two} {three}"));
            sentences(QuizRequest { source, topic: None, exclude: Some(exclude), ..topic("", count) })
        };
        assert_eq!(source(2, &["What is deep?"]), [[one], [three]]);
        // There are too few: what there is, is shared; and when there is nothing, all come again.
        assert_eq!(source(2, &["What is high?", "What is deep?"]), [[three], [three]]);
        assert_eq!(source(1, &["What is high?", "What is deep?", "What is thick?"])[0].len(), 3);
    }

    #[test]
    fn memory_is_what_is_left() {
        assert_eq!(grounds(RIVERS, topic("chess", 2)), [Ground::Memory, Ground::Memory]);
        let french = QuizRequest { language: Some("fr".to_owned()), ..topic("Nile", 1) };
        assert_eq!(grounds(RIVERS, french), [Ground::Memory]);
        let source = QuizRequest { source: Some(RIVERS[0].1.to_owned()), topic: None, ..topic("", 1) };
        let rest_on = candidates(&grounds(RIVERS, source));
        assert_eq!(rest_on, [(String::new(), vec![RIVERS[0].1.to_owned()])]);
    }
}
