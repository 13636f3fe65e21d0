"""The forms of a signal report: text, colors, HTML, JSON, plot, assertion."""

import html.parser
import io
import json
import math
import re
import sys
from typing import get_args

import numpy as np
import pytest
from marks import slow_but
from reports import SEEDS, chain, layer, module, report
from rich.console import Console

from jaxinit._panels import png
from jaxinit._text import (
    number,
    or_dash,
    percent,
    plural,
    shape,
    size,
    span,
    with_error,
)
from jaxinit.signal import Finding
from jaxinit.signal._judge.findings import over_seeds
from jaxinit.signal._judge.verdicts import Condition
from jaxinit.signal._report.tree import join_runs, make_rows

WRONG = [repr(name) for name in get_args(Condition) if name != "healthy"]

PNG = b"\x89PNG\r\n\x1a\n"


VANISHING = Finding(
    "vanishing",
    ("Dense_1", "Dense_2", "Dense_3"),
    "the signal shrinks by 0.1 per layer.",
    "use kernel_init=jaxinit.he_normal()",
)


def vanishing(depth=4):
    layers = [layer("Dense_0", 1.0, 1e-4, condition="healthy")]
    layers += [
        layer(f"Dense_{i}", 10.0**-i, 10.0 ** (i - depth), condition="vanishing")
        for i in range(1, depth)
    ]
    return report(*layers, findings=[VANISHING])


def not_finite():
    layers = [
        layer("Dense_0", 1e30),
        layer("Dense_1", math.inf, math.nan, condition="non-finite"),
        layer("Dense_2", math.nan, 1.0, condition="non-finite", distance=math.nan),
    ]
    finding = Finding("non-finite", ("Dense_1", "Dense_2"), "Dense_1: no number.", "y")
    return report(*layers, findings=[finding])


def column(text, head):
    """Reads a column of a table by what stands above it."""
    lines = text.splitlines()
    heads, rule = lines[1:3]
    start = heads.index(head) if head == "layer" else None
    for match in re.finditer("─+", rule):
        if head in heads[slice(*match.span())]:
            start, end = match.span()
    body = lines[3 : lines.index("")]
    return [line[start:end].strip() for line in body]


# Numbers.


@pytest.mark.parametrize(
    "value, text",
    [
        (1.23456, "1.23"),
        (1234.5, "1.2e+03"),
        (1.2e-5, "1.2e-05"),
        (-0.5, "-0.5"),
        (0.0, "0"),
        (math.inf, "∞"),
        (-math.inf, "-∞"),
        (math.nan, "–"),
    ],
)
def test_numbers_have_three_digits_and_signs_for_what_is_none(value, text):
    assert number(value) == text


@pytest.mark.parametrize(
    "value, error, text",
    [
        (1.234, 0.0123, "1.23±0.01"),
        (512.0, 57.2, "512±57"),
        (1.2e-5, 3e-7, "1.2e-05±3e-07"),
        (1.5, math.nan, "1.5"),
        (1.5, 0.0, "1.5"),
        (1.0, 1e-8, "1"),
        (math.inf, math.nan, "∞"),
        (math.nan, 0.1, "–"),
    ],
)
def test_errors_have_a_digit_and_are_left_out_where_they_say_nothing(
    value, error, text
):
    assert with_error(value, error) == text


@pytest.mark.parametrize(
    "values, text",
    [
        ([1.404, 1.42, 1.41], "1.4–1.42"),
        ([1.0, 1.0], "1"),
        ([-0.1, 0.2], "-0.1 to 0.2"),
        ([math.nan, 2.0], "2"),
        ([math.nan], "–"),
        ([1.0, math.inf], "1–∞"),
        ([], ""),
    ],
)
def test_a_span_has_two_ends_at_most(values, text):
    assert span(values) == text


@pytest.mark.parametrize(
    "share, text",
    [(0.0, "0 %"), (0.004, "<1 %"), (0.5, "50 %"), (1.0, "100 %"), (math.nan, "–")],
)
def test_shares_are_percents(share, text):
    assert percent(share) == text


def test_means_over_seeds_have_the_error_of_the_mean():
    mean, error = over_seeds([1.0, 2.0, 3.0, 4.0])
    assert mean == 2.5
    assert error == pytest.approx(np.std([1, 2, 3, 4], ddof=1) / 2)
    assert math.isnan(over_seeds([1.0])[1])


