"""Engines, one module each; found by entry point, imported when used."""
