"""Hostile payloads against a real studio: ``python -m tests.hardening.payloads --cases 5000 --seed
1``.

Every input of every function of the page's own config gets paths, files and addresses that it must
not read, in many spellings and shapes, through every route that takes a payload and through those
that the gate refuses. A file, a variable of the environment and another session's upload hold a
secret that must never come back.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS), str(TESTS.parent)]

from hardening.served import Answer, Peak, Studio, Trap  # noqa: E402

FILE = {"_type": "gradio.FileData"}
API = "/gradio_api"
SLOWEST, MOST_MEMORY, MOST_DESCRIPTORS = 20.0, 96.0, 12
"""What breaks a promise: seconds until a payload is answered, MiB and descriptors more than at
first.
"""
MOST_LATER = 48.0
"""MiB more at the end than halfway: what a training takes that happens to run at one of the two,
and little else.
"""


def paths(studio: Studio, other: str, trap: int) -> list[str]:
    """What a stranger would like to read: by name, through links and devices, and by address."""
    home, secret = studio.home, str(studio.home / "secret.txt")
    up = "../" * 12
    own = f"http://127.0.0.1:{studio.port}"
    return [
        *(secret, os.path.relpath(secret, home), "./secret.txt", f"/{secret}"),
        *(f"{up}{secret}", f"{home}/training/../secret.txt", f"{home}//secret.txt", secret + "/"),
        *(
            f"file://{secret}",
            f"file:{secret}",
            f"FILE://localhost{secret}",
            f"file:///{up}{secret}",
        ),
        *(
            quote(secret, safe=""),
            quote(quote(secret, safe=""), safe=""),
            secret.replace("/", "%2f"),
        ),
        *(str(home / "link.txt"), str(home / "folder" / "secret.txt"), str(home / "pipe")),
        *("/proc/self/environ", f"/proc/{studio.process.pid}/environ", f"/proc/self/root{secret}"),
        *("/proc/self/cwd/secret.txt", "/proc/self/mem", "/proc/self/fd/0", "/proc/kcore"),
        *(
            "/dev/zero",
            "/dev/stdin",
            "/dev/random",
            "/dev/tty",
            "/dev/fd/0",
            str(home / "huge.bin"),
        ),
        *(
            "\\\\host\\share\\secret.txt",
            "//host/share/secret.txt",
            f"\\\\?\\{secret}",
            "C:\\secret.txt",
        ),
        *(f"{secret}\0.png", "~/secret.txt", "$HOME/secret.txt", "CON", "", ".", "/", str(home)),
        *(f"http://127.0.0.1:{trap}/x", f"https://127.0.0.1:{trap}/x", f"ftp://127.0.0.1:{trap}/x"),
        *(f"{own}{API}/file={secret}", f"{own}{API}/file={other}", f"{API}/file={secret}"),
        *(other, f"{other}/../{Path(other).name}", quote(other, safe="")),
        *("data:text/plain;base64,AAAA", "blob:x", "gradio://secret.txt", "a" * 5000),
    ]


def _deep(value: Any, depth: int) -> Any:
    for _ in range(depth):
        value = [value]
    return value


SHAPES: dict[str, Callable[[str], Any]] = {
    "file": lambda p: {"path": p, "meta": FILE},
    "file, all keys": lambda p: {
        "path": p,
        "url": p,
        "orig_name": p,
        "size": 1,
        "mime_type": "image/png",
        "is_stream": False,
        "meta": FILE,
    },
    "stream": lambda p: {"path": p, "is_stream": True, "meta": FILE},
    "address": lambda p: {"path": "", "url": p, "meta": FILE},
    "only address": lambda p: {"url": p, "meta": FILE},
    "own path, address": lambda p: {"path": "a.png", "url": p, "meta": FILE},
    "no meta": lambda p: {"path": p},
    "text": lambda p: p,
    "JSON in text": lambda p: json.dumps({"path": p, "meta": FILE}),
    "JSON in JSON in text": lambda p: json.dumps(json.dumps([{"path": p, "meta": FILE}])),
    "list": lambda p: [{"path": p, "meta": FILE}],
    "list of texts": lambda p: [p, p],
    "pair": lambda p: [[{"path": p, "meta": FILE}, "caption"]],
    "deep list": lambda p: _deep({"path": p, "meta": FILE}, 60),
    "dict": lambda p: {"a": {"b": [{"path": p, "meta": FILE}]}},
    "gallery": lambda p: [{"image": {"path": p, "meta": FILE}, "caption": None}],
    "video": lambda p: {"video": {"path": p, "meta": FILE}, "subtitles": {"path": p, "meta": FILE}},
    "editor": lambda p: {"background": {"path": p, "meta": FILE}, "layers": [], "composite": None},
    "message": lambda p: {"text": p, "files": [{"path": p, "meta": FILE}]},
    "update": lambda p: {"__type__": "update", "value": {"path": p, "meta": FILE}},
    "gradio 3": lambda p: {"name": p, "data": None, "is_file": True, "orig_name": p},
    "path is a list": lambda p: {"path": [p], "meta": FILE},
    "path is a dict": lambda p: {"path": {"path": p, "meta": FILE}, "meta": FILE},
    "meta twice": lambda p: {"meta": {**FILE, "path": p}, "path": p, "extra": 1},
    "beside the file": lambda p: {"path": p, "meta": FILE, "children": [{"path": p, "meta": FILE}]},
}
"""How a path is dressed."""
PLACES = ("input", "input", "input", "input", "event_data", "session_hash", "trigger_id", "request")
"""Where in the body it stands: mostly as the value of an input."""


@dataclass
class Case:
    """One request.

    Attributes:
        route: a name of :data:`ROUTES`.
        value: what stands at ``place``.
    """

    number: int
    route: str
    place: str
    shape: str
    function: int
    name: str
    data: list[Any]
    value: Any
    path: str
    session: str

    def body(self) -> dict[str, Any]:
        """As gradio's own page would send it."""
        body = {"data": self.data, "fn_index": self.function, "session_hash": self.session}
        body |= {"trigger_id": None, "event_data": None}
        return body if self.place == "input" else {**body, self.place: self.value}


