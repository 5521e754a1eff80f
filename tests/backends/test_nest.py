"""The NEST backend passes the suite, with one thread and with two."""

from typing import ClassVar

import pytest

from whetsim.testing.conformance import BackendConformance

pytestmark = pytest.mark.simulator


class TestNest(BackendConformance):
    backend = "nest"


class TestNestOnTwoThreads(BackendConformance):
    backend = "nest"
    options: ClassVar = {"threads": 2}
    max_examples = 10
