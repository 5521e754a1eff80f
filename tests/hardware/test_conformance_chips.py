"""Every emulated chip passes the suite; its declared registers say what must run."""

from whetsim.testing.conformance import BackendConformance


class TestLoihi(BackendConformance):
    backend = "loihi"


class TestTrueNorth(BackendConformance):
    backend = "truenorth"


class TestSpinnaker(BackendConformance):
    backend = "spinnaker"


class TestOdin(BackendConformance):
    backend = "odin"
