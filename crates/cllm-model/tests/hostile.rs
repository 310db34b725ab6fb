//! Every broken file of `fixtures/hostile/` is an error that says what is wrong: the
//! tables below, file by file. `fixtures/hostile.py` writes the files.

use std::fs;
use std::path::{Path, PathBuf};

use cllm_model::Checkpoint;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/hostile")
}

/// Opens every fixture of a kind, as `place` puts it into an empty folder, and compares
/// the error with the table. Both must name the same files.
fn check(kind: &str, table: &[(&str, &str)], place: impl Fn(&Path, &Path) -> PathBuf) {
    let mut found: Vec<String> = fs::read_dir(fixtures().join(kind))
        .expect("the folder of fixtures")
        .map(|e| e.expect("an entry").path())
        .map(|p| p.file_stem().expect("a name").to_string_lossy().into_owned())
        .collect();
    found.sort();
    let named: Vec<&str> = table.iter().map(|(name, _)| *name).collect();
    assert_eq!(found, named, "the fixtures and the table of {kind}");

    for (name, expected) in table {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = place(&fixtures().join(kind).join(name), dir.path());
        match Checkpoint::open(&path).and_then(|c| c.config()) {
            Ok(config) => panic!("{kind}/{name} was accepted: {config:?}"),
            Err(e) => {
                let message = e.to_string();
                assert!(
                    message.contains(expected),
                    "{kind}/{name}\nexpected: {expected}\nfound:    {message}"
                );
            }
        }
    }
}

fn copy(from: &Path, to: &Path) {
    fs::copy(from, to).unwrap_or_else(|e| panic!("{}: {e}", from.display()));
}

#[test]
fn gguf() {
    check("gguf", GGUF, |fixture, _| fixture.with_extension("gguf"));
}

#[test]
fn safetensors() {
    check("safetensors", SAFETENSORS, |fixture, dir| {
        copy(&fixture.with_extension("safetensors"), &dir.join("model.safetensors"));
        copy(&fixtures().join("valid.json"), &dir.join("config.json"));
        dir.into()
    });
}

#[test]
fn config() {
    check("config", CONFIG, |fixture, dir| {
        copy(&fixture.with_extension("json"), &dir.join("config.json"));
        copy(&fixtures().join("valid.safetensors"), &dir.join("model.safetensors"));
        dir.into()
    });
}

#[test]
fn folder() {
    check("folder", FOLDER, |fixture, _| fixture.into());
}

/// Otherwise the fixtures derived from these could be refused for another reason.
#[test]
fn the_sound_files_are_accepted() {
    let gguf = Checkpoint::open(&fixtures().join("valid.gguf")).expect("valid.gguf");
    assert_eq!(gguf.config().expect("its configuration").vocab_size, 4);
    assert_eq!(gguf.tensors().len(), 2);

    let dir = tempfile::tempdir().expect("a temporary folder");
    copy(&fixtures().join("valid.json"), &dir.path().join("config.json"));
    copy(&fixtures().join("valid.safetensors"), &dir.path().join("model.safetensors"));
    let folder = Checkpoint::open(dir.path()).expect("valid.safetensors");
    assert_eq!(folder.config().expect("valid.json").num_layers, 2);
    assert_eq!(folder.tensors().len(), 2);
}

#[test]
fn a_model_in_several_files() {
    for name in ["shards", "shards-without-index"] {
        let model = Checkpoint::open(&fixtures().join("sound").join(name)).expect(name);
        let names: Vec<&str> = model.tensors().map(|t| t.name).collect();
        assert_eq!(names, ["a", "b"], "{name}");
        for tensor in ["a", "b", "model.a", "model.b"] {
            let found = model.tensor(tensor).unwrap_or_else(|| panic!("{name}: no {tensor}"));
            assert_eq!((found.rows(), found.row_len()), (1, 4), "{name}: {tensor}");
        }
        assert!(model.tensor("c").is_none() && model.tensor("lm_head.a").is_none(), "{name}");
    }
}

