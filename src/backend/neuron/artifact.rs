//! A folder of compiled programs, opened: checked to be whole, of one make, and this model's.
//!
//! Each program is written again from the model and compared by hash, so that another model, another context or
//! another version of mondai is found here and not by wrong tokens. Weights are not part of a program: one
//! artifact serves every checkpoint of a model.

use super::{
    Target,
    compile::key,
    hlo::{ArrayShape, Bucket, CachePlan, Input, Sampling, Variant},
    neff::{Neff, NeffError},
    programs::{Program as Written, ProgramError, ProgramSet, file_stem},
    sidecar::{Bound, Compiled, Sidecar, SidecarError, hexadecimal},
};
use crate::model::Model;
use sha2::{Digest as _, Sha256};
use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
};

/// Programs that can be loaded.
#[derive(Clone, Debug)]
pub struct Artifact {
    /// The cache they share.
    pub plan: CachePlan,
    /// Of its ranks, each is one of the logical cores that share the model.
    pub variant: Variant,
    /// To be compared with the device.
    pub target: Target,
    /// Physical cores that make the logical core they run on.
    pub lnc: u32,
    /// By bucket; at least one.
    pub programs: Vec<Program>,
}

#[derive(Clone, Debug)]
pub struct Program {
    pub bucket: Bucket,
    /// Checked when the artifact was opened.
    pub neff: PathBuf,
    /// In the order of the program's parameters.
    pub inputs: Vec<Input>,
    /// The logits, what is drawn from them if the device does that, then the caches.
    pub outputs: Vec<Output>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    pub name: String,
    pub shape: ArrayShape,
    /// The input whose memory it is written to.
    pub replaces: Option<String>,
}

#[derive(Debug, thiserror::Error)]
pub enum ArtifactError {
    #[error(
        "there are no compiled programs in {folder}; run `mondai compile --model {model} --target inf2`, or the target that the device is"
    )]
    Nothing { folder: PathBuf, model: String },
    #[error("cannot read {path}")]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the artifact cannot be used")]
    Sidecar(#[from] SidecarError),
    #[error("{path} has no {missing} beside it; run `mondai compile` again, or remove it")]
    Half { path: PathBuf, missing: String },
    #[error("{path} is of HLO that was not compiled; run `mondai compile` with --target, or remove it")]
    NotCompiled { path: PathBuf },
    #[error("{path} is of {found}, not of what its name says; run `mondai compile` again")]
    Misnamed { path: PathBuf, found: String },
    #[error(
        "{path} is of {found}, and {other} of {expected}: programs of an artifact share these; run `mondai compile` again, which removes what does not belong"
    )]
    Mixed { path: PathBuf, found: String, other: PathBuf, expected: String },
    #[error(
        "{path} is for a context of {found}, longer than the {limit} of the model {model}; run `mondai compile --model {model}`"
    )]
    Context { path: PathBuf, found: usize, model: String, limit: usize },
    #[error("{path} is of another model than {model}: {difference}; run `mondai compile --model {model}`")]
    OtherModel { path: PathBuf, model: String, difference: String },
    #[error(
        "{path} is not what is written for {model} now (HLO {found}, expected {expected}): it is of another version of mondai, or of a model of the same shapes; run `mondai compile --model {model}`"
    )]
    OtherProgram { path: PathBuf, model: String, found: String, expected: String },
    #[error(
        "{path} was changed after it was written: its {field} does not follow from the rest; run `mondai compile` again"
    )]
    Changed { path: PathBuf, field: &'static str },
    #[error("{path} is of a program that cannot be; run `mondai compile` again")]
    Program {
        path: PathBuf,
        #[source]
        source: ProgramError,
    },
    #[error("{path} is no NEFF; copy it again, or run `mondai compile` again")]
    NotNeff {
        path: PathBuf,
        #[source]
        source: NeffError,
    },
    #[error(
        "{path} is damaged: {found}, and its sidecar says {expected}; copy it again, or run `mondai compile` again"
    )]
    Damaged { path: PathBuf, found: String, expected: String },
}

/// Where a model's programs are, unless somewhere else is named.
pub fn default_folder(models_dir: &Path, model: &str, target: Target) -> PathBuf {
    models_dir.join(model).join("neuron").join(target.name())
}

