//! Compiles our own kernels, and tells the linker where libtorch lies, so that
//! what is built here runs with no LD_LIBRARY_PATH; the packages of binaries are
//! told too.

use std::path::Path;

/// Levels of x86-64 that the kernels are compiled for, as in src/kernels.rs.
const LEVELS: [&str; 3] = ["v2", "v3", "v4"];

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=shim");
    // From torch-sys, whose `links` name is tch.
    let Ok(libraries) = std::env::var("DEP_TCH_LIBTORCH_LIB") else {
        return;
    };
    for level in LEVELS {
        compile_kernels(level);
    }
    compile_libtorch(Path::new(&libraries));
    // The one that libtorch brings, so that there is one pool of threads.
    println!("cargo::rustc-link-search=native={libraries}");
    println!("cargo::rustc-link-lib=dylib:+verbatim=libgomp.so.1");
    println!("cargo::rustc-link-arg=-Wl,-rpath,{libraries}");
    println!("cargo::rustc-env=LIBTORCH_LIBRARIES={libraries}");
    println!("cargo::metadata=LIBTORCH_LIBRARIES={libraries}");
}

fn compile_kernels(level: &str) {
    cc::Build::new()
        .cpp(true)
        .std("c++17")
        .file("shim/kernels.cpp")
        .define("LEVEL", level)
        .flag(format!("-march=x86-64-{level}"))
        .flag("-mprefer-vector-width=512")
        .flag("-fopenmp")
        // Neither is asked for here, and both keep loops from being vectors.
        .flag("-fno-math-errno")
        .flag("-fno-trapping-math")
        .flag("-fno-exceptions")
        // No vector is handed from one object file to another.
        .flag("-Wno-psabi")
        .opt_level(3)
        .compile(&format!("infernet_kernels_{level}"));
}

fn compile_libtorch(libraries: &Path) {
    cc::Build::new()
        .cpp(true)
        .std("c++17")
        .file("shim/libtorch.cpp")
        .include(libraries.join("../include"))
        .warnings(false) // libtorch's headers have some
        .compile("infernet_libtorch");
}
