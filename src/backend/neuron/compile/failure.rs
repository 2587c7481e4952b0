//! A run of the compiler that failed, as it is told.

use crate::backend::neuron::neff::NeffError;
use std::{
    fmt,
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::ExitStatus,
};

/// Of a failed run's log, this much of the end is looked at and this many lines are told.
const LOG_END_BYTES: u64 = 64 << 10;
const TOLD_LINES: usize = 12;
const TOLD_LINE_CHARS: usize = 400;

/// A run of the compiler that came to nothing.
#[derive(Debug)]
pub struct Failure {
    /// As its files are called.
    pub program: String,
    pub cause: FailureCause,
    /// The end of what the compiler said.
    pub said: Vec<String>,
    pub log: PathBuf,
    /// What it was given and what it left.
    pub scratch: PathBuf,
}

#[derive(Debug)]
pub enum FailureCause {
    Run(io::Error),
    Status(ExitStatus),
    /// It ended well.
    NoNeff(NeffError),
}

/// The last lines that tell of an error, or if there are none the last lines.
pub(super) fn end_of_log(log: &Path) -> io::Result<Vec<String>> {
    let mut file = File::open(log)?;
    let start = file.metadata()?.len().saturating_sub(LOG_END_BYTES);
    file.seek(SeekFrom::Start(start))?;
    let mut end = Vec::new();
    file.take(LOG_END_BYTES).read_to_end(&mut end)?;
    let end = String::from_utf8_lossy(&end);
    let lines: Vec<&str> = end.lines().filter(|line| !line.trim().is_empty()).collect();
    let is_error = |line: &str| line.to_ascii_lowercase().contains("error");
    let mut told: Vec<&str> = lines.iter().copied().filter(|line| is_error(line)).collect();
    if told.is_empty() {
        told = lines;
    }
    let told = &told[told.len().saturating_sub(TOLD_LINES)..];
    let line = |line: &&str| line.chars().filter(|c| !c.is_control()).take(TOLD_LINE_CHARS).collect();
    Ok(told.iter().map(line).collect())
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { program, cause, said, log, scratch } = self;
        write!(f, "{program} was not compiled: {cause}")?;
        for line in said {
            write!(f, "\n    {line}")?;
        }
        write!(f, "\n  all that it said: {}", log.display())?;
        write!(f, "\n  what it was given, and left: {}", scratch.display())
    }
}

impl fmt::Display for FailureCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        /// How a shell tells of a process that was killed, and how neuronx-cc does of one of its own.
        const KILLED: i32 = 137;
        match self {
            Self::Run(error) => write!(f, "neuronx-cc cannot be run: {error}"),
            Self::NoNeff(error) => {
                write!(f, "neuronx-cc ended well, but what it wrote is not a NEFF: {error}")
            }
            Self::Status(status) => {
                write!(f, "neuronx-cc ended with {status}")?;
                if status.signal() == Some(9) || status.code() == Some(KILLED) {
                    f.write_str("; if the machine ran out of memory, --jobs 1 takes less of it")?;
                }
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn of_a_log_the_errors_are_told() {
        let log = tempfile::NamedTempFile::new().unwrap();
        let told = |text: &str| {
            fs::write(log.path(), text).unwrap();
            end_of_log(log.path()).unwrap()
        };
        assert_eq!(told("begins\n\n2026 ERROR 12: \x1b[31mno\nends\n"), ["2026 ERROR 12: [31mno"]);
        assert_eq!(told("begins\n\nends\n"), ["begins", "ends"]);
        assert_eq!(told(""), [""; 0]);
        let many: String = (0..100_000).map(|line| format!("error {line}\n")).collect();
        let many = told(&many);
        assert_eq!((many.len(), many.last().map(String::as_str)), (TOLD_LINES, Some("error 99999")));
        assert_eq!(told(&"x".repeat(10_000))[0].len(), TOLD_LINE_CHARS);
    }
}
