"""Reads the headers of compressed pictures: what a packet gives and needs, without decoding it."""
