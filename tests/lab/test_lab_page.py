"""The page of a comparison, and what it needs measured: probes and verdicts."""

import dataclasses
import functools
import json
import math
import os
import re
import select
import shutil
import subprocess
import sys
import time
from html.parser import HTMLParser

import jax
import jax.numpy as jnp
import matplotlib.image
import numpy as np
import pytest
from marks import slow_but
from test_lab import classes_and_rows, grid_of, layers_of, relu_network

import jaxinit
from jaxinit import lab
from jaxinit.lab._result.health import Health, diagnose
from jaxinit.lab._show.figure import plots
from jaxinit.lab._show.page import page
from jaxinit.lab._show.plots import select_plots
from jaxinit.lab._train.probe import kernel_names, moments, stack, unstack
from jaxinit.lab._train.step import batches
from jaxinit.lab._tried._model import MLP
from jaxinit.lab._tried._network import Network
from jaxinit.lab._tried._perceptron import adapt_perceptron
from jaxinit.lab._tried._precision import mix_precision
from jaxinit.lab._tried.data import make_task

pytestmark = pytest.mark.usefixtures("quick_compiler")

EVIL = "</script><img src=x onerror=alert(1)>$^{"
SMALL = {"width": 8, "seeds": 2, "batch_size": 16, "learning_rates": (1e-2, 1e30)}
RATE = 0.01


@jaxinit.initializer
def evil(text=""):
    """A user's initializer, whose spec is hostile."""

    def draw(key, shape, dtype):
        return jnp.full(shape, 0.1, dtype)

    return draw


@pytest.fixture(scope="module")
def clusters():
    y, x = classes_and_rows()
    return make_task("<b>clusters</b> & $^{", x, y)


@pytest.fixture(scope="module")
def result(clusters, tmp_path_factory):
    """A run of which half the cells fail, into a directory."""
    out = tmp_path_factory.mktemp("run")
    inits = ["he_normal()", evil(text=EVIL), "normal(stddev=10000.0)"]
    given = {"depth": 4, "steps": 60, "out": out, "data": clusters}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("jaxinit.lab.files.plots", lambda comparison: {})
        patch.setattr("jaxinit.lab.files.page", lambda comparison, command: "page")
        return lab.compare(inits, **SMALL, **given), out


@pytest.fixture(scope="module")
def text(result):
    return page(result[0], f"jaxinit compare --init '{EVIL}'")


class Structure(HTMLParser):
    """Reads a page; fails where a tag is not closed."""

    VOID = {"meta", "br", "img", "link", "input"}

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.ids, self.addresses, self.words = [], [], [], [], []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.handle_startendtag(tag, attributes)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        found = dict(attributes)
        self.tags.append((tag, found))
        self.ids += [found["id"]] if "id" in found else []
        self.addresses += [found[k] for k in ("src", "href", "srcset") if k in found]
        assert not any(name.startswith("on") for name in found)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("style", "script"):
            self.words.append(data)

    def count(self, tag, **wanted):
        return sum(
            name == tag and wanted.items() <= found.items() for name, found in self.tags
        )


def test_the_page_is_well_formed_and_needs_no_other_file(text):
    found = Structure(text)
    assert len(set(found.ids)) == len(found.ids)
    assert "http://" not in text and "https://" not in text and "@import" not in text
    for address in [*found.addresses, *re.findall(r"url\(([^)]*)", text)]:
        assert address.startswith(("#", "data:image/png;base64,"))
    inside = {address[1:] for address in found.addresses if address.startswith("#")}
    inside |= set(re.findall(r"url\(#([^)]*)", text))
    assert inside <= set(found.ids)
    assert "default-src 'none'" in text and len(text) < 3_000_000


def test_the_page_has_every_section(result, text):
    found, comparison = Structure(text), result[0]
    assert set(select_plots(comparison)) - {"loss_by_rate"} <= set(found.ids)
    assert {"run", "results", "verdicts", "repeat"} <= set(found.ids)
    panels = 3 * len(select_plots(comparison))
    assert found.count("svg", role="img") == 1 + panels == 31  # the curves together
    assert all(a.get("aria-label") for tag, a in found.tags if tag == "svg")
    assert found.count("tr") == 2 * (1 + 3)
    words = " ".join(found.words)
    for part in ("Training loss", "healthy", "symmetric", "jaxinit compare --init"):
        assert part in words
    assert "Moments: step 0, step 20, step 60." in words and "Interrupted" not in words


