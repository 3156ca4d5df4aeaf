"""The C compiler and the cache of compiled units: which one is found, what its failures say, bad folders, many processes."""

from __future__ import annotations

import errno
import os
import shlex
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

import irconv
import irconv.nn.functional as F
from irconv.backends.native import compiler as compilers
from irconv.backends.native.backend import native_problem
from irconv.backends.native.cache import DIGEST, SHARE, Cache, default_folder, default_limit
from irconv.backends.native.compiler import FLAGS, Compiler, accepted, find_compiler, knows_float16, trimmed
from irconv.backends.native.library import Library, Unit, key_of
from irconv.errors import BackendError
from tests.backends.handwritten import compiler_or_skip

ANSWER = Unit('__attribute__((visibility("default"))) int answer(void) { return 42; }\n', (), "answer")
OTHER = Unit('__attribute__((visibility("default"))) int answer(void) { return 43; }\n', (), "other")
PARENT_LIMIT = 1 << 30


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """An empty cache folder."""
    compiler_or_skip()
    monkeypatch.setenv("IRCONV_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def entries(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.so"))


def script(path: Path, text: str) -> str:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


# --- the compiler ------------------------------------------------------------------------------------------------------------


def test_the_flags_never_let_the_process_change():
    assert not {"-ffast-math", "-Ofast", "-funsafe-math-optimizations"} & set(FLAGS)


