"""How `whetsim_hardware.place` works: blocks of neurons, what they need, and where they go."""
