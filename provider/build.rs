//! Has the binaries and tests find libtorch without LD_LIBRARY_PATH, and the
//! migrations compiled in anew when one is added.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=migrations");
    if let Ok(libraries) = std::env::var("DEP_INFERNET_ENGINE_LIBTORCH_LIBRARIES") {
        println!("cargo::rustc-link-arg=-Wl,-rpath,{libraries}");
    }
}
