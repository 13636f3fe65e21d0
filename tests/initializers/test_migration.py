"""The page of migration: each row has the law of the library that it names."""

import inspect
import math
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import jaxinit as ji

pytestmark = pytest.mark.usefixtures("quick_compiler")

PAGE = Path(ji.__file__).parent / "initializers" / "MIGRATION.md"
SECTIONS = dict(
    section.split("\n", 1) for section in PAGE.read_text().split("\n## ")[1:]
)
KEY = jax.random.key(31)
DENSE, KERNEL = (384, 512), (3, 3, 32, 64)  # 196 608 entries tell a law from a cut one
LEVEL = 1e-4  # of every Kolmogorov-Smirnov test
CUT = stats.truncnorm(-2, 2).var()


def rows(section, cells):
    """Returns the code of the first cells of a section's tables, row by row."""
    wide = {2: 3, 4: 4}[cells]
    lines = re.findall(r"^\| (`.*) \|$", SECTIONS[section], re.M)
    table = [line.split(" | ") for line in lines]
    return [[c.split("`")[1] for c in row[:cells]] for row in table if len(row) == wide]


def same_law(theirs, ours):
    """Tells whether two weights, given as arrays, look like draws from one law."""
    theirs, ours = (np.asarray(w, float).ravel() for w in (theirs, ours))
    if theirs.std() == 0 or len(np.unique(theirs)) < theirs.size // 10:
        return np.allclose(theirs, ours, atol=1e-6)
    return stats.ks_2samp(theirs, ours).pvalue > LEVEL


def agree(theirs, ours):
    """Compares two functions of a shape, which may refuse kernels of convolutions."""
    shapes = [{"stft": (16, 1, 9), "orthogonal": (96, 160)}.get(ours.name, DENSE)]
    shapes += [KERNEL] if "in_axis" in ours.arguments and ours._random else []
    drawn = [(theirs(shape), ours(KEY, shape)) for shape in shapes]
    if ours.name == "orthogonal":
        for w in map(np.asarray, drawn[0]):
            np.testing.assert_allclose(w @ w.T, np.eye(len(w)), atol=1e-4)
    return all(same_law(a, b) for a, b in drawn)


def check_names(section, library, abstract):
    """Checks that every class has a row, whose first one states all defaults."""
    classes = {
        name: kind
        for name, kind in vars(library).items()
        if inspect.isclass(kind) and name == kind.__name__ and name != abstract
    }
    first = {}
    for theirs, _ in rows(section, 2):
        first.setdefault(theirs.partition("(")[0], theirs)
    assert set(first) == set(classes)
    for name, kind in classes.items():
        parameters = inspect.signature(kind).parameters.values()
        if all(p.default is not p.empty for p in parameters):
            stated = inspect.signature(kind).bind(*(), **_named(first[name]))
            for given, value in stated.arguments.items():
                assert inspect.signature(kind).parameters[given].default == value
            assert set(stated.arguments) | NOT_STATED >= {p.name for p in parameters}


NOT_STATED = {"seed", "input_axes", "output_axes", "fan_in_axes", "args", "kwargs"}


def _named(call):
    return eval(f"dict{call[call.index('(') :]}")


# Keras. It is not among the packages of the tests, since it has 50 MB and takes three
# seconds to import; `pip install keras` suffices, without TensorFlow.


