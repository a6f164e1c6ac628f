//! The NVIDIA driver's own library, which knows what libtorch does not tell.

use std::ffi::{CStr, c_char, c_int, c_void};

use libloading::os::unix::{Library, RTLD_LAZY};

type Device = c_int;
type Context = *mut c_void;

/// `libcuda.so.1`. Its functions answer 0 for success; their types here are those
/// of cuda.h.
struct Driver(Library);

impl Driver {
    /// Opens it and makes it ready.
    fn open() -> Option<Self> {
        // SAFETY: the driver's library has no initialisers that need anything.
        let library = unsafe { Library::open(Some("libcuda.so.1"), RTLD_LAZY) }.ok()?;
        let driver = Self(library);
        let init: unsafe extern "C" fn(u32) -> c_int = driver.symbol(c"cuInit")?;
        // SAFETY: it may be called at any time, more than once.
        (unsafe { init(0) } == 0).then_some(driver)
    }

    fn symbol<F: Copy>(&self, name: &CStr) -> Option<F> {
        // SAFETY: the callers give the functions' types as cuda.h declares them.
        let symbol = unsafe { self.0.get::<F>(name.to_bytes_with_nul()) }.ok()?;
        Some(*symbol)
    }

    fn device(&self, number: usize) -> Option<Device> {
        type Get = unsafe extern "C" fn(*mut Device, c_int) -> c_int;
        let get: Get = self.symbol(c"cuDeviceGet")?;
        let (mut device, number) = (0, c_int::try_from(number).ok()?);
        // SAFETY: the pointer is to what the function writes.
        (unsafe { get(&mut device, number) } == 0).then_some(device)
    }
}

/// Is there a driver that answers?
pub(crate) fn has_driver() -> bool {
    Driver::open().is_some()
}

/// A GPU's name and its memory in MiB.
pub(crate) fn describe(number: usize) -> Option<(String, u64)> {
    type GetName = unsafe extern "C" fn(*mut c_char, c_int, Device) -> c_int;
    type TotalMem = unsafe extern "C" fn(*mut usize, Device) -> c_int;
    let driver = Driver::open()?;
    let device = driver.device(number)?;
    let get_name: GetName = driver.symbol(c"cuDeviceGetName")?;
    let total_mem: TotalMem = driver.symbol(c"cuDeviceTotalMem_v2")?;
    let (mut memory, mut name) = (0_usize, [0_u8; 128]);
    // SAFETY: every pointer is to something as large as is said, the name with
    // room for its final zero.
    let failed = unsafe {
        get_name(name.as_mut_ptr().cast(), name.len() as c_int - 1, device) != 0
            || total_mem(&mut memory, device) != 0
    };
    let name = CStr::from_bytes_until_nul(&name).ok()?;
    (!failed).then(|| (name.to_string_lossy().into_owned(), memory as u64 >> 20))
}

/// A GPU's memory that nobody has, in bytes.
pub(crate) fn free_memory(number: usize) -> Option<u64> {
    type Retain = unsafe extern "C" fn(*mut Context, Device) -> c_int;
    type Release = unsafe extern "C" fn(Device) -> c_int;
    type Push = unsafe extern "C" fn(Context) -> c_int;
    type Pop = unsafe extern "C" fn(*mut Context) -> c_int;
    type GetInfo = unsafe extern "C" fn(*mut usize, *mut usize) -> c_int;
    let driver = Driver::open()?;
    let device = driver.device(number)?;
    let retain: Retain = driver.symbol(c"cuDevicePrimaryCtxRetain")?;
    let release: Release = driver.symbol(c"cuDevicePrimaryCtxRelease_v2")?;
    let push: Push = driver.symbol(c"cuCtxPushCurrent_v2")?;
    let pop: Pop = driver.symbol(c"cuCtxPopCurrent_v2")?;
    let get_info: GetInfo = driver.symbol(c"cuMemGetInfo_v2")?;
    let (mut context, mut free, mut total) = (std::ptr::null_mut(), 0_usize, 0_usize);
    // SAFETY: every pointer is to what the function writes. The context is the one
    // that libtorch uses too; it is current only while it is asked.
    unsafe {
        if retain(&mut context, device) != 0 {
            return None;
        }
        let mut told = false;
        if push(context) == 0 {
            told = get_info(&mut free, &mut total) == 0;
            pop(&mut context);
        }
        release(device);
        told.then_some(free as u64)
    }
}
