"""Configurations of ``train``: options in TOML, several runs in one file, and kohya's dataset
files.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..errors import TrainingSettingsError
from ..training.sources import CHANGES, Source, with_numbers
from ..training.toml import read_toml

KOHYA = {
    "resolution": "size",
    "batch_size": "batch",
    "enable_bucket": "buckets",
    "caption_dropout_rate": "caption_dropout",
    "network_multiplier": None,
    "bucket_no_upscale": None,
    "bucket_reso_steps": None,
    "min_bucket_reso": None,
    "max_bucket_reso": None,
    "skip_image_resolution": None,
    "max_token_length": "max_tokens",
}
"""Settings of a whole run in kohya's dataset files, by ours; ``None`` for those that we ignore."""
KOHYA_FOLDER = {
    "image_dir": "path",
    "num_repeats": "repeats",
    "class_tokens": "words",
    "is_reg": "prior",
    "conditioning_data_dir": "masks",
    "flip_aug": "flip",
    "alpha_mask": "alpha",
    "shuffle_caption": "shuffle",
    "caption_tag_dropout_rate": "tag_dropout",
    "keep_tokens": "keep_tokens",
    "caption_prefix": "prefix",
    "caption_suffix": "suffix",
    "enable_wildcard": "wildcards",
}
"""Likewise of a folder."""
_FOLDER = ("path", "repeats", "weight", "masks", "words", "prior")


def configured(
    options: argparse.Namespace, arguments: Sequence[str]
) -> Iterator[argparse.Namespace]:
    """The options of each run: those of the files, and what was typed over them.

    Args:
        options: as they were parsed.
        arguments: as they were typed, without the command's name.

    Raises:
        TrainingSettingsError: a file can't be used.
    """
    if not options.config:
        yield options
    for path in options.config or ():
        for table in _runs(path):
            yield _typed_over(_namespace(table, options, path), options, arguments)


def _runs(path: Path) -> Iterator[dict[str, Any]]:
    """The options of each run of one file."""
    content = read_toml(path)
    if "datasets" in content:
        content = from_kohya(content, path)
    runs = content.pop("runs", None) if isinstance(content.get("runs"), list) else None
    for table in runs if runs is not None else [{}]:
        yield content | table


def _namespace(
    table: Mapping[str, Any], options: argparse.Namespace, path: Path
) -> argparse.Namespace:
    """A namespace with the values of a table, read as if they were typed."""
    parser: argparse.ArgumentParser = options.parser
    actions = {a.dest: a for a in parser._actions}
    actions |= {name: a for a in parser._actions for name in _typed_names(a)}
    found = argparse.Namespace()
    for key, value in table.items():
        if key == "folders":
            continue  # they take the masks of the whole file
        if (action := actions.get(key.replace("-", "_"))) is None or action.dest == "config":
            raise TrainingSettingsError(f"{path}: there is no option {key}")
        setattr(found, action.dest, _read(parser, action, value, f"{path}: {key}"))

    if "folders" in table:
        found.sources = _sources(table["folders"], found, path)
    return found


def _sources(rows: Sequence[Any], found: argparse.Namespace, path: Path) -> tuple[Source, ...]:
    """The ``[[folders]]`` of a file.

    Raises:
        TrainingSettingsError: one can't be used, or the file says for all what each must say.
    """
    for dest, own in (("repeats", "repeats"), ("folder_weights", "weight")):
        if getattr(found, dest, None):
            raise TrainingSettingsError(
                f"{path}: the folders' {own} beside [[folders]] would have no effect: write "
                f"{own} = … into each of them"
            )
    masks: Path | None = getattr(found, "masks", None)
    sources = tuple(_source(row, path) for row in rows)
    return tuple(
        replace(source, masks=masks) if source.masks is None and not source.is_prior else source
        for source in sources
    )


def _typed_names(action: argparse.Action) -> list[str]:
    """How an option may be called in a file: as it is typed. Else by its field."""
    return [name.lstrip("-").replace("-", "_") for name in action.option_strings]


def _read(parser: argparse.ArgumentParser, action: argparse.Action, value: Any, what: str) -> Any:
    """A value as the command line would give it."""
    try:
        if isinstance(action, argparse._StoreConstAction):
            if not isinstance(value, bool):
                raise TypeError("it must be true or false")
            if isinstance(action, argparse._StoreTrueAction):
                return value or action.default
            return value == action.const  # `text_only = false` is `self_attention = true`
        if action.dest == "options" and isinstance(value, Mapping):
            return [(k, tuple(v) if isinstance(v, list) else v) for k, v in value.items()] or None
        if isinstance(action, argparse._AppendAction) or action.nargs in ("*", "+"):
            rows = value if isinstance(value, list) else [value]
            return [parser._get_value(action, _text(row)) for row in rows]
        found = parser._get_value(action, _text(value))
        parser._check_value(action, found)
        return found
    except (argparse.ArgumentError, TypeError, ValueError) as error:
        message = getattr(error, "message", None) or str(error)
        raise TrainingSettingsError(f"{what} = {value!r}: {message}") from error


