//! What is measured: a model in this process, or a server at a URL.

mod chat_url;
mod in_process;
mod quiz_url;

use super::client::Client;
use super::computed::Computed;
use super::prices::Price;
use super::sample::{Failure, Reply, Stopwatch};
use super::system::ModelCard;
use super::workload::{Work, Workload};
use crate::generation::Generator;
use crate::metrics::Metrics;
use crate::quiz::QuizService;
use anyhow::{Context, Result, bail};
use serde::Serialize;
use serde_json::Value;
use std::sync::Arc;

/// Something that writes replies, under the name it has in the report.
pub struct Target {
    pub card: TargetCard,
    place: Place,
}

enum Place {
    InProcess { generator: Generator, quizzes: QuizService, metrics: Arc<Metrics> },
    Url { client: Client },
}

/// What is known of a target.
#[derive(Clone, Debug, Serialize)]
pub struct TargetCard {
    pub name: String,
    /// `in process`, or the URL.
    pub place: String,
    /// The backend, where the target says it.
    pub backend: Option<String>,
    pub model: Option<String>,
    /// The target says that its device is simulated: nothing it shows is a device's speed.
    pub simulated: bool,
    /// The process whose memory is looked at.
    pub pid: Option<u32>,
    /// In this process.
    pub weights: Option<ModelCard>,
    /// What it runs on, or would, where that has a price.
    pub price: Option<Price>,
    /// What it says of itself at /v1/models; in this process its limits.
    pub details: Value,
}

impl Target {
    /// A model in this process.
    pub fn in_process(
        name: String,
        generator: Generator,
        quizzes: QuizService,
        metrics: Arc<Metrics>,
        weights: Option<ModelCard>,
    ) -> Self {
        let limits = generator.engine().limits();
        let card = TargetCard {
            name,
            place: "in process".to_owned(),
            backend: Some(limits.backend.to_owned()),
            model: Some(generator.model_name().to_owned()),
            simulated: limits.simulated,
            pid: Some(std::process::id()),
            weights,
            price: None,
            details: serde_json::json!({
                "slots": limits.slots, "context_len": limits.context_len,
                "max_step_tokens": limits.max_step_tokens,
            }),
        };
        Self { card, place: Place::InProcess { generator, quizzes, metrics } }
    }

    /// A server: asks it for its models, of which the first is measured unless `model` names one.
    ///
    /// # Errors
    /// The URL is none, or nobody answers there.
    pub async fn at_url(
        name: String,
        url: &str,
        model: Option<String>,
        api_key: Option<String>,
        pid: Option<u32>,
    ) -> Result<Self> {
        let client = Client::new(url, api_key)?;
        let models = match client.get("/v1/models").await {
            Ok(models) => serde_json::from_slice(&models)
                .with_context(|| format!("{url}/v1/models does not answer in JSON"))?,
            // Not every server has the list; one that answers at all is there.
            Err(Failure::Status { .. }) => Value::Null,
            Err(failure) => bail!("{url} cannot be asked for its models: {failure}"),
        };
        let list = models["data"].as_array().map(Vec::as_slice).unwrap_or_default();
        let chosen = match &model {
            Some(model) => list.iter().find(|entry| entry["id"] == model.as_str()),
            None => list.first(),
        };
        let details = chosen.cloned().unwrap_or(Value::Null);
        let card = TargetCard {
            name,
            place: url.to_owned(),
            backend: details["backend"].as_str().map(str::to_owned),
            model: model.or_else(|| details["id"].as_str().map(str::to_owned)),
            simulated: details["simulated"].as_bool().unwrap_or(false),
            pid,
            weights: None,
            price: None,
            details,
        };
        Ok(Self { card, place: Place::Url { client } })
    }

    pub fn is_in_process(&self) -> bool {
        matches!(self.place, Place::InProcess { .. })
    }

    /// What it has run since it was opened, if it says so.
    pub(super) async fn computed(&self) -> Option<Computed> {
        match &self.place {
            Place::InProcess { metrics, .. } => Computed::of_metrics(&metrics.render()),
            Place::Url { client } => {
                let metrics = client.get("/metrics").await.ok()?;
                Computed::of_metrics(&String::from_utf8_lossy(&metrics))
            }
        }
    }

    /// # Errors
    /// A workload of token ids for a target that takes text.
    pub fn check(&self, workload: Workload) -> Result<()> {
        match (&self.place, workload) {
            (Place::Url { .. }, Workload::Prefill | Workload::Decode) => bail!(
                "{}: the workload {} is of token ids, which only a model in this process takes; over HTTP, \
                 chat and schema time both phases",
                self.card.place,
                workload.name()
            ),
            _ => Ok(()),
        }
    }

    /// Sends one request and reads its reply to the end.
    pub(super) async fn send(&self, work: &Work, watch: &mut Stopwatch) -> Result<Reply, Failure> {
        match (&self.place, work) {
            (Place::InProcess { quizzes, .. }, Work::Quiz(body)) => {
                in_process::quiz(quizzes, body, watch).await
            }
            (Place::InProcess { generator, .. }, Work::Chat(chat)) => {
                in_process::chat(generator, chat, watch).await
            }
            (Place::InProcess { generator, .. }, Work::Tokens { prompt, output_tokens }) => {
                in_process::tokens(generator, prompt, *output_tokens, watch).await
            }
            (Place::Url { client }, Work::Quiz(body)) => quiz_url::send(client, body, watch).await,
            (Place::Url { client }, Work::Chat(chat)) => {
                chat_url::send(client, self.card.model.as_deref(), chat, watch).await
            }
            (Place::Url { .. }, Work::Tokens { .. }) => {
                Err(Failure::Broken("token ids cannot be sent to a URL".to_owned()))
            }
        }
    }
}
