"""English prompts read into scene graphs: see `grammar`."""
