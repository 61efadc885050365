"""What the doctor has found."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

from trainer.base import user_code
from trainer.base.errors import RankError, UserError

T = TypeVar("T")


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's list.

    Args:
        name: what was looked at.
        state: a problem is what a run would fail of.
        text: what was found.
        advice: what to do about it, where the text does not say so itself.
    """

    name: str
    state: Literal["ok", "warning", "problem"]
    text: str
    advice: str = ""


class Findings(list[Finding]):
    """The list of one rank."""

    def attempt(self, name: str, call: Callable[[], T]) -> T | None:
        """The result of `call`; what ends a run there is a problem here, in the same words."""
        try:
            return call()
        except (UserError, RankError) as error:
            self.append(Finding(name, "problem", str(error)))
        except Exception as error:
            own = user_code.as_user_error(error)
            if own is None:
                raise
            self.append(Finding(name, "problem", str(own)))
        return None


def merge(lists: Iterable[tuple[str, list[Finding]]]) -> list[Finding]:
    """All of rank 0's findings, and of the others' what is wrong there alone.

    Args:
        lists: a name for each rank, and its findings; rank 0 first.
    """
    merged: list[Finding] = []
    said = set()
    for number, (rank, findings) in enumerate(lists):
        for finding in findings:
            if number == 0:
                merged.append(finding)
            elif finding.state != "ok" and (finding.name, finding.text) not in said:
                merged.append(replace(finding, text=f"{rank}: {finding.text}"))
            said.add((finding.name, finding.text))
    return merged
