//! Recordings of work for a GPU (CUDA graphs), by our shim over libtorch.

use std::any::Any;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::PathBuf;
use std::ptr::NonNull;
use std::sync::OnceLock;

use tch::{TchError, Tensor};

use super::{LIBTORCH_VERSION, folders, open_first};

/// The shim, as `scripts/fetch cuda` and `scripts/build` make it.
const SHIM: &str = "libinfernet_cuda.so";
/// Of the functions below.
const SHIM_VERSION: c_int = 1;
/// Set to 0, it switches recordings off, to compare.
const SWITCH: &str = "INFERNET_CUDA_GRAPHS";

/// The shim's functions, as in `shim/cuda_graph.cpp`.
struct Shim {
    error: unsafe extern "C" fn() -> *const c_char,
    pool: unsafe extern "C" fn(*mut u64) -> c_int,
    record: unsafe extern "C" fn(c_int, *const u64, Compute, *mut c_void) -> *mut c_void,
    replay: unsafe extern "C" fn(*mut c_void) -> c_int,
    drop: unsafe extern "C" fn(*mut c_void),
    pinned: unsafe extern "C" fn(i64, i64) -> *mut c_void,
}

/// Answers 0 for success; never unwinds.
type Compute = unsafe extern "C" fn(*mut c_void) -> c_int;

/// Records work for one GPU. Its recordings share memory, so that they must be
/// replayed one at a time, and what one leaves is read before the next.
#[derive(Debug)]
pub(crate) struct Recorder {
    device: c_int,
    pool: [u64; 2],
}

/// Work for a GPU that can be done again with one call.
#[derive(Debug)]
pub(crate) struct Graph(NonNull<c_void>);

// SAFETY: a recording belongs to no thread; `&mut` and ownership see to it that
// it is used by one at a time, and replaying takes the current thread's stream.
unsafe impl Send for Graph {}

impl Recorder {
    /// For a GPU that is in use already. `None` where recordings cannot be had,
    /// which is said in the log.
    pub(crate) fn on(device: usize) -> Option<Self> {
        let shim = shim()?;
        let mut pool = [0; 2];
        // SAFETY: it writes two numbers.
        let failed = unsafe { (shim.pool)(pool.as_mut_ptr()) } != 0;
        (!failed).then_some(Self {
            device: c_int::try_from(device).ok()?,
            pool,
        })
    }

    /// Records what `compute` has the GPU do. It is called several times: to warm
    /// up, when the work is done, and to record, when it is not. It must take the
    /// same way and the same memory each time, and must not wait for the GPU.
    ///
    /// # Errors
    /// Those of `compute`, and what CUDA says.
    pub(crate) fn record(
        &self,
        compute: impl FnMut() -> Result<(), TchError>,
    ) -> Result<Graph, TchError> {
        let shim = shim().ok_or_else(|| TchError::Torch("there is no shim".into()))?;
        let mut work = Work {
            compute,
            outcome: Ok(()),
            panic: None,
        };
        let (call, context) = entry(&mut work);
        // SAFETY: the shim calls `call` with `context` on this thread, and keeps
        // neither when it returns.
        let graph = unsafe { (shim.record)(self.device, self.pool.as_ptr(), call, context) };
        if let Some(panic) = work.panic {
            resume_unwind(panic);
        }
        work.outcome?;
        NonNull::new(graph).map(Graph).ok_or_else(|| shim.failure())
    }

    /// A new f32 tensor in the processor's memory that a GPU writes straight into.
    ///
    /// # Errors
    /// When there is no room for it.
    pub(crate) fn pinned(&self, rows: i64, columns: i64) -> Result<Tensor, TchError> {
        let shim = shim().ok_or_else(|| TchError::Torch("there is no shim".into()))?;
        // SAFETY: the shim gives a new tensor of libtorch's, which tch's are, or null.
        unsafe {
            let made = (shim.pinned)(rows, columns);
            match made.is_null() {
                true => Err(shim.failure()),
                false => Ok(Tensor::from_ptr(made.cast())),
            }
        }
    }
}

