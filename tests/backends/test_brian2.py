"""The Brian2 backend passes the suite, compiled and not."""

from typing import ClassVar

import pytest

from whetsim.testing.conformance import BackendConformance

pytestmark = pytest.mark.simulator


class TestBrian2(BackendConformance):
    backend = "brian2"
    max_examples = 12
    shrink = False


class TestBrian2WithoutCompiler(BackendConformance):
    backend = "brian2"
    options: ClassVar = {"target": "numpy"}
    max_examples = 6
    shrink = False
