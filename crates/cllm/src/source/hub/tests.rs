//! The Hub client against a server in this process.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::json;
use sha2::Digest;

use super::server::{COMMIT, Server, hex};
use super::{resolve, verify};
use crate::source::options::HubOptions;
use crate::source::testing::Notes;
use crate::source::{Fetched, ModelRef, Resolved, SourceError};

const CONFIG: &[u8] = b"{\"model_type\": \"llama\"}";

/// Enough bytes that they do not fit in one read.
fn weights() -> Vec<u8> {
    (0..300_000_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

/// A repository of one safetensors file.
fn repository() -> Server {
    Server::new(&[
        ("README.md", b"x"),
        ("config.json", CONFIG),
        ("model.safetensors", &weights()),
        ("pytorch_model.bin", b"x"),
        ("tokenizer.json", b"{}"),
    ])
}

struct Client {
    dir: tempfile::TempDir,
    options: HubOptions,
    notes: Notes,
}

impl Client {
    fn new(server: &Server) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let options = HubOptions {
            cache: dir.path().join("hub"),
            endpoint: server.endpoint.clone(),
            token: None,
            offline: false,
            pause: Duration::ZERO,
        };
        Client { dir, options, notes: Notes::default() }
    }

    fn pull(&self, reference: &str) -> Result<Resolved, SourceError> {
        let Ok(ModelRef::Hub(hub)) = reference.parse() else { panic!("{reference}") };
        let resolved = resolve(&hub, &self.notes, &self.options);
        assert_eq!(self.notes.open.get(), 0, "no progress bar is left");
        resolved
    }

    fn failure(&self, reference: &str, expected: &str, code: u8) -> SourceError {
        let error = self.pull(reference).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
        assert_eq!(error.exit_code(), code, "{error}");
        error
    }

    fn repo(&self) -> PathBuf {
        self.options.cache.join("models--o--n")
    }

    fn snapshot(&self) -> PathBuf {
        self.repo().join("snapshots").join(COMMIT)
    }

    /// The blob of the weights, and its partial file.
    fn blob(&self, data: &[u8]) -> (PathBuf, PathBuf) {
        let name = hex(&sha2::Sha256::digest(data));
        let blobs = self.repo().join("blobs");
        (blobs.join(&name), blobs.join(format!("{name}.incomplete")))
    }
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut names: Vec<_> = entries.map(|e| e.file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_repository_is_fetched_once_into_the_shared_layout() {
    let server = repository();
    let client = Client::new(&server);
    let first = client.pull("hf:o/n").unwrap();
    assert_eq!(first, Resolved { path: client.snapshot(), fetched: Fetched::Now });
    assert_eq!(names(&first.path), ["config.json", "model.safetensors", "tokenizer.json"]);
    assert_eq!(fs::read(first.path.join("model.safetensors")).unwrap(), weights());
    assert_eq!(fs::read_to_string(client.repo().join("refs/main")).unwrap(), COMMIT);
    assert_eq!(names(&client.repo().join("blobs")).len(), 3, "no partial file is left");
    #[cfg(unix)]
    {
        let link = fs::read_link(first.path.join("config.json")).unwrap();
        assert!(link.starts_with("../../blobs"), "{link:?}");
        assert_eq!(verify(&first.path).unwrap().len(), 3);
    }
    assert_eq!(server.downloads().len(), 3);

    let again = Resolved { path: first.path, fetched: Fetched::Before };
    assert_eq!(client.pull("hf:o/n").unwrap(), again);
    assert_eq!(client.pull(&format!("hf:o/n@{COMMIT}")).unwrap(), again);
    assert_eq!(server.downloads(), Vec::<String>::new());
    assert_eq!(client.notes.last.get(), (Some(weights().len() as u64), weights().len() as u64));
}

#[test]
fn shards_are_those_of_the_index() {
    let index = br#"{"weight_map": {"a": "model-2.safetensors", "b": "model-1.safetensors"}}"#;
    let mut files: Vec<(&str, &[u8])> = vec![
        ("config.json", CONFIG),
        ("consolidated.safetensors", b"again"),
        ("model-1.safetensors", b"one"),
        ("model-2.safetensors", b"two"),
        ("model.safetensors.index.json", index),
    ];
    let client = Client::new(&Server::new(&files));
    let path = client.pull("hf:o/n@v1.0").unwrap().path;
    let there = ["config.json", "model-1.safetensors", "model-2.safetensors"];
    assert_eq!(names(&path)[..3], there);
    assert_eq!(names(&client.repo().join("refs")), ["v1.0"]);

    // A cached snapshot without one of its shards is not complete.
    let mut offline = client;
    offline.options.offline = true;
    assert!(offline.pull("hf:o/n@v1.0").is_ok());
    fs::remove_file(path.join("model-2.safetensors")).unwrap();
    offline.failure("hf:o/n@v1.0", "HF_HUB_OFFLINE", 2);

    files.remove(3);
    let client = Client::new(&Server::new(&files));
    client.failure("hf:o/n", "its index names `model-2.safetensors`", 1);
    assert!(!client.repo().join("refs").exists());
}

#[test]
fn a_broken_connection_is_resumed() {
    let server = repository();
    let half = weights().len() / 2;
    // The first cut is config.json's, in the middle, too.
    server.with(|state| state.cuts = vec![5, usize::MAX, usize::MAX, half, 10]);
    let client = Client::new(&server);
    let path = client.pull("hf:o/n").unwrap().path;
    assert_eq!(fs::read(path.join("model.safetensors")).unwrap(), weights());
    assert_eq!(fs::read(path.join("config.json")).unwrap(), CONFIG);
    let log = server.downloads();
    let ranges: Vec<&str> = log.iter().filter_map(|l| l.split_once(' ')).map(|l| l.1).collect();
    let expected = ["bytes=5-".into(), format!("bytes={half}-"), format!("bytes={}-", half + 10)];
    assert_eq!(ranges, expected);
}

#[test]
fn a_partial_file_of_an_earlier_process_is_used_or_replaced() {
    let data = weights();
    let other = vec![7; 1000];
    let long = vec![7; data.len() + 1];
    let mut wrong = data.clone();
    wrong[17] ^= 1;
    for (left, requests) in [
        (&data[..1000], vec!["bytes=1000-"]),
        (&data[..], vec![]),
        // A beginning of something else shows only in the hash of the whole.
        (&other[..], vec!["bytes=1000-", ""]),
        (&wrong[..], vec![""]),
        (&long[..], vec![""]),
    ] {
        let server = repository();
        let client = Client::new(&server);
        let (blob, part) = client.blob(&data);
        fs::create_dir_all(part.parent().unwrap()).unwrap();
        fs::write(&part, left).unwrap();
        client.pull("hf:o/n").unwrap();
        assert_eq!(fs::read(&blob).unwrap(), data);
        assert!(!part.exists());
        let log = server.downloads();
        let mine = log.iter().filter(|line| line.contains("model.safetensors"));
        let ranges: Vec<_> = mine.map(|l| l.split_once(' ').map_or("", |l| l.1)).collect();
        assert_eq!(ranges, requests, "{} bytes left", left.len());
    }
}

#[test]
fn a_server_without_ranges_and_a_busy_one() {
    let server = repository();
    server.with(|state| {
        state.busy = 2;
        state.cuts = vec![usize::MAX, usize::MAX, 1000];
        state.ignore_range = true;
    });
    let client = Client::new(&server);
    let path = client.pull("hf:o/n").unwrap().path;
    assert_eq!(fs::read(path.join("model.safetensors")).unwrap(), weights());
}

#[test]
fn a_line_that_brings_nothing_is_given_up() {
    let server = repository();
    server.with(|state| state.cuts = [vec![usize::MAX; 2], vec![1000], vec![0; 99]].concat());
    let client = Client::new(&server);
    client.failure("hf:o/n", "no connection to fetch hf:o/n", 1);
    let (blob, part) = client.blob(&weights());
    assert!(!blob.exists() && !client.repo().join("refs").exists());
    assert_eq!(fs::read(part).unwrap(), weights()[..1000], "kept, to be resumed");
    server.with(|state| state.cuts.clear());
    assert!(client.pull("hf:o/n").is_ok());
}

#[test]
fn other_bytes_than_listed_are_not_stored() {
    for (lie, expected) in [
        (vec![7; CONFIG.len()], "wrong hash"),
        (vec![7; CONFIG.len() - 1], "the server has"),
        (vec![7; CONFIG.len() + 1], "the server has"),
    ] {
        let server = repository();
        server.with(|state| state.lie = Some(lie));
        let client = Client::new(&server);
        client.failure("hf:o/n", expected, 1);
        assert!(names(&client.repo().join("blobs")).is_empty());
        assert!(!client.snapshot().exists() && !client.repo().join("refs").exists());
    }
}

#[test]
fn refusals_say_what_to_do() {
    let server = repository();
    let mut client = Client::new(&server);
    let mut check = |listing, files, token: Option<&str>, expected, code| {
        server.with(|state| (state.refuse_listing, state.refuse_files) = (listing, files));
        client.options.token = token.map(Into::into);
        client.failure("hf:o/n@dev", expected, code);
    };
    check(Some((404, "RepoNotFound")), None, None, "no such repository", 2);
    check(Some((401, "RepoNotFound")), None, None, "if it is private, set HF_TOKEN", 2);
    check(Some((404, "RevisionNotFound")), None, None, "no revision `dev`", 2);
    check(Some((404, "")), None, Some("t"), "no such repository or revision for you", 2);
    check(Some((401, "")), None, None, "private or gated: set HF_TOKEN", 1);
    check(Some((401, "")), None, Some("t"), "refuses the token", 1);
    check(None, Some((401, "GatedRepo")), None, "then set HF_TOKEN", 1);
    check(None, Some((403, "")), Some("t"), "no access yet", 1);
    check(None, Some((404, "EntryNotFound")), None, "gone", 2);
    check(Some((500, "")), None, None, "status 500", 1);
    check(None, Some((500, "")), None, "status 500", 1);
    check(Some((418, "")), None, None, "status 418", 1);
    assert!(names(&client.repo().join("blobs")).is_empty());
}

#[test]
fn the_token_opens_a_private_repository() {
    let server = repository();
    server.with(|state| state.token = Some("hf_secret"));
    let mut client = Client::new(&server);
    client.failure("hf:o/n", "set HF_TOKEN", 1);
    client.options.token = Some("hf_secret".into());
    assert!(client.pull("hf:o/n").is_ok());
    client.options.token = Some("line\nbreak".into());
    assert_eq!(client.pull("hf:o/n@x").unwrap_err().exit_code(), 1);
}

#[test]
fn without_a_network_the_cache_serves() {
    let server = repository();
    let mut client = Client::new(&server);
    client.options.offline = true;
    client.failure("hf:o/n", "HF_HUB_OFFLINE is set", 2);
    assert!(server.with(|state| state.log.is_empty()), "offline means offline");
    client.options.offline = false;
    let path = client.pull("hf:o/n").unwrap().path;
    client.options.offline = true;
    let cached = Resolved { path, fetched: Fetched::Before };
    assert_eq!(client.pull("hf:o/n").unwrap(), cached);

    // A port that nobody listens on any more.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    client.options.endpoint = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    client.options.offline = false;
    assert_eq!(client.pull("hf:o/n").unwrap(), cached);
    assert!(client.notes.lines()[0].contains("the cached hf:o/n is used"));
    client.failure("hf:o/n@other", "no connection to fetch hf:o/n@other", 1);
}

#[test]
fn one_gguf_of_several() {
    let server = Server::new(&[("a.gguf", b"A"), ("q4/b.gguf", b"BB")]);
    let mut client = Client::new(&server);
    client.failure("hf:o/n", "choose one as hf:o/n:FILE, of a.gguf, q4/b.gguf", 2);
    client.failure("hf:o/n:c.gguf", "has no `c.gguf`", 2);
    let path = client.pull("hf:o/n:q4/b.gguf").unwrap().path;
    assert_eq!(path, client.snapshot().join("q4/b.gguf"));
    assert_eq!(fs::read(&path).unwrap(), b"BB");
    #[cfg(unix)]
    assert_eq!(verify(&path).unwrap().len(), 1);
    assert_eq!(server.downloads().len(), 1);
    client.options.offline = true;
    assert!(client.pull("hf:o/n:q4/b.gguf").is_ok());
    client.failure("hf:o/n:a.gguf", "is not in the cache", 2);
}

#[test]
fn a_lying_listing_is_refused() {
    let server = repository();
    let client = Client::new(&server);
    let file = |name: &str, blob: &str| json!({"sha": COMMIT, "siblings": [{"rfilename": name, "size": 1, "blobId": blob}]});
    for (listing, expected) in [
        (json!("text"), "a listing we cannot read"),
        (json!({"sha": "../x", "siblings": []}), "where a commit was expected"),
        (json!({"sha": COMMIT, "siblings": [{"rfilename": "a.gguf"}]}), "no size and hash"),
        (file("a.gguf", "../../etc"), "where a hash was expected"),
        (file("../a.gguf", COMMIT), "no model here"),
        (file("/a.gguf", COMMIT), "no model here"),
    ] {
        server.with(|state| state.listing = Some(listing));
        let error = client.pull("hf:o/n").unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    assert!(!client.options.cache.exists());
}

#[cfg(unix)]
#[test]
fn a_changed_blob_is_found_by_verify() {
    let server = repository();
    let client = Client::new(&server);
    let path = client.pull("hf:o/n").unwrap().path;
    let mut data = weights();
    data[5] ^= 1;
    fs::write(client.blob(&weights()).0, data).unwrap();
    let error = verify(&path).unwrap_err().to_string();
    assert!(error.contains("model.safetensors: wrong hash"), "{error}");
}

#[test]
fn an_unusable_cache_is_one_clear_line() {
    let server = repository();
    let mut client = Client::new(&server);
    fs::write(client.dir.path().join("file"), "x").unwrap();
    client.options.cache = client.dir.path().join("file/hub");
    client.failure("hf:o/n", "cannot write to", 1);
}
