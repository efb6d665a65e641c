"""fetch_image against servers of this machine, good and hostile."""

import io
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import quote, unquote

import httpcore2
import pytest
from PIL import Image

from aim_sdk import fetch_image
from aim_sdk.errors import ImageError
from aim_sdk.files.downloads import MAX_DOWNLOAD_BYTES, _is_public


def picture() -> bytes:
    Image.new("RGB", (4, 4), "red").save(file := io.BytesIO(), "PNG")
    return file.getvalue()


PICTURE = picture()


class Handler(BaseHTTPRequestHandler):
    """``/redirect/<status>/<where>`` leads there, ``/endless`` never ends, and so on; all else is a picture."""

    protocol_version = "HTTP/1.1"
    seen: list[str]

    def do_GET(self) -> None:
        self.seen.append(unquote(self.path))
        kind, _, rest = self.path[1:].partition("/")
        match kind:
            case "redirect":
                status, _, where = rest.partition("/")
                self.answer(int(status), b"", Location=unquote(where))
            case "loop":
                self.answer(302, b"", Location=f"/loop/{int(rest or 0) + 1}")
            case "endless":
                self.stream(b"a" * 65_536, seconds=0)
            case "drip":
                self.stream(b"a", seconds=0.05)
            case "slow-header":
                self.raw(b"HTTP/1.1 200 OK\r\n", b"X: y\r\n")
            case "large":
                self.answer(200, b"", **{"Content-Length": str(MAX_DOWNLOAD_BYTES + 1)})
            case "cut":
                self.answer(200, PICTURE[:30], **{"Content-Length": "1000"})
                self.close_connection = True
            case "bad":
                self.wfile.write(b"ICY 200 OK\r\n\r\n")
                self.close_connection = True
            case "text":
                self.answer(200, b"<html>")
            case "missing":
                self.answer(404, b"")
            case _:
                self.answer(200, PICTURE)

    def answer(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def stream(self, part: bytes, seconds: float) -> None:
        self.send_response(200)
        self.end_headers()
        self.raw(b"", part, seconds)

    def raw(self, head: bytes, part: bytes, seconds: float = 0.05) -> None:
        self.close_connection = True
        try:
            self.wfile.write(head)
            while True:
                self.wfile.write(part)
                time.sleep(seconds)
        except OSError:  # the other side has had enough
            pass

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def seen() -> list[str]:
    return []


@pytest.fixture
def server(seen: list[str]) -> Iterator[str]:
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), type("Local", (Handler,), {"seen": seen}))
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{httpd.server_port}"
    httpd.shutdown()
    httpd.server_close()


@contextmanager
def names(monkeypatch: pytest.MonkeyPatch, resolve: Callable[[str], list[str]]) -> Iterator[list[str]]:
    """Names lead to the given addresses; what is asked for is listed."""
    asked: list[str] = []
    real = socket.getaddrinfo

    def getaddrinfo(host: str, port: int, *args: object, **kwargs: object) -> list[object]:
        asked.append(host)
        return [found for address in resolve(host) for found in real(address, port, type=socket.SOCK_STREAM)]

    with monkeypatch.context() as changed:
        changed.setattr(socket, "getaddrinfo", getaddrinfo)
        yield asked


def test_a_picture_is_fetched(server: str) -> None:
    assert fetch_image(f"{server}/a.png", allow_private=True) == PICTURE


@pytest.mark.parametrize(
    "path", ["ein bild.png", "bär/ä ö.png?größe=klein", "%C3%A4.png", "a%20b.png", "日本.png", "a|b.png"]
)
def test_addresses_may_hold_blanks_and_any_letter(server: str, seen: list[str], path: str) -> None:
    assert fetch_image(f"{server}/{path}", allow_private=True) == PICTURE
    assert seen == [f"/{unquote(path)}"]