@pytest.mark.parametrize("values", [[math.inf, 1.0], [math.inf, -math.inf], [math.nan]])
def test_means_of_what_is_not_finite_make_no_warnings(values):
    assert not math.isfinite(over_seeds(np.array(values, np.float32))[0])


# The table.


def test_the_table_of_a_small_report_reads_so():
    block = [
        module("block", 2.0),
        layer("block/up", 1.5, 0.5, predicted={"std": 1.414, "gradient_std": 0.5}),
        layer("head", 0.25, dead=0.5, shape=(32, 10), condition="dead"),
    ]
    # In the order of execution, in which a module comes behind its layers.
    order = [block[1], block[0], block[2]]
    cure = "start the biases at zeros()"
    dead = Finding("dead", ("head",), "half the units are zero.", cure)
    assert report(*order, findings=[dead]).table() == "\n".join(
        [
            "dead, 2 layers, 4 seeds",
            "layer  output        activation  signal std  theory  gradient std  "
            "theory  zeros  dead  saturated  similarity  condition",
            "─────  ────────────  ──────────  ──────────  ──────  ────────────  "
            "──────  ─────  ────  ─────────  ──────────  ─────────",
            "block  module 32×64                  2±0.01               1±0.006  "
            "                                     0.500  healthy",
            "  up   dense 32×64   relu         1.5±0.009    1.41     0.5±0.003  "
            "   0.5    0 %   0 %        0 %       0.500  healthy",
            "head   dense 32×10   relu        0.25±0.001               1±0.006  "
            "          0 %  50 %        0 %       0.500  dead",
            "",
            "dead: head: half the units are zero.",
            "  cure: start the biases at zeros()",
            "singular values of the Jacobian: root mean square 1±0.1, "
            "largest 2±0.5 (2 seeds)",
        ]
    )


def test_a_healthy_report_says_so_with_numbers():
    found = report(layer("a", 1.4, 0.5), layer("b", 1.5, 1.0), jacobian=False)
    assert found.table().endswith("\n\nhealthy: signal std 1.4–1.5, gradient std 0.5–1")
    assert found.healthy and found.condition == "healthy"


def test_columns_without_a_cell_are_left_out():
    text = report(layer("a", activation=None, distance=math.nan)).table()
    heads = text.splitlines()[1].split("  ")
    assert [head.strip() for head in heads if head.strip()] == [
        *("layer", "output", "signal std", "gradient std", "condition")
    ]


def test_one_seed_has_no_error():
    text = report(layer("a", 1.5, seeds=1), seeds=1).table()
    assert text.startswith("healthy, 1 layer, 1 seed\n")
    assert column(text, "signal std") == ["1.5"]


def test_what_is_not_finite_has_signs():
    text = not_finite().table()
    assert column(text, "signal std") == ["1.0e+30±6e+27", "∞", "–"]
    assert column(text, "gradient std")[1] == "–"
    assert column(text, "similarity") == ["0.500", "0.500", "–"]
    assert column(text, "condition") == ["healthy", "non-finite", "non-finite"]


def test_a_report_without_layers_prints():
    assert str(report(jacobian=False)) == "healthy, 0 layers, 4 seeds\n\n\n"


# The tree.


def names(layers, **given):
    return ["  " * row.depth + row.name for row in make_rows(layers, **given)]


def test_layers_stand_below_the_modules_of_their_paths():
    paths = ["embed", "enc/a/q", "enc/a/k", "enc/b/q", "head", "enc/c"]
    assert names([layer(path) for path in paths]) == [
        *("embed", "enc", "  a", "    q", "    k", "  b", "    q", "head", "enc", "  c")
    ]


def test_a_module_heads_its_layers_with_its_own_numbers():
    layers = [layer("m/a"), module("m", 3.0), module("norm"), module("(output)")]
    found = make_rows(layers)
    assert [row.name for row in found] == ["m", "a", "norm", "(output)"]
    assert found[0].layers == (layers[1],)


def test_a_module_that_is_used_twice_has_its_numbers_at_the_first_use():
    layers = [layer("m/a"), module("m"), layer("b"), layer("m/a #2"), module("m #2")]
    found = make_rows(layers)
    assert [row.name for row in found] == ["m", "a", "b", "m", "a #2", "m #2"]
    assert [len(row.layers) for row in found] == [1, 1, 1, 0, 1, 1]


