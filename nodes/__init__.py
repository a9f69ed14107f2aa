"""ComfyUI nodes: schemas around `..realcompo_core`. Not to be imported as top-level `nodes`, which is ComfyUI's own."""
