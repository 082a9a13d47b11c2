"""Web addresses in a manifest, alive and dead, against a server of this process."""

import gzip
import http.server
import socket
import threading
import time

import pytest

from smoothcert.datasets import stores
from smoothcert.errors import ReadError
from smoothcert.storage import steady


class Server(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    asked: dict[str, int] = {}
    body = b"an image"

    def do_HEAD(self):
        self.answer(405)

    def do_GET(self):
        what = self.path.strip("/").partition("?")[0]
        Server.asked[what] = Server.asked.get(what, 0) + 1
        if what == "chunked":
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.wfile.write(b"%x\r\n%s\r\n0\r\n\r\n" % (len(self.body), self.body))
        elif what == "closed":  # no length at all: the end of the connection is the end of the answer
            self.send_response(200)
            self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(self.body)
            self.close_connection = True
        elif what == "cut":
            self.send_response(200)
            self.send_header("Content-Length", "5000")
            self.end_headers()
            self.wfile.write(self.body)
            self.close_connection = True
        elif what == "silent":
            time.sleep(3)
            self.close_connection = True
        elif what == "gzip":
            self.answer(200, gzip.compress(self.body), {"Content-Encoding": "gzip"})
        elif what == "redirect":
            self.answer(302, b"", {"Location": "/ok"})
        elif what == "circle":
            self.answer(302, b"", {"Location": "/circle"})
        elif what.startswith("later"):
            code = int(what.removeprefix("later"))
            self.answer(code if Server.asked[what] < 3 else 200, self.body)
        else:
            self.answer(200 if what == "ok" else int(what), self.body)

    def answer(self, code, body=b"", headers=None):
        self.send_response(code)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


@pytest.fixture(scope="module")
def server():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def read(tmp_path, source, read_all, monkeypatch):
    """The pairs of a manifest with images at these places, three files on the disk around them."""
    monkeypatch.setattr(steady, "WAITS_S", (0.01, 0.02, 0.03))
    Server.asked.clear()
    (tmp_path / "one.png").write_bytes(b"on disk")

    def read(*places):
        rows = "".join(f'"{place}",a caption\n' for place in ("one.png", *places, "one.png"))
        (tmp_path / "m.csv").write_text("image,caption\n" + rows)
        first, *pairs, last = read_all(source("manifest", str(tmp_path / "m.csv")), 100)
        assert first.image == last.image == b"on disk"
        return pairs

    return read


def test_live_links(server, read):
    kinds = ["ok", "ok?w=100&h=5#part", "chunked", "closed", "gzip", "redirect"]
    assert [pair.image for pair in read(*(f"{server}/{kind}" for kind in kinds))] == [b"an image"] * 6


@pytest.mark.parametrize("code", [400, 401, 403, 404, 410, 451])
def test_a_dead_link_is_one_bad_pair(server, read, code):
    (pair,) = read(f"{server}/{code}")
    assert isinstance(pair.error, ReadError) and pair.captions == ("a caption",)
    assert f"(HTTP {code})" in pair.error.message and f"{server}/{code}" in pair.error.message
    assert Server.asked == {str(code): 1}


@pytest.mark.parametrize("code", [429, 500, 502, 503])
def test_not_now_is_asked_again_and_then_given_up(server, read, code):
    later, never = read(f"{server}/later{code}", f"{server}/{code}")
    assert later.image == b"an image"
    assert isinstance(never.error, ReadError) and f"(HTTP {code})" in never.error.message
    assert Server.asked == {f"later{code}": 3, str(code): 4}


def test_a_dead_link_keeps_its_signature_to_itself(server, read):
    (pair,) = read(f"{server}/403?X-Signature=0123456789abcdef")
    assert "0123456789abcdef" not in str(pair.error) and f"{server}/403" in str(pair.error)


def test_nobody_there(read):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    places = [f"http://127.0.0.1:{port}/x.png", "http://no-such-host.invalid/x.png", "http:///x.png"]
    for pair in read(*places, "gopher://x/y.png"):
        assert isinstance(pair.error, ReadError) and pair.error.remedy


def test_answers_that_do_not_end_as_they_should(server, read, monkeypatch):
    monkeypatch.setattr(stores, "LINK_READ_S", 0.2)
    for pair in read(f"{server}/cut", f"{server}/silent", f"{server}/circle"):
        assert isinstance(pair.error, ReadError)
    assert Server.asked["cut"] == Server.asked["silent"] == 4


def test_a_manifest_behind_a_link_without_a_length(server, read_all, source, monkeypatch):
    monkeypatch.setattr(Server, "body", f"image,caption\n{server}/ok,a caption\n".encode())
    for kind in ("closed?m.csv", "chunked?m.csv", "ok?m.csv"):
        (pair,) = read_all(source("manifest", f"{server}/{kind}"))
        assert pair.captions == ("a caption",)
