"""Faults put into warm starts, one after the other, at every point where one can be."""
