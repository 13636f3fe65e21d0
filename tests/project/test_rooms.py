"""The house: which room imports which, and what `import jaxinit` costs."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from circles import find_circles, read_imports

import jaxinit

ROOT = Path(jaxinit.__file__).parent
SITE = ROOT / "docs"  # pages and scripts that build them: no room, not in the wheel
# From the ground up: a module imports from its own room and from floors below.
FLOORS = [
    {
        "_check",
        "_jaxpr",
        "_panels",
        "_text",
        "_threads",
        "_lock",
        "_tiles",
        "_watch",
    },
    {"_table"},
    {
        "_adapt",
        "_axes",
        "_caches",
        "_extent",
        "_gain",
        "_import",
        "_moments",
        "_paths",
        "_placement",
        "_result",
        "_value",
    },
    {"_structure"},
    {"random"},
    {"_law"},
    {"_fill"},
    {"_arithmetic"},
    {"_initializer"},
    {"_spec", "_draws"},
    {"initializers"},
    {"ssm", "testing", "torch"},
    {"model"},
    {"lora"},
    {"signal"},
    {"scaling"},
    {"_calibrate"},
    {"lab"},
    {"cli"},
    {"__main__"},
]
LEVEL = {room: level for level, rooms in enumerate(FLOORS) for room in rooms}
HEAVY = {"flax", "optax", "chex", "orbax", "matplotlib", "sklearn", "rich", "jinja2"}
HEAVY |= {"scipy", "bokeh"}


def imports(source):
    """Yields every module that a source imports, at any depth of it."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            if node.module == "jaxinit":
                yield from (f"jaxinit.{alias.name}" for alias in node.names)


def offences(room, source):
    for name in imports(source):
        top, _, rest = name.partition(".")
        other = rest.partition(".")[0]
        if top == "jaxinit" and other in LEVEL and other != room:
            same_floor = LEVEL[other] == LEVEL[room]
            if LEVEL[other] > LEVEL[room] or same_floor:
                yield name


def modules():
    for path in sorted(set(ROOT.rglob("*.py")) - set(SITE.rglob("*"))):
        room = path.relative_to(ROOT).parts[0].removesuffix(".py")
        if room != "__init__":
            yield pytest.param(room, path.read_text(), id=str(path.relative_to(ROOT)))


@pytest.mark.parametrize(("room", "source"), list(modules()))
def test_imports_go_one_way(room, source):
    assert room in LEVEL
    assert not list(offences(room, source))
    assert not [name for name in imports(source) if name.startswith("jax._src")]


def trespasses(imports):
    """Yields imports of private modules of another room."""
    for module, others in imports.items():
        here = [*module.split("."), ""][1]
        for other in others:
            _, there, *inner = [*other.split("."), ""]
            if there != here and any(name.startswith("_") for name in inner):
                yield module, other


def test_no_room_opens_the_private_modules_of_another():
    found = set(trespasses(read_imports(ROOT.parent, "jaxinit")))
    assert found == set()


@pytest.mark.slow
def test_no_circle_of_files():
    assert find_circles(ROOT.parent, "jaxinit") == []


def test_the_test_of_imports_can_fail():
    wrong = {"jaxinit.lab.training": {"jaxinit.signal._judge.judge", "jaxinit._axes"}}
    assert len(list(trespasses(wrong))) == 1
    assert list(offences("random", "def f():\n    from jaxinit.lab import data"))
    assert list(offences("random", "from jaxinit import _initializer"))
    assert not list(offences("lab", "from jaxinit import random, _check"))


