//! What happens around every request: its id, its log line, its counts, and a 500 if it panics.

use super::error::ApiError;
use super::{AppState, random_id};
use crate::metrics::Metrics;
use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;
use tracing::{Instrument, Span};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Longer ids are not worth a log line's room; such a request gets one of ours.
const MAX_REQUEST_ID_LEN: usize = 128;
/// What nginx calls a request whose client went away before it was answered.
const CLIENT_CLOSED_REQUEST: u16 = 499;

pub(super) async fn track(State(state): State<AppState>, request: Request, next: Next) -> Response {
    let id = request_id(request.headers());
    let in_flight = InFlight::start(&state.inner.metrics, &request, &id);
    let span = in_flight.span.clone();

    let answer = AssertUnwindSafe(next.run(request)).catch_unwind().instrument(span.clone()).await;
    let mut response = answer.unwrap_or_else(|panic| {
        let reason = panic.downcast_ref::<&str>().copied().or(panic.downcast_ref::<String>().map(|s| &**s));
        span.in_scope(|| {
            ApiError::internal(format!("a handler panicked: {}", reason.unwrap_or("?"))).into_response()
        })
    });

    response.headers_mut().insert(REQUEST_ID, id);
    in_flight.answer(response)
}

/// The client's id if it can be logged as it is, else a new one.
fn request_id(headers: &HeaderMap) -> HeaderValue {
    let sane = |id: &&HeaderValue| {
        (1..=MAX_REQUEST_ID_LEN).contains(&id.len()) && id.as_bytes().iter().all(u8::is_ascii_graphic)
    };
    headers.get(REQUEST_ID).filter(sane).cloned().unwrap_or_else(|| {
        HeaderValue::try_from(random_id("req-")).expect("letters, digits and a dash make a header")
    })
}

/// A request from its arrival to the last byte of its answer; being dropped, it is logged and counted.
struct InFlight {
    metrics: Arc<Metrics>,
    span: Span,
    /// The pattern that matched: paths are the client's to choose, patterns are few.
    route: String,
    method: &'static str,
    started: Instant,
    /// `None` until the handler answered.
    status: Option<StatusCode>,
    complete: bool,
}

impl InFlight {
    fn start(metrics: &Arc<Metrics>, request: &Request, id: &HeaderValue) -> Self {
        let route = request.extensions().get::<MatchedPath>().map_or("none", MatchedPath::as_str).to_owned();
        let id = id.to_str().unwrap_or_default();
        let method = method_label(request.method());
        let span = tracing::info_span!("request", id, method, path = request.uri().path());
        metrics.http_started();
        Self {
            metrics: Arc::clone(metrics),
            span,
            route,
            method,
            started: Instant::now(),
            status: None,
            complete: false,
        }
    }

    fn answer(mut self, response: Response) -> Response {
        self.status = Some(response.status());
        response.map(|body| Body::new(TrackedBody { body, in_flight: self }))
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let status = self.status.map_or(CLIENT_CLOSED_REQUEST, |status| status.as_u16());
        self.metrics.http_finished(&self.route, self.method, status);
        let _span = self.span.enter();
        let seconds = self.started.elapsed().as_secs_f64();
        if !self.complete {
            tracing::info!(status, seconds, "the client went away");
        } else if matches!(&*self.route, "/livez" | "/readyz" | "/health" | "/metrics") {
            tracing::debug!(status, seconds, "answered");
        } else {
            tracing::info!(status, seconds, "answered");
        }
    }
}

fn method_label(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}

/// A body that ends its request when it ends or is dropped.
struct TrackedBody {
    body: Body,
    in_flight: InFlight,
}

impl HttpBody for TrackedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, axum::Error>>> {
        let this = &mut *self;
        let _span = this.in_flight.span.enter();
        let frame = ready!(Pin::new(&mut this.body).poll_frame(context));
        this.in_flight.complete |= frame.is_none();
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}

impl Drop for TrackedBody {
    fn drop(&mut self) {
        // A body of known length is not polled past its last byte, one of a HEAD request not at all.
        let known_length = self.body.size_hint().exact().is_some();
        self.in_flight.complete |= known_length || self.body.is_end_stream();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(id: &'static str, kept: bool) {
        let headers = HeaderMap::from_iter([(REQUEST_ID, HeaderValue::from_static(id))]);
        assert_eq!(request_id(&headers) == id, kept, "{id:?}");
    }

    #[test]
    fn only_sane_request_ids_are_kept() {
        check("abc-123", true);
        check("a b", false);
        check("", false);
        let long: &'static str = "x".repeat(MAX_REQUEST_ID_LEN + 1).leak();
        check(&long[1..], true);
        check(long, false);
        assert!(request_id(&HeaderMap::new()).to_str().unwrap().starts_with("req-"));
    }
}
