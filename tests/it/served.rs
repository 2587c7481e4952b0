//! The real binary serving the default model on a port of its own, for clients that are not Rust.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;

/// A running `mondai serve`; killed when dropped.
pub(crate) struct Served {
    /// `http://127.0.0.1:PORT`
    pub(crate) url: String,
    server: Child,
}

impl Served {
    /// Starts it with further flags, and waits until it listens.
    pub(crate) fn start(flags: &[&str]) -> Self {
        let mut server = Command::new(env!("CARGO_BIN_EXE_mondai"))
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .args(["serve", "--host", "127.0.0.1", "--port", "0"])
            .args(flags)
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary was built for this test");
        let log = server.stderr.take().expect("stderr is piped");
        let (found, url) = mpsc::channel();
        // Reads the log to its end, so that the server never waits for a full pipe.
        std::thread::spawn(move || {
            for line in BufReader::new(log).lines().map_while(Result::ok) {
                eprintln!("{line}");
                if let Some((_, rest)) = line.split_once("http://127.0.0.1:") {
                    let port: String = rest.chars().take_while(char::is_ascii_digit).collect();
                    let _ = found.send(format!("http://127.0.0.1:{port}"));
                }
            }
        });
        // Made before the wait, so that a server that does not come up is killed too.
        let mut served = Self { url: String::new(), server };
        served.url = url.recv().expect("the server listens; is the model there? scripts/test.sh fetches it");
        served
    }

    /// Asks it to end, as a service manager does, and waits: it ends well.
    pub(crate) fn terminate(mut self) {
        let kill = format!("kill -TERM {}", self.server.id());
        assert!(Command::new("sh").args(["-c", &kill]).status().is_ok_and(|status| status.success()));
        let status = self.server.wait().expect("the server was started here");
        assert!(status.success(), "after SIGTERM: {status}");
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}
