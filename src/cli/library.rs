//! `mondai library`: adds files to a library of passages, and shows what is in one.

use super::chosen_library;
use crate::config::{LibraryFlags, LibrarySettings, Sources};
use crate::library::{DocumentReader, Files, Library, LibraryWriter, ReadOptions};
use anyhow::{Context, Result, anyhow, bail};
use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Keep passages to ask about, so that topics rest on texts of your own
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct LibraryVerb {
    #[command(subcommand)]
    verb: Verb,
}

const EXAMPLES: &str = "\
Examples:
  mondai library add notes/ lecture.html --library my-library
  mondai library add wiki.jsonl --library my-library --licence CC-BY-SA-4.0
  mondai library search volcanoes
  mondai serve --library my-library";

#[derive(Debug, Subcommand)]
enum Verb {
    Add(Add),
    List(List),
    Search(Search),
}

/// Add text, Markdown and HTML files, and lines of JSON
///
/// A file is one document, and so is a line of JSON: {"text", "title", "id", "licence", "source", "language"},
/// of which only the text is needed. Adding a document again replaces it. Either all of it is added or, after
/// any error, nothing.
#[derive(Debug, Args)]
struct Add {
    /// Files, or folders whose .txt, .md, .html and .jsonl files are added
    #[arg(required = true, value_name = "FILE|DIR")]
    paths: Vec<PathBuf>,
    /// The licence of what does not name one
    #[arg(long, value_name = "NAME")]
    licence: Option<String>,
    /// The language of what does not name one, as a tag such as en or ja; guessed where left out
    #[arg(long, value_name = "TAG")]
    language: Option<String>,
    #[command(flatten)]
    library: LibraryFlags,
}

/// List the documents of a library
#[derive(Debug, Args)]
struct List {
    #[command(flatten)]
    library: LibraryFlags,
}

/// Show the passages a topic would be asked about
#[derive(Debug, Args)]
struct Search {
    topic: String,
    /// The language of the passages
    #[arg(long, value_name = "TAG", default_value = "en")]
    language: String,
    /// Passages to show
    #[arg(long, value_name = "N", default_value_t = 5)]
    count: usize,
    #[command(flatten)]
    library: LibraryFlags,
}

impl LibraryVerb {
    pub(super) fn run(self) -> Result<()> {
        match self.verb {
            Verb::Add(add) => add.run(),
            Verb::List(list) => list.run(),
            Verb::Search(search) => search.run(),
        }
    }
}

impl Add {
    fn run(self) -> Result<()> {
        let settings = settings(self.library)?;
        let Some(folder) = settings.folder() else {
            bail!("say which library to add to: --library DIR, a folder that may not be there yet");
        };
        let mut files = Files::default();
        for path in &self.paths {
            let under = Files::under(path)?;
            files.readable.extend(under.readable);
            files.others += under.others;
        }
        let options = ReadOptions { licence: self.licence, language: self.language.clone() };
        let mut reader = DocumentReader::new(options)
            .map_err(|reason| anyhow!("--language {}: it {reason}", self.language.unwrap_or_default()))?;
        let (documents, passages) = add(&files.readable, folder, &mut reader)?;
        eprintln!(
            "{documents} documents, {passages} passages, are in the library {}; `mondai serve --library {}` asks about them",
            folder.display(),
            folder.display()
        );
        if files.others > 0 {
            eprintln!("{} files of other kinds were left out", files.others);
        }
        Ok(())
    }
}

/// Adds all the files or none; returns how many documents and passages they were.
fn add(files: &[PathBuf], folder: &Path, reader: &mut DocumentReader) -> Result<(usize, usize)> {
    let mut writer = LibraryWriter::open(folder)?;
    let size = |path: &PathBuf| fs::metadata(path).map_or(0, |file| file.len());
    let bar = progress_bar(files.iter().map(size).sum());
    let (mut documents, mut passages) = (0, 0);
    for path in files {
        let mut read_bytes = 0;
        reader
            .read(path, &mut |document| {
                documents += 1;
                passages += writer.add(&document)?;
                read_bytes += document.text.len() as u64;
                bar.inc(document.text.len() as u64);
                Ok(())
            })
            .context("nothing was added")?;
        // What was not text was read too.
        bar.inc(size(path).saturating_sub(read_bytes));
    }
    bar.set_message("writing");
    writer.commit()?;
    bar.finish_and_clear();
    Ok((documents, passages))
}

/// A bar on standard error; nothing when that is not a terminal.
fn progress_bar(bytes: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{msg} {wide_bar} {bytes} of {total_bytes}, {eta} left")
        .expect("the template is valid");
    ProgressBar::new(bytes).with_style(style).with_message("adding")
}

impl List {
    fn run(self) -> Result<()> {
        let library = opened(self.library)?;
        let mut out = io::stdout().lock();
        for shelved in library.documents()? {
            writeln!(
                out,
                "{:<40} {} {:>4} passages  {}  ({})",
                shelved.id,
                shelved.language,
                shelved.passages,
                shelved.title,
                shelved.licence.as_deref().unwrap_or("no licence named"),
            )?;
        }
        Ok(())
    }
}

impl Search {
    fn run(self) -> Result<()> {
        let library = opened(self.library)?;
        let found = library.find(&self.topic, &self.language, self.count)?;
        let mut out = io::stdout().lock();
        for passage in &found.passages {
            let licence = passage.licence.as_deref().unwrap_or("no licence named");
            writeln!(out, "{}  ({}, {licence})\n{}\n", passage.title, passage.document, passage.text)?;
        }
        if found.passages.is_empty() {
            bail!("no passage is about {:?}; a quiz on it would come from the model's memory", self.topic);
        }
        Ok(())
    }
}

fn settings(flags: LibraryFlags) -> Result<LibrarySettings> {
    Ok(LibrarySettings::resolve(flags, &mut Sources::open(None)?)?)
}

fn opened(flags: LibraryFlags) -> Result<Library> {
    chosen_library(&settings(flags)?)?
        .context("`--library none` is no library; name a folder, or leave it out")
}