def test_names_may_hold_any_letter(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with names(monkeypatch, lambda _: ["127.0.0.1"]) as asked:
        assert fetch_image(server.replace("127.0.0.1", "bücher.example") + "/a.png", allow_private=True) == PICTURE
    assert asked[0] == "xn--bcher-kva.example"


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("missing", "the server answers 404"),
        ("text", "not an image"),
        ("cut", "cannot be downloaded"),
        ("bad", "cannot be downloaded"),
        ("loop", "more than 5 redirects"),
        ("redirect/302/file:///etc/passwd", "leads to file:/etc/passwd; only http"),
        ("redirect/302/ftp:%2F%2Fexample.org/a.png", "leads to ftp://example.org/a.png; only http"),
        ("redirect/301/data:image%2Fpng;base64,AAAA", "only http"),
        ("redirect/302/http:%2F%2F", "more than 5 redirects"),
        ("redirect/302/http:%2F%2F[", "cannot be downloaded"),
        ("endless", f"over {MAX_DOWNLOAD_BYTES} bytes"),
        ("large", f"over {MAX_DOWNLOAD_BYTES} bytes"),
    ],
)
def test_bad_answers_are_image_errors_that_name_the_address(server: str, path: str, message: str) -> None:
    with pytest.raises(ImageError, match=message) as caught:
        fetch_image(f"{server}/{path}", allow_private=True)
    assert str(caught.value).startswith(f"{server}/{path}: ")


@pytest.mark.parametrize("path", ["drip", "slow-header"])
def test_the_time_is_for_all_of_it(server: str, path: str) -> None:
    began = time.monotonic()
    with pytest.raises(ImageError, match=r"no answer within 0\.5 seconds"):
        fetch_image(f"{server}/{path}", timeout=0.5, allow_private=True)
    assert time.monotonic() - began < 2


def test_looking_up_a_name_is_a_part_of_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    ends = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: ends.wait(20))
    with pytest.raises(ImageError, match=r"no answer within 0\.2 seconds"):
        fetch_image("http://slow.example/a.png", timeout=0.2)
    ends.set()


def test_a_silent_server_ends_in_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        for scheme in ("http", "https"):
            with pytest.raises(ImageError, match=r"no answer within 0\.3 seconds"):
                fetch_image(f"{scheme}://127.0.0.1:{silent.getsockname()[1]}/a", timeout=0.3, allow_private=True)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_followed(server: str, seen: list[str], status: int) -> None:
    for where in ("/a.png", f"{server}/a.png", "../../a.png"):
        assert fetch_image(f"{server}/redirect/{status}/{quote(where, safe='')}", allow_private=True) == PICTURE
    assert seen[1::2] == ["/a.png"] * 3


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "127.1", "2130706433", "0x7f000001", "0.0.0.0", "[::1]", "[::ffff:127.0.0.1]"]
)
def test_addresses_that_are_not_public_are_refused(server: str, seen: list[str], host: str) -> None:
    with pytest.raises(ImageError, match="cannot be downloaded"):
        fetch_image(server.replace("127.0.0.1", host) + "/a.png")
    assert not seen


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("93.184.216.34", True),
        ("2606:2800:220:1:248:1893:25c8:1946", True),
        ("64:ff9b::5db8:d822", True),
        ("10.0.0.1", False),
        ("172.16.0.1", False),
        ("192.168.1.1", False),
        ("169.254.169.254", False),
        ("100.64.0.1", False),
        ("224.0.0.1", False),
        ("255.255.255.255", False),
        ("::", False),
        ("fe80::1%eth0", False),
        ("fd00::1", False),
        ("ff02::1", False),
        ("ff0e::1", False),
        ("::ffff:10.0.0.1", False),
        ("64:ff9b::7f00:1", False),
        ("2002:7f00:1::", False),
        ("2002:a00:1::1", False),
    ],
)
def test_which_addresses_are_public(address: str, public: bool) -> None:
    assert _is_public(address) is public


