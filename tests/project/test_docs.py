"""Documentation: every example runs, every public name has its sections."""

import contextlib
import doctest
import importlib
import inspect
import json
import pkgutil
import re
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pages
import pytest
from catalogue import OWN
from marks import slow_but

import jaxinit
from jaxinit.cli import describe

TOP = Path(__file__).parents[2]
sys.path.append(str(TOP / "jaxinit" / "docs"))
import gallery  # noqa: E402
import notebooks  # noqa: E402
import reference  # noqa: E402
import sources  # noqa: E402

README = TOP / "README.md"
SITE = TOP / "jaxinit" / "docs"
MARKDOWN = [*TOP.glob("*.md"), *TOP.glob("jaxinit/**/*.md"), *TOP.glob("bench/**/*.md")]
pytestmark = pytest.mark.usefixtures("quick_compiler")

NAMES = {"jax": jax, "jnp": jnp, "np": np, "jaxinit": jaxinit, **vars(jaxinit)}
MODULES = sorted(
    info.name
    for info in pkgutil.walk_packages(jaxinit.__path__, "jaxinit.")
    if not info.name.endswith("__main__")
)


@contextlib.contextmanager
def compiler_for(text):
    """Lets XLA optimize an example that compares bits with JAX's."""
    compares_bits = "array_equal" in text
    if compares_bits:
        jax.clear_caches()
        jax.config.update("jax_disable_most_optimizations", False)
    try:
        yield
    finally:
        if compares_bits:
            jax.config.update("jax_disable_most_optimizations", True)
            jax.clear_caches()


def run(test):
    with compiler_for(test.docstring):
        failed, attempted = doctest.DocTestRunner(verbose=False).run(test)
    assert not failed
    return attempted


def room_of(name):
    """Returns a room of the public ones, as users import it."""
    if name == ".recipes":
        return jaxinit.recipes
    return importlib.import_module(f"jaxinit{name}")


def examples(module):
    finder = doctest.DocTestFinder(exclude_empty=True)
    found = finder.find(importlib.import_module(module), globs=dict(NAMES))
    return [test for test in found if test.examples]


# Rooms whose examples train, fill, or compile matrices: each is tested elsewhere.
LONG_EXAMPLES = {
    *(
        "lab._compare",
        "lab._transfer",
        "testing._dtypes",
        "testing._assertions",
        "random.haar",
    ),
    *("testing._independence", "testing._strategies", "model._fill.init_function"),
    *("_calibrate.calibrate", "scaling._coordinate_check"),
    *("signal._check", "signal._report.report", "initializers._orthogonal"),
    *("initializers._convolution", "initializers._stacked", "initializers._sparse"),
    *("initializers._identity", "initializers._signal", "random._laws"),
    *("torch._layers", "torch._structure", "model.recipes._states", "lora._methods"),
}


@pytest.mark.parametrize(
    "module",
    slow_but(
        [name for name in MODULES if name.partition(".")[2] not in LONG_EXAMPLES],
        MODULES,
    ),
)
def test_examples(module):
    for test in examples(module):
        run(test)


def test_examples_are_found():
    assert sum(len(examples(module)) for module in MODULES) > 20


# Exported for other rooms, not for users.
INNER = {"complex_truncated_variance", "disk", "normal_mass", "truncated_moments"}
INNER |= {"finite_log", "matmul", "suggestion", "whole", "zero_of"}
PUBLIC = {
    f"{room}.{name}": value
    for room in ("", ".lab", ".model", ".random", ".recipes", ".signal", ".testing")
    + (".signal.theory", ".torch", ".ssm", ".lora", ".scaling")
    for name, value in vars(room_of(room)).items()
    if inspect.isfunction(value) and name[0] != "_" and name not in INNER
}


@pytest.mark.parametrize("name", PUBLIC)
def test_public_functions_have_examples(name):
    """`test_examples` runs them."""
    assert ">>> " in inspect.getdoc(PUBLIC[name])


@pytest.mark.parametrize("name", OWN)
def test_builders_are_documented(name):
    doc = inspect.getdoc(OWN[name])
    for section in ("Law: ", "Args:", "Returns:", "Example:", "References:"):
        assert section in doc
    assert all(describe(OWN[name]).values())
    for argument in inspect.signature(OWN[name]).parameters:
        assert re.search(rf"^  {argument}: ", doc, re.M), argument


