//! An HTTP/1.1 client that times can be taken with: one connection a request in flight, kept for the
//! next. Absent: TLS (a proxy on the same machine can speak it), redirects, retries of what was answered.

use super::sample::Failure;
use axum::body::Bytes;
use axum::http::{Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use std::sync::{Mutex, PoisonError};
use tokio::net::TcpStream;

/// One server, and the connections to it that are free.
pub(super) struct Client {
    /// `HOST:PORT`
    authority: String,
    /// What comes before `/v1`.
    prefix: String,
    api_key: Option<String>,
    free: Mutex<Vec<SendRequest<Full<Bytes>>>>,
}

/// What an error says of a server's answer.
const MAX_QUOTED_CHARS: usize = 300;

impl Client {
    /// # Errors
    /// The URL is not one of plain HTTP.
    pub(super) fn new(url: &str, api_key: Option<String>) -> anyhow::Result<Self> {
        let uri: Uri = url.parse().map_err(|error| anyhow::anyhow!("{url} is no URL: {error}"))?;
        let (Some("http"), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            anyhow::bail!("{url} should look like http://HOST:PORT (https needs a proxy that speaks it)");
        };
        let port = authority.port_u16().unwrap_or(80);
        let prefix = uri.path().trim_end_matches('/').trim_end_matches("/v1").to_owned();
        let authority = format!("{}:{port}", authority.host());
        Ok(Self { authority, prefix, api_key, free: Mutex::default() })
    }

    /// A whole answer.
    ///
    /// # Errors
    /// Nobody answers, or with another status than 200.
    pub(super) async fn get(&self, path: &str) -> Result<Bytes, Failure> {
        let mut answer = self.send(Method::GET, path, "application/json", Bytes::new()).await?;
        let mut whole = Vec::new();
        while let Some(bytes) = answer.next().await? {
            whole.extend_from_slice(&bytes);
        }
        Ok(whole.into())
    }

    /// An answer as it comes.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub(super) async fn post(&self, path: &str, accept: &str, body: Bytes) -> Result<Answer<'_>, Failure> {
        self.send(Method::POST, path, accept, body).await
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        accept: &str,
        body: Bytes,
    ) -> Result<Answer<'_>, Failure> {
        let request = || {
            let mut request = Request::builder()
                .method(method.clone())
                .uri(format!("{}{path}", self.prefix))
                .header(header::HOST, &self.authority)
                .header(header::ACCEPT, accept);
            if method == Method::POST {
                request = request.header(header::CONTENT_TYPE, "application/json");
            }
            if let Some(key) = &self.api_key {
                request = request.header(header::AUTHORIZATION, format!("Bearer {key}"));
            }
            request.body(Full::new(body.clone())).map_err(Failure::broken)
        };
        let mut answered = None;
        if let Some(mut kept) = self.kept().await {
            match kept.send_request(request()?).await {
                Ok(response) => answered = Some((kept, response)),
                // The server closed it while nobody used it, and has not seen the request.
                Err(error) if error.is_canceled() || error.is_incomplete_message() || error.is_closed() => {}
                Err(error) => return Err(Failure::broken(error)),
            }
        }
        let (connection, response) = match answered {
            Some(answered) => answered,
            None => {
                let mut opened = self.connect().await?;
                let response = opened.send_request(request()?).await.map_err(Failure::broken)?;
                (opened, response)
            }
        };
        let (parts, body) = response.into_parts();
        let mut answer = Answer { client: self, body, connection: Some(connection) };
        if parts.status == StatusCode::OK {
            return Ok(answer);
        }
        let text = answer.text().await;
        Err(match parts.status {
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => Failure::Refused(text),
            status => Failure::Status { status: status.as_u16(), text },
        })
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, Failure> {
        let stream = TcpStream::connect(&self.authority).await.map_err(Failure::broken)?;
        stream.set_nodelay(true).map_err(Failure::broken)?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(Failure::broken)?;
        // Ends with the connection; its error reaches whoever waits for the answer.
        tokio::spawn(connection);
        Ok(sender)
    }

    /// A connection that is open and free, if there is one.
    async fn kept(&self) -> Option<SendRequest<Full<Bytes>>> {
        loop {
            let mut sender = self.free.lock().unwrap_or_else(PoisonError::into_inner).pop()?;
            if sender.ready().await.is_ok() {
                return Some(sender);
            }
        }
    }
}

/// An answer with status 200.
pub(super) struct Answer<'a> {
    client: &'a Client,
    body: Incoming,
    /// Free again when the body has been read.
    connection: Option<SendRequest<Full<Bytes>>>,
}

impl Answer<'_> {
    /// The next bytes of the body; `None` after the last.
    ///
    /// # Errors
    /// The connection broke.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, Failure> {
        loop {
            match self.body.frame().await {
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        return Ok(Some(data));
                    }
                }
                Some(Err(error)) => return Err(Failure::broken(error)),
                None => {
                    if let Some(connection) = self.connection.take() {
                        let mut free = self.client.free.lock().unwrap_or_else(PoisonError::into_inner);
                        free.push(connection);
                    }
                    return Ok(None);
                }
            }
        }
    }

    /// The beginning of the body, for an error.
    async fn text(&mut self) -> String {
        let mut text = String::new();
        while let Ok(Some(bytes)) = self.next().await {
            text.push_str(&String::from_utf8_lossy(&bytes));
            if text.len() > MAX_QUOTED_CHARS * 4 {
                break;
            }
        }
        text.trim().chars().take(MAX_QUOTED_CHARS).collect()
    }
}
