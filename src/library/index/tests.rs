use super::*;
use crate::library::{Document, LibraryWriter};
use std::fs;

fn document(id: &str, title: &str, language: &str, text: &str) -> Document {
    Document {
        id: id.to_owned(),
        title: title.to_owned(),
        language: language.to_owned(),
        licence: Some("CC0-1.0".to_owned()),
        source: None,
        text: text.to_owned(),
    }
}

fn add(folder: &Path, documents: &[Document]) {
    let mut writer = LibraryWriter::open(folder).unwrap();
    for document in documents {
        writer.add(document).unwrap();
    }
    writer.commit().unwrap();
}

/// A folder that lives as long as its library is used.
fn library(documents: &[Document]) -> (tempfile::TempDir, Library) {
    let folder = tempfile::tempdir().unwrap();
    add(folder.path(), documents);
    let library = Library::open(folder.path()).unwrap();
    (folder, library)
}

fn rivers_and_more() -> Vec<Document> {
    let long = |sentence: &str| vec![sentence; 30].join("\n\n");
    vec![
        document("nile", "Nile", "en", &long("The Nile is a river in Africa that flows to the north.")),
        document("rhine", "Rhine", "en", "The Rhine is a European river."),
        document("bread", "Bread", "en", "Bread is baked. In France a river of it flows."),
        document("horn", "Horn", "en", "The French horn is made of brass."),
        document("1789", "Revolution in France", "en", "The French Revolution began in 1789."),
        document("fuji", "富士山", "ja", "富士山は日本で最も高い山である。"),
        document("himeji", "姫路城", "ja", "姫路にある日本の城である。"),
        document("loire", "Loire", "und", "La Loire est un fleuve. River!"),
        document("volga", "Volga", "und", "Волга Volga"),
    ]
}

fn check(library: &Library, topic: &str, language: &str, count: usize, expected: &[&str]) {
    let found = library.find(topic, language, count).unwrap();
    let ids: Vec<&str> = found.passages.iter().map(|passage| passage.document.as_str()).collect();
    assert_eq!(ids, expected, "{topic}");
}

#[test]
fn the_best_passages_are_found() {
    let (_folder, library) = library(&rivers_and_more());
    check(&library, "the French Revolution", "en", 5, &["1789"]);
    check(&library, "baking bread", "en", 5, &[]);
    check(&library, "bread", "en", 5, &["bread"]);
    check(&library, "The Rhine?", "en", 5, &["rhine"]);
    check(&library, "日本の城", "ja", 5, &["himeji"]);
    check(&library, "富士山", "ja", 5, &["fuji"]);
}

#[test]
fn what_is_not_there_is_not_found() {
    let (_folder, library) = library(&rivers_and_more());
    for topic in ["quantum computers", "", "the", "?!", "城", "\u{301}", "river quantum chromodynamics"] {
        check(&library, topic, "en", 5, &[]);
    }
    check(&library, "bread", "en", 0, &[]);
}

#[test]
fn passages_are_spread_over_documents() {
    let (_folder, library) = library(&rivers_and_more());
    let found = library.find("rivers", "en", 4).unwrap();
    let ids: Vec<&str> = found.passages.iter().map(|passage| passage.document.as_str()).collect();
    assert_eq!(ids[..2].iter().collect::<std::collections::HashSet<_>>().len(), 2, "{ids:?}");
    assert!(ids.contains(&"nile") && ids.contains(&"rhine"), "{ids:?}");
    assert_eq!(found.topic.coverage("A river."), 1.0);
}

#[test]
fn passages_of_an_unknown_language_come_only_when_there_are_no_others() {
    let (_folder, library) = library(&rivers_and_more());
    let found = library.find("river", "en", 50).unwrap();
    assert!(found.passages.iter().all(|passage| passage.document != "loire"));
    check(&library, "loire", "en", 5, &["loire"]);
    check(&library, "river", "fr", 5, &["loire"]);
    check(&library, "nile", "ja", 5, &[]);
}

