//! The model that `mondai pull` fetches, opened once for all themes.

use mondai::model::Model;
use mondai::text::Tokenizer;
use std::path::PathBuf;
use std::sync::{Arc, LazyLock};

pub(crate) const NAME: &str = "smollm2-135m-instruct";

pub(crate) static MODEL: LazyLock<Model> = LazyLock::new(|| {
    Model::open(NAME, &models_dir())
        .unwrap_or_else(|error| panic!("{error}: scripts/test.sh fetches what the tests need"))
});

pub(crate) static TOKENIZER: LazyLock<Arc<Tokenizer>> =
    LazyLock::new(|| Arc::new(Tokenizer::open(&MODEL).unwrap()));

pub(crate) fn models_dir() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("models")
}
