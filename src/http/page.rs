//! The demo page: its files are part of the binary, and it may load nothing from anywhere else.

use super::error::ApiError;
use axum::extract::Path;
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};

macro_rules! assets {
    ($($name:literal)+) => { &[ $( ($name, include_bytes!(concat!("page/", $name))), )+ ] };
}

const INDEX: &[u8] = include_bytes!("page/index.html");

/// What `/assets/` has: name and content.
const ASSETS: &[(&str, &[u8])] = assets![
    "app.js" "cards.js" "composer.js" "dom.js" "en.js" "examples.js" "game.js" "i18n.js" "icon.svg" "ja.js"
    "notes.js" "stream.js" "style.css"
];

const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
    connect-src 'self'; img-src 'self' data:; font-src 'self'; manifest-src 'self'; base-uri 'none'; \
    form-action 'none'; frame-ancestors 'none'";

pub(super) async fn index() -> Response {
    file("text/html; charset=utf-8", INDEX)
}

pub(super) async fn asset(Path(name): Path<String>) -> Result<Response, ApiError> {
    let (_, content) = ASSETS.iter().find(|(asset, _)| *asset == name).ok_or_else(ApiError::no_file)?;
    let content_type = match name.rsplit_once('.') {
        Some((_, "js")) => "text/javascript; charset=utf-8",
        Some((_, "css")) => "text/css; charset=utf-8",
        Some((_, "svg")) => "image/svg+xml",
        _ => "application/octet-stream",
    };
    Ok(file(content_type, content))
}

fn file(content_type: &'static str, content: &'static [u8]) -> Response {
    let headers: [(HeaderName, &'static str); 5] = [
        (header::CONTENT_TYPE, content_type),
        (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        // A new binary may have new files under the same names.
        (header::CACHE_CONTROL, "no-cache"),
    ];
    let headers: HeaderMap =
        headers.into_iter().map(|(name, value)| (name, HeaderValue::from_static(value))).collect();
    (headers, content).into_response()
}
