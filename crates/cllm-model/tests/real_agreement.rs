//! The default model's greedy answers, compared with transformers'. Not hermetic, so
//! ignored by default:
//! `CLLM_TEST_MODEL=path/to/model.gguf cargo test --workspace --test real_agreement -- --ignored --nocapture`
//!
//! Both sides compute in f32 with the same weights but add in another order, so that a tie
//! may fall the other way. How close to a tie a step was, its margin, is in
//! `goldens/smollm2_greedy.json`; after the first difference the texts are different texts,
//! and nothing more is compared.

use std::fs;
use std::path::PathBuf;

use cllm_decode::{CausalLm, Request, Sequence, Token, ar};
use cllm_model::{Compute, LoadOptions, Model};
use serde::Deserialize;

/// A difference at a larger margin than this is a bug. Logits of this model go up to about
/// 25, where f32 resolves 2e-6; thirty layers of sums lose some more digits.
const LARGEST_TIE: f32 = 0.005;

#[derive(Deserialize)]
struct Reference {
    answers: Vec<Expected>,
}

#[derive(Deserialize)]
struct Expected {
    text: String,
    ids: Vec<Token>,
    greedy: Vec<Token>,
    margins: Vec<f32>,
}

#[test]
#[ignore = "needs CLLM_TEST_MODEL"]
#[expect(clippy::print_stdout, reason = "the agreement is a figure to report, not only a verdict")]
fn greedy_answers() {
    let path = std::env::var_os("CLLM_TEST_MODEL").expect("CLLM_TEST_MODEL names the model");
    // The reference is PyTorch in f32, on the dequantised weights.
    let options = LoadOptions { compute: Compute::F32, ..LoadOptions::default() };
    let mut model = Model::load(&PathBuf::from(path), &options).unwrap();

    let json = concat!(env!("CARGO_MANIFEST_DIR"), "/../../goldens/smollm2_greedy.json");
    let reference: Reference = serde_json::from_slice(&fs::read(json).unwrap()).unwrap();
    let (mut answers, mut same, mut tokens) = (0, 0, 0);
    let mut faults = Vec::new();
    for expected in &reference.answers {
        assert_eq!(model.tokenizer.encode(&expected.text, false).unwrap(), expected.ids);
        let request = Request {
            prompt: expected.ids.clone(),
            max_new_tokens: expected.greedy.len(),
            stop_tokens: Vec::new(),
            ..Request::default()
        };
        let mut sequence = Sequence::new(model.lm.new_cache());
        let answer = ar::generate(&mut model.lm, &mut sequence, &request, &mut (), 64).unwrap();
        let pairs = answer.tokens.iter().zip(&expected.greedy);
        let agreed = pairs.take_while(|(a, b)| a == b).count();
        (answers, tokens) = (answers + 1, tokens + agreed);
        let Some(margin) = expected.margins.get(agreed) else {
            same += 1;
            continue;
        };
        let line = format!(
            "answer {answers} ({:?}): token {agreed} is {}, transformers {} by a margin of {margin}",
            expected.text, answer.tokens[agreed], expected.greedy[agreed]
        );
        println!("{line}");
        if *margin > LARGEST_TIE {
            faults.push(line);
        }
    }
    println!("{same} of {answers} answers are transformers', {tokens} tokens before a difference");
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}