def test_hostile_names_are_text(result, text):
    found = Structure(text)
    assert found.count("script") == 1 and not found.count("img") and "<b>" not in text
    assert repr(result[0].settings.initializers[1]) in found.words
    assert any("<b>clusters</b> & $^{" in word for word in found.words)


def test_pictures_are_right_in_the_light_and_in_the_dark(text):
    assert "prefers-color-scheme: dark" in text and "color-scheme: light dark" in text
    pictures = "".join(re.findall(r"<svg.*?</svg>", text, re.DOTALL))
    assert "currentColor" in pictures and "var(--c0)" in pictures
    # No color but the page's, and no ground; heat maps are images.
    assert set(re.findall(r"(?:fill|stroke): (#\w+)", pictures)) <= {"#ffffff"}


def test_columns_sort_by_numbers_and_missing_ones_are_empty(result, text):
    keys = [a["data-key"] for _, a in Structure(text).tags if "data-key" in a]
    rows = [keys[i : i + 10] for i in range(0, 30, 10)]
    for keys, row in zip(rows, result[0].rows(), strict=True):
        assert keys[0] == row.initializer and float(keys[1]) == row.learning_rate
        assert (keys[4] == "") == (row.steps_to_target is None)
        assert (keys[8] == "") == math.isnan(row.rates_that_train)
    assert all(math.isfinite(float(key)) for key in rows[0][1:])


@pytest.mark.slow
def test_plots_are_files_too(result):
    files = plots(result[0])
    assert list(files) == list(select_plots(result[0]))
    assert all(file.startswith(b"\x89PNG\r\n") for file in files.values())


def altered(comparison, name):
    """Returns the comparison as it would be in an unhappy case."""
    nan = {"probes": jax.tree.map(lambda a: np.full_like(a, np.nan), comparison.probes)}
    scores = jax.tree.map(lambda a: np.full_like(a, np.nan), comparison.scores)
    nan |= {"scores": scores, "curves": np.full_like(comparison.curves, np.nan)}
    nothing = {"curves": comparison.curves[..., :0], "steps": comparison.steps[:0]}
    nothing |= {"probes": jax.tree.map(lambda a: a[..., :1, :], comparison.probes)}
    cases = {
        "diverged": nan
        | {"final": jax.tree.map(lambda a: a * np.nan, comparison.final)},
        "interrupted": {"interrupted": True},
        "nothing": nothing | {"interrupted": True, "probe_steps": np.zeros(1, int)},
        "refused": {"health": "check(model='<i>'): has no layer."},
        "network": {"signals": None, "health": None},
    }
    return dataclasses.replace(comparison, **cases[name])


@pytest.fixture(scope="module")
def unhappy(result):
    """Returns the page of an unhappy case, which is drawn once."""
    return functools.cache(lambda case: page(altered(result[0], case), ""))


slow = functools.partial(pytest.param, marks=pytest.mark.slow)


@pytest.mark.parametrize(
    "case, said, unsaid",
    [
        ("diverged", "not finite", "Interrupted"),
        slow("interrupted", "Interrupted: 60 of 60 steps", "There are none"),
        slow("nothing", "Interrupted: 0 of 60 steps", "Training loss at"),
        (
            "refused",
            "does not apply to this model. check(model='<i>')",
            "healthy</span>",
        ),
        slow("network", "Update-to-weight ratio", "Signal by layer"),
    ],
)
@pytest.mark.slow
def test_unhappy_runs_have_a_page(unhappy, case, said, unsaid):
    found = Structure(unhappy(case))
    words = "".join(found.words)
    assert said in words and unsaid not in words


@pytest.mark.slow
def test_networks_have_no_columns_of_signals(unhappy):
    found = Structure(unhappy("network"))
    keys = [a["data-key"] for _, a in found.tags if "data-key" in a]
    assert len(keys) == 3 * 8
    words = "".join(found.words)
    assert not any(w in words for w in ("signal last", "gradient first", "on its way"))


@pytest.mark.slow
def test_one_initializer_seed_and_rate_have_a_page(clusters):
    given = {**SMALL, "seeds": 1, "learning_rates": (0.01,), "depth": 2, "steps": 1}
    found = lab.compare(["zeros()"], data=clusters, **given)
    assert set(select_plots(found)) & {"loss_by_rate", "sensitivity"} == set()
    assert found.health is None and "Verdicts" not in found.to_html()


# What is measured.


