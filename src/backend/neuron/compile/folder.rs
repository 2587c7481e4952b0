//! The folder that an artifact is made in.

use super::{
    CompileError, Event, Wanted,
    failure::{Failure, FailureCause, end_of_log},
};
use crate::backend::neuron::{
    LNC, Target,
    artifact::{self, Digest},
    hlo::Bucket,
    neff::Neff,
    neuronx_cc::NeuronxCc,
    programs::{ProgramSet, file_stem},
    sidecar::Sidecar,
};
use crate::model::Model;
use std::{
    collections::BTreeSet,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::atomic::AtomicBool,
};

/// What the folders that programs are made in begin with, inside the artifact's own: moving a file out of one is a
/// rename.
const SCRATCH_PREFIX: &str = ".compile-";

/// What came of compiling a program.
pub(super) enum Made {
    Neff { bytes: u64 },
    Nothing(Failure),
    Stopped,
}

/// The artifact's folder, ours alone while this lives.
pub(super) struct Folder {
    /// Absolute: the compiler works elsewhere.
    path: PathBuf,
    _lock: File,
}

impl Folder {
    pub(super) fn prepare(path: &Path) -> Result<Self, CompileError> {
        let write = |source| CompileError::Write { path: path.to_path_buf(), source };
        fs::create_dir_all(path).map_err(write)?;
        let path = path.canonicalize().map_err(write)?;
        let lock = File::open(&path).map_err(write)?;
        if lock.try_lock().is_err() {
            return Err(CompileError::Busy { folder: path });
        }
        let folder = Self { path, _lock: lock };
        for entry in folder.entries()? {
            if entry.starts_with(SCRATCH_PREFIX) {
                remove_dir_all(&folder.path.join(entry))?;
            }
        }
        Ok(folder)
    }

    pub(super) fn version(
        &self,
        compiler: &NeuronxCc,
        stop: &AtomicBool,
    ) -> Result<Option<String>, CompileError> {
        let scratch = self.scratch("version")?;
        let version = compiler.version(&scratch, stop);
        remove_dir_all(&scratch)?;
        Ok(version?)
    }

    /// Whether a program is there, whole, and as it would be made now.
    pub(super) fn holds(&self, wanted: &Wanted) -> bool {
        let path = self.file(&wanted.stem, "neff");
        Sidecar::read(&self.file(&wanted.stem, "json")).is_ok_and(|sidecar| {
            let is_same = sidecar.compiled.as_ref().is_some_and(|compiled| compiled.key == wanted.key);
            is_same && Digest::of(&path).is_ok_and(|neff| sidecar == wanted.sidecar(neff))
        })
    }

    /// Compiles a program, and puts it where it belongs if that goes well.
    pub(super) fn make(
        &self,
        wanted: &Wanted,
        compiler: &NeuronxCc,
        stop: &AtomicBool,
    ) -> Result<Made, CompileError> {
        let scratch = self.scratch(&wanted.stem)?;
        let [hlo, neff, log] = [
            scratch.join(format!("{}.hlo.pb", wanted.stem)),
            scratch.join(format!("{}.neff", wanted.stem)),
            self.file(&wanted.stem, "log"),
        ];
        write(&hlo, &wanted.hlo)?;
        let mut args = vec!["compile".into(), hlo.into_os_string()];
        args.extend(wanted.flags.iter().map(Into::into));
        args.extend(["--output".into(), neff.clone().into_os_string()]);
        let cause = match compiler.run(&args, &scratch, &log, stop) {
            Ok(None) => {
                remove_dir_all(&scratch)?;
                return Ok(Made::Stopped);
            }
            Ok(Some(status)) if status.success() => match Neff::open(&neff) {
                Ok(_) => {
                    let bytes = self.put(wanted, &scratch, &neff)?;
                    return Ok(Made::Neff { bytes });
                }
                Err(error) => FailureCause::NoNeff(error),
            },
            Ok(Some(status)) => FailureCause::Status(status),
            Err(error) => FailureCause::Run(error),
        };
        let said = end_of_log(&log).unwrap_or_default();
        Ok(Made::Nothing(Failure { program: wanted.stem.clone(), cause, said, log, scratch }))
    }

