"""What stops a site from being built."""

from medfsad_bench.errors import MedfsadError


class SiteError(MedfsadError):
    """A page can't be made: a link leads nowhere, a picture has no text, an example fails, a file isn't listed."""