def _stream(studio: Studio, case: Case, path: str, started: Answer) -> list[Answer]:
    """A job that was accepted: what it tells."""
    answers = [started]
    found = started.json()
    if started.status == 200 and isinstance(found, dict) and found.get("event_id"):
        at = path if path.endswith("=") else f"{path}/"
        session = quote(
            str(case.body()["session_hash"])
        )  # gradio cuts the stream of an unknown one
        answers.append(studio.ask("GET", f"{at}{session if at == path else found['event_id']}"))
    return answers


def _call(at: str) -> Callable[[Studio, Case], list[Answer]]:
    def sent(studio: Studio, case: Case) -> list[Answer]:
        path = f"{API}/{at.format(name=case.name)}"
        return _stream(studio, case, path, studio.post(path, case.body()))

    return sent


def _queue(studio: Studio, case: Case) -> list[Answer]:
    started = studio.post(f"{API}/queue/join", case.body())
    return _stream(studio, case, f"{API}/queue/data?session_hash=", started)


def _plain(at: str) -> Callable[[Studio, Case], list[Answer]]:
    def sent(studio: Studio, case: Case) -> list[Answer]:
        name = quote(case.path.replace("\0", ""), safe="/:%=") if "{path}" in at else ""
        return [studio.ask("GET", f"{API}/{at.format(path=name)}", patience=10)]

    return sent


def _posted(at: str) -> Callable[[Studio, Case], list[Answer]]:
    return lambda studio, case: [studio.post(f"{API}/{at}", {**case.body(), "value": case.value})]


def _form(studio: Studio, case: Case) -> list[Answer]:
    """An upload whose file name, and whose other field, is the path; what it gives back is read."""
    name = case.path.replace("\0", "").replace('"', "").encode("utf8", "replace")
    parts = (b'name="files"; filename="' + name + b'"\r\n\r\nmine', b'name="path"\r\n\r\n' + name)
    answers = []
    for chosen in (parts[:1], parts):
        form = b"".join(b"--x\r\ncontent-disposition: form-data; " + p + b"\r\n" for p in chosen)
        kind = "multipart/form-data; boundary=x"
        sent = studio.ask("POST", f"{API}/upload", form + b"--x--\r\n", content_type=kind)
        answers.append(sent)
        for path in sent.json() or [] if sent.status == 200 else []:
            answers.append(studio.ask("GET", f"{API}/file={quote(path)}"))
    return answers