impl Graph {
    /// Has the GPU do it again, on the current stream; does not wait.
    ///
    /// # Errors
    /// What CUDA says.
    pub(crate) fn replay(&self) -> Result<(), TchError> {
        let shim = shim().ok_or_else(|| TchError::Torch("there is no shim".into()))?;
        // SAFETY: it is a recording that was not dropped.
        match unsafe { (shim.replay)(self.0.as_ptr()) } {
            0 => Ok(()),
            _ => Err(shim.failure()),
        }
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        if let Some(shim) = shim() {
            // SAFETY: as above, and it is not used again.
            unsafe { (shim.drop)(self.0.as_ptr()) }
        }
    }
}

/// What crosses the shim and comes back.
struct Work<F> {
    compute: F,
    outcome: Result<(), TchError>,
    panic: Option<Box<dyn Any + Send>>,
}

/// How C calls the work.
fn entry<F: FnMut() -> Result<(), TchError>>(work: &mut Work<F>) -> (Compute, *mut c_void) {
    unsafe extern "C" fn call<F: FnMut() -> Result<(), TchError>>(context: *mut c_void) -> c_int {
        // SAFETY: `context` is the work below, which nobody else uses meanwhile.
        let work = unsafe { &mut *context.cast::<Work<F>>() };
        match catch_unwind(AssertUnwindSafe(&mut work.compute)) {
            Ok(outcome) => work.outcome = outcome,
            Err(panic) => work.panic = Some(panic),
        }
        c_int::from(work.outcome.is_err() || work.panic.is_some())
    }
    (call::<F>, std::ptr::from_mut(work).cast())
}

impl Shim {
    /// Opens it and its functions, if it is of this version.
    fn open() -> Result<Self, String> {
        let beside = folders().into_iter().map(|folder| folder.join(SHIM));
        let mut paths: Vec<PathBuf> = beside.filter(|path| path.exists()).collect();
        paths.push(SHIM.into());
        let library = open_first(&paths)?;
        let missing = |error: libloading::Error| error.to_string();
        // SAFETY: the types are those of shim/cuda_graph.cpp in this version.
        unsafe {
            let version = library.get::<extern "C" fn() -> c_int>(b"infernet_cuda_version\0");
            let torch = library.get::<extern "C" fn() -> *const c_char>(b"infernet_cuda_torch\0");
            let version = (version.map_err(missing)?)();
            let torch = CStr::from_ptr((torch.map_err(missing)?)()).to_string_lossy();
            if (version, &*torch) != (SHIM_VERSION, LIBTORCH_VERSION) {
                return Err(format!(
                    "it is version {version} for libtorch {torch}, not {SHIM_VERSION} for \
                     {LIBTORCH_VERSION}"
                ));
            }
            let shim = Self {
                error: *library.get(b"infernet_cuda_error\0").map_err(missing)?,
                pool: *library.get(b"infernet_cuda_pool\0").map_err(missing)?,
                record: *library.get(b"infernet_cuda_record\0").map_err(missing)?,
                replay: *library.get(b"infernet_cuda_replay\0").map_err(missing)?,
                drop: *library.get(b"infernet_cuda_drop\0").map_err(missing)?,
                pinned: *library.get(b"infernet_cuda_pinned\0").map_err(missing)?,
            };
            // Its functions are used as long as the process lives.
            std::mem::forget(library);
            Ok(shim)
        }
    }

    /// What the last call on this thread failed with.
    fn failure(&self) -> TchError {
        // SAFETY: a string that stands until the thread's next call.
        let message = unsafe { CStr::from_ptr((self.error)()) };
        TchError::Torch(message.to_string_lossy().into_owned())
    }
}

/// The shim, if there is one. libtorch's CUDA half must be open.
fn shim() -> Option<&'static Shim> {
    static OPENED: OnceLock<Option<Shim>> = OnceLock::new();
    OPENED
        .get_or_init(|| {
            if std::env::var_os(SWITCH).is_some_and(|value| value == "0") {
                tracing::info!("CUDA graphs are off ({SWITCH}=0): decoding will be slower");
                return None;
            }
            Shim::open()
                .inspect_err(|reason| {
                    tracing::warn!(
                        reason,
                        "no CUDA graphs: decoding will be slower; scripts/fetch cuda makes {SHIM}"
                    );
                })
                .ok()
        })
        .as_ref()
}
