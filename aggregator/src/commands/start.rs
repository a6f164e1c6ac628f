//! `infernet-aggregator start`.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use infernet_aggregator::options::Limits;
use infernet_aggregator::settings::{DEFAULT_RELAY, Settings};
use infernet_aggregator::{Options, run};
use infernet_blobs::Address;
use infernet_node::shutdown::Shutdown;
use infernet_payments::PaymentRail;
use infernet_payments::nip47::{self, Rail};
use infernet_protocol::money::Msat;
use nostr::{PublicKey, RelayUrl, ToBech32};

use crate::arguments::Start;

/// Takes batches until told to stop.
pub async fn start(home: &Path, config: Option<&Path>, start: &Start) -> anyhow::Result<()> {
    let settings = super::settings(home, config)?.overlaid(start.settings());
    let identity = super::identity(home)?;
    let shutdown = Shutdown::on_signals().context("cannot listen for signals")?;
    let options = options(home, identity.keys, &settings)?;
    if options.wallet.is_none() {
        eprintln!("There is no wallet: only free work is done. To be paid, set INFERNET_WALLET.");
    }
    let aggregator = run(options, shutdown).await?;
    let relays = aggregator.announced().await;
    if !relays.is_empty() {
        let relays: Vec<_> = relays.iter().map(RelayUrl::as_str).collect();
        // Scripts wait for this line; it is the only one on standard output.
        super::print(&format!(
            "ready: {} takes batches on {}\n",
            aggregator.public_key().to_bech32()?,
            relays.join(", ")
        ))?;
    }
    aggregator.ended().await;
    Ok(())
}

fn options(home: &Path, keys: nostr::Keys, settings: &Settings) -> anyhow::Result<Options> {
    let npub = keys.public_key.to_bech32()?;
    let defaults = Options::new(keys, home, relays(settings)?);
    let fee_ppm = match settings.fee_percent {
        Some(_) => settings
            .fee_ppm()
            .context("the fee is no number of percent")?,
        None => defaults.fee_ppm,
    };
    let max_hold = match settings.max_hold_sats {
        Some(sats) => Msat::from_sat(sats).context("max_hold_sats is more than there is")?,
        None => defaults.max_hold,
    };
    Ok(Options {
        // `npub1` and eight characters tell aggregators apart well enough.
        name: settings
            .name
            .clone()
            .unwrap_or_else(|| format!("aggregator {}", &npub[..13])),
        blobs: match settings.blossom.is_empty() {
            true => defaults.blobs,
            false => blobs(settings)?,
        },
        fee_ppm,
        max_hold,
        checkers: keys_of("checkers", &settings.checkers)?,
        trust: keys_of("trust", &settings.trust)?,
        wallet: wallet(settings)?,
        limits: limits(settings, defaults.limits),
        ..defaults
    })
}

fn limits(settings: &Settings, defaults: Limits) -> Limits {
    Limits {
        orders: settings.max_orders.unwrap_or(defaults.orders),
        orders_of_a_buyer: settings
            .max_orders_of_a_buyer
            .unwrap_or(defaults.orders_of_a_buyer),
        groups_at_once: settings.groups_at_once.unwrap_or(defaults.groups_at_once),
        shard_tokens: settings.shard_tokens.unwrap_or(defaults.shard_tokens),
        straggler: settings.straggler.unwrap_or(defaults.straggler),
        margin: settings
            .margin_s
            .map_or(defaults.margin, Duration::from_secs),
        ..defaults
    }
}

/// The wallet that the settings name.
pub(super) fn wallet(settings: &Settings) -> anyhow::Result<Option<Arc<dyn PaymentRail>>> {
    let Some(connection) = &settings.wallet else {
        return Ok(None);
    };
    let rail = Rail::open(connection, nip47::Options::default())?;
    Ok(Some(Arc::new(rail)))
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

fn blobs(settings: &Settings) -> anyhow::Result<Vec<Address>> {
    let parse = |url: &String| {
        url.parse::<Address>()
            .with_context(|| format!("{url} is no Blossom server's address"))
    };
    settings.blossom.iter().map(parse).collect()
}

fn keys_of(what: &str, keys: &[String]) -> anyhow::Result<Vec<PublicKey>> {
    let parse = |key: &String| {
        PublicKey::parse(key).with_context(|| format!("{what}: {key} is no public key"))
    };
    keys.iter().map(parse).collect()
}
