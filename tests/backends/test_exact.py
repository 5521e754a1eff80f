"""The exact backend passes the suite."""

from whetsim.testing.conformance import BackendConformance


class TestExact(BackendConformance):
    backend = "exact"
    max_examples = 60
