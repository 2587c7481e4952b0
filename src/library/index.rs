//! Finds the passages for a topic: candidates by BM25, kept if enough of the topic stands in them, spread
//! over documents.

use super::document::{Passage, UNKNOWN_LANGUAGE};
use super::error::LibraryError;
use super::folder::ReadOnlyFolder;
use super::shipped;
use super::terms::{TermTokenizer, topic_terms};
use super::topic::Topic;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use tantivy::collector::{DocSetCollector, TopDocs};
use tantivy::directory::error::OpenDirectoryError;
use tantivy::query::{AllQuery, BooleanQuery, BoostQuery, ConstScoreQuery, Occur, Query, TermQuery};
use tantivy::schema::{
    Field, IndexRecordOption, STORED, STRING, Schema, TextFieldIndexing, TextOptions, Value,
};
use tantivy::tokenizer::{TextAnalyzer, TokenizerManager};
use tantivy::{Index, ReloadPolicy, Searcher, TantivyDocument, TantivyError, Term};

/// Passages that can be searched, as they were when it was opened. Clones share it.
#[derive(Clone)]
pub struct Library {
    passages: Passages,
}

#[derive(Clone)]
enum Passages {
    /// Indexed when it is first asked.
    Shipped,
    Folder(PassageIndex),
}

#[derive(Clone)]
pub(super) struct PassageIndex {
    searcher: Searcher,
    fields: Fields,
}

/// What was found for a topic.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    pub topic: Topic,
    /// Best first, neighbours from different documents while there are several; empty if nothing is there.
    pub passages: Vec<Passage>,
}

/// A document as the library lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shelved {
    pub id: String,
    pub title: String,
    pub language: String,
    pub licence: Option<String>,
    pub source: Option<String>,
    pub passages: usize,
}

/// A passage is about a topic when at least this share of the topic's weight stands in it or its title, best
/// of all in one sentence: *French* alone is not the French Revolution.
const MIN_COVERAGE: f32 = 0.66;
/// And when its score is at least this share of the best's: a library that has an article on a topic need
/// not ask about those that mention it.
const MIN_SHARE_OF_BEST: f32 = 0.4;
/// A title says what a text is about; a text may only mention it.
const TITLE_BOOST: f32 = 2.0;
/// Candidates that are looked at for each passage asked for.
const CANDIDATES_EACH: usize = 8;

impl Library {
    /// The library that comes with the program; what is first asked of it waits for its indexing.
    pub fn shipped() -> Self {
        Self { passages: Passages::Shipped }
    }

    /// Opens the library in a folder, and checks its files against their checksums.
    ///
    /// # Errors
    /// [`LibraryError::Missing`], [`LibraryError::NotALibrary`], [`LibraryError::Damaged`]
    pub fn open(folder: &Path) -> Result<Self, LibraryError> {
        let missing = || LibraryError::Missing { folder: folder.to_owned() };
        let damaged = |reason: String| LibraryError::Damaged { folder: folder.to_owned(), reason };
        let directory = ReadOnlyFolder::open(folder).map_err(|error| match error {
            OpenDirectoryError::DoesNotExist(_) => missing(),
            OpenDirectoryError::NotADirectory(_) => {
                LibraryError::NotALibrary { folder: folder.to_owned(), reason: "it is a file".to_owned() }
            }
            error => damaged(error.to_string()),
        })?;
        if !Index::exists(&directory).map_err(|error| damaged(error.to_string()))? {
            return Err(missing());
        }
        let index = Index::open(directory).map_err(|error| damaged(error.to_string()))?;
        Fields::check(&index.schema(), folder)?;
        let broken = index.validate_checksum().map_err(|error| damaged(error.to_string()))?;
        if let Some(file) = broken.iter().min() {
            return Err(damaged(format!("{} is not as it was written", file.display())));
        }
        let index = PassageIndex::new(&index).map_err(|error| damaged(error.to_string()))?;
        Ok(Self { passages: Passages::Folder(index) })
    }

    fn index(&self) -> &PassageIndex {
        match &self.passages {
            Passages::Shipped => &shipped::INDEX,
            Passages::Folder(index) => index,
        }
    }

    /// How many passages there are.
    pub fn count(&self) -> u64 {
        self.index().searcher.num_docs()
    }

