//! A model's programs compiled: a folder of NEFFs, each with its sidecar and the compiler's log.
//!
//! What is there already and would come out the same is left as it is. A program is made in a folder of its own and
//! moved when it is whole, so that what lies in the artifact's folder is never half of one.

mod failure;
mod folder;

pub use failure::{Failure, FailureCause};

use super::{
    LNC, Target,
    artifact::Digest,
    hlo::Bucket,
    neuronx_cc::{CompilerError, NeuronxCc},
    programs::{Program, ProgramError, ProgramOptions, ProgramSet, file_stem},
    sidecar::{Compiled, Sidecar, hexadecimal},
};
use crate::model::Model;
use folder::{Folder, Made};
use sha2::{Digest as _, Sha256};
use std::{
    io,
    path::{Path, PathBuf},
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

/// The way programs are written and compiled, as far as neither the HLO nor the flags show it.
const EMITTER: &str = "1";

/// What is to be compiled.
#[derive(Clone, Debug)]
pub struct CompileOptions {
    pub programs: ProgramOptions,
    pub target: Target,
    /// Programs compiled at the same time.
    pub jobs: usize,
}

/// What becomes of a program, as it happens; from several threads.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Event {
    /// It is there already.
    Unchanged,
    Started,
    Compiled {
        bytes: u64,
        took: Duration,
    },
    Failed,
    /// Not asked for, and left: it can run with those that were.
    Kept,
    /// Not asked for, and of another model, cache, precision, number of cores or version of mondai.
    Removed,
}

#[derive(Debug, thiserror::Error)]
pub enum CompileError {
    #[error(transparent)]
    Program(#[from] ProgramError),
    #[error(transparent)]
    Compiler(#[from] CompilerError),
    #[error(
        "{ranks} cores of {target} cannot share a model: inf2 exchanges data among even numbers of cores, and trn1 among 2, 8, 16 or multiples of 32; choose another --tensor-parallel"
    )]
    Topology { target: Target, ranks: usize },
    #[error("another `mondai compile` is at work in {folder}")]
    Busy { folder: PathBuf },
    #[error("cannot write {path}")]
    Write {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot read {path}")]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// Those that were compiled by then stay.
    #[error("{}", failures(.0))]
    Failed(Vec<Failure>),
    #[error("stopped; the programs that were compiled by then are kept")]
    Stopped,
}

/// Compiles the programs that are not in the folder yet, which is made if it is not there.
///
/// When all that was asked for is there, programs that cannot run with it are removed; when one fails, those that
/// are being compiled are finished and no more are begun.
///
/// # Errors
/// [`CompileError`]; every program in the folder is whole, whatever happens.
pub fn compile(
    model: &Model,
    options: &CompileOptions,
    compiler: &NeuronxCc,
    folder: &Path,
    stop: &AtomicBool,
    watch: &(dyn Fn(Bucket, Event) + Sync),
) -> Result<(), CompileError> {
    let set = ProgramSet::new(model, &options.programs)?;
    let (target, ranks) = (options.target, set.variant.ranks);
    if !target.has_ring_of(ranks) {
        return Err(CompileError::Topology { target, ranks });
    }
    let folder = Folder::prepare(folder)?;
    let Some(version) = folder.version(compiler, stop)? else { return Err(CompileError::Stopped) };
    let mut wanted = Vec::new();
    for &bucket in &set.buckets {
        let program = Wanted::new(set.write(&model.graph, bucket)?, options.target, &version);
        if folder.holds(&program) {
            watch(bucket, Event::Unchanged);
        } else {
            wanted.push(program);
        }
    }

    compile_all(&folder, &wanted, options.jobs, compiler, stop, watch)?;
    folder.sweep(model, &set, options.target, watch)
}

/// Several at once, until one fails or all are there.
fn compile_all(
    folder: &Folder,
    wanted: &[Wanted],
    jobs: usize,
    compiler: &NeuronxCc,
    stop: &AtomicBool,
    watch: &(dyn Fn(Bucket, Event) + Sync),
) -> Result<(), CompileError> {
    let next = AtomicUsize::new(0);
    let is_over = AtomicBool::new(false);
    let failed = Mutex::new(Vec::new());
    let work = || {
        while let Some(program) = wanted.get(next.fetch_add(1, Ordering::Relaxed)) {
            if stop.load(Ordering::Relaxed) || is_over.load(Ordering::Relaxed) {
                break;
            }
            watch(program.bucket, Event::Started);
            let began = Instant::now();
            let made = folder.make(program, compiler, stop);
            if !matches!(made, Ok(Made::Neff { .. })) {
                is_over.store(true, Ordering::Relaxed);
            }
            match made? {
                Made::Neff { bytes } => {
                    watch(program.bucket, Event::Compiled { bytes, took: began.elapsed() });
                }
                Made::Nothing(failure) => {
                    failed.lock().expect("a worker does not panic").push(failure);
                    watch(program.bucket, Event::Failed);
                }
                Made::Stopped => break,
            }
        }
        Ok::<(), CompileError>(())
    };
    thread::scope(|scope| {
        let workers = (0..jobs.max(1).min(wanted.len())).map(|_| scope.spawn(work)).collect::<Vec<_>>();
        let results = workers.into_iter().map(|worker| worker.join().expect("a worker does not panic"));
        results.collect::<Result<(), _>>()
    })?;
    if stop.load(Ordering::Relaxed) {
        return Err(CompileError::Stopped);
    }
    match failed.into_inner().expect("a worker does not panic") {
        failed if failed.is_empty() => Ok(()),
        failed => Err(CompileError::Failed(failed)),
    }
}

/// By what a NEFF is found again: SHA-256 over the HLO and all else that it depends on, each with its length before
/// it.
pub fn key(hlo: &[u8], compiler: &str, flags: &[String], target: Target, lnc: u32, ranks: usize) -> String {
    let (flags, lnc, ranks) = (flags.join("\n"), lnc.to_string(), ranks.to_string());
    let parts = [
        hlo,
        compiler.as_bytes(),
        flags.as_bytes(),
        target.name().as_bytes(),
        lnc.as_bytes(),
        ranks.as_bytes(),
        EMITTER.as_bytes(),
    ];
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hexadecimal(&hash.finalize())
}

/// A program that is to be there.
struct Wanted {
    bucket: Bucket,
    stem: String,
    hlo: Vec<u8>,
    /// Of the HLO alone.
    sidecar: Sidecar,
    key: String,
    target: Target,
    compiler: String,
    flags: Vec<String>,
}

impl Wanted {
    fn new(program: Program, target: Target, compiler: &str) -> Self {
        let Program { bucket, hlo, sidecar, .. } = program;
        let flags = target.flags(bucket);
        let key = key(&hlo, compiler, &flags, target, LNC, sidecar.tensor_parallel);
        let compiler = compiler.to_owned();
        Self { bucket, stem: file_stem(bucket), hlo, sidecar, key, target, compiler, flags }
    }

