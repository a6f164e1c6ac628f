//! Connections: who may ask for what, and how much it may spend.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use nostr::{Keys, PublicKey};
use rusqlite::{OptionalExtension, Row};

use super::{Error, Records, signed, unsigned};
use crate::nip47::Method;

/// A client's right to use the wallet.
#[derive(Clone, Debug)]
pub struct Connection {
    /// Its number.
    pub id: i64,
    /// What the user calls it.
    pub name: String,
    /// The key that signs its requests.
    pub client: PublicKey,
    /// Our key towards this client alone.
    pub service: Keys,
    /// What it may ask for.
    pub methods: BTreeSet<Method>,
    /// How much it may spend; without a budget, everything.
    pub budget: Option<Budget>,
    /// Whether it sees other connections' invoices and payments too.
    pub whole_history: bool,
    /// Whether its last request came in NIP-04.
    pub legacy: bool,
    /// When it was made.
    pub created_at: u64,
    /// When it was revoked.
    pub revoked_at: Option<u64>,
}

/// How much a connection may spend, fees included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// The amount.
    pub msat: u64,
    /// Within which time.
    pub period: Period,
}

/// The time within which a budget holds: the last so many seconds, at any moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Period {
    /// 24 hours.
    Day,
    /// 7 days.
    Week,
    /// 30 days.
    Month,
    /// For good.
    Total,
}

impl Period {
    /// Its length in seconds; none for good.
    pub fn seconds(self) -> Option<u64> {
        match self {
            Self::Day => Some(86_400),
            Self::Week => Some(7 * 86_400),
            Self::Month => Some(30 * 86_400),
            Self::Total => None,
        }
    }

    fn of(seconds: Option<i64>) -> Self {
        match seconds {
            Some(86_400) => Self::Day,
            Some(604_800) => Self::Week,
            Some(2_592_000) => Self::Month,
            // Anything unknown is the strictest.
            _ => Self::Total,
        }
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Day => "day",
            Self::Week => "week",
            Self::Month => "month",
            Self::Total => "for good",
        })
    }
}

/// A connection to be made.
#[derive(Clone, Debug)]
pub struct NewConnection {
    /// What the user calls it.
    pub name: String,
    /// The key that will sign its requests.
    pub client: PublicKey,
    /// What it may ask for.
    pub methods: BTreeSet<Method>,
    /// How much it may spend.
    pub budget: Option<Budget>,
    /// Whether it sees other connections' invoices and payments too.
    pub whole_history: bool,
}

const COLUMNS: &str = "id, name, client, service_secret, methods, budget_msat, period_s, whole_history, legacy, \
                       created_at, revoked_at";

impl Records {
    /// Makes a connection; nothing if one of that name is there.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn connect(&self, new: &NewConnection, now: u64) -> Result<Option<Connection>, Error> {
        let service = Keys::generate();
        let methods: Vec<&str> = new.methods.iter().map(|method| method.name()).collect();
        let made = self.write(|change| {
            let insert = "INSERT OR IGNORE INTO connections \
                (name, client, service_secret, methods, budget_msat, period_s, whole_history, created_at) \
                VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
            change.execute(
                insert,
                (
                    &new.name,
                    new.client.to_hex(),
                    service.secret_key().to_secret_hex(),
                    methods.join(" "),
                    new.budget.map(|budget| signed(budget.msat)),
                    new.budget.and_then(|budget| budget.period.seconds()).map(signed),
                    new.whole_history,
                    signed(now),
                ),
            )
        })?;
        match made {
            0 => Ok(None),
            _ => self.connection_of(&service.public_key()),
        }
    }

    /// All connections, revoked ones too.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn connections(&self) -> Result<Vec<Connection>, Error> {
        self.read(|database| {
            let mut query =
                database.prepare(&format!("SELECT {COLUMNS} FROM connections ORDER BY id"))?;
            query.query_map([], connection)?.collect()
        })
    }

    /// The connection with our key `service`.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn connection_of(&self, service: &PublicKey) -> Result<Option<Connection>, Error> {
        // A wallet has a handful: deriving each public key is cheaper than a second truth in a column.
        let all = self.connections()?;
        Ok(all
            .into_iter()
            .find(|one| one.service.public_key() == *service))
    }

    /// The connection with this number.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn connection(&self, id: i64) -> Result<Option<Connection>, Error> {
        self.read(|database| {
            let query = format!("SELECT {COLUMNS} FROM connections WHERE id = ?1");
            database.query_row(&query, [id], connection).optional()
        })
    }

    /// Revokes the connection of that name; answers whether there was one.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn revoke(&self, name: &str, now: u64) -> Result<bool, Error> {
        self.write(|change| {
            let update =
                "UPDATE connections SET revoked_at = ?2 WHERE name = ?1 AND revoked_at IS NULL";
            Ok(change.execute(update, (name, signed(now)))? > 0)
        })
    }

    /// Remembers how a client encrypts.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn set_legacy(&self, id: i64, legacy: bool) -> Result<(), Error> {
        self.write(|change| {
            let update = "UPDATE connections SET legacy = ?2 WHERE id = ?1";
            change.execute(update, (id, legacy)).map(drop)
        })
    }
}

fn connection(row: &Row<'_>) -> rusqlite::Result<Connection> {
    let broken = |column| {
        let name = "a connection".to_owned();
        rusqlite::Error::InvalidColumnType(column, name, rusqlite::types::Type::Text)
    };
    let client: String = row.get(2)?;
    let secret: String = row.get(3)?;
    let methods: String = row.get(4)?;
    let budget: Option<i64> = row.get(5)?;
    Ok(Connection {
        id: row.get(0)?,
        name: row.get(1)?,
        client: PublicKey::from_hex(&client).map_err(|_| broken(2))?,
        service: Keys::parse(&secret).map_err(|_| broken(3))?,
        methods: methods
            .split_whitespace()
            .filter_map(|name| Method::from_str(name).ok())
            .collect(),
        budget: match budget {
            Some(msat) => Some(Budget {
                msat: unsigned(msat),
                period: Period::of(row.get(6)?),
            }),
            None => None,
        },
        whole_history: row.get(7)?,
        legacy: row.get(8)?,
        created_at: unsigned(row.get(9)?),
        revoked_at: row.get::<_, Option<i64>>(10)?.map(unsigned),
    })
}
