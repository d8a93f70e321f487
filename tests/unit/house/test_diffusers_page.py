"""Each row of the table in docs/diffusers.md names the tests that hold what it says."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[3]
CHANGING, MODELS = "laws/test_changing_unets.py", "laws/test_diffusers_models.py"
COMPILED = "laws/compiled_unets.py"
CONTRACT, SEEN = (
    "contract/test_diffusers.py",
    "test_what_changes_after_apply_is_seen_at_the_next_call",
)
ROWS: dict[str, list[tuple[str, str]]] = {
    "A LoRA is loaded": [
        (CHANGING, SEEN),
        (CHANGING, "test_writes_that_nothing_counts_are_seen_on_accelerators"),
        (MODELS, "test_loras_of_peft"),
    ],
    "Modules are swapped": [
        (CHANGING, SEEN),
        ("laws/test_law_11.py", "test_law_11_the_next_call_is_right"),
    ],
    "Quantised layers": [
        (MODELS, "test_weights_that_are_offloaded_or_packed"),
        (MODELS, "test_layers_of_quantisation_libraries"),
    ],
    "Offloading": [(MODELS, "test_weights_that_are_offloaded_or_packed")],
    "`fuse_qkv_projections`": [
        (CHANGING, "test_fusing_after_apply_says_so"),
        (CHANGING, "test_attention_that_goes_round_its_projections_is_found"),
    ],
    "`copy.deepcopy`": [
        (CHANGING, "test_copies_have_no_networks_and_take_some"),
        (CONTRACT, "test_a_copied_pipeline_has_no_networks"),
    ],
    "`copy.copy`": [(CHANGING, "test_shallow_copies_and_replicas")],
    "`torch.compile`": [
        (COMPILED, "test_compiled_unets"),
        ("laws/compiled_changes.py", "test_law_11_of_compiled_unets"),
        ("laws/compiled_changes.py", "test_one_sequence_with_the_default_backend"),
    ],
    "`fullgraph=True`": [
        (COMPILED, "test_compiled_unets"),
        (COMPILED, "test_compiled_blocks_of_diffusers"),
    ],
    "A UNet compiled twice": [(COMPILED, "test_a_second_compiled_copy_says_what_it_cannot_notice")],
    "`torch.export`": [(CHANGING, "test_exporting_leaves_nothing_behind_and_keeps_the_networks")],
    "Gradient checkpointing": [
        (CHANGING, "test_gradient_checkpointing"),
        (MODELS, "test_gradient_checkpointing_as_diffusers_switches_it_on"),
    ],
    "AnimateDiff": [(MODELS, "test_in_video_networks_change_attention_in_space_only")],
    "IP-Adapter": [
        (MODELS, "test_ip_adapters_keep_their_own_projections"),
        (CHANGING, "test_attention_that_somebody_adds_is_left_alone"),
    ],
    "Textual inversion": [
        (
            "unit/hosts/test_prompt_encoding.py",
            "test_an_embedding_of_several_vectors_is_several_tokens",
        )
    ],
    "ControlNet": [
        (CONTRACT, "test_other_models_of_a_pipeline_are_left_alone"),
        (MODELS, "test_controlnets_and_t2i_residuals_are_left_alone"),
        (
            "unit/webui/test_webui_active.py",
            "test_networks_act_in_controlnets_as_the_built_in_does",
        ),
    ],
    "SDXL refiner": [(MODELS, "test_a_refiner_is_a_model_of_its_own")],
    "Two attention modules": [
        (CHANGING, "test_modules_that_sites_share_are_changed_once"),
        (CHANGING, "test_shared_modules_that_would_need_two_multipliers_are_refused"),
    ],
    "Inference mode": [(CHANGING, "test_contexts_changed_in_the_middle_of_a_call")],
}


def test_every_row_has_tests() -> None:
    page = (ROOT / "docs" / "diffusers.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (.+?) \| .+ \|$", page, re.MULTILINE)[2:]
    assert len(rows) == len(ROWS)
    for row, (beginning, tests) in zip(rows, ROWS.items(), strict=True):
        assert row.startswith(beginning)
        for file, name in tests:
            assert f"def {name}(" in (ROOT / "tests" / file).read_text(encoding="utf-8")