    /// At most `count` passages about a topic in a language, given as its primary subtag. Only where that
    /// language has none, passages whose language is not known.
    ///
    /// # Errors
    /// [`LibraryError::Search`]: the library's files cannot be read any more.
    pub fn find(&self, topic: &str, language: &str, count: usize) -> Result<Found, LibraryError> {
        self.index().find(topic, language, count).map_err(|source| LibraryError::Search { source })
    }

    /// Every document, in order of id.
    ///
    /// # Errors
    /// [`LibraryError::Search`]: the library's files cannot be read any more.
    pub fn documents(&self) -> Result<Vec<Shelved>, LibraryError> {
        self.index().documents().map_err(|source| LibraryError::Search { source })
    }
}

impl PassageIndex {
    pub(super) fn new(index: &Index) -> Result<Self, TantivyError> {
        let reader = index.reader_builder().reload_policy(ReloadPolicy::Manual).try_into()?;
        Ok(Self { searcher: reader.searcher(), fields: Fields::of(&index.schema())? })
    }

    fn find(&self, topic: &str, language: &str, count: usize) -> Result<Found, TantivyError> {
        let terms = topic_terms(topic);
        let mut weights = HashMap::new();
        for term in &terms {
            weights.insert(term.clone(), self.weight(term)?);
        }
        let topic = Topic::new(terms.clone(), |term| weights[term]);
        let mut passages = Vec::new();
        for language in [language, UNKNOWN_LANGUAGE] {
            if passages.is_empty() && !terms.is_empty() && count > 0 {
                let candidates = self.candidates(&terms, language, count * CANDIDATES_EACH)?;
                passages = spread(relevant(candidates, &topic), count);
            }
        }
        Ok(Found { topic, passages })
    }

    /// How much a term tells, as BM25 has it: the rarer, the more.
    fn weight(&self, term: &str) -> Result<f32, TantivyError> {
        let in_text = self.searcher.doc_freq(&Term::from_field_text(self.fields.text, term))?;
        let in_title = self.searcher.doc_freq(&Term::from_field_text(self.fields.title, term))?;
        let (held, all) = (in_text.max(in_title) as f32, self.searcher.num_docs() as f32);
        Ok((1.0 + (all - held + 0.5).max(0.0) / (held + 0.5)).ln())
    }

    /// Passages with any of the terms, best first, each with its score.
    fn candidates(
        &self,
        terms: &[String],
        language: &str,
        limit: usize,
    ) -> Result<Vec<(f32, Passage)>, TantivyError> {
        let Fields { title, text, .. } = self.fields;
        let holds = |field: Field, term: &str| -> Box<dyn Query> {
            Box::new(TermQuery::new(Term::from_field_text(field, term), IndexRecordOption::WithFreqs))
        };
        let mut about: Vec<(Occur, Box<dyn Query>)> = Vec::new();
        for term in terms {
            about.push((Occur::Should, holds(text, term)));
            about.push((Occur::Should, Box::new(BoostQuery::new(holds(title, term), TITLE_BOOST))));
        }
        let query = BooleanQuery::new(vec![
            (Occur::Must, Box::new(BooleanQuery::new(about))),
            (Occur::Must, Box::new(ConstScoreQuery::new(holds(self.fields.language, language), 0.0))),
        ]);
        let best = self.searcher.search(&query, &TopDocs::with_limit(limit).order_by_score())?;
        let mut candidates = Vec::new();
        for (score, address) in best {
            candidates.push((score, self.fields.passage(&self.searcher.doc(address)?)));
        }
        // The order among equals must not depend on how the files were written.
        candidates.sort_by(|(a_score, a), (b_score, b)| {
            b_score.total_cmp(a_score).then_with(|| (&a.document, &a.text).cmp(&(&b.document, &b.text)))
        });
        Ok(candidates)
    }

    fn documents(&self) -> Result<Vec<Shelved>, TantivyError> {
        let mut shelved: BTreeMap<String, Shelved> = BTreeMap::new();
        for address in self.searcher.search(&AllQuery, &DocSetCollector)? {
            let document: TantivyDocument = self.searcher.doc(address)?;
            let language = text_of(&document, self.fields.language).unwrap_or_default();
            let Passage { document: id, title, licence, source, .. } = self.fields.passage(&document);
            let new = || Shelved { id: id.clone(), title, language, licence, source, passages: 0 };
            shelved.entry(id.clone()).or_insert_with(new).passages += 1;
        }
        Ok(shelved.into_values().collect())
    }
}