def test_no_compiler(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("IRCONV_CC", raising=False)
    monkeypatch.setattr(compilers.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(BackendError, match="there is no C compiler") as caught:
        find_compiler()
    assert "pip install irconv[native]" in caught.value.hint
    with pytest.raises(BackendError, match="there is no C compiler"):
        irconv.compile(lambda x: x + 1, irconv.TensorSpec((3,)), backend="native")
    assert native_problem() is not None
    exe = irconv.compile(lambda x: x + 1, irconv.TensorSpec((3,)))
    assert exe.backend == "numpy" and exe(np.zeros(3, np.float32)).tolist() == [1, 1, 1]


def test_auto_is_native_where_there_is_a_compiler():
    compiler_or_skip()
    assert irconv.compile(lambda x: x + 1, irconv.TensorSpec((3,))).backend == "native"


@pytest.mark.parametrize(
    ("named", "words"),
    [
        ("no-such-compiler", "there is no program 'no-such-compiler'"),
        ("'unbalanced", "is not a command"),
        ("false", "status 1"),
    ],
)
def test_a_named_compiler_that_is_none(monkeypatch, named, words):
    monkeypatch.setenv("IRCONV_CC", named)
    with pytest.raises(BackendError, match=words):
        find_compiler()
    assert native_problem() is not None


def test_a_named_compiler_with_arguments(monkeypatch, folder, tmp_path):
    real = find_compiler().command[0]
    log = tmp_path / "log"
    wrapper = script(tmp_path / "my compiler", f'echo "$@" >> "{log}"\nexec "{real}" "$@"')
    monkeypatch.setenv("IRCONV_CC", f"'{wrapper}' -DANSWER=44")
    unit = Unit('__attribute__((visibility("default"))) int answer(void) { return ANSWER; }\n', (), "answer")
    assert Library().load(unit).answer() == 44
    assert "-DANSWER=44" in log.read_text() and "-O3" in log.read_text()


def test_a_compiler_that_works_but_fails_on_everything_gives_numpy(monkeypatch, folder, tmp_path):
    compilers._find.cache_clear()
    monkeypatch.setenv(
        "IRCONV_CC", script(tmp_path / "cc", 'if [ "$1" = --version ]; then echo fake 1.0; else echo no headers; exit 1; fi')
    )
    with pytest.raises(BackendError, match="no headers") as caught:
        Library().load(ANSWER)
    assert "@answer" in caught.value.message and "fake 1.0" in caught.value.message
    kept = Path(caught.value.hint.removeprefix("the source is kept in "))
    assert kept.read_text() == ANSWER.source


def test_a_compiler_that_makes_rubbish(monkeypatch, folder, tmp_path):
    fake = 'if [ "$1" = --version ]; then echo fake 2.0; exit; fi\nwhile [ "$1" != -o ]; do shift; done\necho rubbish > "$2"'
    monkeypatch.setenv("IRCONV_CC", script(tmp_path / "cc", fake))
    with warnings.catch_warnings(), pytest.raises(BackendError, match="cannot be loaded"):
        warnings.simplefilter("error")
        Library().load(ANSWER)
    assert entries(folder) == []


def test_a_compiler_that_does_not_end(tmp_path):
    slow = Compiler((script(tmp_path / "cc", "sleep 60 & wait"),), "slow", "")
    source = tmp_path / "x.c"
    source.write_text(ANSWER.source)
    assert slow.compile(source, tmp_path / "x.so", (), timeout=0.3) == "no end after 0.3 seconds"


def test_flags_that_a_compiler_does_not_know_are_left_out():
    compiler_or_skip()
    found = find_compiler()
    assert accepted(found, (*FLAGS, "-mno-such-flag-exists")) == FLAGS


def test_a_compiler_without_float16_leaves_it_to_array_kernels(monkeypatch, folder):
    def program(x, w):
        y = F.conv2d(x, w, padding=1).relu()
        return F.max_pool2d(y, 2), y.astype("float32").exp()

    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(shape).astype(np.float16) / 4 for shape in ((2, 3, 6, 8), (5, 3, 3, 3))]
    assert knows_float16(Compiler((*find_compiler().command, "-D_Float16=float"), "", ""), ())
    monkeypatch.setenv("IRCONV_CC", f"{shlex.join(find_compiler().command)} -D_Float16=missing")
    assert not knows_float16(find_compiler(), ())
    compiled = irconv.compile(program, *arrays, backend="native")
    for found, wanted in zip(compiled(*arrays), irconv.compile(program, *arrays, backend="numpy")(*arrays), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=5e-3, atol=5e-3)
    assert not any("_Float16" in text for text in compiled.executable.sources.values())


def test_long_messages_are_trimmed():
    said = trimmed("\n".join(f"error {i} {'x' * 1000}" for i in range(100)))
    assert said.startswith("error 0 ") and said.endswith("... and 88 more lines")
    assert len(said) < 5000


# --- the cache ---------------------------------------------------------------------------------------------------------------


def test_a_unit_is_compiled_once_for_all_processes(folder):
    first, second = Library(), Library()
    assert first.load(ANSWER).answer() == 42 and first.load(ANSWER).answer() == 42
    assert second.load(Unit(ANSWER.source, (), "another name")).answer() == 42
    assert (first.compilations, second.compilations) == (1, 0)
    assert len(entries(folder)) == 1 == len(list(folder.iterdir()))
    assert folder.stat().st_mode & 0o777 == 0o700


def test_the_key_tells_sources_flags_compilers_and_machines_apart(monkeypatch):
    compiler_or_skip()
    found = find_compiler()
    local = Unit(ANSWER.source, ("-march=native",))
    keys = [
        key_of(ANSWER, found),
        key_of(OTHER, found),
        key_of(Unit(ANSWER.source, ("-g",)), found),
        key_of(ANSWER, Compiler(found.command, "another version", found.stamp)),
        key_of(ANSWER, Compiler(found.command, found.version, "replaced")),
        key_of(local, found),
    ]
    assert len(set(keys)) == len(keys)
    monkeypatch.setattr("irconv.backends.native.library.processor", lambda: "another processor")
    assert key_of(local, found) != keys[-1]
    assert key_of(ANSWER, found) == keys[0]


@pytest.mark.parametrize(
    "damage",
    [
        lambda contents: b"",
        lambda contents: contents[: len(contents) // 2],
        lambda contents: contents[:-1],
        lambda contents: bytes([contents[0] ^ 1]) + contents[1:],
        lambda contents: contents[:2000] + b"\xff" * 100 + contents[2100:],
        lambda contents: b"\0" * len(contents),
        lambda contents: contents[:-DIGEST] + b"\0" * DIGEST,
    ],
)
def test_damaged_entries_are_made_again(folder, damage):
    Library().load(ANSWER)
    (entry,) = entries(folder)
    good = entry.read_bytes()
    entry.write_bytes(damage(good))
    again = Library()
    assert again.load(ANSWER).answer() == 42
    assert again.compilations == 1
    assert entry.read_bytes()[-DIGEST:] != b"\0" * DIGEST
    last = Library()
    assert last.load(ANSWER).answer() == 42 and last.compilations == 0


def test_damage_after_loading_does_no_harm(folder):
    code = Library().load(ANSWER)
    (entry,) = entries(folder)
    entry.write_bytes(b"")
    assert code.answer() == 42
    entry.unlink()
    assert code.answer() == 42


def test_many_sources_are_compiled_side_by_side(folder):
    library = Library()
    units = [Unit(ANSWER.source.replace("42", str(i)), ()) for i in range(7)]
    library.prepare([*units, *units])
    assert library.compilations == 7 and len(entries(folder)) == 7
    assert [library.load(unit).answer() for unit in units] == list(range(7))


def test_one_failure_among_many_is_told(folder):
    with pytest.raises(BackendError, match="no good"):
        Library().prepare([ANSWER, Unit("#error no good\n", ()), OTHER])


LOADS = """
import sys
from irconv.backends.native.library import Library, Unit
sys.stdin.readline()
library = Library()
codes = [library.load(Unit(source, ())).answer() for source in sys.argv[1:]]
print(codes)
"""


def test_processes_that_compile_the_same_thing(folder):
    command = [sys.executable, "-c", LOADS, ANSWER.source, OTHER.source]
    streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    running = [subprocess.Popen(command, **streams) for _ in range(3)]
    for process in running:
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in running:
        output, errors = process.communicate(timeout=120)
        assert (output, errors, process.returncode) == ("[42, 43]\n", "", 0)
    assert len(entries(folder)) == 2 == len(list(folder.iterdir()))


def test_the_folder_stays_within_its_size(folder, monkeypatch):
    library = Library()
    library.load(ANSWER)
    size = entries(folder)[0].stat().st_size
    monkeypatch.setenv("IRCONV_CACHE_BYTES", str(3 * size + size // 2))
    for i in range(6):
        assert library.load(Unit(ANSWER.source.replace("42", str(i)), ())).answer() == i
    assert len(entries(folder)) == 3
    monkeypatch.setenv("IRCONV_CACHE_BYTES", "0")
    assert library.load(OTHER).answer() == 43
    assert entries(folder) == []


def test_the_entry_used_last_stays(folder):
    cache = Cache(folder, 300)
    for position, key in enumerate("abc"):
        cache.store(key, b"x" * 100)
        os.utime(folder / f"{key}.so", (position + 1, position + 1))
    assert cache.find("a") == b"x" * 100
    cache.trim()
    assert [path.stem for path in entries(folder)] == ["a", "c"]


def kept_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in entries(folder))


def test_a_folder_is_not_looked_through_for_each_entry(folder, monkeypatch):
    looks = []
    trim = Cache.trim
    monkeypatch.setattr(Cache, "trim", lambda self: looks.append(self) or trim(self))
    cache = Cache(folder, 64 * 1000)
    for number in range(200):
        cache.store(str(number), b"x" * (1000 - DIGEST))
        cache.tidy()
        assert kept_bytes(folder) <= cache.limit
    assert len(looks) <= 200 // 4  # a sixteenth of the limit is four entries
    assert {path.stem for path in entries(folder)} >= {str(number) for number in range(140, 200)}


def test_processes_together_stay_near_the_limit(folder):
    caches = [Cache(folder, 64 * 1000) for _ in range(3)]
    for number in range(300):
        cache = caches[number % 3]
        cache.store(str(number), b"x" * (1000 - DIGEST))
        cache.tidy()
        assert kept_bytes(folder) <= cache.limit + 3 * cache.limit // SHARE
    assert len(entries(folder)) >= 60


def test_what_others_left_behind_goes_in_time(folder):
    cache = Cache(folder, PARENT_LIMIT)
    old, new = folder / "work-old", folder / "work-new"
    for path in (old, new):
        path.mkdir()
        (path / "kernel.c").write_text("x")
    os.utime(old, (1, 1))
    cache.trim()
    assert not old.exists() and new.exists()


# --- folders that cannot be used ---------------------------------------------------------------------------------------------


def falls_back(words: str) -> None:
    """A fresh library works all the same, after one warning."""
    library = Library()
    with pytest.warns(RuntimeWarning, match=words) as caught:
        answers = [library.load(unit).answer() for unit in (ANSWER, OTHER)]
    assert answers == [42, 43]
    assert len([each for each in caught if each.category is RuntimeWarning]) == 1
    temporary = library._temporary.folder
    assert temporary.stat().st_mode & 0o777 == 0o700
    assert len(entries(temporary)) <= 2


def test_a_folder_that_cannot_be_made(folder, monkeypatch):
    folder.write_text("a file")
    falls_back("exists|folder")
    monkeypatch.setenv("IRCONV_CACHE", "/proc/no/such/place")
    falls_back("cannot keep compiled code in /proc/no/such/place")


def test_a_folder_that_others_can_write(folder):
    folder.mkdir()
    folder.chmod(0o777)
    falls_back("other users")


def test_a_folder_that_is_a_link(folder, tmp_path):
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    folder.symlink_to(tmp_path / "elsewhere")
    falls_back("link")
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_folder_of_another_user(folder, monkeypatch):
    folder.mkdir(mode=0o700)
    monkeypatch.setattr(os, "getuid", lambda: os.stat(folder).st_uid + 1)
    with pytest.raises(PermissionError, match="another user"):
        Cache(folder, PARENT_LIMIT)


@pytest.mark.skipif(os.getuid() == 0, reason="root may write to every folder")
def test_a_folder_that_cannot_be_written(folder):
    folder.mkdir(mode=0o500)
    falls_back("Permission denied")


def test_a_full_folder(folder, monkeypatch):
    store = Cache.store

    def full(self, key, library):
        if self.folder == folder:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        store(self, key, library)

    monkeypatch.setattr(Cache, "store", full)
    falls_back("No space left")
    assert entries(folder) == [] == list(folder.iterdir())


def test_where_the_folder_is(monkeypatch, tmp_path):
    monkeypatch.setenv("IRCONV_CACHE", "~/somewhere")
    assert default_folder() == Path.home() / "somewhere"
    monkeypatch.delenv("IRCONV_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_folder() == tmp_path / "irconv"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative/paths/do/not/count")
    assert default_folder() == Path.home() / ".cache" / "irconv"
    monkeypatch.setenv("IRCONV_CACHE_BYTES", "many")
    with pytest.raises(BackendError, match="not a number of bytes"):
        default_limit()
    monkeypatch.delenv("IRCONV_CACHE_BYTES")
    assert default_limit() == 2**30
