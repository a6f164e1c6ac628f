//! The device that computes: the processor, or an NVIDIA GPU found at run time.
//!
//! The binary is linked against libtorch's processor half alone. Where a GPU
//! is wanted, the CUDA half of the same version is opened before anything asks
//! libtorch about CUDA: asking first switches CUDA off for the process.

use std::ffi::{CStr, c_char, c_int};
use std::path::PathBuf;
use std::sync::OnceLock;

use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_LAZY};

use crate::error::{LoadError, first_line};
use crate::port::{Device, Hardware};

/// Where libtorch lay when this was built.
const BUILD_LIBRARIES: Option<&str> = option_env!("LIBTORCH_LIBRARIES");
/// The CUDA half of libtorch.
const CUDA_HALF: &str = "libtorch_cuda.so";

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
    let found = find_cuda();
    match (found, choice) {
        (Ok(()), _) => Ok(tch::Device::Cuda(0)),
        (Err(reason), DeviceChoice::Cuda) => {
            Err(LoadError::Device(format!("no GPU can be used: {reason}")))
        }
        (Err(reason), _) => {
            tracing::debug!(reason, "computing on the processor");
            Ok(tch::Device::Cpu)
        }
    }
}

/// Makes CUDA usable in this process, once.
fn find_cuda() -> Result<(), &'static str> {
    static FOUND: OnceLock<Result<(), String>> = OnceLock::new();
    FOUND
        .get_or_init(|| {
            // Without a driver there is no use in loading gigabytes.
            if Driver::open().is_none() {
                return Err("there is no NVIDIA driver (libcuda.so.1)".into());
            }
            open_cuda_half()?;
            match tch::Cuda::is_available() {
                true => Ok(()),
                false => Err("libtorch finds no GPU".into()),
            }
        })
        .as_ref()
        .copied()
        .map_err(String::as_str)
}

/// Opens libtorch's CUDA half: beside the libtorch that this was built with,
/// in `LIBTORCH`, or wherever the dynamic linker looks.
fn open_cuda_half() -> Result<(), String> {
    let own = std::env::var_os("LIBTORCH").map(|root| PathBuf::from(root).join("lib"));
    let folders = own.into_iter().chain(BUILD_LIBRARIES.map(PathBuf::from));
    let mut paths: Vec<_> = folders
        .map(|folder| folder.join(CUDA_HALF))
        .filter(|path| path.exists())
        .collect();
    paths.push(CUDA_HALF.into());
    let mut failure = String::new();
    for path in paths {
        // SAFETY: opening a library runs its initialisers; this one is
        // libtorch's own other half, made for exactly this.
        match unsafe { Library::open(Some(&path), RTLD_LAZY | RTLD_GLOBAL) } {
            Ok(library) => {
                // It registers itself with libtorch and must never be unloaded.
                std::mem::forget(library);
                return Ok(());
            }
            Err(error) => failure = first_line(&error.to_string()),
        }
    }
    Err(format!(
        "{failure}; set LIBTORCH to the torch folder of a full install of torch 2.11.0"
    ))
}

/// What the chosen device is.
pub(crate) fn hardware(device: tch::Device, threads: u32) -> Hardware {
    let described = match device {
        tch::Device::Cuda(number) => describe_gpu(number),
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

/// The NVIDIA driver's own library, which knows what libtorch does not tell.
struct Driver(Library);

impl Driver {
    fn open() -> Option<Self> {
        // SAFETY: the driver's library has no initialisers that need anything.
        let library = unsafe { Library::open(Some("libcuda.so.1"), RTLD_LAZY) }.ok()?;
        Some(Self(library))
    }

    /// Calls a function of the driver, all of which answer 0 for success.
    fn symbol<F: Copy>(&self, name: &CStr) -> Option<F> {
        // SAFETY: the callers give the functions' types as cuda.h declares them.
        let symbol = unsafe { self.0.get::<F>(name.to_bytes_with_nul()) }.ok()?;
        Some(*symbol)
    }
}

/// A GPU's name and its memory in MiB.
fn describe_gpu(number: usize) -> Option<(String, u64)> {
    type Init = unsafe extern "C" fn(u32) -> c_int;
    type DeviceGet = unsafe extern "C" fn(*mut c_int, c_int) -> c_int;
    type GetName = unsafe extern "C" fn(*mut c_char, c_int, c_int) -> c_int;
    type TotalMem = unsafe extern "C" fn(*mut usize, c_int) -> c_int;
    let driver = Driver::open()?;
    let init: Init = driver.symbol(c"cuInit")?;
    let device_get: DeviceGet = driver.symbol(c"cuDeviceGet")?;
    let get_name: GetName = driver.symbol(c"cuDeviceGetName")?;
    let total_mem: TotalMem = driver.symbol(c"cuDeviceTotalMem_v2")?;
    let (mut device, mut memory, mut name) = (0, 0_usize, [0_u8; 128]);
    let ordinal = c_int::try_from(number).ok()?;
    // SAFETY: the types are cuda.h's, and every pointer is to something as
    // large as is said, the name with room for its final zero.
    let failed = unsafe {
        init(0) != 0
            || device_get(&mut device, ordinal) != 0
            || get_name(name.as_mut_ptr().cast(), name.len() as c_int - 1, device) != 0
            || total_mem(&mut memory, device) != 0
    };
    let name = CStr::from_bytes_until_nul(&name).ok()?;
    (!failed).then(|| (name.to_string_lossy().into_owned(), memory as u64 >> 20))
}
