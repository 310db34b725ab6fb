//! The loop on a table of bigrams: what is learnt, and that stopping changes nothing.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use cllm_decode::Token;
use proptest::prelude::*;

use super::*;
use crate::TrainError;
use crate::checkpoint;
use crate::config::Metric;
use crate::data::Example;
use crate::fake::Bigrams;

const VOCAB: usize = 12;

/// Says the time 0, asks to stop when told, decodes as told.
#[derive(Default)]
struct Told {
    stop_at: Option<u64>,
    step: u64,
    losses: Vec<f64>,
    notes: Vec<String>,
    decoded: Vec<Decoded>,
}

impl Host for Told {
    fn seconds(&mut self) -> f64 {
        0.0
    }

    fn step(&mut self, record: &Step, _total: u64) {
        self.step = record.step;
        self.losses.push(record.loss);
    }

    fn note(&mut self, line: &str) {
        self.notes.push(line.to_owned());
    }

    fn measure(&mut self, _learner: &mut dyn Learner) -> Result<Option<Decoded>, String> {
        Ok((!self.decoded.is_empty()).then(|| self.decoded.remove(0)))
    }

    fn stop(&mut self) -> bool {
        self.stop_at == Some(self.step)
    }
}

/// Counts upwards; the noisy states repeat a token.
fn example(i: usize) -> Example {
    let at = |k: usize| ((i + k) % (VOCAB - 1)) as Token;
    let answer: Vec<Token> = (1..7).map(at).chain([11]).collect();
    let states = |fixed: &[Token]| {
        let mut states: Vec<Vec<Token>> = (0..fixed.len())
            .map(|wrong| {
                let mut state = fixed.to_vec();
                state[wrong..].iter_mut().for_each(|token| *token = (*token + 5) % 12);
                state
            })
            .collect();
        states.push(fixed.to_vec());
        states
    };
    let trajectories: Vec<_> = answer.chunks(4).map(states).collect();
    Example::new(vec![at(0)], answer).unwrap().with_trajectories(&trajectories, &[]).unwrap()
}

fn config() -> Config {
    Config {
        num_train_epochs: 2.5,
        per_device_train_batch_size: 2,
        gradient_accumulation_steps: 2,
        learning_rate: 0.1,
        logging_steps: 2,
        eval_steps: 4,
        save_steps: 3,
        save_total_limit: 2,
        weight_decay: 0.01,
        ..Config::default()
    }
}

struct Setting {
    config: Config,
    identity: BTreeMap<String, String>,
    data: DataSet,
    held_out: DataSet,
    learner: Bigrams,
}

impl Setting {
    fn new(config: Config) -> Self {
        let data = |range: std::ops::Range<usize>| {
            DataSet::new(range.map(example).collect(), config.batches())
        };
        Self {
            identity: BTreeMap::from([("data_sha256".into(), "aa".into())]),
            data: data(0..13),
            held_out: data(13..16),
            learner: Bigrams::new(VOCAB, config.adam()),
            config,
        }
    }

    fn run(&mut self, folder: &Path, resume: bool, host: &mut Told) -> Result<Outcome, TrainError> {
        let run = Run {
            config: &self.config,
            identity: &self.identity,
            data: &self.data,
            held_out: Some(&self.held_out),
            folder,
            resume,
        };
        train(&run, &mut self.learner, host)
    }
}

/// Every file below a folder.
fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut todo = vec![folder.to_path_buf()];
    while let Some(at) = todo.pop() {
        for entry in fs::read_dir(at).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                todo.push(path);
            } else {
                let name = path.strip_prefix(folder).unwrap().to_owned();
                found.insert(name, fs::read(&path).unwrap());
            }
        }
    }
    found
}

fn undisturbed() -> BTreeMap<PathBuf, Vec<u8>> {
    let folder = tempfile::tempdir().unwrap();
    let outcome = Setting::new(config()).run(folder.path(), false, &mut Told::default()).unwrap();
    assert!(matches!(outcome, Outcome::Finished(_)), "{outcome:?}");
    files(folder.path())
}