def test_public_names():
    public = {name for name in vars(jaxinit) if not name.startswith("_")}
    rooms = {
        "initializers",
        "random",
        "torch",
        "testing",
        "model",
        "signal",
        "lab",
        "cli",
        "lora",
        "scaling",
        "ssm",
    }
    functions = {"axes", "check", "fans", "gain", "initializer", "parse", "recommend"}
    functions |= {"describe", "jit_init", "preview", "recipes", "reinit", "structure"}
    functions |= {"calibrate", "clear_caches", "haiku", "nd", "tune"}
    aliases = {
        f"{n}_{law}" for n in ("xavier", "kaiming") for law in ("uniform", "normal")
    }
    builders = {name for name in OWN if "." not in name}
    classes = {
        "CalibrationReport",
        "Initializer",
        "Moments",
        "Structure",
        "TuningReport",
    }
    assert public - rooms == builders | functions | aliases | classes


ROOMS = README.parent / "jaxinit"
PAGES = (README, ROOMS / "signal" / "README.md", ROOMS / "model" / "README.md")
PAGES = (
    *PAGES,
    *(ROOMS / room / "README.md" for room in ("scaling", "_calibrate")),
    *(ROOMS / "initializers" / f"{name}.md" for name in ("SNIPPETS", "MIGRATION")),
)


def blocks(language, page=README):
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.S)


PAGES = (*PAGES, *sorted(SITE.glob("pages/*.md")))
BLOCKS = [(page, i) for page in PAGES for i in range(len(blocks("python", page)))]


@pytest.mark.parametrize(
    ("page", "number"),
    slow_but([block for block in BLOCKS if block[0] == README], BLOCKS, rows=True),
)
@pytest.mark.slow
def test_pages_python(page, number):
    block = blocks("python", page)[number]
    with compiler_for(block):
        exec(compile(block, f"{page} block {number}", "exec"), {})


def test_readme_is_short_and_starts_with_code():
    lines = README.read_text().splitlines()
    assert len(lines) <= 150
    assert any(line.startswith("```") for line in lines[:15])
    assert len(blocks("python")) >= 3 and len(blocks("sh")) >= 2


def test_the_readme_quotes_the_results():
    """A time in a row with `python -m bench SUITE` is a median of that suite."""
    rows = re.findall(
        r"^\|(.*)\| `python -m bench (\w+)` \|$", README.read_text(), re.M
    )
    assert len(rows) >= 3
    for row, suite in rows:
        suites = [
            json.loads(path.read_text()).get("suites", {}).get(suite, [])
            for path in (TOP / "bench" / "results").glob("*/*.json")
        ]
        times = [each["times"] for cases in suites for each in cases]
        medians = [[x["median_s"] for x in each.values()] for each in times]
        quoted = set(re.findall(r"([\d.]+) s\b", row))
        assert len(quoted) == 2, row
        assert any(quoted <= {f"{x:.1f}" for x in each} for each in medians), row


def test_the_picture_of_the_readme_is_small():
    (picture,) = re.findall(r"!\[.+\]\((.+)\)", README.read_text())
    assert (TOP / picture).stat().st_size <= 150 * 1024


@pytest.mark.parametrize(
    "path",
    slow_but([path for path in pages.PAGES if path != pages.WHICH], pages.PAGES),
    ids=lambda path: path.parent.name,
)
def test_pages_are_those_of_the_docstrings(path):
    assert path.read_text() == pages.PAGES[path]()  # else: python tests/pages.py


def test_advice_by_parameter_is_of_initializers():
    page = pages.WHICH.read_text().partition("| parameter | initializer |")[2]
    rows = page.partition("\n\n")[0].splitlines()[2:]
    specs = [row.split(" | ")[1].strip("`") for row in rows]
    assert len(specs) > 20
    assert [repr(jaxinit.parse(spec)) for spec in specs] == specs


def test_all_builders_and_recipes_have_a_row():
    builders, recipes, *_ = (path.read_text() for path in pages.PAGES)
    assert not [name for name in OWN if f"| `{name}` |" not in builders]
    made = [name for name in vars(jaxinit.recipes) if name[0] != "_"]
    assert not [name for name in made if f"| `{name}` |" not in recipes]
    assert "(jaxinit/initializers/README.md)" in README.read_text()


