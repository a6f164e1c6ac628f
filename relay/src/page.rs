//! The page that a visitor with a browser sees.

use crate::lists::Face;
use crate::options::Options;

/// The page as HTML. `host` is what the visitor's browser calls this relay.
pub fn page(options: &Options, face: &Face, host: &str) -> String {
    let name = face.name.as_ref().unwrap_or(&options.name);
    let description = face.description.as_ref().unwrap_or(&options.description);
    let takes = if options.general {
        "It takes events of every kind."
    } else {
        "It takes the market's events, and the profiles, relay lists and handlers that come with them."
    };
    include_str!("page.html")
        .replace("{name}", &escaped(name))
        .replace("{takes}", takes)
        .replace("{version}", env!("CARGO_PKG_VERSION"))
        .replace("{host}", &escaped(host))
        .replace("{description}", &escaped(description))
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
        .replace('{', "&#123;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_write_is_escaped() {
        let mut options = Options::new("nowhere");
        options.name = "<b>{host}</b>".to_owned();
        let page = page(&options, &Face::default(), "\"><script>");
        assert!(page.contains("&lt;b&gt;&#123;host}&lt;/b&gt;"), "{page}");
        assert!(!page.contains("<script>"), "{page}");
    }
}