@pytest.mark.parametrize(
    "blocks, found",
    [(1, (0, 1)), (2, (0, 1, 2)), (3, (0, 1, 3)), (16, (0, 1, 4, 8, 16))],
)
def test_moments_are_few_and_have_both_ends(blocks, found):
    assert moments(blocks) == found


@pytest.mark.slow
def test_probes_are_those_of_a_step_by_hand(clusters):
    inits = (jaxinit.parse("he_normal()"),)
    given = {"depth": 4, "width": 8, "seeds": 2, "steps": 30, "batch_size": 16}
    given |= {"learning_rates": (RATE,), "optimizer": "sgd"}
    grid = grid_of(clusters, inits, **given)
    for _ in grid.run():
        pass
    assert len(grid.probes) == 3
    rows = batches(len(clusters.x_train), 16, 30)[0]
    x, y = clusters.x_train[rows], clusters.y_train[rows]
    trained = jax.tree.map(grid.by_cell, grid.variables["params"])
    start = jax.tree.map(lambda a: np.asarray(a)[:, :, None], grid.initial["params"])
    for probe, params in ((grid.probes[0], start), (grid.probes[-1], trained)):
        probe = jax.tree.map(grid.by_cell, probe)
        for seed in (0, 1):
            layers = layers_of(params, 0, seed, 0)
            _, outputs, slopes, of_parameters = relu_network(layers, x, y)
            ratios = [
                RATE * np.linalg.norm(slope[0]) / np.linalg.norm(kernel)
                for slope, (kernel, _) in zip(of_parameters, layers, strict=True)
            ]
            hands = [z.std() for z in outputs], [s.std() for s in slopes], ratios
            for ours, hand in zip(probe, hands, strict=True):
                np.testing.assert_allclose(ours[0, seed, 0], hand, rtol=2e-4)


def test_probes_can_be_stacked_and_taken_apart(result):
    probe = jax.tree.map(lambda a: np.moveaxis(a, 3, 0), result[0].probes)
    again = stack(unstack(probe))
    jax.tree.map(np.testing.assert_array_equal, probe, again)


def test_probes_are_in_the_results(result):
    comparison, out = result
    assert comparison.probe_steps.tolist() == [0, 20, 60]
    found = json.loads((out / "results.json").read_text())
    assert found == comparison.to_dict() and found["probe_steps"] == [0, 20, 60]
    entry = found["initializers"][0]
    for name in ("forward_stddev", "gradient_stddev", "update_to_weight"):
        assert np.shape(entry["probes"][name]) == (2, 3, 4)
    assert [e["health"]["condition"] for e in found["initializers"]] == [
        *("healthy", "symmetric", "exploding")
    ]


@pytest.mark.slow
def test_networks_have_updates_of_every_kernel(clusters):
    given = {**SMALL, "depth": 3, "steps": 2, "model": "coordinate", "batch_size": 8}
    found = lab.compare(["he_normal()"], data=clusters, **given)
    names = kernel_names(jax.tree.map(lambda a: a[0, 0], found.initial))
    assert names == ["Dense_0/kernel", "Dense_1/kernel", "Dense_2/kernel"]
    assert found.probes.update.shape == (1, 2, 2, 2, 3)
    assert found.probes.forward.shape == found.probes.gradient.shape == (1, 2, 2, 2, 3)
    probes = found.to_dict()["initializers"][0]["probes"]
    assert list(probes) == ["forward_stddev", "gradient_stddev", "update_to_weight"]
    params = jax.tree.map(lambda a: np.asarray(a[0, 1], float), found.initial)
    z, by_hand = clusters.x_train, []
    for speed, name in zip((30, 1, 1), ("Dense_0", "Dense_1", "Dense_2"), strict=True):
        z = z @ params[name]["kernel"] + params[name]["bias"]
        by_hand.append(z.std())
        z = np.sin(speed * z)
    np.testing.assert_allclose(found.signals.forward[0, 1], by_hand, rtol=1e-3)


@pytest.mark.slow
def test_verdicts_agree_with_check_of_the_same_network(clusters):
    model = MLP(3, 8, 3, jnp.tanh, "layer")
    inits = tuple(map(jaxinit.parse, ("glorot_normal()", "zeros()")))
    x = jnp.asarray(clusters.x_train[:1])
    keys = jax.vmap(jax.random.key)(jnp.arange(2))
    drawn = [
        jax.vmap(lambda key, i=i: model.clone(kernel_init=i).init(key, x))(keys)
        for i in inits
    ]
    initial = jax.tree.map(lambda *a: jnp.stack(a), *drawn)
    network = adapt_perceptron(model)
    found = diagnose(clusters, network, {"params": initial["params"]})
    rows = jnp.asarray(clusters.x_train)
    for init, one in zip(inits, found, strict=True):
        module = model.clone(kernel_init=init)
        report = jaxinit.check(module, rows, key=jax.random.key(0), seeds=2, jacobian=0)
        assert one.condition == report.condition
        assert isinstance(one, Health) and bool(one.findings) != report.healthy


