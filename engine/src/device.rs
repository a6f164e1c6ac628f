//! The device that computes: the processor, or an NVIDIA GPU found at run time.

use crate::cuda;
use crate::error::LoadError;
use crate::port::{Device, Hardware};

/// Which device to compute on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum DeviceChoice {
    /// A GPU if there is one that works, else the processor.
    #[default]
    Auto,
    /// The processor.
    Cpu,
    /// A GPU, or an error.
    Cuda,
}

/// Settles on a device.
pub(crate) fn choose(choice: DeviceChoice) -> Result<tch::Device, LoadError> {
    if choice == DeviceChoice::Cpu {
        return Ok(tch::Device::Cpu);
    }
    let found = cuda::find();
    match (found, choice) {
        (Ok(()), _) => {
            tracing::warn!(
                "computing on a GPU, which has not been tried yet; scripts/gpu_check compares \
                 what it draws with transformers"
            );
            Ok(tch::Device::Cuda(0))
        }
        (Err(reason), DeviceChoice::Cuda) => {
            Err(LoadError::Device(format!("no GPU can be used: {reason}")))
        }
        (Err(reason), _) => {
            // Where there is a GPU, it is worth knowing that it is idle.
            match cuda::has_driver() {
                true => tracing::warn!(reason, "computing on the processor"),
                false => tracing::debug!(reason, "computing on the processor"),
            }
            Ok(tch::Device::Cpu)
        }
    }
}

/// What the chosen device is.
pub(crate) fn hardware(device: tch::Device, threads: u32) -> Hardware {
    let described = match device {
        tch::Device::Cuda(number) => cuda::describe(number),
        _ => None,
    };
    let (kind, name, memory_mib) = match (device, described) {
        (tch::Device::Cuda(_), Some((name, memory_mib))) => (Device::Cuda, name, memory_mib),
        (tch::Device::Cuda(_), None) => (Device::Cuda, "NVIDIA GPU".into(), 0),
        _ => (Device::Cpu, processor_name(), machine_memory_mib()),
    };
    Hardware {
        device: kind,
        name,
        memory_mib,
        threads,
    }
}

fn processor_name() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    info.lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(':'))
        .map_or_else(|| "CPU".into(), |(_, name)| name.trim().to_owned())
}

fn machine_memory_mib() -> u64 {
    let info = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    info.lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))
        .and_then(|rest| {
            rest.trim()
                .trim_end_matches("kB")
                .trim()
                .parse::<u64>()
                .ok()
        })
        .map_or(0, |kib| kib / 1024)
}
