"""The answer of a comparison in one sentence: what trains best, and what does not."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from jaxinit._text import plural
from jaxinit.lab._result.outcome import Outcome
from jaxinit.lab._result.statistics import Verdict

_MOST = 4  # names in a list; of more, three are named and the others counted


class Standing(NamedTuple):
    """How an initializer did.

    Attributes:
      name: what the sentence calls it.
      trained: how many of its distinct runs learned anything.
      runs: how many there are; a run that no seed changes is one.
    """

    name: str
    trained: int
    runs: int


def answer(comparison: Outcome, spell: Callable[[str], str] = str) -> str:
    """Returns the answer of a comparison.

    Args:
      comparison: what `compare` returned.
      spell: writes a spec, such as in Markdown.
    """
    if not comparison.steps_done:
        return "Nothing was trained."
    settings, order = comparison.settings, comparison.ranking
    trained, runs = comparison.trained, comparison.distinct.sum(axis=1)
    names = [spell(repr(init)) for init in settings.initializers]
    standings = [Standing(names[i], int(trained[i]), int(runs[i])) for i in order]

    def judge(i: int, j: int) -> Verdict:
        return comparison.effect("test", order[i], order[j]).verdict

    said = sentence(standings, judge, settings.seeds)
    if comparison.interrupted:
        return f"After {comparison.steps_done} of {settings.steps} steps: {said}"
    return said


def sentence(
    standings: Sequence[Standing], judge: Callable[[int, int], Verdict], seeds: int
) -> str:
    """Says who trains best, whom the seeds cannot tell apart, and who does not train.

    Only initializers whose runs all learned can train best. Of these the leader has the
    lowest loss. It shares its place with those that the seeds cannot tell from it,
    except any that is worse than another of them, so that no two in the list can be
    told apart.

    Args:
      standings: every initializer's, the lowest loss first.
      judge: returns the verdict on the test score of one, by number, against another.
      seeds: number of seeds.
    """
    steady = [i for i, s in enumerate(standings) if s.trained == s.runs]
    shaky = [s for s in standings if 0 < s.trained < s.runs]
    failed = [s.name for s in standings if not s.trained]
    if len(failed) == len(standings) > 1:
        return f"None of the {len(failed)} initializers trains."
    parts = []
    if steady:
        parts += _name_leaders(standings, steady, judge, seeds)
    elif shaky:
        parts.append("No initializer trains on every seed")
    if len(shaky) == 1:
        name, trained, runs = shaky[0]
        parts.append(f"{name} trains on {trained} of {runs} seeds")
    elif shaky:
        parts.append(f"{_join_names([s.name for s in shaky])} train on some seeds only")
    if failed:
        does = "does" if len(failed) == 1 else "do"
        parts.append(f"{_join_names(failed)} {does} not train")
    return "; ".join(parts) + "."


def _name_leaders(
    standings: Sequence[Standing],
    steady: Sequence[int],
    judge: Callable[[int, int], Verdict],
    seeds: int,
) -> list[str]:
    """Says who trains best, and whether the seeds can tell."""
    lead, *others = steady
    verdicts = {i: judge(i, lead) for i in others}
    better = [standings[i].name for i in others if verdicts[i] == "better"]
    if better:
        does = "does" if len(better) == 1 else "do"
        lowest = f"{standings[lead].name} has the lowest training loss"
        return [f"{lowest}, but {_join_names(better)} {does} better on the test"]
    peers = [i for i in others if verdicts[i] == "cannot tell"]
    worse = {i for i in peers for j in peers if i != j and judge(i, j) == "worse"}
    best = [standings[i] for i in (lead, *peers) if i not in worse]
    names = _join_names([s.name for s in best])
    if len(best) > 1:
        few = plural(seeds, "seed")
        if seeds > 1 and all(s.runs == 1 for s in best):
            few = "one run of each"
        rank = "train best" if len(best) < len(steady) else "train"
        return [f"{names} {rank}", f"{few} cannot tell them apart"]
    if len(steady) > 1:
        return [f"{names} trains best"]
    if any(s.trained for s in standings if s is not best[0]):
        return [f"{names} alone trains on every seed"]
    return [f"{names} alone trains" if len(standings) > 1 else f"{names} trains"]


def _join_names(names: Sequence[str]) -> str:
    """Joins names as a sentence does; of many, three are named, the others counted."""
    if len(names) > _MOST:
        names = [*names[:3], f"{len(names) - 3} more"]
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last
