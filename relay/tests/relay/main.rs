//! The relay from outside: over its port, and as the program that people start.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod admission;
mod bans;
mod blobs;
mod client;
mod events;
mod faults;
mod hostile;
mod http;
mod operator;
mod policy;
mod program;
mod reading;
mod session;
mod standing;
mod storage;
mod strfry;
mod sync;
mod sync_program;

use infernet_node::shutdown::Shutdown;
use infernet_relay::{Handle, Options, run};
use tempfile::TempDir;

/// A relay in this process, in a folder of its own.
struct Relay {
    handle: Handle,
    shutdown: Shutdown,
    folder: TempDir,
}

impl Relay {
    /// Starts one with settings changed by `change`.
    async fn start_with(change: impl FnOnce(&mut Options)) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), change).await
    }

    /// Starts one for the market only.
    async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    async fn start_in(folder: TempDir, change: impl FnOnce(&mut Options)) -> Self {
        let mut options = Options::new(folder.path());
        options.listen = "127.0.0.1:0".to_owned();
        change(&mut options);
        let shutdown = Shutdown::new();
        let handle = run(options, shutdown.clone()).await.unwrap();
        Self {
            handle,
            shutdown,
            folder,
        }
    }

    /// Stops it gently and answers its folder.
    async fn stop(self) -> TempDir {
        self.shutdown.stop_soon();
        client::soon(self.handle.ended()).await;
        self.folder
    }

    async fn client(&self) -> client::Client {
        client::Client::connect(&self.handle.url()).await
    }

    fn page(&self, path: &str) -> String {
        format!("http://{}{path}", self.handle.address())
    }
}
