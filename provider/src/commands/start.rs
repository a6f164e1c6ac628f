//! `infernet-provider start`.

use std::path::Path;

use anyhow::{Context, anyhow};
use infernet_engine::Engine;
use infernet_node::shutdown::Shutdown;
use infernet_protocol::event::Promise;
use infernet_provider::settings::{DEFAULT_RELAY, Settings};
use infernet_provider::{Options, run};
use nostr::{Keys, RelayUrl, ToBech32};

use crate::arguments::{self, Start};

/// What a scripted engine promises before the first token.
const SCRIPTED_FIRST_TOKEN_MS: u64 = 50;

/// Sells until told to stop.
pub async fn start(home: &Path, config: Option<&Path>, start: Start) -> anyhow::Result<()> {
    let settings = super::settings(home, config)?.overlaid(start.settings());
    let identity = super::identity(home)?;
    let shutdown = Shutdown::on_signals().context("cannot listen for signals")?;
    let (loading, asked) = (settings.clone(), start);
    let loaded = tokio::task::spawn_blocking(move || {
        let engine = super::engine::load(&asked, &loading)?;
        anyhow::Ok((engine, promise(&asked)))
    });
    let (engine, promise) = loaded.await??;
    let mut options = options(home, identity.keys, &settings, &*engine)?;
    if settings.slots.is_none() && promise.is_none() {
        options.slots = slots(&*engine).unwrap_or(options.slots);
    }
    options.promise = promise;
    options.wallet = super::money::wallet(&settings)?;
    options.tab = settings
        .tab()
        .context("an amount in the settings is more than there is")?;
    options.escrow = settings
        .escrow()
        .context("an amount in the settings is more than there is")?;
    let models: Vec<_> = engine.models().iter().map(|m| m.name.clone()).collect();
    let provider = run(options, engine, shutdown).await?;
    let relays = provider.announced().await;
    if !relays.is_empty() {
        let relays: Vec<_> = relays.iter().map(RelayUrl::as_str).collect();
        // Scripts wait for this line; it is the only one on standard output.
        super::print(&format!(
            "ready: {} sells {} on {}\n",
            provider.public_key().to_bech32()?,
            models.join(", "),
            relays.join(", ")
        ))?;
    }
    provider.ended().await;
    Ok(())
}

/// As many jobs as the engine computes together; `None` if it computes each alone.
fn slots(engine: &dyn Engine) -> Option<u32> {
    let models = engine.models().iter();
    let capacities = models.filter_map(|model| engine.capacity(&model.id));
    let slots = capacities.map(|capacity| capacity.slots).max();
    slots.filter(|slots| *slots > 1)
}

/// A scripted engine knows its speed, and may be told to break: there is
/// nothing to measure.
fn promise(start: &Start) -> Option<Promise> {
    let speed = infernet_engine::Script::default().tokens_per_second;
    let speed = start.script.scripted_speed.unwrap_or(speed) as f32;
    let slowest = start
        .settings()
        .max_speed
        .map_or(speed, |most| speed.min(most));
    (start.engine == arguments::Engine::Scripted).then_some(Promise {
        first_token_ms: SCRIPTED_FIRST_TOKEN_MS,
        tokens_per_s: slowest,
    })
}

fn options(
    home: &Path,
    keys: Keys,
    settings: &Settings,
    engine: &dyn Engine,
) -> anyhow::Result<Options> {
    let npub = keys.public_key.to_bech32()?;
    let defaults = Options::new(keys, home, relays(settings)?);
    let named = engine.models().iter().zip(&settings.models);
    let prices =
        named.filter_map(|(model, said)| Some((model.name.clone(), settings.price_of(said)?)));
    Ok(Options {
        // `npub1` and eight characters tell providers apart well enough.
        name: settings
            .name
            .clone()
            .unwrap_or_else(|| format!("provider {}", &npub[..13])),
        blobs: settings.blossom.clone(),
        price: settings.price(),
        prices: prices.collect(),
        slots: settings.slots.unwrap_or(defaults.slots),
        queue: settings.queue.unwrap_or(defaults.queue),
        max_speed: settings.max_speed,
        direct: settings.direct.unwrap_or(defaults.direct),
        profile: settings.profile.unwrap_or(defaults.profile),
        verify: settings.verify.unwrap_or(defaults.verify),
        price_verify: settings.price_verify,
        ..defaults
    })
}

fn relays(settings: &Settings) -> anyhow::Result<Vec<RelayUrl>> {
    if settings.relays.is_empty() {
        return Ok(vec![RelayUrl::parse(DEFAULT_RELAY)?]);
    }
    let parse = |url: &String| {
        RelayUrl::parse(url).map_err(|e| {
            anyhow!("{url} is no relay's address ({e}); they look like wss://relay.example.com")
        })
    };
    settings.relays.iter().map(parse).collect()
}