    fn sidecar(&self, neff: Digest) -> Sidecar {
        let compiled = Compiled {
            key: self.key.clone(),
            target: self.target,
            lnc: LNC,
            compiler: self.compiler.clone(),
            flags: self.flags.clone(),
            neff_sha256: neff.sha256,
            neff_bytes: neff.bytes,
        };
        Sidecar { compiled: Some(compiled), ..self.sidecar.clone() }
    }
}

fn failures(failures: &[Failure]) -> String {
    let failures: Vec<String> = failures.iter().map(Failure::to_string).collect();
    failures.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_hangs_on_all_that_a_neff_depends_on() {
        let flags = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let base = key(b"hlo", "version 1", &flags("-O1 --x"), Target::Inf2, 1, 1);
        assert_eq!(base, key(b"hlo", "version 1", &flags("-O1 --x"), Target::Inf2, 1, 1));
        assert_eq!(base.len(), 64);
        for other in [
            key(b"hlp", "version 1", &flags("-O1 --x"), Target::Inf2, 1, 1),
            key(b"hlo", "version 2", &flags("-O1 --x"), Target::Inf2, 1, 1),
            key(b"hlo", "version 1", &flags("-O2 --x"), Target::Inf2, 1, 1),
            key(b"hlo", "version 1", &flags("-O1 --x"), Target::Trn1, 1, 1),
            key(b"hlo", "version 1", &flags("-O1 --x"), Target::Inf2, 2, 1),
            key(b"hlo", "version 1", &flags("-O1 --x"), Target::Inf2, 1, 2),
            // What stands in one part does not stand for the next.
            key(b"hlov", "ersion 1", &flags("-O1 --x"), Target::Inf2, 1, 1),
        ] {
            assert_ne!(base, other);
        }
    }
}
