"""Statistics of the lab: intervals, paired effects, rates that train, and formats."""

import csv
import dataclasses
import io
import itertools
import json
import math

import numpy as np
import pytest
from rich.console import Console
from scipy import stats

from jaxinit import lab
from jaxinit.cli import main
from jaxinit.lab._result import statistics
from jaxinit.lab._result.statistics import interval, paired, sensitivity
from jaxinit.lab._show.table import list_columns, markdown, table
from jaxinit.lab._tried.data import make_task

pytestmark = pytest.mark.usefixtures("quick_compiler", "short_runs")

INF, NAN = math.inf, math.nan


# Intervals.


def widened(values, quantiles):
    """The ends that the docstring of `interval` describes, by SciPy's quantiles."""
    n = len(values)
    factor = math.sqrt(n / (n - 1)) * stats.t.ppf(0.975, n - 1) / stats.norm.ppf(0.975)
    return np.mean(values) + factor * (quantiles - np.mean(values))


def test_mean_and_error_are_those_of_the_sample():
    values = np.random.default_rng(1).normal(size=7)
    found = interval(values)
    assert found.mean == pytest.approx(values.mean(), rel=1e-12)
    assert found.error == pytest.approx(stats.sem(values), rel=1e-12)


# Of two or three seeds, all of them the smallest is more than 2.5 % of the resamples:
# 1 / 4 and 1 / 27.
@pytest.mark.parametrize("values", [[0.3, 0.8], [0.3, 0.8, 0.4], [-5, 1e6, 2]])
def test_the_interval_of_two_or_three_seeds_is_known_in_closed_form(values):
    found = interval(values)
    ends = widened(values, np.array([min(values), max(values)]))
    np.testing.assert_allclose(found[2:], ends, rtol=1e-9)


@pytest.mark.parametrize("n", [4, 5, 6])
def test_the_interval_is_that_of_all_resamples(n):
    values = np.random.default_rng(n).normal(size=n)
    means = np.mean(list(itertools.product(values, repeat=n)), axis=1)
    ends = widened(values, np.quantile(means, [0.025, 0.975]))
    found = interval(values)
    # The standard error of a 2.5 % point of 10 000 draws is 0.027 deviations of a law
    # near the normal, so 0.7 % of the distance of the two points; five of them.
    np.testing.assert_allclose(found[2:], ends, atol=0.035 * np.ptp(ends))


@pytest.mark.parametrize("freedom", [*range(1, 12), 20, 50, 1000])
def test_points_of_students_law(freedom):
    found = statistics._student(stats.norm.ppf(0.975), freedom)
    assert found == pytest.approx(stats.t.ppf(0.975, freedom), rel=2e-3)


def test_equal_values_give_equal_intervals_bit_by_bit():
    values = np.random.default_rng(3).normal(size=9)
    assert interval(values) == interval(list(values))
    shifted = np.array(interval(values + 4)) - [4, 0, 4, 4]
    np.testing.assert_allclose(shifted, interval(values), atol=1e-14)
    np.testing.assert_allclose(interval(3 * values), 3 * np.array(interval(values)))


@pytest.mark.parametrize("value", [0.0, 0.1, -3e30])
def test_values_without_spread_are_their_own_interval(value):
    assert interval([value] * 3) == (value, 0, value, value)


def test_one_seed_has_neither_error_nor_interval():
    found = interval([0.7])
    assert found.mean == 0.7 and np.isnan(found[1:]).all()


def test_two_seeds_have_an_interval_as_wide_as_they_are_few():
    found = interval([0.0, 1.0])
    assert found.error == pytest.approx(0.5)
    assert found.high - found.low == pytest.approx(9.17, abs=0.01)


@pytest.mark.parametrize(
    "values, mean", [([1, INF, 2], INF), ([1, NAN, 2], NAN), ([INF, -INF], NAN)]
)
def test_what_is_not_finite_stays_so_and_has_no_interval(values, mean):
    found = interval(values)
    np.testing.assert_equal(found.mean, mean)
    assert np.isnan(found[1:]).all()


