//! Memory that a device has left.

use std::fs;
use std::path::Path;

use tch::Device;

use crate::cuda;

/// Bytes that can still be used on a device, where that can be told: of a machine
/// what it has free or would free, within the limit of a container.
pub(crate) fn free(device: Device) -> Option<u64> {
    match device {
        Device::Cuda(number) => cuda::free_memory(number),
        _ => [machine(), container()].into_iter().flatten().min(),
    }
}

fn machine() -> Option<u64> {
    let info = fs::read_to_string("/proc/meminfo").ok()?;
    let line = info.lines().find_map(|l| l.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// What a control group leaves; `None` where it sets no limit. Files that were read and
/// are not in use count as used there, and make room when it is needed.
fn container() -> Option<u64> {
    let group = Path::new("/sys/fs/cgroup");
    let read = |name: &str| fs::read_to_string(group.join(name)).ok();
    let number = |name: &str| -> Option<u64> { read(name)?.trim().parse().ok() };
    let used = number("memory.current")?;
    let idle = read("memory.stat").and_then(|stat| idle_files(&stat));
    let used = used.saturating_sub(idle.unwrap_or(0));
    Some(number("memory.max")?.saturating_sub(used))
}

/// Bytes of files in memory that nobody used of late.
fn idle_files(stat: &str) -> Option<u64> {
    let line = stat
        .lines()
        .find_map(|l| l.strip_prefix("inactive_file "))?;
    line.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_that_runs_tests_has_some_left() {
        assert!(free(Device::Cpu).is_some_and(|bytes| bytes > 1 << 20));
    }

    #[test]
    fn files_that_were_read_make_room() {
        let stat = "anon 10\nfile 30\nactive_file 10\ninactive_file 20\n";
        assert_eq!(idle_files(stat), Some(20));
        assert_eq!(idle_files("anon 10\n"), None);
    }
}
