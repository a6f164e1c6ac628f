//! How much of the processor a process has used, by /proc.

use std::time::{Duration, Instant};

/// What Linux tells of a process counts hundredths of a second, on every machine.
const TICK: Duration = Duration::from_millis(10);

/// A process from some moment on.
#[derive(Clone, Copy, Debug)]
pub struct Cpu {
    process: u32,
    began: Instant,
    used: Duration,
}

impl Cpu {
    /// This process, or another one, from now on.
    pub fn of(process: u32) -> Self {
        Self {
            process,
            began: Instant::now(),
            used: used(process),
        }
    }

    /// Cores used since then: 1.0 is all of one.
    pub fn share(&self) -> f64 {
        self.spent().as_secs_f64() / self.began.elapsed().as_secs_f64()
    }

    /// Time on a processor since then.
    pub fn spent(&self) -> Duration {
        used(self.process).saturating_sub(self.used)
    }
}

fn used(process: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    // The name, in brackets, may contain anything.
    let fields = stat.rsplit(')').next().unwrap_or_default();
    let ticks = |field: usize| fields.split_whitespace().nth(field)?.parse::<u32>().ok();
    TICK * (ticks(11).unwrap_or(0) + ticks(12).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_is_seen() {
        let cpu = Cpu::of(std::process::id());
        let until = Instant::now() + Duration::from_millis(100);
        while cpu.spent().is_zero() && Instant::now() < until + Duration::from_secs(10) {
            std::hint::spin_loop();
        }
        assert!(!cpu.spent().is_zero() && cpu.share() > 0.0);
    }
}
