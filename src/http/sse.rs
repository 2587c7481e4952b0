//! Bodies that are written as events come: server-sent events, and lines of JSON.

use axum::body::{Body, Bytes};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use futures_util::stream::{self, Stream, StreamExt};
use serde::Serialize;
use std::convert::Infallible;
use std::time::Duration;

/// Keeps proxies and clients from taking silence for death; clients skip lines that begin with a colon.
const KEEP_ALIVE: &[u8] = b": keep-alive\n\n";

/// One event: `event: NAME`, `data: JSON`, an empty line. LF only: some clients split at LF LF.
pub(super) fn event(name: &str, data: &impl Serialize) -> Bytes {
    format!("event: {name}\ndata: {}\n\n", to_json(data)).into()
}

/// One event without a name, as chat completions have them.
pub(super) fn data(data: &impl Serialize) -> String {
    format!("data: {}\n\n", to_json(data))
}

/// One line of JSON.
pub(super) fn line(data: &impl Serialize) -> Bytes {
    (to_json(data) + "\n").into()
}

fn to_json(data: &impl Serialize) -> String {
    serde_json::to_string(data).expect("wire types have string keys and cannot fail")
}

/// A `text/event-stream` of `frames`, with a comment after each `keep_alive` of silence.
///
/// The body owns the stream: when the client goes away, both are dropped.
pub(super) fn event_stream(
    frames: impl Stream<Item = Bytes> + Send + 'static,
    keep_alive: Duration,
) -> Response {
    streamed("text/event-stream", with_keep_alive(frames, keep_alive))
}

/// An `application/x-ndjson` of `lines`. It has no comments, so silence stays silence.
pub(super) fn json_lines(lines: impl Stream<Item = Bytes> + Send + 'static) -> Response {
    streamed("application/x-ndjson", lines)
}

fn streamed(content_type: &'static str, frames: impl Stream<Item = Bytes> + Send + 'static) -> Response {
    let headers = [
        (header::CONTENT_TYPE.as_str(), content_type),
        (header::CACHE_CONTROL.as_str(), "no-store"),
        ("x-accel-buffering", "no"),
    ];
    (headers, Body::from_stream(frames.map(Ok::<_, Infallible>))).into_response()
}

fn with_keep_alive(
    frames: impl Stream<Item = Bytes> + Send,
    every: Duration,
) -> impl Stream<Item = Bytes> + Send {
    stream::unfold(Box::pin(frames), move |mut frames| async move {
        match tokio::time::timeout(every, frames.next()).await {
            Ok(frame) => Some((frame?, frames)),
            Err(_) => Some((Bytes::from_static(KEEP_ALIVE), frames)),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_three_lines() {
        assert_eq!(event("greeting", &"a\nb"), "event: greeting\ndata: \"a\\nb\"\n\n");
        assert_eq!(data(&1), "data: 1\n\n");
        assert_eq!(line(&[1, 2]), "[1,2]\n");
    }

    #[tokio::test]
    async fn silence_is_filled_with_comments() {
        let frames = stream::once(async { Bytes::from("first") }).chain(stream::pending());
        let frames = with_keep_alive(frames, Duration::from_millis(1));
        let frames: Vec<Bytes> = frames.take(3).collect().await;
        assert_eq!(frames, ["first", ": keep-alive\n\n", ": keep-alive\n\n"]);
    }
}
