//! Questions that a generated one must not be a copy of: those the model was trained on, and any others that
//! are known. Hundreds of thousands of them are compared in milliseconds, as sets of hashed words.

use super::set::SetError;
use crate::quiz::wording::{Pieces, pieces};
use flate2::read::GzDecoder;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

/// Questions, each as the pieces it is compared by.
#[derive(Default)]
pub struct Known {
    questions: Vec<(String, Pieces)>,
}

/// The known question that is most like a new one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Nearest {
    pub question: String,
    /// The Jaccard index of their words, or trigrams where words are not spaced; from 0 to 1.
    pub likeness: f32,
}

/// A line of a file; all else in it is passed over.
#[derive(Deserialize)]
struct Line {
    question: Option<String>,
}

/// A line longer than this is no question.
const MAX_LINE_BYTES: u64 = 1 << 20;

impl Known {
    pub fn new<'a>(questions: impl IntoIterator<Item = &'a str>) -> Self {
        let questions = questions.into_iter().map(|question| (question.to_owned(), pieces(question)));
        Self { questions: questions.collect() }
    }

    /// Reads a file of JSON lines with a `question` each, compressed if its name ends in `.gz`, or all such files
    /// of a folder.
    ///
    /// # Errors
    /// The file or folder cannot be read, or a line of it is not JSON.
    pub fn add(&mut self, path: &Path) -> Result<(), SetError> {
        let unreadable = |source| SetError::Unreadable { path: path.to_owned(), source };
        if path.is_dir() {
            let entries = std::fs::read_dir(path).map_err(unreadable)?;
            let paths = entries.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>();
            let mut paths: Vec<PathBuf> = paths.map_err(unreadable)?;
            paths.retain(|path| is_lines(path));
            paths.sort();
            return paths.iter().try_for_each(|path| self.add(path));
        }
        let file = File::open(path).map_err(unreadable)?;
        let lines: Box<dyn Read> = match path.extension().is_some_and(|extension| extension == "gz") {
            true => Box::new(GzDecoder::new(file)),
            false => Box::new(file),
        };
        let mut lines = BufReader::new(lines);
        for number in 1.. {
            let mut line = Vec::new();
            let read =
                lines.by_ref().take(MAX_LINE_BYTES).read_until(b'\n', &mut line).map_err(unreadable)?;
            if read == 0 {
                break;
            }
            let wrong =
                |reason: String| SetError::Line { name: path.display().to_string(), line: number, reason };
            let line: Line = serde_json::from_slice(&line).map_err(|error| wrong(error.to_string()))?;
            self.questions.extend(line.question.map(|question| {
                let pieces = pieces(&question);
                (question, pieces)
            }));
        }
        Ok(())
    }

    pub fn len(&self) -> usize {
        self.questions.len()
    }

    pub fn is_empty(&self) -> bool {
        self.questions.is_empty()
    }

    /// `None` where nothing is known.
    pub fn nearest(&self, question: &str) -> Option<Nearest> {
        let asked = pieces(question);
        let likenesses = self.questions.iter().map(|(known, pieces)| (known, asked.jaccard(pieces)));
        let (known, likeness) = likenesses.max_by(|a, b| a.1.total_cmp(&b.1))?;
        Some(Nearest { question: known.clone(), likeness })
    }
}

fn is_lines(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.ends_with(".jsonl") || name.ends_with(".jsonl.gz")
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::{Compression, write::GzEncoder};
    use std::io::Write;

    #[test]
    fn the_nearest_is_found_in_any_file_of_a_folder() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(
            folder.path().join("a.jsonl"),
            "{\"question\":\"Who built the tower?\",\"answer\":\"E\"}\n{}\n",
        )
        .unwrap();
        let mut packed =
            GzEncoder::new(File::create(folder.path().join("b.jsonl.gz")).unwrap(), Compression::fast());
        packed.write_all("{\"question\":\"日本一高い山は何ですか？\"}\n".as_bytes()).unwrap();
        packed.finish().unwrap();
        std::fs::write(folder.path().join("c.txt"), "no JSON").unwrap();
        let mut known = Known::new(["What is a moon?"]);
        assert_eq!(
            known.nearest("Who was it?").map(|nearest| nearest.question).as_deref(),
            Some("What is a moon?")
        );
        known.add(folder.path()).unwrap();
        assert_eq!(known.len(), 3);
        let check = |question: &str, expected: &str, likeness: f32| {
            let nearest = known.nearest(question).unwrap();
            assert_eq!(nearest.question, expected);
            assert!((nearest.likeness - likeness).abs() < 1e-6, "{}", nearest.likeness);
        };
        check("Who built this tower?", "Who built the tower?", 1.0);
        check("Who built a castle and a tower?", "Who built the tower?", 0.75);
        check("日本一高い山は何ですか", "日本一高い山は何ですか？", 1.0);
        assert_eq!(Known::default().nearest("What?"), None);
    }

    #[test]
    fn wrong_lines_are_named() {
        let file = tempfile::Builder::new().suffix(".jsonl").tempfile().unwrap();
        std::fs::write(file.path(), "{\"question\":\"What?\"}\n[]\n").unwrap();
        let error = Known::default().add(file.path()).unwrap_err().to_string();
        assert!(error.contains("line 2"), "{error}");
        assert!(Known::default().add(Path::new("/no/such.jsonl")).is_err());
    }
}
