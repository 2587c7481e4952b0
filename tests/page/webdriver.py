"""A browser driven over the WebDriver protocol: what the page's test needs of it, on the standard library.

Source: https://www.w3.org/TR/webdriver2/
"""

import base64
import json
import shutil
import subprocess
import tempfile
import time
import urllib.error
import urllib.request

ELEMENT = "element-6066-11e4-a52e-4f735466cecf"  # the protocol's own name for a reference to an element
KEYS = {"Enter": "\ue007", "Tab": "\ue004", "Escape": "\ue00c", "Shift": "\ue008", "Space": " ", "ArrowRight": "\ue014"}
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-dev-shm-usage", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars",
]


class Browser:
    """One window of headless Chromium with a profile of its own."""

    def __init__(self, language="en-US", width=1280, height=800):
        driver, chromium = shutil.which("chromedriver"), shutil.which("chromium")
        if not driver or not chromium:
            raise SystemExit("chromium and chromedriver are not installed: scripts/test.sh installs what the tests need")
        self.profile = tempfile.TemporaryDirectory(prefix="mondai-page-", ignore_cleanup_errors=True)
        self.driver = subprocess.Popen([driver, "--port=0"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        self.session = None
        try:
            self.base = f"http://127.0.0.1:{self._driver_port()}"
            flags = [*FLAGS, f"--user-data-dir={self.profile.name}", f"--window-size={width},{height}", f"--lang={language}"]
            capabilities = {
                "browserName": "chrome",
                "goog:chromeOptions": {
                    "binary": chromium,
                    "args": flags,
                    "prefs": {"intl.accept_languages": language},
                },
                "goog:loggingPrefs": {"browser": "ALL"},
            }
            started = self._call("POST", "/session", {"capabilities": {"alwaysMatch": capabilities}})
            self.session = started["sessionId"]
            self._post("/timeouts", {"script": 300_000})
            self.resize(width, height)
        except BaseException:
            self.close()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        try:
            if self.session:
                self._call("DELETE", f"/session/{self.session}")
        finally:
            self.driver.terminate()
            self.driver.wait()
            self.driver.stdout.close()
            self.profile.cleanup()

    # What a person does

    def open(self, url):
        self._post("/url", {"url": url})

    def click(self, selector):
        """Clicks the middle of an element, having scrolled it clear of the bars on top and at the foot."""
        self.run("document.querySelector(arguments[0])?.scrollIntoView({ block: 'center' })", selector)
        self._post(f"/element/{self.find(selector)}/click", {})

    def type(self, selector, text):
        self._post(f"/element/{self.find(selector)}/value", {"text": text})

    def press(self, *keys):
        """Presses keys one after the other, wherever the focus is."""
        actions = []
        for key in keys:
            value = KEYS.get(key, key)
            actions += [{"type": "keyDown", "value": value}, {"type": "keyUp", "value": value}]
        self._post("/actions", {"actions": [{"type": "key", "id": "keyboard", "actions": actions}]})

    def chord(self, held, key):
        """Presses a key while another is held down."""
        held, key = KEYS[held], KEYS.get(key, key)
        actions = [{"type": kind, "value": value} for kind, value in
                   (("keyDown", held), ("keyDown", key), ("keyUp", key), ("keyUp", held))]
        self._post("/actions", {"actions": [{"type": "key", "id": "keyboard", "actions": actions}]})

    def resize(self, width, height):
        """Gives the page a viewport of exactly this size, however small the window may get."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.devtools("Emulation.setDeviceMetricsOverride", metrics)

    def prefer(self, **features):
        """Sets media features: `prefer(prefers_color_scheme="dark")`."""
        wanted = [{"name": name.replace("_", "-"), "value": value} for name, value in features.items()]
        self.devtools("Emulation.setEmulatedMedia", {"features": wanted})

    # What a person sees

    def find(self, selector):
        return self._post("/element", {"using": "css selector", "value": selector})[ELEMENT]

    def count(self, selector):
        return self.run("return document.querySelectorAll(arguments[0]).length", selector)

    def shown(self, selector):
        return self.run(
            "const e = document.querySelector(arguments[0]); return e !== null && e.checkVisibility()", selector)

    def text(self, selector):
        """The text as laid out: what is hidden is not in it."""
        return self.run("return document.querySelector(arguments[0]).innerText", selector)

    def focused(self, selector):
        return self.run("return document.activeElement.matches(arguments[0])", selector)

    def wait(self, what, condition, seconds=20):
        """Waits until `condition()` holds and returns what it returned; `what` says what did not happen."""
        end = time.monotonic() + seconds
        while True:
            found = condition()
            if found:
                return found
            if time.monotonic() > end:
                raise AssertionError(f"waited {seconds} s in vain for: {what}")
            time.sleep(0.02)

    def screenshot(self, path):
        path.write_bytes(base64.b64decode(self._call("GET", f"/session/{self.session}/screenshot")))

    def complaints(self):
        """Errors and warnings in the console since the last call; violations of the CSP are among them."""
        entries = self._post("/se/log", {"type": "browser"})
        return [entry["message"] for entry in entries if entry["level"] in ("SEVERE", "WARNING")]

    # The protocol

    def run(self, script, *arguments):
        return self._post("/execute/sync", {"script": script, "args": list(arguments)})

    def run_async(self, body, *arguments):
        """Runs the body of an async function in the page and returns what it resolves to."""
        script = f"""
            const done = arguments[arguments.length - 1];
            (async (...args) => {{ {body} }})(...[...arguments].slice(0, -1))
              .then((value) => done({{ value }}), (error) => done({{ error: String(error.stack ?? error) }}));"""
        result = self._post("/execute/async", {"script": script, "args": list(arguments)})
        if "error" in result:
            raise AssertionError(result["error"])
        return result.get("value")

    def devtools(self, command, parameters):
        return self._post("/goog/cdp/execute", {"cmd": command, "params": parameters})

    def _driver_port(self):
        for line in self.driver.stdout:
            if "started successfully on port" in line:
                return int(line.rsplit(" ", 1)[1].strip().rstrip("."))
        raise RuntimeError("chromedriver ended before it listened")

    def _post(self, path, body):
        return self._call("POST", f"/session/{self.session}{path}", body)

    def _call(self, method, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.base + path, data=data, method=method)
        request.add_header("Content-Type", "application/json")
        try:
            with urllib.request.urlopen(request, timeout=600) as response:
                return json.load(response)["value"]
        except urllib.error.HTTPError as error:
            value = json.load(error)["value"]
            raise AssertionError(f"{path}: {value['error']}: {value['message']}") from None
