//! Where log lines go: standard error, plain or as JSON.

use crate::config::{LogFormat, LogSettings};
use anyhow::{Context, Result};
use std::io::{self, IsTerminal};
use tracing_subscriber::EnvFilter;

/// From here on, what is traced is printed.
///
/// # Errors
/// The level is not a filter.
pub(super) fn start(settings: &LogSettings) -> Result<()> {
    let level = &settings.log_level;
    let filter = EnvFilter::try_new(&level.value)
        .with_context(|| format!("log_level ({}) cannot be used: {:?}", level.origin, level.value))?;
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    match settings.log_format.value {
        LogFormat::Plain => lines.with_target(false).with_ansi(io::stderr().is_terminal()).init(),
        LogFormat::Json => lines.json().flatten_event(true).with_current_span(false).init(),
    }
    Ok(())
}
