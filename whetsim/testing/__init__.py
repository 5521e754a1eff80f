"""What proves a backend: a slow oracle, networks with known spikes, and a conformance suite."""
