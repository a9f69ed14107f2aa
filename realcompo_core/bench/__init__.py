"""The field's benchmarks of compositional generation, as pure functions on what detectors and other models have seen.

Nothing here looks at pictures: `realcompo_cli.bench` makes pictures, shows them to models and keeps what they say.
"""
