//! Asking the Hub: what a repository holds at a revision, and why it says no.
//!
//! One request tells everything: commit, names, sizes and hashes
//! (`/api/models/ORG/NAME/revision/REV?blobs=true`). A refusal is told apart by the
//! `X-Error-Code` header, because the Hub answers 401 also for what does not exist.

use std::collections::BTreeMap;
use std::thread;
use std::time::Duration;

use hf_hub::api::sync::{Api, ApiBuilder};
use hf_hub::{Repo, RepoType};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use ureq::config::RedirectAuthHeaders;
use ureq::http::{HeaderMap, StatusCode};

use crate::source::SourceError;
use crate::source::digest::Hash;
use crate::source::options::HubOptions;
use crate::source::reference::{HubRef, is_relative};

pub(super) const CONNECT: Duration = Duration::from_secs(20);
/// The longest silence of a server that is taken for work.
pub(super) const SILENCE: Duration = Duration::from_secs(30);
/// Attempts in a row without a usable byte.
pub(super) const ATTEMPTS: u32 = 5;
/// Listings have some 200 bytes a file.
const LISTING_BYTES: u64 = 32 << 20;
/// Everything else in a file name is percent-encoded in an address.
const PLAIN: AsciiSet = NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'/');

/// A repository's files at one commit.
pub(super) struct Listing {
    /// 40 hexadecimal digits.
    pub(super) commit: String,
    /// By name, with `/`; every name stays inside the folder it is joined to.
    pub(super) files: BTreeMap<String, Remote>,
}

/// What the listing says of a file.
pub(super) struct Remote {
    /// In bytes.
    pub(super) size: u64,
    /// SHA-256 of a large file, git's blob hash of a small one: the name of its blob.
    pub(super) etag: String,
    /// Which of the two.
    pub(super) hash: Hash,
}

/// A repository at the Hub.
pub(super) struct Hub {
    /// The reference, for messages.
    pub(super) what: String,
    /// For downloads.
    pub(super) agent: ureq::Agent,
    /// `Authorization`, when there is a token.
    pub(super) authorization: Option<String>,
    api: Api,
    repo: String,
    revision: Option<String>,
    endpoint: String,
    /// Wait before the second attempt.
    pub(super) pause: Duration,
}

#[derive(Deserialize)]
struct Info {
    sha: String,
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
    size: Option<u64>,
    #[serde(rename = "blobId")]
    blob_id: Option<String>,
    lfs: Option<Lfs>,
}

#[derive(Deserialize)]
struct Lfs {
    sha256: String,
    size: u64,
}

impl Hub {
    pub(super) fn new(reference: &HubRef, options: &HubOptions) -> Result<Self, SourceError> {
        let what = reference.to_string();
        let api = ApiBuilder::from_cache(hf_hub::Cache::new(options.cache.clone()))
            .with_endpoint(options.endpoint.clone())
            .with_token(options.token.clone())
            .with_user_agent("cllm", env!("CARGO_PKG_VERSION"))
            .with_progress(false)
            .build()
            .map_err(|e| SourceError::HubAnswer {
                what: what.clone(),
                answer: e.to_string(),
                endpoint: options.endpoint.clone(),
            })?;
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .redirect_auth_headers(RedirectAuthHeaders::SameHost)
            .timeout_connect(Some(CONNECT))
            .timeout_per_read(Some(SILENCE))
            .user_agent(concat!("cllm/", env!("CARGO_PKG_VERSION")))
            .build()
            .into();
        Ok(Hub {
            what,
            agent,
            authorization: options.token.as_ref().map(|token| format!("Bearer {token}")),
            api,
            repo: reference.repo.clone(),
            revision: reference.revision.clone(),
            endpoint: options.endpoint.clone(),
            pause: options.pause,
        })
    }

    /// The address of a file at a commit.
    pub(super) fn file_url(&self, commit: &str, name: &str) -> String {
        let repo = Repo::with_revision(self.repo.clone(), RepoType::Model, commit.to_owned());
        self.api.repo(repo).url(&utf8_percent_encode(name, &PLAIN).to_string())
    }