    /// The sidecar goes first and comes last: a NEFF never has another's.
    fn put(&self, wanted: &Wanted, scratch: &Path, neff: &Path) -> Result<u64, CompileError> {
        let digest = Digest::of(neff).map_err(|source| CompileError::Read { path: neff.into(), source })?;
        let bytes = digest.bytes;
        let [new, json] = [scratch.join("sidecar.json"), self.file(&wanted.stem, "json")];
        write(&new, wanted.sidecar(digest).to_json().as_bytes())?;
        remove_file(&json)?;
        for (from, to) in [(neff, &self.file(&wanted.stem, "neff")), (&new, &json)] {
            fs::rename(from, to).map_err(|source| CompileError::Write { path: to.clone(), source })?;
        }
        remove_dir_all(scratch)?;
        Ok(bytes)
    }

    /// Removes what cannot run with the programs of the set, which are all there.
    pub(super) fn sweep(
        &self,
        model: &Model,
        set: &ProgramSet,
        target: Target,
        watch: &dyn Fn(Bucket, Event),
    ) -> Result<(), CompileError> {
        // Only what has a name that we give, and one of the two without the other as well.
        let entries = self.entries()?;
        let stems =
            entries.iter().filter_map(|entry| entry.strip_suffix(".neff").or(entry.strip_suffix(".json")));
        let buckets: BTreeSet<Bucket> = stems.filter_map(artifact::bucket_of).collect();
        for bucket in buckets.into_iter().filter(|bucket| !set.buckets.contains(bucket)) {
            let fits = self.fits(model, set, target, bucket);
            if !fits {
                for ending in ["json", "neff", "log"] {
                    remove_file(&self.file(&file_stem(bucket), ending))?;
                }
            }
            watch(bucket, if fits { Event::Kept } else { Event::Removed });
        }
        Ok(())
    }

    /// Whether a program that is there is whole, and could be one of the set.
    fn fits(&self, model: &Model, set: &ProgramSet, target: Target, bucket: Bucket) -> bool {
        let stem = file_stem(bucket);
        let Ok(mut sidecar) = Sidecar::read(&self.file(&stem, "json")) else { return false };
        let Some(compiled) = sidecar.compiled.take() else { return false };
        let neff = Digest { bytes: compiled.neff_bytes, sha256: compiled.neff_sha256 };
        (compiled.target, compiled.lnc) == (target, LNC)
            && Digest::of(&self.file(&stem, "neff")).is_ok_and(|found| found == neff)
            && set.write(&model.graph, bucket).is_ok_and(|program| program.sidecar == sidecar)
    }

    fn file(&self, stem: &str, ending: &str) -> PathBuf {
        self.path.join(format!("{stem}.{ending}"))
    }

    /// Sorted; those whose names are not Unicode are none of ours.
    fn entries(&self) -> Result<Vec<String>, CompileError> {
        let read = |source| CompileError::Read { path: self.path.clone(), source };
        let mut entries = Vec::new();
        for entry in fs::read_dir(&self.path).map_err(read)? {
            entries.extend(entry.map_err(read)?.file_name().into_string());
        }
        entries.sort();
        Ok(entries)
    }

    fn scratch(&self, name: &str) -> Result<PathBuf, CompileError> {
        let path = self.path.join(format!("{SCRATCH_PREFIX}{name}"));
        fs::create_dir(&path).map_err(|source| CompileError::Write { path: path.clone(), source })?;
        Ok(path)
    }
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), CompileError> {
    fs::write(path, bytes).map_err(|source| CompileError::Write { path: path.to_path_buf(), source })
}

fn remove_file(path: &Path) -> Result<(), CompileError> {
    removed(path, fs::remove_file(path))
}

fn remove_dir_all(path: &Path) -> Result<(), CompileError> {
    removed(path, fs::remove_dir_all(path))
}

/// What is not there need not be removed.
fn removed(path: &Path, result: io::Result<()>) -> Result<(), CompileError> {
    match result {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(CompileError::Write { path: path.to_path_buf(), source })
        }
        _ => Ok(()),
    }
}
