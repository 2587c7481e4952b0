//! What the backend is asked for, beside what every backend is, and where the programs are then looked for.

use super::artifact::{default_folder, ranks_of};
use super::target::Target;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// What only this backend asks for.
#[derive(Clone, Debug)]
pub struct DeviceOptions {
    /// The Neuron runtime library; none: where its package puts it.
    pub library: Option<PathBuf>,
    /// The folder of compiled programs; none: the model's own, in the folder of models.
    pub programs: Option<PathBuf>,
    pub models_dir: PathBuf,
    /// How many cores to use, of those that the process may.
    pub cores: usize,
    /// At most as many as the programs have, of all replicas together; none: as many. The backend's own, since
    /// slots are compiled in.
    pub slots: Option<usize>,
    pub patience: Patience,
    pub progress: Progress,
}

/// Is told how many bytes of the weights each core has, and of how many, by the thread that opens the backend.
#[derive(Clone, Default)]
pub struct Progress(Option<Arc<dyn Fn(u64, u64) + Send + Sync>>);

impl Progress {
    pub fn new(tell: impl Fn(u64, u64) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(tell)))
    }

    pub(super) fn tell(&self, done: usize, all: usize) {
        if let Some(tell) = &self.0 {
            tell(done as u64, all as u64);
        }
    }
}

impl fmt::Debug for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Progress(..)" } else { "Progress" })
    }
}

/// How long a core may take before it is taken to hang.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// To open the runtime, or to load all programs.
    pub opening: Duration,
    pub step: Duration,
    /// To free what it has, when the backend closes.
    pub closing: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            opening: Duration::from_secs(600),
            step: Duration::from_secs(60),
            closing: Duration::from_secs(20),
        }
    }
}

impl DeviceOptions {
    /// The folder of the model's programs.
    pub(super) fn folder(&self, model: &str) -> Result<PathBuf, NoFolder> {
        match &self.programs {
            Some(folder) => Ok(folder.clone()),
            None => programs_folder(&self.models_dir, model),
        }
    }
}

impl Default for DeviceOptions {
    fn default() -> Self {
        Self {
            library: None,
            programs: None,
            models_dir: "models".into(),
            cores: 1,
            slots: None,
            patience: Patience::default(),
            progress: Progress::default(),
        }
    }
}

/// How many cores share the model in the programs that a server would open; 1 if there are none that can be told.
///
/// For what has to be known before the runtime library is opened: the programs are checked when they are.
pub fn ranks(options: &DeviceOptions, model: &str) -> usize {
    options.folder(model).ok().and_then(|folder| ranks_of(&folder)).unwrap_or(1)
}

/// The model's programs, if they are for one target.
fn programs_folder(models_dir: &Path, model: &str) -> Result<PathBuf, NoFolder> {
    let folders = Target::ALL.iter().map(|&target| (target, default_folder(models_dir, model, target)));
    let mut folders: Vec<_> = folders.filter(|(_, folder)| folder.is_dir()).collect();
    let folder = models_dir.join(model).join("neuron");
    let model = model.to_owned();
    match folders.len() {
        0 => Err(NoFolder::None { model, folder }),
        1 => Ok(folders.remove(0).1),
        _ => {
            let targets: Vec<_> = folders.iter().map(|(target, _)| target.to_string()).collect();
            Err(NoFolder::Several { model, folder, targets: targets.join(", ") })
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub(super) enum NoFolder {
    #[error(
        "the model {model} is not compiled: there is nothing in {folder}; run `mondai compile --model {model} --target inf2`, or whichever the device is"
    )]
    None { model: String, folder: PathBuf },
    #[error(
        "the model {model} is compiled for {targets}; name one of the folders in {folder} with --neuron-programs"
    )]
    Several { model: String, folder: PathBuf, targets: String },
}
