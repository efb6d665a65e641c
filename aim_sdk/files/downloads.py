"""The one place that opens an address: it is checked, and the address that was checked is the one connected to."""

from __future__ import annotations

import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Collection, Iterable
from concurrent.futures import Future
from typing import Any

import httpcore2
import httpx2

from aim_sdk.errors import ImageError
from aim_sdk.files.images import describe, is_url, load_image

MAX_DOWNLOAD_BYTES = 50_000_000
MAX_REDIRECTS = 5

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_HEADERS: dict[bytes | str, bytes | str] = {"User-Agent": "aim-icl", "Accept": "image/*", "Accept-Encoding": "identity"}


def fetch_image(
    url: str, *, timeout: float = 20.0, allow_private: bool = False, hosts: Collection[str] | None = None
) -> bytes:
    """Download one image over http(s). Nothing else in the SDK opens an address: this call is the request.

    Redirects are followed, to http(s) only. Proxies of the environment are not used: what such a machine downloads
    otherwise is passed as bytes.

    Args:
        url: may hold blanks and letters outside ASCII.
        timeout: seconds for all of it: looking up the name, redirects, the last byte.
        allow_private: also connect to addresses that are not public: loopback, private networks, link-local.
        hosts: connect to these alone, also after a redirect; None: to any.

    Raises:
        ImageError: not an http(s) address, not public, unreachable, too slow, over ``MAX_DOWNLOAD_BYTES``, or not an
            image.
    """
    name = describe(url)
    if not is_url(url):
        raise ImageError(f"{name}: expected an http:// or https:// address.")
    network = _Network(time.monotonic() + timeout, allow_private)
    try:
        with httpcore2.ConnectionPool(network_backend=network) as pool:
            data = _download(pool, httpx2.URL(url), hosts)
    except Exception as error:  # ours, and those of sockets, TLS, HTTP and name look-ups, which have no common base
        late = time.monotonic() >= network.deadline
        reason = f"no answer within {timeout:g} seconds" if late else f"{error}" or type(error).__name__
        raise ImageError(f"{name}: cannot be downloaded ({reason}).") from error
    try:
        load_image(data)
    except ImageError as error:
        raise ImageError(f"{name}: {error}") from error
    return data


def _download(pool: httpcore2.ConnectionPool, url: httpx2.URL, hosts: Collection[str] | None) -> bytes:
    for _ in range(MAX_REDIRECTS + 1):
        if url.scheme not in ("http", "https") or not url.raw_host:
            raise ImageError(f"it leads to {describe(str(url))}; only http:// and https:// are followed")
        if hosts is not None and url.host not in hosts:
            raise ImageError(f"the host {url.host} is not one of those that are allowed")
        target = httpcore2.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path)
        with pool.stream("GET", target, headers=_HEADERS) as response:
            headers = {key.lower(): value for key, value in response.headers}
            if response.status in (301, 302, 303, 307, 308) and b"location" in headers:
                url = url.join(headers[b"location"].decode("latin-1"))
                continue
            if response.status != 200:
                raise ImageError(f"the server answers {response.status}")
            if int(headers.get(b"content-length", 0)) > MAX_DOWNLOAD_BYTES:
                raise ImageError(f"over {MAX_DOWNLOAD_BYTES} bytes")
            return _body(response)
    raise ImageError(f"more than {MAX_REDIRECTS} redirects")


def _body(response: httpcore2.Response) -> bytes:
    data = bytearray()
    for part in response.iter_stream():
        data += part
        if len(data) > MAX_DOWNLOAD_BYTES:
            raise ImageError(f"over {MAX_DOWNLOAD_BYTES} bytes")
    return bytes(data)


class _Network(httpcore2.SyncBackend):
    """Connects to addresses that it looked up and checked itself, and ends everything at the deadline."""

    def __init__(self, deadline: float, allow_private: bool) -> None:
        self.deadline, self._allow_private = deadline, allow_private

    def left(self) -> float:
        seconds = self.deadline - time.monotonic()
        if seconds <= 0:
            raise TimeoutError
        return seconds

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.NetworkStream:
        addresses = _look_up(host, port, self.left())
        for address in () if self._allow_private else addresses:
            if not _is_public(address):
                place = host if host == address else f"{host} ({address})"
                raise ImageError(f"{place} is not a public address; allow_private=True permits it")
        for number, address in enumerate(addresses, 1):
            try:
                # the later addresses get a share of the time too
                stream = super().connect_tcp(address, port, self.left() / (len(addresses) - number + 1))
                return _Stream(stream, self)
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout):
                if number == len(addresses):
                    raise
        raise ImageError(f"{host} has no address")


class _Stream(httpcore2.NetworkStream):
    """A connection whose every step ends at the deadline."""

    def __init__(self, stream: httpcore2.NetworkStream, network: _Network) -> None:
        self._stream, self._network = stream, network

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, self._network.left())

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, self._network.left())

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore2.NetworkStream:
        return _Stream(self._stream.start_tls(ssl_context, server_hostname, self._network.left()), self._network)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


def _look_up(host: str, port: int, seconds: float) -> list[str]:
    """The addresses of a name. The system's look-up cannot be given a time, so it has a thread of its own."""
    found: Future[list[str]] = Future()

    def look_up() -> None:
        try:
            places = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            found.set_result(list(dict.fromkeys(str(place[4][0]) for place in places)))
        except Exception as error:  # raised where the result is waited for
            found.set_exception(error)

    threading.Thread(target=look_up, daemon=True).start()
    return found.result(seconds)


def _is_public(address: str) -> bool:
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        translated = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF) if ip in _NAT64 else None
        ip = ip.ipv4_mapped or ip.sixtofour or translated or ip
    return ip.is_global and not ip.is_multicast  # which counts as global
