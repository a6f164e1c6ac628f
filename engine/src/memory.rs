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

/// What a control group leaves; `None` where it sets no limit.
fn container() -> Option<u64> {
    let number = |name: &str| -> Option<u64> {
        let path = Path::new("/sys/fs/cgroup").join(name);
        fs::read_to_string(path).ok()?.trim().parse().ok()
    };
    Some(number("memory.max")?.saturating_sub(number("memory.current")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_that_runs_tests_has_some_left() {
        assert!(free(Device::Cpu).is_some_and(|bytes| bytes > 1 << 20));
    }
}
