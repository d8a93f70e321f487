"""What a job leaves behind for the jobs after it, or around it: nothing."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from types import SimpleNamespace
from typing import Any

import pytest
from fake_webui import HOSTS, FakeWebui

from hypernetworks.hosts.infotext import HASHES
from hypernetworks.hosts.webui import extra_network
from hypernetworks.prompts import parse

every_host = pytest.mark.parametrize("fake_webui", HOSTS, indirect=True)
Written = dict[str, dict[str, str]]


def jobs(
    webui: FakeWebui, within: Callable[[Any, Any], None] = lambda *_: None
) -> tuple[Any, Written]:
    """The webui's module for jobs, and the infotexts of their images by prompt.

    Args:
        within: called with the module and each job, before its image is saved.
    """
    processing, written = webui.module("processing"), Written()

    def process_images_inner(p: Any) -> Any:
        p.all_prompts, p.iteration = [p.prompt], 0
        p.prompts, tags = [parse(p.prompt)[0]], parse(p.prompt)[1]
        extra_network.activate(p, [tag.items for tag in tags])
        within(processing, p)
        written[p.prompt] = {key: str(text) for key, text in p.extra_generation_params.items()}
        # As in all hosts, the dictionary is the job's own.
        return SimpleNamespace(
            extra_generation_params=p.extra_generation_params, comments="".join(p.comments)
        )

    processing.process_images_inner = process_images_inner
    extra_network.register()
    return processing, written


@every_host
def test_a_message_is_not_written_into_later_images(fake_webui: FakeWebui) -> None:
    processing, written = jobs(fake_webui)
    first = processing.StableDiffusionProcessing("")
    answers = []
    for prompt in ("a cat <hypernet:nosuch:1>", "a dog"):  # as "Prompts from file" does
        line = copy(first)
        line.prompt = prompt
        answers.append(processing.process_images_inner(line).extra_generation_params)
    assert "nosuch" in answers[0][extra_network.MESSAGES]
    assert extra_network.MESSAGES not in answers[1]
    assert not any(extra_network.MESSAGES in texts for texts in written.values())

    first.comments.clear()
    for prompt in ("a cat <hypernet:nosuch:1>", "a bird"):  # as loopback uses a job again
        first.prompt = prompt
        answer = processing.process_images_inner(first).extra_generation_params
        assert (extra_network.MESSAGES in answer) == ("nosuch" in prompt)


def test_a_job_inside_another_keeps_its_hashes_to_itself(fake_webui: FakeWebui) -> None:
    def detail(processing: Any, p: Any) -> None:
        if p.prompt == "a cat":
            p.extra_generation_params[HASHES] = "ink: 0123456789"  # as after its own networks
            inner = copy(p)
            inner.prompt = "a face"
            processing.process_images_inner(inner)

    processing, written = jobs(fake_webui, detail)
    processing.process_images_inner(processing.StableDiffusionProcessing("a cat"))
    assert HASHES not in written["a face"]
    assert HASHES in written["a cat"]
