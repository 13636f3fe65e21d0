"""The answer of a comparison: one sentence, and where it stands."""

import copy
import dataclasses
import io
import json
import math
import re
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console
from test_lab_statistics import HE, HUGE, LOSS, TEST, ZEROS, cells, made_up, result

import jaxinit
from jaxinit import lab
from jaxinit.lab._result.answer import Standing, answer, sentence
from jaxinit.lab._show.table import markdown, rank_rows, table

pytestmark = pytest.mark.usefixtures("quick_compiler", "short_runs")

result = result  # the fixture
INF = math.inf

A, B, C, D, E = (Standing(name, 3, 3) for name in "ABCDE")
ONE = {s.name: s._replace(trained=1, runs=1) for s in (A, B, C)}
SHAKY, SHAKIER = A._replace(trained=2), B._replace(trained=1)
FAILED = [s._replace(trained=0) for s in (A, B, C, D, E)]


def told(*worse, better=()):
    """Verdicts by pairs of names: those that are worse, and better, than the other."""

    def verdict(standings, i, j):
        pair = standings[i].name + standings[j].name
        if pair in worse or pair[::-1] in better:
            return "worse"
        return "better" if pair[::-1] in worse or pair in better else "cannot tell"

    return verdict


@pytest.mark.parametrize(
    "standings, verdicts, seeds, said",
    [
        # One initializer alone.
        ([A], told(), 3, "A trains."),
        ([ONE["A"]], told(), 1, "A trains."),
        (FAILED[:1], told(), 3, "A does not train."),
        (
            [SHAKY],
            told(),
            3,
            "No initializer trains on every seed; A trains on 2 of 3 seeds.",
        ),
        # All fail.
        (FAILED[:2], told(), 3, "None of the 2 initializers trains."),
        (FAILED, told(), 1, "None of the 5 initializers trains."),
        # One is best.
        ([A, FAILED[1]], told(), 3, "A alone trains; B does not train."),
        ([A, *FAILED[1:3]], told(), 3, "A alone trains; B and C do not train."),
        ([A, B], told("BA"), 3, "A trains best."),
        ([A, B, FAILED[2]], told("BA"), 3, "A trains best; C does not train."),
        # Some are equal as far as the seeds can tell.
        ([A, B], told(), 3, "A and B train; 3 seeds cannot tell them apart."),
        (
            [A, B, C, FAILED[3], FAILED[4]],
            told("CA", "CB"),
            3,
            "A and B train best; 3 seeds cannot tell them apart; D and E do not train.",
        ),
        (
            [A, B, C, D],
            told(),
            5,
            "A, B, C and D train; 5 seeds cannot tell them apart.",
        ),
        (
            [A, B, C, D, E],
            told(),
            2,
            "A, B, C and 2 more train; 2 seeds cannot tell them apart.",
        ),
        # C is as good as A and worse than B: no two that are told apart are listed.
        (
            [A, B, C],
            told("CB"),
            3,
            "A and B train best; 3 seeds cannot tell them apart.",
        ),
        # Single runs, of one seed or without randomness.
        (
            [ONE["A"], ONE["B"], FAILED[2]._replace(runs=1)],
            told(),
            1,
            "A and B train; 1 seed cannot tell them apart; C does not train.",
        ),
        (
            [ONE["A"], ONE["B"]],
            told(),
            3,
            "A and B train; one run of each cannot tell them apart.",
        ),
        ([ONE["A"], B], told(), 3, "A and B train; 3 seeds cannot tell them apart."),
        # The test score does not follow the training loss.
        (
            [A, B, C],
            told(better=["BA"]),
            3,
            "A has the lowest training loss, but B does better on the test.",
        ),
        (
            [A, B, C, FAILED[3]],
            told(better=["BA", "CA"]),
            3,
            "A has the lowest training loss, but B and C do better on the test; "
            "D does not train.",
        ),
        # Some seeds fail: such an initializer is not among the best.
        (
            [SHAKY, B, C],
            told("CB"),
            3,
            "B trains best; A trains on 2 of 3 seeds.",
        ),
        (
            [SHAKY, SHAKIER, C, FAILED[3]],
            told(),
            3,
            "C alone trains on every seed; A and B train on some seeds only; "
            "D does not train.",
        ),
        (
            [SHAKY, SHAKIER],
            told(),
            3,
            "No initializer trains on every seed; A and B train on some seeds only.",
        ),
        # Many fail.
        (
            [A._replace(name="F"), *FAILED],
            told(),
            3,
            "F alone trains; A, B, C and 2 more do not train.",
        ),
    ],
)
def test_sentences(standings, verdicts, seeds, said):
    found = sentence(standings, lambda i, j: verdicts(standings, i, j), seeds)
    assert found == said


@pytest.mark.parametrize("kind", ["classification", "regression"])
@pytest.mark.parametrize("seeds", [1, 3])
@pytest.mark.slow
def test_the_answer_of_a_run(result, kind, seeds):
    task = result.task._replace(kind=kind)
    loss, test = (np.array(a)[:, :seeds] for a in (LOSS, TEST))
    found = made_up(result, loss, test, task=task)
    said = "he_normal() alone trains; zeros() and normal(stddev=10000.0) do not train."
    assert found.answer == said