    /// Asks for the repository's files; patient with a busy server.
    pub(super) fn list(&self) -> Result<Listing, SourceError> {
        let revision = self.revision.as_deref().unwrap_or("main").to_owned();
        let repo = self.api.repo(Repo::with_revision(self.repo.clone(), RepoType::Model, revision));
        let mut attempt = 0;
        loop {
            let request = repo.info_request().query("blobs", "true").config();
            let mut response = request
                .http_status_as_error(false)
                .timeout_connect(Some(CONNECT))
                .timeout_per_read(Some(SILENCE))
                .build()
                .call()
                .map_err(|e| self.no_network(e.to_string()))?;
            attempt += 1;
            if busy(response.status()) && attempt < ATTEMPTS {
                thread::sleep(self.pause * 2_u32.pow(attempt - 1));
                continue;
            }
            if !response.status().is_success() {
                return Err(self.refusal(response.status(), response.headers()));
            }
            let body = response.body_mut().with_config().limit(LISTING_BYTES);
            let info: Info = body.read_json().map_err(|e| match e {
                ureq::Error::Json(e) => self.unusable(format!("a listing we cannot read ({e})")),
                e => self.no_network(e.to_string()),
            })?;
            return self.checked(info);
        }
    }

    /// Takes from the answer only what can be named safely and checked.
    fn checked(&self, info: Info) -> Result<Listing, SourceError> {
        if Hash::of_etag(&info.sha) != Some(Hash::GitBlob) {
            return Err(self.unusable(format!("{:?} where a commit was expected", info.sha)));
        }
        let mut files = BTreeMap::new();
        for sibling in info.siblings {
            let (size, etag) = match (sibling.lfs, sibling.size, sibling.blob_id) {
                (Some(lfs), ..) => (lfs.size, lfs.sha256),
                (None, Some(size), Some(blob)) => (size, blob),
                _ => {
                    let name = sibling.rfilename;
                    return Err(self.unusable(format!("no size and hash for {name:?}")));
                }
            };
            let Some(hash) = Hash::of_etag(&etag) else {
                return Err(self.unusable(format!("{etag:?} where a hash was expected")));
            };
            if is_relative(&sibling.rfilename) {
                files.insert(sibling.rfilename, Remote { size, etag, hash });
            }
        }
        Ok(Listing { commit: info.sha, files })
    }

    pub(super) fn no_network(&self, why: String) -> SourceError {
        let what = format!("{} from {}", self.what, self.endpoint);
        SourceError::NoNetwork { what, why }
    }

    pub(super) fn unusable(&self, answer: String) -> SourceError {
        let (what, endpoint) = (self.what.clone(), self.endpoint.clone());
        SourceError::HubAnswer { what, answer, endpoint }
    }

    /// The error behind a status that is no success.
    pub(super) fn refusal(&self, status: StatusCode, headers: &HeaderMap) -> SourceError {
        let code = headers.get("x-error-code").and_then(|v| v.to_str().ok()).unwrap_or("");
        let what = self.what.clone();
        let token = self.authorization.is_some();
        let page = format!("{}/{}", self.endpoint, self.repo);
        match (status.as_u16(), code) {
            (_, "GatedRepo") | (403, _) => SourceError::HubDenied {
                what,
                why: if token {
                    format!("gated, and your token has no access yet: accept its terms at {page}")
                } else {
                    format!("gated: accept its terms at {page}, then set HF_TOKEN")
                },
            },
            (_, "RevisionNotFound") => {
                let revision = self.revision.as_deref().unwrap_or("main");
                SourceError::HubNotFound { what, why: format!("no revision `{revision}`") }
            }
            (_, "EntryNotFound") => {
                SourceError::HubNotFound { what, why: "a listed file is gone: try again".into() }
            }
            (404, _) | (401, "RepoNotFound") => SourceError::HubNotFound {
                what,
                why: match token {
                    true => format!("no such repository or revision for you at {page}"),
                    false => format!(
                        "no such repository or revision at {page} (if it is private, set HF_TOKEN)"
                    ),
                },
            },
            (401, _) => SourceError::HubDenied {
                what,
                why: if token {
                    "the Hub refuses the token: check HF_TOKEN, or log in again".into()
                } else {
                    format!("{page} is private or gated: set HF_TOKEN")
                },
            },
            _ => self.unusable(format!("status {status}")),
        }
    }
}

/// Whether a server says "later".
pub(super) fn busy(status: StatusCode) -> bool {
    status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error()
}
