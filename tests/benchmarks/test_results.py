"""The committed pages of results: written from their figures, and in the list of benchmarks."""

from __future__ import annotations

from types import ModuleType

import ablations
import accuracy
import faults
import finetune
import minutes
import page
import photos
import predict
import pytest
import same_weights
import scaling
import throughput
import time_to_accuracy

from tests.conftest import REPOSITORY


@pytest.mark.parametrize(
    "benchmark",
    [
        ablations,
        accuracy,
        faults,
        finetune,
        minutes,
        photos,
        predict,
        same_weights,
        scaling,
        throughput,
        time_to_accuracy,
    ],
)
def test_a_page_says_what_its_figures_say(benchmark: ModuleType) -> None:
    figures = page.RESULTS / f"{benchmark.__name__}.json"
    if not figures.exists():
        pytest.skip(f"{figures.name} has not been measured yet")
    lines = benchmark.build_page(page.read_figures(figures))
    assert "\n".join(lines).strip() == figures.with_suffix(".md").read_text().strip()


def test_the_list_has_every_page() -> None:
    text = (REPOSITORY / "benchmarks" / "README.md").read_text()
    for path in page.RESULTS.glob("*.md"):
        assert f"(results/{path.name})" in text


@pytest.mark.parametrize(
    ("name", "head"),
    [
        ("throughput", "| Lockstep's images/s over those of"),
        ("same_weights", "| trainer |"),
        ("time_to_accuracy", "| seconds of training to |"),
    ],
)
def test_the_readme_has_the_table_of_the_page(name: str, head: str) -> None:
    page_text = (page.RESULTS / f"{name}.md").read_text()
    table = page_text[page_text.index(head) :].split("\n\n")[0]
    assert f"\n\n{table}\n\n" in (REPOSITORY / "README.md").read_text()
