//! How connections come in: each is a task of its own, which ends with the relay.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::address::is_one_of;
use crate::admission::Admission;
use crate::http::Connection;

/// How long a client may take to send the headers of its request.
const HEADERS_WITHIN: Duration = Duration::from_secs(10);

/// How long a connection that is no websocket may last: the largest blob over a slow line.
const ANSWERED_WITHIN: Duration = Duration::from_secs(300);

/// How long a connection may be silent before the system asks whether the peer is still there.
const PROBE_AFTER: Duration = Duration::from_secs(60);

/// How long to wait when the system gives no connection (mostly because the process has too many files open).
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// Takes connections in.
#[derive(Clone)]
pub struct Door {
    /// Who answers.
    pub router: Router,
    /// Who bounds how many come from where.
    pub admission: Arc<Admission>,
    /// Proxies, which come for many.
    pub proxies: Vec<IpAddr>,
    /// Holds each connection's task.
    pub tasks: TaskTracker,
    /// Ends each connection's task at once.
    pub abort: CancellationToken,
}

impl Door {
    /// Accepts connections, for ever.
    pub async fn accept(&self, listener: TcpListener) {
        loop {
            match listener.accept().await {
                Ok((stream, peer)) => self.serve(stream, peer),
                Err(error) => {
                    tracing::warn!(%error, "no connection can be taken; trying again");
                    sleep(ACCEPT_AGAIN).await;
                }
            }
        }
    }

    /// The same where there is a port for it.
    pub async fn accept_if(&self, listener: Option<TcpListener>) {
        match listener {
            Some(listener) => self.accept(listener).await,
            None => std::future::pending().await,
        }
    }

    /// Serves one connection in a task of its own. A websocket goes on in another one. Of an address that has too many
    /// which say nothing, the next is closed without a word.
    fn serve(&self, stream: TcpStream, peer: SocketAddr) {
        let counted = (!is_one_of(&self.proxies, peer.ip())).then_some(peer.ip());
        let Ok(place) = self.admission.may_come(counted) else {
            tracing::debug!(%peer, "too many connections from there");
            return;
        };
        if let Err(error) = tune(&stream) {
            tracing::debug!(%peer, %error, "connection cannot be tuned");
        }
        let router = self.router.clone().layer(Extension(Connection { peer }));
        let abort = self.abort.clone();
        self.tasks.spawn(async move {
            let served = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADERS_WITHIN)
                .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router))
                .with_upgrades();
            tokio::select! {
                served = served => if let Err(error) = served {
                    tracing::debug!(%peer, %error, "connection failed");
                },
                () = sleep(ANSWERED_WITHIN) => tracing::debug!(%peer, "connection took too long"),
                () = abort.cancelled() => {}
            }
            drop(place);
        });
    }
}

/// Pieces of an answer are small and go out at once; a peer that vanished without a word gives its place back.
fn tune(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let keepalive = TcpKeepalive::new().with_time(PROBE_AFTER);
    SockRef::from(stream).set_tcp_keepalive(&keepalive)
}