#[test]
fn what_is_not_there() {
    let error = Checkpoint::open(&fixtures().join("absent.gguf")).expect_err("no such file");
    assert!(error.to_string().contains("absent.gguf: "), "{error}");
    let error = Checkpoint::open(&fixtures().join("valid.safetensors")).expect_err("no folder");
    assert!(error.to_string().contains("a single safetensors file"), "{error}");
}

const GGUF: &[(&str, &str)] = &[
    ("alignment-3", "`general.alignment`: expected a power of two, found 3"),
    ("alignment-huge", "tensor `token_embd.weight` ends at byte 128 of the data, but"),
    ("alignment-string", "`general.alignment`: expected an integer from 0 to"),
    ("alignment-zero", "`general.alignment`: expected a power of two, found 0"),
    ("array-bool-2", "`bad` is an array of bool with a value other than 0, 1"),
    ("array-length-huge", "the number of elements of `bad` at byte 639 is"),
    ("array-length-wraps", "the number of elements of `bad` at byte 639 is"),
    ("array-of-arrays", "`bad` is an array of arrays, which GGUF readers refuse"),
    ("array-string-length-huge", "the length of `bad` at byte 647 is 18446744073709551615, but"),
    ("array-string-not-utf8", "`bad` at byte 647 is not UTF-8: invalid utf-8 sequence of 1"),
    ("array-type-unknown", "the type of the elements of `bad` at byte 635 is 77; expected"),
    ("big-endian", "a big-endian GGUF (version 3); only little-endian files are"),
    ("bool-2", "`bad` at byte 635: expected a bool, 0 or 1, found [2]"),
    ("config-architecture-missing", "the metadata has no `general.architecture`"),
    (
        "config-architecture-number",
        "`general.architecture`: expected a string, found the integer 7",
    ),
    ("config-architecture-unknown", "the architecture `gemma2` is not supported; supported are"),
    ("config-eos-string", "`tokenizer.ggml.eos_token_id`: expected an integer from 0 to"),
    ("config-eps-integer", "`llama.attention.layer_norm_rms_epsilon`: expected a float"),
    ("config-eps-missing", "the metadata has no `llama.attention.layer_norm_rms_epsilon`"),
    ("config-eps-nan", "expected an RMSNorm epsilon between 0 and 1, found NaN"),
    ("config-experts", "`llama.expert_count` 8: supported is 0 only (a mixture of"),
    ("config-head-dim-odd", "expected an even head dimension, found 7"),
    ("config-heads-no-divisor", "the embedding length 8 is no multiple of the head count 3"),
    ("config-heads-per-layer", "`llama.attention.head_count`: expected an integer from 0 to"),
    ("config-heads-zero", "`llama.attention.head_count`: expected an integer from 1 to"),
    ("config-kv-heads-no-divisor", "expected a number of heads that is a multiple of the"),
    ("config-kv-heads-zero", "`llama.attention.head_count_kv`: expected an integer from 1"),
    ("config-layers-huge", "`llama.block_count`: expected an integer from 1 to 4096"),
    ("config-layers-missing", "the metadata has no `llama.block_count`"),
    ("config-layers-negative", "`llama.block_count`: expected an integer from 0 to"),
    ("config-layers-string", "`llama.block_count`: expected an integer from 0 to"),
    ("config-layers-zero", "`llama.block_count`: expected an integer from 1 to 4096"),
    ("config-longrope", "rotary scaling of type longrope (`rope_factors_long.weight`)"),
    ("config-rope-freqs-nan", "rotary scaling: expected factors greater than 0, found NaN"),
    ("config-rope-freqs-shape", "tensor `rope_freqs.weight`: expected shape [1], found [3]"),
    ("config-rope-linear-negative", "rotary scaling: expected a factor greater than 0, found -2"),
    ("config-rope-linear-no-factor", "the metadata has no `llama.rope.scaling.factor`"),
    ("config-rope-yarn", "rotary scaling of type yarn (`llama.rope.scaling.type`)"),
    ("config-rotation-of-a-part", "`llama.rope.dimension_count` 1: supported is 2 only (the key"),
    ("config-theta-infinite", "expected a rotary base greater than 0, found inf"),
    ("config-theta-zero", "expected a rotary base greater than 0, found 0"),
    ("config-value-length-other", "`llama.attention.value_length` 4: supported is 2 only (the"),
    ("config-vocabulary-empty", "`tokenizer.ggml.tokens`: expected 1 to 16777216 tokens, found"),
    ("config-vocabulary-missing", "the metadata has no `tokenizer.ggml.tokens`"),
    ("config-width-huge", "`llama.embedding_length`: expected an integer from 0 to"),
    ("config-windows-per-layer", "`llama.attention.sliding_window_pattern`: layers with"),
    ("cut-array", "the number of elements of `tokenizer.ggml.tokens` at byte 431"),
    ("cut-counts", "the number of tensors at byte 8 is 2, but the 4 bytes left"),
    ("cut-data", "tensor `output_norm.weight` ends at byte 160 of the data, but"),
    ("cut-key", "the number of tensors at byte 8 is 2, but the 14 bytes left"),
    ("cut-magic", "the magic at byte 0 needs 4 bytes, but the file has only 3"),
    ("cut-tensors", "the shape of tensor `token_embd.weight` at byte 649 needs 8"),
    ("cut-value", "the number of tensors at byte 8 is 2, but the 42 bytes left"),
    ("cut-version", "the version at byte 4 needs 4 bytes, but the file has only 2"),
    ("data-missing", "tensor `token_embd.weight` ends at byte 128 of the data, but"),
    ("empty", "the magic at byte 0 needs 4 bytes, but the file has only 0"),
    ("entry-count-huge", "the number of metadata entries at byte 16 is"),
    ("entry-count-too-many", "metadata key 13 is empty: more entries than there are?"),
    ("key-empty", "metadata key 13 is empty: more entries than there are?"),
    ("key-length-huge", "the length of metadata key 13 at byte 620 is"),
    ("key-not-utf8", "metadata key 13 at byte 620 is not UTF-8: invalid utf-8"),
    ("key-twice", "the metadata key `general.architecture` stands twice"),
    ("magic", "not a GGUF file: expected `GGUF`, found [71, 71, 77, 76]"),
    ("split", "one of 3 parts of a split GGUF; merge them with"),
    ("string-length-huge", "the length of `bad` at byte 635 is 9223372036854775808, but"),
    ("string-not-utf8", "`bad` at byte 635 is not UTF-8: invalid utf-8 sequence of 1"),
    ("tensor-beyond-end", "tensor `x` ends at byte 192 of the data, but the file has"),
    ("tensor-bytes-overflow", "tensor `x`: the size of shape [4611686018427387904] overflows"),
    ("tensor-count-huge", "the number of tensors at byte 8 is 18446744073709551615, but"),
    ("tensor-dim-zero", "tensor `x`: dimension 1 is 0"),
    ("tensor-larger-than-file", "tensor `x` ends at byte 4398046511104 of the data, but the"),
    ("tensor-name-not-utf8", "the name of tensor 0 at byte 620 is not UTF-8: invalid utf-8"),
    ("tensor-no-blocks", "tensor `x`: expected rows of a multiple of 32 elements for"),
    ("tensor-offset-overflows", "tensor `x`: the offset 18446744073709551584 overflows"),
    ("tensor-rank-5", "tensor `x`: expected rank 0 to 4, found 5"),
    ("tensor-rank-huge", "tensor `x`: expected rank 0 to 4, found 4294967295"),
    ("tensor-shape-overflows", "tensor `x`: the size of shape [4294967296, 4294967296]"),
    ("tensor-twice", "tensor `token_embd.weight` stands twice"),
    ("tensor-type-q2-k", "tensor `x` has type Q2_K; supported are F32, F16, BF16, Q4_0"),
    ("tensor-type-removed", "tensor `x` has type number 4, unknown to us; supported are"),
    ("tensor-type-unknown", "tensor `x` has type number 999, unknown to us; supported are"),
    ("tensor-unaligned", "tensor `x`: expected an offset of a multiple of 32, found 4"),
    ("tensors-overlap", "tensors `x` and `y` overlap"),
    ("tensors-same-place", "tensors `x` and `y` overlap"),
    ("value-type-unknown", "the type of `bad` at byte 631 is 13; expected 0 to 12"),
    ("version-1", "GGUF version 1; supported are 2 and 3: convert the model again"),
    ("version-99", "GGUF version 99; supported are 2 and 3"),
];

