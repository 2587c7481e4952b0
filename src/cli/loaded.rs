//! A model, opened and ready to write: what `serve` and `generate` have in common.

use super::{Settings, chosen_library, neuron_environment, pull::onnxruntime};
use crate::backend::ort::onnx::Form;
use crate::backend::{
    self, NEURON, OpenOptions, OrtOptions, WeightsForm,
    neuron::{DeviceOptions, Patience, Progress},
};
use crate::config::{CheckSettings, ModelSettings, Origin, OrtForm};
use crate::embedding::{Embedder, EmbeddingError};
use crate::engine::{Engine, EngineOptions};
use crate::generation::{Generator, TextSide};
use crate::library::Library;
use crate::metrics::Metrics;
use crate::model::{Model, QuizTexts};
use crate::quiz::{PromptTemplates, QuizService};
use anyhow::{Context, Result};
use indicatif::{ProgressBar, ProgressStyle};
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

pub(super) struct Loaded {
    pub(super) generator: Generator,
    pub(super) quizzes: QuizService,
    pub(super) library: Option<Library>,
    pub(super) embedder: Option<Embedder>,
    pub(super) metrics: Arc<Metrics>,
}

impl Loaded {
    /// Opens the library, the model on its backend, and starts the engine. Takes as long as reading the
    /// weights does.
    pub(super) fn open(settings: &Settings) -> Result<Self> {
        let Settings { model: settings, library, checks, .. } = settings;
        if settings.backend.value == NEURON {
            neuron_environment::enter(settings)?;
        }
        let began = Instant::now();
        let library = chosen_library(library)?;
        let embedder = chosen_embedder(checks, settings)?;
        let name = &settings.model.value;
        let model = open_model(settings)?;
        // Neither needs the other, and a start is no longer than the longer of them.
        let (text, backend) = std::thread::scope(|scope| {
            let text = scope.spawn(|| TextSide::open(&model, model.graph.vocab_size()));
            let backend = backend::open(&settings.backend.value, &model, &open_options(settings));
            (text.join().unwrap_or_else(|panic| resume_unwind(panic)), backend)
        });
        let backend = backend.with_context(|| format!("the model {name} cannot be run"))?;
        let text = text.with_context(|| format!("the text side of the model {name} cannot be used"))?;

        let simulated = backend.limits().simulated;
        let metrics = match simulated {
            true => Metrics::simulated(&model.name),
            false => Metrics::new(&model.name),
        };
        let metrics = Arc::new(metrics);
        let engine_options = EngineOptions {
            max_queued: settings.max_queued.value,
            max_step_tokens: settings.max_step_tokens.value,
            max_draft_tokens: settings.max_draft_tokens.value,
            stall_limit: Duration::from_secs(settings.stall_limit_seconds.value),
        };
        let engine = Engine::start(backend, engine_options, Arc::clone(&metrics));
        let limits = engine.limits().clone();
        let generator = Generator::with_text(text, engine);
        let mut quizzes = QuizService::new(generator.clone(), Arc::clone(&metrics));
        if let Some(library) = &library {
            quizzes = quizzes.with_library(library.clone());
        }
        if let Some(QuizTexts { languages, system, user, read }) = model.quiz_texts() {
            let templates = PromptTemplates::new(languages.clone(), system.clone(), user, read.as_deref())
                .with_context(|| format!("the manifest of the model {name} cannot be used"))?;
            quizzes = quizzes.with_templates(templates);
        }
        if let Some(embedder) = &embedder {
            quizzes = quizzes.with_embedder(embedder.clone());
        }
        tracing::info!(
            model = model.name,
            backend = limits.backend,
            slots = limits.slots,
            context_len = limits.context_len,
            simulated,
            seconds = began.elapsed().as_secs_f64(),
            "the model is ready"
        );
        Ok(Self { generator, quizzes, library, embedder, metrics })
    }
}

