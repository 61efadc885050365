"""What a trial tries and when it is given up follow from the trials that it may see."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState, create_trial

from trainer.commands.sweep import journal, search
from trainer.commands.sweep.journal import Journal, Outcome
from trainer.commands.sweep.space import Choices, Range, Space

SPACE: Space = {"a": Choices(("x", "y", [1])), "b": Range(1e-4, 1.0, log=True), "c": Range(1, 9)}
AT_ONCE = 4


def trials(figures: Sequence[float | None], seed: int = 0) -> list[FrozenTrial]:
    """Trials as a sweep gives them, with these figures; None: it still runs."""
    study = optuna.create_study(direction="maximize")
    for figure in figures:
        labels = search.suggest(SPACE, seed, study.get_trials(), AT_ONCE, minimize=False)
        study.add_trial(
            create_trial(
                state=TrialState.RUNNING if figure is None else TrialState.COMPLETE,
                value=figure,
                params=labels,
                distributions={key: of.distribution() for key, of in SPACE.items()},
            )
        )
    return study.get_trials()


def suggestion(known: Sequence[FrozenTrial], seed: int = 0) -> dict[str, Any]:
    return search.suggest(SPACE, seed, known, AT_ONCE, minimize=False)


def test_a_trial_depends_on_the_seed_and_on_results_that_it_may_see_only() -> None:
    figures = [0.1, 0.9, 0.5, 0.2, 0.6, 0.3, 0.8, 0.4, 0.7, 0.2, 0.5, 0.6, 0.1, 0.3, 0.9, 0.2]
    known = trials(figures)
    of_seed = suggestion(known)
    assert suggestion(known) == of_seed
    assert suggestion(known, seed=1) != of_seed
    # The last three may still run, or have ended in any way.
    assert suggestion(trials([*figures[:-3], None, None, None])) == of_seed
    assert suggestion(trials([*figures[:-3], 0.99, None, 0.0])) == of_seed
    better = [1 - figure for figure in figures]
    assert suggestion(trials([*better[:-3], *figures[-3:]])) != of_seed


def test_the_first_trials_differ_from_each_other() -> None:
    tried = [trial.params for trial in trials([None] * 6)]
    assert len({str(one) for one in tried}) == len(tried)


def test_a_trial_that_is_done_again_counts_as_any_other(tmp_path: Path) -> None:
    """Its figure after each epoch too, by which the sampler ranks trials that were given up."""
    outcome, found = Outcome("pruned", (0.1, 0.2), 0.2, 2, 1.5, 3.0, "ab"), []
    for fails in (False, True):
        folder = tmp_path / str(fails)
        folder.mkdir()
        own = Journal(folder)
        with own.locked():
            own.begin({}, minimize=False)
        with own.locked() as study:
            assert study is not None
            journal.add_trial(study, {"b": 0.5}, {"b": SPACE["b"].distribution()}, {"b": 0.5})
            if fails:
                journal.end_trial(study, 0, Outcome("failed", reason="no memory"))
                journal.do_again(study, 0)
            journal.end_trial(study, 0, outcome)
            (trial,) = journal.trials_of(study)
        read = journal.read_trial(trial, own.path)
        found.append((trial.state, trial.value, trial.intermediate_values, read))
    assert found[0] == found[1]
    assert found[0][2] == {1: 0.1, 2: 0.2}


def test_the_threshold_is_the_median_of_what_others_had_reached() -> None:
    curves = [(0.5, 0.4, 0.9), (0.1, 0.2, 0.3), (0.3, 0.6), (0.2, 0.1, 0.4), (0.4, 0.5, 0.6)]
    assert search.thresholds(curves, 4, minimize=False) == {1: 0.3, 2: 0.5}
    assert search.thresholds(curves, 2, minimize=True) == {1: 0.3}
    assert search.thresholds(curves, 20, minimize=False) == {}  # a fifth is done in any case
    assert search.thresholds(curves[:4], 4, minimize=False) == {}


def test_a_trial_is_given_up_only_if_it_is_worse() -> None:
    limits = {1: 0.3, 2: 0.5}
    assert search.was_pruned((0.2,), limits, minimize=False)
    assert not search.was_pruned((0.3,), limits, minimize=False)
    assert not search.was_pruned((0.3, 0.5, 0.1), limits, minimize=False)
    assert search.was_pruned((0.4,), limits, minimize=True)
    assert not search.is_behind(None, 0.3, minimize=False)


def test_keys_are_weighed_only_where_trials_differ() -> None:
    figures = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]
    assert search.importance(trials(figures[:7]), minimize=False) is None
    found = search.importance(trials(figures), minimize=False)
    assert found is not None and list(found) != [] and abs(sum(found.values()) - 1) < 1e-9
    assert search.importance(trials([0.5] * 10), minimize=False) is None


def test_nothing_is_tried_twice_while_there_is_something_else() -> None:
    small: Space = {"a": Choices((1, 2, 3)), "b": Choices(("x", "y"))}
    study = optuna.create_study()
    distributions = {key: of.distribution() for key, of in small.items()}
    for _ in range(7):
        labels = search.suggest(small, 0, study.get_trials(), 1, minimize=True)
        study.add_trial(create_trial(value=0.5, params=labels, distributions=distributions))
    tried = [str(trial.params) for trial in study.get_trials()]
    assert len(set(tried[:6])) == 6
    assert tried[6] in tried[:6]
