//! How much each customer has been given, and so who is next.
//!
//! This is weighted fair queueing by virtual time: what is computed for a customer
//! moves its clock on, the slower the more it pays, and the clock that is furthest
//! behind is next. A common clock moves on as those of all do on average, and one who
//! comes begins there. So nobody saves up for later by staying away; and however many
//! come, those who wait have the earlier clock before long.

use std::collections::HashMap;

/// The clocks of the customers.
#[derive(Debug, Default)]
pub(crate) struct Shares {
    customers: HashMap<u64, Customer>,
    /// The common clock.
    now: f64,
}

#[derive(Debug, Default)]
struct Customer {
    /// Its requests that wait or run.
    requests: usize,
    clock: f64,
}

impl Shares {
    /// A request of this customer's has come.
    pub(crate) fn enter(&mut self, customer: u64) {
        let entry = self.customers.entry(customer).or_default();
        if entry.requests == 0 {
            entry.clock = entry.clock.max(self.now);
        }
        entry.requests += 1;
    }

    /// A request of this customer's has gone. Customers without any are remembered
    /// while they are ahead of the common clock: going and coming back gains nothing.
    pub(crate) fn leave(&mut self, customer: u64) {
        if let Some(entry) = self.customers.get_mut(&customer) {
            entry.requests = entry.requests.saturating_sub(1);
        }
        if self.present().next().is_none() {
            *self = Self::default();
        }
        let now = self.now;
        self.customers
            .retain(|_, entry| entry.requests > 0 || entry.clock > now);
    }

    /// Something was computed for a customer.
    pub(crate) fn charge(&mut self, customer: u64, cost: f64) {
        if let Some(entry) = self.customers.get_mut(&customer) {
            entry.clock += cost;
        }
        let present = self.present().count().max(1);
        let earliest = self.present().fold(f64::INFINITY, f64::min);
        let on_average = self.now + cost / present as f64;
        self.now = match earliest.is_finite() {
            true => on_average.max(earliest),
            false => on_average,
        };
    }

    /// A customer's clock: the lowest is next.
    pub(crate) fn clock(&self, customer: u64) -> f64 {
        self.customers
            .get(&customer)
            .map_or(0.0, |entry| entry.clock)
    }

    /// The clocks of those who have requests here.
    fn present(&self) -> impl Iterator<Item = f64> {
        let customers = self.customers.values();
        let present = customers.filter(|entry| entry.requests > 0);
        present.map(|entry| entry.clock)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_comes_later_begins_where_the_others_are() {
        let mut shares = Shares::default();
        shares.enter(1);
        shares.charge(1, 100.0);
        shares.enter(2);
        assert_eq!(shares.clock(2), 100.0);
    }

    #[test]
    fn going_and_coming_back_gains_nothing() {
        let mut shares = Shares::default();
        shares.enter(1);
        shares.enter(2);
        shares.charge(1, 100.0);
        shares.leave(1);
        shares.charge(2, 10.0);
        shares.enter(1);
        assert_eq!((shares.clock(1), shares.clock(2)), (100.0, 10.0));
    }

    #[test]
    fn however_many_come_who_waits_is_before_them() {
        let mut shares = Shares::default();
        shares.enter(1);
        shares.charge(1, 1_000.0);
        shares.enter(2);
        shares.charge(1, 1_000.0);
        for newcomer in 3..10_000 {
            shares.enter(newcomer);
            if shares.clock(newcomer) > shares.clock(1) {
                return;
            }
            shares.charge(newcomer, 10.0);
            shares.leave(newcomer);
        }
        panic!("newcomers are served forever");
    }

    #[test]
    fn who_has_been_caught_up_with_is_forgotten() {
        let mut shares = Shares::default();
        for customer in 0..100 {
            shares.enter(customer);
            shares.charge(customer, 1.0);
            shares.leave(customer);
        }
        assert!(shares.customers.is_empty());
    }
}