ROUTES: dict[str, Callable[[Studio, Case], list[Answer]]] = {
    **{
        f"POST {at}": _call(at)
        for at in ("run/predict", "run/{name}", "api/{name}", "api/predict/")
    },
    "POST call": _call("call/{name}"),
    "POST call/v2": _call("call/v2/{name}"),
    "POST queue/join": _queue,
    "POST upload": _form,
    **{
        f"POST {at}": _posted(at)
        for at in ("cancel", "reset", "component_server", "stream/x", "process_recording")
    },
    **{f"POST {at}": _posted(at) for at in ("vibe-edit", "vibe-code", "push", "../login")},
    **{
        f"GET {at}": _plain(at)
        for at in ("file={path}", "file/{path}", "proxy={path}", "deep_link?session_hash={path}")
    },
    "GET stream": _plain("stream/x/y/z/{path}.ts"),
    "GET custom_component": _plain("custom_component/x/y/z/{path}"),
}
"""All routes that take a payload or a path, those that the gate refuses among them."""


def functions(studio: Studio) -> list[tuple[int, str, list[Any]]]:
    """Number, name and default values of the page's functions that take any, from its config."""
    config = studio.ask("GET", "/config", most=1 << 26).json()
    values = {one["id"]: _default(one.get("props", {})) for one in config["components"]}
    return [
        (one["id"], one["api_name"] or "predict", [values[number] for number in one["inputs"]])
        for one in config["dependencies"]
        if one["inputs"]
    ]


def _default(props: dict[str, Any]) -> Any:
    """The smallest of a range, so that a case that is accepted takes little time."""
    lowest = props.get("minimum")
    return props.get("value") if lowest is None else lowest


def cases(studio: Studio, count: int, seed: int, other: str, trap: int) -> Iterator[Case]:
    """Every input in turn, each time with other paths, shapes and routes."""
    rng = random.Random(seed)
    training_folders = [(one, i) for one in functions(studio) for i in range(len(one[2]))]
    of_paths, routes = paths(studio, other, trap), list[str]()
    calls = [
        route
        for route in ROUTES
        if route.startswith(("POST run", "POST api", "POST call", "POST queue"))
    ]
    of_routes = [*ROUTES, *calls, *calls, *calls]  # most cases get as far as the check of payloads
    for number in range(count):
        if number % len(training_folders) == 0:
            rng.shuffle(training_folders)
        routes = routes or rng.sample(of_routes, k=len(of_routes))
        (function, name, defaults), at = training_folders[number % len(training_folders)]
        path, shape, place = rng.choice(of_paths), rng.choice([*SHAPES]), rng.choice(PLACES)
        data = list(defaults) if rng.random() < 0.5 else [None] * len(defaults)
        value = SHAPES[shape](path)
        if place == "input":
            data[at] = value
        yield Case(
            *(number, routes.pop(), place, shape, function, name, data, value, path),
            f"s{seed}x{number}",
        )


@dataclass
class Outcome:
    """What a run of cases came to."""

    statuses: Counter[str] = field(default_factory=Counter)
    broken: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    memory: list[float] = field(default_factory=list)
    peak: float = 0.0
    descriptors: tuple[int, int] = (0, 0)


def prepared(studio: Studio) -> str:
    """Lay out what must not be read; returns the path of an upload that is another session's."""
    home = studio.home
    (home / "link.txt").symlink_to(home / "secret.txt")
    (home / "folder").symlink_to(home)
    os.mkfifo(home / "pipe")
    with (home / "huge.bin").open("wb") as huge:
        huge.truncate(1 << 40)  # without a block on the disk
    cookie = studio.ask("GET", "/").headers["set-cookie"].partition(";")[0]
    form = (
        '--x\r\ncontent-disposition: form-data; name="files"; '
        f'filename="b.txt"\r\n\r\n{studio.secret}\r\n--x--\r\n'
    )
    kind = "multipart/form-data; boundary=x"
    sent = studio.ask("POST", f"{API}/upload", form.encode(), content_type=kind, cookie=cookie)
    [path] = sent.json()
    assert studio.leaks(studio.ask("GET", f"{API}/file={quote(path)}", cookie=cookie)), (
        "the watch must see a secret that comes back"
    )
    return str(path)