def test_steps_of_a_loop_have_rows():
    layers = [layer(f"cell/dense[{i}]") for i in range(3)]
    assert names(layers) == ["cell", "  dense[0]", "  dense[1]", "  dense[2]"]


def test_steps_of_a_loop_stand_below_their_step_of_the_module():
    layers = []
    for i in range(2):
        layers += [layer(f"net/cell/dense[{i}]"), module(f"net/cell[{i}]")]
    assert names(layers) == [
        *("net", "  cell[0]", "    dense[0]", "  cell[1]", "    dense[1]")
    ]


# Folding.


def test_layers_that_repeat_are_folded():
    text = report(*chain(50, shape=(8, 3))).table()
    assert column(text, "layer") == ["Dense_0", "Dense_1 … Dense_48", "Dense_49"]
    assert column(text, "output")[1] == "48 × dense 8×3"
    assert column(text, "signal std")[1] == "1.43–1.5"
    assert column(text, "dead")[1] == "0 %"


def test_every_layer_has_a_row_if_asked_for():
    text = report(*chain(50)).table(all_layers=True)
    assert column(text, "layer") == [f"Dense_{i}" for i in range(50)]


@pytest.mark.parametrize("depth, folded", [(4, False), (5, True)])
def test_five_repetitions_are_folded(depth, folded):
    assert (len(make_rows(chain(depth))) == 3) is folded


def test_layers_of_another_condition_form_or_activation_stay_apart():
    layers = chain(6) + chain(6, "vanishing", 6) + chain(6, shape=(9, 9), start=12)
    layers += chain(6, activation="tanh", start=18) + chain(1, "dead", 24)
    text = report(*layers).table()
    firsts = [name.partition(" ")[0] for name in column(text, "layer")]
    numbers = [0, 1, 5, 6, 7, 11, 12, 13, 17, 18, 19, 23, 24]
    assert firsts == [f"Dense_{i}" for i in numbers]
    conditions = ["healthy"] * 3 + ["vanishing"] * 3 + ["healthy"] * 6 + ["dead"]
    assert column(text, "condition") == conditions


def test_layers_that_alternate_are_folded_each_with_its_like():
    layers = []
    for i in range(9):
        layers += [layer(f"Dense_{i}"), module(f"Norm_{i}")]
    assert names(layers) == [
        *("Dense_0", "Norm_0", "Dense_1 … Dense_7", "Norm_1 … Norm_7"),
        *("Dense_8", "Norm_8"),
    ]


def blocks(count, own_rows):
    layers = []
    for i in range(count):
        layers += [layer(f"block_{i}/up", 2.0, shape=(32, 256))]
        layers += [layer(f"block_{i}/down", 0.5, dead=0.01 * i)]
        layers += [module(f"block_{i}", 1.0 + i)] * own_rows
    return layers


def test_blocks_that_repeat_are_folded_whole():
    text = report(*blocks(12, own_rows=True)).table()
    middle = "block_1 … block_10"
    parts = ["up", "down"]
    assert column(text, "layer") == ["block_0", *parts, middle, "block_11", *parts]
    assert column(text, "output")[3] == "10 × module 32×64"
    assert column(text, "signal std")[3] == "2–11"


def test_folded_blocks_without_rows_of_their_own_span_their_layers():
    text = report(*blocks(12, own_rows=False)).table()
    assert column(text, "output")[3] == "10 × module"
    assert column(text, "signal std")[3] == "0.5–2"
    assert column(text, "dead")[3] == "0 %–10 %"
    assert column(text, "signal std")[0] == ""


def test_an_unhealthy_block_is_not_folded_away():
    layers = blocks(12, own_rows=True)
    layers[3 * 6] = layer("block_6/up", shape=(32, 256), condition="dead")
    shown = names(layers)
    assert "block_6" in shown and "block_1 … block_4" in shown


def test_a_thousand_layers_take_three_rows():
    assert len(make_rows(chain(1000))) == 3


# Findings.


def test_layers_that_follow_one_another_are_named_by_their_ends():
    layers = [*chain(6), module("m"), *chain(4, start=6)]
    chosen = [f"Dense_{i}" for i in (0, 2, 3, 5, 6, 7)]
    assert join_runs(layers, chosen) == "Dense_0, Dense_2, Dense_3, Dense_5 – Dense_7"
    assert join_runs(layers, ["m", "Dense_6", "Dense_7"]) == "m – Dense_7"


