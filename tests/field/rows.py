"""Which tests hold what was found in the field, row by row.

The rows are kinds of mistakes, each met in somebody's situation: A by names, B by layouts and what
lies beside, C by vocabularies and rows, D where what was said was not so, E where something was
refused that could work. `test_rows.py` looks that each has a test that is there.
"""

from __future__ import annotations

from collections.abc import Mapping

_N, _L = "field/test_field_names.py", "vocabularies/test_little_found.py"
_B, _A = "planning/test_beside.py", "planning/test_altered.py"
_K, _O = "slots/test_keras_advice.py", "slots/test_slots_one_truth.py"
_S, _P = "formats/keras/test_storage_paths.py", "formats/test_parts_and_archives.py"
_E, _R = "names/test_evidence.py", "suggesting/test_rules_that_hold.py"
_D, _F = "layouts/test_described.py", "planning/test_file_audit.py"

TESTS: Mapping[str, tuple[str, ...]] = {
    "A1": (f"{_S}::test_folders_are_not_names_and_the_error_proposes_rules",),
    "A2": (f"{_E}::test_a_scope_that_only_some_are_in_is_not_skipped",),
    "A3": (
        f"{_S}::test_a_new_layer_does_not_get_what_a_model_within_has_by_that_name",
        f"{_E}::test_one_tensor_is_not_found_for_two_untied_variables",
    ),
    "A4": (
        f"{_R}::test_no_pattern_comes_from_one_example",
        f"{_N}::test_a_rule_of_a_suggestion_never_throws_a_number_away",
    ),
    "A5": (
        f"{_N}::test_one_prefix_for_all_is_one_problem_with_the_rule_that_works",
        f"{_N}::test_a_wrapper_in_the_middle_of_a_key_is_no_part_of_it",
    ),
    "A6": (f"{_R}::test_names_that_differ_in_punctuation_are_near",),
    "A7": (f"{_E}::test_a_scope_may_end_at_any_folder_of_a_layer",),
    "A8": (f"{_S}::test_of_layers_with_one_name_the_error_says_where_each_is",),
    "A9": (f"{_E}::test_a_rule_adds_a_suffix_to_whatever_the_name_is",),
    "A10": (
        "formats/tensorflow/test_folder_prefixes.py::"
        "test_it_opens_by_the_folder_the_prefix_or_a_file",
    ),
    "B1": ("zoo/test_zoo.py::test_nothing_is_silently_wrong",),
    "B2": (
        f"{_D}::test_a_kernel_by_its_equation_computes_the_same",
        f"{_D}::test_an_einsum_without_its_equation_is_refused_where_it_may_be_either",
    ),
    "B3": ("formats/test_families.py::test_a_square_kernel_of_tensorflow_is_transposed",),
    "B4": (
        "layouts/test_parametrized.py::"
        "test_a_kernel_into_a_spectrally_normed_layer_is_transposed_and_told",
        "layouts/test_parametrized.py::test_a_kernel_into_a_normed_layer_is_transposed",
    ),
    "B5": (f"{_B}::test_the_adapters_of_a_saved_model_are_not_lost",),
    "B6": ("formats/test_families.py::test_a_table_in_parts_is_one_table",),
    "B7": (
        f"{_R}::test_a_tensor_with_a_leaf_that_its_module_never_has_is_proposed_by_name",
        "suggesting/test_offers.py::"
        "test_axes_of_size_one_in_front_are_offered_with_the_layout_that_drops_them",
    ),
    "B8": ("field/test_field_layouts.py::test_frozen_biases_of_an_lstm_are_said_to_be_the_same",),
    "B9": (f"{_D}::test_what_torchs_recurrent_layer_cannot_be_is_refused",),
    "B10": (
        f"{_F}::test_torchs_default_is_right_where_the_file_has_it",
        f"{_F}::test_another_epsilon_is_told_whatever_it_is",
    ),
    "B11": (f"{_D}::test_theanos_kernels_are_mirrored",),
    "B12": (f"{_A}::test_a_quantised_weight_is_refused_and_said_to_be",),
    "B13": (
        f"{_A}::test_a_weight_with_an_adapter_is_refused",
        f"{_A}::test_the_original_beside_a_trained_one_is_never_taken",
        "planning/test_adapters_elsewhere.py::test_an_adapter_called_after_a_layer_is_a_problem",
    ),
    "B14": ("layouts/test_parametrized.py::test_a_normed_weight_becomes_a_plain_one",),
    "B15": (f"{_B}::test_one_more_cell_is_not_left_behind",),
    "B16": (
        f"{_B}::test_statistics_are_not_left_beside_a_norm_that_has_none",
        f"{_F}::test_sizes_that_do_not_show_their_order_are_told",
    ),
    "B17": (f"{_F}::test_a_bias_that_is_left_unpermuted_keeps_the_audit",),
    "B18": (f"{_K}::test_the_models_own_kernel_is_no_slot",),
    "B19": (f"{_K}::test_legacy_rmsprop_goes_on_with_the_same_epsilon",),
    "B20": (f"{_O}::test_an_optimizer_that_tensorflow_has_nothing_like_is_said",),
    "C1": (f"{_L}::test_nothing_found_is_an_error_where_another_reading_would_match",),
    "C2": (f"{_L}::test_content_of_another_form_is_named",),
    "C3": (f"{_L}::test_a_vocabulary_longer_than_its_table_is_heard",),
    "C4": (
        "vocabularies/test_vocab_sidecar.py::test_a_shuffled_vocabulary_of_equal_size_is_refused",
        "field/test_field_vocabularies.py::test_the_modules_vocabulary_in_other_rows_is_heard",
    ),
    "C5": (f"{_L}::test_oov_rows_that_are_left_behind_name_the_setting",),
    "C6": (
        f"{_L}::test_subclasses_of_str_bytes_and_int_are_what_they_are",
        f"{_L}::test_what_keras_puts_first_is_an_entry",
    ),
    "C7": (
        "vocabularies/test_vocab_arrow.py::test_columns_of_pandas_and_polars",
        "vocabularies/test_vocab_tokenizers.py::test_a_fast_tokenizer_and_its_directory",
        "vocabularies/test_vocab_values.py::test_a_mapping_leads_to_rows_and_leaves_gaps",
    ),
    "C8": (f"{_R}::test_the_size_along_a_vocabulary_is_no_evidence",),
    "C9": (
        "execution/test_several_axes.py::test_features_are_moved_by_name_and_one_hot_ones_by_entry",
    ),
    "C10": ("execution/test_several_axes.py::test_another_vocabulary_and_another_width",),
    "C11": (
        "planning/test_fitting_advice.py::test_layers_in_one_tensor_are_to_be_split",
        "planning/test_fitting_advice.py::test_a_placeholder_of_zero3_is_said_to_be_one",
        "planning/test_fitting_advice.py::"
        "test_a_vector_of_one_number_is_that_number_as_torch_has_it",
    ),
    "C12": (
        "slots/test_tables_by_keys.py::test_the_values_of_a_slots_table_are_no_rows_of_the_variable",
    ),
    "C13": (
        "formats/arrays/test_tokens_with_spaces.py::test_tokens_of_a_binary_table_may_have_spaces",
        "formats/arrays/test_tokens_with_spaces.py::"
        "test_bytes_behind_the_last_vector_are_corruption",
    ),
    "D1": (
        "execution/test_telling.py::test_buffers_that_stay_behind_are_heard_from_the_callers_line",
    ),
    "D2": (
        "slots/test_optimizer_argument.py::test_a_checkpoint_of_yesterday_brings_the_whole_state",
    ),
    "D3": (f"{_O}::test_a_slot_that_is_named_is_not_said_to_stay",),
    "D4": (
        "planning/test_extra_state.py::test_an_extra_state_that_is_not_taken_is_listed",
        "planning/test_extra_state.py::test_one_that_is_a_tensor_is_listed_and_said_too",
    ),
    "D5": (f"{_O}::test_the_global_step_counts_for_a_keras_optimizer_of_an_estimator",),
    "D6": (
        "execution/test_meta_models.py::"
        "test_transient_buffers_that_nobody_makes_are_named_and_stay_on_meta",
    ),
    "D7": (
        "distributed/test_sharded_models.py::"
        "test_copies_that_nobody_knows_of_may_differ_and_that_is_said",
    ),
    "D8": ("field/test_field_layouts.py::test_what_differs_in_long_names_is_shown",),
    "D9": (
        "proof/test_what_a_proof_holds.py::test_an_output_whose_axes_are_swapped_departs",
        "proof/test_what_a_proof_holds.py::test_nothing_but_nan_proves_nothing",
    ),
    "D10": (
        f"{_K}::test_averages_and_sums_of_gradients_are_no_state_in_an_object_graph",
        f"{_K}::test_no_number_is_proposed_where_the_order_is_not_known",
    ),
    "D11": (
        "docs/test_claims_optimizers.py::test_the_order_of_parameters_in_the_new_program_may_differ",
        "docs/test_claims_optimizers.py::"
        "test_the_same_class_goes_on_if_its_options_keep_no_more_than_the_old_ones",
        "docs/test_claims_porting.py::"
        "test_two_layers_of_a_flattening_are_told_until_their_layout_is_named",
    ),
    "E: names that load hooks change": (
        f"{_N}::test_names_that_torchs_own_load_hooks_change",
        f"{_N}::test_a_model_that_renames_its_keys_starts_from_its_twin",
    ),
    "E: subclasses of tensors": (f"{_N}::test_a_subclass_of_tensors_is_a_source",),
    "E: other param groups": (f"{_N}::test_param_groups_may_be_others",),
    "E: Keras's shards": (f"{_N}::test_keras_weights_in_several_files_are_read",),
    "E: names with dots": (f"{_R}::test_names_with_dots_of_their_own_are_suggested_and_found",),
    "E: strange files": (
        "formats/test_strangers.py::test_it_is_said_what_a_file_is",
        f"{_P}::test_archives_are_said_to_be_archives",
    ),
    "E: globals of a pickle": (
        "formats/torch/test_stand_ins.py::test_what_lies_beside_the_weights_does_not_keep_them",
        "formats/torch/test_stand_ins.py::test_a_pickled_module_is_what_its_state_dict_would_be",
        "formats/test_strangers.py::test_a_torch_file_with_more_says_how_to_allow_it",
    ),
    "E: bare errors": (
        f"{_N}::test_ids_beyond_64_bits_and_a_default_device_of_meta_are_errors_of_ours",
    ),
    "E: a home folder": ("formats/test_strangers.py::test_a_home_folder_is_found",),
    "E: a loose tensor": (f"{_N}::test_one_loose_tensor_hides_no_state",),
    "E: an entry is a tree": (
        "formats/torch/test_entries_by_names.py::test_an_entry_may_be_a_tree",
        f"{_P}::test_a_module_of_the_model_that_is_an_entry_of_its_own",
    ),
    "E: a step by group": (
        "slots/test_torch_param_groups.py::test_a_count_of_a_groups_steps_is_each_parameters",
    ),
    "E: other names of tied tensors": (
        f"{_P}::test_a_tied_weight_that_is_saved_once_has_both_names",
    ),
    "E: arrays in memory": (f"{_N}::test_arrays_of_numpy_in_memory_are_a_state",),
    "E: a second model": (f"{_P}::test_the_second_model_of_accelerate_is_mentioned",),
    "E: averages beside": (
        "formats/torch/test_averages_beside.py::"
        "test_an_entry_of_averages_is_told_with_what_takes_it",
    ),
    "E: a lone shard": (f"{_P}::test_a_shard_by_itself_says_that_it_is_one",),
    "E: amsgrad": (f"{_N}::test_amsgrad_may_be_new",),
    "E: values as JSON": ("cli/test_cli.py::test_json_is_one_document_with_everything",),
}
