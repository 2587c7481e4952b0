//! The page, played in a real browser by `tests/page/play.py` against the real binary and the default model.

use crate::served::Served;
use std::process::Command;

/// Where the README has its picture; rewritten only when asked, so that a test leaves the tree as it was.
const SCREENSHOT: &str = "docs/img/page.png";

#[test]
fn the_page_is_played_in_a_real_browser() {
    let served = Served::start(&[]);
    let mut play = Command::new("python3");
    play.args(["-B", "tests/page/play.py", &served.url])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        // Not by way of a proxy.
        .env("NO_PROXY", "127.0.0.1");
    if std::env::var_os("MONDAI_SCREENSHOT").is_some() {
        play.args(["--screenshot", SCREENSHOT]);
    }
    let output = play.output().expect("python3 can be run; scripts/test.sh installs what the tests need");
    let report = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{report}");
    assert!(report.trim_end().ends_with("OK"), "{report}");
    served.terminate();
}
