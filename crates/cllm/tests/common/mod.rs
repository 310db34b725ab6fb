//! What tests of the program share.

use std::path::{Path, PathBuf};

/// A model of the goldens, from the root of the repository.
pub(crate) const GOLDEN: &str = "goldens/models/llama-f32";

/// Copies the golden model into `folder`, gives it a chat template and returns its path.
pub(crate) fn chat_model(folder: &Path) -> String {
    let golden = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..").join(GOLDEN);
    for entry in std::fs::read_dir(golden).expect("the goldens are there") {
        let entry = entry.expect("readable");
        std::fs::copy(entry.path(), folder.join(entry.file_name())).expect("copied");
    }
    let template = "{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}\
                    {% if add_generation_prompt %}[assistant] {% endif %}";
    std::fs::write(folder.join("chat_template.jinja"), template).expect("written");
    folder.to_str().expect("the temporary folder has a plain name").to_owned()
}