def test_rows_are_ranked_and_failures_are_last(result):
    order = [HUGE, ZEROS, HE]
    found = made_up(result, np.array(LOSS)[order], np.array(TEST)[order])
    assert found.ranking == [2, 1, 0] and found.reference == 2
    rows = found.rows()  # as they were given
    assert [row.trained for row in rows] == [0, 0, 3]
    names = [row.initializer for row in rows]
    assert [row.initializer for _, row in rank_rows(found)] == names[::-1]
    assert list(dict(rank_rows(found))) == [2, 1, 0]
    *_, first, second, third, _, _ = markdown(found).splitlines()
    assert "| best |" in first and first.startswith(f"| `{names[2]}`")
    assert "| does not train |" in second and "| does not train |" in third


def test_median_losses_at_chance_do_not_hide_a_rate_at_which_a_seed_trains(result):
    # The table has the first rate, with the least divergence; the second trains once.
    loss = [[[0.69, 0.1], [0.69, INF], [0.69, INF]]]
    found = made_up(result, loss, np.full((1, 3, 2), 0.5))
    assert found.trained.tolist() == [1] and found.rows()[0].learning_rate == 0.01
    assert found.answer == (
        "No initializer trains on every seed; he_normal() trains on 1 of 3 seeds."
    )


def test_runs_that_were_interrupted_say_so(result):
    given = dataclasses.replace(made_up(result, LOSS, TEST), interrupted=True)
    steps, all_steps = given.steps_done, given.settings.steps
    assert given.answer.startswith(f"After {steps} of {all_steps} steps: he_normal()")
    nothing = dataclasses.replace(given, steps=given.steps[:0])
    assert nothing.answer == "Nothing was trained."
    assert "does not train" not in markdown(nothing)


# Where it stands.


@pytest.fixture(scope="module")
def known(result):
    return made_up(result, LOSS, TEST)


def test_the_answer_comes_first_everywhere(known):
    assert list(known.to_dict())[0] == "answer"
    found = json.loads(known.to_json())
    assert found["answer"] == known.answer
    assert found["ranking"] == ["he_normal()", "zeros()", "normal(stddev=10000.0)"]
    assert found["statistics"]["interval"].startswith("95 % bootstrap interval of the")
    assert [row["distinct_runs"] for row in found["table"]] == [3, 1, 3]
    assert markdown(known).replace("`", "").startswith(known.answer + "\n\n|")
    assert str(known).startswith(known.answer + "\n\ninitializer ")
    screen = Console(width=200, file=io.StringIO())
    screen.print(table(known, 200))
    assert screen.file.getvalue().startswith(known.answer)


def test_a_notebook_shows_the_answer_and_the_table(known):
    text = known._repr_html_()
    assert text.index(known.answer.replace("'", "&#x27;")) < text.index("<table>")
    assert text.count("<tr") == 4 and text.count('class="fails"') == 2
    assert "<script" not in text and "bootstrap interval" in text
    for row in known.rows():
        assert all(f">{cell}<" in text for cell in cells(known, row))


def test_comparisons_plot(known):
    figure = known.plot("sensitivity")
    assert sum(axis.get_visible() for axis in figure.axes) == 3
    assert known.plot().get_suptitle().startswith("Training loss at the best")
    message = (
        r"Comparison.plot\(name='los'\): name must be one of 'loss', .*mean 'loss'"
    )
    with pytest.raises(ValueError, match=message):
        known.plot("los")


def test_comparisons_print_in_one_line_and_equal_themselves(known):
    assert repr(known) == (
        "Comparison(3 initializers × 3 seeds × 2 learning rates, 5 steps on two)"
    )
    same = dataclasses.replace(known)
    assert known == known and known != same and not known == same
    assert len({known, same}) == 2 and copy.copy(known) != known


@jaxinit.initializer
def hostile(text=""):
    """A user's initializer, whose spec means something elsewhere."""

    def draw(key, shape, dtype):
        return jnp.ones(shape, dtype)

    return draw


@pytest.mark.parametrize("text", ["[/bold]", "[red]", "**/[a-z]", "<b>&", "|"])
def test_specs_are_text_in_every_format(known, text):
    first, *rest = known.settings.initializers
    inits = (hostile(text=text), *rest)
    settings = dataclasses.replace(known.settings, initializers=inits)
    found = dataclasses.replace(known, settings=settings)
    spec = repr(inits[0])
    screen = Console(width=250, file=io.StringIO())
    screen.print(table(found, 250))
    lines = screen.file.getvalue().splitlines()
    assert lines[0].startswith(spec) and sum(spec in line for line in lines) == 2
    assert f"`{spec}`" in markdown(found).splitlines()[0]
    assert "<b>" not in found._repr_html_()
    assert answer(found).startswith(spec)


# README.


def test_the_table_of_the_readme_is_of_this_form(known):
    text = (Path(__file__).parents[2] / "README.md").read_text()
    heads = markdown(known).splitlines()[2]
    assert heads in text and "jaxinit compare --format md" in text
    specs = [repr(jaxinit.parse(spec)) for spec in lab.DEFAULT_INITIALIZERS]
    assert all(re.search(rf"^\| `{re.escape(s)}` \|", text, re.M) for s in specs)
