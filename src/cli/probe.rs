//! `mondai probe`: asks a running server whether it is ready, for health checks where there is no curl.
//!
//! One plain HTTP/1.1 request over a socket. Absent: TLS, redirects, retries.

use crate::config::{HttpFlags, HttpSettings, Sources};
use anyhow::{Context, Result, anyhow, bail};
use axum::http::Uri;
use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

/// Ask a running server whether it is ready; fails if it is not
#[derive(Debug, clap::Args)]
pub(super) struct Probe {
    /// What to ask; by default /readyz on this machine, at the port that MONDAI_PORT or `serve` sets
    url: Option<Uri>,
}

/// For the connection, and for each of its reads.
const TIMEOUT: Duration = Duration::from_secs(2);
/// What is read of an answer, which is a line of JSON.
const MAX_ANSWER_BYTES: u64 = 16 * 1024;

impl Probe {
    /// # Errors
    /// Nobody answers, or with another status than 200.
    pub(super) fn run(self) -> Result<()> {
        let url = match self.url {
            Some(url) => url,
            None => {
                let settings = HttpSettings::resolve(HttpFlags::default(), &mut Sources::open(None)?)?;
                format!("http://127.0.0.1:{}/readyz", settings.port.value).parse()?
            }
        };
        probe(&url).with_context(|| format!("{url} is not ready"))
    }
}

fn probe(url: &Uri) -> Result<()> {
    let (Some("http"), Some(authority)) = (url.scheme_str(), url.authority()) else {
        bail!("it should look like http://HOST:PORT/PATH");
    };
    let address = (authority.host().trim_matches(['[', ']']), authority.port_u16().unwrap_or(80))
        .to_socket_addrs()
        .with_context(|| format!("the host {} cannot be found", authority.host()))?
        .next()
        .ok_or_else(|| anyhow!("the host {} has no address", authority.host()))?;
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT).context("it cannot be connected to")?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    let path = url.path_and_query().map_or("/", |path| path.as_str());
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n\r\n")?;

    let mut answer = Vec::new();
    stream.take(MAX_ANSWER_BYTES).read_to_end(&mut answer).context("it did not answer")?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status_line = head.lines().next().unwrap_or_default();
    if !status_line.starts_with("HTTP/") {
        bail!("it did not answer in HTTP");
    }
    match status_line.split(' ').nth(1) {
        Some("200") => Ok(()),
        _ => bail!("it answered {status_line}: {body}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader};
    use std::net::TcpListener;

    /// Answers one request at `/readyz?deep=1` with `answer`, and returns what came of the probe.
    fn probe_answered(answer: &'static str) -> Result<(), String> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/readyz?deep=1", listener.local_addr().unwrap());
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let lines: Vec<String> = BufReader::new(stream.try_clone().unwrap())
                .lines()
                .map(Result::unwrap)
                .take_while(|line| !line.is_empty())
                .collect();
            assert_eq!(lines[0], "GET /readyz?deep=1 HTTP/1.1");
            stream.write_all(answer.as_bytes()).unwrap();
        });
        let outcome = probe(&url.parse().unwrap()).map_err(|error| format!("{error:#}"));
        server.join().unwrap();
        outcome
    }

    #[test]
    fn only_a_200_is_ready() {
        let check = |answer, expected: Result<(), &str>| {
            assert_eq!(probe_answered(answer), expected.map_err(str::to_owned), "{answer:?}");
        };
        check("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}", Ok(()));
        check(
            "HTTP/1.1 503 Service Unavailable\r\n\r\n{\"error\":{}}",
            Err("it answered HTTP/1.1 503 Service Unavailable: {\"error\":{}}"),
        );
        check("HTTP/1.1 2000 OK\r\n\r\n", Err("it answered HTTP/1.1 2000 OK: "));
        check("SSH-2.0-x 200 x", Err("it did not answer in HTTP"));
        check("", Err("it did not answer in HTTP"));
    }

    #[test]
    fn what_cannot_be_asked_is_an_error() {
        let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        for url in [&format!("http://{closed}/"), "https://localhost/", "/readyz"] {
            assert!(probe(&url.parse().unwrap()).is_err(), "{url}");
        }
    }
}
