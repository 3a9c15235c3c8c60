"""What the services of the example share: orderly stopping, the handed-over configuration, JSON over HTTP."""

import json
import os
import signal
import sys
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

STOP_SIGNALS = {signal.SIGTERM, signal.SIGINT}

# Blocked signals wait until they are asked for, so work is never interrupted halfway.
signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)


def stop_asked(wait_seconds=0.0):
    """Whether this service was asked to stop; waits for that so long."""
    return signal.sigtimedwait(STOP_SIGNALS, wait_seconds) is not None


def say(message):
    """One line to stdout, at once."""
    print(message, flush=True)


def complain(message):
    """One line to stderr."""
    print(message, file=sys.stderr, flush=True)


def handed_config():
    """The `config:` of this service in blackhole.yaml."""
    return json.loads(Path(os.environ["BLACKHOLE_CONFIG"]).read_text(encoding="utf-8"))


class Refused(Exception):
    """The other side answered, but not with what was asked for."""

    def __init__(self, status, answer):
        self.status = status
        self.answer = answer
        super().__init__(answer.get("error", f"status {status}"))


def call(method, url, body=None):
    """The JSON answer to one request. Raises Refused for an error, OSError when there is no answer."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data=data, method=method)
    try:
        with urllib.request.urlopen(request, timeout=3) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        raise Refused(error.code, json.load(error)) from None


class JsonHandler(BaseHTTPRequestHandler):
    """Answers with what `answer(method, path, body)` of a subclass returns: a status and a JSON value."""

    timeout = 5

    def answer(self, method, path, body):
        """The status and the JSON value for one request."""
        raise NotImplementedError

    def respond(self):
        """Handles one request of any method."""
        try:
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else None
            status, value = self.answer(self.command, self.path, body)
        except (ValueError, KeyError, TypeError) as error:
            status, value = 400, {"error": f"cannot understand the request: {error!r}"}
        data = json.dumps(value).encode() + b"\n"
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_POST = respond

    def log_message(self, format, *args):
        """Says nothing: each service logs what it did, not that it was asked."""


def serve(handler):
    """Answers requests on BLACKHOLE_PORT, one at a time, until asked to stop."""
    port = int(os.environ["BLACKHOLE_PORT"])
    with HTTPServer(("127.0.0.1", port), handler) as server:
        server.timeout = 0.3
        say(f"listening on 127.0.0.1:{port}")
        while not stop_asked():
            server.handle_request()
    say("asked to stop: finished the last request, bye")
