"""Kill runs again and again, and start them again on another number of processes each time."""

from __future__ import annotations

import shutil
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import apart
import numpy as np
from fault_runs import (
    GONE_LIMIT_S,
    RANK_GONE_LIMIT_S,
    Attempt,
    FaultError,
    Recipe,
    differences,
    log_of,
    logged_step,
    progress,
    saved_step,
)

COUNTS = (1, 2, 4)
VICTIMS = ("the launcher", "one rank", "all")
ONLY_ONE = "the process"
"""in place of a victim if there is only one process"""
STARTING_SHARE = 0.2
"""how many of the kills come while the run starts; the others, while it trains"""
MOMENTS = (0.05, 0.95)
"""the part of the training in which the others come: mostly after a checkpoint, before the end"""


@dataclass(frozen=True)
class Plan:
    """What is drawn for one start."""

    processes: int
    victim: str
    rank: float
    """of one rank: which, from 0 to 1"""
    moment: float | None
    """the part of the run's steps after which to kill; None while it starts"""
    delay: float
    """how much later, in parts of the time between two checkpoints, or of a start"""


@dataclass(frozen=True)
class Pace:
    """The times of the undisturbed run on this machine."""

    steps: int
    start_s: float
    between_checkpoints_s: float


@dataclass(frozen=True)
class Kill:
    """A kill that was done."""

    victim: str
    processes: int
    step: int
    """the last in metrics.jsonl"""
    saved: int
    """the newest checkpoint's"""
    gone_s: float
    """until no process was left"""


@dataclass(frozen=True)
class Campaign:
    """Some runs of one recipe."""

    recipe: Recipe
    folder: Path
    """of the runs; those that lost nothing are removed"""
    runs: int
    seed: int
    kills: tuple[int, int] = (5, 10)
    """how many a run gets, from and to"""
    jobs: int = 1
    """how many runs go side by side"""


@dataclass
class Outcome:
    """A run of the campaign."""

    number: int
    folder: Path
    kills: list[Kill] = field(default_factory=list)
    last_processes: int = 0
    problems: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        where = " ".join(f"{k.step}({k.processes}, {k.victim})" for k in self.kills)
        end = "; ".join(self.problems) or "same weights, same record"
        return (
            f"run {self.number}: {len(self.kills)} kills at steps {where}, "
            f"finished on {self.last_processes}: {end}"
        )


def draw_plans(generator: np.random.Generator, kills: tuple[int, int]) -> list[Plan]:
    """Draw what is to happen to one run; `kills` are the fewest and the most."""
    count = int(generator.integers(kills[0], kills[1], endpoint=True))
    moments = np.sort(generator.uniform(*MOMENTS, count)).tolist()
    starting = generator.random(count) < STARTING_SHARE
    return [
        Plan(
            processes=int(generator.choice(COUNTS)),
            victim=str(generator.choice(VICTIMS)),
            rank=float(generator.random()),
            moment=None if starting[number] else moments[number],
            delay=float(generator.random()),
        )
        for number in range(count)
    ]


def run_undisturbed(folder: Path, recipe: Recipe) -> Pace:
    """Do the run in one process that is not killed; return its times."""
    start_s = time.monotonic()
    attempt = Attempt(folder, recipe, processes=1)
    attempt.wait_until((folder / "metrics.jsonl").exists)
    started_s = time.monotonic() - start_s
    attempt.finish()
    train = apart.read_results(folder)["train"]
    step_s = train["seconds"] / train["steps"]
    return Pace(train["steps"], started_s, step_s * recipe.every_steps)


def disturb(attempt: Attempt, plan: Plan, pace: Pace) -> Kill | None:
    """Kill a run's processes as planned; return None if it had ended before.

    Raises:
        FaultError: it failed by itself, hangs, or leaves processes behind.
    """
    folder = attempt.folder
    if plan.moment is None:
        due = attempt.wait_for_ranks()
        wait_s = plan.delay * pace.start_s
    else:
        # Steps of earlier starts do not count.
        target = max(int(plan.moment * pace.steps), progress(folder) + 1)
        due = attempt.wait_for_ranks()
        attempt.wait_until(lambda: progress(folder) >= target)
        wait_s = plan.delay * pace.between_checkpoints_s
    deadline_s = time.monotonic() + wait_s
    if not attempt.wait_until(lambda: time.monotonic() >= deadline_s):
        attempt.check_exit_code()
        return None
    if plan.victim == "all":
        attempt.kill_everything()
    elif plan.victim == "one rank":
        attempt.kill([due[int(plan.rank * len(due))]])
    else:
        attempt.kill([attempt.launcher.pid])
    one_rank = plan.victim == "one rank" and plan.processes > 1
    gone_s = attempt.wait_until_gone(RANK_GONE_LIMIT_S if one_rank else GONE_LIMIT_S)
    if attempt.launcher.returncode == 0:  # it ended while it was being killed
        return None
    victim = plan.victim if plan.processes > 1 else ONLY_ONE
    return Kill(victim, plan.processes, logged_step(folder), saved_step(folder), gone_s)


def run_disturbed(campaign: Campaign, pace: Pace, number: int) -> Outcome:
    """Do one run of a campaign."""
    recipe, folder = campaign.recipe, campaign.folder / f"run-{number:03d}"
    generator = np.random.default_rng((campaign.seed, number))
    outcome = Outcome(number, folder)
    attempt = None
    try:
        for plan in draw_plans(generator, campaign.kills):
            attempt = Attempt(folder, recipe, plan.processes)
            kill = disturb(attempt, plan, pace)
            if kill:
                outcome.kills.append(kill)
        outcome.last_processes = int(generator.choice(COUNTS))
        attempt = Attempt(folder, recipe, outcome.last_processes)
        attempt.finish()
        outcome.problems = differences(folder, folder.with_name("undisturbed"))
    except (FaultError, OSError, ValueError, KeyError) as error:
        outcome.problems.append(f"{type(error).__name__}: {error}")
    finally:
        if attempt:
            attempt.kill_everything()
    return outcome


def run(campaign: Campaign) -> Iterator[Outcome]:
    """Do the runs of a campaign; remove each after it has been yielded if it lost nothing."""
    pace = run_undisturbed(campaign.folder / "undisturbed", campaign.recipe)
    with ThreadPoolExecutor(campaign.jobs) as pool:
        numbers = range(campaign.runs)
        for outcome in pool.map(lambda number: run_disturbed(campaign, pace, number), numbers):
            yield outcome
            if not outcome.problems:
                shutil.rmtree(outcome.folder)
                log_of(outcome.folder).unlink()


def summarise(outcomes: Sequence[Outcome]) -> list[str]:
    """Return a few sentences about a campaign."""
    kills = [kill for outcome in outcomes for kill in outcome.kills]
    if not kills:
        return ["No run was killed."]
    victims, counts = Counter(kill.victim for kill in kills), Counter(k.processes for k in kills)
    per_run = [len(outcome.kills) for outcome in outcomes]
    return [
        f"{min(per_run)} to {max(per_run)} kills a run; "
        f"{sum(kill.saved > 0 for kill in kills)} of {len(kills)} after a first checkpoint.",
        f"Under torchrun: {', '.join(f'{victim} {victims[victim]} times' for victim in VICTIMS)}; "
        f"without it: {ONLY_ONE} {victims[ONLY_ONE]} times.",
        f"Processes: {', '.join(f'{count} {counts[count]} times' for count in COUNTS)}.",
        f"At most {max(kill.gone_s for kill in kills):.1f} s after a kill "
        "no process of the run was left.",
    ]
