//! `tab`: what is left on the tabs with providers, and having it back.

use infernet_client::Client;
use infernet_client::purse::{Refund, TabState};
use infernet_protocol::money::Msat;
use nostr::PublicKey;
use serde::Serialize;

use super::spending::called;
use super::table::table;
use super::terminal::left_on_tab;
use super::{Exit, Misunderstood, Place, npub, print, print_json};

/// See what is left on the tabs with providers, or have it back
#[derive(Debug, clap::Args)]
pub struct Tab {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// List the tabs that are not even
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Ask for what is left, and wait for the money
    Close {
        /// The provider, by name or npub, or all
        #[arg(value_name = "PROVIDER|all")]
        who: String,

        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

/// What came of asking one provider.
#[derive(Serialize)]
struct Closed {
    provider: PublicKey,
    name: String,
    #[serde(flatten)]
    refund: Option<Refund>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

impl Tab {
    pub async fn run(self, place: Place) -> anyhow::Result<Exit> {
        match self.what {
            What::List { json } => list(&place, json).await,
            What::Close { who, json } => close(&place, &who, json).await,
        }
    }
}

async fn tabs(place: &Place) -> anyhow::Result<Vec<TabState>> {
    let books = place.books().await?;
    let tabs = books.tabs().await;
    books.close().await;
    Ok(tabs?)
}

async fn list(place: &Place, as_json: bool) -> anyhow::Result<Exit> {
    let tabs = tabs(place).await?;
    if as_json {
        print_json(&tabs)?;
    } else if tabs.is_empty() {
        eprintln!("Nothing is left on any tab.");
    } else {
        let rows: Vec<_> = tabs.iter().map(row).collect();
        print(&table(&["PROVIDER", "KEY", "TAB"], &rows))?;
    }
    Ok(Exit::Done)
}

fn row(tab: &TabState) -> Vec<String> {
    vec![
        called(&tab.name, &tab.provider),
        super::short(&tab.provider),
        state(tab),
    ]
}

fn state(tab: &TabState) -> String {
    let mut all = vec![left_on_tab(tab.left_msat)];
    if tab.under_way_msat > Msat::ZERO {
        all.push(format!("{} on its way to it", tab.under_way_msat));
    }
    if tab.refund_msat > Msat::ZERO {
        all.push(format!("{} asked back", tab.refund_msat));
    }
    match tab.unclear {
        0 => {}
        1 => all.push("what an attempt cost is not known yet; the next job looks".into()),
        more => all.push(format!(
            "what {more} attempts cost is not known yet; the next job looks"
        )),
    }
    match tab.unfinished.saturating_sub(tab.unclear) {
        0 => {}
        1 => all.push("an attempt runs, or is settled with the next job".into()),
        more => all.push(format!(
            "{more} attempts run, or are settled with the next job"
        )),
    }
    all.join(", ")
}

async fn close(place: &Place, who: &str, as_json: bool) -> anyhow::Result<Exit> {
    let Some(purse) = place.purse()? else {
        return Err(infernet_client::Error::NoWallet.into());
    };
    let tabs = meant(who, tabs(place).await?)?;
    if tabs.is_empty() {
        if as_json {
            print_json(&tabs)?;
        }
        eprintln!("Nothing is left on any tab.");
        return Ok(Exit::Done);
    }
    let client = place.connect(Some(purse)).await?;
    let mut closed = Vec::new();
    for tab in &tabs {
        let one = ask(&client, tab).await;
        if !as_json {
            print(&format!("{}\n", said(&one)))?;
        }
        closed.push(one);
    }
    client.close().await;
    if as_json {
        print_json(&closed)?;
    }
    let is_done = |one: &Closed| {
        matches!(
            one.refund,
            Some(Refund::Paid { .. } | Refund::Nothing { .. })
        )
    };
    Ok(match closed.iter().all(is_done) {
        true => Exit::Done,
        false => Exit::Failed,
    })
}

async fn ask(client: &Client, tab: &TabState) -> Closed {
    let refund = client.refund(tab.provider).await;
    Closed {
        provider: tab.provider,
        name: tab.name.clone(),
        error: refund.as_ref().err().map(ToString::to_string),
        refund: refund.ok(),
    }
}

/// What came of it, in a line.
fn said(closed: &Closed) -> String {
    let who = called(&closed.name, &closed.provider);
    match (&closed.refund, &closed.error) {
        (Some(Refund::Paid { amount_msat }), _) => format!("{who} paid back {amount_msat}."),
        (
            Some(Refund::Nothing {
                left_msat: left @ ..0,
            }),
            _,
        ) => {
            format!(
                "{who}: {}; it is paid with the next job.",
                left_on_tab(*left)
            )
        }
        (Some(Refund::Nothing { left_msat: 0 }), _) => format!("{who}: nothing is left there."),
        (Some(Refund::Nothing { left_msat }), _) => format!(
            "{who}: {}, too little to be paid back.",
            left_on_tab(*left_msat)
        ),
        (Some(Refund::UnderWay { amount_msat }), _) => format!(
            "{who} says that it pays {amount_msat} back, and it has not come yet. See: infernet-client tab list"
        ),
        (
            Some(Refund::Refused {
                amount_msat,
                detail,
            }),
            _,
        ) => format!("{who} does not pay {amount_msat} back: {detail}."),
        (Some(Refund::Unanswered { amount_msat }), _) => {
            format!(
                "{who} does not answer, so {amount_msat} stay there. Try again when it is online."
            )
        }
        (None, error) => format!("{who}: {}.", error.as_deref().unwrap_or_default()),
    }
}

/// The tabs that are meant: all, or the one with this name or key.
fn meant(who: &str, tabs: Vec<TabState>) -> anyhow::Result<Vec<TabState>> {
    if who == "all" {
        return Ok(tabs);
    }
    let key = PublicKey::parse(who).ok();
    let is_meant = |tab: &TabState| match key {
        Some(key) => tab.provider == key,
        None => tab.name.eq_ignore_ascii_case(who),
    };
    let found: Vec<_> = tabs.into_iter().filter(is_meant).collect();
    let npubs = || -> Vec<String> { found.iter().map(|tab| npub(&tab.provider)).collect() };
    match found.len() {
        0 => {
            let nothing =
                format!("nothing is left on a tab with {who:?}; see infernet-client tab list");
            Err(Misunderstood(nothing).into())
        }
        1 => Ok(found),
        _ => {
            let several = format!(
                "several tabs are with a {who:?}; say which: {}",
                npubs().join(", ")
            );
            Err(Misunderstood(several).into())
        }
    }
}
