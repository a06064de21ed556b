"""Hosts on one machine: network namespaces that are joined by cables, and what passes through these. Linux, as root.

    with hosts("coordinator", "north", "alone") as (coordinator, north, alone):
        joined(coordinator, north, number=1)            # 10.77.1.1 and 10.77.1.2, by a cable of their own
        subprocess.run([*north.enter(), "curl", ...])   # a process there
        north.inside(lambda: socket.create_connection(("10.77.1.1", 9443)))
        with Departures(north) as departures: ...       # to whom it sends meanwhile

A new host has nothing but a loopback interface, which is down. Hosts have no names outside their program and leave
nothing in the machine's own network: each lives by a descriptor of this process, so the kernel takes away hosts and
cables even when this process is killed, as soon as nobody is left in them.
"""

from __future__ import annotations

import ctypes
import ipaddress
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from protocol.errors import LinkError
from simulations.deployment.processes import Handle

T = TypeVar("T")
Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_NEW_NETWORK = 0x40000000  # CLONE_NEWNET of <sched.h>; `os.setns` came with Python 3.12
_PROC = Path("/proc")
_LISTENING, _UNCONNECTED = "0A", "07"
_ETHERTYPE_ALL, _IPV4, _IPV6 = 0x0003, 0x0800, 0x86DD
_OUTGOING = 4  # <linux/if_packet.h>
_PACKET_LEVEL, _PACKET_STATISTICS = 263, 6
_RECEIVE_BUFFER_FORCE = 33
_PROTOCOLS = {socket.IPPROTO_TCP: "tcp", socket.IPPROTO_UDP: "udp", socket.IPPROTO_ICMPV6: "icmpv6", 0: "icmpv6"}
"""A packet of IPv6 that begins with options for every hop (0) is a host's notice of its multicast groups."""


class Host:
    """A network of its own for whoever enters it; made by `hosts`.

    Args:
        name: For messages.

    Raises:
        LinkError: this system or this user cannot make one.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        if missing := [program for program in ("ip", "nsenter") if shutil.which(program) is None]:
            raise LinkError(f"hosts need {' and '.join(missing)}; install iproute2 and util-linux")
        self._file = _in_thread(_new_network)

    @property
    def identity(self) -> str:
        """What ``/proc/PID/ns/net`` of a process in it reads."""
        return f"net:[{os.fstat(self._file).st_ino}]"

    @property
    def _path(self) -> str:
        return f"/proc/{os.getpid()}/fd/{self._file}"

    def enter(self) -> list[str]:
        """Words before a command that has it run here; it keeps its process number."""
        return [str(shutil.which("nsenter")), f"--net={self._path}", "--"]

    def inside(self, work: Callable[[], T]) -> T:
        """Do something in a thread that is here; a socket that it makes stays here."""

        def entered() -> T:
            _checked(_libc().setns(self._file, _NEW_NETWORK), "entered")
            return work()

        return _in_thread(entered)

    def ip(self, *words: str) -> str:
        """Type an `ip` command here; what it printed.

        Raises:
            LinkError: what it said was wrong.
        """
        done = subprocess.run(  # noqa: S603  a program found on the path, with arguments of our own
            [*self.enter(), str(shutil.which("ip")), *words], capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise LinkError(f"'ip {' '.join(words)}' in host '{self.name}': {done.stderr.strip()}")
        return done.stdout

    def plug(self, name: str, other: Host, other_name: str, *, hardware: tuple[str, str]) -> None:
        """Lay a cable to another host: an interface here and one there, with these hardware addresses."""
        self.ip(
            "link", "add", "name", name, "address", hardware[0], "type", "veth",
            "peer", "name", other_name, "address", hardware[1], "netns", other._path,
        )  # fmt: skip

    def processes(self) -> list[int]:
        """Numbers of the processes that are here now."""
        return [int(entry.name) for entry in _PROC.glob("[0-9]*") if self._holds(int(entry.name))]

    def close(self) -> None:
        """Kill whoever is still here, and let go of it."""
        for pid in self.processes():
            with suppress(ProcessLookupError), Handle(pid) as handle:
                if self._holds(pid):  # asked again, with the handle in hand
                    handle.send(signal.SIGKILL)
                    handle.ended(2.0)
        os.close(self._file)

    def _holds(self, pid: int) -> bool:
        try:
            return str((_PROC / str(pid) / "ns" / "net").readlink()) == self.identity
        except OSError:
            return False


@contextmanager
def hosts(*names: str) -> Iterator[tuple[Host, ...]]:
    """New hosts, without anything in them; at the end they are gone, with all cables and processes.

    Raises:
        LinkError: this system or this user cannot make them.
    """
    with ExitStack() as stack:
        made = []
        for name in names:
            made.append(Host(name))
            stack.callback(made[-1].close)
        yield tuple(made)


def why_not() -> str:
    """Why no hosts can be made here; empty if they can."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "network namespaces are made by root on Linux alone"
    try:
        with hosts("a", "b") as (a, b):
            joined(a, b, number=1)
    except (LinkError, OSError) as error:
        return f"no network namespaces here: {error}"
    return ""


