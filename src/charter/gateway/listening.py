"""Sockets to listen on: one of one's own, or one of several on a shared port."""

from __future__ import annotations

import ipaddress
import socket

from charter.errors import CharterError


def bound(host: str, port: int, shared: bool = False) -> socket.socket:
    """A listening socket; `shared`: beside others of ours on the same port.

    Raises:
        CharterError: the address can't be listened on.
    """
    try:
        listener = socket.create_server((host, port), family=_family(host), backlog=2_048, reuse_port=shared)
    except OSError as error:
        raise _taken(host, port, error) from error
    # asyncio does so for sockets that it makes itself: without it an answer's body waits 40 ms for the acknowledgement of its headers
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def reserve(host: str, port: int) -> socket.socket:
    """A socket that holds the port without listening, so that workers may come and go.

    Raises:
        CharterError: somebody else has it, or the system can't share it.
    """
    if not hasattr(socket, "SO_REUSEPORT"):
        raise CharterError("this system can't share a port between processes; leave --workers out")
    with bound(host, port) as alone:  # SO_REUSEPORT would let us in beside another gateway of the same user
        address = alone.getsockname()
    held = socket.socket(_family(host))
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        held.bind(address)
    except OSError as error:
        held.close()
        raise _taken(host, port, error) from error
    return held


def local(listener: socket.socket) -> bool:
    """Whether only this machine reaches it."""
    return ipaddress.ip_address(listener.getsockname()[0]).is_loopback


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def _taken(host: str, port: int, error: OSError) -> CharterError:
    return CharterError(f"{host}:{port} can't be listened on ({error.strerror}); choose another --host or --port")
