"""NEST through PyNN passes the suite."""

import pytest

from whetsim.testing.conformance import BackendConformance

pytestmark = pytest.mark.simulator


class TestPyNNNest(BackendConformance):
    backend = "pynn.nest"
    max_examples = 15