def test_verdicts_are_of_the_dtype_that_trains(clusters):
    model = MLP(3, 8, 3, jnp.tanh, "none")
    loop = mix_precision(adapt_perceptron(model), "bfloat16").written_out
    x, key = jnp.asarray(clusters.x_train[:2]), jax.random.key(0)
    params = loop.split({"params": model.init(key, x)["params"]})
    made = jax.make_jaxpr(lambda params: loop.network.train(params, x, key)[0])(params)
    found = re.findall(r":(\w+)\[[\d,]*\] = dot_general\[", str(made))
    assert found == ["bf16"] * 3 and made.out_avals[0].dtype == jnp.float32


def test_models_that_check_cannot_take_say_why(clusters):
    def apply(variables, x):
        return jnp.zeros((len(x), 3)) + variables["params"]["kernel"][0, 0]

    model = Network(None, apply, lambda variables, x, key: (apply(variables, x), {}))
    found = diagnose(clusters, model, {"params": {"kernel": jnp.ones((1, 1, 2, 2))}})
    assert isinstance(found, str) and "has no layer" in found


# In a browser.

BROWSERS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
# The new headless mode first: the old one is gone from recent browsers.
HEADLESS = ("--headless=new", "--headless")
FIXED = ("--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run")
FIXED += ("--disable-background-networking", "--hide-scrollbars")
PATIENCE = 60  # seconds for a browser to start; a slow machine takes five
ASK = """<script>
addEventListener("load", () => {
  document.querySelectorAll("details").forEach(each => { each.open = true; });
  const wide = document.documentElement.scrollWidth - innerWidth;
  const order = () => [...document.querySelectorAll("#table tbody tr")]
    .map(row => row.cells[5].dataset.key).join(" ");
  const heads = [...document.querySelectorAll("#table thead th")];
  const orders = [order()];
  for (const click of [5, 5, 5]) {
    heads[click].querySelector("button").click();
    orders.push(heads[click].getAttribute("aria-sort") + " " + order());
  }
  const texts = [...document.querySelectorAll("svg text")]
    .filter(text => text.checkVisibility())
    .map(text => text.getBoundingClientRect().height);
  document.title = JSON.stringify({wide, orders, least: Math.min(...texts)});
});
</script></body>"""


def start(folder, names=BROWSERS, patience=PATIENCE):
    """Starts the first browser that can be: (its words, None), or (None, why not)."""
    why = [f"no browser is installed: none of {', '.join(names)}"]
    for program in filter(None, map(shutil.which, names)):
        for mode in HEADLESS:
            profile = f"--user-data-dir={folder / mode.strip('-')}"
            words = [program, mode, profile, *FIXED]
            asked = [*words, "--dump-dom", "data:text/html,<p>started</p>"]
            try:
                done = subprocess.run(
                    asked, capture_output=True, text=True, timeout=patience
                )
            except (OSError, subprocess.TimeoutExpired) as error:
                why.append(f"{program} {mode}: {error}")
                continue
            if done.returncode == 0 and "started" in done.stdout:
                return words, None
            last = (done.stderr.strip().splitlines() or ["it printed no page"])[-1]
            why.append(f"{program} {mode} ended with {done.returncode}: {last}")
    return None, "; ".join(why[1:] or why)


@pytest.fixture(scope="module")
def started(tmp_path_factory):
    words, why = start(tmp_path_factory.mktemp("profile"))
    if words is None:
        pytest.skip(f"the browser does not start: {why}")
    return words


