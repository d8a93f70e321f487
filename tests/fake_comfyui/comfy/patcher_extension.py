"""Wrappers: functions around others, each of which calls the next."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class WrappersMP:
    """Kinds of wrappers."""

    OUTER_SAMPLE = "outer_sample"
    PREDICT_NOISE = "predict_noise"
    APPLY_MODEL = "apply_model"


class WrapperExecutor:
    """Calls the next wrapper, or what is wrapped."""

    def __init__(
        self, original: Callable[..., Any], class_obj: object, wrappers: list[Any], idx: int = 0
    ) -> None:
        self.original, self.class_obj = original, class_obj
        self.wrappers, self.idx = wrappers, idx

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return WrapperExecutor(self.original, self.class_obj, self.wrappers, self.idx + 1).execute(
            *args, **kwargs
        )

    def execute(self, *args: Any, **kwargs: Any) -> Any:
        if self.idx == len(self.wrappers):
            return self.original(*args, **kwargs)
        return self.wrappers[self.idx](self, *args, **kwargs)
