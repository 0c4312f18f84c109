//! What operators of the engine see: `/metrics`, `/healthz` and `/readyz`.
//!
//! Without more ado only this machine reaches them. An address that others reach demands a token of
//! everyone who asks, as does any address once there is a token. `/healthz` stays open: what asks it
//! is whatever restarts the program when it hangs, which has no way to keep a secret, and its answer
//! says nothing but that the process lives.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use axum::{
    Router,
    extract::{Request, State},
    http::{HeaderMap, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::get,
};
use sha2::{Digest, Sha256};
use tokio::net::TcpListener;

use crate::{metrics::Metrics, secret::Secret};

/// Whether the engine does what it is for: it has caught up with what was bound before, and its
/// last epoch is marked.
#[derive(Clone, Default)]
pub struct Readiness(Arc<AtomicBool>);

impl Readiness {
    /// Says so.
    pub fn set(&self, ready: bool) {
        self.0.store(ready, Ordering::Relaxed);
    }

    /// Whether it is ready.
    #[must_use]
    pub fn get(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Where they are served, and to whom.
#[derive(Clone, Debug)]
pub struct Listener {
    address: SocketAddr,
    token: Option<Token>,
}

/// An address that others reach, and no token that they must have.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "others may reach {0}, so it demands a token: name a file that holds one with --token-file, or \
     set CITYCELL_TOKEN; 127.0.0.1 needs none"
)]
pub struct NoToken(SocketAddr);

impl Listener {
    /// At this address, to those who have the token.
    ///
    /// # Errors
    /// When others than this machine reach the address and there is no token.
    pub fn new(address: SocketAddr, token: Option<&Secret>) -> Result<Self, NoToken> {
        if token.is_none() && !address.ip().is_loopback() {
            return Err(NoToken(address));
        }
        Ok(Self { address, token: token.map(Token::new) })
    }
}

/// A token, kept as its SHA-256 only.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Token([u8; 32]);

impl Token {
    fn new(secret: &Secret) -> Self {
        Self(Sha256::digest(secret.reveal()).into())
    }

    /// Whether these headers hold it, in a time that does not depend on where they differ.
    fn is_in(&self, headers: &HeaderMap) -> bool {
        let value = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let Some((scheme, sent)) = value.and_then(|value| value.split_once(' ')) else {
            return false;
        };
        let Self(sent) = Self::new(&Secret::new(sent.trim()));
        let differing = self.0.iter().zip(sent).fold(0, |all, (a, b)| all | (a ^ b));
        scheme.eq_ignore_ascii_case("bearer") && differing == 0
    }
}

/// Serves until the runtime ends; returns the address it listens on.
///
/// # Errors
/// When it cannot listen there.
pub async fn serve(
    listener: Listener,
    metrics: Metrics,
    readiness: Readiness,
) -> std::io::Result<SocketAddr> {
    let Listener { address, token } = listener;
    let listener = TcpListener::bind(address).await?;
    let local = listener.local_addr()?;
    let ready = move || async move {
        if readiness.get() {
            (StatusCode::OK, "ready\n")
        } else {
            (StatusCode::SERVICE_UNAVAILABLE, "not ready: epochs are bound and not marked\n")
        }
    };
    let exposition = move || async move {
        let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
        ([(header::CONTENT_TYPE, kind)], metrics.encode()).into_response()
    };
    let app = Router::new()
        .route("/readyz", get(ready))
        .route("/metrics", get(exposition))
        .route_layer(middleware::from_fn_with_state(token, demand_token))
        .route("/healthz", get(|| async { "ok\n" }));
    tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, app).await {
            tracing::error!(%error, "the HTTP server of metrics and health stopped");
        }
    });
    Ok(local)
}

async fn demand_token(
    State(token): State<Option<Token>>,
    request: Request,
    next: Next,
) -> Response {
    if token.is_none_or(|token| token.is_in(request.headers())) {
        return next.run(request).await;
    }
    let refused = "send the header Authorization: Bearer, and the token\n";
    (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, "Bearer")], refused).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn only_a_loopback_address_needs_no_token() {
        let token = Secret::new("open sesame");
        for local in ["127.0.0.1:8601", "127.1.2.3:8601", "[::1]:8601"] {
            assert!(Listener::new(address(local), None).is_ok(), "{local}");
        }
        for open in ["0.0.0.0:8601", "[::]:8601", "192.0.2.1:8601", "[::ffff:127.0.0.1]:8601"] {
            let refused = Listener::new(address(open), None);
            assert_eq!(refused.err(), Some(NoToken(address(open))));
            assert!(Listener::new(address(open), Some(&token)).is_ok(), "{open}");
        }
    }

    #[tokio::test]
    async fn metrics_and_readiness_are_for_those_who_have_the_token() {
        let secret = Secret::new("open sesame");
        let listener = Listener::new(address("127.0.0.1:0"), Some(&secret)).expect("good");
        let served = serve(listener, Metrics::default(), Readiness::default());
        let address = served.await.expect("it listens");
        // Plain HTTP, but the client asks for a provider of TLS when it is made.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::new();
        let status = async |path: &str, authorization: Option<&str>| {
            let mut request = client.get(format!("http://{address}{path}"));
            if let Some(value) = authorization {
                request = request.header(header::AUTHORIZATION, value);
            }
            request.send().await.expect("an answer").status().as_u16()
        };
        assert_eq!(status("/healthz", None).await, 200);
        for (path, let_in) in [("/metrics", 200), ("/readyz", 503)] {
            assert_eq!(status(path, Some("Bearer open sesame")).await, let_in);
            assert_eq!(status(path, Some("bearer  open sesame")).await, let_in);
            for wrong in [
                None,
                Some(""),
                Some("Bearer"),
                Some("Bearer open sesam"),
                Some("Bearer open sesame!"),
                Some("Basic open sesame"),
                Some("open sesame"),
            ] {
                assert_eq!(status(path, wrong).await, 401, "{path} {wrong:?}");
            }
        }
    }
}