def test_a_name_with_one_address_that_is_not_public_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        names(monkeypatch, lambda _: ["93.184.216.34", "10.0.0.1"]),
        pytest.raises(ImageError, match=r"mixed\.example \(10\.0\.0\.1\) is not a public address"),
    ):
        fetch_image("http://mixed.example/a.png")


def public_server(monkeypatch: pytest.MonkeyPatch, port: int) -> list[str]:
    """The public address 93.184.216.34 is played by a local port; all that is connected to is listed."""
    connected: list[str] = []
    real = socket.create_connection

    def connect(address: tuple[str, int], *args: object, **kwargs: object) -> socket.socket:
        connected.append(address[0])
        return real(("127.0.0.1", port), 5)

    monkeypatch.setattr(socket, "create_connection", connect)
    return connected


def test_redirects_to_addresses_that_are_not_public_are_refused(
    server: str, seen: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    connected = public_server(monkeypatch, int(server.rpartition(":")[2]))
    known = {"public.example": ["93.184.216.34"], "inside.example": ["10.0.0.1"]}
    with names(monkeypatch, lambda host: known.get(host, [host])):
        assert fetch_image("http://public.example/redirect/302/%2Fa.png") == PICTURE
        for inside in (server, "http://inside.example", "http://169.254.169.254"):
            with pytest.raises(ImageError, match="not a public"):
                fetch_image(f"http://public.example/redirect/302/{quote(inside, safe='')}/latest")
    assert set(connected) == {"93.184.216.34"}
    assert "/latest" not in seen


def test_a_name_that_changes_its_address_is_connected_where_it_was_checked(
    server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DNS rebinding: the second look-up would lead inside."""
    connected = public_server(monkeypatch, int(server.rpartition(":")[2]))
    answers = iter([["93.184.216.34"], ["127.0.0.1"]])
    with names(monkeypatch, lambda _: next(answers)) as asked:
        assert fetch_image("http://changing.example/a.png") == PICTURE
    assert connected == ["93.184.216.34"]
    assert asked.count("changing.example") == 1


def test_the_next_address_is_tried(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with names(monkeypatch, lambda _: ["127.0.0.2", "::1", "127.0.0.1"]):
        assert fetch_image(server.replace("127.0.0.1", "several.example") + "/a.png", allow_private=True) == PICTURE


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "ftp://example.org/a.png",
        "a.png",
        "data:image/png;base64," + "iVBOR" * 9_000,
        "http://",
        "http:///a.png",
        "https://[",
        "http://example.org:99999/a",
        "http://\ud83d/",
        "http://a\0b/",
        "http://" + "a" * 300 + ".example/",
        "http://127.0.0.1:9/a.png",
    ],
)
def test_other_addresses_are_image_errors(url: str) -> None:
    with pytest.raises(ImageError, match=r"expected an http|cannot be downloaded") as caught:
        fetch_image(url)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 600


def test_a_port_where_nobody_listens(unused_port: int) -> None:
    with pytest.raises(ImageError, match="cannot be downloaded"):
        fetch_image(f"http://127.0.0.1:{unused_port}/a.png", allow_private=True)


@pytest.fixture
def unused_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


def test_certificates_are_checked_against_the_name(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str | None] = []

    def start_tls(_: object, __: object, server_hostname: str | None = None, timeout: float | None = None) -> None:
        asked.append(server_hostname)
        raise httpcore2.ConnectError("certificate verify failed")

    monkeypatch.setattr(
        httpcore2.SyncBackend,
        "connect_tcp",
        lambda *_, **__: type("Plain", (), {"start_tls": start_tls, "close": lambda _: None})(),
    )
    with names(monkeypatch, lambda _: ["93.184.216.34"]), pytest.raises(ImageError, match="certificate verify failed"):
        fetch_image("https://public.example/a.png")
    assert asked == ["public.example"]
