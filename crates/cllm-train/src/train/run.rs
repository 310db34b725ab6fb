//! The loop itself.

use std::path::PathBuf;

use super::steps::{self, Steps};
use super::watchdog;
use super::{Host, Outcome, Run, Step, Summary};
use crate::TrainError;
use crate::checkpoint::{self, Best, State};
use crate::config::{Config, Metric};
use crate::data::DataSet;
use crate::data::weigh::weigh;
use crate::learner::{Learner, Losses};
use crate::log::Log;
use crate::log::record::{Decoded, Evaluation, Sums};
use crate::packed::Packed;
use crate::schedule;

/// Runs all steps that are left.
///
/// # Errors
/// Settings, data or a checkpoint that cannot be used; a full disk; a forward that the
/// network cannot run. Checkpoints that are complete stay.
pub fn train(
    run: &Run<'_>,
    learner: &mut dyn Learner,
    host: &mut dyn Host,
) -> Result<Outcome, TrainError> {
    if run.data.is_empty() || run.held_out.is_some_and(DataSet::is_empty) {
        return Err(TrainError::BadInput("no examples: expected at least one".into()));
    }
    std::fs::create_dir_all(run.folder).map_err(TrainError::io(run.folder))?;
    checkpoint::clean(run.folder)?;
    let total = steps::total(run.data, run.config);
    let mut looping = Looping::start(run, learner, host, total)?;
    looping.steps(learner, host)
}

/// A run under way.
struct Looping<'a> {
    run: &'a Run<'a>,
    total: u64,
    warmup: u64,
    state: State,
    log: Log,
    steps: Steps<'a>,
    /// The step that has a checkpoint.
    saved: Option<u64>,
    /// When the last record was logged, and rows since.
    since: (f64, u64),
}

impl<'a> Looping<'a> {
    fn start(
        run: &'a Run<'a>,
        learner: &mut dyn Learner,
        host: &mut dyn Host,
        total: u64,
    ) -> Result<Self, TrainError> {
        let now = host.seconds();
        let name = run.folder.display();
        let found = checkpoint::last(run.folder)?;
        let (state, log) = match (run.resume, found) {
            (true, Some((path, state))) => {
                same(run, &state, &path.display().to_string())?;
                checkpoint::restore(&path, learner)?;
                host.note(&format!("going on from {}", path.display()));
                let log = Log::open(run.folder, Some(&state.log), now)?;
                (State { config: run.config.clone(), ..state }, log)
            }
            (false, Some((path, _))) => {
                return Err(TrainError::BadInput(format!(
                    "{}: a run is here already: resume it, or choose another folder",
                    path.display()
                )));
            }
            (resume, None) => {
                if resume {
                    host.note(&format!("{name}: no checkpoint: starting at step 0"));
                }
                let mut log = Log::open(run.folder, None, now)?;
                let state = State {
                    version: State::VERSION,
                    step: 0,
                    epoch: 0,
                    forward: 0,
                    num_input_tokens_seen: 0,
                    recent_losses: Vec::new(),
                    sums: Sums::default(),
                    best: None,
                    log: log.mark()?,
                    config: run.config.clone(),
                    identity: run.identity.clone(),
                };
                (state, log)
            }
        };
        let Config { gradient_accumulation_steps, warmup_steps, warmup_ratio, .. } = run.config;
        let place = (state.epoch, state.forward);
        Ok(Self {
            run,
            total,
            warmup: schedule::warmup_steps(*warmup_steps, *warmup_ratio, total),
            saved: (state.step > 0).then_some(state.step),
            since: (now, 0),
            steps: Steps::at(run.data, *gradient_accumulation_steps, place.0, place.1),
            state,
            log,
        })
    }

    fn steps(
        &mut self,
        learner: &mut dyn Learner,
        host: &mut dyn Host,
    ) -> Result<Outcome, TrainError> {
        let config = self.run.config;
        while self.state.step < self.total {
            if let Some(what) = self.step(learner, host)? {
                return self.collapsed(what);
            }
            let step = self.state.step;
            let last = step == self.total;
            let started = host.seconds();
            let evaluate = due(step, config.eval_steps) || (last && config.eval_steps > 0);
            if evaluate && let Some(what) = self.evaluate(learner, host)? {
                return self.collapsed(what);
            }
            let stop = !last && host.stop();
            if due(step, config.save_steps) || last || stop {
                self.save(learner)?;
            }
            // Not the time of training.
            self.since.0 += host.seconds() - started;
            if stop {
                return Ok(Outcome::Interrupted(self.summary()));
            }
        }
        Ok(Outcome::Finished(self.summary()))
    }

