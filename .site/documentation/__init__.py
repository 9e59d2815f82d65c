"""The documentation as pages beside the board's: made from the Markdown of the repository by `make site`.

    contents.py    which file is which page: contents.toml, the one table of contents
    reference.py   Markdown of the command line and the Python interface, from the program itself
    markdown.py    from Markdown to HTML: anchors, links between pages, pictures, examples
    examples.py    runs the commands and the Python that a page shows, and keeps what they print
    reading.py     reads finished pages: broken links, missing anchors and texts, passages to search
    build.py       the whole site

Not part of the wheel: whoever installs the package reads the site that was made, or `--help`.
"""