const SAFETENSORS: &[(&str, &str)] = &[
    ("cut-data", "tensor `a` ends at byte 16 of the data, but the file has only"),
    ("cut-length", "expected 8 bytes for the header's length, found a file of 3"),
    ("empty", "expected 8 bytes for the header's length, found a file of 0"),
    ("header-array", "header: invalid type: sequence, expected a map from tensor"),
    ("header-deep", "header: invalid type: sequence, expected u64"),
    ("header-length-beyond", "the header claims 2000 bytes in a file of 86"),
    ("header-length-huge", "the header claims 18446744073709551615 bytes in a file of 86"),
    ("header-length-short", "header: EOF while parsing a string"),
    ("header-not-json", "header: key must be a string"),
    ("header-not-utf8", "header: invalid unicode code point"),
    ("name-twice", "tensor `a` stands twice"),
    ("no-offsets", "header: missing field `data_offsets`"),
    ("offsets-beyond", "tensor `a` ends at byte 32 of the data, but the file has only"),
    ("offsets-hole", "header: invalid offset for tensor `b`"),
    ("offsets-negative", "header: invalid value: integer `-4`, expected u64"),
    ("offsets-overflow", "tensor `t0` ends at byte 2305843009213693951 of the data, but"),
    ("offsets-overlap", "header: invalid offset for tensor `b`"),
    ("offsets-reversed", "header: invalid offset for tensor `a`"),
    ("shape-negative", "header: invalid JSON in header: invalid value: integer `-4`"),
    ("shape-other", "header: invalid shape, data type, or offset for tensor"),
    ("shape-overflows", "header: overflow computing buffer size from shape and/or"),
    ("shape-zero", "tensor `b` is empty: shape [0, 1099511627776, 1099511627776]"),
    ("trailing-bytes", "the tensors of the header do not end where the file of 90"),
    ("type-unknown", "header: invalid JSON in header: unknown variant `Q4`"),
    ("type-unsupported", "tensor `a` has type I64; supported are F32, F16, BF16"),
];

