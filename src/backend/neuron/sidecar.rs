//! What whoever runs a program must know of it: a JSON file beside the HLO or the NEFF. Nothing of this can be read
//! from a compiled program.

use super::{
    hlo::{Bucket, CachePlan, ElementType, InputSource, Lowered, Precision, Sampling, Variant},
    programs::ProgramSet,
    target::Target,
};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::{
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
};

/// No sidecar is larger than this: the largest models have some thousand inputs, of 150 bytes each.
const MAX_BYTES: u64 = 16 << 20;

/// The fields of the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sidecar {
    /// Of the HLO's bytes, in hexadecimal digits.
    pub hlo_sha256: String,
    pub family: String,
    pub precision: Precision,
    pub bucket: Sizes,
    pub cache: CacheSizes,
    /// Cores that share the model; shapes are of one's part.
    pub tensor_parallel: usize,
    /// Who chooses tokens; the host, in a file that does not say.
    #[serde(default)]
    pub sampling: Sampling,
    /// In the order of the program's parameters.
    pub inputs: Vec<Bound>,
    /// In the order of its results.
    pub outputs: Vec<Yielded>,
    /// Of the NEFF beside it; `None` if there is the HLO alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compiled: Option<Compiled>,
}

/// The NEFF, and how it came about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Compiled {
    /// SHA-256 of everything that the NEFF depends on: see [`key`](super::compile::key).
    pub key: String,
    pub target: Target,
    pub lnc: u32,
    /// What `neuronx-cc --version` says.
    pub compiler: String,
    pub flags: Vec<String>,
    pub neff_sha256: String,
    pub neff_bytes: u64,
}

/// Slots by row width by context.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sizes {
    pub slots: usize,
    pub width: usize,
    pub context: usize,
}

/// The cache's, which has a slot more for padding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CacheSizes {
    pub slots: usize,
    pub context: usize,
}

/// An input and what it is bound to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bound {
    pub name: String,
    #[serde(rename = "type")]
    pub element: ElementType,
    pub shape: Vec<usize>,
    /// `tokens`, `positions`, `slots`, `selected`, `drawn after`, `allowed`, `draw`, `cache`, `table` or `weight`.
    pub is: String,
    /// The dimension that each core has a part of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub split: Option<usize>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Yielded {
    pub name: String,
    #[serde(rename = "type")]
    pub element: ElementType,
    pub shape: Vec<usize>,
    /// The input whose memory it is written to.
    pub replaces: Option<String>,
}

impl Sidecar {
    pub(super) fn of(lowered: &Lowered, set: &ProgramSet, bucket: Bucket, hlo: &[u8]) -> Self {
        let &ProgramSet { plan, variant: Variant { precision, ranks, sampling }, .. } = set;
        let Lowered { module, inputs, outputs } = lowered;
        let bound = inputs.iter().map(|input| Bound {
            name: input.name.clone(),
            element: input.shape.element,
            shape: input.shape.dimensions.clone(),
            is: source_name(input.source).to_owned(),
            split: match input.source {
                InputSource::Weight { split, .. } => split,
                _ => None,
            },
        });
        let results = module.host_program_shape.result.arrays().iter().zip(outputs).enumerate();
        let results = results.map(|(idx, (shape, name))| {
            let alias = module.aliases.iter().find(|alias| alias.output == idx);
            let replaces = alias.map(|alias| inputs[alias.parameter].name.clone());
            let (element, shape) = (shape.element, shape.dimensions.clone());
            Yielded { name: name.clone(), element, shape, replaces }
        });
        Self {
            hlo_sha256: sha256(hlo),
            family: bucket.family().name().to_owned(),
            precision,
            bucket: Sizes { slots: bucket.slots, width: bucket.width, context: bucket.context },
            cache: CacheSizes { slots: plan.slots, context: plan.context },
            tensor_parallel: ranks,
            sampling,
            inputs: bound.collect(),
            outputs: results.collect(),
            compiled: None,
        }
    }

    /// # Errors
    /// [`SidecarError`]: the file cannot be read, or is no sidecar.
    pub fn read(path: &Path) -> Result<Self, SidecarError> {
        let mut json = Vec::new();
        File::open(path)
            .and_then(|file| file.take(MAX_BYTES).read_to_end(&mut json))
            .map_err(|source| SidecarError::Read { path: path.to_path_buf(), source })?;
        serde_json::from_slice(&json)
            .map_err(|source| SidecarError::Malformed { path: path.to_path_buf(), source })
    }

    /// That of an HLO file, and how many bytes the HLO is.
    ///
    /// # Errors
    /// [`SidecarError`]: one of the two cannot be read, or they do not belong to each other.
    pub fn of_hlo(hlo_path: &Path) -> Result<(Self, usize), SidecarError> {
        let hlo = fs::read(hlo_path)
            .map_err(|source| SidecarError::Read { path: hlo_path.to_path_buf(), source })?;
        let sidecar = Self::read(&Self::path(hlo_path))?;
        let actual = sha256(&hlo);
        if sidecar.hlo_sha256 != actual {
            let expected = sidecar.hlo_sha256;
            return Err(SidecarError::OtherHlo { path: hlo_path.to_path_buf(), actual, expected });
        }
        Ok((sidecar, hlo.len()))
    }

    pub(super) fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("names and numbers are JSON") + "\n"
    }

    /// The cache that the program shares with the others of its model.
    pub fn plan(&self) -> CachePlan {
        CachePlan { slots: self.cache.slots, context: self.cache.context }
    }

    pub fn variant(&self) -> Variant {
        let &Self { precision, tensor_parallel: ranks, sampling, .. } = self;
        Variant { precision, ranks, sampling }
    }

    pub fn bucket(&self) -> Bucket {
        let Sizes { slots, width, context } = self.bucket;
        Bucket { slots, width, context }
    }

    /// The file beside an HLO file: `decode-1x1x256.json` beside `decode-1x1x256.hlo.pb`.
    pub(super) fn path(hlo_path: &Path) -> PathBuf {
        hlo_path.with_extension("").with_extension("json")
    }
}

#[derive(Debug, thiserror::Error)]
pub enum SidecarError {
    #[error("cannot read {path}; a program is its HLO and the JSON file beside it")]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{path} is not what `mondai compile` writes beside a program; run it again")]
    Malformed {
        path: PathBuf,
        #[source]
        source: serde_json::Error,
    },
    #[error(
        "{path}: its SHA-256 is {actual}, and the JSON file beside it is of {expected}; run `mondai compile` again"
    )]
    OtherHlo { path: PathBuf, actual: String, expected: String },
}

fn sha256(bytes: &[u8]) -> String {
    hexadecimal(&Sha256::digest(bytes))
}

pub(super) fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn source_name(source: InputSource) -> &'static str {
    match source {
        InputSource::Tokens => "tokens",
        InputSource::Positions => "positions",
        InputSource::Slots => "slots",
        InputSource::Selected => "selected",
        InputSource::DrawnAfter => "drawn after",
        InputSource::Allowed => "allowed",
        InputSource::DrawNumbers => "draw",
        InputSource::Cache => "cache",
        InputSource::Cosines | InputSource::Sines => "table",
        InputSource::Weight { .. } => "weight",
    }
}
