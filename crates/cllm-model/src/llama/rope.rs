//! The rotary frequencies of a model, with the rescalings of long-context models.

use std::f32::consts::PI;

use crate::config::{ModelConfig, RopeScaling};

/// The angle per position of each pair, shape `(head_dim / 2,)`, in radians:
/// `theta^(-2i / head_dim)`, rescaled as the configuration says. The arithmetic is f32
/// in the order of transformers, so that the angles are the same.
pub fn frequencies(config: &ModelConfig) -> Vec<f32> {
    let head_dim = config.head_dim;
    let base = (0..head_dim / 2).map(|i| {
        let exponent = (2 * i) as f32 / head_dim as f32;
        1.0 / libm::pow(f64::from(config.rope_theta), f64::from(exponent)) as f32
    });
    match &config.rope_scaling {
        RopeScaling::None => base.collect(),
        RopeScaling::Linear { factor } => base.map(|f| f / factor).collect(),
        RopeScaling::Factors(factors) => base.zip(factors).map(|(f, factor)| f / factor).collect(),
        RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_context } => {
            let context = *original_context as f32;
            let scale = |f: f32| {
                let wavelength = 2.0 * PI / f;
                if wavelength < context / high_freq_factor {
                    f
                } else if wavelength > context / low_freq_factor {
                    f / factor
                } else {
                    let smooth = (context / wavelength - low_freq_factor)
                        / (high_freq_factor - low_freq_factor);
                    (1.0 - smooth) * f / factor + smooth * f
                }
            };
            base.map(scale).collect()
        }
    }
}