impl Artifact {
    /// Opens a folder, reading all of it: some 30 ms a program, and what hashing its NEFF takes.
    ///
    /// # Errors
    /// [`ArtifactError`]: what was found, what was expected, and what to do.
    pub fn open(folder: &Path, model: &Model) -> Result<Self, ArtifactError> {
        let mut sidecars = Vec::new();
        for stem in stems(folder, &model.name)? {
            sidecars.push(Found::read(folder, &stem)?);
        }
        let Some(first) = sidecars.first() else {
            return Err(ArtifactError::Nothing { folder: folder.to_path_buf(), model: model.name.clone() });
        };
        for found in &sidecars {
            found.check_same_make(first)?;
        }
        let (plan, variant) = (first.sidecar.plan(), first.sidecar.variant());
        let set = ProgramSet { plan, variant, buckets: Vec::new() };
        let mut artifact = Self {
            plan,
            variant,
            target: first.compiled.target,
            lnc: first.compiled.lnc,
            programs: Vec::with_capacity(sidecars.len()),
        };
        for found in &sidecars {
            let written = found.check_model(&set, model)?;
            found.check_neff()?;
            artifact.programs.push(Program::new(written, found.neff.clone()));
        }
        artifact.programs.sort_unstable_by_key(|program| program.bucket);
        Ok(artifact)
    }
}

impl Program {
    fn new(written: Written, neff: PathBuf) -> Self {
        let Written { bucket, lowered, sidecar, .. } = written;
        let outputs = sidecar.outputs.into_iter().map(|output| Output {
            name: output.name,
            shape: ArrayShape::new(output.element, &output.shape),
            replaces: output.replaces,
        });
        Self { bucket, neff, inputs: lowered.inputs, outputs: outputs.collect() }
    }
}

/// What the ranks of [`Artifact::variant`] will be, as far as it can be told without the model: of the first program whose sidecar
/// can be read.
pub(super) fn ranks_of(folder: &Path) -> Option<usize> {
    let stems = stems(folder, "").ok()?;
    let mut sidecars =
        stems.iter().filter_map(|stem| Sidecar::read(&folder.join(format!("{stem}.json"))).ok());
    sidecars.next().map(|sidecar| sidecar.tensor_parallel)
}

/// The programs' names, of NEFFs and sidecars alike, sorted. Other files are passed over.
fn stems(folder: &Path, model: &str) -> Result<BTreeSet<String>, ArtifactError> {
    let read = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => {
            ArtifactError::Nothing { folder: folder.to_path_buf(), model: model.to_owned() }
        }
        _ => ArtifactError::Read { path: folder.to_path_buf(), source },
    };
    let mut stems = BTreeSet::new();
    for entry in fs::read_dir(folder).map_err(read)? {
        let name = entry.map_err(read)?.file_name().to_string_lossy().into_owned();
        let stem = name.strip_suffix(".neff").or_else(|| name.strip_suffix(".json"));
        stems.extend(stem.map(str::to_owned));
    }
    Ok(stems)
}

/// The bucket of `decode-4x1x512`.
pub(super) fn bucket_of(stem: &str) -> Option<Bucket> {
    let bucket = stem.rsplit('-').next()?.parse().ok()?;
    (file_stem(bucket) == stem).then_some(bucket)
}

/// A sidecar and the NEFF it is of.
struct Found {
    path: PathBuf,
    neff: PathBuf,
    sidecar: Sidecar,
    compiled: Compiled,
}

impl Found {
    fn read(folder: &Path, stem: &str) -> Result<Self, ArtifactError> {
        let [path, neff] = ["json", "neff"].map(|ending| folder.join(format!("{stem}.{ending}")));
        let missing = |of: &str| format!("{stem}.{of}");
        if !path.is_file() {
            return Err(ArtifactError::Half { path: neff, missing: missing("json") });
        }
        let sidecar = Sidecar::read(&path)?;
        let Some(compiled) = sidecar.compiled.clone() else {
            return Err(ArtifactError::NotCompiled { path });
        };
        if !neff.is_file() {
            return Err(ArtifactError::Half { path, missing: missing("neff") });
        }
        if bucket_of(stem) != Some(sidecar.bucket()) {
            let found = format!("the bucket {}", sidecar.bucket());
            return Err(ArtifactError::Misnamed { path, found });
        }
        Ok(Self { path, neff, sidecar, compiled })
    }

    fn check_same_make(&self, first: &Self) -> Result<(), ArtifactError> {
        let [found, expected] = [self, first].map(|program| {
            let Found { sidecar, compiled: Compiled { target, lnc, .. }, .. } = program;
            let CachePlan { slots, context } = sidecar.plan();
            let Variant { precision, ranks, sampling } = sidecar.variant();
            let precision = precision.name();
            let mut make = format!("{slots} slots of {context} in {precision} for {target} with --lnc={lnc}");
            if ranks != 1 {
                make += &format!(" and --tensor-parallel {ranks}");
            }
            if sampling != Sampling::Host {
                make += &format!(" and --sampling {}", sampling.name());
            }
            make
        });
        if found == expected {
            return Ok(());
        }
        let (path, other) = (self.path.clone(), first.path.clone());
        Err(ArtifactError::Mixed { path, found, other, expected })
    }

