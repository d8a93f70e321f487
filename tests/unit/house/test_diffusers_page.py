"""Each row of the table in docs/diffusers.md, and the tests that hold what it says."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[3]
CHANGING, MODELS = "laws/test_changing_unets.py", "laws/test_diffusers_models.py"
COMPILED = "laws/compiled_unets.py"
ROWS = {
    "A LoRA is loaded": (CHANGING, "test_what_changes_after_apply_is_seen_at_the_next_call"),
    "Modules are swapped": (CHANGING, "test_what_changes_after_apply_is_seen_at_the_next_call"),
    "Offloading": (MODELS, "test_weights_that_are_offloaded_or_packed"),
    "`fuse_qkv_projections`": (CHANGING, "test_fusing_after_apply_says_so"),
    "`copy.deepcopy`": (CHANGING, "test_copies_have_no_networks_and_take_some"),
    "`copy.copy`": (CHANGING, "test_shallow_copies_and_replicas"),
    "`torch.compile`": (COMPILED, "test_compiled_unets"),
    "`fullgraph=True`": (COMPILED, "test_compiled_unets"),
    "A UNet compiled twice": (COMPILED, "test_a_second_compiled_copy_says_what_it_cannot_notice"),
    "`torch.export`": (CHANGING, "test_exporting_leaves_nothing_behind_and_keeps_the_networks"),
    "Gradient checkpointing": (CHANGING, "test_gradient_checkpointing"),
    "AnimateDiff": (MODELS, "test_in_video_networks_change_attention_in_space_only"),
    "IP-Adapter": (MODELS, "test_ip_adapters_keep_their_own_projections"),
    "ControlNet": ("contract/test_diffusers.py", "test_other_models_of_a_pipeline_are_left_alone"),
    "SDXL refiner": (MODELS, "test_a_refiner_is_a_model_of_its_own"),
    "Two attention modules": (CHANGING, "test_modules_that_sites_share_are_changed_once"),
    "Inference mode": (CHANGING, "test_contexts_changed_in_the_middle_of_a_call"),
}


def test_every_row_has_a_test() -> None:
    page = (ROOT / "docs" / "diffusers.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (.+?) \| .+ \|$", page, re.MULTILINE)[2:]
    assert len(rows) == len(ROWS)
    for row, (beginning, (file, name)) in zip(rows, ROWS.items(), strict=True):
        assert row.startswith(beginning)
        assert f"def {name}(" in (ROOT / "tests" / file).read_text(encoding="utf-8")
