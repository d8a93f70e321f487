"""Every error this project raises on purpose. Each message says what went wrong and what to do.

.. code-block:: text

    HypernetworkError
    ├── FileError                    something about a hypernetwork file
    │   ├── FileMissingError         no such file (also FileNotFoundError)
    │   ├── FileUnreadableError      a folder, no permission, … (also OSError)
    │   ├── FileCorruptError         truncated or not what it claims to be
    │   ├── FileUnsafeError          it asks to run code; nothing was run
    │   ├── NotAHypernetworkError    a healthy file of another kind
    │   ├── UnsupportedVariantError  a kind of hypernetwork that can't be read faithfully
    │   └── FileWriteError           it could not be written; the old one is intact (also OSError)
    ├── StructureError               tensors that don't fit their description (also ValueError)
    ├── MultiplierError              a multiplier or schedule that is invalid (also ValueError)
    ├── TagError                     a tag that can't be understood or applied (also ValueError)
    ├── NameLookupError              a name in a library (also LookupError)
    │   ├── UnknownNameError         nothing has that name
    │   └── AmbiguousNameError       several files have it
    ├── PatchError                   a model that can't be altered
    │   ├── NoAttentionError         it has no to_k / to_v
    │   └── NoMatchingWidthError     the networks have none of its widths
    ├── CheckpointError              a checkpoint that can't be used
    ├── ImageError                   an image that can't be read
    │   └── ImageTooLargeError       it has too many pixels
    ├── DeviceError                  a device that this machine, or its torch, can't compute on
    └── TrainingError                a training run that can't start or go on
        ├── TrainingSettingsError    settings that can't be used (also ValueError)
        ├── TrainingDataError        images or captions that can't be used
        ├── TrainingStateError       a run's folder that another run has, or that is damaged
        └── DivergenceError          the loss is no number, or has run away
"""

from __future__ import annotations

import re
from unicodedata import category


def sendable(text: str) -> str:
    """The text with what is no valid Unicode escaped (``\\udce9``): file names may hold it, UTF-8
    and JSON can't.
    """
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


class HypernetworkError(Exception):
    """Base of all errors of this package.

    Their messages can be sent as UTF-8, whatever is in a file's name.
    """

    def __init__(self, *arguments: object) -> None:
        super().__init__(*(sendable(a) if isinstance(a, str) else a for a in arguments))


class FileError(HypernetworkError):
    """Something is wrong with a hypernetwork file."""


class FileMissingError(FileError, FileNotFoundError):
    """There is no file at that path."""


class FileUnreadableError(FileError, OSError):
    """The path is a folder, or the system refuses to read it."""


class FileCorruptError(FileError):
    """The file is truncated, damaged, or not what its first bytes claim."""


class FileUnsafeError(FileError):
    """The file asks for code to be run. Nothing was run."""


class NotAHypernetworkError(FileError):
    """The file is healthy but holds something else."""


class UnsupportedVariantError(FileError):
    """A kind of hypernetwork that can't be read with the right arithmetic."""


class FileWriteError(FileError, OSError):
    """The file could not be written; what was there before is untouched."""


class StructureError(HypernetworkError, ValueError):
    """A layer structure that can't be built, or that the tensors contradict."""


class MultiplierError(HypernetworkError, ValueError):
    """A multiplier or schedule that can't be understood."""


class TagError(HypernetworkError, ValueError):
    """A tag that can't be understood, or can't be applied to this model."""


class NameLookupError(HypernetworkError, LookupError):
    """A name that a library can't resolve."""


class UnknownNameError(NameLookupError):
    """No file has that name; the message offers the nearest ones."""


class AmbiguousNameError(NameLookupError):
    """Several files have that name; the message lists them."""


class PatchError(HypernetworkError):
    """A model that can't be altered as asked."""


class NoAttentionError(PatchError):
    """The model has no attention modules with ``to_k`` and ``to_v``."""


class NoMatchingWidthError(PatchError):
    """No network has any of the widths of the model."""


class CheckpointError(HypernetworkError):
    """A checkpoint that can't be used."""


class ImageError(HypernetworkError):
    """An image that can't be read: another kind of file, too many pixels, or damaged."""


class ImageTooLargeError(ImageError):
    """An image of more pixels than are decoded here; it may be sound."""


class DeviceError(HypernetworkError):
    """A device that this machine, or its torch, can't compute on."""


class TrainingError(HypernetworkError):
    """A training run that can't start or go on."""


class TrainingSettingsError(TrainingError, ValueError):
    """Settings of a training run that can't be used.

    Args:
        setting: the field of the settings that the message is about, for a caller that has another
            name for it. The message may begin with it.
    """

    def __init__(self, *arguments: object, setting: str | None = None) -> None:
        super().__init__(*arguments)
        self.setting = setting

    def called(self, name: str) -> str:
        """The message with another name for the setting, such as the option that a user types; at
        the end where the message doesn't begin with it.
        """
        text = str(self)
        if self.setting is None or name in text:
            return text
        begins = re.match(rf"{re.escape(self.setting)}\b", text)
        return name + text[begins.end() :] if begins else f"{text} ({name})"


class TrainingDataError(TrainingError):
    """Images, captions or a template that can't be trained on."""


class TrainingStateError(TrainingError):
    """The folder of a run can't be continued: it belongs to other settings, or is damaged."""


class DivergenceError(TrainingError):
    """The loss is not a finite number or has run away; the network is back at the last good
    state.
    """


def printable(text: str, longest: int = 80) -> str:
    """Text from a file or a path, short and without control characters, fit for a message.

    Blanks of other widths stay, such as those between Japanese words.
    """
    return "".join(c if c.isprintable() or category(c) == "Zs" else "?" for c in text[:longest])
