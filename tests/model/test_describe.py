"""`describe`: measured rows, the table, the plots, notebooks."""

import html.parser
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import NamedSharding, PartitionSpec

import jaxinit
from jaxinit import describe, preview
from jaxinit._paths import named

KEY = jax.random.key(5)
NUMBERS = np.random.default_rng(5).normal(size=(256, 64)).astype(np.float32)
KERNEL = jnp.asarray(NUMBERS * np.float32((2 / 256) ** 0.5))
PARAMS = {
    "dense": {
        "kernel": KERNEL,
        "bias": jnp.asarray(np.eye(1, 64, 3, np.float32)[0] / 2),
    },
    "steps": jnp.asarray(np.arange(5, dtype=np.int32)),
    "half": jnp.asarray((0.1 * NUMBERS[:64]).astype(jnp.bfloat16)),
    "wave": jnp.asarray((0.1 * (NUMBERS[:64] + 1j * NUMBERS[64:128])).astype("c8")),
    "f": jnp.tanh,
    "key": KEY,
}


def by_path(params, **options):
    return {x.path: x for x in describe(params, **options).parameters}


def test_numbers_are_numpys():
    for path, x in by_path(PARAMS).items():
        leaf = PARAMS
        for part in path.split("/"):
            leaf = leaf[part]
        wide = np.asarray(leaf, np.complex128 if path == "wave" else np.float64)
        assert x.shape == wide.shape and x.dtype == str(leaf.dtype) and x.finite
        assert x.mean == pytest.approx(wide.mean().real, rel=1e-4, abs=1e-6)
        assert x.std == pytest.approx(wide.std(), rel=1e-4)
        modulus = np.abs(wide) if path == "wave" else wide
        assert x.minimum == pytest.approx(modulus.min(), rel=1e-6)
        assert x.maximum == pytest.approx(modulus.max(), rel=1e-6)
        assert x.zeros == pytest.approx((wide == 0).mean())
        assert x.histogram.sum() == pytest.approx(1)
    assert set(by_path(PARAMS)) == {
        "dense/kernel",
        "dense/bias",
        "steps",
        "half",
        "wave",
    }


def test_expected_standard_deviations():
    rules = [("kernel", jaxinit.he_normal()), ("bias", 0.0)]
    found = by_path(PARAMS, rules=rules)
    assert found["dense/kernel"].expected == pytest.approx((2 / 256) ** 0.5)
    assert found["dense/bias"].expected == 0 and found["half"].expected is None
    table = str(describe(PARAMS, rules=rules))
    assert "expected" in table and "expected" not in str(describe(PARAMS))


def test_sick_parameters():
    params = {
        "nan": jnp.array([1.0, jnp.nan]),
        "inf": jnp.array([1.0, jnp.inf]),
        "empty": jnp.zeros((0, 4)),
        "scalar": jnp.float32(2.0),
    }
    found = by_path(params)
    assert not found["nan"].finite and not found["inf"].finite
    assert found["empty"].finite and found["scalar"].mean == 2
    lines = str(describe(params)).splitlines()
    assert [line for line in lines if line.startswith("nan") and "not finite" in line]
    assert [line for line in lines if line.startswith("scalar  scalar")]


@pytest.mark.slow
def test_sharded_parameters_and_models():
    mesh = jax.make_mesh((8,), ("x",))
    kernel = jax.device_put(
        PARAMS["dense"]["kernel"], NamedSharding(mesh, PartitionSpec("x"))
    )
    whole, cut = (by_path({"k": k})["k"] for k in (PARAMS["dense"]["kernel"], kernel))
    assert cut.std == pytest.approx(whole.std, rel=1e-5)
    model = nnx.Linear(4, 8, rngs=nnx.Rngs(0))
    assert set(by_path(model)) == {"kernel", "bias"}


def test_rows_are_plain():
    (row,) = describe({"w": jnp.ones((2, 2))}).to_dict()
    assert row == {
        "path": "w",
        "shape": (2, 2),
        "dtype": "float32",
        "mean": 1.0,
        "std": 0.0,
        "expected": None,
        "minimum": 1.0,
        "maximum": 1.0,
        "zeros": 0.0,
        "finite": True,
        "histogram": row["histogram"],
    }


def test_rows_are_in_the_order_of_the_tree():
    layers = {"layers": [jnp.ones(2)] * 11, "a-b": jnp.ones(2), "a": {"b": KERNEL}}
    paths = [path for path, _ in named(layers)]
    assert [x.path for x in describe(layers).parameters] == paths