def test_findings_name_their_layers_and_cures():
    lines = vanishing().table().splitlines()
    at = lines.index("") + 1
    assert lines[at : at + 2] == [
        "vanishing: Dense_1 – Dense_3: the signal shrinks by 0.1 per layer.",
        "  cure: use kernel_init=jaxinit.he_normal()",
    ]


def test_a_reason_that_names_its_layers_is_left_as_it_is():
    assert "\nnon-finite: Dense_1: no number.\n" in not_finite().table()


@pytest.mark.parametrize(
    "text, said",
    [
        (plural(1, "entry"), "1 entry"),
        (plural(2000, "entry", ","), "2,000 entries"),
        (plural(0, "array"), "0 arrays"),
        (plural(2, "learning rate"), "2 learning rates"),
        (size(1), "1 B"),
        (size(1536), "1.5 KiB"),
        (size(2**54), "16384.0 TiB"),
        (shape((3, 4)), "3×4"),
        (shape(()), "scalar"),
        (or_dash(None, str), "–"),
        (or_dash(0, str), "0"),
    ],
)
def test_counts_and_sizes_read_well(text, said):
    assert text == said


# Width.


@pytest.mark.parametrize("width", [60, 80, 100, 120])
def test_columns_that_do_not_fit_are_left_out_and_named(width):
    found = report(layer("a", predicted={"std": 1.0, "gradient_std": 1.0}))
    lines = found.table(width=width).splitlines()
    table = lines[1 : lines.index("")]
    assert max(map(len, table[:-1])) <= width and len(table) == 3 + (width < 120)
    kept = set(re.split(" {2,}", lines[1]))
    assert {"layer", "signal std", "gradient std", "condition"} <= kept
    full = set(re.split(" {2,}", found.table().splitlines()[1]))
    gone = re.findall("[a-z]+", table[-1][20:-5]) if kept < full else []
    assert set(gone) == full - kept
    assert ("zeros" in kept) == (width == 120)


def test_what_must_stay_stays_in_any_width():
    assert "condition" in vanishing().table(width=1).splitlines()[1]


def test_printing_keeps_to_the_width_of_the_terminal(monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    assert str(vanishing()) == vanishing().table()
    monkeypatch.setenv("COLUMNS", "80")
    assert str(vanishing()) == vanishing().table(width=80)


@pytest.mark.parametrize(
    "given, kind, message",
    [
        ({"width": 0}, ValueError, "table(width=0): width must be 1 or above."),
        ({"width": 8.5}, TypeError, "table(width=8.5): width must be an integer."),
        ({"all_layers": 1}, TypeError, "all_layers must be True or False."),
    ],
)
def test_arguments_of_the_table_are_checked(given, kind, message):
    with pytest.raises(kind, match=re.escape(message)):
        vanishing().table(**given)


def test_representations_are_one_line():
    assert repr(vanishing()) == "SignalReport(vanishing, 4 layers, 4 seeds)"
    assert repr(layer("a", 0.5)) == "Layer('a', dense (32, 64), std 0.5, healthy)"


# Without rich, and with it.


@pytest.fixture
def without(monkeypatch):
    """Takes a package away, as if it were not installed."""

    def take(package):
        for name in [n for n in sys.modules if n.partition(".")[0] == package]:
            monkeypatch.setitem(sys.modules, name, None)
        monkeypatch.setitem(sys.modules, package, None)
        for name in ("_panels", "signal.console", "signal._report.plot"):
            monkeypatch.delitem(sys.modules, f"jaxinit.{name}", raising=False)

    return take


def test_printing_needs_no_other_package(without):
    expected = str(vanishing()), vanishing()._repr_html_()
    for package in ("rich", "jinja2", "matplotlib"):
        without(package)
    assert (str(vanishing()), vanishing()._repr_html_()) == expected


def printed(found, **given):
    file = io.StringIO()
    console = Console(file=file, **{"width": 160, "color_system": None} | given)
    console.print(found)
    return [line.rstrip() for line in file.getvalue().splitlines()]


@pytest.mark.parametrize("make", [vanishing, not_finite, lambda: report(*chain(9))])
def test_a_rich_console_has_the_same_words(make):
    lines = make().table(width=160).splitlines()
    assert printed(make()) == [line for line in lines if not line.startswith("──")]


def test_a_rich_console_has_colors():
    colors = {"force_terminal": True, "color_system": "standard"}
    (first, *_) = printed(vanishing(), **colors)
    assert first.startswith("\x1b[1;31mvanishing")
    (first, *_) = printed(report(layer("a")), **colors)
    assert first.startswith("\x1b[32mhealthy")


def test_a_rich_console_folds_names_before_numbers():
    lines = printed(report(layer("a_name_that_is_long" * 3, 1.5)), width=70)
    assert max(map(len, lines)) <= 70
    assert any("1.5±0.009" in line and line.endswith("healthy") for line in lines)


def test_names_are_no_markup():
    lines = printed(report(layer("cell/[red]dense[3]"), layer("[bold]")))
    assert any(line.startswith("  [red]dense[3]") for line in lines)
    assert any(line.startswith("[bold]") for line in lines)


# HTML.


class Reader(html.parser.HTMLParser):
    """Reads rows of cells, and holds that every element is closed."""

    def __init__(self, text):
        super().__init__()
        self.open, self.rows, self.tags = [], [], set()
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        if tag != "br":
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, text):
        if self.open and self.open[-1] in ("td", "th"):
            self.rows[-1][-1] += text