#[test]
fn a_run_learns_logs_and_leaves_checkpoints() {
    let folder = tempfile::tempdir().unwrap();
    let mut host = Told::default();
    let outcome = Setting::new(config()).run(folder.path(), false, &mut host).unwrap();
    let Outcome::Finished(summary) = outcome else { panic!("{outcome:?}") };
    // 13 examples, 2 a forward, 2 forwards a step: 4 steps an epoch.
    assert_eq!((summary.step, summary.total), (10, 10));
    assert!(host.losses[4] < 0.8 * host.losses[0], "{:?}", host.losses);
    let steps: Vec<u64> = checkpoint::list(folder.path()).unwrap().into_keys().collect();
    assert_eq!(steps, [9, 10]);
    assert_eq!(summary.best.map(|(path, _)| path), Some(checkpoint::path(folder.path(), 10)));
    let log = fs::read_to_string(folder.path().join("log.jsonl")).unwrap();
    let lines: Vec<serde_json::Value> =
        log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let steps: Vec<_> = lines.iter().map(|line| line["step"].as_u64().unwrap()).collect();
    assert_eq!(steps, [2, 4, 4, 6, 8, 8, 10, 10]);
    let parts = |key: &str| lines[0][key].as_f64().unwrap();
    assert!((parts("ar_loss") + parts("consistency_loss") - parts("loss")).abs() < 1e-9);
    assert_eq!(lines[1]["epoch"], 1.0);
    assert!(lines[2]["eval_loss"].is_f64());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Dies in any forward, perhaps leaving half a checkpoint, as often as it likes.
    #[test]
    fn a_killed_run_ends_with_the_bytes_of_an_undisturbed_one(
        deaths in prop::collection::vec((0usize..20, any::<bool>()), 1..4),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        for (forwards, in_save) in deaths {
            let mut setting = Setting::new(config());
            setting.learner.fails_after = Some(forwards);
            match setting.run(path, true, &mut Told::default()) {
                Err(error) => prop_assert!(error.to_string().contains("told to fail")),
                Ok(outcome) => prop_assert!(matches!(outcome, Outcome::Finished(_))),
            }
            if in_save {
                fs::create_dir_all(path.join(".under-way-x")).unwrap();
                fs::write(path.join(".under-way-x/parameters.safetensors"), "half").unwrap();
            }
        }
        Setting::new(config()).run(path, true, &mut Told::default()).unwrap();
        prop_assert!(files(path) == undisturbed());
    }
}

#[test]
fn a_stopped_run_has_a_checkpoint_and_the_same_losses_after_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut whole = Told::default();
    let other = tempfile::tempdir().unwrap();
    // Every step is logged: only then does the host know where to stop.
    let config = Config { logging_steps: 1, ..config() };
    Setting::new(config.clone()).run(other.path(), false, &mut whole).unwrap();

    let mut host = Told { stop_at: Some(5), ..Told::default() };
    let outcome = Setting::new(config.clone()).run(folder.path(), false, &mut host).unwrap();
    let Outcome::Interrupted(summary) = outcome else { panic!("{outcome:?}") };
    assert_eq!(summary.last, checkpoint::path(folder.path(), 5));
    let mut rest = Told::default();
    Setting::new(config.clone()).run(folder.path(), true, &mut rest).unwrap();
    assert_eq!([host.losses, rest.losses].concat(), whole.losses);

    let mut setting = Setting::new(config.clone());
    let error = setting.run(folder.path(), false, &mut Told::default()).unwrap_err();
    assert!(error.to_string().contains("a run is here already"), "{error}");
    setting.identity.insert("data_sha256".into(), "bb".into());
    let error = setting.run(folder.path(), true, &mut Told::default()).unwrap_err();
    assert!(error.to_string().contains("another `data_sha256`: expected bb, found aa"), "{error}");
    let mut setting = Setting::new(Config { lora_r: 4, ..config });
    let error = setting.run(folder.path(), true, &mut Told::default()).unwrap_err();
    assert!(error.to_string().contains("another `lora_r`: expected 4, found 16"), "{error}");
}

#[test]
fn a_collapse_stops_the_run_and_keeps_the_best() {
    let decoded = |mean_acceptance_length, repetition_rate| Decoded {
        mean_acceptance_length,
        repetition_rate,
        eos_share: 1.0,
    };
    let folder = tempfile::tempdir().unwrap();
    let mut host = Told { decoded: vec![decoded(2.0, 0.1), decoded(9.0, 0.9)], ..Told::default() };
    let metric_for_best_model = Metric::MeanAcceptanceLength;
    let mut setting = Setting::new(Config { metric_for_best_model, ..config() });
    let outcome = setting.run(folder.path(), false, &mut host).unwrap();
    let Outcome::Collapsed { what, keep } = outcome else { panic!("{outcome:?}") };
    assert!(what.contains("step 8") && what.contains("0.90, limit 0.5"), "{what}");
    assert_eq!(keep, Some(checkpoint::path(folder.path(), 4)));
    assert!(keep.unwrap().exists());

    let folder = tempfile::tempdir().unwrap();
    let mut setting = Setting::new(config());
    setting.learner.set(3, 4, f32::NAN);
    let outcome = setting.run(folder.path(), false, &mut Told::default()).unwrap();
    let Outcome::Collapsed { what, keep } = outcome else { panic!("{outcome:?}") };
    assert!(what.contains("the loss is NaN"), "{what}");
    assert_eq!(keep, None);
}

#[test]
fn a_broken_checkpoint_is_passed_over() {
    let folder = tempfile::tempdir().unwrap();
    Setting::new(config()).run(folder.path(), false, &mut Told::default()).unwrap();
    let last = checkpoint::path(folder.path(), 10);
    fs::write(last.join("trainer_state.json"), "{").unwrap();
    let mut host = Told::default();
    Setting::new(config()).run(folder.path(), true, &mut host).unwrap();
    assert!(host.notes[0].ends_with("checkpoint-9"), "{:?}", host.notes);
    assert!(files(folder.path()) == undisturbed());
}