def joined(centre: Host, leaf: Host, *, number: int) -> str:
    """Lay a cable, bring it and both loopbacks up, and let the leaf send everything through it; the centre's address.

    The leaf is at ``10.77.NUMBER.2``. Whatever it sends anywhere, in IPv4 or IPv6, comes out at the centre and ends
    there, instead of failing before it can be seen: that is what `Departures` needs. So the leaf knows the centre's
    hardware address and asks nobody for it, also while the cable is dead.
    """
    network, network6 = f"10.77.{number}", f"fd77:{number:x}:"
    hardware = (f"02:00:00:77:{number:02x}:01", f"02:00:00:77:{number:02x}:02")
    centre.plug(leaf.name[:15], leaf, "uplink", hardware=hardware)
    for host, interface, last in ((centre, leaf.name[:15], 1), (leaf, "uplink", 2)):
        host.ip("link", "set", "dev", "lo", "up")
        host.ip("address", "add", f"{network}.{last}/24", "dev", interface)
        host.ip("link", "set", "dev", interface, "up")
    gateways = [f"{network}.1"]
    if Path("/proc/sys/net/ipv6").is_dir():
        leaf.ip("address", "add", f"{network6}:2/64", "dev", "uplink", "nodad")
        gateways.append(f"{network6}:1")
    for gateway in gateways:
        leaf.ip("neighbour", "add", gateway, "lladdr", hardware[0], "dev", "uplink", "nud", "permanent")
        leaf.ip("route", "add", "default", "via", gateway, "dev", "uplink")
    return f"{network}.1"


@dataclass(frozen=True)
class Bound:
    """A socket that waits for whoever comes: a listener of TCP, or an open one of UDP."""

    protocol: str
    address: Address
    port: int


def bound_in(host: Host) -> frozenset[Bound]:
    """All sockets of a host that strangers could reach if their address is no loopback."""
    return host.inside(lambda: frozenset(_bound()))


@dataclass(frozen=True)
class Departure:
    """Where a packet went.

    Args:
        interface: By which it left.
        protocol: ``tcp``, ``udp``, ``icmpv6``, or the number of another one.
        address: Of whom it is for.
        port: There; 0 where the protocol has none.
    """

    interface: str
    protocol: str
    address: Address
    port: int


class Departures:
    """Sees every packet that a host sends from entering to leaving. Use as a context manager.

    Args:
        host: Watched.
    """

    def __init__(self, host: Host) -> None:
        self._host, self._over, self._seen = host, threading.Event(), set[Departure]()
        self._thread = threading.Thread(target=self._watch, name=f"departures of {host.name}", daemon=True)
        self.missed = 0

    def __enter__(self) -> Departures:
        self._socket = self._host.inside(_watching_socket)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._socket.settimeout(0)  # what came until now is looked at, nothing is waited for any more
        self._thread.join()
        self.missed = struct.unpack("II", self._socket.getsockopt(_PACKET_LEVEL, _PACKET_STATISTICS, 8))[1]
        self._socket.close()

    @property
    def seen(self) -> frozenset[Departure]:
        """Where packets went so far. On leaving, `missed` counts those that came too fast to be looked at."""
        return frozenset(self._seen)

    def _watch(self) -> None:
        while True:
            try:
                packet, (interface, ethertype, kind, *_) = self._socket.recvfrom(256)
            except (TimeoutError, BlockingIOError):
                if self._over.is_set():
                    return
                continue
            if kind == _OUTGOING and ethertype in (_IPV4, _IPV6):
                self._seen.add(_departure(interface, ethertype, packet))


def _watching_socket() -> socket.socket:
    made = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(_ETHERTYPE_ALL))
    made.setsockopt(socket.SOL_SOCKET, _RECEIVE_BUFFER_FORCE, 64 << 20)
    made.settimeout(0.1)
    return made


def _departure(interface: str, ethertype: int, packet: bytes) -> Departure:
    if ethertype == _IPV4:
        number, address, body = packet[9], ipaddress.IPv4Address(packet[16:20]), 4 * (packet[0] & 0x0F)
    else:
        number, address, body = packet[6], ipaddress.IPv6Address(packet[24:40]), 40
    protocol = _PROTOCOLS.get(number, str(number))
    port = int.from_bytes(packet[body + 2 : body + 4], "big") if protocol in ("tcp", "udp") else 0
    return Departure(interface, protocol, address, port)


def _bound() -> Iterator[Bound]:
    """Of this thread's network, as the kernel's tables show it."""
    for table, state in (("tcp", _LISTENING), ("tcp6", _LISTENING), ("udp", _UNCONNECTED), ("udp6", _UNCONNECTED)):
        path = _PROC / "thread-self" / "net" / table
        for line in path.read_text().splitlines()[1:] if path.exists() else ():
            words = line.split()
            if words[3] == state:
                address, port = words[1].split(":")
                yield Bound(table.removesuffix("6"), _address(address), int(port, 16))


def _address(digits: str) -> Address:
    """Words of 32 bits, each in the machine's own order of bytes."""
    raw = bytes.fromhex(digits)
    turned = b"".join(struct.pack("=I", *struct.unpack(">I", raw[i : i + 4])) for i in range(0, len(raw), 4))
    return ipaddress.ip_address(turned)


def _new_network() -> int:
    _checked(_libc().unshare(_NEW_NETWORK), "made")
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY)


def _checked(code: int, what: str) -> None:
    if code:
        reason = os.strerror(ctypes.get_errno())
        raise LinkError(f"a network namespace could not be {what} ({reason}); this needs root with CAP_SYS_ADMIN")


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _in_thread(work: Callable[[], T]) -> T:
    """Only one thread changes its network, and ends."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(work).result()