def test_notebooks_show_the_cells_of_the_table():
    found = vanishing()
    read = Reader(found._repr_html_()).rows
    assert [cells[0] for cells in read] == ["layer", *(f"Dense_{i}" for i in range(4))]
    assert [cells[-1] for cells in read[1:]] == ["healthy", *["vanishing"] * 3]
    assert read[1][read[0].index("signal std")] == "1±0.006"
    assert "kernel_init=jaxinit.he_normal()" in found._repr_html_()


def test_names_and_findings_are_escaped():
    wrong = Finding("dead", ("<html>",), "<b>&", "</div><script>alert(1)</script>")
    unsafe = layer("m/<html>", activation="<i>", condition="dead")
    text = report(unsafe, findings=[wrong])._repr_html_()
    read = Reader(text)
    assert read.rows[2][0] == "  <html>"
    assert not read.tags & {"html", "b", "i", "script"}
    assert "&lt;/div&gt;&lt;script&gt;" in text


def test_html_is_self_contained():
    text = not_finite()._repr_html_()
    for outside in ("http", "src=", "href=", "url(", "@import", "<script", "<link"):
        assert outside not in text


def test_html_marks_what_is_wrong():
    text = vanishing()._repr_html_()
    assert text.count('wrong">vanishing') == 5  # three rows, the line above, a finding
    assert text.count('healthy">healthy') == 1


# JSON.


def only_json(text):
    """Reads JSON, refusing the words NaN and Infinity, which JSON lacks."""

    def refuse(word):
        raise AssertionError(f"{word} is not JSON")

    return json.loads(text, parse_constant=refuse)


@pytest.mark.parametrize("make", [vanishing, not_finite, lambda: report()])
@pytest.mark.parametrize("seeds", [False, True])
def test_the_dictionary_is_json(make, seeds):
    found = make().to_dict(seeds=seeds)
    assert only_json(make().to_json(seeds=seeds)) == found
    assert only_json(make().to_json(indent=2, seeds=seeds)) == found


def test_the_dictionary_has_every_part():
    found = vanishing().to_dict()
    assert {k: v for k, v in found.items() if k not in ("layers", "findings")} == {
        "condition": "vanishing",
        "healthy": False,
        "seeds": 4,
        "limit": 100.0,
        "loss": {"mean": 1.5, "error": pytest.approx(0.6454972)},
        "jacobian": {
            "mean_square": {"mean": pytest.approx(1.01), "error": pytest.approx(0.2)},
            "largest": {"mean": 2.0, "error": pytest.approx(0.5)},
        },
    }
    assert found["findings"] == [
        {
            "condition": "vanishing",
            "layers": ["Dense_1", "Dense_2", "Dense_3"],
            "reason": "the signal shrinks by 0.1 per layer.",
            "cure": "use kernel_init=jaxinit.he_normal()",
        }
    ]
    (one,) = [x for x in found["layers"] if x["path"] == "Dense_2"]
    assert one["shape"] == [32, 64] and one["condition"] == "vanishing"
    assert one["forward"]["std"]["mean"] == pytest.approx(0.01)
    assert one["backward"]["norm"]["mean"] == pytest.approx(0.08)
    assert "sample" not in one["forward"]


