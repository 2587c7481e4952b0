//! Reads files into documents: plain text, Markdown, HTML, and lines of JSON.
//!
//! A text file is one document, a line of JSON is one too. Nothing in a file is trusted: sizes are checked
//! before anything is read, and every error names the file, and the line where there are lines.

use super::document::Document;
use super::error::LibraryError;
use super::{html, language, markdown};
use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

/// What holds for every document of a file that does not say otherwise itself.
#[derive(Clone, Debug, Default)]
pub struct ReadOptions {
    pub licence: Option<String>,
    /// A language tag; guessed from each text where it is not given.
    pub language: Option<String>,
}

/// The files of a folder.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Files {
    /// Those that can be read, in order of path.
    pub readable: Vec<PathBuf>,
    /// Files of other kinds, which are left out.
    pub others: usize,
}

/// Reads files one by one, and sees to it that no two documents have one id.
pub struct DocumentReader {
    options: ReadOptions,
    /// Where each id was read.
    seen: HashMap<String, String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FileKind {
    Text,
    Markdown,
    Html,
    JsonLines,
}

/// More than a long book.
const MAX_TEXT_BYTES: u64 = 32 << 20;
const MAX_LINE_BYTES: u64 = 4 << 20;
const KINDS: &str = ".txt, .md, .html or .jsonl";

impl Files {
    /// The file itself, or every file in the folder and the folders in it; hidden ones and links to folders
    /// aside.
    ///
    /// # Errors
    /// A folder that cannot be read, or has no readable file in it; a file of another kind.
    pub fn under(path: &Path) -> Result<Self, LibraryError> {
        let unreadable = |source: io::Error| LibraryError::Unreadable { path: path.to_owned(), source };
        let mut files = Self::default();
        if fs::metadata(path).map_err(unreadable)?.is_dir() {
            files.collect(path)?;
        } else if FileKind::of(path).is_some() {
            files.readable.push(path.to_owned());
        } else {
            return Err(bad_file(
                path,
                None,
                format!("not a kind of file that can be added; it must end in {KINDS}"),
            ));
        }
        if files.readable.is_empty() {
            return Err(bad_file(path, None, format!("no file in it ends in {KINDS}")));
        }
        Ok(files)
    }

    fn collect(&mut self, folder: &Path) -> Result<(), LibraryError> {
        let unreadable = |source: io::Error| LibraryError::Unreadable { path: folder.to_owned(), source };
        let mut entries: Vec<fs::DirEntry> =
            fs::read_dir(folder).and_then(Iterator::collect).map_err(unreadable)?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let path = entry.path();
            if entry.file_name().to_string_lossy().starts_with('.') {
                continue;
            }
            if entry.file_type().map_err(unreadable)?.is_dir() {
                self.collect(&path)?;
            } else if FileKind::of(&path).is_some() {
                self.readable.push(path);
            } else {
                self.others += 1;
            }
        }
        Ok(())
    }
}

