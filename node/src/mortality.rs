//! Named points at which a debug build can be told to die, so that tests can kill it exactly there.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// Names the point at which a provider dies: `piece-claimed`, or `piece-claimed:3` for the third time that it comes
/// by.
pub const PROVIDER: &str = "INFERNET_PROVIDER_DIES_AT";

/// Names the point at which a client dies, in the same way.
pub const CLIENT: &str = "INFERNET_CLIENT_DIES_AT";

/// Names the point at which an aggregator dies, in the same way.
pub const AGGREGATOR: &str = "INFERNET_AGGREGATOR_DIES_AT";

/// Dies here without a word, as by SIGKILL, if a debug build was told to: by any of the variables, for no process plays
/// two roles. Release builds do not look.
pub fn point(name: &str) {
    if cfg!(debug_assertions) && told().is_some_and(|told| told.is_reached(name)) {
        std::process::abort();
    }
}

/// Where to die.
struct Told {
    point: String,
    /// How often it is passed alive.
    spared: u32,
    passed: AtomicU32,
}

impl Told {
    fn read(text: &str) -> Self {
        let counted = text.split_once(':');
        let counted = counted.and_then(|(point, times)| Some((point, times.parse().ok()?)));
        let (point, times): (_, u32) = counted.unwrap_or((text, 1));
        Self {
            point: point.to_owned(),
            spared: times.saturating_sub(1),
            passed: AtomicU32::new(0),
        }
    }

    fn is_reached(&self, name: &str) -> bool {
        self.point == name && self.passed.fetch_add(1, Ordering::Relaxed) >= self.spared
    }
}

/// Where this process is to die. Read once: a stream passes its points many times a second.
fn told() -> Option<&'static Told> {
    static TOLD: OnceLock<Option<Told>> = OnceLock::new();
    let told = || {
        let mut names = [PROVIDER, CLIENT, AGGREGATOR].iter();
        let text = names.find_map(|name| std::env::var(name).ok())?;
        Some(Told::read(&text))
    };
    TOLD.get_or_init(told).as_ref()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_point_may_be_passed_before_it_kills() {
        let reached = |told: &Told, names: &[&str]| -> Vec<bool> {
            names.iter().map(|name| told.is_reached(name)).collect()
        };
        let third = Told::read("piece:3");
        let seen = reached(&third, &["piece", "award", "piece", "piece"]);
        assert_eq!(seen, [false, false, false, true]);
        assert!(Told::read("piece").is_reached("piece"));
        assert!(!Told::read("piece").is_reached("piec"));
    }
}
