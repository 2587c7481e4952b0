"""A stand-in for the server that answers as told: for what a healthy server cannot be made to do on demand.

The page itself, with its headers, comes from the real server (`upstream`); only `POST /v1/quizzes` is played here,
over a real socket, so that a stream that breaks off really breaks off.
"""

import json
import sys
import threading
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PASSED_ON = ("Content-Type", "Content-Security-Policy", "X-Content-Type-Options", "Referrer-Policy")


class QuietServer(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, client_address):
        """A browser may drop a connection whenever it likes; anything else is a mistake here."""
        if not issubclass(sys.exc_info()[0], ConnectionError):
            super().handle_error(request, client_address)


class StandIn:
    """`answer` is a function `(handler, request)` that writes the answer to one quiz request; set it at any time."""

    def __init__(self, upstream):
        self.upstream = upstream
        self.answer = None
        self.closed = False
        self.requests = []  # what the page sent, newest last
        stand_in = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                stand_in._pass_on(self)

            def do_POST(self):
                request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                self.close_connection = True
                if stand_in.closed:  # on a connection that the browser had kept
                    return
                stand_in.requests.append(request)
                stand_in.answer(self, request)

            def log_message(self, *_):
                pass

        self.server = QuietServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}/"

    def close(self):
        self.closed = True
        self.server.shutdown()
        self.server.server_close()

    def _pass_on(self, handler):
        try:
            with urllib.request.urlopen(self.upstream.rstrip("/") + handler.path) as response:
                status, headers, body = response.status, response.headers, response.read()
        except urllib.error.HTTPError as error:
            status, headers, body = error.code, error.headers, error.read()
        handler.send_response(status)
        for name in PASSED_ON:
            if name in headers:
                handler.send_header(name, headers[name])
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)


# Answers


def refuse(status, error, headers=()):
    """An error before the stream: `refuse(429, {...}, {"retry-after-ms": "1500"})`."""

    def answer(handler, _request):
        body = json.dumps({"error": error}).encode()
        handler.send_response(status)
        handler.send_header("Content-Type", "application/json")
        handler.send_header("Content-Length", str(len(body)))
        for name, value in dict(headers).items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(body)

    return answer


def stream(items, ending="completed", gate=None):
    """A stream of `items`, then how it ends: `completed`, `cut` (the socket is closed) or `error` (an event).

    `gate(index)`, if given, is called before each item and may wait.
    """

    def answer(handler, request):
        handler.send_response(200)
        handler.send_header("Content-Type", "text/event-stream")
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        _send(handler, "quiz.created", {"id": "quiz_1"})
        for index, item in enumerate(items):
            if gate:
                gate(index)
            _send(handler, "question.completed", {"id": f"item_{index}", "index": index, **item})
        if gate:
            gate(len(items))
        if ending == "error":
            _send(handler, "error", {"error": {"message": "the model stopped", "type": "server_error", "param": None, "code": None}})
        if ending == "completed":
            _send(handler, "quiz.completed", {
                "id": "quiz_1", "requested": request["count"], "delivered": len(items), "rejected": {"repeated": 2},
                "usage": {"prompt_tokens": 90, "completion_tokens": 210, "total_tokens": 300},
                "timings": {"time_to_first_item_ms": 850.0, "total_ms": 2400.0},
            })
        if ending != "cut":
            handler.wfile.write(b"0\r\n\r\n")

    return answer


def _send(handler, event, data):
    frame = f"event: {event}\ndata: {json.dumps(data, ensure_ascii=False)}\n\n".encode()
    # Two chunks with the seam inside the frame: the page must not care how the bytes are cut.
    for part in (frame[:17], frame[17:]):
        handler.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))
        handler.wfile.flush()
