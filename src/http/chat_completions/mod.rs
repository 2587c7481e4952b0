//! `POST /v1/chat/completions`, as OpenAI defines it and load tools use it.
//!
//! Unknown fields are passed over and counted; a field that is known but not supported is an error
//! that names it. No field is ever dropped in silence.

mod request;
mod response;
mod unsupported;

use super::body::JsonBody;
use super::error::ApiError;
use super::{AppState, random_id, sse, unix_seconds};
use crate::generation::{GenerateError, TextEvent, TextStream};
use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use futures_util::future::try_join_all;
use futures_util::stream::{self, BoxStream, SelectAll, Stream, StreamExt};
use request::{ChatRequest, Choices};
use response::{ChatCompletion, Choice, ChunkWriter, Envelope, Usage};

const ROUTE: &str = "/v1/chat/completions";
/// The field a prompt that does not fit comes from.
const PROMPT_PARAM: &str = "messages";

pub(super) async fn create(
    State(state): State<AppState>,
    JsonBody(request): JsonBody<ChatRequest>,
) -> Result<Response, ApiError> {
    state.check_accepting()?;
    state.check_model(request.model.as_deref())?;
    let unknown_fields = unsupported::check(&request.other)?;
    if unknown_fields > 0 {
        state.inner.metrics.http_unknown_fields(ROUTE, unknown_fields);
    }
    let Choices { requests, logprobs, stream } = Choices::try_from(request)?;

    let generator = &state.inner.generator;
    let replies = try_join_all(requests.into_iter().map(|request| generator.generate(request)))
        .await
        .map_err(failure)?;

    let envelope = Envelope {
        id: random_id("chatcmpl-"),
        created: unix_seconds(),
        model: generator.model_name().to_owned(),
        system_fingerprint: state.inner.system_fingerprint.clone(),
    };
    match stream {
        Some(options) => {
            let writer =
                ChunkWriter::new(envelope, options, logprobs, replies.iter().map(TextStream::prompt_tokens));
            Ok(sse::event_stream(chunks(replies, writer), state.inner.options.keep_alive))
        }
        None => {
            let choices = try_join_all(
                replies.into_iter().enumerate().map(|(index, reply)| whole_reply(index, reply, logprobs)),
            );
            let (choices, usages): (Vec<Choice>, Vec<Usage>) = choices.await?.into_iter().unzip();
            Ok(Json(ChatCompletion::new(envelope, choices, Usage::sum(&usages))).into_response())
        }
    }
}

fn failure(error: GenerateError) -> ApiError {
    ApiError::generate(error, PROMPT_PARAM)
}

/// Reads a reply to its end.
async fn whole_reply(
    index: usize,
    mut reply: TextStream,
    logprobs: bool,
) -> Result<(Choice, Usage), ApiError> {
    let mut choice = Choice::new(index, logprobs);
    while let Some(event) = reply.next().await {
        match event {
            TextEvent::Delta(delta) => choice.push(delta),
            TextEvent::Finished(summary) => {
                return Ok((choice.finish(summary.reason), Usage::of(&summary.sequence)));
            }
            TextEvent::Failed(error) => return Err(failure(error)),
        }
    }
    Err(ApiError::internal("a reply ended without its last event"))
}

/// The replies' chunks as they come. Dropping it drops the replies, which cancels them.
fn chunks(replies: Vec<TextStream>, writer: ChunkWriter) -> impl Stream<Item = Bytes> + Send + 'static {
    let events: SelectAll<BoxStream<'static, (usize, TextEvent)>> =
        stream::select_all(replies.into_iter().enumerate().map(|(index, reply)| {
            stream::unfold(reply, move |mut reply| async move {
                let event = reply.next().await?;
                Some(((index, event), reply))
            })
            .boxed()
        }));
    stream::unfold((events, writer), |(mut events, mut writer)| async move {
        while !writer.is_done() {
            let (index, event) = events.next().await?;
            let frames = writer.write(index, event);
            if !frames.is_empty() {
                return Some((Bytes::from(frames), (events, writer)));
            }
        }
        None
    })
}
