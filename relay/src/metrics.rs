//! What the relay counts, as Prometheus reads it at `/metrics`. No label holds a key, an address or anything else that
//! a client chose.

use std::fmt;
use std::sync::atomic::{AtomicI64, AtomicU64};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Metric, Registry};

/// The media type of [`Metrics::scrape`].
pub const MEDIA_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Before each metric's name.
const PREFIX: &str = "infernet_relay";

/// One label, its name beside its value, which is one of a few.
type Label = [(&'static str, &'static str); 1];

type Counts = Family<Label, Counter<u64, AtomicU64>>;

type Level = Gauge<i64, AtomicI64>;

/// Counts what the relay does. Everything may be called from everywhere, and waits for nothing.
pub struct Metrics {
    registry: Mutex<Registry>,
    messages: Counts,
    admitted: Counts,
    refused: Counts,
    notices: Counter,
    stored: Counter,
    delivered: Counter,
    slow_readers: Counter,
    requests_refused: Counts,
    connections_refused: Counts,
    connections: Level,
    subscriptions: Level,
    saves: Histogram,
    queries: Histogram,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix(PREFIX);
        let with = &mut registry;
        Self {
            messages: named(with, "messages", "Messages from clients, by their type"),
            admitted: named(
                with,
                "events_admitted",
                "Events taken, by where they came from",
            ),
            refused: named(
                with,
                "events_refused",
                "Events refused, by the reason's first word",
            ),
            requests_refused: named(
                with,
                "requests_refused",
                "Subscriptions, counts and reconciliations refused, by the reason's first word",
            ),
            connections_refused: named(
                with,
                "connections_refused",
                "Websockets refused, by the reason's first word",
            ),
            notices: named(with, "notices", "Messages that could not be understood"),
            stored: named(with, "events_stored", "Events that reached the disk"),
            delivered: named(with, "events_delivered", "Live events sent to subscribers"),
            slow_readers: named(
                with,
                "slow_readers_closed",
                "Connections closed because they read too slowly",
            ),
            connections: named(with, "connections", "Websockets open"),
            subscriptions: named(with, "subscriptions", "Subscriptions open"),
            saves: timed(
                with,
                "save",
                "From an event's arrival at the store until it is on the disk",
            ),
            queries: timed(
                with,
                "query",
                "From a stored query's start to its last event",
            ),
            registry: Mutex::new(registry),
        }
    }
}

fn named<M: Metric + Clone + Default>(registry: &mut Registry, name: &str, help: &str) -> M {
    let metric = M::default();
    registry.register(name, help, metric.clone());
    metric
}

fn timed(registry: &mut Registry, name: &str, help: &str) -> Histogram {
    // From a tenth of a millisecond to three seconds.
    let histogram = Histogram::new(exponential_buckets(0.0001, 2.0, 16));
    registry.register(format!("{name}_seconds"), help, histogram.clone());
    histogram
}

impl Metrics {
    /// A client said something: `EVENT`, `REQ` and so on, or `other`.
    pub fn received(&self, message: &'static str) {
        self.messages.get_or_create(&[("type", message)]).inc();
    }

    /// An event was taken that came from `source`: `client`, `sync` or `import`.
    pub fn admitted(&self, source: &'static str) {
        self.admitted.get_or_create(&[("source", source)]).inc();
    }

    /// An event was refused with a reason that begins with `prefix`, such as `pow`.
    pub fn refused(&self, prefix: &'static str) {
        self.refused.get_or_create(&[("reason", prefix)]).inc();
    }

    /// A REQ, COUNT or NEG-OPEN was refused with a reason that begins with `prefix`.
    pub fn request_refused(&self, prefix: &'static str) {
        self.requests_refused
            .get_or_create(&[("reason", prefix)])
            .inc();
    }

    /// A websocket was refused with a reason such as `full` or `rate-limited`.
    pub fn connection_refused(&self, reason: &'static str) {
        self.connections_refused
            .get_or_create(&[("reason", reason)])
            .inc();
    }

    /// A message was answered with a NOTICE.
    pub fn notice(&self) {
        self.notices.inc();
    }

    /// So many events are now on the disk.
    pub fn stored(&self, events: u64) {
        self.stored.inc_by(events);
    }

