"""TokenCompose: token-level supervision of cross-attention. The losses and the trainer are not written yet."""