@pytest.mark.parametrize(
    "call, kind, said",
    [
        (lambda: interval([]), ValueError, "must be a number for each seed."),
        (lambda: interval(1.0), ValueError, r"interval\(values=1.0\): values must be"),
        (lambda: interval(["a"]), TypeError, "values must be real numbers."),
        (lambda: interval([1j]), TypeError, "values must be real numbers."),
        (
            lambda: paired([1.0], [1, 2], higher_is_better=True),
            ValueError,
            r"^paired\(.*: reference must have a number for each of the 1 seeds\.$",
        ),
        (
            lambda: paired([1.0], [1.0], higher_is_better=1),
            TypeError,
            r"paired\(higher_is_better=1\): higher_is_better must be True or False.",
        ),
        (
            lambda: sensitivity([[1.0, 2.0]], [0.1], best=1, chance=2),
            ValueError,
            r"sensitivity\(.*: losses must be \[seeds, rates\], with a column for each",
        ),
    ],
)
def test_what_is_no_number_by_seed_is_refused(call, kind, said):
    with pytest.raises(kind, match=said):
        call()


# Effects.


@pytest.mark.parametrize(
    "ours, theirs, higher, verdict",
    [
        ([0.9, 0.8, 0.95], [0.5, 0.4, 0.5], True, "better"),
        ([0.5, 0.4, 0.5], [0.9, 0.8, 0.95], True, "worse"),
        ([0.5, 0.4, 0.5], [0.9, 0.8, 0.95], False, "better"),
        ([0.9, 0.8, 0.95], [0.5, 0.4, 0.5], False, "worse"),
        # Every seed says so, but 3 that differ so much say so one time in four.
        ([0.1, 0.5, 0.9], [0, 0, 0], True, "cannot tell"),
        ([0.1, -0.1, 0.1], [0, 0, 0], True, "cannot tell"),
        ([0.1, 0.2, 0.3], [0.1, 0.2, 0.3], True, "cannot tell"),
        ([0.9, 0.9], [0.1, 0.1], True, "cannot tell"),  # two seeds
        ([0.9], [0.1], True, "cannot tell"),
        # The seeds differ far more than the initializers: only pairs show it.
        ([10.1, 20.1, 30.12], [10, 20, 30], True, "better"),
    ],
)
def test_an_effect_needs_an_interval_without_zero_and_three_seeds(
    ours, theirs, higher, verdict
):
    found = paired(ours, theirs, higher_is_better=higher)
    assert found.verdict == verdict
    differences = interval(np.subtract(ours, theirs))
    reference = differences.mean, differences.low, differences.high
    np.testing.assert_array_equal(found[:3], reference)


@pytest.mark.parametrize(
    "ours, theirs, difference, verdict",
    [
        ([INF, INF, INF], [1, 2, 3], INF, "worse"),
        ([NAN, INF, NAN], [1, 2, 3], INF, "worse"),
        ([1, 2, 3], [INF, NAN, INF], -INF, "better"),
        ([INF, 1, 1], [1, 1, 1], INF, "cannot tell"),
        ([INF, 1, 1], [1, INF, 1], NAN, "cannot tell"),
        ([INF, NAN, INF], [INF, INF, NAN], 0, "cannot tell"),
        ([INF, INF], [1, 2], INF, "cannot tell"),
    ],
)
def test_divergence_is_worse_than_every_finite_loss(ours, theirs, difference, verdict):
    found = paired(ours, theirs, higher_is_better=False)
    np.testing.assert_equal(found.difference, difference)
    assert found.verdict == verdict
    if len(set(ours)) > 1 and verdict == "cannot tell" and difference != 0:
        assert math.isnan(found.low) and math.isnan(found.high)


def test_a_score_that_is_not_a_number_is_the_worst():
    found = paired([NAN] * 3, [0.1, 0.2, 0.3], higher_is_better=True)
    assert found[:4] == (-INF, -INF, -INF, "worse")


