//! Requests that have come: the same event acts once, and is answered with the same words.

use rusqlite::OptionalExtension;

use super::{Error, Records, signed};

/// What is known of a request's event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// It is new; it is remembered now.
    Never,
    /// It came before and has not been answered: it is being worked on, or the wallet died over it.
    Unanswered,
    /// It came before and was answered with this.
    Answered(String),
}

impl Records {
    /// Remembers a request's event, and says whether it came before.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn see_request(&self, event: &str, connection: i64, now: u64) -> Result<Seen, Error> {
        self.write(|change| {
            let query = "SELECT response FROM requests WHERE event = ?1";
            let known: Option<Option<String>> = change
                .query_row(query, [event], |row| row.get(0))
                .optional()?;
            match known {
                Some(Some(response)) => Ok(Seen::Answered(response)),
                Some(None) => Ok(Seen::Unanswered),
                None => {
                    let insert =
                        "INSERT INTO requests (event, connection, received_at) VALUES (?1, ?2, ?3)";
                    change.execute(insert, (event, connection, signed(now)))?;
                    Ok(Seen::Never)
                }
            }
        })
    }

    /// Remembers what a request was answered.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn answer_request(&self, event: &str, response: &str) -> Result<(), Error> {
        self.write(|change| {
            let update = "UPDATE requests SET response = ?2 WHERE event = ?1 AND response IS NULL";
            change.execute(update, [event, response]).map(drop)
        })
    }

    /// Forgets requests that came before `then`: an event that old is not listened to any more.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn forget_requests_before(&self, then: u64) -> Result<(), Error> {
        self.write(|change| {
            let delete = "DELETE FROM requests WHERE received_at < ?1";
            change.execute(delete, [signed(then)]).map(drop)
        })
    }
}
