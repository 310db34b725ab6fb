//! A Hub in a thread, for the tests: one repository, and faults on demand.
//!
//! It answers what the client asks: the listing
//! (`/api/models/ORG/NAME/revision/REV?blobs=true`) and the files
//! (`/ORG/NAME/resolve/COMMIT/FILE`), large ones through a redirect, whole or by range.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::json;
use sha2::Digest;

/// The commit of every listing.
pub(super) const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// What the server has and how it misbehaves.
#[derive(Default)]
pub(super) struct State {
    /// Name to content.
    pub(super) files: BTreeMap<String, Vec<u8>>,
    /// Answers every listing so: status and `X-Error-Code`.
    pub(super) refuse_listing: Option<(u16, &'static str)>,
    /// Answers every file so.
    pub(super) refuse_files: Option<(u16, &'static str)>,
    /// Answers so many requests with 503 first.
    pub(super) busy: u32,
    /// The token that must come along.
    pub(super) token: Option<&'static str>,
    /// Sends so many bytes of each of the next files, then drops the connection.
    pub(super) cuts: Vec<usize>,
    /// Answers a Range request with the whole file.
    pub(super) ignore_range: bool,
    /// Content to send instead of what the listing says.
    pub(super) lie: Option<Vec<u8>>,
    /// The listing to send instead.
    pub(super) listing: Option<serde_json::Value>,
    /// `PATH RANGE` of each request so far.
    pub(super) log: Vec<String>,
}

/// A running server; it ends with the process.
pub(super) struct Server {
    state: Arc<Mutex<State>>,
    /// For `HF_ENDPOINT`.
    pub(super) endpoint: String,
}

impl Server {
    pub(super) fn new(files: &[(&str, &[u8])]) -> Self {
        let files = files.iter().map(|(name, data)| (name.to_string(), data.to_vec())).collect();
        let state = Arc::new(Mutex::new(State { files, ..State::default() }));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let state = Arc::clone(&shared);
                // A client that hangs up is no fault of the server.
                thread::spawn(move || stream.and_then(|stream| serve(stream, &state)));
            }
        });
        Server { state, endpoint }
    }

    /// Changes or looks at the state.
    pub(super) fn with<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.state.lock().unwrap())
    }

    /// The requests for files since the last call.
    pub(super) fn downloads(&self) -> Vec<String> {
        let log = self.with(|state| std::mem::take(&mut state.log));
        log.into_iter().filter(|line| line.starts_with("/o/n/resolve/")).collect()
    }
}

fn serve(mut stream: TcpStream, state: &Mutex<State>) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let first = lines.next().unwrap_or(Ok(String::new()))?;
    let path = first.split(' ').nth(1).unwrap_or("").to_owned();
    let mut headers = BTreeMap::new();
    for line in lines {
        let line = line?;
        let Some((name, value)) = line.split_once(':') else { break };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let (head, body) = answer(&path, &headers, &mut state.lock().unwrap());
    stream.write_all(head.as_bytes())?;
    stream.write_all(&body)
}

/// Head and body; a cut body is shorter than the head says.
fn answer(path: &str, headers: &BTreeMap<String, String>, state: &mut State) -> (String, Vec<u8>) {
    let range = headers.get("range").cloned().unwrap_or_default();
    state.log.push(format!("{path} {range}").trim().to_owned());
    if state.busy > 0 {
        state.busy -= 1;
        return status(503, "");
    }
    // As on the Hub, the place files are redirected to needs no token.
    let authorized = headers.get("authorization").map(String::as_str);
    let wanted = state.token.map(|token| format!("Bearer {token}"));
    if wanted.is_some() && authorized != wanted.as_deref() && !path.starts_with("/cdn/") {
        return status(401, "");
    }
    if let Some(rest) = path.strip_prefix("/api/models/o/n/revision/") {
        return match (state.refuse_listing, rest) {
            (Some((code, error)), _) => status(code, error),
            (None, rest) if rest.ends_with("?blobs=true") => listing(state),
            _ => status(400, ""),
        };
    }
    if let Some((code, error)) = state.refuse_files {
        return status(code, error);
    }
    let resolve = format!("/o/n/resolve/{COMMIT}/");
    if let Some(name) = path.strip_prefix(&resolve) {
        if large(name) {
            let location = format!("Location: /cdn/{name}\r\nX-Repo-Commit: {COMMIT}\r\n");
            return respond("302 Found", &location, Vec::new(), None);
        }
        return file(name, &range, state);
    }
    match path.strip_prefix("/cdn/") {
        Some(name) => file(name, &range, state),
        None => status(404, "RepoNotFound"),
    }
}

fn large(name: &str) -> bool {
    name.ends_with(".safetensors") || name.ends_with(".gguf")
}

fn listing(state: &State) -> (String, Vec<u8>) {
    let files = state.files.iter().map(|(name, data)| {
        let blob =
            hex(&sha1::Sha1::digest([format!("blob {}\0", data.len()).as_bytes(), data].concat()));
        let mut entry = json!({"rfilename": name, "size": data.len(), "blobId": blob});
        if large(name) {
            let sha256 = hex(&sha2::Sha256::digest(data));
            entry["lfs"] = json!({"sha256": sha256, "size": data.len(), "pointerSize": 130});
        }
        entry
    });
    let info = json!({"id": "o/n", "sha": COMMIT, "siblings": files.collect::<Vec<_>>()});
    let info = state.listing.as_ref().unwrap_or(&info).to_string();
    respond("200 OK", "Content-Type: application/json\r\n", info.into_bytes(), None)
}

fn file(name: &str, range: &str, state: &mut State) -> (String, Vec<u8>) {
    let Some(data) = state.lie.as_ref().or_else(|| state.files.get(name)) else {
        return status(404, "EntryNotFound");
    };
    let total = data.len();
    let start = range.strip_prefix("bytes=").and_then(|r| r.strip_suffix('-'));
    let start: Option<usize> = start.filter(|_| !state.ignore_range).map(|s| s.parse().unwrap());
    let cut = (!state.cuts.is_empty()).then(|| state.cuts.remove(0));
    match start {
        Some(start) if start >= total => status(416, ""),
        Some(start) => {
            let head = format!("Content-Range: bytes {start}-{}/{total}\r\n", total - 1);
            respond("206 Partial Content", &head, data[start..].to_vec(), cut)
        }
        None => respond("200 OK", "", data.clone(), cut),
    }
}

fn status(code: u16, error: &str) -> (String, Vec<u8>) {
    respond(&format!("{code} No"), &format!("X-Error-Code: {error}\r\n"), Vec::new(), None)
}

fn respond(status: &str, more: &str, mut body: Vec<u8>, cut: Option<usize>) -> (String, Vec<u8>) {
    let length = body.len();
    body.truncate(cut.unwrap_or(length));
    let head =
        format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n{more}\r\n");
    (head, body)
}

/// Lower-case hexadecimal.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
