"""Raw downloads as people have them on disk: who recognises a folder, and which images lie in it.

One module per kind of layout. A layout is a function from a folder to its content (raw images, and findings about what
isn't used as it lies there), or to None where the folder isn't of that layout; it reads names, tables and headers, and
never a pixel.
"""

from medfsad_bench.layouts.discovery import LAYOUTS, OWN_LAYOUTS, Download, LeftAlone, layout_of
from medfsad_bench.layouts.finding import Content, Finding
from medfsad_bench.layouts.raw import Box, RawImage
from medfsad_bench.layouts.search import recognise

__all__ = [
    "LAYOUTS",
    "OWN_LAYOUTS",
    "Box",
    "Content",
    "Download",
    "Finding",
    "LeftAlone",
    "RawImage",
    "layout_of",
    "recognise",
]
