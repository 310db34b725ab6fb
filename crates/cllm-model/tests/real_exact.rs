//! The promise on the default model: every decoder gives autoregressive decoding's tokens,
//! greedy and sampled with a seed. Not hermetic, so ignored by default:
//! `CLLM_TEST_MODEL=path/to/model.gguf cargo test --workspace --test real_exact -- --ignored --nocapture`

use std::path::PathBuf;

use cllm_decode::spec::Built;
use cllm_decode::{
    CausalLm, CostModel, Decoder, DecoderSpec, DraftModel, Request, Sampling, Sequence, ar, stream,
};
use cllm_model::{Compute, LoadOptions, Model};

const PROMPTS: [&str; 3] = [
    "Natalia sold 48 clips in April and half as many in May. How many did she sell in all?",
    "def fibonacci(n):\n    \"\"\"The n-th Fibonacci number.\"\"\"\n",
    "The three primary colours are",
];

const DECODERS: [&str; 9] = [
    "jacobi:8",
    "jacobi:n=16,draft=last-token",
    "jacobi:n=8,draft=ngram",
    "jacobi-pool",
    "jacobi-pool:n=8,blocks=2",
    "lookahead:w=4,n=4,g=4",
    "prompt-lookup",
    "auto",
    "draft-model",
];

#[test]
#[ignore = "needs CLLM_TEST_MODEL"]
#[expect(clippy::print_stdout, reason = "a run says how much it has compared")]
fn all_decoders_are_autoregressive_decoding() {
    let path = std::env::var_os("CLLM_TEST_MODEL").expect("CLLM_TEST_MODEL names the model");
    let path = PathBuf::from(path);
    let (mut answers, mut tokens) = (0, 0);
    for compute in [Compute::W4, Compute::W8] {
        let options = LoadOptions { compute, ..LoadOptions::default() };
        let mut model = Model::load(&path, &options).expect("the default model loads");
        // It guesses for itself: right but where rounding to four bits says something else.
        let rough = LoadOptions { compute: Compute::W4, ..LoadOptions::default() };
        let mut guesser = Model::load(&path, &rough).expect("the default model loads").lm;
        for (i, (text, temperature)) in PROMPTS
            .iter()
            .flat_map(|text| [0.0, 0.7, 1.0].map(|temperature| (text, temperature)))
            .enumerate()
        {
            let sampling = Sampling { temperature, seed: i as u64, ..Sampling::default() };
            let request = Request {
                prompt: model.tokenizer.encode(text, false).expect("text"),
                max_new_tokens: 64,
                sampling,
                ..Request::default()
            };
            let mut sequence = Sequence::new(model.lm.new_cache());
            let expected =
                ar::generate(&mut model.lm, &mut sequence, &request, &mut (), 64).expect("AR");
            for name in DECODERS {
                let spec: DecoderSpec = name.parse().expect("a decoder");
                let built = spec.build(7, &CostModel::default()).expect("options in range");
                let mut decoder: Box<dyn Decoder + '_> = match built {
                    Built::Decoder(decoder) => decoder,
                    Built::DraftModel { tokens } => {
                        let (vocab, sampling) = (model.lm.vocab_size(), request.sampling.clone());
                        let draft = DraftModel::new(&mut guesser, tokens, vocab, sampling);
                        Box::new(draft.expect("the same vocabulary"))
                    }
                    Built::Ar => panic!("{name} is the baseline"),
                };
                let mut sequence = Sequence::new(model.lm.new_cache());
                let answer = stream::generate(
                    &mut model.lm,
                    &mut sequence,
                    &mut *decoder,
                    &request,
                    &mut (),
                    64,
                )
                .expect("an answer");
                assert_eq!(
                    answer.tokens, expected.tokens,
                    "{name}, {compute:?}, temperature {temperature}: {text:?}"
                );
                (answers, tokens) = (answers + 1, tokens + answer.tokens.len());
            }
        }
    }
    println!("{answers} answers of {tokens} tokens are autoregressive decoding's");
}
