"""Benchmarks on the command line."""
