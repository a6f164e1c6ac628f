//! What a process uses of the machine.

/// A process's use of the machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct Usage {
    /// Seconds of processor time.
    pub cpu_s: f64,
    /// The most memory that it ever had, in MiB.
    pub peak_mib: f64,
}

impl Usage {
    /// What a running process has used.
    pub fn of(pid: u32) -> Option<Self> {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let peak = status
            .lines()
            .find_map(|line| line.strip_prefix("VmHWM:"))?;
        let kib: f64 = peak.split_whitespace().next()?.parse().ok()?;
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let (_, fields) = stat.rsplit_once(')')?;
        let fields: Vec<&str> = fields.split_whitespace().collect();
        // The fields utime and stime (proc(5)), in hundredths of a second on Linux.
        let ticks = fields.get(11)?.parse::<f64>().ok()? + fields.get(12)?.parse::<f64>().ok()?;
        Some(Self {
            cpu_s: ticks / 100.0,
            peak_mib: kib / 1_024.0,
        })
    }
}