    /// So many live events went out.
    pub fn delivered(&self, events: u64) {
        self.delivered.inc_by(events);
    }

    /// A connection was closed because it read too slowly.
    pub fn slow_reader_closed(&self) {
        self.slow_readers.inc();
    }

    /// A websocket began.
    pub fn connection_opened(&self) {
        self.connections.inc();
    }

    /// A websocket ended.
    pub fn connection_closed(&self) {
        self.connections.dec();
    }

    /// A subscription began.
    pub fn subscription_opened(&self) {
        self.subscriptions.inc();
    }

    /// So many subscriptions ended.
    pub fn subscriptions_closed(&self, subscriptions: u64) {
        self.subscriptions
            .dec_by(i64::try_from(subscriptions).unwrap_or(i64::MAX));
    }

    /// How many connections and subscriptions are open.
    pub fn open(&self) -> (u64, u64) {
        let read = |level: &Level| u64::try_from(level.get()).unwrap_or(0);
        (read(&self.connections), read(&self.subscriptions))
    }

    /// An event was on the disk so long after it had come to the store.
    pub fn save_took(&self, time: Duration) {
        self.saves.observe(time.as_secs_f64());
    }

    /// A query of stored events took so long.
    pub fn query_took(&self, time: Duration) {
        self.queries.observe(time.as_secs_f64());
    }

    /// Asks `read` at each scrape; it must be quick. `name` ends with its unit, if it has one: `disk_bytes`.
    pub fn watch(
        &self,
        name: &'static str,
        help: &'static str,
        read: impl Fn() -> f64 + Send + Sync + 'static,
    ) {
        let read = Box::new(read);
        let watched = Watched { name, help, read };
        self.registry().register_collector(Box::new(watched));
    }

    /// All of it as text ([`MEDIA_TYPE`]).
    pub fn scrape(&self) -> String {
        let mut text = String::new();
        if let Err(error) = text::encode(&mut text, &self.registry()) {
            tracing::error!(%error, "the metrics cannot be written");
        }
        text
    }

    fn registry(&self) -> std::sync::MutexGuard<'_, Registry> {
        // A registry is sound whatever its last user did.
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A number that somebody else holds.
struct Watched {
    name: &'static str,
    help: &'static str,
    read: Box<dyn Fn() -> f64 + Send + Sync>,
}

impl fmt::Debug for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Watched").field(&self.name).finish()
    }
}

impl Collector for Watched {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let gauge = ConstGauge::new((self.read)());
        let metric = encoder.encode_descriptor(self.name, self.help, None, gauge.metric_type())?;
        gauge.encode(metric)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::Ordering;

    use super::*;

    #[test]
    fn what_was_counted_is_read() {
        let metrics = Metrics::default();
        metrics.received("EVENT");
        metrics.received("EVENT");
        metrics.received("REQ");
        metrics.admitted("client");
        metrics.refused("pow");
        metrics.delivered(7);
        metrics.connection_opened();
        metrics.connection_opened();
        metrics.connection_closed();
        metrics.save_took(Duration::from_micros(150));
        let text = metrics.scrape();
        for line in [
            "infernet_relay_messages_total{type=\"EVENT\"} 2",
            "infernet_relay_messages_total{type=\"REQ\"} 1",
            "infernet_relay_events_admitted_total{source=\"client\"} 1",
            "infernet_relay_events_refused_total{reason=\"pow\"} 1",
            "infernet_relay_events_delivered_total 7",
            "infernet_relay_connections 1",
            "infernet_relay_save_seconds_bucket{le=\"0.0001\"} 0",
            "infernet_relay_save_seconds_bucket{le=\"0.0002\"} 1",
            "# EOF",
        ] {
            assert!(text.lines().any(|said| said == line), "{line} in\n{text}");
        }
    }

    #[test]
    fn what_others_hold_is_read_when_it_is_asked_for() {
        let metrics = Metrics::default();
        let backlog = Arc::new(AtomicU64::new(0));
        let held = backlog.clone();
        metrics.watch("store_backlog", "Waiting", move || {
            held.load(Ordering::Relaxed) as f64
        });
        backlog.store(3, Ordering::Relaxed);
        let text = metrics.scrape();
        assert!(
            text.contains("\ninfernet_relay_store_backlog 3.0\n"),
            "{text}"
        );
    }
}
