"""Chips as backends: the arithmetic of each, bit by bit.

A network must have been quantized for the chip. What a chip's registers cannot hold is refused;
whether it fits on cores is what a placement says.
"""
