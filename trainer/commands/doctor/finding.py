"""Collect what the doctor finds: one finding a line, and those of all ranks in one list."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

from trainer.base import user_code_errors
from trainer.base.errors import UserError

T = TypeVar("T")


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's list.

    Args:
        name: the thing that was checked.
        state: a problem would make a run fail.
        text: what was found.
        advice: what to do about it, where the text does not say.
    """

    name: str
    state: Literal["ok", "warning", "problem"]
    text: str
    advice: str = ""


class Findings(list[Finding]):
    """The findings of one rank."""

    def attempt(self, name: str, call: Callable[[], T]) -> T | None:
        """Return the result of `call`; an error that would end a run becomes a problem here."""
        try:
            return call()
        except UserError as error:
            self.append(Finding(name, "problem", str(error)))
        except Exception as error:
            of_user = user_code_errors.as_user_error(error)
            if of_user is None:
                raise
            self.append(Finding(name, "problem", str(of_user)))
        return None


def merge(lists: Iterable[tuple[str, list[Finding]]]) -> list[Finding]:
    """Return all findings of rank 0, and those of other ranks that are new and not ok.

    Args:
        lists: a name for each rank, and its findings; rank 0 first.
    """
    merged: list[Finding] = []
    seen = set()
    for number, (rank, findings) in enumerate(lists):
        for finding in findings:
            if number == 0:
                merged.append(finding)
            elif finding.state != "ok" and (finding.name, finding.text) not in seen:
                merged.append(replace(finding, text=f"{rank}: {finding.text}"))
            seen.add((finding.name, finding.text))
    return merged
