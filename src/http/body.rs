//! The request's body: JSON into a type, and where it does not fit, which field.

use super::AppState;
use super::error::ApiError;
use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::IntoResponse;
use serde::de::{DeserializeOwned, IgnoredAny};

/// A body that was JSON and fits `T`.
pub(super) struct JsonBody<T>(pub(super) T);

impl<T: DeserializeOwned> FromRequest<AppState> for JsonBody<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &AppState) -> Result<Self, ApiError> {
        check_content_type(request.headers())?;
        let bytes = Bytes::from_request(request, state).await.map_err(|rejection| {
            let reason = rejection.body_text();
            match rejection.into_response().status() {
                StatusCode::PAYLOAD_TOO_LARGE => ApiError::body_too_large(state.inner.options.body_limit),
                _ => ApiError::unreadable_body(reason),
            }
        })?;
        parse(&bytes).map(Self)
    }
}

/// A body may come without a type or under one that says nothing of its content, such as the form type
/// that `curl -d` sends; one that says it is something else than JSON is taken at its word.
fn check_content_type(headers: &HeaderMap) -> Result<(), ApiError> {
    let Some(value) = headers.get(header::CONTENT_TYPE) else { return Ok(()) };
    let value = String::from_utf8_lossy(value.as_bytes()).to_ascii_lowercase();
    let essence = value.split(';').next().unwrap_or_default().trim();
    let says_nothing = matches!(
        essence,
        "" | "application/x-www-form-urlencoded" | "text/plain" | "application/octet-stream"
    );
    let says_json = matches!(essence, "application/json" | "text/json") || essence.ends_with("+json");
    if says_nothing || says_json { Ok(()) } else { Err(ApiError::unsupported_media_type(essence)) }
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    // Serde would take a list for a struct, its values for the fields in order.
    if bytes.trim_ascii_start().starts_with(b"[") {
        return Err(ApiError::invalid("body", "the body must be a JSON object, not a list"));
    }
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let path = error.path().to_string();
        let error = error.into_inner();
        // An enum that is given a number, say, is a syntax error to serde_json; to a client it is none.
        let is_json = error.is_data() || serde_json::from_slice::<IgnoredAny>(bytes).is_ok();
        if is_json { misfit(&path, &error.to_string()) } else { ApiError::broken_json(&error) }
    })?;
    deserializer.end().map_err(|error| ApiError::broken_json(&error))?;
    Ok(value)
}

/// JSON that does not fit: names the field, which serde puts in the path or in the message.
fn misfit(path: &str, message: &str) -> ApiError {
    let parent = if path == "." { "" } else { path };
    let named = ["missing field `", "unknown field `"]
        .iter()
        .find_map(|start| message.strip_prefix(start)?.split('`').next());
    let param = match named {
        Some(name) if parent.is_empty() => name.to_owned(),
        // Whether the path ends in an unknown field's name depends on how its struct is read.
        Some(name) if parent == name || parent.ends_with(&format!(".{name}")) => parent.to_owned(),
        Some(name) => format!("{parent}.{name}"),
        None => parent.to_owned(),
    };
    if param.is_empty() {
        return ApiError::invalid("body", message);
    }
    ApiError::invalid(param.clone(), format!("`{param}`: {message}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;
    use serde::Deserialize;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only parsed")]
    struct Outer {
        kind: Kind,
        parts: Option<Vec<Inner>>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum Kind {
        Good,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only parsed")]
    struct Inner {
        n: u8,
    }

    fn check(body: &str, expected: &str) {
        let error = parse::<Outer>(body.as_bytes()).expect_err("it does not fit").into_body();
        let error = serde_json::to_value(error).unwrap();
        let param = error["error"]["param"].as_str().unwrap_or("-");
        assert_eq!(format!("{param} | {}", error["error"]["message"].as_str().unwrap()), expected);
    }

    #[test]
    fn a_misfit_names_its_field() {
        check(
            r#"{"kind":"bad"}"#,
            "kind | `kind`: unknown variant `bad`, expected `good` at line 1 column 13",
        );
        check(r#"{"kind":5}"#, "kind | `kind`: expected value at line 1 column 9");
        check("{}", "kind | `kind`: missing field `kind` at line 1 column 2");
        check(
            r#"{"kidn":1}"#,
            "kidn | `kidn`: unknown field `kidn`, expected `kind` or `parts` at line 1 column 7",
        );
        check(
            r#"{"kind":"good","parts":[{"n":1},{"n":300}]}"#,
            "parts[1].n | `parts[1].n`: invalid value: integer `300`, expected u8 at line 1 column 40",
        );
        check(
            r#"{"kind":"good","parts":[{}]}"#,
            "parts[0].n | `parts[0].n`: missing field `n` at line 1 column 26",
        );
        check("[]", "body | the body must be a JSON object, not a list");
    }

    #[test]
    fn broken_json_says_where() {
        check("{\n \"kind\": ", "- | the body is not JSON: EOF while parsing a value at line 2 column 9");
        check("kind=good", "- | the body is not JSON: expected value at line 1 column 1");
        check(r#"{"kind":"good"} x"#, "- | the body is not JSON: trailing characters at line 1 column 17");
    }

    #[test]
    fn only_types_that_cannot_be_json_are_refused() {
        let check = |content_type: &'static str, accepted: bool| {
            let headers =
                HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static(content_type))]);
            assert_eq!(check_content_type(&headers).is_ok(), accepted, "{content_type}");
        };
        check("application/json; charset=utf-8", true);
        check("application/vnd.api+JSON", true);
        check("application/x-www-form-urlencoded", true);
        check("text/plain", true);
        check("multipart/form-data; boundary=x", false);
        check("text/xml", false);
        check("image/png", false);
        assert!(check_content_type(&HeaderMap::new()).is_ok());
    }
}
