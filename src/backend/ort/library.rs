//! The ONNX Runtime library: a file that is opened when the first model is, and stays.

use ort::environment::Environment;
use std::{
    path::{Path, PathBuf},
    sync::Mutex,
};

/// The library of this process: there can be but one, and it is never unloaded.
static LOADED: Mutex<Option<Loaded>> = Mutex::new(None);

struct Loaded {
    path: PathBuf,
    environment: Environment,
}

/// Why there is no ONNX Runtime.
#[derive(Debug, thiserror::Error)]
pub(super) enum LibraryError {
    #[error(
        "no ONNX Runtime library was named: run `mondai pull onnxruntime`, or give one with --ort-library or \
         ORT_DYLIB_PATH"
    )]
    NotNamed,
    #[error("there is no ONNX Runtime library {path}: run `mondai pull onnxruntime`, or name another")]
    Missing { path: PathBuf },
    #[error(
        "{path} is not an ONNX Runtime library that this machine can load; it is called libonnxruntime.so as a rule"
    )]
    NotLoadable {
        path: PathBuf,
        #[source]
        source: ort::LoadDynamicError,
    },
    #[error("{path} is ONNX Runtime {found}, which is too old: 1.{needed} is needed, or a later one")]
    TooOld { path: PathBuf, found: String, needed: u32 },
    #[error("ONNX Runtime was loaded from {loaded} before, and a process cannot load another ({asked})")]
    Another { loaded: PathBuf, asked: PathBuf },
    #[error("this ONNX Runtime has no execution provider {asked} (it has: {known})")]
    NoProvider { asked: String, known: String },
    #[error(
        "ONNX Runtime from {path} cannot open the model: an older library may lack what the forms fast and int4 need; \
         `mondai pull onnxruntime` fetches one that has it, and --ort-form portable does with standard operators"
    )]
    CannotOpen {
        path: PathBuf,
        #[source]
        source: ort::Error,
    },
    #[error("ONNX Runtime from {path} cannot be started")]
    Start {
        path: PathBuf,
        #[source]
        source: ort::Error,
    },
}

/// The environment of the library at `path`, which is loaded if none is yet.
pub(super) fn load(path: &Path) -> Result<Environment, LibraryError> {
    // Whoever panicked here left nothing behind.
    let mut loaded = LOADED.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let missing = |_| LibraryError::Missing { path: path.to_owned() };
    let path = path.canonicalize().map_err(missing)?;
    if let Some(Loaded { path: loaded, environment }) = &*loaded {
        return match *loaded == path {
            true => Ok(environment.clone()),
            false => Err(LibraryError::Another { loaded: loaded.clone(), asked: path }),
        };
    }
    let builder = ort::init_from(&path).map_err(|source| not_loaded(&path, source))?;
    let environment = builder
        .with_name("mondai")
        .with_telemetry(false)
        .build()
        .map_err(|source| LibraryError::Start { path: path.clone(), source })?;
    *loaded = Some(Loaded { path, environment: environment.clone() });
    Ok(environment)
}

fn not_loaded(path: &Path, error: ort::LoadDynamicError) -> LibraryError {
    let path = path.to_owned();
    match error {
        ort::LoadDynamicError::BadVersion { version_str: found, .. } => {
            LibraryError::TooOld { path, found, needed: ort::MINOR_VERSION }
        }
        source => LibraryError::NotLoadable { path, source },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_library_says_what_is_needed() {
        let path = PathBuf::from("/lib/libonnxruntime.so");
        let old = ort::LoadDynamicError::BadVersion { version_str: "1.16.3".to_owned(), path: path.clone() };
        let error = not_loaded(&path, old).to_string();
        let expected =
            "/lib/libonnxruntime.so is ONNX Runtime 1.16.3, which is too old: 1.17 is needed, or a later one";
        assert_eq!(error, expected);
    }
}