def shown(n, shift, experiments=600):
    """The share of simulated experiments of n seeds in which an effect is shown."""
    generator = np.random.default_rng(n)
    seeds = generator.normal(size=(experiments, n))  # what a pair has in common
    ours = seeds + generator.normal(size=(experiments, n)) / 2 + shift
    theirs = seeds + generator.normal(size=(experiments, n)) / 2
    verdicts = [
        paired(a, b, higher_is_better=True).verdict
        for a, b in zip(ours, theirs, strict=True)
    ]
    if shift:
        assert "worse" not in verdicts
    return 1 - np.mean(np.array(verdicts) == "cannot tell")


# 5 %, four standard errors of 600 experiments, and the percent that the widened
# interval lacks at 3 seeds; without the factor it would be 26, 16 and 10 %.
@pytest.mark.parametrize("n", [3, 5, 8])
@pytest.mark.slow
def test_equal_initializers_show_an_effect_one_time_in_twenty(n):
    assert 0.05 - 0.036 < shown(n, 0) < 0.05 + 0.036 + 0.01


@pytest.mark.parametrize("n, shift, least", [(3, 6, 0.9), (5, 3, 0.9), (10, 1, 0.8)])
def test_an_effect_is_shown_where_there_is_one(n, shift, least):
    assert shown(n, shift, 200) > least


# Learning rates.


@pytest.mark.parametrize(
    "medians, rates, decades, share",
    [
        ([0.2, 0.1, 0.2], [1e-3, 1e-2, 1e-1], 2, 1),
        ([0.2, 0.1, 2.3], [1e-3, 1e-2, 1e-1], 1, 2 / 3),
        ([2.3, 0.1, 2.3], [1e-3, 1e-2, 1e-1], 0, 1 / 3),
        ([2.3, 2.3, 2.3], [1e-3, 1e-2, 1e-1], NAN, 0),
        ([INF, INF, INF], [1e-3, 1e-2, 1e-1], NAN, 0),
        # Half of the way from chance to the best is 1.2, and it counts.
        ([1.2, 0.1, 1.2001], [1e-3, 1e-2, 1e-1], 1, 2 / 3),
        # Beyond a gap only the side of the best counts, though the share has both.
        ([0.2, 2.3, 0.1, 0.2], [1e-4, 1e-3, 1e-2, 1e-1], 1, 3 / 4),
        # In whatever order the rates are given.
        ([0.1, 0.2, 2.3, 0.2], [1e-2, 1e-4, 1e-3, 1e-1], 1, 3 / 4),
        ([0.1], [0.3], 0, 1),
    ],
)
def test_decades_are_those_of_the_range_around_the_best(medians, rates, decades, share):
    found = sensitivity([medians], rates, best=0.1, chance=2.3)
    assert found.decades == pytest.approx(decades, nan_ok=True)
    assert found.share == pytest.approx(share)
    assert found.trains == tuple(m <= 1.2 for m in medians)


def test_a_rate_trains_when_half_the_seeds_do():
    losses = [[0.1, 0.1, INF], [0.1, INF, NAN], [0.1, 0.1, 0.1]]
    found = sensitivity(losses, [0.1, 1.0, 10.0], best=0.1, chance=2.3)
    assert found.trains == (True, True, False) and found.decades == pytest.approx(1)


@pytest.mark.parametrize("best", [2.29, 2.3, INF, NAN])
def test_nothing_trains_where_nobody_leaves_chance(best):
    found = sensitivity([[2.29, 2.3]], [0.1, 1.0], best=best, chance=2.3)
    assert found.trains == (False, False) and math.isnan(found.decades)


# The comparison.


SETTINGS = {"depth": 2, "width": 4, "seeds": 3, "steps": 5, "batch_size": 8}

INITIALIZERS = ("he_normal()", "zeros()", "normal(stddev=10000.0)")
HE, ZEROS, HUGE = range(3)


@pytest.fixture(scope="module")
def result():
    y = np.arange(40) % 2
    x = np.random.default_rng(0).normal(size=(40, 3)) + y[:, None]
    rates = {"learning_rates": (0.01, 0.1)}
    return lab.compare(INITIALIZERS, data=make_task("two", x, y), **rates, **SETTINGS)


