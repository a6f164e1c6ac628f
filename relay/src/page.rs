//! The page that a visitor with a browser sees.

use crate::options::Options;

/// The page as HTML. `host` is what the visitor's browser calls this relay.
pub fn page(options: &Options, host: &str) -> String {
    let takes = if options.general {
        "It takes events of every kind."
    } else {
        "It takes the market's events, and the profiles, relay lists and handlers that come with them."
    };
    include_str!("page.html")
        .replace("{name}", &escaped(&options.name))
        .replace("{takes}", takes)
        .replace("{version}", env!("CARGO_PKG_VERSION"))
        .replace("{host}", &escaped(host))
        .replace("{description}", &escaped(&options.description))
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
        let page = page(&options, "\"><script>");
        assert!(page.contains("&lt;b&gt;&#123;host}&lt;/b&gt;"), "{page}");
        assert!(!page.contains("<script>"), "{page}");
    }
}
