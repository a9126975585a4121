"""Inputs that are damaged or extreme, tried on the program: the kinds of them, and what must hold for each."""