def header(found):
    """The headings of the table."""
    return [column.head for column in list_columns(found)]


def cells(found, row):
    """The cells of a row of the table."""
    return [column.cell(row) for column in list_columns(found)]


def made_up(result, loss, test, **changes):
    """The run with these numbers. # each [initializers, seeds, rates]"""
    scores = type(result.scores)(np.array(loss, np.float32), np.array(test, np.float32))
    shape = scores.loss.shape
    settings = dataclasses.replace(
        result.settings,
        seeds=shape[1],
        initializers=result.settings.initializers[: shape[0]],
    )
    curves = np.ones((*shape, 1), np.float32)
    given = {"settings": settings, "scores": scores, "curves": curves, **changes}
    return dataclasses.replace(result, **given)


# Chance is a loss of 0.69; he_normal() is best at the first rate, zeros() stays at
# chance, and the third diverges: once to infinity, else above twice chance.
LOSS = [
    [[0.1, 0.2], [0.1, 0.2], [0.2, 0.3]],
    [[0.7, 0.69], [0.7, 0.69], [0.7, 0.69]],
    [[9.0, 8.0], [9.0, INF], [9.0, 9.0]],
]
TEST = [
    [[0.9, 0.1], [0.95, 0.1], [0.85, 0.1]],
    [[0.1, 0.5], [0.1, 0.5], [0.1, 0.5]],
    [[0.4, 0.4], [0.6, 0.4], [0.5, 0.4]],
]


@pytest.fixture(scope="module")
def known(result):
    return made_up(result, LOSS, TEST)


@pytest.mark.slow
def test_rows_have_the_statistics_of_the_test_score_at_the_best_rate(known):
    he, zeros, huge = known.rows()
    score = interval(np.array([0.9, 0.95, 0.85], np.float32))
    assert (he.test_mean, he.test_error, he.test_low) == score[:3]
    assert score.high > 1 and he.test_high == 1  # no accuracy is above 1
    assert zeros.test_mean == 0.5 and math.isnan(zeros.test_low)  # one distinct run
    assert [row.distinct_runs for row in (he, zeros, huge)] == [3, 1, 3]
    assert huge.test_error == pytest.approx(stats.sem([0.4, 0.6, 0.5]))


def test_rows_are_compared_with_the_best_seed_by_seed(known):
    he, zeros, huge = known.rows()
    assert [row.effect for row in (he, zeros, huge)] == ["best", "worse", "worse"]
    assert known.reference == HE and he.against_best == 0
    expected = statistics.against_one(
        [0.5], np.float32([0.9, 0.95, 0.85]), higher_is_better=True
    )
    assert (zeros.against_best, zeros.against_best_low) == expected[:2]
    assert zeros.against_best_high == expected.high
    assert zeros.against_best == pytest.approx(-0.4)


def test_losses_are_compared_with_divergence_as_the_worst(known):
    effects = [found["loss"] for found in known.against_best()]
    assert effects[HUGE][:4] == (
        INF,
        INF,
        INF,
        "worse",
    )  # though all but one are finite
    assert effects[ZEROS].verdict == "worse"
    assert effects[ZEROS].difference == pytest.approx(0.69 - 0.4 / 3)
    assert known.rows()[HUGE].final_loss == 9  # means are of what was measured


def test_the_best_is_chosen_by_median_loss_not_by_test_score(result):
    loss = [[[0.1], [0.1], [8.0]], [[0.2], [0.2], [0.2]]]
    test = [[[0.5]] * 3, [[0.9]] * 3]
    found = made_up(result, np.repeat(loss, 2, axis=2), np.repeat(test, 2, axis=2))
    assert found.reference == 0
    assert [row.effect for row in found.rows()] == ["best", "better"]
    assert found.against_best()[1]["loss"].verdict == "cannot tell"


def test_among_equal_medians_the_lowest_mean_is_the_best(result):
    loss = np.repeat([[[0.1], [0.2], [0.3]], [[0.1], [0.2], [0.21]]], 2, axis=2)
    assert made_up(result, loss, 0 * loss).reference == 1