def _text(value: Any) -> str:
    if isinstance(value, list):
        return ",".join(map(_text, value))
    if isinstance(value, (Mapping, bool)):
        raise TypeError("it must be a text, a number or a list")
    return str(value)


def _typed_over(
    found: argparse.Namespace, options: argparse.Namespace, arguments: Sequence[str]
) -> argparse.Namespace:
    """The file's options with those that were typed in their place."""
    before = argparse.Namespace(**vars(found))  # parsing changes the other
    parsed: argparse.Namespace = options.parser.parse_args(list(arguments), found)
    if not options.pictures and hasattr(before, "pictures"):
        parsed.pictures = before.pictures  # argparse gives an empty list for none
    if options.pictures:
        parsed.sources = ()  # other folders were typed
    if options.name is None:
        parsed.name = getattr(before, "name", None)
    elif not options.pictures and len(arguments) and hasattr(before, "name"):
        parsed.name = options.name
    parsed.sources = _with_typed(parsed.sources, options)
    parsed.argv, parsed.parser = arguments, options.parser
    return parsed


def _with_typed(sources: tuple[Source, ...], options: argparse.Namespace) -> tuple[Source, ...]:
    """The folders of a file with what was typed in place of what they say themselves.

    Raises:
        TrainingSettingsError: typed numbers don't fit the folders.
    """
    if not sources:
        return ()

    typed = {name for name in CHANGES if getattr(options, name) is not None}
    found = [
        source
        if source.is_prior
        else replace(source, changes={k: v for k, v in source.changes.items() if k not in typed})
        for source in sources
    ]
    return with_numbers(found, options.repeats, options.folder_weights, options.masks)


def _source(row: Any, path: Path) -> Source:
    """A ``[[folders]]`` table."""
    if not isinstance(row, Mapping) or not isinstance(row.get("path"), str):
        raise TrainingSettingsError(f'{path}: each of [[folders]] needs a path = "…"')
    if unknown := [key for key in row if key not in (*_FOLDER, *CHANGES)]:
        raise TrainingSettingsError(
            f"{path}: [[folders]] can't have {unknown[0]}, only {', '.join((*_FOLDER, *CHANGES))}"
        )
    masks, repeats = row.get("masks"), row.get("repeats", 1)
    weight = row.get("weight", 1.0)
    if isinstance(repeats, bool) or not isinstance(repeats, int):
        raise TrainingSettingsError(f"{path}: repeats must be a whole number, not {repeats!r}")
    if isinstance(weight, bool) or not isinstance(weight, (int, float)):
        raise TrainingSettingsError(f"{path}: weight must be a number, not {weight!r}")
    return Source(
        Path(row["path"]),
        repeats,
        float(weight),
        None if masks is None else Path(str(masks)),
        str(row.get("words", "")),
        row.get("prior") is True,
        {key: row[key] for key in CHANGES if key in row},
    )


def from_kohya(content: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Our options for a dataset file of kohya's: a folder takes what it doesn't say from its
    dataset, and that from ``[general]``.

    Raises:
        TrainingSettingsError: it says what we can't do, or different things for the whole run.
    """
    found: dict[str, Any] = {"folders": []}
    general = content.get("general", {})
    for dataset in content["datasets"]:
        for subset in dataset.get("subsets", []):
            merged = general | {k: v for k, v in dataset.items() if k != "subsets"} | subset
            own, run = dict[str, Any](), dict[str, Any]()
            for key, value in merged.items():
                if key in KOHYA_FOLDER:
                    own[KOHYA_FOLDER[key]] = value
                elif key in KOHYA:
                    run |= {} if KOHYA[key] is None else {str(KOHYA[key]): value}
                elif not _is_harmless(key, value):
                    raise TrainingSettingsError(f"{path}: {key} = {value!r} is not supported")
            if "size" in run:
                run["size"] = _size(run["size"])
            for key, value in run.items():
                if found.setdefault(key, value) != value:
                    raise TrainingSettingsError(
                        f"{path}: its datasets have several values of {key}, but a run has one"
                    )
            found["folders"].append(own)
    return found


def _size(value: Any) -> str:
    return "x".join(map(str, value)) if isinstance(value, list) else str(value)


def _is_harmless(key: str, value: Any) -> bool:
    """Whether a setting that we don't have changes nothing as it is set."""
    if key == "caption_extension":
        return value in (".txt", ".caption", "txt", "caption")
    return not value or key in ("cache_info", "caption_separator", "secondary_separator")
