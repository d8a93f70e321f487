"""The tests that the fast ring (``install.py test --fast``) leaves out, beside whole folders.

Each takes more than about a second of processor time, all its parameters together. What is left
runs in under a minute on two cores; to see what takes long, add ``--durations=30``.
"""

from __future__ import annotations

from collections.abc import Collection

EVERY_TEST: Collection[str] = ("*",)
"""Stands for all tests of a file."""

SLOW: dict[str, Collection[str]] = {
    "contract/test_diffusers.py": EVERY_TEST,
    "contract/test_lora_fit.py": EVERY_TEST,
    "laws/test_changing_unets.py": EVERY_TEST,
    "laws/test_folding.py": EVERY_TEST,
    "laws/test_laws.py": (
        "test_a_context_changed_in_place_between_calls_is_seen",
        "test_autocast_does_not_lower_the_precision",
        "test_blocks_have_the_webuis_names_and_take_their_factors",
        "test_law_7_dtype_and_device_come_back",
        "test_networks_of_cross_attention_run_once_per_call",
        "test_schedules_through_the_handle",
    ),
    "unit/cli/test_cli.py": ("test_convert_takes_folders_and_patterns",),
    "unit/comfyui/test_nodes.py": (
        "test_comfyui_loads_the_project_as_one_of_its_custom_nodes",
        "test_compare_makes_a_sheet",
        "test_tags_come_out_of_the_prompt",
        "test_what_cannot_be_used_costs_a_message",
    ),
    "unit/comfyui/test_sampling.py": (
        "test_a_second_order_sampler_keeps_the_step",
        "test_an_error_of_ours_costs_the_networks_and_not_the_image",
        "test_an_interrupted_pass_leaves_the_unet_as_it_was",
        "test_as_apply_and_restored",
        "test_conditionings_with_networks_of_their_own",
        "test_two_nodes_make_a_stack_in_their_order",
    ),
    "unit/conversion/test_baking.py": EVERY_TEST,
    "unit/conversion/test_to_lora.py": ("test_the_loras_weight_is_the_multiplier",),
    "unit/files/test_describing.py": (
        "test_all_refusals",
        "test_all_variants",
        "test_damaged_files",
    ),
    "unit/files/test_hostile.py": ("test_bombs",),
    "unit/hosts/test_steps.py": (
        "test_every_step_comes_once_in_order_and_the_last_run_is_the_last_step",
    ),
    "unit/house/test_install_environment.py": (
        "test_a_broken_environment_is_made_again",
        "test_a_pip_conf_that_installs_elsewhere_is_left_out_but_its_other_lines_are_not",
    ),
    "unit/library/test_library_cache.py": (
        "test_what_is_in_use_is_found_again_whatever_the_limit",
    ),
    "unit/library/test_library_names.py": ("test_fifty_thousand_names",),
    "unit/prompts/test_near_misses.py": ("test_long_texts_take_no_time",),
    "unit/studio/test_studio_work.py": EVERY_TEST,
    "unit/training/test_training.py": ("test_an_interrupted_run_continues_bit_for_bit",),
    "unit/training/test_training_history.py": (
        "test_one_run_at_a_time_and_a_killed_one_locks_nothing",
    ),
    "unit/webui/test_webui_rows.py": (
        "test_a1111_goes_through_its_rows_in_order_however_it_splits_them",
    ),
}
"""Test functions by file, seen from ``tests/``."""


def is_slow(path: str, function: str) -> bool:
    """Whether the fast ring leaves out a test.

    Args:
        path: of its file, seen from ``tests/``, with ``/``.
        function: its name without parameters.
    """
    functions = SLOW.get(path, ())
    return functions is EVERY_TEST or function in functions
