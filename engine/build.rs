//! Tells the linker where libtorch lies, so that what is built here runs with
//! no LD_LIBRARY_PATH, and passes the folder on to the packages of binaries.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    // From torch-sys, whose `links` name is tch.
    if let Ok(libraries) = std::env::var("DEP_TCH_LIBTORCH_LIB") {
        println!("cargo::rustc-link-arg=-Wl,-rpath,{libraries}");
        println!("cargo::rustc-env=LIBTORCH_LIBRARIES={libraries}");
        println!("cargo::metadata=LIBTORCH_LIBRARIES={libraries}");
    }
}
