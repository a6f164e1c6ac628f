//! One client, as the rules know it.

use std::net::IpAddr;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use infernet_node::clock;
use nostr::{Event, Filter};

use crate::admission::{Admission, Origin, Refusal, Source};
use crate::store::Reader;

use super::identity::{Error, Identity};

/// Who a client is, and what it may.
#[derive(Debug)]
pub struct Viewer {
    admission: Arc<Admission>,
    address: IpAddr,
    identity: RwLock<Identity>,
}

impl Viewer {
    /// A client at `address`, not identified yet.
    pub fn new(admission: Arc<Admission>, address: IpAddr, identity: Identity) -> Self {
        Self {
            admission,
            address,
            identity: RwLock::new(identity),
        }
    }

    fn with_origin<T>(&self, judge: impl FnOnce(&Admission, &Origin<'_>) -> T) -> T {
        let identity = self.identity.read().unwrap_or_else(PoisonError::into_inner);
        let origin = Origin {
            address: Some(self.address),
            authenticated: identity.keys(),
            source: Source::Client,
        };
        judge(&self.admission, &origin)
    }

    /// [`Admission::arrived`].
    pub fn arrived(&self) -> Result<(), Refusal> {
        self.with_origin(Admission::arrived)
    }

    /// [`Admission::glance`].
    pub fn glance(&self, event: &Event) -> Result<(), Refusal> {
        self.with_origin(|admission, origin| admission.glance(event, origin))
    }

    /// [`Admission::examine`].
    pub fn examine(&self, event: &Event) -> Result<(), Refusal> {
        self.with_origin(|admission, origin| admission.examine(event, origin))
    }

    /// [`Admission::forged`].
    pub fn forged(&self) {
        self.with_origin(|admission, origin| admission.forged(origin));
    }

    /// [`Admission::admitted`].
    pub fn admitted(&self, event: &Event) {
        self.admission.admitted(event);
    }

    /// [`Admission::asked`].
    pub fn asked(&self) -> Result<(), Refusal> {
        self.with_origin(Admission::asked)
    }

    /// [`Admission::took`].
    pub fn took(&self, time: Duration) {
        self.admission.took(self.address, time);
    }

    /// [`Admission::may_ask`].
    pub fn may_ask(&self, filters: &[Filter]) -> Result<(), Refusal> {
        self.with_origin(|admission, origin| admission.may_ask(filters, origin))
    }

    /// [`Admission::may_see`].
    pub fn may_see(&self, event: &Event) -> bool {
        // Without a look at who it is, for all that anybody may see.
        !self.admission.is_private(event.kind)
            || self.with_origin(|admission, origin| admission.may_see(event, origin))
    }

    /// As whom the store is read for it. Its address pays for the time.
    pub fn reader(&self) -> Reader {
        let (admission, address) = (self.admission.clone(), self.address);
        self.with_origin(|admission, origin| {
            Reader::new(admission.private_kinds(), origin.authenticated)
        })
        .metered(move |time| admission.took(address, time))
    }

    /// Takes in what a client sends to show who it is.
    ///
    /// # Errors
    /// With what is wrong with it.
    pub fn identify(&self, auth: &Event) -> Result<(), Error> {
        let mut identity = self
            .identity
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        identity.identify(auth, clock::now())?;
        drop(identity);
        self.with_origin(|admission, origin| admission.identified(auth, origin));
        Ok(())
    }
}
