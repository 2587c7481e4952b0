//! `mondai serve`: sockets and signals around `http::router`.

use super::loaded::Loaded;
use super::{CommonFlags, Settings, logs};
use crate::config::{HttpFlags, LogFormat};
use crate::engine::{Engine, EngineHealth};
use crate::http::{AppState, HttpOptions, router};
use anyhow::{Context, Result, bail};
use axum::serve::ListenerExt;
use clap::Args;
use std::io::{self, Write};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;

/// Serve quizzes and chat completions over HTTP
///
/// On SIGTERM or Ctrl-C the server is no longer ready, takes no new connections, finishes the requests it
/// has, and exits; a second signal ends it at once.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Serve {
    #[command(flatten)]
    common: CommonFlags,
    #[command(flatten)]
    http: HttpFlags,
    /// Print every setting and where it came from, and exit
    #[arg(long)]
    print_config: bool,
}

const EXAMPLES: &str = r#"Examples:
  mondai serve
  mondai serve --host 0.0.0.0 --port 80 --slots 8
  MONDAI_LOG_FORMAT=json mondai serve --config mondai.toml
  curl -N localhost:8080/v1/quizzes -H 'Accept: text/event-stream' -d '{"topic":"the Moon","count":3}'"#;

impl Serve {
    pub(super) fn run(self) -> Result<()> {
        let settings = self.common.resolve(self.http)?;
        if self.print_config {
            return print_config(&settings);
        }
        logs::start(&settings.log)?;
        let loaded = Loaded::open(&settings)?;
        let runtime = tokio::runtime::Runtime::new().context("the async runtime cannot be started")?;
        runtime.block_on(serve(loaded, &settings))
    }
}

fn print_config(settings: &Settings) -> Result<()> {
    let mut out = io::stdout().lock();
    let Settings { model, library, checks, http, log } = settings;
    let rows = [model.rows(), library.rows(), checks.rows(), http.rows(), log.rows()];
    for (name, value, origin) in rows.into_iter().flatten() {
        writeln!(out, "{:<48} # {origin}", format!("{name} = {value}"))?;
    }
    Ok(())
}

async fn serve(loaded: Loaded, settings: &Settings) -> Result<()> {
    let http = &settings.http;
    // Before anyone is told that the server is there, so that no signal finds it unprepared.
    let mut signals = Signals::listen()?;
    let address = (http.host.value.as_str(), http.port.value);
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot listen on {}:{}", address.0, address.1))?;
    let url = format!("http://{}/", listener.local_addr()?);
    let model = loaded.generator.model_name();
    let simulated = loaded.generator.engine().limits().simulated;
    match settings.log.log_format.value {
        LogFormat::Plain => {
            eprintln!("mondai serves {model} at {url}{}", if simulated { " (simulated device)" } else { "" })
        }
        LogFormat::Json => tracing::info!(model, url, simulated, "serving"),
    }

    if let Some(library) = loaded.library {
        // So that the first topic does not wait for it.
        std::thread::spawn(move || tracing::info!(passages = library.count(), "the library is ready"));
    }
    let engine = loaded.generator.engine().clone();
    let options = HttpOptions {
        body_limit: http.body_limit_bytes.value,
        keep_alive: Duration::from_secs(http.keep_alive_seconds.value.max(1)),
    };
    let state = AppState::new(loaded.generator, loaded.quizzes, loaded.metrics.clone(), options);
    let (stop_accepting, stopped) = oneshot::channel::<()>();
    // A token is a small packet, and none should wait for the next.
    let listener = listener.tap_io(|stream| {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "TCP_NODELAY cannot be set");
        }
    });
    let server = axum::serve(listener, router(state.clone())).with_graceful_shutdown(async {
        // An error only says that the sender is gone, which is as good a sign.
        let _ = stopped.await;
    });
    let mut server = tokio::spawn(server.into_future());

    tokio::select! {
        ended = &mut server => bail!("the server ended by itself: {ended:?}"),
        reason = lost(&engine) => {
            // Those who wait hear of it; then whoever supervises the process starts it anew.
            state.drain();
            drop(stop_accepting);
            let _ = tokio::time::timeout(LOST_GRACE, &mut server).await;
            bail!("the backend is lost: {reason}");
        }
        name = signals.next() => tracing::info!("{name}: finishing {} requests", loaded.metrics.http_in_flight()),
    }
    state.drain();
    drop(stop_accepting);
    let grace = Duration::from_secs(http.drain_grace_seconds.value);
    let cut = tokio::select! {
        ended = tokio::time::timeout(grace, &mut server) => match ended {
            Ok(ended) => {
                ended.context("the server failed")?.context("the server failed")?;
                None
            }
            Err(_) => Some(format!("the grace of {} s is over", grace.as_secs())),
        },
        name = signals.next() => Some(format!("{name} again")),
    };
    engine.drain();
    match cut {
        None => {
            tracing::info!("every request is finished");
            Ok(())
        }
        Some(why) => {
            server.abort();
            bail!("{why}: {} requests were cut short", loaded.metrics.http_in_flight());
        }
    }
}

/// For answers that are on their way when the backend is lost.
const LOST_GRACE: Duration = Duration::from_secs(5);

/// Ends when the backend is lost for good; says why.
async fn lost(engine: &Engine) -> String {
    let mut looks = tokio::time::interval(Duration::from_millis(500));
    loop {
        looks.tick().await;
        if let EngineHealth::Lost { reason } = engine.health() {
            return reason;
        }
    }
}

/// The two signals that end a server.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn listen() -> Result<Self> {
        let listen = |kind| signal(kind).context("signals cannot be listened for");
        Ok(Self { terminate: listen(SignalKind::terminate())?, interrupt: listen(SignalKind::interrupt())? })
    }

    /// The name of the next one.
    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}
