"""Long runs in shards, which resume after whatever stopped them; and what differs between two."""

from whetsim.shards.difference import RunDifference, diff_runs
from whetsim.shards.manifest import Origin, read_manifest
from whetsim.shards.merging import ShardedComparison
from whetsim.shards.running import Rerun, compare_sharded, rerun, run_sharded

__all__ = [
    "Origin",
    "Rerun",
    "RunDifference",
    "ShardedComparison",
    "compare_sharded",
    "diff_runs",
    "read_manifest",
    "rerun",
    "run_sharded",
]
