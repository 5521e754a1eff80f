"""``python -m whetsim.cli``."""

from whetsim.cli import main

main()
