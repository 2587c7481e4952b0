//! Clients that are not ours, against the real binary with the default model.

use crate::served::Served;
use std::path::Path;
use std::process::Command;

#[test]
fn the_official_python_client_and_the_load_tools_are_served() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = root.join(".cache/venv/bin/python");
    assert!(python.is_file(), "{} is missing; scripts/test.sh makes it", python.display());

    let served = Served::start(&["--slots", "2", "--max-queued", "2"]);
    let output = Command::new(python)
        .args(["-B", "tests/clients/test_openai.py"])
        .current_dir(root)
        .env("MONDAI_URL", &served.url)
        // Not by way of a proxy.
        .env("NO_PROXY", "127.0.0.1")
        .output()
        .expect("the client's tests can be run");
    let report = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{report}");
    assert!(report.trim_end().ends_with("OK"), "{report}");
    served.terminate();
}
