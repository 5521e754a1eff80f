"""Tests of everything that needs no simulator."""
