//! ONNX Runtime's library, out of the wheel that its makers publish.

use super::{fetch_from_wheel, wheel::Wanted};
use anyhow::{Context, Result, bail};
use std::env::consts::{ARCH, OS};
use std::fs;
use std::path::{Path, PathBuf};

/// What `mondai pull` calls it, and its folder in the models folder.
pub(in crate::cli) const NAME: &str = "onnxruntime";
const REQUIREMENT: &str = "onnxruntime==1.32.0";
const FILE: &str = "libonnxruntime.so.1.32.0";
const ENTRY: &str = "onnxruntime/capi/libonnxruntime.so.1.32.0";

/// Where [`fetch`] puts it.
pub(in crate::cli) fn library_path(models_dir: &Path) -> PathBuf {
    models_dir.join(NAME).join(FILE)
}

pub(super) fn fetch(models_dir: &Path, force: bool) -> Result<()> {
    let wanted = wanted()?;
    let folder = models_dir.join(NAME);
    fs::create_dir_all(&folder).with_context(|| format!("{} cannot be made", folder.display()))?;
    fetch_from_wheel(REQUIREMENT, &[(FILE, wanted)], &folder, force).context("ONNX Runtime was not fetched")
}

/// The library of this machine's kind; the same one is in the wheels for all versions of Python.
fn wanted() -> Result<Wanted<'static>> {
    let (bytes, sha256) = match (OS, ARCH) {
        ("linux", "x86_64") => {
            (34_824_680, "6c1585d1bbf45b0712ea4a21b705c5fcb4ba04ff2e30f1fbf81a49faf658638f")
        }
        ("linux", "aarch64") => {
            (27_165_936, "49852228a93995158b2a813d4df487d47a1b76b0eaa894507ef49e91b6d7954a")
        }
        _ => bail!("no ONNX Runtime is known for {ARCH} {OS}: name a library of your own with --ort-library"),
    };
    Ok(Wanted { entry: ENTRY, bytes, sha256 })
}
