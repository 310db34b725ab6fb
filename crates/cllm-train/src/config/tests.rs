//! YAML, layers, and what is said about mistakes.

use super::*;

fn config(yaml: &str) -> Result<Config, String> {
    parse_yaml(yaml)
        .and_then(|keys| Config::from_layers(&[("run.yaml", keys)]))
        .map_err(|error| error.to_string())
}

#[test]
fn yaml_has_the_names_of_transformers() {
    let found = config(
        "# a run\nlearning_rate: 2e-4   # as floats are written\nlr_scheduler_type: linear\n\
         num_train_epochs: 3\nlora_target_modules: [q_proj, v_proj]\nmax_grad_norm: 0.5\n\
         gradient_checkpointing: true\noutput_dir: runs/one\n",
    )
    .unwrap();
    let expected = Config {
        learning_rate: 2e-4,
        lr_scheduler_type: Schedule::Linear,
        num_train_epochs: 3.0,
        lora_target_modules: vec!["q_proj".into(), "v_proj".into()],
        max_grad_norm: 0.5,
        gradient_checkpointing: true,
        output_dir: "runs/one".into(),
        ..Config::default()
    };
    assert_eq!(found, expected);
    assert_eq!(config("# nothing\n"), Ok(Config::default()));
}

#[test]
fn later_layers_win() {
    let keys = |yaml| parse_yaml(yaml).unwrap();
    let layers = [("run.yaml", keys("seed: 1\nlora_r: 4")), ("flags", keys("seed: 2"))];
    let found = Config::from_layers(&layers).unwrap();
    assert_eq!((found.seed, found.lora_r), (2, 4));
}

#[test]
fn mistakes_are_named() {
    let check = |yaml: &str, part: &str| {
        let error = config(yaml).unwrap_err();
        assert!(error.contains(part), "{yaml}: {error}");
    };
    check(
        "learning_rat: 1",
        "run.yaml: `learning_rat`: unknown key; did you mean `learning_rate`?",
    );
    check("xyz: 1", "`xyz`: unknown key");
    check("learning_rate: fast", "`learning_rate`: invalid type");
    check("lr_scheduler_type: sine", "`lr_scheduler_type`: unknown variant `sine`, expected");
    check("learning_rate: 0", "`learning_rate`: expected more than 0, found 0");
    check("consistency: local\nnoise_history: noisy", "`noise_history`: expected `clean`");
    check("- a\n- b", "expected `key: value` lines");
    check("a: [", "expected `key: value` lines");
    check("seed: -1", "`seed`: invalid value");
    check("learning_rate: .nan", "non-finite");
}
