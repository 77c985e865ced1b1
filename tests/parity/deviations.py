"""Where we differ from TensorFlow on purpose, all of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from differential import (
    Objects,
    Scenario,
)
from rewrites import (
    agrees_only_otherwise,
    axes_from_the_start,
    by_dotted_names,
    by_names_without_output_number,
    canonical_entries,
    cast_beforehand,
    each_once,
    found_in_a_scope,
    found_in_another_spelling,
    has_too_few_rows,
    is_found_twice,
    is_of_another_form,
    leaves_old_rows_behind,
    none_takes_buffers,
    old_sizes_of_columns,
    points_past_the_columns,
    remapped_by_loops,
    renames_to_keys,
    selects_nothing,
    sizes_of_all_entries,
    spread_over_modules,
    whole_variables,
    whole_where_columns_are_cut,
    whole_where_entries_repeat,
    whole_where_slices_of_half_differ,
)

# -- the deviations --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Deviation:
    """A place where we differ from TensorFlow on purpose.

    Either `rewrite` turns a scenario into the one that we understand it as, and applies where that
    is another one; or `applies` says where we refuse, with a message that `refusal` matches.
    """

    id: str
    theirs: str
    ours: str
    why: str
    rewrite: Callable[[Scenario], Scenario] | None = None
    applies: Callable[[Scenario], bool] | None = None
    refusal: str = ""


DEVIATIONS: tuple[Deviation, ...] = (
    Deviation(
        "D-EMPTY-PATTERN",
        theirs="takes an empty str for None, one in a list for all, and an empty list for nothing",
        ours="refuse them",
        why="they read as if they selected everything",
        applies=lambda scenario: (
            scenario.selection in ("", [], Objects(()))
            or (isinstance(scenario.selection, list) and "" in scenario.selection)
        ),
        refusal="empty pattern|empty list",
    ),
    Deviation(
        "D-EMPTY-NAME",
        theirs="calls an empty previous name unused; with None it takes it for none",
        ours="refuse it",
        why="no tensor is called so: it can only be a mistake",
        applies=lambda scenario: "" in scenario.renames.values(),
        refusal=r"var_name_to_prev_var_name maps variable names",
    ),
    Deviation(
        "D-NAME-SPELLING",
        theirs="calls an entry for `a/b:0` or `a.b` unused",
        ours="take it for the variable `a.b`",
        why="all are names of that variable",
        rewrite=canonical_entries,
    ),
    Deviation(
        "D-MODULE-VOCAB",
        theirs="calls a VocabInfo for a layer, `a` of `a/b`, unused",
        ours="take it for all of the layer's own variables that have its axis",
        why="the kernel and the bias of a head have the same classes",
        rewrite=spread_over_modules,
    ),
    Deviation(
        "D-NOTHING",
        theirs="does nothing, in silence",
        ours="refuse a selection of which a part selects nothing",
        why="a misspelt pattern would leave the model as it was initialised",
        applies=selects_nothing,
        refusal="matches none of|there is none|not a regular expression",
    ),
    Deviation(
        "D-NONE-BUFFERS",
        theirs="with None refuses entries for variables that are not trainable",
        ours="take every variable that has a VocabInfo",
        why="the entry says by name what is meant",
        rewrite=none_takes_buffers,
    ),
    Deviation(
        "D-PARTS",
        theirs="matches patterns against the names of parts, `a/part_0:0`",
        ours="match them against the variable's name",
        why="a torch variable has no parts",
        rewrite=whole_variables,
    ),
    Deviation(
        "D-DOTS",
        theirs="matches patterns against names with slashes",
        ours="match them against names with dots, unless they spell a slash and no `\\.`",
        why="torch's names have dots",
        rewrite=by_dotted_names,
    ),
    Deviation(
        "D-SUFFIX",
        theirs="matches patterns against `a:0`",
        ours="match them against the name and a newline, unless they spell `:0`",
        why="`weight$` must find a weight, and `v2[^/]` must still find `v2`",
        rewrite=by_names_without_output_number,
    ),
    Deviation(
        "D-OVERLAP",
        theirs="refuses a variable that is selected twice",
        ours="select it once",
        why="nothing is unclear about it",
        rewrite=each_once,
    ),
    Deviation(
        "D-KEY-SPELLING",
        theirs="does not find the tensor if a rename says `b:0` or `a.b` for `b` or `a/b`",
        ours="find it",
        why="only one tensor can be meant",
        rewrite=renames_to_keys,
    ),
    Deviation(
        "D-AMBIGUOUS",
        theirs="takes the tensor `a/b`, though the checkpoint has `a.b` or `a/b:0` too",
        ours="refuse to choose",
        why="each of them may be the variable `a.b`",
        applies=is_found_twice,
        refusal="found under different keys",
    ),
    Deviation(
        "D-FOUND-SPELLING",
        theirs="does not find the tensor `a.b` or `a/b:0` for the variable `a/b`",
        ours="find it",
        why="torch writes dots, and a Saver that is given tensors' names writes `:0`",
        rewrite=found_in_another_spelling,
    ),
    Deviation(
        "D-IN-A-SCOPE",
        theirs="does not find the tensor `s/a/b` for the variable `a/b`",
        ours="find it, if there is no `a/b` and only one that is called so in one more scope",
        why="Keras puts the model's own name in front",
        rewrite=found_in_a_scope,
    ),
    Deviation(
        "D-NEGATIVE-OOV",
        theirs="takes a negative num_oov_buckets off the rows",
        ours="refuse it",
        why="it can only be a mistake",
        applies=lambda s: any(vocab.oov < 0 for vocab in s.vocabs.values()),
        refusal="num_oov_buckets is -",
    ),
    Deviation(
        "D-ALL-ENTRIES",
        theirs="takes new_vocab_size=-1 for a number",
        ours="take all entries",
        why="it means so in old_vocab_size",
        rewrite=sizes_of_all_entries,
    ),
    Deviation(
        "D-NEGATIVE-AXIS",
        theirs="refuses a negative axis",
        ours="count it from the end",
        why="torch does so everywhere",
        rewrite=axes_from_the_start,
    ),
    Deviation(
        "D-COLUMNS-OLD-SIZE",
        theirs="ignores old_vocab_size for axis 1",
        ours="obey it",
        why="the setting says nothing of an axis",
        rewrite=old_sizes_of_columns,
    ),
    Deviation(
        "D-PART-DUPLICATES",
        theirs="lets two parts of a variable claim one old row",
        ours="refuse an entry that is there twice, as TensorFlow does for one part",
        why="the result would depend on how the variable was cut",
        rewrite=whole_where_entries_repeat,
    ),
    Deviation(
        "D-PART-COLUMNS",
        theirs="cannot remap a variable that is cut along its columns",
        ours="remap it: a torch variable is whole",
        why="there is nothing to refuse",
        rewrite=whole_where_columns_are_cut,
    ),
    Deviation(
        "D-OTHER-CONTENT",
        theirs="reads whatever bytes a vocabulary file has as lines",
        ours="refuse a file that is something else than text, and say what it is",
        why="a table, an archive or a byte-order mark as entries would be found nowhere",
        applies=is_of_another_form,
        refusal=r"one entry a line|by returns alone|is UTF-16|a byte-order mark",
    ),
    Deviation(
        "D-NOTHING-FOUND",
        theirs="fills all rows anew if none of a vocabulary is found",
        ours="refuse it where another reading of the entries would match",
        why="a change of case or a prefix would cost the whole table, in silence",
        applies=agrees_only_otherwise,
        refusal=r"None of the .* is in .* that were tried would be found if",
    ),
    Deviation(
        "D-FEWER-ROWS",
        theirs="fills a variable that has fewer rows than its vocabulary and OOV buckets",
        ours="refuse it",
        why="entries without a row would be out of range, or the OOV rows silently missing",
        applies=has_too_few_rows,
        refusal=r"has size .* along axis 0|new_vocab_size=\d+, but .* has only",
    ),
    Deviation(
        "D-COLUMNS-FEWER-ROWS",
        theirs="takes the first rows of a taller tensor when columns are remapped",
        ours="refuse it",
        why="the vocabulary says nothing of the rows",
        applies=leaves_old_rows_behind,
        refusal="apart from axis 1",
    ),
    Deviation(
        "D-PAST-COLUMNS",
        theirs="leaves uninitialised memory where an entry's old column is past the tensor's last",
        ours="refuse it",
        why="the old vocabulary is not the one of that tensor",
        applies=points_past_the_columns,
        refusal="vocabulary's entries reach to row",
    ),
    Deviation(
        "D-REMAP-ANY",
        theirs="remaps float32 matrices only",
        ours="remap every rank, axis and dtype",
        why="biases and half-precision tables have vocabularies too",
        rewrite=remapped_by_loops,
    ),
    Deviation(
        "D-CAST",
        theirs="never casts",
        ours="cast floating types to each other, and integers to wider ones",
        why="models are trained in other precisions than they were",
        rewrite=cast_beforehand,
    ),
    Deviation(
        "D-SLICES",
        theirs="does not cut or join slices of half precision",
        ours="join them",
        why="a slice is bytes",
        rewrite=whole_where_slices_of_half_differ,
    ),
)
BY_ID = {deviation.id: deviation for deviation in DEVIATIONS}


def understand(scenario: Scenario) -> tuple[Scenario, list[Deviation]]:
    """The scenario as we understand it, and the deviations that make the difference."""
    found = []
    for deviation in DEVIATIONS:
        if deviation.rewrite is not None:
            rewritten = deviation.rewrite(scenario)
            if rewritten != scenario:
                found.append(deviation)
            scenario = rewritten
        elif deviation.applies is not None and deviation.applies(scenario):
            found.append(deviation)
    return scenario, found