@pytest.fixture(scope="module")
def browser(started):
    def run(*options):
        words = [*started, "--enable-logging=stderr", *map(str, options)]
        done = subprocess.run(words, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0 and "CONSOLE" not in done.stderr
        return done.stdout

    return run


@pytest.mark.parametrize(
    "script, said",
    [
        ("echo no display >&2; exit 1", "ended with 1: no display"),
        ("exit 0", "ended with 0: it printed no page"),
        ("kill -SEGV $$", "ended with -11"),
        ("exec sleep 9", "timed out after 0.3 seconds"),
    ],
)
def test_a_browser_that_does_not_start_says_why(tmp_path, monkeypatch, script, said):
    program = tmp_path / "chromium"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    patience = 0.3 if "sleep" in script else PATIENCE
    words, why = start(tmp_path, ("chromium",), patience)
    assert words is None and why.count(said) == len(HEADLESS)


def test_a_browser_that_starts_in_one_mode_alone_is_used(tmp_path):
    program = tmp_path / "chromium"
    test = '[ "$1" = --headless ] || exit 1'
    program.write_text(f"#!/bin/sh\n{test}\necho '<p>started</p>'\n")
    program.chmod(0o755)
    words, why = start(tmp_path, (str(program),))
    assert words[1] == "--headless" and why is None


def test_no_browser_is_a_reason_too(tmp_path):
    assert start(tmp_path, ("no-such-browser",))[1].startswith(
        "no browser is installed"
    )


@pytest.mark.parametrize("width", slow_but([1280], [390, 1280]))
def test_the_page_fits_and_sorts_in_a_browser(browser, text, tmp_path, width):
    path = tmp_path / "index.html"
    path.write_text(text.replace("</body>", ASK))
    dom = browser("--dump-dom", f"--window-size={width},900", path.as_uri())
    title = re.search("<title>(.*?)</title>", dom)[1]
    found = json.loads(title)
    assert found["wide"] <= 0 and found["least"] >= 12
    before, *orders = (order.split() for order in found["orders"])
    assert [order[0] for order in orders] == ["ascending", "descending", "ascending"]
    numbers = [[float(key) for key in order[1:]] for order in orders]
    assert numbers[0] == sorted(map(float, before)) == numbers[1][::-1] == numbers[2]


@pytest.mark.parametrize(
    "dark", slow_but([False], [False, True]), ids=["light", "dark"]
)
@pytest.mark.slow
def test_the_page_is_light_or_dark_in_a_browser(browser, text, tmp_path, dark):
    (tmp_path / "index.html").write_text(text)
    file = tmp_path / "page.png"
    scheme = f"--blink-settings=preferredColorScheme={0 if dark else 1}"
    options = [f"--screenshot={file}", "--window-size=390,2400", scheme]
    browser(*options, (tmp_path / "index.html").as_uri())
    pixels = matplotlib.image.imread(file)[..., :3]
    assert pixels.shape[1] == 390 and (pixels[0, 0].mean() < 0.2) == dark
    assert pixels.std() > 0.05  # there is something on it


# Two pipes become the file descriptors at which a browser is driven.
PIPE = "import os, sys; os.dup2(int(sys.argv[1]), 13); os.dup2(int(sys.argv[2]), 14)"
PIPE += "; os.dup2(13, 3); os.dup2(14, 4); os.execvp(sys.argv[3], sys.argv[3:])"


class Driven:
    """A page in a browser that is driven as by a hand: with a mouse."""

    def __init__(self, words, address):
        theirs, self.to = os.pipe()
        self.back, ours = os.pipe()
        words = [*words, "--remote-debugging-pipe", "--window-size=1280,1000"]
        self.process = subprocess.Popen(
            [sys.executable, "-c", PIPE, str(theirs), str(ours), *words, "about:blank"],
            pass_fds=(theirs, ours),
            stderr=subprocess.DEVNULL,
        )
        os.close(theirs)
        os.close(ours)
        self.rest, self.count, self.session, self.errors = b"", 0, {}, []
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        found = self.send("Target.attachToTarget", targetId=target, flatten=True)
        self.session = {"sessionId": found["sessionId"]}
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")
        self.send("Page.navigate", url=address)

    def send(self, method, **params):
        """Gives an order and returns the answer; notes requests and errors."""
        self.count += 1
        order = {"id": self.count, "method": method, "params": params, **self.session}
        os.write(self.to, json.dumps(order).encode() + b"\0")
        while True:
            while b"\0" not in self.rest:
                assert select.select([self.back], [], [], PATIENCE)[0], method
                self.rest += os.read(self.back, 1 << 20)
            text, _, self.rest = self.rest.partition(b"\0")
            said = json.loads(text)
            if said.get("id") == self.count:
                return said["result"]
            if said.get("method") in ("Log.entryAdded", "Runtime.exceptionThrown"):
                self.errors.append(said)
            address = said.get("params", {}).get("request", {}).get("url", "")
            if address and not address.startswith(("file:", "data:", "blob:")):
                self.errors.append(address)

    def ask(self, script):
        """Returns the value of an expression."""
        found = self.send("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def wait(self, script):
        """Returns the value of an expression once it is true."""
        end = time.monotonic() + PATIENCE
        while not (value := self.ask(script)):
            assert time.monotonic() < end, f"never true: {script}"
            time.sleep(0.05)
        return value

    def point(self, script, press=False):
        """Moves the mouse to where an expression says, and presses it there."""
        x, y = self.ask(script)
        at = {"x": x, "y": y}
        self.send("Input.dispatchMouseEvent", type="mouseMoved", **at)
        for kind in ("mousePressed", "mouseReleased") if press else ():
            given = {"button": "left", "clickCount": 1, **at}
            self.send("Input.dispatchMouseEvent", type=kind, **given)

    def close(self):
        os.write(self.to, json.dumps({"id": 0, "method": "Browser.close"}).encode())
        os.write(self.to, b"\0")
        self.process.wait(PATIENCE)
        os.close(self.to)
        os.close(self.back)


@pytest.fixture
def driven(started, text, tmp_path):
    (tmp_path / "index.html").write_text(text)
    found = Driven(started, (tmp_path / "index.html").as_uri())
    yield found
    found.close()


MIDDLE = """(each => { each.scrollIntoView({block: "center"});
const box = each.getBoundingClientRect();
return [box.x + box.width / 2, box.y + box.height / 2]; })"""
LINES = "figure.renderers.filter(each => each.glyph.type === 'Line')"
LINE = """(() => { document.querySelector(".curves").scrollIntoView({block: "center"});
const view = Bokeh.index.get_by_id(figure.id), box = view.canvas_view.el
  .getBoundingClientRect(), data = figure.renderers[1].data_source.data, at = 1;
return [box.x + view.frame.x_scale.compute(data.step[at]),
        box.y + view.frame.y_scale.compute(data.mean[at])]; })()"""
TIP = """(function seek(root) { for (const each of root.querySelectorAll("*")) {
  if (each.classList.contains("bk-Tooltip") || each.classList.contains("bk-tooltip"))
    return each.shadowRoot?.textContent || each.textContent;
  const found = each.shadowRoot && seek(each.shadowRoot);
  if (found) return found; } return ""; })(document)"""


@pytest.mark.slow
def test_curves_answer_the_mouse_in_a_browser(driven, result):
    """And no request leaves the page, nor does it log an error."""
    driven.wait("document.documentElement?.dataset.curves === 'drawn'")
    alphas = (
        f"{LINES}.map(each => each.glyph.line_alpha.value ?? each.glyph.line_alpha)"
    )
    bands = "figure.renderers.filter(each => each.visible).length"
    assert driven.ask(alphas) == [1, 1, 1] and driven.ask(bands) == 3
    button = "document.querySelector('.legend [data-curve=\"0\"]')"
    driven.point(f"{MIDDLE}({button})")
    driven.wait(f"({alphas}).join() === '1,0.15,0.15' && {bands} === 4")
    driven.point("[1, 1]")
    driven.wait(f"({alphas}).join() === '1,1,1' && {bands} === 3")
    driven.point(f"{MIDDLE}({button})", press=True)
    driven.point("[1, 1]")
    driven.wait(f"({alphas}).join() === '1,0.15,0.15'")
    assert driven.ask(f"{button}.getAttribute('aria-pressed')") == "true"
    driven.point(LINE)
    said = driven.wait(TIP)
    assert "he_normal()" in said and f"{result[0].steps[1]}" in said
    # Failures are folded, until one asks for them; a click on a heading sorts.
    shown = "[...document.querySelectorAll('#table tbody tr')].filter(row => "
    shown += "row.checkVisibility()).map(row => row.cells[0].textContent)"
    few = driven.ask(shown)
    driven.point(f"{MIDDLE}(document.querySelector('#failures summary'))", press=True)
    assert 0 < len(few) < len(driven.ask(shown)) == 3
    for order in ("ascending", "descending"):
        head = "document.querySelector('#table thead th button')"
        driven.point(f"{MIDDLE}({head})", press=True)
        names = sorted(driven.ask(shown), key=str.lower, reverse=order != "ascending")
        assert driven.ask(shown) == names
    driven.send(
        "Emulation.setEmulatedMedia",
        features=[{"name": "prefers-color-scheme", "value": "dark"}],
    )
    dark = "getComputedStyle(document.documentElement).getPropertyValue('--c0').trim()"
    driven.wait(f"{LINES}[0].glyph.line_color.value === {dark}")
    assert driven.errors == []
