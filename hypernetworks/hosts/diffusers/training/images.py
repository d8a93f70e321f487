"""The images of a job: gathered, told, split, encoded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from ....training import Examples
from ....training.cache import Cache, fingerprint
from ....training.contexts import Condition, Contexts
from ....training.contexts import Encode as EncodeTexts
from ....training.gathering import Gathered, Picture, bad_pictures, gather, listed
from ....training.overview import cropped, overview, samples_per_image, steps_for
from ....training.pictures import Encode, PictureSettings, load_examples, split_validation
from ....training.validation import ValidationLoss
from .captioner import Captioner, with_captions
from .frozen_model import FrozenModel
from .job import TrainingJob

Stage = Callable[[str, int, int], object]


class Images:
    """What one job learns from.

    Args:
        tell: told what the user should know.
        stage: told how far the encoding is; may raise to stop it.

    Raises:
        TrainingDataError, TrainingSettingsError: images that can't be used.
    """

    def __init__(
        self, job: TrainingJob, model: FrozenModel, tell: Callable[[str], object], stage: Stage
    ) -> None:
        self.job, self.model, self.tell, self.stage = job, model, tell, stage
        self.gathered: Gathered = gather(job.all_sources())
        self.gathered.check(skip_bad=job.skip_bad)
        self.learned: list[Picture] = []
        self.kept: list[Picture] = []
        self._cache: Cache | None = None

    def split(self, state: dict[str, Any] | None) -> None:
        """Decide what is learned from, and what is kept for validation, as earlier steps had it."""
        earlier: dict[str, bool] = {}
        if state is not None:
            earlier |= dict.fromkeys(state.get("held_out", ()), True)
            # Last, as steps without validation may have learned from what was kept before.
            earlier |= dict.fromkeys(state.get("seen", ()), False)
        share, seed = self.job.picture_settings.validation, self.job.settings.seed

        # The validation loss shall tell how well the new is learned, not how well the old is kept.
        prior = [picture for picture in self.gathered.pictures if picture.is_prior]
        own = [picture for picture in self.gathered.pictures if not picture.is_prior]
        learned, self.kept = split_validation(own, share, seed, earlier)
        self.learned = [*learned, *prior]

    def steps(self) -> int:
        """Steps by the number of images."""
        settings = self.job.settings
        samples = samples_per_image(self.learned)
        return steps_for(samples, settings.samples_per_step, settings.steps, self.job.epochs)

    def add_captions(self) -> None:
        """Let the captioner, if any, describe images that have no words."""
        job = self.job
        if job.captioner is None:
            return
        folder = job.captioner

        def load() -> Captioner:
            return Captioner(folder, self.model.device)

        def report(done: int, total: int) -> None:
            self.stage("writing captions", done, total)

        skipped: list[tuple[str, str]] | None = [] if job.skip_bad else None
        pictures, kept = [*self.learned, *self.kept], {picture.path for picture in self.kept}
        found = with_captions(pictures, job.folder, load, report, skipped)
        self.learned = [p for p in found if p.is_prior or p.path not in kept]
        self.kept = [p for p in found if not p.is_prior and p.path in kept]
        self._tell_skipped(skipped, self.learned)

    def _tell_skipped(
        self, skipped: Sequence[tuple[str, str]] | None, left: Sequence[object]
    ) -> None:
        """Name the images that can't be used.

        Raises:
            TrainingDataError: nothing is left to learn from.
        """
        if skipped and not left:
            raise bad_pictures(skipped, len(skipped))
        if skipped:
            self.tell(f"left out, as they can't be used: {listed(skipped)}")

    def report(self, settings: Any) -> list[str]:
        """Say what is left out; returns sentences about what will be learned."""
        for line in self.gathered.notes:
            self.tell(line)
        for line in self.gathered.left_out:
            self.tell(f"left out: {line}")
        for line in cropped(self.gathered.pictures, self.job.picture_settings):
            self.tell(line)
        return overview(self.learned, self.kept, self.job.picture_settings, settings)

    def contexts(self) -> Contexts:
        """What encodes captions."""
        settings, cache = self.job.picture_settings, self._opened_cache()
        encode: EncodeTexts = self._encode_texts
        # Captions that are drawn anew for each sample would fill the disk, and hardly come again.
        is_drawn = settings.shuffle or settings.tag_dropout or settings.wildcards
        if cache is not None and not is_drawn:
            texts = self.model.texts
            encode = cache.texts(encode, f"{texts.parts} parts, clip skip {texts.clip_skip}")
        return Contexts(encode)

    def _encode_texts(self, texts: Sequence[str]) -> Sequence[Condition]:
        found, read = self.model.encode_texts(texts), self.model.texts
        if read.too_long is not None:
            self.tell(
                f"captions are longer than the {read.most_tokens} tokens that the model reads, "
                "so their ends are not learned: put what matters first, shorten them, or have "
                "more read (`max_tokens`) "
                f'(one begins with "{read.too_long[:60]}")'
            )
        return found

    def examples(self, contexts: Contexts) -> Examples:
        """Everything that is learned from, encoded."""
        job = self.job
        skipped: list[tuple[str, str]] | None = [] if job.skip_bad else None
        self.stage("encoding images", 0, len(self.learned))
        examples = self._load(
            self.learned,
            job.picture_settings,
            skipped,
            lambda done, total: self.stage("encoding images", done, total),
        )
        self._tell_skipped(skipped, examples)

        self.stage("encoding captions", 0, 1)
        made = Examples(
            examples,
            contexts,
            batch=job.settings.samples_per_step,
            caption_dropout=job.settings.caption_dropout,
            seed=job.settings.seed,
        )
        wordless = [example.name for example in examples if example.caption.is_empty]
        if wordless:
            self.tell(
                f"{len(wordless)} of {len(examples)} images have no caption, such as "
                f"{wordless[0]}: write captions "
                'in text files or file names, or use a `template` such as "a picture of [name]"'
            )
        self.stage("encoding captions", 1, 1)
        return made

    def validation(self, contexts: Contexts, model_name: str = "") -> ValidationLoss | None:
        """What the validation loss is measured on, if on anything."""
        if not self.kept or not self.job.settings.watch_every:
            return None
        # One version per image, always the same: the loss must be comparable over the run.
        settings = replace(self.job.picture_settings, crops=1, flip=False, spread=False)
        skipped: list[tuple[str, str]] | None = [] if self.job.skip_bad else None
        examples = self._load(self.kept, settings, skipped, None)
        if skipped:
            told = "are left out of the validation loss" if examples else "leave no validation loss"
            self.tell(f"images that can't be used {told}: {listed(skipped)}")
        if not examples:
            return None

        texts, schedule = self.model.texts, self.model.schedule
        model = (model_name, texts.parts, texts.clip_skip, schedule.prediction)
        return ValidationLoss(examples, contexts, self.job.settings.seed, model)

    def _load(
        self,
        pictures: Sequence[Picture],
        settings: PictureSettings,
        skipped: list[tuple[str, str]] | None,
        report: Callable[[int, int], object] | None,
    ) -> list[Any]:
        encode: Encode = self.model.encode_pixels
        cache = self._opened_cache()
        if cache is not None:
            encode = cache.latents(encode)
        return load_examples(
            pictures, settings, encode, name=self.job.name, report=report, skipped=skipped
        )

    def _opened_cache(self) -> Cache | None:
        if self._cache is None and self.job.cache is not None:
            pipeline = self.model.pipeline
            parts = (pipeline.vae, pipeline.text_encoder, getattr(pipeline, "text_encoder_2", None))
            self._cache = Cache(self.job.cache, fingerprint(*(p for p in parts if p is not None)))
        return self._cache