const CONFIG: &[(&str, &str)] = &[
    ("act-gelu", "`hidden_act` gelu; supported is silu"),
    ("array", "expected a JSON object, found an array of 0"),
    ("awq", "the weights are quantised with awq (`quantization_config`)"),
    ("bitsandbytes", "the weights are quantised with bitsandbytes"),
    ("class-classifier", "the class LlamaForSequenceClassification; expected one for"),
    ("context-zero", "`max_position_embeddings`: expected an integer from 1 to"),
    ("cut", "EOF while parsing a string"),
    ("deep", "recursion limit exceeded"),
    ("empty", "EOF while parsing a value"),
    ("eos-negative", "`eos_token_id`: expected a token id or a list of token ids"),
    ("eos-string", "`eos_token_id`: expected a token id or a list of token ids"),
    ("eps-large", "expected an RMSNorm epsilon between 0 and 1, found 2"),
    ("eps-string", "`rms_norm_eps`: expected a number greater than 0, found \"1e-5\""),
    ("eps-zero", "`rms_norm_eps`: expected a number greater than 0, found 0"),
    ("gptq", "the weights are quantised with gptq (`quantization_config`)"),
    ("head-dim-odd", "expected an even head dimension, found 3"),
    ("heads-no-divisor", "`hidden_size` 8 is no multiple of `num_attention_heads` 3"),
    ("hidden-size-float", "`hidden_size`: expected an integer from 1 to 1048576, found"),
    ("hidden-size-huge", "`hidden_size`: expected an integer from 1 to 1048576, found"),
    ("hidden-size-missing", "`hidden_size` is missing; expected an integer from 1 to"),
    ("hidden-size-negative", "`hidden_size`: expected an integer from 1 to 1048576, found -8"),
    ("hidden-size-null", "`hidden_size` is missing; expected an integer from 1 to"),
    ("hidden-size-string", "`hidden_size`: expected an integer from 1 to 1048576, found"),
    ("hidden-size-zero", "`hidden_size`: expected an integer from 1 to 1048576, found 0"),
    ("kv-heads-no-divisor", "expected a number of heads that is a multiple of the"),
    ("kv-heads-zero", "`num_key_value_heads`: expected an integer from 1 to 16384"),
    ("layer-types-number", "`layer_types`: expected strings, found 0"),
    ("layer-types-short", "`layer_types`: expected 2 values, found 1"),
    ("layer-types-unknown", "`layer_types` has chunked_attention; supported are"),
    ("layer-types-without-window", "`layer_types` has sliding_attention, but the sliding window"),
    ("layers-huge", "`num_hidden_layers`: expected an integer from 1 to 4096"),
    ("model-type-missing", "`model_type` is missing; expected one of llama, mistral"),
    ("model-type-number", "`model_type`: expected a string, found 3"),
    ("model-type-unknown", "the model type `gpt_neox` is not supported; supported are"),
    ("nan", "expected value"),
    ("no-rope-2", "`no_rope_layers`: expected values 0 or 1, found 2"),
    ("no-rope-interval-zero", "`no_rope_layer_interval`: expected an integer from 1 to 4096"),
    ("no-rope-short", "`no_rope_layers`: expected 2 values, found 1"),
    ("not-utf8", "invalid unicode code point"),
    ("rope-array", "`rope_scaling`: expected an object, found an array of 1"),
    ("rope-dynamic", "rotary scaling of type dynamic; supported are default"),
    ("rope-linear-no-factor", "`rope_parameters.factor` is missing; expected a number"),
    ("rope-linear-zero", "`rope_parameters.factor`: expected a number greater than 0"),
    ("rope-llama3-frequencies", "rotary scaling: expected a factor greater than 0 and a low"),
    ("rope-llama3-no-factor", "`rope_parameters.factor` is missing; expected a number"),
    ("rope-longrope", "rotary scaling of type longrope; supported are default"),
    ("rope-partial", "`partial_rotary_factor` 0.5: rotation of a part of each head"),
    ("rope-per-layer-type", "`rope_parameters.full_attention`: rotary parameters that"),
    ("rope-yarn", "rotary scaling of type yarn; supported are default, linear"),
    ("theta-negative", "`rope_theta`: expected a number greater than 0, found -1.0"),
    ("theta-too-large", "`rope_theta`: expected a number greater than 0, found 1e+300"),
    ("tie-string", "`tie_word_embeddings`: expected true or false, found \"yes\""),
    ("vocab-list", "`vocab_size`: expected an integer from 1 to 16777216, found"),
    ("vocab-missing", "`vocab_size` is missing; expected an integer from 1 to"),
    ("window-zero", "`sliding_window`: expected an integer from 1 to 268435456"),
];

