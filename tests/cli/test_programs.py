"""Programs kept by the command line: what is damaged or foreign is never believed."""

import os
import subprocess
import sys
import zlib
from types import SimpleNamespace

import pytest

from jaxinit._lock import Lock
from jaxinit.cli import _programs
from jaxinit.cli._programs import find_folder, keep_programs

NAMES = ("jit_a-1-cache", "jit_b-2-cache")


class Config(SimpleNamespace):
    """Stands for JAX's."""

    def update(self, name, value):
        setattr(self, name, value)


@pytest.fixture
def config(monkeypatch, tmp_path):
    """A JAX without a cache, and a home without programs."""
    made = Config(jax_compilation_cache_dir=None, jax_enable_compilation_cache=True)
    monkeypatch.setattr(_programs, "jax", SimpleNamespace(config=made, __version__="1"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return made


@pytest.fixture
def folder(config):
    """A folder in which a command has left two programs."""
    with keep_programs():
        for name in NAMES:
            (find_folder() / name).write_bytes(zlib.compress(os.urandom(1300)))
    return find_folder()


def keep_programs_again():
    _programs.jax.config.jax_compilation_cache_dir = None
    return keep_programs()


def left(folder):
    """Opens the folder once more, and returns the programs that JAX would see."""
    with keep_programs_again():
        return sorted(path.name for path in folder.glob("*-cache"))


def test_programs_are_kept(config, folder):
    assert left(folder) == sorted(NAMES)
    assert config.jax_compilation_cache_dir == str(folder)
    assert config.jax_persistent_cache_min_compile_time_secs == 0
    assert folder.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("at", [0, 57, -1])
def test_a_flipped_bit(folder, at):
    path = folder / NAMES[0]
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)
    assert left(folder) == [NAMES[1]]


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(path.read_bytes()[:-7]),
        lambda path: path.write_bytes(b""),
        lambda path: path.with_name(path.name + ".sha256").unlink(),
        lambda path: path.with_name(path.name + ".sha256").write_bytes(b""),
        lambda path: path.unlink(),
        lambda path: (path.unlink(), path.mkdir()),
        lambda path: (path.unlink(), path.symlink_to(path)),
        lambda path: folder_for(path.with_name(path.name + ".sha256")),
    ],
    ids=[
        *("cut", "empty", "no digest", "empty digest", "gone"),
        *("a folder", "a link to itself", "a folder as digest"),
    ],
)
def test_damage(folder, damage):
    damage(folder / NAMES[0])
    assert left(folder) == [NAMES[1]]


def folder_for(path):
    path.unlink()
    (path / "inner").mkdir(parents=True)


def test_what_is_cut_when_it_is_written_is_not_vouched_for(folder):
    whole = (folder / NAMES[0]).read_bytes()
    with keep_programs_again():
        (folder / "jit_c-3-cache").write_bytes(whole[:-7])
        (folder / "jit_d-4-cache").write_bytes(b"no program")
    assert left(folder) == sorted(NAMES)


@pytest.mark.parametrize("said", ["", "another machine", None, folder_for])
def test_programs_of_another_machine_or_version(folder, said):
    origin = folder / "origin"
    if said is folder_for:
        folder_for(origin)
    else:
        origin.unlink() if said is None else origin.write_text(said)
    assert left(folder) == []
    assert origin.is_file()
    (folder / NAMES[0]).write_bytes(b"new")
    assert left(folder) == []  # it has no digest


def test_the_oldest_go_where_they_are_too_many(folder, monkeypatch):
    monkeypatch.setattr(_programs, "_MOST", 2000)
    os.utime(folder / NAMES[1], (1, 1))
    assert left(folder) == [NAMES[0]]


def test_what_another_command_uses_is_left_alone(config, folder):
    lock = Lock(folder)
    (folder / NAMES[0]).write_bytes(b"half written")
    assert left(folder) == sorted(NAMES) and config.jax_compilation_cache_dir is None
    lock.close()
    assert left(folder) == [NAMES[1]]


def test_a_folder_that_others_can_write_to(config, folder):
    folder.chmod(0o770)
    assert left(folder) == sorted(NAMES) and config.jax_compilation_cache_dir is None


@pytest.mark.parametrize("name", ["file", "no text \udcff"])
def test_no_place_for_a_folder(config, tmp_path, monkeypatch, name):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / name))
    with keep_programs():
        assert config.jax_compilation_cache_dir is None


@pytest.mark.parametrize(
    "given",
    [{"jax_compilation_cache_dir": "mine"}, {"jax_enable_compilation_cache": False}],
)
def test_what_the_user_has_set_stays(config, given):
    vars(config).update(given)
    before = dict(vars(config))
    with keep_programs():
        assert vars(config) == before
    assert not find_folder().exists()


def test_the_folder_is_in_the_home_by_default(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert find_folder() == tmp_path / ".cache" / "jaxinit" / "programs"


@pytest.mark.slow
def test_a_command_reads_what_the_last_one_wrote(tmp_path):
    """A spoiled program is compiled again, and no command says anything."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("JAX_")}
    env |= {"XDG_CACHE_HOME": str(tmp_path)}
    words = [
        sys.executable,
        "-m",
        "jaxinit",
        "show",
        "he_normal()",
        "--shape",
        "8",
        "8",
    ]
    folder = tmp_path / "jaxinit" / "programs"

    def run(*more):
        done = subprocess.run([*words, *more], env=env, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")
        entries = {p.name: p.read_bytes() for p in folder.glob("*-cache")}
        return done.stdout, entries

    said, none = run("--no-cache")
    assert not none and not folder.exists()
    again, entries = run()
    assert again == said and entries
    for name in entries:
        (folder / name).write_bytes(b"spoiled")
    last, mended = run()
    assert last == said and mended.keys() == entries.keys()
    assert b"spoiled" not in mended.values()
