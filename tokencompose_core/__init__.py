"""TokenCompose: fine-tuning in which each noun's cross-attention learns to fall on its object."""
