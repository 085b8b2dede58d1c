//! Logs: one JSON object a line on standard error (or text for people), filtered by configuration.
//!
//! Tenant ids belong in fields of events and spans, never in metric labels; secrets belong in neither.

use serde::{Deserialize, Serialize};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::util::SubscriberInitExt;

/// How to log.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct TelemetryConfig {
    /// A filter such as `info` or `info,sluice_gateway=debug`.
    pub level: String,
    /// Line format.
    pub format: LogFormat,
}

impl Default for TelemetryConfig {
    fn default() -> Self {
        Self { level: "info".into(), format: LogFormat::Json }
    }
}

impl crate::config::Validate for TelemetryConfig {
    fn faults(&self, faults: &mut crate::config::Faults) {
        if let Err(error) = EnvFilter::try_new(&self.level) {
            faults.add("level", format_args!("{error}; write it as \"info\" or \"info,sluice_gateway=debug\""));
        }
    }
}

/// Line format of logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// One JSON object a line.
    #[default]
    Json,
    /// For people.
    Text,
}

/// A filter that does not parse.
#[derive(Debug, thiserror::Error)]
#[error("log level `{level}`: {source}")]
pub struct TelemetryError {
    level: String,
    source: tracing_subscriber::filter::ParseError,
}

/// Keeps logging up; hold it until the end of `main`.
#[must_use]
#[derive(Debug)]
pub struct Guard {
    _private: (),
}

/// Starts logging for the process. When a subscriber is there already (several roles in one process, tests) it stays.
///
/// # Errors
/// The level is no filter.
pub fn init_tracing(config: &TelemetryConfig) -> Result<Guard, TelemetryError> {
    let filter =
        EnvFilter::try_new(&config.level).map_err(|source| TelemetryError { level: config.level.clone(), source })?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let outcome = match config.format {
        LogFormat::Json => builder.json().flatten_event(true).with_span_list(false).finish().try_init(),
        LogFormat::Text => builder.with_ansi(false).finish().try_init(),
    };
    if let Err(error) = outcome {
        tracing::debug!(%error, "logging was already started");
    }
    Ok(Guard { _private: () })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starting_twice_is_harmless_and_a_bad_level_is_named() {
        for format in [LogFormat::Json, LogFormat::Text] {
            let _guard = init_tracing(&TelemetryConfig { level: "warn".into(), format }).expect("starts");
        }
        let wrong = TelemetryConfig { level: "a=b=c".into(), format: LogFormat::Json };
        assert!(init_tracing(&wrong).expect_err("no filter").to_string().contains("a=b=c"));
    }
}