@pytest.mark.parametrize("page", [ROOMS / "README.md", TOP / "CONTRIBUTING.md"])
def test_the_plan_names_files_that_there_are(page):
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.S)
    named = set(re.findall(r"`([\w./]+(?:\.(?:py|md|yml)|/))`", text))
    known = {path.name for path in ROOMS.rglob("*.py")}
    known |= {f"{path.parent.name}/" for path in ROOMS.rglob("__init__.py")}
    places = {name: [TOP / name, ROOMS / name] for name in named - known}
    assert len(named) > 1
    assert not [
        name for name, where in places.items() if not any(map(Path.exists, where))
    ]


def test_the_plan_has_every_room():
    text = (ROOMS / "README.md").read_text()
    rooms = [f"{path.parent.name}/" for path in ROOMS.glob("*/__init__.py")]
    files = [path.name for path in ROOMS.glob("_*.py") if path.name[:2] != "__"]
    assert not [room for room in (*rooms, *files) if f"`{room}`" not in text]


@pytest.mark.parametrize("page", MARKDOWN, ids=lambda page: str(page.relative_to(TOP)))
def test_links_lead_to_files(page):
    links = re.findall(r"\]\(([^)#:]+)\)", page.read_text())
    assert not [link for link in links if not (page.parent / link).exists()]


ON_SITE = [TOP / sources.find_source(uri) for uri in sources.INCLUDED]
ON_SITE += sorted(SITE.glob("pages/*.md"))


def test_every_block_of_the_site_is_executed():
    languages = {
        "python",
        "sh",
        "yaml",
        "",
    }  # what is shown in another one must be run, too
    for page in ON_SITE:
        fences = re.findall(r"^ *```(.*)$", page.read_text(), re.M)
        assert set(fences) <= languages, page
        executed = [number for where, number in BLOCKS if where == page]
        assert len(executed) == fences.count("python"), page
    assert len(BLOCKS) >= 35


def test_warnings_of_the_site_fail():
    """`mkdocs --quiet` drops them before `--strict` counts them."""
    (build,) = re.findall("mkdocs build.*", (TOP / ".ci" / "run").read_text())
    assert "--strict" in build and "quiet" not in build


def test_the_table_of_contents_has_every_page():
    contents = (SITE / "mkdocs.yml").read_text()
    uris = [
        *sources.INCLUDED,
        *reference.PAGES,
        *(p.name for p in SITE.glob("pages/*.md")),
    ]
    assert not [uri for uri in uris if f": {uri}\n" not in contents]


def test_the_reference_has_every_public_name():
    text = "".join(reference.write_pages().values())
    described = set(re.findall(r"^(?:::: |## )(jaxinit[\w.]*)", text, re.M))
    classes = {
        f"{room}.{name}"
        for room in {room.rpartition(".")[0] for room in PUBLIC}
        for name, value in vars(room_of(room)).items()
        if inspect.isclass(value) and value.__module__.startswith("jaxinit")
    } - {".signal.theory.Expectation"}  # of the theory itself
    assert len(PUBLIC) > 150 and len(classes) > 20
    assert not [
        name for name in {*PUBLIC, *classes} if f"jaxinit{name}" not in described
    ]


def test_the_reference_has_every_room():
    packages = pkgutil.walk_packages(jaxinit.__path__, "jaxinit.")
    rooms = {info.name for info in packages if info.ispkg and "._" not in info.name}
    modules = {reference.find_module(page.module) for page in reference.PAGES.values()}
    assert {x.__name__ for x in modules} == rooms - {"jaxinit.cli"} | {"jaxinit"}


@pytest.mark.parametrize("job", sources.JOBS)
def test_notebooks_are_those_of_the_pages(job):
    text = (SITE / "notebooks" / f"{job}.ipynb").read_text()
    assert text == notebooks.write_notebook(job)  # python jaxinit/docs/notebooks.py
    cells = [cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]
    page = TOP / sources.JOBS[job]
    assert ["".join(cell["source"]) for cell in cells] == [
        block.strip("\n") for block in blocks("python", page)
    ]
    assert len(cells) >= 1 and (page, 0) in BLOCKS


def test_every_picture_is_made_by_the_script_and_shown():
    pictures = {path.stem: path for path in (SITE / "pages" / "pictures").iterdir()}
    assert pictures.keys() == gallery.GALLERY.keys()
    assert sum(path.stat().st_size for path in pictures.values()) <= 600_000
    shown = (SITE / "pages" / "gallery.md").read_text()
    assert not [name for name in pictures if f"(pictures/{name}.png)" not in shown]