def test_values_by_seed_are_there_if_asked_for():
    one = vanishing().to_dict(seeds=True)["layers"][0]["forward"]
    assert one["std"]["values"] == pytest.approx([1.01, 0.99, 1.01, 0.99])
    assert set(one["sample"]) == {"values"}
    assert np.shape(one["sample"]["values"]) == (SEEDS, 64)


def test_what_is_not_finite_is_null():
    first, second, third = not_finite().to_dict(seeds=True)["layers"]
    assert first["forward"]["std"]["mean"] == pytest.approx(1e30)
    assert second["forward"]["std"] == {
        "mean": None,
        "error": None,
        "values": [None] * SEEDS,
    }
    assert third["backward"]["std"]["mean"] == pytest.approx(1)


def test_the_choice_of_seeds_is_checked():
    with pytest.raises(TypeError, match=r"to_dict\(seeds=8\): seeds must be True or"):
        vanishing().to_dict(seeds=8)


# The plot.


def titles(figure):
    return [axis.get_title() for axis in figure.axes]


def lines(axis, style):
    return [line for line in axis.lines if line.get_linestyle() == style]


def labels(figure):
    return [
        text.get_text()
        for part in figure.subfigs or [figure]
        for legend in part.legends
        for text in legend.get_texts()
    ]


@pytest.mark.slow
def test_a_healthy_plot_has_its_panels_and_theory():
    expected = {"std": 1.4, "gradient_std": 0.7}
    figure = report(*chain(50, predicted=expected), module("(output)", 9.0)).plot()
    assert png(figure).startswith(PNG)
    forward, backward, singular, *rest = figure.axes
    assert forward.get_yscale() == backward.get_yscale() == "log"
    for axis, value in ((forward, 1.4), (backward, 0.7)):
        (theory,) = lines(axis, "--")
        np.testing.assert_array_equal(theory.get_ydata(), np.full(50, value))
        assert not axis.patches  # nothing is marked
        assert len(axis.get_xticks()) < 20
    assert singular.get_title() == "singular values\nof the Jacobian"
    assert [axis.get_title() for axis in rest] == [
        f"Dense_{i}" for i in (0, 7, 14, 21, 28, 35, 42, 49)
    ]
    assert all(axis.patches for axis in rest)
    assert labels(figure) == [
        *("median of the seeds", "80 % of the seeds", "theory", "modules")
    ]


def test_the_band_holds_most_seeds():
    one = layer("a", seeds=101)
    one.forward["std"][:] = np.arange(101) + 1.0
    forward = report(one, layer("b", seeds=101), seeds=101).plot().axes[0]
    (band,) = forward.collections
    low, high = np.sort(band.get_paths()[0].vertices[:-1, 1])[[0, -1]]
    assert low == pytest.approx(0.99) and high == pytest.approx(91)
    corners = band.get_paths()[0].vertices
    assert corners[corners[:, 0] == 1][:, 1].min() == pytest.approx(11)


def test_without_a_jacobian_there_is_no_panel_of_it():
    figure = report(*chain(3), jacobian=False).plot()
    assert titles(figure)[2:] == ["Dense_0", "Dense_1", "Dense_2"]


@pytest.mark.slow
def test_unhealthy_layers_are_marked():
    figure = vanishing(20).plot()
    png(figure)
    for axis in figure.axes[:2]:
        (span,) = axis.patches
        assert (span.get_x(), span.get_width()) == (1.5, 19)
    assert "vanishing" in labels(figure)


def test_what_a_logarithm_cannot_show_is_at_the_edge():
    layers = [layer("a", 1e-3), layer("b", 0.0), layer("c", math.nan, math.inf)]
    figure = report(*layers, layer("d", 1e3)).plot()
    assert png(figure).startswith(PNG)
    edge = [(line.get_marker(), *line.get_xydata()[0]) for line in figure.axes[0].lines]
    assert ("v", 2.0, 0.03) in edge and ("x", 3.0, 0.97) in edge
    assert ("x", 3.0, 0.97) in [
        (line.get_marker(), *line.get_xydata()[0]) for line in figure.axes[1].lines
    ]
    assert {"zero", "not finite"} <= set(labels(figure))
    assert titles(figure)[3:] == ["a", "d"]  # what has no histogram has no panel


