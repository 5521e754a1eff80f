"""Brian2 through PyNN passes the suite."""

import pytest

from whetsim.testing.conformance import BackendConformance

pytestmark = pytest.mark.simulator


class TestPyNNBrian2(BackendConformance):
    backend = "pynn.brian2"
    max_examples = 6
    shrink = False
