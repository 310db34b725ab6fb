//! The file of `--out`: a header, then a line for each answer, written as it comes.
//!
//! A killed run keeps every line it finished; half a line at the end is cut off by the
//! next run, which asks only for the answers that are missing. The header says of what
//! the answers are; a file of another model, decoder or data is never added to.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::{Deserialize, Serialize};

use super::record::Record;
use crate::exit::bad_input;

/// What the answers in a file depend on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Header {
    pub(super) format: String,
    pub(super) version: u32,
    pub(super) task: String,
    /// SHA-256 of the data.
    pub(super) data: String,
    pub(super) model: String,
    /// SHA-256 of the model.
    pub(super) model_sha256: String,
    /// The formats its weights are computed in.
    pub(super) weights: String,
    pub(super) decoder: String,
    pub(super) seed: u64,
    pub(super) max_new_tokens: usize,
    pub(super) check: bool,
    /// How answers are judged.
    pub(super) judged: serde_json::Value,
}

/// The open file.
#[derive(Debug)]
pub(super) struct Log {
    file: File,
    path: PathBuf,
}

impl Log {
    /// Opens or creates the file; gives the answers it has.
    pub(super) fn open(path: &Path, header: &Header) -> anyhow::Result<(Self, Vec<Record>)> {
        let name = path.display();
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(false).open(path);
        let mut file = match file {
            Ok(file) => file,
            Err(error) => bad_input!("{name}: {error}"),
        };
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).with_context(|| name.to_string())?;
        let whole = bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
        let mut records = Vec::new();
        for (i, line) in bytes[..whole].split_inclusive(|&byte| byte == b'\n').enumerate() {
            if i == 0 {
                check(path, line, header)?;
                continue;
            }
            match serde_json::from_slice(line) {
                Ok(record) => records.push(record),
                Err(error) => bad_input!("{name}: line {}: not an answer: {error}", i + 1),
            }
        }
        // Without a whole line only the beginning of a header may be lost.
        if whole == 0 && !bytes.is_empty() && !bytes.starts_with(b"{\"format\":\"cllm-eval\"") {
            bad_input!("{name}: expected a file of `cllm eval` or none, found something else");
        }
        file.set_len(whole as u64).with_context(|| name.to_string())?;
        file.seek(SeekFrom::Start(whole as u64)).with_context(|| name.to_string())?;
        let mut log = Self { file, path: path.to_path_buf() };
        if whole == 0 {
            log.line(header)?;
        }
        Ok((log, records))
    }

    /// Adds an answer.
    pub(super) fn add(&mut self, record: &Record) -> anyhow::Result<()> {
        self.line(record)
    }

    fn line(&mut self, value: &impl Serialize) -> anyhow::Result<()> {
        let mut line = serde_json::to_vec(value)?;
        line.push(b'\n');
        let failed = || format!("cannot write {}", self.path.display());
        self.file.write_all(&line).with_context(failed)
    }
}

fn check(path: &Path, line: &[u8], header: &Header) -> anyhow::Result<()> {
    let name = path.display();
    let Ok(found) = serde_json::from_slice::<Header>(line) else {
        bad_input!("{name}: expected a file of `cllm eval` or none, found something else");
    };
    if found != *header {
        let (found, expected) = (serde_json::to_value(found)?, serde_json::to_value(header)?);
        let fields = expected.as_object().into_iter().flatten();
        let differ = fields.filter(|(key, value)| found.get(key.as_str()) != Some(*value));
        let differ = differ.map(|(key, value)| {
            format!("`{key}` is {} there and {value} here", found[key.as_str()])
        });
        let differ: Vec<_> = differ.collect();
        bad_input!("{name} holds answers of another run: {}", differ.join(", "));
    }
    Ok(())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::figures::Figures;

    pub(in super::super) fn record(line: usize) -> Record {
        Record {
            line,
            text: "é\n".into(),
            finish_reason: "stop".into(),
            scored: Default::default(),
            figures: Figures { seconds: 0.1, ..Figures::default() },
            fast_forwarded_tokens: 1,
            stationary_tokens: 2,
            four_grams: (3, 1),
            ar: None,
        }
    }

    fn header() -> Header {
        Header {
            format: "cllm-eval".into(),
            version: 1,
            task: "t".into(),
            data: "d".into(),
            model: "m".into(),
            model_sha256: "f".into(),
            weights: "w4".into(),
            decoder: "ar".into(),
            seed: 0,
            max_new_tokens: 8,
            check: false,
            judged: serde_json::Value::Null,
        }
    }

    #[test]
    fn a_killed_run_goes_on_where_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out.jsonl");
        let (mut log, found) = Log::open(&path, &header()).unwrap();
        assert!(found.is_empty());
        log.add(&record(1)).unwrap();
        log.add(&record(2)).unwrap();
        let whole = std::fs::read(&path).unwrap();
        // Wherever it was killed, what was finished is there and the file can be added to.
        for length in 0..=whole.len() {
            std::fs::write(&path, &whole[..length]).unwrap();
            if length > 0 && length < 25 {
                continue;
            }
            let (mut log, found) = Log::open(&path, &header()).unwrap();
            for line in found.len() + 1..=2 {
                log.add(&record(line)).unwrap();
            }
            assert_eq!(std::fs::read(&path).unwrap(), whole, "{length}");
        }
    }

    #[test]
    fn files_of_others_are_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out.jsonl");
        std::fs::write(&path, "precious").unwrap();
        assert!(Log::open(&path, &header()).is_err());
        assert_eq!(std::fs::read(&path).unwrap(), b"precious");
        std::fs::remove_file(&path).unwrap();
        Log::open(&path, &header()).unwrap();
        let other = Header { decoder: "jacobi:16".into(), ..header() };
        let error = Log::open(&path, &other).unwrap_err().to_string();
        assert!(error.contains("`decoder` is \"ar\" there and \"jacobi:16\" here"), "{error}");
    }
}