REPORTS = {
    "not finite": not_finite,
    "nothing": lambda: report(layer("a", 0.0, 0.0), layer("b", math.nan, math.nan)),
    "extremes": lambda: report(layer("a", 1e300, 1e-300), layer("b", 1e-300, 1e300)),
    "seed": lambda: report(layer("a", 1.5, seeds=1), seeds=1),
    "modules": lambda: report(module("a"), module("b")),
    "names": lambda: report(layer("<html>$x$" * 9), layer("a_b" * 20)),
    "empty": lambda: report(),
}


@pytest.mark.parametrize("make", slow_but(["not finite", "empty"], REPORTS))
def test_any_report_can_be_drawn_without_a_warning(make):
    assert png(REPORTS[make]().plot()).startswith(PNG)


def test_entries_that_are_not_finite_are_told_of():
    one = layer("a")
    one.forward["sample"][0, :] = math.inf
    assert "a, 25 % not finite" in titles(report(one, layer("b")).plot())


def test_theory_that_goes_on_where_numbers_overflow_leaves_the_panel():
    layers = [
        layer(f"Dense_{i}", 10.0**i, predicted={"std": 10.0 ** (20 * i)})
        for i in range(5)
    ]
    low, high = report(*layers).plot().axes[0].get_ylim()
    assert 0.1 < low < 1 and 1e4 < high < 1e8


def test_histograms_keep_to_their_values_whatever_theory_says():
    far = [layer("a", predicted={"std": 1e6}), layer("b", predicted={"std": 1e-6})]
    *_, first, second = report(*far, jacobian=False).plot().axes
    for axis in (first, second):
        assert np.ptp(axis.get_xlim()) == pytest.approx(5, abs=2)
        assert axis.get_ylim()[1] < 2


@pytest.mark.slow
def test_names_below_the_axis_do_not_overlap():
    figure = report(*[layer(f"encoder/block_{i}/dense") for i in range(12)]).plot()
    png(figure)
    boxes = [
        text.get_window_extent() for text in figure.axes[0].get_xticklabels() if text
    ]
    assert len(boxes) == 12
    # Turned names lie side by side if the axis gives each the height of a line.
    step = np.diff([box.x1 for box in boxes])
    assert step.min() > 12
    assert not any(len(t.get_text()) > 22 for t in figure.axes[0].get_xticklabels())


def test_notebooks_show_the_plot():
    assert report(*chain(2)).plot()._repr_png_().startswith(PNG)


def test_a_missing_plot_library_is_answered_with_the_command_to_install_it(without):
    without("matplotlib")
    message = r"plot\(\): needs matplotlib. Run pip install 'jaxinit\[lab\]'."
    with pytest.raises(ModuleNotFoundError, match=message):
        vanishing().plot()


# The assertion.


def failure(found, **given):
    with pytest.raises(AssertionError) as raised:
        found.assert_healthy(**given)
    first, *rest = str(raised.value).split("\n- ")
    assert first == "assert_healthy(): the model must be healthy, and it is not:"
    return rest


def test_a_healthy_report_passes():
    healthy = report(*chain(9), layer("head", 1e-9, 1.0))
    healthy.assert_healthy()
    healthy.assert_healthy(limit=2, gradient=(0.5, 2), dead=0, saturated=0)
    healthy.assert_healthy(std=(0, math.inf), allow=["dead", "collapsed"])


def test_findings_fail_with_layers_numbers_and_cure():
    assert failure(vanishing()) == [
        "vanishing: Dense_1 – Dense_3: the signal shrinks by 0.1 per layer. "
        "Cure: use kernel_init=jaxinit.he_normal()"
    ]


@pytest.mark.parametrize("allow", ["vanishing", ("vanishing",), {"vanishing", "dead"}])
def test_allowed_findings_pass(allow):
    vanishing().assert_healthy(allow=allow)


def test_findings_of_another_condition_are_not_allowed_with_them():
    assert len(failure(vanishing(), allow=("dead", "exploding"))) == 1


CURE = (
    "Cure: use weights that suit the activation, such as "
    "kernel_init=jaxinit.he_normal(gain='relu'), a normalization or residual paths"
)


def test_a_signal_outside_its_range_fails():
    found = report(layer("a", 0.3), layer("b", 5.0), layer("c", 1.0), module("m", 99.0))
    assert failure(found, std=(0.5, 2)) == [
        "the signal's std must lie in std=(0.5, 2). It is 0.3 at a, 5 at b. " + CURE
    ]


