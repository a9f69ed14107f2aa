"""A language model server on this machine that answers by a script, well or badly."""

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

SECRET = "sk-very-secret-0123456789"


class Server(ThreadingHTTPServer):
    """Plays one script entry per request, the last one for ever. An entry is a function of the request handler."""

    daemon_threads = True

    def __init__(self, *script):
        super().__init__(("127.0.0.1", 0), Handler)
        self.script = list(script)
        self.requests = []
        self.url = f"http://127.0.0.1:{self.server_port}/v1"
        self.released = threading.Event()  # ends hanging answers

    def handle_error(self, *_):
        """Clients that hang up are part of the tests."""


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.requests.append((self.path, dict(self.headers), body))
        script = self.server.script
        (script.pop(0) if len(script) > 1 else script[0])(self)

    def log_message(self, *_):
        pass


def send(body, status=200, **headers):
    def respond(handler):
        data = body if isinstance(body, bytes) else body.encode()
        handler.send_response(status)
        for name, value in {"Content-Type": "application/json", "Content-Length": str(len(data)), **headers}.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(data)

    return respond


def say(text, **message):
    return send(json.dumps({"choices": [{"index": 0, "message": {"role": "assistant", "content": text, **message}}]}))


def hang(handler):
    handler.server.released.wait(10)


def drip(handler):
    """Never silent for long and never done: a timeout between two reads does not end it."""
    handler.send_response(200)
    handler.end_headers()
    while not handler.server.released.wait(0.05):
        handler.wfile.write(b" ")


def hang_up(handler):
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"choices":')


@contextmanager
def serving(*script):
    server = Server(*script)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.released.set()
        server.shutdown()
        thread.join()
        server.socket.close()


def echo_key(handler):
    send(json.dumps({"error": {"message": f"bad {handler.headers['Authorization']}"}}), 401)(handler)
