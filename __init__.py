"""RealCompo as a ComfyUI node pack.

ComfyUI loads this folder under a name made from its path: import relatively, never as `nodes` or `realcompo_core`.
"""

NODE_CLASS_MAPPINGS: dict[str, type] = {}