def run(studio: Studio, count: int, seed: int) -> Outcome:
    """Send the cases, and note every promise that is broken."""
    outcome, trap = Outcome(), Trap()
    other = prepared(studio)
    _warm_up(studio)
    first = studio.descriptors()
    with Peak(studio) as peak:
        for case in cases(studio, count, seed, other, trap.port):
            if case.number % 500 == 0:
                outcome.memory.append(studio.memory())
            _judge(studio, case, ROUTES[case.route](studio, case), outcome)
            if not studio.is_alive():
                outcome.broken.append(f"the studio ended at {case}")
                return outcome
    trap.close()
    outcome.memory.append(studio.memory())
    outcome.peak, outcome.descriptors = peak.most, (first, studio.descriptors())
    if trap.visits:
        outcome.broken.append(f"{trap.visits} addresses were fetched")
    if peak.more > MOST_MEMORY:
        outcome.broken.append(f"it took {peak.more:.0f} MiB more than at first")
    if (later := outcome.memory[-1] - outcome.memory[len(outcome.memory) // 2]) > MOST_LATER:
        outcome.broken.append(f"it took {later:.0f} MiB more at the end than halfway")
    if outcome.descriptors[1] > first + MOST_DESCRIPTORS:
        outcome.broken.append(f"descriptors went from {first} to {outcome.descriptors[1]}")
    outcome.broken += [f"{path} holds the secret" for path in _copies(studio, other)]
    return outcome


def _warm_up(studio: Studio) -> None:
    """Make images and sheets of the size that cases make: what is loaded once is no leak."""
    for function, name, data in functions(studio):
        if name in ("generate", "run"):
            for values in (data, [None] * len(data)):
                case = Case(0, "", "input", "", function, name, values, None, "", "warm")
                _queue(studio, case)


def _judge(studio: Studio, case: Case, answers: list[Answer], outcome: Outcome) -> None:
    outcome.seconds += [answer.seconds for answer in answers]
    outcome.statuses[str(answers[0].status)] += 1
    for answer in answers:
        if studio.leaks(answer):
            outcome.broken.append(f"the secret came back: {case}")
        if answer.seconds > SLOWEST or not answer.is_whole:
            outcome.broken.append(f"{answer.seconds:.1f} s, status {answer.status}: {case}"[:600])
        if answer.status >= 500 and case.route.startswith("POST") and b"Internal" in answer.body:
            outcome.broken.append(f"status {answer.status}: {case}"[:600])


def _copies(studio: Studio, other: str) -> list[Path]:
    """Files in the studio's folders that hold the secret and are not the upload."""
    found = []
    for path in (studio.home / "temporary").rglob("*"):
        if path.is_file() and str(path) != other and path.stat().st_size < 1 << 20:
            found += [path] if studio.marks[0] in path.read_bytes() else []
    return found


def main() -> int:
    """The long run; prints the figures of docs/SECURITY.md."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--cases", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as home, Studio(Path(home).resolve()) as studio:
        outcome = run(studio, options.cases, options.seed)
    times = sorted(outcome.seconds)
    print(f"{options.cases} cases, {len(times)} answers; status of the first: {outcome.statuses}")
    if times:
        print(
            f"answers: median {times[len(times) // 2] * 1000:.0f} ms,"
            f" 99 of 100 within {times[len(times) * 99 // 100] * 1000:.0f} ms,"
            f" slowest {times[-1] * 1000:.0f} ms"
        )
    print(f"memory in MiB, every 500 cases: {[round(now) for now in outcome.memory]}")
    print(f"at most: {outcome.peak:.0f} MiB")
    print(f"descriptors: {outcome.descriptors[0]} at first, {outcome.descriptors[1]} at the end")
    for line in outcome.broken:
        print("BROKEN", line)
    return 1 if outcome.broken else 0


if __name__ == "__main__":
    sys.exit(main())
