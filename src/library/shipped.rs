//! The library that comes with the program: `shipped.jsonl.gz`, made by `scripts/shipped_library.py`.
//!
//! What is in it, from whom and under which licences, stands in `shipped.md` beside it.

use super::document::Document;
use super::index::{Fields, PassageIndex};
use super::writer::passages;
use flate2::read::GzDecoder;
use std::io::{BufRead, BufReader};
use std::sync::LazyLock;
use tantivy::Index;
use tantivy::directory::RamDirectory;

const COMPRESSED: &[u8] = include_bytes!("shipped.jsonl.gz");

/// What tantivy makes its table of terms by.
const MEMORY_BUDGET_BYTES: usize = 32 << 20;

/// Indexed when it is first asked for.
pub(super) static INDEX: LazyLock<PassageIndex> = LazyLock::new(|| {
    let schema = Fields::schema();
    let fields = Fields::of(&schema).expect("the fields are the schema's");
    let builder = Index::builder().schema(schema).tokenizers(Fields::tokenizers());
    let mut writer = builder
        .single_segment_index_writer(RamDirectory::create(), MEMORY_BUDGET_BYTES)
        .expect("an index in memory can be made");
    for document in documents() {
        for passage in passages(&document, &fields) {
            writer.add_document(passage).expect("memory can be written");
        }
    }
    let index = writer.finalize().expect("memory can be written");
    PassageIndex::new(&index).expect("it was made just now")
});

/// One a line, as `mondai library add` reads them.
fn documents() -> impl Iterator<Item = Document> {
    BufReader::new(GzDecoder::new(COMPRESSED)).lines().map(|line| {
        let line = line.expect("the shipped library is sound: a test reads all of it");
        serde_json::from_str(&line).expect("the shipped library is sound: a test reads all of it")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::{BTreeMap, HashSet};

    /// At most this much is committed, and part of every program.
    const MAX_BYTES: usize = 4 << 20;

    #[test]
    fn every_document_can_be_read_and_says_where_it_comes_from() {
        assert!(COMPRESSED.len() <= MAX_BYTES);
        let mut ids = HashSet::new();
        let mut licences: BTreeMap<String, usize> = BTreeMap::new();
        for document in documents() {
            assert!(!document.parts().is_empty(), "{}", document.id);
            assert!(document.source.as_ref().is_some_and(|source| !source.is_empty()), "{}", document.id);
            assert!(["en", "ja"].contains(&document.language.as_str()), "{}", document.id);
            let licence = document.licence.expect("a licence");
            // What the table of countries is under stays apart.
            assert_eq!(document.id.starts_with("countries/"), licence == "ODbL-1.0", "{}", document.id);
            *licences.entry(licence).or_default() += 1;
            assert!(ids.insert(document.id));
        }
        let card = include_str!("shipped.md");
        for licence in licences.keys() {
            assert!(card.contains(licence), "shipped.md says nothing of {licence}");
        }
        assert!(ids.len() > 2000, "{licences:?}");
    }
}
