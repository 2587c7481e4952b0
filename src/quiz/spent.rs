//! Which sentences of a text were asked about before. The likeliest question about a sentence is the one that was
//! asked, so a quiz that must not repeat it does best to rest on others.

use super::history::Asked;
use super::source::Source;
use crate::library::{terms, topic_terms};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

/// A sentence is what a question was about if it holds this much of it, and no other holds more.
const MOST: f32 = 0.5;

/// The terms of each thing that was asked before; sorted, so that sums over them are the same each time.
pub(super) struct Spent {
    entries: Vec<BTreeSet<String>>,
}

impl Spent {
    /// By what a request excludes, and what its user was asked.
    pub(super) fn new(excluded: &[String], earlier: &[Arc<Asked>]) -> Self {
        let earlier = earlier.iter().map(|asked| {
            let evidence = asked.item.evidence.as_ref().map(|evidence| &evidence.text);
            evidence.unwrap_or(&asked.item.question)
        });
        let entries = excluded.iter().chain(earlier).map(|entry| topic_terms(entry).into_iter().collect());
        Self { entries: entries.collect() }
    }

    /// Of how many questions and answers it knows.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// The sentences of `source` that were asked about.
    pub(super) fn sentences(&self, source: &Source) -> HashSet<usize> {
        if self.entries.is_empty() {
            return HashSet::new();
        }
        let mut holders: HashMap<String, HashSet<usize>> = HashMap::new();
        for idx in 0..source.sentences().len() {
            for term in terms(source.sentence_text(idx)) {
                holders.entry(term).or_default().insert(idx);
            }
        }
        self.entries.iter().filter_map(|entry| most_told(entry, &holders)).collect()
    }
}

/// The sentence that holds most of `entry`'s terms, if it is enough; a term tells the less, the more sentences hold
/// it. The first of several.
fn most_told(entry: &BTreeSet<String>, holders: &HashMap<String, HashSet<usize>>) -> Option<usize> {
    let mut held: HashMap<usize, f32> = HashMap::new();
    let mut total = 0.0;
    for term in entry {
        let holders = holders.get(term);
        if holders.is_none() && term.chars().all(is_hiragana) {
            // The endings of a question, of which a statement has others.
            continue;
        }
        let weight = 1.0 / holders.map_or(1, HashSet::len) as f32;
        total += weight;
        for &sentence in holders.into_iter().flatten() {
            *held.entry(sentence).or_default() += weight;
        }
    }
    let most = held.into_iter().max_by(|(a, of_a), (b, of_b)| of_a.total_cmp(of_b).then(b.cmp(a)));
    most.filter(|(_, held)| *held >= MOST * total).map(|(sentence, _)| sentence)
}

fn is_hiragana(c: char) -> bool {
    matches!(c, 'ぁ'..='ゟ')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentences_that_were_asked_about() {
        let check = |text: &str, entries: &[&str], expected: &[usize]| {
            let excluded: Vec<String> = entries.iter().map(|&entry| entry.to_owned()).collect();
            let source = Source::new(text.to_owned()).unwrap();
            let spent = Spent::new(&excluded, &[]).sentences(&source);
            assert_eq!(spent, expected.iter().copied().collect(), "{entries:?}");
        };
        let bees = "Honey bees live in colonies of up to 60,000 insects. Each colony has a single queen. To make honey, \
            bees visit about four million flowers. In winter the bees gather around the queen.";
        check(bees, &[], &[]);
        check(
            bees,
            &["How many bees live in a colony?", "How many flowers does a bee visit in a day?"],
            &[0, 2],
        );
        check(bees, &["Each colony has a single queen.", "60,000"], &[0, 1]);
        // Of something else, and of nothing in particular.
        check(bees, &["What is the capital of France?", "How many tons of honey does Spain produce?"], &[]);
        check(bees, &["bees"], &[0]);
        let biwa = "琵琶湖は滋賀県にある湖である。面積は日本で最大である。流れ出る川は瀬田川である。";
        check(biwa, &["琵琶湖は何県にありますか？", "流れ出る川の名前は何ですか？"], &[0, 2]);
    }
}