def test_many_layers_outside_are_told_by_their_ends():
    layers = [layer(f"l{i}", 2.0**i) for i in range(8)]
    (line,) = failure(report(*layers), std=(0, 3))
    assert line == (
        "the signal's std must lie in std=(0, 3). It is 4 at l2 to 128 at l7, beyond "
        "it in 6 of 8 layers: l2 – l7. " + CURE
    )


def test_a_gradient_outside_its_range_fails():
    layers = [layer("a", 1.0, 1e-3), layer("b"), layer("c", 1.0, 2.0)]
    assert failure(report(*layers), gradient=(0.1, 10)) == [
        "the gradient's norm over that at c must lie in gradient=(0.1, 10). "
        "It is 5.0e-04 at a. " + CURE
    ]


def test_a_drift_beyond_the_limit_fails_in_both_directions():
    layers = [layer("a", 1, 100), layer("b", 9, 10), layer("c", 0, 0), layer("d", 5e3)]
    drift, gradient = failure(report(*layers), limit=5)
    assert drift.startswith(
        "the signal's std over that at a must stay within a factor of limit=5. "
        "It is 9 at b. "
    )
    assert gradient.startswith(
        "the gradient's norm over that at d must stay within a factor of limit=5. "
        "It is 100 at a, 10 at b. "
    )


def test_shares_above_their_limits_fail():
    layers = [
        layer("a", dead=0.3, saturated=0.2),
        layer("b", activation=None),
        layer("c", dead=0.1, saturated=math.nan),
    ]
    dead, saturated = failure(report(*layers), dead=0.25, saturated=0.1)
    assert dead == (
        "the share of dead units must be at most dead=0.25. It is 30 % at a. Cure: "
        "start the biases at zeros(), or use weights that suit the activation, such "
        "as kernel_init=jaxinit.he_normal(gain='relu')"
    )
    assert saturated == (
        "the share of saturated entries must be at most saturated=0.1. It is 20 % at "
        "a, – at c. Cure: use smaller weights, or a normalization"
    )


def test_what_is_no_number_is_outside_every_range():
    layers = [layer("a", math.nan, 1.0), layer("b", 1.0, math.nan)]
    assert len(failure(report(*layers), std=(0, math.inf), gradient=(0, 9))) == 2


def test_a_cure_names_no_activation_that_has_no_gain():
    (line,) = failure(report(layer("a", activation="function")), std=(5, 6))
    assert "suit the activation, a normalization" in line


def test_limits_on_no_layers_pass():
    report().assert_healthy(std=(1, 2), gradient=(1, 2), limit=2, dead=0)


PAIR = "must be a pair (low, high) with 0 <= low < high."


@pytest.mark.parametrize(
    "given, kind, message",
    [
        (
            {"allow": "vanishin"},
            ValueError,
            "assert_healthy(allow='vanishin'): allow must be one of "
            f"{', '.join(WRONG)}. Did you mean 'vanishing'",
        ),
        ({"allow": ("dead", 3)}, ValueError, "assert_healthy(allow=3): allow must be"),
        ({"allow": "healthy"}, ValueError, "allow must be one of 'vanishing'"),
        ({"allow": 5}, TypeError, "allow must be a condition, or several in a tuple."),
        ({"limit": 1}, ValueError, "assert_healthy(limit=1): limit must be above 1."),
        ({"limit": "2"}, TypeError, "limit must be a real number."),
        ({"std": (2, 1)}, ValueError, f"assert_healthy(std=(2, 1)): std {PAIR}"),
        ({"std": 1.0}, TypeError, f"assert_healthy(std=1.0): std {PAIR}"),
        ({"std": (1, 2, 3)}, TypeError, f"std {PAIR}"),
        ({"gradient": (-1, 1)}, ValueError, f"gradient {PAIR}"),
        ({"gradient": ("0", 1)}, TypeError, f"gradient {PAIR}"),
        ({"gradient": (0, math.nan)}, ValueError, f"gradient {PAIR}"),
        ({"dead": 1.5}, ValueError, "dead must lie between 0 and 1."),
        ({"saturated": "all"}, TypeError, "saturated must be a real number."),
    ],
    ids=repr,
)
def test_limits_are_checked(given, kind, message):
    with pytest.raises(kind, match=f"^.*{re.escape(message)}"):
        report().assert_healthy(**given)
