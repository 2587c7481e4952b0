use serde::Deserialize;
use std::path::{Path, PathBuf};

/// Passages with the questions people asked about them.
#[derive(Clone, Debug)]
pub struct EvalSet {
    /// Its file's name, or `default`.
    pub name: String,
    pub passages: Vec<Passage>,
}

/// One line of a set.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Passage {
    pub id: String,
    #[serde(rename = "lang")]
    pub language: String,
    pub title: String,
    /// SPDX-like.
    pub license: String,
    /// Whom to name.
    pub source: String,
    pub context: String,
    pub questions: Vec<HumanQuestion>,
}

/// A person's question; every answer is a substring of the passage.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HumanQuestion {
    pub question: String,
    /// At least one; the first is the key.
    pub answers: Vec<String>,
    /// Wrong answers taken from the same article, of the key's form; three or none.
    #[serde(default)]
    pub distractors: Vec<String>,
}

#[derive(Debug, thiserror::Error)]
pub enum SetError {
    #[error("the set {path} cannot be read")]
    Unreadable {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("the set {name}, line {line}: {reason}")]
    Line { name: String, line: usize, reason: String },
    #[error(
        "the set {name} has no passage; a line is {{\"id\", \"lang\", \"title\", \"license\", \"source\", \"context\", \"questions\"}}"
    )]
    Empty { name: String },
}

/// Made by `scripts/eval_set.py` from articles that no training has seen.
const DEFAULT_SET: &str = include_str!("default_set.jsonl");

impl EvalSet {
    pub fn default_set() -> Self {
        Self::parse("default", DEFAULT_SET).expect("the set that is shipped is sound; a test says so")
    }

    /// # Errors
    /// The file cannot be read, or a line of it is no passage.
    pub fn open(path: &Path) -> Result<Self, SetError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| SetError::Unreadable { path: path.to_owned(), source })?;
        Self::parse(&path.display().to_string(), &text)
    }

    fn parse(name: &str, text: &str) -> Result<Self, SetError> {
        let mut passages: Vec<Passage> = Vec::new();
        for (idx, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            let wrong = |reason: String| SetError::Line { name: name.to_owned(), line: idx + 1, reason };
            let passage: Passage = serde_json::from_str(line).map_err(|error| wrong(error.to_string()))?;
            passage.check().map_err(wrong)?;
            if passages.iter().any(|earlier| earlier.id == passage.id) {
                return Err(SetError::Line {
                    name: name.to_owned(),
                    line: idx + 1,
                    reason: format!("the id {:?} is there twice", passage.id),
                });
            }
            passages.push(passage);
        }
        if passages.is_empty() {
            return Err(SetError::Empty { name: name.to_owned() });
        }
        Ok(Self { name: name.to_owned(), passages })
    }
}

impl Passage {
    fn check(&self) -> Result<(), String> {
        if self.context.trim().is_empty() {
            return Err("`context` is empty".to_owned());
        }
        for question in &self.questions {
            let Some(key) = question.answers.first() else {
                return Err(format!("{:?} has no answer in `answers`", question.question));
            };
            if !self.context.contains(key.as_str()) {
                return Err(format!("the answer {key:?} does not stand in `context`"));
            }
            if !matches!(question.distractors.len(), 0 | 3) {
                return Err(format!("{:?} has neither none nor three `distractors`", question.question));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_set_is_sound() {
        let set = EvalSet::default_set();
        assert!(set.passages.len() >= 30);
        assert!(set.passages.iter().all(|passage| passage.questions.len() >= 3));
    }

    #[test]
    fn wrong_lines_are_named() {
        let line = |context: &str, answer: &str| {
            let questions = serde_json::json!([{"question": "Where?", "answers": [answer]}]);
            serde_json::json!({"id": "a", "lang": "en", "title": "t", "license": "CC0-1.0", "source": "s",
                "context": context, "questions": questions})
            .to_string()
        };
        let check = |text: &str, expected: &str| {
            let error = EvalSet::parse("s.jsonl", text).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        };
        check("", "no passage");
        check("{}", "line 1: missing field");
        check(&line("", "b"), "`context` is empty");
        check(&line("In Rome.", "Paris"), "line 1: the answer \"Paris\" does not stand in `context`");
        check(&format!("{0}\n\n{0}", line("In Rome.", "Rome")), "line 3: the id \"a\" is there twice");
        check(&line("In Rome.", "Rome").replace("\"title\"", "\"titel\""), "unknown field `titel`");
    }
}
