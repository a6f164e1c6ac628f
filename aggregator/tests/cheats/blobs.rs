//! A Blossom server in memory.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Json};
use axum::routing::{get, put};
use infernet_protocol::seal::Digest;
use serde_json::json;

type Kept = Arc<Mutex<HashMap<String, Bytes>>>;

/// A server; it ends with the test.
pub struct BlobServer {
    pub url: String,
}

impl BlobServer {
    pub async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let app = Router::new()
            .route("/upload", put(upload))
            .route("/{name}", get(download))
            .layer(DefaultBodyLimit::max(32 << 20))
            .with_state((Kept::default(), url.clone()));
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self { url }
    }
}

async fn upload(
    State((kept, url)): State<(Kept, String)>,
    headers: HeaderMap,
    body: Bytes,
) -> impl IntoResponse {
    if !headers.contains_key("authorization") {
        return (StatusCode::UNAUTHORIZED, Json(json!({})));
    }
    let name = Digest::of(&body).to_string();
    let size = body.len();
    kept.lock().unwrap().insert(name.clone(), body);
    let described = json!({
        "url": format!("{url}/{name}"), "sha256": name, "size": size,
        "type": "application/octet-stream", "uploaded": 1,
    });
    (StatusCode::OK, Json(described))
}

async fn download(
    State((kept, _)): State<(Kept, String)>,
    Path(name): Path<String>,
) -> Result<Bytes, StatusCode> {
    let kept = kept.lock().unwrap();
    kept.get(&name).cloned().ok_or(StatusCode::NOT_FOUND)
}