const FOLDER: &[(&str, &str)] = &[
    ("generation-config-broken", "generation_config.json: `eos_token_id`: expected a token id"),
    ("generation-config-cut", "generation_config.json: EOF while parsing an object"),
    ("index-dots", "model.safetensors.index.json: expected names of files, found"),
    ("index-escapes", "model.safetensors.index.json: expected names of files, found"),
    ("index-map-array", "model.safetensors.index.json: invalid type: sequence"),
    ("index-map-empty", "model.safetensors.index.json: the weight_map is empty"),
    ("index-no-map", "model.safetensors.index.json: missing field `weight_map`"),
    ("index-not-json", "model.safetensors.index.json: expected value"),
    ("index-number", "model.safetensors.index.json: invalid type: integer `1`"),
    ("index-shard-missing", "model-2.safetensors: "),
    ("index-tensor-extra", "model.safetensors.index.json: model-2.safetensors holds"),
    ("index-tensor-missing", "model.safetensors.index.json: tensor `c` should be in"),
    ("index-wrong-shard", "model.safetensors.index.json: tensor `a` should be in"),
    ("name-in-two-files", "y.safetensors: tensor `a` stands in "),
    ("no-config", "a folder without config.json; expected a Hugging Face model"),
    ("no-weights", "holds no .safetensors file"),
    ("only-adapter", "holds no .safetensors file"),
    ("only-gguf", "a folder without config.json; expected a Hugging Face model"),
    ("only-pickle", "holds pytorch_model.bin, but only safetensors are read: save"),
];
