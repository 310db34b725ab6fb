//! A run on the terminal: a bar with loss, learning rate, speed and time left, or a line
//! every few seconds where stderr is no terminal. Ctrl-C stops after the step under way.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use cllm_train::config::Config;
use cllm_train::learner::Learner;
use cllm_train::train::{Decoded, Evaluation, Host, Step};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

use super::learner::{self, Prompts};
use crate::console;
use crate::interrupt::Interruptible;
use crate::session::Session;

/// Time between two plain lines.
const PAUSE: Duration = Duration::from_secs(5);

/// The host of a run.
pub(super) struct Terminal {
    session: Session,
    config: Config,
    prompts: Prompts,
    interruptible: Interruptible,
    bar: Option<ProgressBar>,
    /// Whether records go to standard output.
    json: bool,
    last_line: Option<Instant>,
    /// When the first record came, and its step: what the time left is told from.
    first: Option<(Instant, u64)>,
}

impl Terminal {
    /// Listens to Ctrl-C from now on. With `json` records go to standard output too.
    pub(super) fn new(session: Session, config: Config, prompts: Prompts, json: bool) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
            let template = "[{wide_bar:.cyan}] {pos}/{len} {msg}";
            let style = ProgressStyle::with_template(template);
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar
        });
        let interruptible = Interruptible::new();
        let (last_line, first) = (None, None);
        Self { session, config, prompts, interruptible, bar, json, last_line, first }
    }

    fn print(&self, record: &impl Serialize) {
        // Training does not end because nobody reads any more.
        if let (true, Ok(line)) = (self.json, serde_json::to_string(record)) {
            let _ = writeln!(console::out(), "{line}");
        }
    }

    fn say(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.println(line),
            None => console::note(line),
        }
    }

    fn time_left(&mut self, step: u64, total: u64) -> String {
        let (since, at) = *self.first.get_or_insert((Instant::now(), step));
        if step <= at {
            return String::new();
        }
        let each = since.elapsed().as_secs_f64() / (step - at) as f64;
        format!(", {} left", hours((total.saturating_sub(step) as f64 * each) as u64))
    }
}

/// Seconds as people write them.
fn hours(seconds: u64) -> String {
    let (h, m, s) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    if h > 0 { format!("{h}:{m:02}:{s:02}") } else { format!("{m}:{s:02}") }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

impl Host for Terminal {
    fn seconds(&mut self) -> f64 {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |time| time.as_secs_f64())
    }

    fn step(&mut self, record: &Step, total: u64) {
        self.print(record);
        let mut text = format!("loss {:.4}", record.loss);
        if let (Some(ar), Some(consistency)) = (record.ar_loss, record.consistency_loss) {
            text += &format!(" (AR {ar:.4}, consistency {consistency:.4})");
        }
        text += &format!(", lr {:.2e}, gradient {:.2}", record.learning_rate, record.grad_norm);
        if let Some(speed) = record.tokens_per_second {
            text += &format!(", {speed:.0} tokens/s");
        }
        text += &self.time_left(record.step, total);
        if let Some(bar) = &self.bar {
            bar.set_length(total);
            bar.set_position(record.step);
            bar.set_message(text);
        } else if record.step == total || self.last_line.is_none_or(|at| at.elapsed() >= PAUSE) {
            self.last_line = Some(Instant::now());
            console::note(format_args!("[{}/{total}] {text}", record.step));
        }
    }

    fn evaluated(&mut self, record: &Evaluation) {
        self.print(record);
        let mut text = format!("step {}: held-out loss {:.4}", record.step, record.eval_loss);
        if let Some(decoded) = record.decoded {
            text += &format!(
                ", mean acceptance length {:.3}, repetition {:.3}, {:.0} % end",
                decoded.mean_acceptance_length,
                decoded.repetition_rate,
                100.0 * decoded.eos_share
            );
        }
        self.say(&text);
    }

    fn note(&mut self, line: &str) {
        self.say(line);
    }

    fn measure(&mut self, learner: &mut dyn Learner) -> Result<Option<Decoded>, String> {
        learner::measure(&self.session, &self.config, &self.prompts, learner)
    }

    fn stop(&mut self) -> bool {
        self.interruptible.stopped()
    }
}