def test_nothing_is_best_where_everything_diverged(result):
    found = made_up(result, np.full((2, 3, 2), NAN), np.zeros((2, 3, 2)))
    assert [row.effect for row in found.rows()] == ["cannot tell"] * 2
    assert all(math.isnan(row.rates_that_train) for row in found.rows())


def test_rates_that_train_have_one_bar_for_all(known):
    he, zeros, huge = known.rows()
    assert he.rates_that_train == pytest.approx(1) and he.share_that_trains == 1
    for row in (zeros, huge):
        assert math.isnan(row.rates_that_train) and row.share_that_trains == 0


def test_a_diverged_seed_is_in_the_mean(result):
    loss = [[[0.1, 9], [0.1, 9], [INF, 9]], [[0.2, 9], [0.2, 9], [0.2, 9]]]
    row, _ = made_up(result, loss, np.full((2, 3, 2), 0.5)).rows()
    assert row.final_loss == INF and row.diverged == pytest.approx(4 / 6)


@pytest.mark.parametrize("seeds", [1, 2])
def test_few_seeds_cannot_tell(result, seeds):
    found = made_up(result, np.array(LOSS)[:, :seeds], np.array(TEST)[:, :seeds])
    he, zeros, _ = found.rows()
    assert zeros.effect == "cannot tell"
    assert math.isnan(he.test_error) == math.isnan(he.test_low) == (seeds == 1)


def test_the_dictionary_has_the_statistics(known):
    found = json.loads(known.to_json())
    he, zeros, huge = found["initializers"]
    row = found["table"][ZEROS]
    assert row["effect"] == "worse" and row["rates_that_train"] is None
    assert zeros["against_best"]["test"]["difference"] == row["against_best"]
    assert huge["against_best"]["loss"]["difference"] is None  # infinite
    assert huge["against_best"]["loss"]["verdict"] == "worse"
    assert he["rates_that_train"] == {
        "trains": [True, True],
        "decades": pytest.approx(1),
        "share": 1,
    }


def test_regression_scores_that_are_lost_are_the_worst(result):
    task = result.task._replace(kind="regression")
    test = np.array(TEST)
    test[HUGE] = NAN
    found = made_up(result, LOSS, test, task=task)
    *_, huge = found.rows()
    assert math.isnan(huge.test_mean) and math.isnan(huge.test_low)
    assert huge.effect == "worse" and huge.against_best == -INF
    assert cells(found, huge)[6:8] == ["–", "does not train"]
    json.loads(found.to_json())


# Formats.


def test_cells_of_the_table_say_what_was_shown(known):
    he, zeros, _ = (cells(known, row) for row in known.rows())
    # Three seeds at 0.05 about 0.9: 0.05 times 2.689 is 13.4 %, and no more than all.
    assert he[6] == "90.0 [76.6,\N{NO-BREAK SPACE}100.0]"
    assert zeros[6] == "50.0 (1 distinct run)"
    assert [he[7], zeros[7]] == ["best", "does not train"]
    assert [he[8], zeros[8]] == ["1.0 (2/2)", "– (0/2)"]


LAST = ("gradient", "signal", "steps", "decades", "learning", "training")


@pytest.mark.parametrize(
    "width, out", [(250, 0), (160, 0), (120, 1), (100, 2), (80, 4), (70, 5), (60, 6)]
)
def test_the_table_fits_and_says_what_it_leaves_out(known, width, out):
    screen = Console(width=width, file=io.StringIO())
    screen.print(table(known, width))
    text = screen.file.getvalue()
    frame = [line for line in text.splitlines() if line[:1] in "┏┃┡│└"]
    assert all(line[-1] in "┓┃┩│┘" for line in frame)  # nothing is cut off
    heads = {word for line in frame if line[0] == "┃" for word in line.split()}
    assert heads.isdisjoint(LAST[:out]) and heads.issuperset(LAST[out:])
    _, _, said = " ".join(text.split()).partition("left out, for want of room: ")
    assert all(word in said for word in LAST[:out]) and bool(said) == bool(out)
    assert "[76.6,\N{NO-BREAK SPACE}100.0]" in text  # no interval is broken