    /// Writes the program again, and compares.
    fn check_model(&self, set: &ProgramSet, model: &Model) -> Result<Written, ArtifactError> {
        let Self { path, sidecar, compiled, .. } = self;
        let (path, name) = (path.clone(), model.name.clone());
        let (found, limit) = (set.plan.context, model.config.context_len);
        if found > limit {
            return Err(ArtifactError::Context { path, found, model: name, limit });
        }
        let written = match set.write(&model.graph, sidecar.bucket()) {
            Ok(written) => written,
            Err(source) => return Err(ArtifactError::Program { path, source }),
        };
        if written.sidecar.hlo_sha256 != sidecar.hlo_sha256 {
            return Err(match difference(&sidecar.inputs, &written.sidecar.inputs) {
                Some(difference) => ArtifactError::OtherModel { path, model: name, difference },
                None => ArtifactError::OtherProgram {
                    path,
                    model: name,
                    found: sidecar.hlo_sha256.clone(),
                    expected: written.sidecar.hlo_sha256,
                },
            });
        }
        if (Sidecar { compiled: None, ..sidecar.clone() }) != written.sidecar {
            return Err(ArtifactError::Changed { path, field: "description" });
        }
        let Compiled { compiler, flags, target, lnc, .. } = compiled;
        if key(&written.hlo, compiler, flags, *target, *lnc, set.variant.ranks) != compiled.key {
            return Err(ArtifactError::Changed { path, field: "key" });
        }
        Ok(written)
    }

    fn check_neff(&self) -> Result<(), ArtifactError> {
        let path = self.neff.clone();
        let expected = Digest { bytes: self.compiled.neff_bytes, sha256: self.compiled.neff_sha256.clone() };
        let damaged = |found: String, expected: String| {
            Err(ArtifactError::Damaged { path: path.clone(), found, expected })
        };
        let neff = match Neff::open(&path) {
            Ok(neff) => neff,
            Err(source) => return Err(ArtifactError::NotNeff { path, source }),
        };
        if neff.file_bytes != expected.bytes {
            let bytes = |bytes: u64| format!("{bytes} bytes");
            return damaged(bytes(neff.file_bytes), bytes(expected.bytes));
        }
        // Files from before logical cores say 0.
        if ![0, self.compiled.lnc].contains(&neff.header.lnc) {
            let lnc = |lnc: u32| format!("{lnc} physical cores a logical core");
            return damaged(lnc(neff.header.lnc), lnc(self.compiled.lnc));
        }
        match Digest::of(&path) {
            Err(source) => Err(ArtifactError::Read { path, source }),
            Ok(found) if found != expected => {
                let sha256 = |digest: Digest| format!("SHA-256 {}", digest.sha256);
                damaged(sha256(found), sha256(expected))
            }
            Ok(_) => Ok(()),
        }
    }
}

/// The first input in which a program differs from what the model's would be.
fn difference(found: &[Bound], expected: &[Bound]) -> Option<String> {
    let describe = |bound: &Bound| {
        let sizes: Vec<String> = bound.shape.iter().map(usize::to_string).collect();
        format!("`{}` of {} {}", bound.name, bound.element.name(), sizes.join(" x "))
    };
    let mut pairs = found.iter().zip(expected);
    if let Some((found, expected)) = pairs.find(|(found, expected)| found != expected) {
        return Some(format!("it takes {}, and the model's takes {}", describe(found), describe(expected)));
    }
    let (found, expected) = (found.len(), expected.len());
    (found != expected).then(|| format!("it takes {found} inputs, and the model's takes {expected}"))
}

/// What a file is known by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Digest {
    pub(super) bytes: u64,
    pub(super) sha256: String,
}

impl Digest {
    pub(super) fn of(path: &Path) -> io::Result<Self> {
        let mut file = File::open(path)?;
        let (mut hash, mut bytes, mut buffer) = (Sha256::new(), 0, vec![0; 1 << 20]);
        loop {
            match file.read(&mut buffer)? {
                0 => return Ok(Self { bytes, sha256: hexadecimal(&hash.finalize()) }),
                read => {
                    hash.update(&buffer[..read]);
                    bytes += read as u64;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_is_found_in_the_name_it_gives() {
        for name in ["decode-4x1x512", "short-rows-1x8x64", "prefill-1x64x64"] {
            assert_eq!(bucket_of(name).map(file_stem).as_deref(), Some(name));
        }
        for name in ["decode-1x8x64", "4x1x512", "decode-04x1x512", "x-decode-4x1x512", "", "-"] {
            assert_eq!(bucket_of(name), None, "{name}");
        }
    }
}