    /// One optimizer step; what the watchdog says.
    fn step(
        &mut self,
        learner: &mut dyn Learner,
        host: &mut dyn Host,
    ) -> Result<Option<String>, TrainError> {
        let config = self.run.config;
        let (epoch, forwards) = self.steps.advance();
        let mut packed: Vec<Packed> =
            forwards.iter().map(|forward| self.run.data.pack(forward, epoch)).collect();
        weigh(&mut packed, config.coefficients());
        let mut losses = Losses::default();
        for forward in &packed {
            let step = self.state.step + 1;
            losses +=
                learner.accumulate(forward).map_err(|what| TrainError::Learner { step, what })?;
        }
        let factor = config.lr_scheduler_type.factor(self.state.step, self.warmup, self.total);
        let lr = config.learning_rate * factor;
        let clip = (config.max_grad_norm > 0.0).then_some(config.max_grad_norm);
        let grad_norm = learner.step(lr, clip);

        let rows: usize = packed.iter().map(Packed::len).sum();
        let state = &mut self.state;
        state.step += 1;
        (state.epoch, state.forward) = self.steps.place();
        state.num_input_tokens_seen += rows as u64;
        state.sums.add(losses);
        self.since.1 += rows as u64;
        let most = config.max_loss_ratio;
        let what = watchdog::watch(&mut state.recent_losses, losses.total(), grad_norm, most);
        if due(state.step, config.logging_steps) || state.step == self.total || what.is_some() {
            let now = host.seconds();
            let elapsed = now - self.since.0;
            let (loss, ar_loss, consistency_loss) = state.sums.means(config.coefficients());
            let record = Step {
                step: state.step,
                epoch: self.steps.epochs(),
                loss,
                ar_loss,
                consistency_loss,
                learning_rate: lr,
                grad_norm,
                num_input_tokens_seen: state.num_input_tokens_seen,
                tokens_per_second: (elapsed > 0.0).then(|| self.since.1 as f64 / elapsed),
            };
            state.sums = Sums::default();
            self.log.add(&record, "train", "", state.step, now)?;
            host.step(&record, self.total);
            self.since = (host.seconds(), 0);
        }
        Ok(what)
    }

    /// Held-out loss and, if the program measures it, decoding; what the watchdog says.
    fn evaluate(
        &mut self,
        learner: &mut dyn Learner,
        host: &mut dyn Host,
    ) -> Result<Option<String>, TrainError> {
        let config = self.run.config;
        let Some(held_out) = self.run.held_out else { return Ok(None) };
        let failed = |what| TrainError::Learner { step: self.state.step, what };
        let mut packed: Vec<Packed> =
            held_out.epoch(0).iter().map(|forward| held_out.pack(forward, 0)).collect();
        weigh(&mut packed, config.coefficients());
        let mut sums = Sums { steps: 1, ..Sums::default() };
        for forward in &packed {
            let Losses { tokens, rows } = learner.evaluate(forward).map_err(failed)?;
            sums.tokens += tokens;
            sums.rows += rows;
        }
        let decoded = host.measure(learner).map_err(failed)?;
        let (loss, ar_loss, consistency_loss) = sums.means(config.coefficients());
        let record = Evaluation {
            step: self.state.step,
            epoch: self.steps.epochs(),
            eval_loss: loss,
            eval_ar_loss: ar_loss,
            eval_consistency_loss: consistency_loss,
            decoded,
        };
        let now = host.seconds();
        self.log.add(&record, "eval", "eval_", self.state.step, now)?;
        host.evaluated(&record);
        let what = collapse(&record, config.max_repetition_rate);
        if what.is_none() && self.is_best(&record)? {
            self.save(learner)?;
        }
        Ok(what)
    }

