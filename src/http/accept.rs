//! The `Accept` header of a quiz: which of its three forms the client wants.

/// The forms a quiz can be sent in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// `application/json`: one document at the end; also for a client that does not care.
    Json,
    /// `text/event-stream`.
    Events,
    /// `application/x-ndjson`.
    Lines,
}

impl Format {
    /// What an error message offers.
    pub(super) const OFFERED: &str = "text/event-stream, application/x-ndjson and application/json";

    /// The form that `accept` likes best; of equals the one named first. `None`: it takes none of them.
    pub(super) fn negotiate(accept: &str) -> Option<Self> {
        if accept.trim().is_empty() {
            return Some(Self::Json);
        }
        let mut best: Option<(f32, Self)> = None;
        for range in accept.split(',') {
            let mut parts = range.split(';').map(str::trim);
            let Some(format) = parts.next().and_then(Self::of_range) else { continue };
            let quality = parts
                .find_map(|parameter| parameter.strip_prefix("q=").or(parameter.strip_prefix("Q=")))
                .map_or(1.0, |q| q.trim().parse().unwrap_or(0.0));
            if quality > best.map_or(0.0, |(best, _)| best) {
                best = Some((quality, format));
            }
        }
        best.map(|(_, format)| format)
    }

    fn of_range(range: &str) -> Option<Self> {
        match range.to_ascii_lowercase().as_str() {
            "application/json" | "application/*" | "*/*" => Some(Self::Json),
            "text/event-stream" | "text/*" => Some(Self::Events),
            "application/x-ndjson" | "application/ndjson" | "application/jsonl" => Some(Self::Lines),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Format::{self, Events, Json, Lines};

    fn check(accept: &str, expected: Option<Format>) {
        assert_eq!(Format::negotiate(accept), expected, "{accept:?}");
    }

    #[test]
    fn the_best_liked_form_wins() {
        check("", Some(Json));
        check("*/*", Some(Json));
        check("application/json", Some(Json));
        check("text/event-stream", Some(Events));
        check("Text/Event-Stream", Some(Events));
        check("application/x-ndjson, */*;q=0.1", Some(Lines));
        check("application/json;q=0.5, text/event-stream", Some(Events));
        check("text/event-stream, application/json", Some(Events));
        check("text/html, application/json; q=0.9", Some(Json));
    }

    #[test]
    fn nothing_that_can_be_sent() {
        check("text/html", None);
        check("application/json;q=0", None);
        check("application/xml, image/*", None);
    }
}
