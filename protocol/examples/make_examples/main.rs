//! Writes the examples of the protocol's documents. The same bytes each time:
//! keys, instants and random numbers are fixed.
//!
//! ```text
//! cargo run -p infernet-protocol --example make_examples
//! ```

#![expect(
    clippy::expect_used,
    reason = "an example that cannot be made is a mistake in these files"
)]

mod batch;
mod draws;
mod life;
mod ordering;
mod words;

fn main() -> std::io::Result<()> {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../nips/examples");
    std::fs::create_dir_all(&folder)?;
    for (name, text) in life::files() {
        std::fs::write(folder.join(name), text)?;
    }
    Ok(())
}
