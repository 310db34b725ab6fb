//! How a run of the program ended.

use std::process::Output;

#[track_caller]
pub(crate) fn good(output: &Output) -> String {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    String::from_utf8(output.stdout.clone()).expect("standard output is text")
}

/// Bad input: exit code 2, nothing on standard output, an error that holds `part`.
#[track_caller]
pub(crate) fn bad(output: &Output, part: &str) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(output.stdout.is_empty(), "{}", String::from_utf8_lossy(&output.stdout));
    assert!(stderr.starts_with("error: ") && stderr.contains(part), "{part:?} in {stderr}");
}