def loaded(code):
    """Returns the top-level modules that a fresh interpreter has after the code."""
    code += "\nimport sys; print(*{name.partition('.')[0] for name in sys.modules})"
    run = [sys.executable, "-c", code]
    done = subprocess.run(run, capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_import_costs_jax_and_nothing_more():
    # JAX itself may import some of these; what it does not, jaxinit must not either.
    found = loaded("import jaxinit; jaxinit.he_normal(); jaxinit.gain('gelu')")
    assert "jax" in found
    assert not (found - loaded("import jax, jax.numpy, jax.nn.initializers")) & HEAVY


BARE = """
import sys
sys.modules.update(dict.fromkeys({absent}))
import jax, jaxinit
from jaxinit.cli import main

key = jax.random.key(0)
params = jaxinit.jit_init(lambda key: {{"w": jaxinit.he_normal()(key, (4, 4))}})(key)
params = jaxinit.reinit(key, params, [("w", jaxinit.lecun_normal())])
print(jaxinit.describe(params))
for needs in (lambda: jaxinit.lab, jaxinit.testing.keys, jaxinit.describe(params).plot):
    try:
        needs()
    except ModuleNotFoundError as error:
        print(error)
assert main(["list", "--json"]) == 0
del sys.modules["rich"]
assert main(["compare"]) == 2
"""


@pytest.mark.slow
def test_jax_alone_is_enough():
    """What lacks a package says which extra brings it; all else works."""
    absent = sorted(HEAVY - {"scipy"} | {"hypothesis"})  # JAX needs scipy itself
    run = [sys.executable, "-c", BARE.format(absent=absent)]
    done = subprocess.run(run, capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert "1 parameter, 16 entries, 64 B" in lines
    assert [line for line in lines if "needs" in line] == [
        "jaxinit.lab: needs flax. Run pip install 'jaxinit[lab]'.",
        "keys: needs hypothesis. Run pip install 'jaxinit[testing]'.",
        "Description.plot(): needs matplotlib. Run pip install 'jaxinit[lab]'.",
    ]
    cure = "Run: pip install 'jaxinit[lab]'\n"
    assert done.stderr == f"jaxinit: flax is missing. {cure}"


@pytest.mark.slow
def test_the_test_of_the_cost_can_fail():
    assert {"flax", "optax"} <= loaded("import jaxinit.lab")


@pytest.mark.slow
def test_lab_is_an_attribute_without_being_imported():
    assert "flax" in loaded("import jaxinit; jaxinit.lab")
    with pytest.raises(
        AttributeError, match="module 'jaxinit' has no attribute 'labb'"
    ):
        jaxinit.labb  # noqa: B018


def test_a_checker_sees_the_rooms_but_no_getattr():
    """A module's __getattr__ would make every misspelt name an Any."""
    (branch,) = (
        node
        for node in ast.parse((ROOT / "__init__.py").read_text()).body
        if isinstance(node, ast.If)
    )
    assert ast.unparse(branch.test) == "_typing.TYPE_CHECKING"
    seen = {alias.name for node in branch.body for alias in node.names}
    hidden = {getattr(node, "name", None) for node in branch.orelse}
    assert seen == set(jaxinit._ROOMS) <= set(dir(jaxinit)) and "__getattr__" in hidden
    source = (ROOT / "__init__.py").read_text()
    assert source.count("def __getattr__") == 1


def test_no_module_is_longer_than_a_room():
    for path in ROOT.rglob("*.py"):
        assert len(path.read_text().splitlines()) <= 400, path.name


def test_no_module_is_a_shard():
    for path in ROOT.rglob("*.py"):
        if path.stem not in {"__init__", "__main__"}:  # names alone, and one call
            assert len(path.read_text().splitlines()) >= 25, path


def shown(room):
    """Returns the modules and packages of a room whose names have no underscore."""
    inside = [path for path in room.iterdir() if path.name[0] != "_"]
    packages = [path.name for path in inside if (path / "__init__.py").exists()]
    return packages + [path.stem for path in inside if path.suffix == ".py"]


# Lists by nature: the root is that of the rooms. Those of builders, layers of torch and
# recipes need no exception, as their files have underscores.
LISTS = {ROOT}


@pytest.mark.parametrize(
    "room",
    sorted({path.parent for path in ROOT.rglob("__init__.py")} - LISTS),
    ids=lambda room: str(room.relative_to(ROOT)),
)
def test_a_room_shows_at_most_eight_names(room):
    assert len(shown(room)) <= 8


def test_the_test_of_rooms_can_fail():
    assert {"lab", "model", "signal"} <= set(shown(ROOT)) and "_jaxpr" not in shown(
        ROOT
    )
    assert set(shown(ROOT / "_jaxpr")) > {"equation", "evaluation", "primitives"}
