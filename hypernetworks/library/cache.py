"""Loaded networks, kept within a limit of bytes; each file is read by one thread at a time."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from weakref import WeakValueDictionary

from ..engine.network import Hypernetwork

Stamp = tuple[int, ...]
"""What changes when a file does."""
_Key = tuple[str, Stamp]


class Cache:
    """The networks that were used last, as many as fit the limit.

    A network counts with its tensors and with all that was made ready from them (converted, folded,
    on any device). One that is dropped while a generation uses it goes on as it is, and is found
    again as long as it is used: no file is in memory twice.

    Args:
        limit: in bytes. The network that was used last is kept even where it is larger: a sweep
            over multipliers reads its file once, however small the cache is.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._lock = threading.Lock()  # never held while a file is read
        self._kept: OrderedDict[str, tuple[Hypernetwork, int]] = (
            OrderedDict()
        )  # with the bytes of its tensors
        self._in_use: WeakValueDictionary[_Key, Hypernetwork] = WeakValueDictionary()
        self._reading: dict[_Key, Future[Hypernetwork]] = {}
        self._named: set[str] = set()  # since the last trim

    def __len__(self) -> int:
        """How many are kept."""
        return len(self._kept)

    @property
    def nbytes(self) -> int:
        """What is kept, in bytes."""
        with self._lock:
            return sum(self._sizes().values())

    def get(self, path: str, stamp: Stamp, read: Callable[[], Hypernetwork]) -> Hypernetwork:
        """The network of a file, read if it isn't there; threads that ask for the same one wait for
        one reading.

        Args:
            path: where the file is. What was kept of another file at this path is dropped.
            stamp: of the file as it is now, taken before it is read.
            read: raises what it will; nothing is kept then.
        """
        key = path, stamp
        with self._lock:
            self._named.add(path)
            network = self._in_use.get(key)
            if network is not None:
                self._keep(key, network)
                return network
            self._kept.pop(path, None)
            others = self._reading.get(key)
            if others is None:
                ours = self._reading[key] = Future[Hypernetwork]()

        return others.result() if others is not None else self._read(key, ours, read)

    def _read(
        self, key: _Key, ours: Future[Hypernetwork], read: Callable[[], Hypernetwork]
    ) -> Hypernetwork:
        try:
            network = read()
        except BaseException as error:
            with self._lock:
                del self._reading[key]
            ours.set_exception(error)
            raise

        with self._lock:
            self._in_use[key] = network
            self._keep(key, network)
            del self._reading[key]

        ours.set_result(network)
        return network

    def limit_to(self, limit: int) -> None:
        """Change the limit; what was unused longest goes at once until the rest fits, or is the
        last.
        """
        with self._lock:
            self.limit = limit
            self._trim()

    def trim(self) -> None:
        """Apply the limit after a generation, to everything it has prepared.

        What no one asked for since the last time leaves the devices: graphics memory is for what a
        tag names.
        """
        with self._lock:
            for path, (network, _) in self._kept.items():
                if path not in self._named:
                    network.release_devices()
            self._named.clear()
            self._trim()

    def _keep(self, key: _Key, network: Hypernetwork) -> None:
        known = self._kept.get(key[0])
        size = known[1] if known is not None else network.nbytes
        self._kept[key[0]] = network, size
        self._kept.move_to_end(key[0])
        self._trim()

    def _sizes(self) -> dict[str, int]:
        """Bytes by path; what is made ready from a network grows while it is used."""
        return {path: size + network.prepared_bytes for path, (network, size) in self._kept.items()}

    def _trim(self) -> None:
        sizes = self._sizes()
        total = sum(sizes.values())
        while total > self.limit and len(self._kept) > 1:
            path, _ = self._kept.popitem(last=False)  # whoever uses it still has it, ready as it is
            total -= sizes[path]
