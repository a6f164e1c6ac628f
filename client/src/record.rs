//! A job's record: its events, as the relays have them.

use nostr::{Event, EventId};

use crate::{Client, Error};

pub(crate) async fn fetch(client: &Client, job: EventId) -> Result<Vec<Event>, Error> {
    client
        .fetch(vec![
            nostr::Filter::new().id(job),
            nostr::Filter::new().event(job),
        ])
        .await
}