def test_markdown_parses_back(known):
    answer, empty, *lines, blank, about = markdown(known).splitlines()
    assert answer == (
        "`he_normal()` alone trains; `zeros()` and `normal(stddev=10000.0)` do not "
        "train."
    )
    assert empty == ""
    table_of = [
        [cell.strip() for cell in line.strip("|").split(" | ")] for line in lines
    ]
    assert table_of[0] == header(known) and blank == ""
    assert set("".join(table_of[1])) == {":", "-"}
    rows = [cells(known, row) for row in known.rows()]
    assert table_of[2:] == [[f"`{spec}`", *rest] for spec, *rest in rows]
    assert about.startswith("two; 2 dense layers of width 4, relu; adam")


def test_csv_parses_back(known):
    rows = list(csv.DictReader(io.StringIO(known.to_csv())))
    assert len(rows) == 3 * 3 * 2
    assert list(rows[0]) == [
        *("initializer", "seed", "learning_rate", "final_loss", "test"),
        *("steps_to_target", "diverged", "stopped_at"),
    ]
    cell = iter(rows)
    for i, init in enumerate(known.settings.initializers):
        for seed in range(3):
            for r, rate in enumerate((0.01, 0.1)):
                row = next(cell)
                assert row["initializer"] == repr(init)
                assert int(row["seed"]) == seed and float(row["learning_rate"]) == rate
                assert float(row["final_loss"]) == known.scores.loss[i, seed, r]
                assert float(row["test"]) == known.scores.test[i, seed, r]
                assert float(row["steps_to_target"]) == known.first_steps()[i, seed, r]
                assert row["diverged"] == str(i == HUGE)
                assert row["stopped_at"] == ""  # trained to the last step
    assert known.to_csv().count("\r") == 0


@pytest.fixture
def words(data_file):
    given = "--batch-size 8 --depth 2 --width 4 --seeds 1 --steps 2 --lr 0.01 --init"
    return [
        "compare",
        "--data",
        str(data_file),
        *given.split(),
        "uniform(0.1, low=-0.1)",
    ]


@pytest.mark.parametrize("form", ["table", "md", "json", "csv"])
def test_compare_prints_the_format_and_nothing_else(words, capsys, form):
    assert main([*words, "--format", form]) == 0
    out, err = capsys.readouterr()
    spec = "uniform(scale=0.1, low=-0.1)"
    if form == "table":
        assert "┏" in out and "Computed in" in out
        return
    assert "Computed in" not in out and "Add --out" not in out and not err.strip()
    if form == "md":
        answer, empty, heads, *_ = out.splitlines()
        assert answer in (f"`{spec}` trains.", f"`{spec}` does not train.")
        assert not empty
        assert heads.startswith("| initializer | ") and f"| `{spec}` |" in out
    elif form == "json":
        assert json.loads(out)["table"][0]["initializer"] == spec
    else:
        (row,) = csv.DictReader(io.StringIO(out))
        assert row["initializer"] == spec and row["learning_rate"] == "0.01"


def test_files_are_told_of_apart_from_csv(words, capsys, tmp_path):
    assert main([*words, "--format", "csv", "--out", str(tmp_path / "run")]) == 0
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 2 and "Written to" in err


@pytest.mark.parametrize(
    "given, said",
    [
        (["--format", "xml"], "argument --format: invalid choice: 'xml'"),
        (["--format"], "argument --format: expected one argument"),
        (["--json", "--format", "csv"], "not allowed with argument"),
    ],
)
def test_formats_that_are_none_are_refused_in_one_line(words, capsys, given, said):
    with pytest.raises(SystemExit) as end:
        main([*words, *given])
    out, err = capsys.readouterr()
    (line,) = err.splitlines()
    assert end.value.code == 2 and not out
    assert line.startswith("jaxinit compare: ") and said in line
