"""The suite passes the backend of docs/backends.md, and fails every copy of it with a mistake."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

SUITE = """
from whetsim.testing.conformance import BackendConformance


class TestExample(BackendConformance):
    backend = ClockBackend
    max_examples = 10
    shrink = False
"""

# All in one process, because importing takes longer than finding a mistake.
DRIVER = """
import contextlib, io, json, sys
import pytest

results = []
for file in sys.argv[1:]:
    with contextlib.redirect_stdout(io.StringIO()) as out:
        status = pytest.main([file, "-x", "-q", "--tb=line", "-p", "no:cacheprovider"])
    results.append([int(status), out.getvalue()])
print(json.dumps(results))
"""

EVENTS = "Events(*np.nonzero(raster))"
ADD_BIAS = "v[p.name] += p.bias"
WHEN_BIAS = 'if self.schedule == "pipelined" or since == p.depth:'
CLEAR = "v[p.name][:] = 0"
WHEN_CLEAR = 'if self.schedule == "pipelined" or since == network.depth:'

MISTAKES = {
    "fires above the threshold alone": ("v[p.name] >= p.threshold", "v[p.name] > p.threshold"),
    "threshold one too low": ("v[p.name] >= p.threshold", "v[p.name] >= p.threshold - 1"),
    "threshold of the wrong grid": (">= p.threshold", ">= p.threshold.min()"),
    "keeps charge for the next sample": (CLEAR, "pass"),
    "keeps charge when sequential": (WHEN_CLEAR, 'if self.schedule == "pipelined":'),
    "keeps charge that is negative": (CLEAR, "np.minimum(v[p.name], 0, out=v[p.name])"),
    "leaks": (CLEAR, "v[p.name] //= 2"),
    "keeps spikes for the next run": (
        "arriving = {p.name: np.zeros((n_steps, p.size), dtype=int) for p in network.populations}",
        "arriving = self.__dict__.setdefault('kept', {p.name: np.zeros((999, p.size), dtype=int)"
        " for p in network.populations})",
    ),
    "hands over spikes of long ago": (
        EVENTS,
        "Events(*np.append(np.nonzero(raster), [[-40], [0]], axis=1))",
    ),
    "spikes a step late": ("step + p.delay]", "min(step + p.delay + 1, n_steps - 1)]"),
    "all delays are one step": ("[step + p.delay]", "[step + 1]"),
    "reports steps from one": (EVENTS, "Events(np.nonzero(raster)[0] + 1, np.nonzero(raster)[1])"),
    "reports neurons from one": (
        EVENTS,
        "Events(np.nonzero(raster)[0], (np.nonzero(raster)[1] + 1) % raster.shape[1])",
    ),
    "reports spikes twice": (EVENTS, "Events(*np.repeat(np.nonzero(raster), 2, axis=1))"),
    "drops the last step": ("range(n_steps)", "range(n_steps - 1)"),
    "drops negative weights": ("@ weight", "@ np.maximum(weight, 0)"),
    "drops biases": (ADD_BIAS, "v[p.name] += 0"),
    "drops negative biases": (ADD_BIAS, "v[p.name] += np.maximum(p.bias, 0)"),
    "biases in every step": (WHEN_BIAS, "if True:"),
    "biases in the step of the sample": (
        WHEN_BIAS,
        'if self.schedule == "pipelined" or not since:',
    ),
    "biases with spikes alone": (
        WHEN_BIAS,
        WHEN_BIAS[:-1].replace("if ", "if (") + ") and arriving[p.name][step].any():",
    ),
    "events carry no values": ("= values[sample]", "= values[sample] != 0"),
    "events carry no negative values": ("= values[sample]", "= np.maximum(values[sample], 0)"),
    "weights of one size": ("self.weights[p] = weight", "self.weights[p] = np.sign(weight)"),
    "weights in single precision": ("@ weight", "@ weight.astype('f4').astype(int)"),
    "weights of 32 bits": ("@ weight", "@ weight.astype('i4')"),
    "one projection between two populations": (
        "arriving[p.target][step + p.delay] += ",
        "arriving[p.target][step + p.delay] = ",
    ),
    "says it is further than it is": ("step // self.period + 1, len(values))", "9**9, 9**9)"),
    "prints": ("self.weights = {}", "self.weights = print('built') or {}"),
    "prints past Python": (
        "self.weights = {}",
        "self.weights = {}; __import__('os').write(2, b'built')",
    ),
    "does not close": ("    def events(", "    def close(self): pass\n\n    def events("),
    "takes any option": (
        'name = "clock"',
        'name = "clock"; options = type("", (dict,), {"__contains__": lambda *a: True})()',
    ),
    "declares what it has not": (
        "Capabilities()",
        "Capabilities(schedules=('pipelined', 'sideways'))",
    ),
    "declares registers and refuses nothing": (
        "Capabilities()",
        "Capabilities(integers=__import__('whetsim.arithmetic', fromlist=['-'])"
        ".IntegerFormat(-7, 7, -50, 50))",
    ),
    "has no version": ("np.__version__", "''"),
}

RIGHT = {
    "as it stands": ("Capabilities()", "Capabilities()"),
    "declares one encoding": ("Capabilities()", "Capabilities(encodings=('binary',))"),
    "declares one schedule": ("Capabilities()", "Capabilities(schedules=('sequential',))"),
    "declares 32 bits": ("Capabilities()", "Capabilities(sum_bits=32)"),
    "declares 16 bits": (
        "Capabilities()",
        "Capabilities(encodings=('bitplane',), schedules=('pipelined',), sum_bits=16)",
    ),
    "declares that it rounds": ("Capabilities()", "Capabilities(rounds=True)"),
}
COPIES = RIGHT | MISTAKES


def example() -> str:
    page = (ROOT / "docs" / "backends.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(import numpy.*?)```", page, re.DOTALL)
    return code


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[int, str]]:
    """Exit status and output of the suite for the example as it stands, and every copy of it."""
    folder = tmp_path_factory.mktemp("copies")
    files = []
    for name, (right, wrong) in COPIES.items():
        code = example()
        assert code.count(right) == 1, name
        files.append(folder / f"test_copy_{len(files)}.py")
        files[-1].write_text(code.replace(right, wrong) + SUITE, encoding="utf-8")
    paths = [str(ROOT), str(ROOT / "hardware"), os.environ.get("PYTHONPATH", "")]
    result = subprocess.run(
        [sys.executable, "-c", DRIVER, *map(str, files)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(result.stdout.splitlines()[-1])
    return {name: (status, text) for name, (status, text) in zip(COPIES, found, strict=True)}


@pytest.mark.parametrize("name", RIGHT)
def test_what_is_right_passes(name: str, outcomes: dict[str, tuple[int, str]]) -> None:
    status, output = outcomes[name]
    assert status == 0, output
    assert "skipped" not in output


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_found(mistake: str, outcomes: dict[str, tuple[int, str]]) -> None:
    status, output = outcomes[mistake]
    assert status == 1, output
    assert "1 failed" in output