/// Those that are about the topic, in their order. Words of it that stand close together are about it before
/// the same words scattered over a passage.
fn relevant(candidates: Vec<(f32, Passage)>, topic: &Topic) -> Vec<Passage> {
    let scattered = |passage: &Passage| topic.coverage(&format!("{}\n{}", passage.title, passage.text));
    let close = |passage: &Passage| {
        let sentences = passage.text.split_inclusive(['.', '!', '?', '。', '！', '？', '\n']);
        let coverages = sentences.map(|sentence| topic.coverage(sentence));
        coverages.fold(topic.coverage(&passage.title), f32::max)
    };
    let is_about = |coverage: f32| coverage >= MIN_COVERAGE;
    let (near, far): (Vec<_>, Vec<_>) = candidates
        .into_iter()
        .filter(|(_, passage)| is_about(scattered(passage)))
        .partition(|(_, passage)| is_about(close(passage)));
    let about = if near.is_empty() { far } else { near };
    let floor = about.first().map_or(0.0, |(best, _)| best * MIN_SHARE_OF_BEST);
    about.into_iter().take_while(|(score, _)| *score >= floor).map(|(_, passage)| passage).collect()
}

/// The best passage of each document, then the second best of each, and so on, `count` in all.
fn spread(passages: Vec<Passage>, count: usize) -> Vec<Passage> {
    let mut taken: HashMap<String, usize> = HashMap::new();
    let mut ranked: Vec<(usize, Passage)> = passages
        .into_iter()
        .map(|passage| {
            let rank = taken.entry(passage.document.clone()).or_default();
            *rank += 1;
            (*rank, passage)
        })
        .collect();
    ranked.sort_by_key(|(rank, _)| *rank);
    ranked.into_iter().map(|(_, passage)| passage).take(count).collect()
}

/// Where a passage's parts are kept in the index.
#[derive(Clone, Copy)]
pub(super) struct Fields {
    pub(super) document: Field,
    pub(super) language: Field,
    pub(super) title: Field,
    pub(super) licence: Field,
    pub(super) source: Field,
    pub(super) text: Field,
}

/// The tokenizer's name in the index: another way to make terms must take another name.
const TERMS: &str = "mondai-terms-1";

impl Fields {
    pub(super) fn schema() -> Schema {
        let indexing =
            TextFieldIndexing::default().set_tokenizer(TERMS).set_index_option(IndexRecordOption::WithFreqs);
        let searched = TextOptions::default().set_indexing_options(indexing).set_stored();
        let mut schema = Schema::builder();
        schema.add_text_field("document", STRING | STORED);
        schema.add_text_field("language", STRING | STORED);
        schema.add_text_field("title", searched.clone());
        schema.add_text_field("licence", STORED);
        schema.add_text_field("source", STORED);
        schema.add_text_field("text", searched);
        schema.build()
    }

    pub(super) fn tokenizers() -> TokenizerManager {
        let tokenizers = TokenizerManager::default();
        tokenizers.register(TERMS, TextAnalyzer::from(TermTokenizer));
        tokenizers
    }

    pub(super) fn of(schema: &Schema) -> Result<Self, TantivyError> {
        let field = |name: &str| schema.get_field(name);
        Ok(Self {
            document: field("document")?,
            language: field("language")?,
            title: field("title")?,
            licence: field("licence")?,
            source: field("source")?,
            text: field("text")?,
        })
    }

    /// # Errors
    /// [`LibraryError::NotALibrary`]: an index of something else, or of another version's passages.
    pub(super) fn check(schema: &Schema, folder: &Path) -> Result<(), LibraryError> {
        if *schema == Self::schema() {
            return Ok(());
        }
        let reason = "an index that this version of mondai did not make".to_owned();
        Err(LibraryError::NotALibrary { folder: folder.to_owned(), reason })
    }

    fn passage(&self, document: &TantivyDocument) -> Passage {
        let text = |field: Field| text_of(document, field);
        Passage {
            document: text(self.document).unwrap_or_default(),
            title: text(self.title).unwrap_or_default(),
            licence: text(self.licence),
            source: text(self.source),
            text: text(self.text).unwrap_or_default(),
        }
    }
}

fn text_of(document: &TantivyDocument, field: Field) -> Option<String> {
    document.get_first(field).and_then(|value| value.as_str()).map(str::to_owned)
}

#[cfg(test)]
mod tests;
