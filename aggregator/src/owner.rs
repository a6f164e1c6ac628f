//! What the owner is answered.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use infernet_client::Provider as OnSale;
use infernet_node::clock;
use infernet_protocol::batch::Standing;
use infernet_protocol::event::{Accepts, Checking, Status as Announced};
use infernet_protocol::money::Msat;
use nostr::{PublicKey, ToBech32};
use serde::Serialize;
use serde_json::{Value, json};

use crate::desk::standing;
use crate::house::House;
use crate::open::Open;
use crate::socket::Ask;
use crate::status::{Group, Order, Provider, Relay, Status, Trust};
use crate::store::{Dealings, OrderRow};
use crate::trouble::Trouble;

/// Orders that are listed.
const MAX_LISTED: u32 = 100;

/// What the owner is answered; an error as `{"error": …}`.
pub(crate) async fn answer(house: &Arc<House>, ask: Ask) -> Value {
    let answered = match ask {
        Ask::Status => status(house).await.map(|status| value(&status)),
        Ask::Jobs => jobs(house).await.map(|jobs| value(&jobs)),
        Ask::Providers => providers(house).await.map(|providers| value(&providers)),
        Ask::Ban { provider, reason } => ban(house, &provider, &reason).await,
        Ask::Unban { provider } => {
            house.floor.ban(provider, false);
            house
                .store
                .unban(&provider)
                .await
                .map(Value::Bool)
                .map_err(Trouble::from)
        }
        // The socket sees to it.
        Ask::Stop { .. } => Ok(json!({})),
    };
    answered.unwrap_or_else(|error| json!({ "error": error.to_string() }))
}

fn value(of: &impl Serialize) -> Value {
    serde_json::to_value(of).unwrap_or_default()
}

async fn ban(house: &House, provider: &PublicKey, reason: &str) -> Result<Value, Trouble> {
    house.store.ban(provider, reason, clock::now()).await?;
    house.floor.ban(*provider, true);
    Ok(json!({ "banned": provider }))
}

async fn status(house: &Arc<House>) -> Result<Status, Trouble> {
    let Ok(npub) = house.public_key().to_bech32();
    let relays = house.link.relays().into_iter().map(|relay| Relay {
        url: relay.url,
        connected: relay.connected,
        trouble: relay.trouble.map(|trouble| trouble.to_string()),
    });
    let on_sale = house.client.on_sale();
    let open = on_sale
        .iter()
        .map(|provider| provider.announcement.author());
    let open: Vec<PublicKey> = open.filter(|key| !house.floor.is_banned(key)).collect();
    let speeds = open.iter().map(|provider| {
        let standing = house.floor.standing(provider);
        f64::from(standing.running) * standing.speed.unwrap_or(0.0)
    });
    let mut orders = vec![];
    for row in house.store.open_orders().await? {
        orders.extend(order(house, &row).await?);
    }
    Ok(Status {
        npub,
        name: house.options.name.clone(),
        pid: std::process::id(),
        closing: house.shutdown.is_soft(),
        fee_ppm: house.options.fee_ppm,
        takes_money: house.money.takes_money(),
        relays: relays.collect(),
        providers: open.len() as u64,
        running_shards: house.floor.running(),
        // The sum of none is -0.
        tokens_per_s: speeds.sum::<f64>() + 0.0,
        owed_msat: house.money.owed().await,
        orders,
    })
}

async fn jobs(house: &Arc<House>) -> Result<Vec<Order>, Trouble> {
    let mut orders = vec![];
    for row in house.store.newest_orders(MAX_LISTED).await? {
        orders.extend(order(house, &row).await?);
    }
    Ok(orders)
}

async fn order(house: &Arc<House>, row: &OrderRow) -> Result<Option<Order>, Trouble> {
    let Some(open) = Open::of(row) else {
        return Ok(None);
    };
    let standing: Standing = standing(house, &open).await?;
    let models = open.quote.accepts.iter().map(|accepted| match accepted {
        Accepts::Model(id) => id.to_string(),
        Accepts::Name(name) => name.clone(),
    });
    let groups = house.store.open_groups(&open.id).await?;
    let groups = groups.iter().map(|row| {
        let handle = house.group(&open.id, row.asked.number);
        Group {
            group: row.asked.number,
            state: row.state.as_str().to_owned(),
            progress: handle.map(|handle| handle.progress()).unwrap_or_default(),
        }
    });
    Ok(Some(Order {
        order: open.id,
        buyer: open.buyer,
        models: models.collect::<Vec<_>>().join(", "),
        lines: open.quote.size.lines,
        taken: row.taken,
        deadline: open.deadline(),
        closed: row.closed,
        standing,
        groups: groups.collect(),
    }))
}

async fn providers(house: &Arc<House>) -> Result<Vec<Provider>, Trouble> {
    let on_sale = house.client.on_sale();
    let on_sale: HashMap<PublicKey, OnSale> = on_sale
        .into_iter()
        .map(|provider| (provider.announcement.author(), provider))
        .collect();
    let dealings = house.store.dealings().await?;
    let bans = house.store.bans().await?;
    let bans: BTreeMap<PublicKey, String> = bans
        .into_iter()
        .map(|ban| (ban.provider, ban.reason))
        .collect();
    let dealt: BTreeMap<PublicKey, Dealings> = dealings
        .into_iter()
        .map(|dealings| (dealings.provider, dealings))
        .collect();
    let keys = on_sale.keys().chain(dealt.keys()).chain(bans.keys());
    let keys: std::collections::BTreeSet<PublicKey> = keys.copied().collect();
    let accounts = house.money.accounts().await;
    let mut providers = vec![];
    for key in keys {
        let mut provider = known(house, key, on_sale.get(&key), dealt.get(&key)).await?;
        provider.banned = bans.get(&key).cloned();
        provider.account = accounts.get(&key).copied();
        providers.push(provider);
    }
    Ok(providers)
}

async fn known(
    house: &House,
    key: PublicKey,
    on_sale: Option<&OnSale>,
    dealt: Option<&Dealings>,
) -> Result<Provider, Trouble> {
    let dossiers = house
        .checks
        .dossiers(&key)
        .await
        .map_err(crate::store::Error::from)?;
    let adaptive = Checking::Adaptive { least_ppm: 0 };
    let trust = dossiers.iter().map(|(subject, dossier)| Trust {
        model: subject.model.to_string(),
        engine: subject.engine.clone(),
        streak: dossier.trust.streak,
        chance_ppm: dossier.trust.chance_ppm(adaptive),
    });
    let floor = house.floor.standing(&key);
    let announced = on_sale.map(|provider| &provider.announcement);
    let name = announced.map(|a| a.name.clone());
    Ok(Provider {
        provider: key,
        name: name
            .or_else(|| dealt.map(|dealings| dealings.name.clone()))
            .unwrap_or_default(),
        online: announced.is_some_and(|a| a.status == Announced::Online),
        score: on_sale.map(|provider| provider.standing.score),
        running: floor.running,
        tokens_per_s: floor.speed,
        done: dealt.map_or(0, |dealings| dealings.done),
        failed: dealt.map_or(0, |dealings| dealings.failed),
        rejected: dealt.map_or(0, |dealings| dealings.rejected),
        cost_msat: dealt.map_or(Msat::ZERO, |dealings| dealings.cost_msat),
        trust: trust.collect(),
        account: None,
        banned: None,
    })
}