#[test]
fn adding_again_replaces() {
    let folder = tempfile::tempdir().unwrap();
    add(folder.path(), &rivers_and_more());
    let before = Library::open(folder.path()).unwrap();
    add(folder.path(), &rivers_and_more());
    let after = Library::open(folder.path()).unwrap();
    assert_eq!((after.count(), after.documents().unwrap()), (before.count(), before.documents().unwrap()));

    add(folder.path(), &[document("rhine", "Rhine", "en", "The Rhine is a stream.")]);
    let library = Library::open(folder.path()).unwrap();
    check(&library, "European river Rhine", "en", 5, &[]);
    check(&library, "stream", "en", 5, &["rhine"]);
    assert_eq!(library.documents().unwrap().len(), rivers_and_more().len());
    // The one that was opened earlier goes on with what it knew.
    check(&before, "stream", "en", 5, &[]);
}

#[test]
fn what_was_not_committed_was_not_added() {
    let folder = tempfile::tempdir().unwrap();
    add(folder.path(), &rivers_and_more());
    let mut writer = LibraryWriter::open(folder.path()).unwrap();
    writer.add(&document("nile", "Nile", "en", "Nothing.")).unwrap();
    assert!(matches!(LibraryWriter::open(folder.path()), Err(LibraryError::Busy { .. })));
    drop(writer);
    let library = Library::open(folder.path()).unwrap();
    check(&library, "Nile", "en", 1, &["nile"]);
    assert!(library.find("Nile", "en", 1).unwrap().passages[0].text.contains("Africa"));
}

fn check_open(folder: &Path, expected: &str) {
    match Library::open(folder) {
        Ok(_) => panic!("{} opens", folder.display()),
        Err(error) => {
            let said = error.to_string();
            assert!(said.contains(expected) && said.contains(&folder.display().to_string()), "{said}");
        }
    }
}

#[test]
fn folders_that_are_no_libraries() {
    let folder = tempfile::tempdir().unwrap();
    check_open(&folder.path().join("nowhere"), "mondai library add");
    check_open(folder.path(), "mondai library add");
    let file = folder.path().join("notes.txt");
    fs::write(&file, "notes").unwrap();
    check_open(&file, "it is a file");
    assert!(matches!(LibraryWriter::open(&file), Err(LibraryError::NotALibrary { .. })));
    assert!(matches!(LibraryWriter::open(folder.path()), Err(LibraryError::NotALibrary { .. })));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing was written beside it");
}

#[test]
fn words_that_stand_together_count_before_scattered_ones() {
    let scattered =
        "The French horn is French. French horns are long.\n\nA revolution of the valves came later.";
    let together = "In its long history the country saw kings, wars and, at last, the French Revolution.";
    let (_folder, library) =
        library(&[document("a", "Horn", "en", scattered), document("b", "Country", "en", together)]);
    check(&library, "the French Revolution", "en", 5, &["b"]);
    check(&library, "valves of the horn", "en", 5, &["a"]);
}

#[test]
fn a_library_that_cannot_be_locked_is_read() {
    let (folder, _) = library(&rivers_and_more());
    let lock = folder.path().join(".tantivy-meta.lock");
    fs::remove_file(&lock).unwrap();
    fs::create_dir(&lock).unwrap();
    check(&Library::open(folder.path()).unwrap(), "bread", "en", 1, &["bread"]);
}

#[test]
fn damage_is_told() {
    let (folder, _) = library(&rivers_and_more());
    let files = |ending: &str| {
        let entries = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path());
        entries.filter(|path| path.to_string_lossy().ends_with(ending)).collect::<Vec<_>>()
    };
    let store = &files(".store")[0];
    let whole = fs::read(store).unwrap();
    let mut flipped = whole.clone();
    flipped[whole.len() / 4] ^= 1;
    for damaged in [&flipped[..], &whole[..whole.len() / 2], &[]] {
        fs::write(store, damaged).unwrap();
        check_open(folder.path(), "is damaged");
    }
    fs::remove_file(store).unwrap();
    check_open(folder.path(), "is damaged");
    fs::write(store, &whole).unwrap();
    assert!(Library::open(folder.path()).is_ok());
    fs::write(folder.path().join("meta.json"), "{}").unwrap();
    check_open(folder.path(), "is damaged");
}
