//! `/v1/models`: the one model this server has.

use super::AppState;
use super::error::ApiError;
use axum::Json;
use axum::extract::{Path, State};
use serde::Serialize;

#[derive(Serialize)]
pub(super) struct ModelList {
    object: &'static str,
    data: [Model; 1],
}

/// Beside OpenAI's fields, `max_model_len` is what load tools know the context length as.
#[derive(Serialize)]
pub(super) struct Model {
    id: String,
    object: &'static str,
    /// When this server took it up, in Unix seconds.
    created: u64,
    owned_by: &'static str,
    max_model_len: usize,
    /// What runs it.
    backend: &'static str,
    /// Only there when it is: the device is simulated, and no time says anything of it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    simulated: bool,
}

pub(super) async fn list(State(state): State<AppState>) -> Json<ModelList> {
    Json(ModelList { object: "list", data: [the_model(&state)] })
}

/// Model names may hold slashes, so the path's whole rest is the name.
pub(super) async fn retrieve(
    State(state): State<AppState>,
    Path(id): Path<String>,
) -> Result<Json<Model>, ApiError> {
    state.check_model(Some(&id))?;
    Ok(Json(the_model(&state)))
}

fn the_model(state: &AppState) -> Model {
    let generator = &state.inner.generator;
    let limits = generator.engine().limits();
    Model {
        id: generator.model_name().to_owned(),
        object: "model",
        created: state.inner.created,
        owned_by: "mondai",
        max_model_len: limits.context_len,
        backend: limits.backend,
        simulated: limits.simulated,
    }
}
