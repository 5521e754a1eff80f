"""The NEST backend passes the suite, with one thread and with two."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest

import whetsim
from whetsim.errors import UnsupportedError
from whetsim.testing.cases import case
from whetsim.testing.conformance import BackendConformance

pytestmark = pytest.mark.simulator


class TestNest(BackendConformance):
    backend = "nest"


class TestNestOnTwoThreads(BackendConformance):
    backend = "nest"
    options: ClassVar = {"threads": 2}
    max_examples = 10


@pytest.mark.parametrize("threads", [0, -1, True, 1.5, "2", 257])
def test_threads_that_make_no_sense(threads: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    nest = whetsim.get_backend("nest")
    monkeypatch.setattr(nest, "versions", dict)  # no NEST needed
    text = rf"^nest: threads must be a whole number in 1..256 \(got {threads!r}\)"
    with pytest.raises(UnsupportedError, match=text):
        nest.prepare(case("smallest").network, threads=threads)
