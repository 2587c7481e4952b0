//! The default model and its base, which `mondai pull` fetches, opened once for all themes.

use mondai::config::ModelSettings;
use mondai::model::Model;
use mondai::text::Tokenizer;
use std::path::PathBuf;
use std::sync::{Arc, LazyLock};

/// The base's: the adapter needs no other tests than those of quizzes.
pub(crate) const NAME: &str = "smollm2-135m-instruct";

pub(crate) static MODEL: LazyLock<Model> = LazyLock::new(|| {
    Model::open(NAME, &models_dir())
        .unwrap_or_else(|error| panic!("{error}: scripts/test.sh fetches what the tests need"))
});

/// The one that serves whoever names none.
pub(crate) static QUIZ_MODEL: LazyLock<Model> = LazyLock::new(|| {
    Model::open(ModelSettings::DEFAULT, &models_dir()).expect("its base is there, as above")
});

pub(crate) static TOKENIZER: LazyLock<Arc<Tokenizer>> =
    LazyLock::new(|| Arc::new(Tokenizer::open(&MODEL).unwrap()));

pub(crate) fn models_dir() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("models")
}
