//! What is kept of a run: a line a passage, so that one that was cut off goes on where it stopped.

use super::candidate::Candidate;
use super::known::Nearest;
use super::metric::Scores;
use super::reader::Reading;
use super::run::EvalOptions;
use crate::quiz::{Difficulty, Flaw, ItemKind, RejectReason};
use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Author {
    Model,
    Human,
}

/// An item and what it is worth.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Scored {
    pub author: Author,
    pub kind: ItemKind,
    /// Absent when an item was asked for and none came.
    pub item: Option<Candidate>,
    pub reading: Option<Reading>,
    pub flaws: Vec<Flaw>,
    pub scores: Scores,
    /// Of the model's items: the known question that is most like it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nearest: Option<Nearest>,
}

/// A question that the model asks for an answer that a person asked for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AnswerAware {
    pub answer: String,
    pub question: String,
    /// The person's.
    pub reference: String,
}

/// All items about one passage.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PassageRecord {
    pub passage: String,
    /// What the items were asked to be.
    pub difficulty: Difficulty,
    pub items: Vec<Scored>,
    pub answer_aware: Vec<AnswerAware>,
    pub rejected: BTreeMap<RejectReason, usize>,
    /// Seconds that writing the quiz took, reading not counted.
    pub write_seconds: f64,
    pub completion_tokens: usize,
}

/// What has to be the same for a run to go on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct RunHead {
    pub(super) model: String,
    pub(super) backend: String,
    pub(super) reader: String,
    pub(super) set: String,
    pub(super) known_questions: usize,
    pub(super) embeddings: bool,
    pub(super) options: EvalOptions,
}

/// `items.jsonl` in a run's folder: the head, then the records.
pub(super) struct RunFile {
    path: PathBuf,
    file: File,
}

impl RunFile {
    /// Opens the run in `folder` or begins one; with what it already holds.
    ///
    /// # Errors
    /// The folder cannot be written, or holds a run with other settings or of something else.
    pub(super) fn open(folder: &Path, head: &RunHead) -> Result<(Self, Vec<PassageRecord>)> {
        std::fs::create_dir_all(folder).with_context(|| format!("{} cannot be made", folder.display()))?;
        let path = folder.join("items.jsonl");
        let (records, whole) = read(&path, head)?;
        let cannot = || format!("{} cannot be written", path.display());
        let mut file =
            OpenOptions::new().create(true).truncate(false).write(true).open(&path).with_context(cannot)?;
        // What a run that was cut off left of its last line goes.
        file.set_len(whole).with_context(cannot)?;
        std::io::Seek::seek(&mut file, std::io::SeekFrom::End(0)).with_context(cannot)?;
        let mut run = Self { path, file };
        if whole == 0 {
            run.write(head)?;
        }
        Ok((run, records))
    }

    pub(super) fn write(&mut self, line: &impl Serialize) -> Result<()> {
        let line = serde_json::to_string(line)? + "\n";
        let written = self.file.write_all(line.as_bytes()).and_then(|()| self.file.flush());
        written.with_context(|| format!("{} cannot be written", self.path.display()))
    }
}

/// The records of a run with this head, and how many bytes whole lines take.
fn read(path: &Path, head: &RunHead) -> Result<(Vec<PassageRecord>, u64)> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok((Vec::new(), 0)),
        Err(error) => return Err(error).with_context(|| format!("{} cannot be read", path.display())),
    };
    let mut lines = BufReader::new(file);
    let (mut records, mut whole, mut line) = (Vec::new(), 0, String::new());
    while lines.read_line(&mut line).with_context(|| format!("{} cannot be read", path.display()))? > 0 {
        if !line.ends_with('\n') {
            break;
        }
        if whole == 0 {
            let found = serde_json::from_str::<RunHead>(&line).ok();
            if found.as_ref() != Some(head) {
                bail!("{} is of a run with other settings; give another --out, or delete it", path.display());
            }
        } else {
            let record = serde_json::from_str(&line).with_context(|| {
                format!("{}, byte {whole}: no record of a passage; delete the file", path.display())
            })?;
            records.push(record);
        }
        whole += line.len() as u64;
        line.clear();
    }
    Ok((records, whole))
}
