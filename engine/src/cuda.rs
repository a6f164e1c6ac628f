//! NVIDIA GPUs, found at run time.
//!
//! The binary is linked against libtorch's processor half alone. Where a GPU
//! is wanted, the CUDA half of the same version is opened before anything asks
//! libtorch about CUDA: asking first switches CUDA off for the process. A small
//! library of our own is opened behind it (`shim/cuda_graph.cpp`), for what
//! libtorch offers to C++ alone.

mod driver;
mod graph;

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_LAZY};

use crate::error::first_line;

pub(crate) use driver::{describe, free_memory, has_driver};
pub(crate) use graph::{Graph, Recorder};

/// The libtorch that tch is made for.
const LIBTORCH_VERSION: &str = "2.11.0";
/// Where libtorch lay when this was built.
const BUILD_LIBRARIES: Option<&str> = option_env!("LIBTORCH_LIBRARIES");
/// The CUDA half of libtorch.
const HALF: &str = "libtorch_cuda.so";

/// Makes CUDA usable in this process, once.
///
/// # Errors
/// What is missing.
pub(crate) fn find() -> Result<(), &'static str> {
    static FOUND: OnceLock<Result<(), String>> = OnceLock::new();
    FOUND
        .get_or_init(|| {
            // Without a driver there is no use in loading gigabytes.
            if !has_driver() {
                return Err("there is no NVIDIA driver (libcuda.so.1)".into());
            }
            open_half()?;
            match tch::Cuda::is_available() {
                true => Ok(()),
                false => Err("libtorch finds no GPU".into()),
            }
        })
        .as_ref()
        .copied()
        .map_err(String::as_str)
}

/// Opens libtorch's CUDA half, from where it may lie or wherever the dynamic linker
/// looks.
fn open_half() -> Result<(), String> {
    let beside = folders().into_iter().map(|folder| folder.join(HALF));
    let mut paths: Vec<_> = beside.filter(|path| path.exists()).collect();
    paths.push(HALF.into());
    let library = open_first(&paths).map_err(|failure| {
        format!(
            "{failure}; run scripts/fetch cuda, or set LIBTORCH to the torch folder of a full \
             install of torch {LIBTORCH_VERSION}"
        )
    })?;
    // It registers itself with libtorch and must never be unloaded.
    std::mem::forget(library);
    Ok(())
}

/// Where libraries may lie: in libtorch's folders, where `scripts/fetch cuda` puts
/// them, and beside the program.
fn folders() -> Vec<PathBuf> {
    let own = std::env::var_os("LIBTORCH").map(|root| PathBuf::from(root).join("lib"));
    let build = BUILD_LIBRARIES.map(Path::new).into_iter().flat_map(|lib| {
        let fetched = lib.join("../../cuda");
        [lib.to_owned(), fetched.join("lib"), fetched]
    });
    let program = std::env::current_exe().ok();
    let program = program.as_deref().and_then(Path::parent);
    let program = program.map(PathBuf::from);
    own.into_iter().chain(build).chain(program).collect()
}

/// Opens the first of these libraries that can be; says why the last could not.
fn open_first(paths: &[PathBuf]) -> Result<Library, String> {
    let mut failure = String::new();
    for path in paths {
        // SAFETY: opening a library runs its initialisers; these are libtorch's
        // other half and our own shim over it, made for exactly this.
        match unsafe { Library::open(Some(path), RTLD_LAZY | RTLD_GLOBAL) } {
            Ok(library) => return Ok(library),
            Err(error) => failure = first_line(&error.to_string()),
        }
    }
    Err(failure)
}
