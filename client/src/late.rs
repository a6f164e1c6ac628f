//! Results that nobody waits for any more: found on the relays by their award.

use infernet_protocol::event::{Announcement, Award, Basis, Cancel, JobResult, Promise, Signed};
use infernet_protocol::inference::EndReason;
use infernet_protocol::kinds;
use infernet_protocol::payload::{Input, Payload, Product, Work};
use infernet_protocol::seal::Sealed;
use nostr::{Event, EventId, Filter, Kind};

use crate::checking::promised;
use crate::submit::results::{Checked, check, is_of};
use crate::{Client, Error, Evidence};

/// Results of one award that are looked at: an honest provider signs one.
const MAX_RESULTS: usize = 8;

/// What a provider has brought for an award of ours.
#[derive(Debug, Clone, PartialEq)]
pub enum Brought {
    /// We or it have called it off, and no result is there; one that was signed before may still come.
    CalledOff,
    /// It has ended without anything that is to be paid.
    Nothing,
    /// It says that it is done, and is not what was asked for; for this reason.
    Bad(&'static str),
    /// It keeps the award.
    Work(Box<Found>),
}

/// Work that was found.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// What it takes to check it.
    pub evidence: Evidence,
    /// What was asked.
    pub work: Work,
    /// What came.
    pub product: Product,
    /// What the provider calls itself.
    pub name: String,
    /// What it calls the model.
    pub model_name: String,
    /// How fast it promised to be.
    pub promise: Promise,
}

impl Client {
    /// What the provider of an award of ours has brought, if the relays have it by now.
    ///
    /// # Errors
    /// Relays that cannot be reached; a payload in a blob that cannot be had: it may come later.
    pub async fn brought(&self, award: EventId) -> Result<Option<Brought>, Error> {
        let results = Filter::new()
            .kind(Kind::from(kinds::RESULT))
            .event(award)
            .limit(MAX_RESULTS);
        let cancels = Filter::new()
            .kind(Kind::from(kinds::CANCEL))
            .event(award)
            .limit(MAX_RESULTS);
        let asked = vec![Filter::new().id(award), results, cancels];
        let events = self.fetch(asked).await?;
        let Some(award) = award_of(&events, award, self) else {
            return Ok(None);
        };
        let read = |event: &Event| Signed::<JobResult>::from_verified(event.clone()).ok();
        let results = events.iter().filter_map(read);
        let Some(result) = results.into_iter().find(|result| is_of(result, &award)) else {
            return Ok(is_called_off(&events, &award).then_some(Brought::CalledOff));
        };
        if !matches!(result.ended, EndReason::Stop | EndReason::Length) {
            return Ok(Some(Brought::Nothing));
        }
        self.opened(award, result).await.map(Some)
    }

    async fn opened(
        &self,
        award: Signed<Award>,
        result: Signed<JobResult>,
    ) -> Result<Brought, Error> {
        let unreadable = || Error::Uncheckable("the award's input cannot be read".into());
        let pair = self.shared().conversations.with(&award.provider);
        let pair = pair.map_err(|_| unreadable())?;
        let input = match self.in_blob(&award.input).await? {
            Some(bytes) => award.input.open_fetched_between(bytes, &pair),
            None => award.input.open_between(&pair),
        };
        let input = input.ok().and_then(|bytes| Input::from_bytes(&bytes).ok());
        let work = input.ok_or_else(unreadable)?.work;
        let fetched = self.in_blob(&result.output).await?;
        let product = match check(&result, fetched, &award, &work, &pair) {
            Checked::Good(product) => product,
            Checked::Bad(flaw) => return Ok(Brought::Bad(flaw)),
            Checked::Foreign => return Ok(Brought::Bad("it is of another award")),
        };
        let (name, model_name) = names(&award);
        let promise = promised(&award.basis, &award.model);
        let evidence = Evidence::between(award, result, &pair).map_err(|_| unreadable())?;
        Ok(Brought::Work(Box::new(Found {
            evidence,
            work,
            product,
            name,
            model_name,
            promise,
        })))
    }

    /// What is in a payload's blob, if it has one.
    async fn in_blob(&self, sealed: &Sealed) -> Result<Option<Vec<u8>>, Error> {
        let Some(blob) = &sealed.blob else {
            return Ok(None);
        };
        let fetched = self.shared().blobs.get(blob).await;
        let fetched = fetched.map_err(|error| Error::Uncheckable(error.to_string()))?;
        Ok(Some(fetched))
    }
}

fn award_of(events: &[Event], id: EventId, client: &Client) -> Option<Signed<Award>> {
    let event = events.iter().find(|event| event.id == id)?;
    let award = Signed::<Award>::from_verified(event.clone()).ok()?;
    (award.author() == client.public_key()).then_some(award)
}

fn is_called_off(events: &[Event], award: &Signed<Award>) -> bool {
    let cancels = events.iter().filter_map(|event| {
        let cancel = Signed::<Cancel>::from_verified(event.clone()).ok()?;
        (cancel.award == Some(award.id())).then_some(cancel.author())
    });
    let parties = [award.author(), award.provider];
    cancels.into_iter().any(|author| parties.contains(&author))
}

/// What the provider calls itself and the model in what the award rests on; nothing where it is a bid.
fn names(award: &Award) -> (String, String) {
    let Basis::Direct { announcement } = &award.basis else {
        return Default::default();
    };
    let Ok(said) = serde_json::from_str::<Announcement>(&announcement.content) else {
        return Default::default();
    };
    let mut models = said.models.into_iter();
    let sold = models.find(|sold| sold.model == award.model);
    (said.name, sold.map(|sold| sold.name).unwrap_or_default())
}
