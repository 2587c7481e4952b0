//! Neuron's compiler, a program of AWS's: where it is, what it says of itself, and one run of it.
//!
//! It writes into its working directory and starts processes of its own, so that each run gets a folder and a
//! process group.

use rustix::process::{Pid, Signal, kill_process_group};
use std::{
    env,
    ffi::{OsStr, OsString},
    fs::{self, File},
    io::{self, Read},
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

const PROGRAM: &str = "neuronx-cc";
/// How often a run is looked at; each takes seconds at least.
const POLL: Duration = Duration::from_millis(20);
/// A run that was told to end has this long until it is made to.
const GRACE: Duration = Duration::from_secs(2);
/// More than the compiler ever says of its version.
const MAX_VERSION_BYTES: u64 = 16 << 10;

/// A compiler that was found.
#[derive(Clone, Debug)]
pub struct NeuronxCc {
    path: PathBuf,
}

#[derive(Debug, thiserror::Error)]
pub enum CompilerError {
    #[error("{path}, named as the Neuron compiler by {named_by}, is not a program; {INSTALL}")]
    NotThere { path: PathBuf, named_by: String },
    #[error("{PROGRAM}, the Neuron compiler, is in no folder of PATH ({folders}); {INSTALL}")]
    NotInPath { folders: String },
    #[error("{path} cannot be run")]
    Run {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{path} --version ended with {status}, and said: {said}")]
    Version { path: PathBuf, status: ExitStatus, said: String },
}

const INSTALL: &str = "it is the Python package neuronx-cc of AWS's own package index, for Linux on x86-64, and needs \
                       no device (AWS's Neuron setup guide, or the `compile` stage of Dockerfile.neuron); name it \
                       with --neuronx-cc or MONDAI_NEURONX_CC, or put it in PATH";

impl NeuronxCc {
    /// The compiler that was named, and by whom, or else the one in `PATH`.
    ///
    /// # Errors
    /// [`CompilerError::NotThere`], [`CompilerError::NotInPath`]: where it was looked for.
    pub fn find(named: Option<(&Path, String)>) -> Result<Self, CompilerError> {
        match named {
            Some((path, named_by)) => {
                Self::at(path).ok_or_else(|| CompilerError::NotThere { path: path.to_path_buf(), named_by })
            }
            None => Self::in_folders(&env::var_os("PATH").unwrap_or_default()),
        }
    }

    fn in_folders(path_variable: &OsStr) -> Result<Self, CompilerError> {
        env::split_paths(path_variable)
            .find_map(|folder| Self::at(&folder.join(PROGRAM)))
            .ok_or_else(|| CompilerError::NotInPath { folders: path_variable.to_string_lossy().into_owned() })
    }

    /// Absolute, since it is not run where we are.
    fn at(path: &Path) -> Option<Self> {
        let is_program =
            fs::metadata(path).is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0);
        is_program.then(|| std::path::absolute(path).ok()).flatten().map(|path| Self { path })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What it says of its version, in one line; `None` if it was stopped.
    ///
    /// It also names the machine it runs on (`Running on AMI ...`), which is left out: the same compiler
    /// elsewhere compiles the same.
    ///
    /// # Errors
    /// [`CompilerError::Run`], [`CompilerError::Version`].
    pub(super) fn version(&self, folder: &Path, stop: &AtomicBool) -> Result<Option<String>, CompilerError> {
        let error = |source| CompilerError::Run { path: self.path.clone(), source };
        let log = folder.join("version.txt");
        let Some(status) = self.run(&["--version".into()], folder, &log, stop).map_err(error)? else {
            return Ok(None);
        };
        let mut said = Vec::new();
        File::open(&log)
            .and_then(|file| file.take(MAX_VERSION_BYTES).read_to_end(&mut said))
            .map_err(error)?;
        let said = String::from_utf8_lossy(&said);
        let version = one_line(&said);
        if !status.success() || version.is_empty() {
            let said = if version.is_empty() { "nothing".to_owned() } else { version };
            return Err(CompilerError::Version { path: self.path.clone(), status, said });
        }
        Ok(Some(version))
    }

    /// Runs it in a folder, with what it says going to a log; `None` if it was stopped.
    ///
    /// # Errors
    /// It cannot be started, or not waited for.
    pub(super) fn run(
        &self,
        args: &[OsString],
        folder: &Path,
        log: &Path,
        stop: &AtomicBool,
    ) -> io::Result<Option<ExitStatus>> {
        let log = File::create(log)?;
        let mut child = Command::new(&self.path)
            .args(args)
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0)
            .spawn()?;
        loop {
            if let Some(status) = child.try_wait()? {
                return Ok(Some(status));
            }
            if stop.load(Ordering::Relaxed) {
                end(&mut child)?;
                return Ok(None);
            }
            thread::sleep(POLL);
        }
    }
}

/// Ends a run and what it started.
fn end(child: &mut Child) -> io::Result<()> {
    let group = Pid::from_child(child);
    // An error is that there is nobody left.
    let _ = kill_process_group(group, Signal::TERM);
    let deadline = Instant::now() + GRACE;
    while child.try_wait()?.is_none() && Instant::now() < deadline {
        thread::sleep(POLL);
    }
    let _ = kill_process_group(group, Signal::KILL);
    child.wait().map(drop)
}

fn one_line(said: &str) -> String {
    let lines = said.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("Running "));
    lines.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_of_the_compiler_not_of_the_machine() {
        let said = "NeuronX Compiler version 2.10.0.34+6c8792c6f\n\nPython version 3.8.10\n\nRunning on AMI ami-0\n\
                    Running in region usw2-az4\n";
        assert_eq!(one_line(said), "NeuronX Compiler version 2.10.0.34+6c8792c6f, Python version 3.8.10");
    }

    #[test]
    fn a_compiler_is_looked_for_where_it_may_be() {
        let folder = tempfile::tempdir().unwrap();
        let [empty, bin] = ["empty", "bin"].map(|name| folder.path().join(name));
        for folder in [&empty, &bin] {
            fs::create_dir(folder).unwrap();
        }
        let path = env::join_paths([&empty, &bin]).unwrap();
        let program = bin.join(PROGRAM);
        fs::write(&program, "").unwrap();
        // A file that cannot be run is passed over.
        let error = NeuronxCc::in_folders(&path).unwrap_err().to_string();
        assert!(
            error.contains(&*path.to_string_lossy()) && error.contains("AWS's Neuron setup guide"),
            "{error}"
        );
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(NeuronxCc::in_folders(&path).unwrap().path(), program);

        assert_eq!(NeuronxCc::find(Some((&program, "--x".to_owned()))).unwrap().path(), program);
        let error = NeuronxCc::find(Some((&bin, "flag".to_owned()))).unwrap_err().to_string();
        assert!(error.contains("named as the Neuron compiler by flag, is not a program"), "{error}");
    }
}
