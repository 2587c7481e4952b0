//! Pages that need nothing else: no script, no file beside them. What the reports have in common.

/// A whole page; `style` comes after what all pages have, and `body` after the heading.
pub(crate) fn document(title: &str, style: &str, body: &str) -> String {
    let title = escaped(title);
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\"><title>{title}</title>\n\
         <style>{STYLE}{style}</style></head>\n<body><h1>{title}</h1>\n{body}</body></html>\n"
    )
}

const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}\
pre{overflow-x:auto;font-size:13px}svg{width:100%;font-size:12px}.grid{stroke:#ddd}";

pub(crate) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
