//! `/livez`: the process runs. `/readyz` and `/health`: it can take work.

use super::AppState;
use super::error::ApiError;
use crate::engine::EngineHealth;
use axum::Json;
use axum::extract::State;
use serde::Serialize;

#[derive(Serialize)]
pub(super) struct Health {
    status: &'static str,
}

pub(super) async fn livez() -> Json<Health> {
    Json(Health { status: "alive" })
}

/// Ready only while the engine makes progress, and not once the server drains.
pub(super) async fn readyz(State(state): State<AppState>) -> Result<Json<Health>, ApiError> {
    state.check_accepting()?;
    match state.inner.generator.engine().health() {
        EngineHealth::Ready => Ok(Json(Health { status: "ready" })),
        EngineHealth::Draining => Err(ApiError::draining()),
        EngineHealth::Stalled { since } => {
            let message = format!("the engine's step has been running for {:.0} s", since.as_secs_f64());
            Err(ApiError::not_ready("stalled", message))
        }
        EngineHealth::Lost { reason } => {
            Err(ApiError::not_ready("backend_lost", format!("the model's device is lost: {reason}")))
        }
    }
}