impl DocumentReader {
    /// # Errors
    /// The language is no language tag; the message is the end of a sentence that names it.
    pub fn new(options: ReadOptions) -> Result<Self, &'static str> {
        let language = match options.language.as_deref().map(language::primary_subtag) {
            Some(None) => return Err("is not a language tag, such as en or ja"),
            known => known.flatten(),
        };
        Ok(Self { options: ReadOptions { language, ..options }, seen: HashMap::new() })
    }

    /// Calls `each` with every document of the file.
    ///
    /// # Errors
    /// The file cannot be read, is not text, or has nothing to say; and whatever `each` returns.
    pub fn read(
        &mut self,
        path: &Path,
        each: &mut dyn FnMut(Document) -> Result<(), LibraryError>,
    ) -> Result<(), LibraryError> {
        match FileKind::of(path) {
            Some(FileKind::JsonLines) => self.read_lines(path, each),
            kind => {
                let document = self.read_text(path, kind.unwrap_or(FileKind::Text))?;
                self.take(document, path, None, each)
            }
        }
    }

    fn read_text(&self, path: &Path, kind: FileKind) -> Result<Document, LibraryError> {
        let unreadable = |source: io::Error| LibraryError::Unreadable { path: path.to_owned(), source };
        let mut bytes = Vec::new();
        let file = File::open(path).map_err(unreadable)?;
        file.take(MAX_TEXT_BYTES + 1).read_to_end(&mut bytes).map_err(unreadable)?;
        if bytes.len() as u64 > MAX_TEXT_BYTES {
            return Err(bad_file(path, None, format!("larger than {} MiB; split it", MAX_TEXT_BYTES >> 20)));
        }
        let text = utf8(bytes, path, None)?;
        let (title, text) = match kind {
            FileKind::Markdown => markdown::plain(&text),
            FileKind::Html => html::plain(&text),
            FileKind::Text | FileKind::JsonLines => (None, text),
        };
        let language = self.options.language.clone().unwrap_or_else(|| language::guess(&text).to_owned());
        Ok(Document {
            id: place(path),
            title: title.unwrap_or_else(|| stem(path)),
            language,
            licence: self.options.licence.clone(),
            source: path.file_name().map(|name| name.to_string_lossy().into_owned()),
            text,
        })
    }

    fn read_lines(
        &mut self,
        path: &Path,
        each: &mut dyn FnMut(Document) -> Result<(), LibraryError>,
    ) -> Result<(), LibraryError> {
        let unreadable = |source: io::Error| LibraryError::Unreadable { path: path.to_owned(), source };
        let mut file = BufReader::new(File::open(path).map_err(unreadable)?);
        let mut documents = 0;
        for number in 1.. {
            let mut line = Vec::new();
            let read =
                (&mut file).take(MAX_LINE_BYTES + 1).read_until(b'\n', &mut line).map_err(unreadable)?;
            if read == 0 {
                break;
            }
            if line.len() as u64 > MAX_LINE_BYTES {
                let reason = format!("the line is longer than {} MiB; split its text", MAX_LINE_BYTES >> 20);
                return Err(bad_file(path, Some(number), reason));
            }
            let line = utf8(line, path, Some(number))?;
            if !line.trim().is_empty() {
                documents += 1;
                let document = self.record(&line, path, number)?;
                self.take(document, path, Some(number), each)?;
            }
        }
        if documents == 0 {
            return Err(bad_file(path, None, "the file is empty; leave it out".to_owned()));
        }
        Ok(())
    }

    fn record(&self, line: &str, path: &Path, number: usize) -> Result<Document, LibraryError> {
        let bad = |reason: String| bad_file(path, Some(number), reason);
        let record: Record = serde_json::from_str(line).map_err(|error| {
            bad(format!("not a document: {error}; a line is {{\"text\":\"...\",\"title\":\"...\"}}"))
        })?;
        let language =
            match &record.language {
                Some(tag) => Some(language::primary_subtag(tag).ok_or_else(|| {
                    bad(format!("`language` {tag:?} is not a language tag, such as en or ja"))
                })?),
                None => self.options.language.clone(),
            };
        Ok(Document {
            id: record.id.unwrap_or_else(|| format!("{}:{number}", place(path))),
            title: record.title.unwrap_or_else(|| stem(path)),
            language: language.unwrap_or_else(|| language::guess(&record.text).to_owned()),
            licence: record.licence.or_else(|| self.options.licence.clone()),
            source: record
                .source
                .or_else(|| path.file_name().map(|name| name.to_string_lossy().into_owned())),
            text: record.text,
        })
    }

    fn take(
        &mut self,
        document: Document,
        path: &Path,
        line: Option<usize>,
        each: &mut dyn FnMut(Document) -> Result<(), LibraryError>,
    ) -> Result<(), LibraryError> {
        if !document.text.contains(char::is_alphanumeric) {
            return Err(bad_file(path, line, "there is no text in it; leave it out".to_owned()));
        }
        let here = format!("{}{}", path.display(), line.map_or(String::new(), |line| format!(":{line}")));
        if let Some(there) = self.seen.insert(document.id.clone(), here) {
            let reason = format!("the id {:?} is that of {there} already; give it another", document.id);
            return Err(bad_file(path, line, reason));
        }
        each(document)
    }
}

/// A line of JSON; what else it holds is not read.
#[derive(serde::Deserialize)]
struct Record {
    text: String,
    id: Option<String>,
    title: Option<String>,
    #[serde(alias = "license")]
    licence: Option<String>,
    source: Option<String>,
    #[serde(alias = "lang")]
    language: Option<String>,
}

impl FileKind {
    /// By the name's ending.
    fn of(path: &Path) -> Option<Self> {
        match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
            "txt" | "text" => Some(Self::Text),
            "md" | "markdown" => Some(Self::Markdown),
            "html" | "htm" | "xhtml" => Some(Self::Html),
            "jsonl" | "ndjson" => Some(Self::JsonLines),
            _ => None,
        }
    }
}

fn bad_file(path: &Path, line: Option<usize>, reason: String) -> LibraryError {
    LibraryError::BadFile { path: path.to_owned(), line, reason }
}

/// The same for the same file, from wherever it is named.
fn place(path: &Path) -> String {
    path.canonicalize().unwrap_or_else(|_| path.to_owned()).to_string_lossy().into_owned()
}