@pytest.fixture(scope="module")
def keras(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KERAS_BACKEND", "jax")
        patch.setenv("KERAS_HOME", str(tmp_path_factory.mktemp("keras")))
        yield pytest.importorskip("keras", minversion="3.0", exc_type=ImportError)


def test_keras_has_no_other_initializers(keras):
    check_names("Keras", keras.initializers, "Initializer")


@pytest.mark.parametrize(("theirs", "ours"), rows("Keras", 2))
def test_rows_of_keras(keras, theirs, ours):
    init = eval(theirs, dict(vars(keras.initializers)))
    if hasattr(init, "seed"):
        init.seed = 5
    assert agree(init, ji.parse(ours))


@pytest.mark.parametrize(("layer", "argument", "theirs", "ours"), rows("Keras", 4))
def test_layers_of_keras(keras, layer, argument, theirs, ours):
    init = getattr(eval(layer, dict(vars(keras.layers))), argument)
    named = eval(theirs, dict(vars(keras.initializers)))
    assert (type(init), init.get_config()) == (type(named), named.get_config())
    assert [theirs, ours] in [
        [re.sub(r"\(.*", "()", a), b] for a, b in rows("Keras", 2)
    ]


def test_four_rows_mislead_by_name(keras):
    """As the page says; and the comparison can fail."""
    kinds = keras.initializers
    assert type(kinds.get("normal")) is kinds.RandomNormal
    assert type(kinds.get("uniform")) is kinds.RandomUniform
    assert not agree(kinds.RandomNormal(seed=5), ji.normal())
    assert not agree(kinds.RandomUniform(seed=5), ji.uniform())
    assert not agree(kinds.TruncatedNormal(seed=5), ji.truncated_normal())
    scaling = kinds.VarianceScaling(distribution="normal", seed=5)
    assert not agree(scaling, ji.variance_scaling(1.0, "fan_in", "normal"))


def test_bias_of_kerass_lstm(keras):
    layer = keras.layers.LSTM(4)
    layer.build((1, 2, 3))
    bias = ji.lstm_bias(order="ifgo")(None, (16,))
    np.testing.assert_array_equal(layer.cell.bias.value, bias)


# Haiku


@pytest.fixture(scope="module")
def hk():
    return pytest.importorskip("haiku")


def test_haiku_has_no_other_initializers(hk):
    check_names("Haiku", hk.initializers, "Initializer")


@pytest.mark.parametrize(("theirs", "ours"), rows("Haiku", 2))
def test_rows_of_haiku(hk, theirs, ours):
    init = eval(theirs, dict(vars(hk.initializers)))

    def draw(shape):
        return hk.transform(lambda: init(shape, jnp.float32)).apply({}, KEY)

    assert agree(draw, ji.parse(ours))


@pytest.mark.parametrize(("layer", "argument", "theirs", "ours"), rows("Haiku", 4))
def test_layers_of_haiku(hk, layer, argument, theirs, ours):
    x = jnp.zeros((1, 8, 8, 32) if "Conv" in layer else (1, 384))
    x = x.astype(int) if "Embed" in layer else x
    net = hk.transform(lambda x: eval(layer, dict(vars(hk)))(x))
    (parameters,) = net.init(KEY, x).values()
    weight = parameters[argument]
    assert same_law(weight, ji.parse(ours)(KEY, weight.shape))


# TensorFlow 1: the variance of each law, worked out from its source, for DENSE.

TENSORFLOW = {
    "zeros_initializer()": 0,
    "ones_initializer()": 0,
    "constant_initializer(value=0)": 0,
    "random_uniform_initializer(minval=0, maxval=None)": 1 / 12,
    "random_normal_initializer(mean=0.0, stddev=1.0)": 1,
    "truncated_normal_initializer(mean=0.0, stddev=1.0)": CUT,
    "uniform_unit_scaling_initializer(factor=1.0)": 1 / 384,
    'variance_scaling_initializer(scale=1.0, mode="fan_in", '
    'distribution="truncated_normal")': (1 / 0.87962566103423978) ** 2 * CUT / 384,
    "glorot_uniform_initializer()": 1 / 448,
    "glorot_normal_initializer()": 1 / 448,
    "orthogonal_initializer(gain=1.0)": 1 / 512,
    "initializers.identity(gain=1.0)": 384 / 384 / 512 - (1 / 512) ** 2,
    "xavier_initializer(uniform=True)": 1 / 448,
    'variance_scaling_initializer(factor=2.0, mode="FAN_IN", uniform=False)': 2
    / 384,  # widened by sqrt(1.3): 0.6 % more
}


@pytest.mark.parametrize(("theirs", "ours"), rows("TensorFlow 1", 2))
def test_rows_of_tensorflow(theirs, ours):
    variance = ji.parse(ours).moments(DENSE).variance
    assert variance == pytest.approx(TENSORFLOW[theirs], rel=1e-6)


def test_the_page_counts_right():
    """Of the words and numbers beside the tables."""
    assert set(TENSORFLOW) == {theirs for theirs, _ in rows("TensorFlow 1", 2)}
    assert round(CUT, 3) == 0.774 and round(1 / CUT, 4) == 1.2924
    assert round(1.3 * CUT - 1, 3) == 0.006
    assert round(1 / math.sqrt(CUT), 2) == 1.14
    assert float(math.sqrt(CUT)) == pytest.approx(0.8796256610342398)
    assert len(rows("Keras", 2)) > 15 and len(rows("Keras", 4)) == 8
