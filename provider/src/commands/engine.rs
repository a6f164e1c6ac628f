//! Which engine computes, with which models.

use std::sync::Arc;

use anyhow::ensure;
use infernet_engine::{
    DeviceChoice, Engine, Fault, ModelSource, Options, Script, ScriptedEngine, TorchEngine,
};
use infernet_provider::settings::{self, Settings};

use crate::arguments::{self, Start};

/// The engine that the arguments ask for. Loading blocks for as long as it takes
/// to read the models.
pub fn load(start: &Start, settings: &Settings) -> anyhow::Result<Arc<dyn Engine>> {
    match start.engine {
        arguments::Engine::Torch => load_torch(settings),
        arguments::Engine::Scripted => Ok(Arc::new(scripted(&start.script, settings))),
    }
}

fn load_torch(settings: &Settings) -> anyhow::Result<Arc<dyn Engine>> {
    ensure!(
        !settings.models.is_empty(),
        "there is no model to sell: name one with --model PATH, or in provider.toml"
    );
    let dtype = settings.dtype.unwrap_or_default().into();
    let models = settings.models.iter().map(|model| ModelSource {
        name: model.name.clone(),
        dtype,
        ..ModelSource::new(&model.path)
    });
    let engine = TorchEngine::load(Options {
        models: models.collect(),
        device: match settings.device.unwrap_or_default() {
            settings::Device::Auto => DeviceChoice::Auto,
            settings::Device::Cpu => DeviceChoice::Cpu,
            settings::Device::Cuda => DeviceChoice::Cuda,
        },
        threads: settings.threads,
        slots: settings.slots.map(|slots| slots as usize),
        cache_mib: settings.kv_cache_mib,
        shares_prefixes: settings.share_prefixes.unwrap_or(false),
        ..Options::default()
    })?;
    Ok(Arc::new(engine))
}

fn scripted(script: &arguments::Script, settings: &Settings) -> ScriptedEngine {
    eprintln!("WARNING: this engine is scripted: NO MODEL RUNS, every answer is made up.");
    let defaults = Script::default();
    let name = settings.models.first().and_then(|model| model.name.clone());
    ScriptedEngine::new(Script {
        name: script
            .scripted_name
            .clone()
            .or(name)
            .unwrap_or(defaults.name),
        text: script.scripted_text.clone().unwrap_or(defaults.text),
        tokens_per_second: script.scripted_speed.unwrap_or(defaults.tokens_per_second),
        // One that was stopped gives its place back a moment later.
        capacity: settings.slots.unwrap_or(1) as usize + defaults.capacity,
        fault: fault(script),
        ..defaults
    })
}

fn fault(script: &arguments::Script) -> Fault {
    let fail = script.scripted_fail_after.map(Fault::FailAfter);
    let stall = script.scripted_stall_after.map(Fault::StallAfter);
    let wrong = script.scripted_wrong_after.map(Fault::WrongAfter);
    let refuse = script.scripted_refuse.then_some(Fault::Refuse);
    fail.or(stall).or(wrong).or(refuse).unwrap_or_default()
}
