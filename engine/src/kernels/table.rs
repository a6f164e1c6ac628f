//! The kernels as they are compiled: types and names of `shim/`.

use std::ffi::{c_int, c_void};
use std::marker::PhantomData;
use std::sync::OnceLock;

/// As in shim/kernels/rotate.h.
#[repr(C)]
pub(super) struct Heads {
    pub(super) tokens: i64,
    pub(super) heads: i64,
    pub(super) kv_heads: i64,
    pub(super) width: i64,
    pub(super) block_tokens: i64,
    pub(super) query_norm: *const f32,
    pub(super) key_norm: *const f32,
    pub(super) epsilon: f32,
}

/// As in shim/kernels/attention.h.
#[repr(C)]
pub(super) struct Paged {
    pub(super) rows: i64,
    pub(super) heads: i64,
    pub(super) kv_heads: i64,
    pub(super) width: i64,
    pub(super) block_tokens: i64,
    pub(super) tables: *const i64,
    pub(super) table_width: i64,
    pub(super) lengths: *const i64,
    pub(super) window: i64,
    pub(super) scale: f32,
}

/// As in shim/kernels.cpp. The first argument of most says that numbers are
/// bf16, else they are f32.
#[repr(C)]
pub(super) struct Kernels {
    pub(super) norm: unsafe extern "C" fn(
        half: bool,
        input: *mut c_void,
        added: *const c_void,
        weight: *const f32,
        out: *mut c_void,
        rows: i64,
        width: i64,
        epsilon: f32,
    ),
    pub(super) rotate: unsafe extern "C" fn(
        half: bool,
        shape: *const Heads,
        all: *const c_void,
        cosines: *const c_void,
        sines: *const c_void,
        slots: *const i64,
        queries: *mut c_void,
        keys: *mut c_void,
        values: *mut c_void,
    ),
    pub(super) attention: unsafe extern "C" fn(
        half: bool,
        shape: *const Paged,
        queries: *const c_void,
        keys: *const c_void,
        values: *const c_void,
        out: *mut c_void,
    ),
    pub(super) gating: unsafe extern "C" fn(
        half: bool,
        by_gelu: bool,
        both: *const c_void,
        out: *mut c_void,
        rows: i64,
        width: i64,
    ),
    pub(super) unpacking: unsafe extern "C" fn(
        packed: *const u8,
        scales_and_zeros: *const c_void,
        out: *mut c_void,
        rows: i64,
        columns: i64,
        group: i64,
        block_rows: i64,
        halves: bool,
    ),
    pub(super) product: unsafe extern "C" fn(
        half: bool,
        input: *const c_void,
        weights: *const c_void,
        bias: *const c_void,
        out: *mut c_void,
        rows: i64,
        outputs: i64,
        inputs: i64,
    ),
}

unsafe extern "C" {
    static infernet_kernels_v2: Kernels;
    static infernet_kernels_v3: Kernels;
    static infernet_kernels_v4: Kernels;

    fn infernet_vector_bits() -> c_int;
    fn infernet_inference_begin() -> *mut c_void;
    fn infernet_inference_end(mode: *mut c_void);
}

/// Those of the highest level of x86-64 that this processor has.
pub(super) fn kernels() -> &'static Kernels {
    static CHOSEN: OnceLock<&Kernels> = OnceLock::new();
    CHOSEN.get_or_init(|| {
        // SAFETY: constants, whose types are those of shim/kernels.cpp.
        unsafe {
            match level() {
                4 => &infernet_kernels_v4,
                3 => &infernet_kernels_v3,
                _ => &infernet_kernels_v2,
            }
        }
    })
}

/// The level of x86-64 (<https://gitlab.com/x86-psABIs/x86-64-ABI>).
fn level() -> u8 {
    let third = is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("fma")
        && is_x86_feature_detected!("bmi1")
        && is_x86_feature_detected!("bmi2")
        && is_x86_feature_detected!("f16c")
        && is_x86_feature_detected!("lzcnt")
        && is_x86_feature_detected!("movbe");
    let fourth = third
        && is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512cd")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl");
    2 + u8::from(third) + u8::from(fourth)
}

/// Bits of the vectors that libtorch's own kernels use here; 0 for none.
pub(super) fn vector_bits() -> u32 {
    // SAFETY: it takes nothing and reads what libtorch found out at its start.
    let bits = unsafe { infernet_vector_bits() };
    u32::try_from(bits).unwrap_or(0)
}

/// While it lives, this thread computes in libtorch's inference mode: nothing is
/// recorded for gradients, which is lighter than `no_grad` alone.
#[derive(Debug)]
pub(crate) struct InferenceMode {
    mode: *mut c_void,
    // It is the thread's.
    _here: PhantomData<*mut ()>,
}

impl InferenceMode {
    /// Begins it.
    pub(crate) fn begin() -> Self {
        Self {
            // SAFETY: ended below, once, on the same thread.
            mode: unsafe { infernet_inference_begin() },
            _here: PhantomData,
        }
    }
}

impl Drop for InferenceMode {
    fn drop(&mut self) {
        // SAFETY: from `begin`, on this thread since it is not `Send`.
        unsafe { infernet_inference_end(self.mode) }
    }
}