/// The sentence embeddings that the settings name, opened; `None` where they want none or have none yet.
fn chosen_embedder(checks: &CheckSettings, settings: &ModelSettings) -> Result<Option<Embedder>> {
    let folder = match checks.embeddings.value.as_str() {
        CheckSettings::NONE => return Ok(None),
        CheckSettings::PULLED => Path::new(&settings.models_dir.value).join(Embedder::NAME),
        folder => return Ok(Some(Embedder::open(folder.as_ref())?)),
    };
    match Embedder::open(&folder) {
        Err(EmbeddingError::NotPulled { path }) => {
            tracing::info!(
                missing = %path.display(),
                "items are compared by their words alone; `mondai pull {}` fetches what compares meanings",
                Embedder::NAME
            );
            Ok(None)
        }
        opened => Ok(Some(opened?)),
    }
}

/// The model that the settings name, with the adapter that they name merged in.
pub(super) fn open_model(settings: &ModelSettings) -> Result<Model> {
    let name = &settings.model.value;
    let model = Model::open(name, Path::new(&settings.models_dir.value))
        .with_context(|| format!("the model {name} cannot be opened"))?;
    match settings.adapter.value.as_str() {
        "" => Ok(model),
        adapter => model
            .with_adapter(Path::new(adapter))
            .with_context(|| format!("the adapter {adapter} cannot be merged into {name}")),
    }
}

/// What a backend is opened with.
pub(super) fn open_options(settings: &ModelSettings) -> OpenOptions {
    OpenOptions {
        slots: settings.slots.value,
        context_len: settings.context_len.value,
        max_step_tokens: settings.max_step_tokens.value,
        weights: WeightsForm::Auto,
        ort: ort_options(settings),
        device: DeviceOptions {
            library: named(&settings.neuron_library.value),
            programs: named(&settings.neuron_programs.value),
            models_dir: settings.models_dir.value.clone().into(),
            cores: settings.cores.value.count(),
            // The others have four where nobody says how many, and this one as many as its programs.
            slots: (settings.slots.origin != Origin::Default).then_some(settings.slots.value),
            patience: Patience {
                step: Duration::from_secs(settings.stall_limit_seconds.value.max(1)),
                ..Patience::default()
            },
            progress: Progress::new(upload_bar()),
        },
    }
}

/// Shows how far the weights are on their way to the cores: a bar on standard error, nothing when that is not a
/// terminal, where log lines say when it began and ended.
fn upload_bar() -> impl Fn(u64, u64) {
    let bar = OnceLock::new();
    move |done, all| {
        let bar = bar.get_or_init(|| {
            let style = ProgressStyle::with_template("{msg} {wide_bar} {bytes} of {total_bytes}, {eta} left")
                .expect("the template is valid");
            ProgressBar::new(all).with_style(style).with_message("uploading")
        });
        bar.set_position(done);
        if done == all {
            bar.finish_and_clear();
        }
    }
}

/// A path that a setting names, if it names one.
fn named(path: &str) -> Option<PathBuf> {
    (!path.is_empty()).then(|| path.into())
}

/// ONNX Runtime as the settings name it, or else where it is looked for.
pub(super) fn ort_options(settings: &ModelSettings) -> OrtOptions {
    let named = Some(PathBuf::from(&settings.ort_library.value)).filter(|path| !path.as_os_str().is_empty());
    let library = named
        .or_else(|| std::env::var_os("ORT_DYLIB_PATH").filter(|path| !path.is_empty()).map(PathBuf::from))
        .unwrap_or_else(|| onnxruntime::library_path(Path::new(&settings.models_dir.value)));
    let provider = Some(settings.ort_provider.value.clone()).filter(|name| name != "cpu");
    let form = match settings.ort_form.value {
        OrtForm::Fast => Form::Fast,
        OrtForm::Int4 => Form::Int4,
        OrtForm::Portable => Form::Portable,
    };
    OrtOptions { library: Some(library), provider, form }
}
