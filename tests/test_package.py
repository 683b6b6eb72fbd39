"""What a newcomer meets first: the package, its screen, its help and its errors."""

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

import supair
from supair.config import ConfigError
from supair.detect.load import find_model

ROOT = Path(supair.__file__).parents[1]
SCRIPTS = sorted(p.name for p in ROOT.glob("reproduce/*.py") if "common.run(main)" in p.read_text())
TALKS = """import os, sys
from supair import cli
def main():
    file = open(sys.argv[2], "w")
    import tensorflow
    os.write(2, sys.argv[1].encode())
    print("progress", file=sys.stderr)
    if sys.argv[2] == os.devnull:
        raise cli.ConfigError("why")
    return 0
cli.run(main)
"""


def run(*command, code=0, environment=(), **options):
    """Standard output and error of a command that ends with a code."""
    options["env"] = {**os.environ, "PYTHONPATH": "", **dict(environment)}
    command = [str(word) for word in command]
    done = subprocess.run(command, capture_output=True, text=True, **options)
    assert done.returncode == code, done.stderr
    return done.stdout, done.stderr


def test_a_wheel_holds_two_packages_and_runs_anywhere(tmp_path):
    """In an empty environment, which finds dependencies in this one, beside another `data`."""
    pytest.importorskip("setuptools", "77")
    source, folder = tmp_path / "source", tmp_path / "elsewhere"
    for name in ("supair", "rat_spn", "data", "reproduce", "tests"):
        unused = shutil.ignore_patterns("__pycache__", "recorded", "pretrained", "*.npz", "*.h5")
        shutil.copytree(ROOT / name, source / name, ignore=unused)
    for name in ("pyproject.toml", "requirements.txt", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    pip, quiet = [sys.executable, "-m", "pip", "-q"], ["--no-deps", "--no-index"]
    options = [*quiet, "--no-build-isolation", "--wheel-dir", tmp_path]
    run(*pip, "wheel", *options, source)
    [wheel] = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        about = f"supair-{supair.__version__}.dist-info"
        metadata = archive.read(f"{about}/METADATA").decode()
    assert {name.split("/")[0] for name in names} == {"supair", "rat_spn", about}
    assert {"supair/py.typed", "rat_spn/py.typed", "supair/detect/load.py"} <= names
    extra = {"requirements.txt": "", "tests/requirements.txt": '; extra == "test"'}
    for file, of_extra in extra.items():
        listed = re.findall(r"^[\w-]+", (ROOT / file).read_text(), re.MULTILINE)
        needed = re.findall(rf"^Requires-Dist: ([\w-]+)[^;\n]*{of_extra}$", metadata, re.MULTILINE)
        assert needed == listed

    run(sys.executable, "-m", "venv", "--without-pip", tmp_path / "empty")
    python = tmp_path / "empty" / "bin" / "python"
    run(*pip, "--python", python, "install", *quiet, wheel)
    [packages] = (tmp_path / "empty").glob("lib/python*/site-packages")
    own = [path for path in sys.path if path.endswith("-packages")]
    (packages / "others.pth").write_text("\n".join(own))
    (folder / "data").mkdir(parents=True)
    (folder / "data" / "__init__.py").write_text("raise ImportError('not the data set package')")
    weights = ROOT / "reproduce" / "pretrained" / "multi_mnist"
    np.savez(folder / "images.npz", images=np.zeros([2, 50, 50], np.uint8))
    detect = [python.with_name("supair"), "detect", *"--images images.npz --output out".split()]
    out, err = run(*detect, "--model", weights, cwd=folder)
    assert out.startswith("0 objects in 2 images") and err.startswith("warning: uniform")
    _, err = run(*detect, "--model", "multi_mnist", cwd=folder, code=1)
    assert "PATH" in err and "multi_mnist" in err


def test_weights_are_found_by_name_in_a_checkout(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sprites").mkdir()  # without a model
    assert find_model("sprites") == ROOT / "reproduce" / "pretrained" / "sprites"
    (tmp_path / "sprites" / "config.json").touch()
    assert find_model("sprites") == Path("sprites")
    with pytest.raises(ConfigError, match="sprite, .*grid_mnist|grid_mnist.*sprite$"):
        find_model("sprite")


WARNING = "W0000 careful\n"
TALKING = [("I0000 hello\n", "", False), (WARNING, "", True)]
TALKING += [(WARNING, "0", True), (WARNING, "2", False), (WARNING, "012", False)]


@pytest.mark.parametrize("said, closed, kept", TALKING)
def test_native_lines_go_to_a_log_that_an_error_names(said, closed, kept, tmp_path):
    """With a stand-in for TensorFlow; the log goes at a good end, or if no warning is in it.

    Closed descriptors become no files of ours, which native lines would go to.
    """
    logs = tmp_path / "logs"
    logs.mkdir()
    (tmp_path / "tensorflow.py").touch()
    options = {"environment": {"PYTHONPATH": f"{tmp_path}:{ROOT}", "TMPDIR": str(logs)}}
    shell = " ".join(['exec "$@"', *(f"{number}>&-" for number in closed)])
    talk = "bash", "-c", shell, "bash", sys.executable, "-c", TALKS, said
    progress = "" if "2" in closed else "progress\n"
    assert run(*talk, tmp_path / "made", **options) == ("", progress)
    assert (tmp_path / "made").read_text() == "" and not list(logs.iterdir())
    _, err = run(*talk, os.devnull, code=1, **options)
    left = list(logs.iterdir())
    assert [log.read_text() for log in left] == [said] * kept
    where = "".join(f"; what TensorFlow said: {log}" for log in left)
    assert err == (f"{progress}error: why{where}\n" if progress else "")


HEAVY = re.compile(r"\|\s+(tensorflow|keras|matplotlib)$", re.MULTILINE)
COMMANDS = [
    *(([f"reproduce/{name}", "--help"], 0) for name in SCRIPTS),
    *(([f"-m{name}", "--help"], 0) for name in ("supair", "data")),
    (["reproduce/table2.py", "--epochs", "many"], 2),
    (["reproduce/table2.py", "--models", "air", "air"], 2),
    (["reproduce/table2.py", "--recorded", "--quick"], 2),
    (["reproduce/table2.py", "--dask", "tcp://h:1"], 1),  # --threads is missing
    (["reproduce/fig5_learning.py", "--seeds", "-1"], 2),
    (["reproduce/fig6_noise.py", "--pretrained", "--mnist", "missing"], 1),
    (["reproduce/digits.py", "--mnist", "missing"], 1),
    (["reproduce/queries.py", "--model", "missing"], 1),
    (["reproduce/benchmark.py", "--against", "missing"], 2),
    (["reproduce/records.py", "missing"], 1),
    ("-m supair train --images README.md --output x".split(), 1),
    ("-m supair detect --images missing --output x --model sprites".split(), 1),
    ("-m supair detect --images README.md --output x --model missing".split(), 1),
    ("-m data make cifar".split(), 1),
    ("-m data inspect missing".split(), 1),
]


@pytest.mark.parametrize("command, code", COMMANDS, ids=[" ".join(c) for c, _ in COMMANDS])
def test_help_and_usage_errors_come_within_a_second(command, code):
    """Of processor time beyond that of `python -c pass`; and without TensorFlow."""
    times = [os.times()]
    run(sys.executable, "-c", "pass")
    times.append(os.times())
    out, err = run(sys.executable, "-X", "importtime", *command, code=code, cwd=ROOT)
    times.append(os.times())
    start, least, end = (of.children_user + of.children_system for of in times)
    imports = [line for line in err.splitlines() if line.startswith("import time:")]
    told = [line for line in err.splitlines() if line not in imports]
    assert len(imports) > 50 and not re.search(HEAVY, "\n".join(imports))
    assert (out if code == 0 else told[-1]).count("error:") == bool(code)
    assert end - least < least - start + 1


def test_keras_runs_on_tensorflow_whatever_the_settings_say(tmp_path):
    (tmp_path / "keras.json").write_text('{"backend": "torch"}')
    others = {"KERAS_BACKEND": "jax", "KERAS_HOME": str(tmp_path)}
    code = "import rat_spn, keras; print(keras.config.backend())"
    out, _ = run(sys.executable, "-c", code, cwd=ROOT, environment=others)
    assert out == "tensorflow\n"


@pytest.mark.parametrize("package", ["rat_spn", "supair"])
def test_keras_on_another_backend_is_refused(package):
    keras = "import sys, types; config = types.SimpleNamespace(backend=lambda: 'jax'); "
    keras += "sys.modules['keras'] = types.SimpleNamespace(config=config); "
    _, err = run(sys.executable, "-c", keras + f"import {package}", cwd=ROOT, code=1)
    assert "jax" in err.splitlines()[-1] and "tensorflow" in err.splitlines()[-1].lower()
