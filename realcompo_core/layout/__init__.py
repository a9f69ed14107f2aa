"""Layouts: which objects are in a picture, and where."""

from .layout import MAX_OBJECTS, Box, Layout, LayoutObject, layout_schema
from .pose import MIN_CONFIDENCE

__all__ = ["MAX_OBJECTS", "MIN_CONFIDENCE", "Box", "Layout", "LayoutObject", "layout_schema"]
