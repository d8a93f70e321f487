"""A cache of loaded networks with a limit in bytes; each file is read by one thread at a time."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from weakref import WeakValueDictionary

from ..engine.network import Hypernetwork

Stamp = tuple[int, ...]
"""Numbers of which one changes whenever the file changes."""
_Key = tuple[str, Stamp]


class Cache:
    """The most recently used networks, as many as fit the limit.

    All tensors of a network count, including those prepared from it (converted, folded, on any
    device). If a network is dropped while a generation uses it, the generation continues with it,
    and the network is found again as long as it is in use. So no file is in memory twice.

    Args:
        limit: in bytes. The last used network is always kept, so that a sweep over multipliers
            reads its file once, however small the limit is.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._lock = threading.Lock()  # never held while a file is read
        # By path, the last used one at the end; with the bytes of the file's own tensors.
        self._kept: OrderedDict[str, tuple[Hypernetwork, int]] = OrderedDict()
        self._in_use: WeakValueDictionary[_Key, Hypernetwork] = WeakValueDictionary()
        self._reading: dict[_Key, Future[Hypernetwork]] = {}
        self._named: set[str] = set()  # since the last trim

    def __len__(self) -> int:
        """The number of networks in it."""
        return len(self._kept)

    @property
    def nbytes(self) -> int:
        """Bytes of all networks in it."""
        with self._lock:
            return sum(self._sizes().values())

    def get(self, path: str, stamp: Stamp, read: Callable[[], Hypernetwork]) -> Hypernetwork:
        """The network of a file, read if necessary; several threads wait for one reading.

        Args:
            path: the file. The network of an earlier file at this path is dropped.
            stamp: the file's current stamp, taken before it is read.
            read: reads the file. If it raises an error, nothing is kept.
        """
        key = path, stamp
        with self._lock:
            self._named.add(path)
            # Found even after it was dropped, as long as a generation holds it.
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
        """Change the limit; the least recently used networks that exceed it are dropped at once."""
        with self._lock:
            self.limit = limit
            self._trim()

    def trim(self) -> None:
        """Apply the limit after a generation, which has prepared more from the networks.

        Networks that nothing has asked for since the last call leave the graphics memory.
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
        """Bytes by path; networks grow while they are used."""
        return {path: size + network.prepared_bytes for path, (network, size) in self._kept.items()}

    def _trim(self) -> None:
        sizes = self._sizes()
        total = sum(sizes.values())
        while total > self.limit and len(self._kept) > 1:
            # A generation that uses it has a reference of its own.
            path, _ = self._kept.popitem(last=False)
            total -= sizes[path]