    /// Notes the figure if it is the best so far.
    fn is_best(&mut self, record: &Evaluation) -> Result<bool, TrainError> {
        let step = record.step;
        let (value, higher) = match (self.run.config.metric_for_best_model, &record.decoded) {
            (Metric::EvalLoss, _) => (record.eval_loss, false),
            (Metric::MeanAcceptanceLength, Some(decoded)) => (decoded.mean_acceptance_length, true),
            (Metric::MeanAcceptanceLength, None) => {
                return Err(TrainError::BadInput(
                    "`metric_for_best_model`: no held-out prompt was answered".into(),
                ));
            }
        };
        let better = self
            .state
            .best
            .is_none_or(|best| if higher { value > best.value } else { value < best.value });
        if better {
            self.state.best = Some(Best { step, value });
        }
        Ok(better)
    }

    fn save(&mut self, learner: &mut dyn Learner) -> Result<(), TrainError> {
        let Run { folder, config, .. } = self.run;
        // An evaluation may have been logged since; then the checkpoint is written again.
        let log = self.log.mark()?;
        if self.saved == Some(self.state.step) && self.state.log == log {
            return Ok(());
        }
        self.state.log = log;
        checkpoint::save(folder, &self.state, learner)?;
        self.saved = Some(self.state.step);
        checkpoint::rotate(folder, config.save_total_limit, self.state.best.map(|best| best.step))
    }

    fn collapsed(&self, what: String) -> Result<Outcome, TrainError> {
        let best = self.best().map(|(path, _)| path);
        let last = checkpoint::last(self.run.folder)?.map(|(path, _)| path);
        Ok(Outcome::Collapsed {
            what: format!("step {}: {what}", self.state.step),
            keep: best.or(last),
        })
    }

    fn best(&self) -> Option<(PathBuf, f64)> {
        let Best { step, value } = self.state.best?;
        Some((checkpoint::path(self.run.folder, step), value))
    }

    fn summary(&self) -> Summary {
        Summary {
            step: self.state.step,
            total: self.total,
            last: checkpoint::path(self.run.folder, self.state.step),
            best: self.best(),
            loss: self.state.recent_losses.last().copied(),
            num_input_tokens_seen: self.state.num_input_tokens_seen,
        }
    }
}

/// Whether something done every `every` steps is due; 0 is never.
fn due(step: u64, every: u64) -> bool {
    every > 0 && step.is_multiple_of(every)
}

fn collapse(record: &Evaluation, most: f64) -> Option<String> {
    if !record.eval_loss.is_finite() {
        return Some(format!("the held-out loss is {}", record.eval_loss));
    }
    let Decoded { repetition_rate, .. } = record.decoded?;
    (most > 0.0 && repetition_rate > most).then(|| {
        format!(
            "held-out answers repeat themselves: repetition rate {repetition_rate:.2}, limit {most}"
        )
    })
}

/// Settings that may change between the parts of a run.
const FREE: [&str; 9] = [
    "output_dir",
    "adapter_dtype",
    // A GPU rounds otherwise, but who loses one wants to go on.
    "device",
    "eval_steps",
    "save_steps",
    "save_total_limit",
    "logging_steps",
    // After the watchdog stopped a run, its user may know better.
    "max_loss_ratio",
    "max_repetition_rate",
];

/// Whether a checkpoint is of this run.
fn same(run: &Run<'_>, state: &State, name: &str) -> Result<(), TrainError> {
    let other = |key: &str, expected: String, found: String| {
        Err(TrainError::BadInput(format!(
            "{name}: made with another `{key}`: expected {expected}, found {found}"
        )))
    };
    let show = |value: Option<&String>| value.map_or("nothing", |value| value).to_owned();
    for key in run.identity.keys().chain(state.identity.keys()) {
        let (expected, found) = (run.identity.get(key), state.identity.get(key));
        if expected != found {
            return other(key, show(expected), show(found));
        }
    }
    let (expected, found) = (run.config.keys(), state.config.keys());
    for (key, value) in &expected {
        if !FREE.contains(&key.as_str()) && found.get(key) != Some(value) {
            let found = found.get(key).map_or_else(String::new, ToString::to_string);
            return other(key, value.to_string(), found);
        }
    }
    Ok(())
}