fn stem(path: &Path) -> String {
    path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

/// # Errors
/// The file is not text; the line is counted where it is not given.
fn utf8(bytes: Vec<u8>, path: &Path, line: Option<usize>) -> Result<String, LibraryError> {
    if bytes.contains(&0) {
        return Err(bad_file(path, line, "not a text but a binary file; leave it out".to_owned()));
    }
    match String::from_utf8(bytes) {
        Ok(text) => Ok(text.strip_prefix('\u{feff}').map_or_else(|| text.clone(), str::to_owned)),
        Err(error) => {
            let valid = error.utf8_error().valid_up_to();
            let lines = error.as_bytes()[..valid].iter().filter(|byte| **byte == b'\n').count();
            let reason = "not UTF-8; convert the file, or leave it out".to_owned();
            Err(bad_file(path, line.or(Some(lines + 1)), reason))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The documents of a file of this name and content, or the error less the folder's path.
    fn read(name: &str, content: &[u8]) -> Result<Vec<Document>, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        fs::write(&path, content).unwrap();
        let mut documents = Vec::new();
        let mut reader = DocumentReader::new(ReadOptions::default()).unwrap();
        let read = Files::under(&path).and_then(|files| {
            reader.read(&files.readable[0], &mut |document| {
                documents.push(document);
                Ok(())
            })
        });
        read.map(|()| documents)
            .map_err(|error| error.to_string().replace(&format!("{}/", folder.path().display()), ""))
    }

    fn check_error(name: &str, content: &[u8], expected: &str) {
        let error = read(name, content).unwrap_err();
        assert!(error.contains(expected), "{error}");
    }

    #[test]
    fn texts() {
        let documents =
            read("rivers of africa.txt", "\u{feff}The Nile is the longest.\n".as_bytes()).unwrap();
        assert_eq!(documents.len(), 1);
        let document = &documents[0];
        assert_eq!((document.title.as_str(), document.language.as_str()), ("rivers of africa", "en"));
        assert_eq!(document.text, "The Nile is the longest.\n");
        assert_eq!(document.source.as_deref(), Some("rivers of africa.txt"));
        let titled = read("a.md", "intro\n# The *Nile*\n\nIt is long.".as_bytes()).unwrap();
        assert_eq!(titled[0].title, "The Nile");
        let page = read("a.html", b"<title>Nile</title><p>It is long.").unwrap();
        assert_eq!((page[0].title.as_str(), page[0].text.as_str()), ("Nile", "It is long."));
    }

    #[test]
    fn lines_of_json() {
        let lines = r#"{"id": "nile", "title": "Nile", "text": "It is long.", "license": "CC0-1.0", "more": 1}

{"text": "ナイル川は長い。", "lang": "ja-JP"}"#;
        let documents = read("a.jsonl", lines.as_bytes()).unwrap();
        assert_eq!(documents[0].id, "nile");
        assert_eq!(documents[0].licence.as_deref(), Some("CC0-1.0"));
        assert_eq!((documents[1].title.as_str(), documents[1].language.as_str()), ("a", "ja"));
        assert!(documents[1].id.ends_with("a.jsonl:3"));
    }

    #[test]
    fn errors_name_the_file_the_line_and_what_to_do() {
        check_error("a.txt", b"", "a.txt: there is no text in it; leave it out");
        check_error("a.txt", b" \n--\n", "a.txt: there is no text in it");
        check_error("a.txt", b"PK\x03\x04\0\0", "a.txt: not a text but a binary file");
        check_error("a.md", b"fine\nnot \xff fine", "a.md:2: not UTF-8");
        check_error("a.pdf", b"%PDF", "a.pdf: not a kind of file that can be added; it must end in .txt");
        check_error("a.jsonl", b"\n\n", "a.jsonl: the file is empty");
        check_error(
            "a.jsonl",
            b"{\"text\":\"a\"}\n{\"title\":\"b\"}\n",
            "a.jsonl:2: not a document: missing field `text`",
        );
        check_error("a.jsonl", b"{\"text\":\"a\"}\n{\"text\":\n", "a.jsonl:2: not a document");
        check_error(
            "a.jsonl",
            b"{\"text\":\"a\",\"lang\":\"english\"}",
            "a.jsonl:1: `language` \"english\" is not",
        );
        check_error("a.jsonl", b"{\"text\":\"\"}", "a.jsonl:1: there is no text in it");
        check_error(
            "a.jsonl",
            b"{\"id\":\"n\",\"text\":\"a\"}\n{\"id\":\"n\",\"text\":\"b\"}",
            "a.jsonl:2: the id \"n\" is that of a.jsonl:1 already",
        );
        let long = [b"{\"text\":\"".to_vec(), vec![b'a'; (MAX_LINE_BYTES) as usize]].concat();
        check_error("a.jsonl", &long, "a.jsonl:1: the line is longer than 4 MiB");
        assert!(
            DocumentReader::new(ReadOptions { language: Some("english".into()), licence: None }).is_err()
        );
    }

    #[test]
    fn folders() {
        let folder = tempfile::tempdir().unwrap();
        let error = Files::under(folder.path()).unwrap_err().to_string();
        assert!(error.ends_with("no file in it ends in .txt, .md, .html or .jsonl"), "{error}");
        let inner = folder.path().join("inner");
        fs::create_dir(&inner).unwrap();
        for name in ["b.txt", "a.MD", ".hidden.txt", "image.png", "inner/c.htm"] {
            fs::write(folder.path().join(name), "text").unwrap();
        }
        std::os::unix::fs::symlink(folder.path(), inner.join("loop")).unwrap();
        let files = Files::under(folder.path()).unwrap();
        let names: Vec<_> = files.readable.iter().map(|path| path.file_name().unwrap()).collect();
        assert_eq!(names, ["a.MD", "b.txt", "c.htm"]);
        assert_eq!(files.others, 2);
        assert!(Files::under(&folder.path().join("nowhere")).unwrap_err().to_string().contains("nowhere"));
    }
}
