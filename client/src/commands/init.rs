//! `init`: a settings file to start from.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};

use anyhow::Context;

use super::{Exit, Place, make_folder, npub, print};
use crate::settings::TEMPLATE;

/// Writes a settings file, unless there is one, and makes a key, unless there is one.
pub fn run(place: &Place) -> anyhow::Result<Exit> {
    make_folder(&place.home)?;
    let path = place.home.join("client.toml");
    let made = OpenOptions::new().write(true).create_new(true).open(&path);
    match made.and_then(|mut file| file.write_all(TEMPLATE.as_bytes())) {
        Ok(()) => print(&format!("Settings: {}\n", path.display()))?,
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            print(&format!("Settings: {} (kept as it is)\n", path.display()))?;
        }
        Err(error) => {
            return Err(error).with_context(|| format!("cannot write {}", path.display()));
        }
    }
    let keys = place.keys()?;
    print(&format!(
        "Key:      {}\nYou are:  {}\n",
        place.key_file().display(),
        npub(&keys.public_key())
    ))?;
    Ok(Exit::Done)
}