class Cells(html.parser.HTMLParser):
    """Reads rows of cells, and every class of a cell."""

    def __init__(self, text):
        super().__init__()
        self.rows, self.tags, self.classes = [], set(), []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
            self.classes.append(dict(attributes)["class"])

    def handle_data(self, text):
        if self.rows and self.lasttag in ("td", "th"):
            self.rows[-1][-1] += text


SHOWN = {
    "dense": {"kernel": KERNEL, "bias": jnp.zeros(64)},
    "<script>": jnp.array([1.0, jnp.nan]),
    "line\nbreak": jnp.ones((2, 3), jnp.complex64),
}
SHOWN_RULES = [("kernel", jaxinit.he_normal()), ("<script>", 1.0), ("<i>", 0.0)]


@pytest.mark.parametrize("call", [describe, preview])
def test_notebooks_show_the_cells_of_the_table(call):
    shown = call(SHOWN, rules=SHOWN_RULES)
    text = shown._repr_html_()
    read = Cells(text)
    lines = str(shown).splitlines()
    paths = ["<script>", "dense/bias", "dense/kernel", r"'line\nbreak'"]
    assert [row[0] for row in read.rows] == ["path", *paths]
    for row, line in zip(read.rows, [lines[0], *lines[2:]], strict=False):
        assert " ".join(" ".join(row).split()) == " ".join(line.split())
    assert not read.tags & {"script", "i"}
    for outside in ("http", "src=", "href=", "url(", "@import", "<link"):
        assert outside not in text
    assert "background" not in text and "color: inherit" in text


def test_notebooks_mark_what_is_wrong():
    assert Cells(describe(SHOWN)._repr_html_()).classes.count("left wrong") == 1
    text = preview(SHOWN, SHOWN_RULES)._repr_html_()
    assert "rules without a parameter: &lt;i&gt;" in text
    assert Cells(text).classes.count("left quiet") == 2


def test_notebooks_keep_a_thousand_rows():
    many = {str(i): jnp.ones(()) for i in range(1003)}
    text = jaxinit.model.Description(
        (describe({"w": jnp.ones(())}).parameters) * len(many), many
    )._repr_html_()
    assert len(Cells(text).rows) == 1001 and "… and 3 rows" in text


def test_a_repr_is_a_line():
    found, assigned = describe(SHOWN), preview(SHOWN, SHOWN_RULES)
    assert repr(found) == "Description(4 parameters)"
    assert repr(assigned) == "Assignments(4 parameters)"
    kernel = found.parameters[2]
    size = f"float32[256, 64], std {kernel.std:.3g}"
    assert repr(kernel) == f"Parameter('dense/kernel', {size})"
    laws = [*assigned.rows, *preview(SHOWN, [("bias", np.zeros(64))]).rows]
    assert repr(laws[2]) == "Assignment('dense/kernel', 'kernel': he_normal())"
    assert all("\n" not in repr(row) for row in laws)


def test_rows_of_assignments_are_plain():
    rows = preview(SHOWN, [*SHOWN_RULES, ("bias", np.zeros(64))]).to_dict()
    assert json.loads(json.dumps(rows))[2] == {
        **{"path": "dense/kernel", "shape": [256, 64], "dtype": "float32"},
        **{"rule": 0, "pattern": "kernel", "law": "he_normal()"},
        **{"std": pytest.approx((2 / 256) ** 0.5), "fans": [256, 64]},
    }
    assert rows[1]["law"] == "<ndarray float64[64]>" and rows[3]["law"] == "stays"


@pytest.mark.parametrize(
    ("kind", "panels"), [("histogram", 5), ("heatmap", 3), ("bias", 2)]
)
def test_plots(kind, panels, tmp_path):
    rules = [("kernel", jaxinit.he_normal())]
    figure = describe(PARAMS, rules=rules).plot(kind)
    titled = [axis for axis in figure.axes if axis.get_title()]
    assert len(titled) == panels
    figure.savefig(tmp_path / "plot.png")


def test_messages():
    with pytest.raises(ValueError, match=r"describe\(params=...\): there is no array"):
        describe({"f": jnp.tanh})
    found = describe(PARAMS)
    with pytest.raises(ValueError, match=r"plot\(what='pie'\): what must be one of"):
        found.plot("pie")
    with pytest.raises(
        ValueError, match=r"plot\(match='zzz'\): there is no parameter f"
    ):
        found.plot(match="zzz")
    assert repr(found) == "Description(5 parameters)"
