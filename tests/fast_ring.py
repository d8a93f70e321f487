"""The tests that the fast ring (``install.py test --fast``) leaves out, beside whole folders.

Each takes about a second of processor time or more, all its parameters together, or imports
diffusers, which takes four in each test process. What is left runs in less than a minute on two
cores; to see what takes long, add ``--durations=30``.
"""

from __future__ import annotations

from collections.abc import Collection

EVERY_TEST: Collection[str] = ("*",)
"""Stands for all tests of a file."""

SLOW: dict[str, Collection[str]] = {
    "contract/test_adapters_benchmark.py": EVERY_TEST,
    "contract/test_diffusers.py": EVERY_TEST,
    "contract/test_lora_fit.py": EVERY_TEST,
    "contract/test_training_memory.py": EVERY_TEST,
    "laws/test_changing_unets.py": EVERY_TEST,
    "laws/test_diffusers_models.py": EVERY_TEST,
    "laws/test_folding.py": EVERY_TEST,
    "laws/test_laws.py": (
        "test_each_picture_gets_its_own_networks",
        "test_factors_for_keys_and_values",
        "test_law_2_twice_is_once",
        "test_law_8_some_match_and_the_rest_is_listed",
        "test_law_9_the_random_state_is_untouched",
        "test_law_10_everything_is_checked_before_anything_is_changed",
        "test_law_1_apply_then_remove_leaves_nothing",
        "test_law_4_multiplier_0_is_the_identity_and_has_no_hooks",
        "test_law_5_removal_in_any_order",
        "test_law_6_an_error_in_the_middle_restores",
        "test_one_kind_of_attention_only",
        "test_a_context_changed_in_place_between_calls_is_seen",
        "test_autocast_does_not_lower_the_precision",
        "test_blocks_have_the_webuis_names_and_take_their_factors",
        "test_contexts_of_any_length",
        "test_fused_projections_are_refused_until_they_are_unfused",
        "test_in_every_mode_of_inference",
        "test_nothing_is_remembered_after_an_error",
        "test_quantised_projections_go_by_the_context",
        "test_two_threads",
        "test_law_7_dtype_and_device_come_back",
        "test_networks_of_cross_attention_run_once_per_call",
        "test_schedules_through_the_handle",
    ),
    "unit/cli/test_cli.py": (
        "test_convert_takes_folders_and_patterns",
        "test_the_studio_says_what_listening_means",
        "test_an_interrupted_generate_keeps_what_it_has",
        "test_generate_makes_a_picture_with_its_infotext",
        "test_generate_numbers_the_pictures_of_a_batch",
        "test_generate_overwrites_only_when_told",
    ),
    "unit/comfyui/test_nodes.py": (
        "test_comfyui_loads_the_project_as_one_of_its_custom_nodes",
        "test_compare_makes_a_sheet",
        "test_tags_come_out_of_the_prompt",
        "test_what_cannot_be_used_costs_a_message",
        "test_linear_networks_are_written_as_lora_and_checkpoint",
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
    "unit/conversion/test_failures.py": ("test_a_process_that_is_killed_loses_nothing",),
    "unit/conversion/test_to_lora.py": (
        "test_several_networks_become_one_lora",
        "test_the_loras_weight_is_the_multiplier",
        "test_lower_ranks_err_as_they_say",
    ),
    "unit/files/test_describing.py": (
        "test_all_refusals",
        "test_all_variants",
        "test_damaged_files",
    ),
    "unit/engine/test_arithmetic.py": (
        "test_chaining_in_float64",
        "test_collapsing_in_float64",
        "test_dtypes_of_file_and_context",
        "test_every_activation",
        "test_input_and_random_state_stay_untouched",
    ),
    "unit/files/test_hostile.py": (
        "test_bombs",
        "test_changed_pickles_with_the_right_checksum",
        "test_flipped_bits_and_changed_bytes",
    ),
    "unit/files/test_variants.py": ("test_round_trip",),
    "unit/hosts/test_passes.py": EVERY_TEST,
    "unit/hosts/test_steps.py": (
        "test_every_step_comes_once_in_order_and_the_last_run_is_the_last_step",
        "test_image_to_image_as_diffusers_pipelines_do_it",
    ),
    "unit/house/test_directions.py": (
        "test_everything_public_works_without_webui_gradio_and_diffusers",
    ),
    "unit/house/test_install_environment.py": (
        "test_a_broken_environment_is_made_again",
        "test_a_pip_conf_that_installs_elsewhere_is_left_out_but_its_other_lines_are_not",
    ),
    "unit/house/test_not_finite.py": EVERY_TEST,
    "unit/library/test_library_cache.py": (
        "test_what_is_in_use_is_found_again_whatever_the_limit",
    ),
    "unit/house/test_style.py": EVERY_TEST,
    "unit/library/test_library_names.py": (
        "test_fifty_thousand_names",
        "test_stems_that_several_files_share",
    ),
    "unit/patching/test_last_layer.py": (
        "test_every_projection_is_that_of_the_reference",
        "test_release_frees_all_of_it",
    ),
    "unit/prompts/test_near_misses.py": ("test_long_texts_take_no_time",),
    "unit/prompts/test_tags.py": (
        "test_clean_is_what_the_webui_leaves",
        "test_infotext_round_trip",
    ),
    "unit/studio/test_studio_checkpoints.py": (
        "test_a_vae_is_read_from_files_and_folders",
        "test_what_is_no_vae_is_said",
    ),
    "unit/studio/test_studio_restoring.py": ("test_any_other_key_is_named",),
    "unit/studio/test_studio_work.py": EVERY_TEST,
    "unit/training/test_training.py": ("test_an_interrupted_run_continues_bit_for_bit",),
    "unit/training/test_training_history.py": (
        "test_one_run_at_a_time_and_a_killed_one_locks_nothing",
    ),
    "unit/webui/test_webui_page.py": (
        "test_many_files_are_listed_fast",
        "test_no_name_breaks_out_of_its_card",
        "test_no_name_breaks_out_of_the_tree",
    ),
    "unit/webui/test_webui_rows.py": (
        "test_a1111_goes_through_its_rows_in_order_however_it_splits_them",
    ),
    "unit/house/test_benchmarks.py": ("test_a_part_that_fails_costs_itself_alone",),
    "unit/training/test_training_objective.py": (
        "test_debiased_weights_are_those_of_the_field",
        "test_min_snr_weights_are_those_of_the_field",
        "test_noise_levels_for_styles_are_mostly_noisy",
        "test_targets_are_those_of_the_field",
    ),
    "unit/webui/test_webui_infotext.py": ("test_five_thousand_files",),
    "unit/house/test_install.py": ("test_an_old_python_is_told",),
    "unit/house/test_install_resolving.py": (
        "test_pip_takes_the_cuda_wheel_from_an_index_like_pytorchs",
    ),
    "unit/webui/test_webui_api.py": ("test_the_login_of_the_gradio_that_is_installed",),
}
"""Test functions by file, seen from ``tests/``."""

GROUPS: dict[str, Collection[str]] = {
    "gradio": (
        "unit/cli/test_cli.py",
        "unit/library/test_reporting.py",
        "unit/studio/test_studio_converting.py",
        "unit/webui/test_webui_api.py",
        "unit/webui/test_webui_page.py",
        "unit/webui/test_webui_startup.py",
        "unit/webui/test_webui_training.py",
    ),
    "torch's compiler": (
        "unit/training/test_training.py",
        "unit/training/test_training_history.py",
        "unit/training/test_training_start.py",
    ),
}
"""Files whose tests import what takes seconds. In the fast ring, one process runs all of a group,
so that the others do not import it.
"""


def group_of(path: str) -> str:
    """The group of a file seen from ``tests/``; its path, where it is in none."""
    return next((name for name, paths in GROUPS.items() if path in paths), path)


def is_slow(path: str, function: str) -> bool:
    """Whether the fast ring leaves out a test.

    Args:
        path: of its file, seen from ``tests/``, with ``/``.
        function: its name without parameters.
    """
    functions = SLOW.get(path, ())
    return functions is EVERY_TEST or function in functions


def is_all_slow(path: str) -> bool:
    """Whether the fast ring leaves out all tests of a file.

    Args:
        path: of the file, seen from ``tests/``, with ``/``.
    """
    return SLOW.get(path) is EVERY_TEST
